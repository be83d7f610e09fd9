//! The topology in a real etcd: its restarts, its silence, its quorum, its leases and its locks.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use vtorc_fleet::{Etcd, Flavor};

use crate::cells::{
    Away, goes_away_with_an_acker, is_away_at_start, is_away_at_start_with_an_acker,
};
use crate::certificates::certificates;
use crate::harness::{Cluster, THREE, padded, wait_for};
use crate::topologies::{
    self, a_cell_is_down, dies_at_rest, killed_with_the_lock, lost_in_the_middle, topology_error,
    waits_for_somebody_else, watches_work,
};
use crate::vitess::{Way, before_servers};

/// Leases are short, so that one that runs out can be waited for.
const LEASE_S: u64 = 3;

/// The flags with which the topology is found in these members.
pub fn topo_flags(etcd: &[Etcd]) -> Vec<String> {
    let endpoints: Vec<String> = etcd.iter().map(Etcd::address).collect();
    topologies::topo_flags("etcd2", &endpoints.join(","), "/vitess/global")
}

fn on_etcd(members: usize) -> (Cluster, Vec<Etcd>) {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(&directory.path().join("etcd"), members, &[]).unwrap();
    let mut flags = topo_flags(&etcd);
    flags.push(format!("-topo_etcd_lease_ttl={LEASE_S}"));
    (Cluster::with_topology(Flavor::MariaDb, "semi_sync", THREE, directory, flags), etcd)
}

fn on_etcd_with_vttablets() -> (Cluster, Vec<Etcd>) {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(&directory.path().join("etcd"), 1, &[]).unwrap();
    let mut flags = topo_flags(&etcd);
    flags.push(format!("-topo_etcd_lease_ttl={LEASE_S}"));
    let cluster = Cluster::with_topology(Flavor::MySql, "semi_sync", &[], directory, flags);
    (before_servers(cluster, THREE, Way::Vttablets, |_| {}), etcd)
}

#[test]
fn tls_with_certificates_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let extra = [
        format!("--cert-file={}", file("server.pem")),
        format!("--key-file={}", file("server.key")),
        format!("--trusted-ca-file={}", file("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Etcd::start(&directory.path().join("etcd"), 1, &extra).unwrap();
    let address = format!("https://{}", etcd[0].address());
    let mut flags = topologies::topo_flags("etcd2", &address, "/vitess/global");
    for (flag, name) in [("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key")] {
        flags.push(format!("-topo_etcd_tls_{flag}={}", file(name)));
    }
    let mut cluster =
        Cluster::with_topology(Flavor::MariaDb, "none", &["zone1-101"], directory, flags);
    cluster.start_daemon(&[]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
    watches_work(&cluster);
    // Without a certificate of its own nobody gets in.
    cluster.topo_flags.truncate(3);
    let refused = cluster.topo(&["list"]).unwrap_err();
    assert!(refused.contains("etcd at"), "{refused}");
}

#[test]
fn keyspaces_with_policies_of_their_own_and_a_key_range_that_is_watched() {
    let (mut cluster, _etcd) = on_etcd(1);
    let members = ["zone1-201", "zone1-202", "zone1-301"];
    cluster.topo(&["add-keyspace", "other", "--durability-policy", "none"]).unwrap();
    for shard in ["other/-40", "other/40-80", "other/80-"] {
        cluster.topo(&["add-shard", shard]).unwrap();
    }
    let first = cluster.servers.len();
    cluster.add_members(Flavor::MariaDb, &members);
    for (at, shard) in [(0, "other/-40"), (1, "other/-40"), (2, "other/80-")] {
        let address = cluster.servers[first + at].address();
        let add = ["add-tablet", members[at], "--shard", shard, "--mysql", &address];
        cluster.topo(&add).unwrap();
    }
    cluster.start_daemon(&["-clusters_to_watch=ks,other/-80"]);
    let primary = |shard: &str| {
        let path = format!("/api/v1/shards/{shard}");
        wait_for(|| cluster.daemon().get(&path)["primary"].as_str().map(str::to_owned))
    };
    assert!(primary("ks/0").is_some());
    assert_eq!(primary("other/-40"), Some(padded("zone1-201")));
    let shards = cluster.daemon().get("/api/v1/shards");
    let names: Vec<(&str, &str)> = shards
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["shard"].as_str().unwrap(), one["durability_policy"].as_str().unwrap()))
        .collect();
    assert_eq!(names, [("0", "semi_sync"), ("-40", "none"), ("40-80", "none")]);
    // What is not watched is not touched.
    assert_eq!(cluster.server("zone1-301").value("SELECT @@read_only").unwrap(), "0");
}

fn etcdctl(etcd: &Etcd, arguments: &[&str]) -> String {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &etcd.address()]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_killed_and_restarted_etcd_is_survived_at_rest_and_a_failover_follows() {
    let (mut cluster, mut etcd) = on_etcd(1);
    dies_at_rest(&mut cluster, &mut etcd[0], "etcd", Etcd::kill, |etcd| etcd.restart().unwrap());
}

#[test]
fn a_killed_and_restarted_etcd_is_survived_at_rest_through_vttablets_as_well() {
    let (mut cluster, mut etcd) = on_etcd_with_vttablets();
    dies_at_rest(&mut cluster, &mut etcd[0], "etcd", Etcd::kill, |etcd| etcd.restart().unwrap());
}

#[test]
fn a_cluster_of_three_goes_on_without_one_and_says_so_without_two() {
    let (mut cluster, mut etcd) = on_etcd(3);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    // The one that was asked first, and not in order: it only falls silent.
    etcd[0].freeze();
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    // Without a quorum nothing can be locked, although a member answers.
    etcd[1].kill();
    cluster.server_mut(&second).kill();
    wait_for(|| topology_error(&cluster)).expect("the lost quorum was not noticed");
    assert_eq!(cluster.daemon().shard()["primary"], second);
    etcd[0].thaw();
    etcd[1].restart().unwrap();
    wait_for(|| topology_error(&cluster).is_none().then_some(())).expect("not well again");
    watches_work(&cluster);
}

#[test]
fn a_lock_that_vitess_holds_is_waited_for_and_named() {
    let (mut cluster, etcd) = on_etcd(1);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    // As Vitess's tools do it: a key named after its lease, below `locks`.
    let lease = etcdctl(&etcd[0], &["lease", "grant", "600"]);
    let lease = lease.split_whitespace().nth(1).unwrap().to_owned();
    let number = i64::from_str_radix(&lease, 16).unwrap();
    let key = format!("/vitess/global/keyspaces/ks/shards/0/locks/{number}");
    let contents =
        "{\n  \"Action\": \"PlannedReparentShard\",\n  \"HostName\": \"somebody-else\"\n}";
    etcdctl(&etcd[0], &["put", "--lease", &lease, &key, contents]);
    waits_for_somebody_else(&mut cluster, &first, || {
        etcdctl(&etcd[0], &["lease", "revoke", &lease]);
    });
    // Nothing of ours is left in the queue.
    let left = etcdctl(&etcd[0], &["get", "--prefix", "--keys-only", "/vitess/global/keyspaces"]);
    assert!(!left.contains("/locks/"), "{left}");
}

#[test]
fn an_etcd_that_dies_in_the_middle_of_a_recovery_stops_it_before_the_promotion() {
    let (cluster, mut etcd) = on_etcd(1);
    let kill = |etcd: &mut Etcd| {
        outlive_the_lease();
        etcd.kill();
    };
    lost_in_the_middle(cluster, &mut etcd[0], kill, |etcd| etcd.restart().unwrap());
}

#[test]
fn a_lease_that_runs_out_in_the_middle_of_a_recovery_stops_it_before_the_promotion() {
    let (cluster, mut etcd) = on_etcd(1);
    lost_in_the_middle(cluster, &mut etcd[0], run_out, |_| {});
}

#[test]
fn a_lease_that_runs_out_stops_a_recovery_through_vttablets_as_well() {
    let (cluster, mut etcd) = on_etcd_with_vttablets();
    lost_in_the_middle(cluster, &mut etcd[0], run_out, |_| {});
}

/// As if nobody had prolonged it for long.
fn run_out(etcd: &mut Etcd) {
    outlive_the_lease();
    let locks = "/vitess/global/keyspaces/ks/shards/0/locks/";
    let key = etcdctl(etcd, &["get", "--prefix", "--keys-only", locks]);
    let number: i64 = key.trim().rsplit('/').next().unwrap().parse().unwrap();
    etcdctl(etcd, &["lease", "revoke", &format!("{number:x}")]);
}

/// Longer than a lease that nobody prolongs would live: the lock is still held after it.
fn outlive_the_lease() {
    std::thread::sleep(Duration::from_secs(LEASE_S + 1));
}

#[test]
fn a_lock_that_a_killed_vtorc_held_is_given_back_when_it_starts_again() {
    let (mut cluster, _etcd) = on_etcd(1);
    cluster.topo_flags.retain(|flag| !flag.contains("lease"));
    cluster.topo_flags.push("-topo_etcd_lease_ttl=600".to_owned());
    killed_with_the_lock(cluster);
}

#[test]
fn a_cell_whose_server_is_down_keeps_its_tablets_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let global = Etcd::start(&directory.path().join("global"), 1, &[]).unwrap();
    let mut away = Etcd::start(&directory.path().join("zone2"), 1, &[]).unwrap();
    let flags = topo_flags(&global);
    let mut cluster = Cluster::with_topology(Flavor::MariaDb, "semi_sync", &[], directory, flags);
    let place = (&*away[0].address(), "/vitess/zone2");
    let (kill, restart) = (Etcd::kill, |etcd: &mut Etcd| etcd.restart().unwrap());
    let first = a_cell_is_down(&mut cluster, place, &mut away[0], kill, restart);
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(1))]);
    cluster.server_mut(&first).kill();
    assert_ne!(cluster.healthy(&[&first]), first);
}

/// A shard's topology, of which zone2 is on an etcd of its own; its record is mistyped, and put right.
fn with_zone2_mistyped(wrong: &[&str], story: impl FnOnce(Cluster, Away<'_, Etcd>)) {
    let directory = tempfile::tempdir().unwrap();
    let global = Etcd::start(&directory.path().join("global"), 1, &[]).unwrap();
    let mut away = Etcd::start(&directory.path().join("zone2"), 1, &[]).unwrap();
    let flags = topo_flags(&global);
    let cluster = Cluster::with_topology(Flavor::MariaDb, "semi_sync", &[], directory, flags);
    let address = away[0].address();
    let update = |cluster: &Cluster, place: &[&str]| {
        cluster.topo(&[&["update-cell", "zone2"], place].concat()).unwrap();
    };
    let leave = |cluster: &Cluster, _: &mut Etcd| update(cluster, wrong);
    let right = ["--server-address", &address, "--root", "/vitess/zone2"];
    let come_back = |cluster: &Cluster, _: &mut Etcd| update(cluster, &right);
    let (server, address) = (&mut away[0], &*address);
    story(cluster, Away { server, address, leave: &leave, come_back: &come_back });
}

#[test]
fn a_cell_at_a_port_where_nobody_is_holds_no_shard_up() {
    with_zone2_mistyped(&["--server-address", "127.0.0.1:1"], goes_away_with_an_acker);
}

#[test]
fn a_cell_with_a_wrong_root_holds_no_shard_up() {
    with_zone2_mistyped(&["--root", "/vitess/zone22"], goes_away_with_an_acker);
}

#[test]
fn a_cell_whose_address_is_none_holds_no_shard_up_at_start() {
    with_zone2_mistyped(&["--server-address", "no such place:x"], is_away_at_start);
}

#[test]
fn what_a_shard_may_have_below_a_wrong_root_is_waited_for() {
    with_zone2_mistyped(&["--root", "/vitess/zone22"], is_away_at_start_with_an_acker);
}

/// `cargo test --release --test e2e reading_five_thousand -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn reading_five_thousand() {
    use std::sync::Arc;
    use std::time::Instant;
    use vtorc_clients::topo::conn::TopoConn;
    use vtorc_clients::topo::consul::{ConsulConn, ConsulLocks, ConsulOptions};
    use vtorc_clients::topo::etcd2::{Etcd2Conn, EtcdOptions};
    use vtorc_clients::topo::zk2::{Zk2Conn, Zk2Options};
    use vtorc_clients::topo::{CellInfo, TopoStore};
    use vtorc_core::durability::DurabilityPolicy;
    use vtorc_core::ids::{KeyspaceShard, TabletAlias, WatchList};
    use vtorc_core::ports::TopoPort;
    use vtorc_core::tablet::{MysqlAddress, Tablet, TabletType};

    async fn measure(
        what: &str,
        address: &str,
        open: impl Fn(&str) -> Arc<dyn TopoConn> + Clone + Send + Sync + 'static,
    ) {
        let opened = open.clone();
        let dial = Arc::new(move |_: &str, cell: &CellInfo| opened(&cell.root));
        let store = TopoStore::new(open("/vitess/global"), dial, DurabilityPolicy::None);
        store.add_cell("zone1", address, "/vitess/zone1").await.unwrap();
        store.add_keyspace("ks", DurabilityPolicy::None).await.unwrap();
        for number in 0..5000_u32 {
            let shard: KeyspaceShard = format!("ks/{}", number / 5).parse().unwrap();
            if number % 5 == 0 {
                store.add_shard(&shard).await.unwrap();
            }
            let tablet = Tablet {
                alias: TabletAlias { cell: "zone1".into(), uid: number },
                shard,
                tablet_type: TabletType::Replica,
                mysql: Some(MysqlAddress { host: "127.0.0.1".into(), port: 3306 }),
                term_start: None,
                vttablet: None,
                promotion_rule: None,
            };
            store.add_tablet(&tablet).await.unwrap();
        }
        let started = Instant::now();
        let read = store.read(&WatchList::default()).await.unwrap();
        let tablets: usize = read.shards.values().map(|shard| shard.tablets.len()).sum();
        let whole = started.elapsed().as_millis();
        let started = Instant::now();
        store.read_shard(&"ks/500".parse().unwrap()).await.unwrap();
        let one = started.elapsed().as_millis();
        println!("{what}: {tablets} tablets of 1000 shards in {whole} ms; one shard in {one} ms");
    }

    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let etcd = Etcd::start(&directory.path().join("etcd"), 1, &[]).unwrap();
    let address = etcd[0].address();
    let options = EtcdOptions { lease_ttl: Duration::from_secs(30), tls: None };
    let at = address.clone();
    let open = move |root: &str| {
        Arc::new(Etcd2Conn::new(&at, root, &options).unwrap()) as Arc<dyn TopoConn>
    };
    runtime.block_on(measure("etcd", &address, open));
    let zookeeper = vtorc_fleet::ZooKeeper::start(&directory.path().join("zk")).unwrap();
    let address = zookeeper.address();
    let options = Zk2Options { session_timeout: Duration::from_secs(10), auth: None, tls: None };
    let at = address.clone();
    let open = move |root: &str| {
        Arc::new(Zk2Conn::new(&at, root, options.clone()).unwrap()) as Arc<dyn TopoConn>
    };
    runtime.block_on(measure("ZooKeeper", &address, open));
    let consul = directory.path().join("consul");
    let consul = vtorc_fleet::Consul::start(&consul, &Default::default()).unwrap();
    let address = consul.address();
    let second = Duration::from_secs(15);
    let locks = ConsulLocks { checks: Vec::new(), ttl: second, delay: second };
    let options = ConsulOptions {
        tokens: Default::default(),
        token: None,
        tls: Default::default(),
        watch_poll: second,
        locks,
    };
    let at = address.clone();
    let open = move |root: &str| {
        Arc::new(ConsulConn::new("zone1", &at, root, &options).unwrap()) as Arc<dyn TopoConn>
    };
    runtime.block_on(measure("consul", &address, open));
}
