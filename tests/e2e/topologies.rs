//! Stories that are the same whatever keeps the topology.

use mysql::prelude::Queryable;
use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::crash;
use crate::failover::emergency;
use crate::harness::{Cluster, THREE, padded, wait_for};
use crate::writer::{arrives, create_table};

/// The flags with which the topology is found.
pub fn topo_flags(implementation: &str, address: &str, root: &str) -> Vec<String> {
    vec![
        format!("-topo_implementation={implementation}"),
        format!("-topo_global_server_address={address}"),
        format!("-topo_global_root={root}"),
    ]
}

pub fn topology_error(cluster: &Cluster) -> Option<String> {
    cluster.daemon().get("/api/v1/system")["topology_error"].as_str().map(str::to_owned)
}

/// A change of a record is noticed without waiting for the next full reading.
pub fn watches_work(cluster: &Cluster) {
    cluster.topo(&["set-durability", "ks", "none"]).unwrap();
    let noticed = || (cluster.daemon().shard()["durability_policy"] == "none").then_some(());
    wait_for(noticed).expect("no watch");
}

/// It dies while nothing happens, and a primary after it: nothing is done, which is said by its `name`, until it is
/// back.
pub fn dies_at_rest<S>(
    cluster: &mut Cluster,
    server: &mut S,
    name: &str,
    kill: impl Fn(&mut S),
    restart: impl Fn(&mut S),
) {
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    kill(server);
    wait_for(|| topology_error(cluster)).expect("its death was not noticed");
    let tablets = cluster.daemon().shard()["tablets"].as_array().unwrap().len();
    assert_eq!(tablets, 3, "tablets vanished");
    // A primary that dies meanwhile: no lock, no failover, and that is said loudly.
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back(name);
    assert_eq!(cluster.daemon().shard()["primary"], first);
    restart(server);
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    assert!(cluster.topo(&["show", "ks/0"]).unwrap().contains(&second));
    watches_work(cluster);
}

/// `somebody-else` has the shard's lock while its primary dies, until it is given back.
pub fn waits_for_somebody_else(cluster: &mut Cluster, first: &str, give_back: impl FnOnce()) {
    cluster.server_mut(first).kill();
    cluster.daemon().held_back("somebody-else");
    assert_eq!(cluster.daemon().shard()["primary"], first);
    // A request waits, and says for whom.
    cluster.daemon().post("/api/v1/shards/ks/0/emergency-reparent", json!({}));
    let waits = || {
        let all = cluster.daemon().recoveries();
        let requested = all.iter().find(|one| one["trigger"] == "requested")?;
        let mut steps = requested["steps"].as_array()?.iter();
        let step = steps.find(|step| step["name"] == "wait for the shard's lock")?;
        step.to_string().contains("somebody-else").then_some(())
    };
    wait_for(waits).expect("it does not say for whom it waits");
    give_back();
    assert_ne!(cluster.healthy(&[first]), first);
}

/// `zone2` has a server of its own: while that is down its tablets are kept as last seen, and the other cells go on.
/// Answers the shard's primary.
pub fn a_cell_is_down<S>(
    cluster: &mut Cluster,
    (address, root): (&str, &str),
    away: &mut S,
    kill: impl Fn(&mut S),
    restart: impl Fn(&mut S),
) -> String {
    cluster.topo(&["add-cell", "zone2", "--server-address", address, "--root", root]).unwrap();
    cluster.add_members(Flavor::MariaDb, &["zone1-101", "zone1-102", "zone2-201"]);
    cluster.register_members();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert!(first.starts_with("zone1"), "{first}");
    kill(away);
    cluster.topo(&["set-durability", "ks", "semi_sync_with_rdonly_ack"]).unwrap();
    let noticed = || {
        let shard = cluster.daemon().shard();
        (shard["durability_policy"] == "semi_sync_with_rdonly_ack").then_some(shard)
    };
    let shard = wait_for(noticed).expect("the other cells do not go on");
    assert_eq!(shard["tablets"].as_array().unwrap().len(), 3, "{shard:#}");
    restart(away);
    first
}

/// The recovery waits for an applier, with the lock held; then the lock is lost, then the applier goes on.
pub fn lost_in_the_middle<S>(
    mut cluster: Cluster,
    server: &mut S,
    lose: impl Fn(&mut S),
    mend: impl Fn(&mut S),
) {
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let mut readers = Vec::new();
    for alias in THREE.iter().filter(|alias| padded(alias) != first) {
        arrives(cluster.server(alias), &[].into());
        let mut reader = cluster.server(alias).connect("admin").unwrap();
        reader.query_drop("FLUSH TABLES test.ledger WITH READ LOCK").unwrap();
        readers.push(reader);
    }
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    cluster.server_mut(&first).kill();
    let waits = || {
        let all = cluster.daemon().recoveries();
        let running = all.iter().find(|one| one["kind"] == "EmergencyReparent")?.clone();
        let steps = running["steps"].as_array()?.clone();
        steps.iter().any(|step| step["name"] == "wait until everything is applied").then_some(())
    };
    wait_for(waits).expect("the recovery does not wait");
    lose(server);
    for reader in &mut readers {
        reader.query_drop("UNLOCK TABLES").unwrap();
    }
    let ended = |one: &Value| one["kind"] == "EmergencyReparent" && one["outcome"] == "failed";
    let stopped = cluster.daemon().recovery(ended);
    assert!(stopped["outcome_text"].as_str().unwrap().contains("lock"), "{stopped:#}");
    let steps = stopped["steps"].as_array().unwrap();
    assert!(!steps.iter().any(|step| step["name"] == "promote"), "{stopped:#}");
    drop(readers);
    mend(server);
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    assert_eq!(emergency(&cluster)["new_primary"], second.as_str());
}

/// vtorc is killed while it holds the shard's lock, which would outlive it for long: the one that is started again
/// gives it back.
pub fn killed_with_the_lock(mut cluster: Cluster) {
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.daemons.pop();
    let point = "after stop all receivers";
    cluster.start_daemon(&["--failpoint", point]);
    cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    crash::dies(&mut cluster, point);
    cluster.start_daemon(&[]);
    assert_ne!(cluster.healthy(&[&first]), first);
    let log = cluster.daemon().log_text();
    assert!(log.contains("the shard's lock that an earlier process left was given back"), "{log}");
}
