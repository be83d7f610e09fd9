//! The topology in a real consul: its restarts, its sessions and locks, its tokens and certificates.

use std::time::Duration;

use serde_json::{Value, json};
use vtorc_fleet::{CONSUL_MASTER_TOKEN, Consul, ConsulOptions, Flavor};

use crate::certificates::certificates;
use crate::harness::{Cluster, THREE, padded, request, wait_for};
use crate::topologies::{
    a_cell_is_down, dies_at_rest, killed_with_the_lock, lost_in_the_middle, topo_flags,
    topology_error, waits_for_somebody_else, watches_work,
};

/// Sessions are short, so that one that runs out can be waited for.
const SESSION_S: u64 = 2;
const LOCK: &str = "/v1/kv/vitess/global/keyspaces/ks/shards/0/Lock";
/// Vitess's mark on keys that are locks.
const FLAGS: &str = "flags=3304740253564472344";

fn flags(address: &str) -> Vec<String> {
    let mut flags = topo_flags("consul", address, "vitess/global");
    flags.push(format!("-topo_consul_lock_session_ttl={SESSION_S}s"));
    flags.push("-topo_consul_lock_delay=1s".to_owned());
    flags
}

fn on_consul() -> (Cluster, Consul) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("consul");
    let consul = Consul::start(&place, &ConsulOptions::default()).unwrap();
    let flags = flags(&consul.address());
    (Cluster::with_topology(Flavor::MariaDb, "semi_sync", THREE, directory, flags), consul)
}

/// What consul says to this, without us between.
fn ask(consul: &Consul, method: &str, path: &str, body: &str) -> Value {
    let url = format!("http://{}{path}", consul.address());
    request(method, &url, Some(body.to_owned()), &[("X-Consul-Token", CONSUL_MASTER_TOKEN)]).1
}

/// Vitess takes any such key for a lock that is held.
fn nothing_is_left_behind(consul: &Consul) {
    let gone = || (ask(consul, "GET", LOCK, "") == "").then_some(());
    wait_for(gone).expect("the lock's key is still there");
}

#[test]
fn a_killed_and_restarted_consul_is_survived_at_rest_and_a_failover_follows() {
    let (mut cluster, mut consul) = on_consul();
    dies_at_rest(&mut cluster, &mut consul, "consul", Consul::kill, |one| one.restart().unwrap());
    nothing_is_left_behind(&consul);
}

#[test]
fn a_silent_consul_is_survived() {
    let (mut cluster, consul) = on_consul();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    consul.freeze();
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back("no answer in time");
    consul.thaw();
    assert_ne!(cluster.healthy(&[&first]), first);
}

#[test]
fn without_a_quorum_nothing_is_done_and_with_it_a_failover_follows() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("consul");
    let mut consul = Consul::start_several(&place, 3, &ConsulOptions::default()).unwrap();
    let flags = flags(&consul[0].address());
    let mut cluster = Cluster::with_topology(Flavor::MariaDb, "semi_sync", THREE, directory, flags);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    // Two of three: the agent that is asked still answers, and knows no leader.
    consul[1].kill();
    consul[2].kill();
    wait_for(|| topology_error(&cluster)).expect("the lost quorum was not noticed");
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back("consul");
    assert_eq!(cluster.daemon().shard()["primary"], first);
    consul[1].restart().unwrap();
    assert_ne!(cluster.healthy(&[&first]), first);
    watches_work(&cluster);
}

#[test]
fn a_lock_that_vitess_holds_is_waited_for_and_named() {
    let (mut cluster, consul) = on_consul();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    // As consul's own library does it for Vitess's tools.
    let wanted = json!({"Name": "Consul API Lock", "TTL": "60s", "Checks": ["serfHealth"]});
    let session = ask(&consul, "PUT", "/v1/session/create", &wanted.to_string());
    let session = session["ID"].as_str().unwrap().to_owned();
    let contents =
        "{\n  \"Action\": \"PlannedReparentShard\",\n  \"HostName\": \"somebody-else\"\n}";
    let acquire = format!("{LOCK}?acquire={session}&{FLAGS}");
    assert_eq!(ask(&consul, "PUT", &acquire, contents), true);
    waits_for_somebody_else(&mut cluster, &first, || {
        ask(&consul, "PUT", &format!("{LOCK}?release={session}&{FLAGS}"), contents);
    });
    nothing_is_left_behind(&consul);
}

#[test]
fn what_a_dead_holder_leaves_behind_does_not_close_the_shard() {
    let (mut cluster, consul) = on_consul();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    // Its session is over, and the key is still there: Vitess's own try-lock would wait for ever.
    assert_eq!(ask(&consul, "PUT", &format!("{LOCK}?{FLAGS}"), "{}"), true);
    cluster.server_mut(&first).kill();
    assert_ne!(cluster.healthy(&[&first]), first);
    nothing_is_left_behind(&consul);
}

#[test]
fn a_consul_that_dies_in_the_middle_of_a_recovery_stops_it_before_the_promotion() {
    let (cluster, mut consul) = on_consul();
    let kill = |consul: &mut Consul| {
        outlive_the_session();
        consul.kill();
    };
    lost_in_the_middle(cluster, &mut consul, kill, |consul| consul.restart().unwrap());
}

#[test]
fn a_session_that_ends_in_the_middle_of_a_recovery_stops_it_before_the_promotion() {
    let (cluster, mut consul) = on_consul();
    let end = |consul: &mut Consul| {
        outlive_the_session();
        let key = ask(consul, "GET", LOCK, "");
        let session = key[0]["Session"].as_str().expect("the lock is not held any more");
        ask(consul, "PUT", &format!("/v1/session/destroy/{session}"), "");
    };
    lost_in_the_middle(cluster, &mut consul, end, |_| {});
}

/// Longer than a session that nobody prolongs would live: the lock is still held after it.
fn outlive_the_session() {
    std::thread::sleep(Duration::from_secs(2 * SESSION_S + 1));
}

#[test]
fn a_lock_that_a_killed_vtorc_held_is_given_back_when_it_starts_again() {
    let (mut cluster, _consul) = on_consul();
    cluster.topo_flags.retain(|flag| !flag.contains("session"));
    cluster.topo_flags.push("-topo_consul_lock_session_ttl=600s".to_owned());
    killed_with_the_lock(cluster);
}

#[test]
fn cells_have_tokens_of_their_own_and_one_that_is_down_keeps_its_tablets() {
    let directory = tempfile::tempdir().unwrap();
    let wants_tokens = ConsulOptions { tokens: true, ..ConsulOptions::default() };
    let global = Consul::start(&directory.path().join("global"), &wants_tokens).unwrap();
    let mut away = Consul::start(&directory.path().join("zone2"), &wants_tokens).unwrap();
    let token = |consul: &Consul, root: &str| {
        let rules = format!(
            "key_prefix \"{root}\" {{policy=\"write\"}} session_prefix \"\" {{policy=\"write\"}}"
        );
        let policy = json!({"Name": "vtorc", "Rules": rules}).to_string();
        ask(consul, "PUT", "/v1/acl/policy", &policy);
        let wanted = json!({"Policies": [{"Name": "vtorc"}]}).to_string();
        let made = ask(consul, "PUT", "/v1/acl/token", &wanted);
        made["SecretID"].as_str().unwrap().to_owned()
    };
    let (here, there) = (token(&global, "vitess/"), token(&away, "vitess/zone2/"));
    let file = directory.path().join("tokens.json");
    let write = |there: &str| {
        let tokens = json!({
            "global": {"acl_token": here}, "zone1": {"acl_token": here},
            "zone2": {"acl_token": there},
        });
        std::fs::write(&file, tokens.to_string()).unwrap();
    };
    write(&there);
    let mut flags = flags(&global.address());
    flags.push(format!("--consul-auth-static-file={}", file.display()));
    let mut cluster = Cluster::with_topology(Flavor::MariaDb, "semi_sync", &[], directory, flags);
    let place = (&*away.address(), "vitess/zone2");
    let restart = |consul: &mut Consul| consul.restart().unwrap();
    a_cell_is_down(&mut cluster, place, &mut away, Consul::kill, restart);
    // A token that is none there: said, without it. Without a token, consul answers as if nothing were there.
    write("not-a-token");
    let refused = cluster.topo(&["list"]).unwrap_err();
    assert!(refused.contains("403") && !refused.contains("not-a-token"), "{refused}");
    cluster.topo_flags.pop();
    let refused = cluster.topo(&["list"]).unwrap_err();
    assert!(refused.contains("whether the token may read it"), "{refused}");
    let log = cluster.daemon().log_text();
    assert!(!log.contains(&here) && !log.contains(&there), "a token is in the log");
}

#[test]
fn tls_with_certificates_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let certificates = Some(directory.path().to_owned());
    let options = ConsulOptions { certificates, ..ConsulOptions::default() };
    let consul = Consul::start(&directory.path().join("consul"), &options).unwrap();
    let place = directory.path().to_owned();
    let file = |name: &str| place.join(name).display().to_string();
    let flags = flags(&consul.address());
    // The keyspace is made without TLS, the rest with it.
    let mut cluster = Cluster::with_topology(Flavor::MariaDb, "none", &[], directory, flags);
    let secure = format!("https://127.0.0.1:{}", consul.tls_port);
    cluster.topo_flags[1] = format!("-topo_global_server_address={secure}");
    cluster.environment = vec![("CONSUL_CACERT".into(), file("ca.pem"))];
    let refused = cluster.topo(&["list"]).unwrap_err();
    assert!(refused.contains("consul at") && refused.contains("BadCertificate"), "{refused}");
    cluster.environment.push(("CONSUL_CLIENT_CERT".into(), file("client.pem")));
    let refused = cluster.topo(&["list"]).unwrap_err();
    assert!(refused.contains("CONSUL_CLIENT_KEY"), "{refused}");
    cluster.environment.push(("CONSUL_CLIENT_KEY".into(), file("client.key")));
    cluster.topo(&["add-cell", "zone1"]).unwrap();
    cluster.add_members(Flavor::MariaDb, &["zone1-101"]);
    cluster.register_members();
    cluster.start_daemon(&[]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
    watches_work(&cluster);
}
