//! The topology in a real ZooKeeper: its restarts, its silence, its sessions and its locks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use vtorc_clients::topo::conn::TopoConn;
use vtorc_clients::topo::zk2::{Zk2Conn, Zk2Options};
use vtorc_clients::topo::{CellInfo, TopoStore};
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::TopoPort;
use vtorc_fleet::{Flavor, ZooKeeper};
use zookeeper::{Acl, CreateMode, Permission};

use crate::cells::{
    Away, goes_away, goes_away_with_an_acker, goes_away_with_the_primary, is_away_at_start,
    is_away_at_start_with_an_acker,
};
use crate::certificates::certificates;
use crate::harness::{Cluster, THREE, wait_for};
use crate::proxy::{Ear, Proxy};
use crate::topologies::{dies_at_rest, killed_with_the_lock, lost_in_the_middle, topo_flags};

fn on_zookeeper() -> (Cluster, ZooKeeper) {
    let directory = tempfile::tempdir().unwrap();
    let zookeeper = ZooKeeper::start(&directory.path().join("zk")).unwrap();
    let flags = topo_flags("zk2", &zookeeper.address(), "/vitess/global");
    (Cluster::with_topology(Flavor::MariaDb, "semi_sync", THREE, directory, flags), zookeeper)
}

#[test]
fn a_lock_that_a_killed_vtorc_held_is_given_back_when_it_starts_again() {
    let (cluster, _zookeeper) = on_zookeeper();
    killed_with_the_lock(cluster);
}

#[test]
fn a_killed_and_restarted_zookeeper_is_survived_at_rest_and_a_failover_follows() {
    let (mut cluster, mut zookeeper) = on_zookeeper();
    let restart = |zookeeper: &mut ZooKeeper| zookeeper.restart().unwrap();
    dies_at_rest(&mut cluster, &mut zookeeper, "ZooKeeper", ZooKeeper::kill, restart);
}

#[test]
fn a_zookeeper_that_was_silent_until_the_session_expired_is_survived() {
    let (mut cluster, zookeeper) = on_zookeeper();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    zookeeper.freeze();
    let told = || cluster.daemon().get("/api/v1/system")["topology_error"].as_str().map(|_| ());
    wait_for(told).expect("its silence was not noticed");
    // Longer than the session: its lock and watches are gone.
    std::thread::sleep(Duration::from_secs(12));
    zookeeper.thaw();
    wait_for(|| (cluster.daemon().get("/debug/health")["healthy"] == true).then_some(()))
        .expect("not well again");
    cluster.topo(&["set-durability", "ks", "none"]).unwrap();
    wait_for(|| (cluster.daemon().shard()["durability_policy"] == "none").then_some(()))
        .expect("no watch");
    cluster.server_mut(&first).kill();
    assert_ne!(cluster.healthy(&[&first]), first);
}

#[test]
fn a_zookeeper_that_dies_in_the_middle_of_a_recovery_stops_it_before_the_promotion() {
    let (cluster, mut zookeeper) = on_zookeeper();
    lost_in_the_middle(cluster, &mut zookeeper, ZooKeeper::kill, |zookeeper| {
        zookeeper.restart().unwrap()
    });
}

#[test]
fn a_session_that_expires_in_the_middle_of_a_recovery_stops_it_before_the_promotion() {
    let directory = tempfile::tempdir().unwrap();
    let mut zookeeper = ZooKeeper::start(&directory.path().join("zk")).unwrap();
    // vtorc is cut off, and ZooKeeper goes on: one that was frozen may hear our old signs of life before it looks for
    // sessions that are over.
    let proxy = Proxy::before(zookeeper.address());
    let flags = topo_flags("zk2", &proxy.address, "/vitess/global");
    let cluster = Cluster::with_topology(Flavor::MariaDb, "semi_sync", THREE, directory, flags);
    let expire = |zookeeper: &mut ZooKeeper| {
        proxy.lead_to("127.0.0.1:1".to_owned());
        wait_for(|| (!is_locked(zookeeper)).then_some(())).expect("the session lives on");
        proxy.lead_to(zookeeper.address());
    };
    lost_in_the_middle(cluster, &mut zookeeper, expire, |_| {});
}

#[test]
fn a_lock_that_somebody_else_holds_is_waited_for_and_named() {
    let (mut cluster, zookeeper) = on_zookeeper();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    // Another manager, frozen while it holds the lock of a planned reparent.
    cluster.configure(&[("SQLite3DataFile", json!(":memory:"))]);
    cluster.start_daemon(&["own-history"]);
    cluster.healthy(&[]);
    let other = cluster.daemons.pop().unwrap();
    let lock = hold_lock(&zookeeper);
    cluster.server_mut(&first).kill();
    cluster.daemon().held_back("somebody-else");
    assert_eq!(cluster.daemon().shard()["primary"], first);
    drop(lock);
    drop(other);
    assert_ne!(cluster.healthy(&[&first]), first);
}

#[test]
fn a_cell_on_a_server_of_its_own_that_is_down_keeps_its_tablets() {
    let directory = tempfile::tempdir().unwrap();
    let global = ZooKeeper::start(&directory.path().join("zk")).unwrap();
    let mut away = ZooKeeper::start(&directory.path().join("zk2")).unwrap();
    // What follows the bar are observers, of which there are none here.
    let address = format!("{}|127.0.0.1:1", global.address());
    let flags = topo_flags("zk2", &address, "/vitess/global");
    let mut cluster = Cluster::with_topology(Flavor::MariaDb, "semi_sync", &[], directory, flags);
    let address = away.address();
    let zone2 = ["add-cell", "zone2", "--server-address", &address, "--root", "/vitess/zone2"];
    cluster.topo(&zone2).unwrap();
    let address = global.address();
    let zone1 = ["add-cell", "zone1", "--server-address", &address, "--root", "/vitess/zone1"];
    cluster.topo(&zone1).unwrap();
    cluster.add_members(Flavor::MariaDb, &["zone1-101", "zone1-102", "zone2-201"]);
    cluster.register_members();
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    away.kill();
    cluster.topo(&["set-durability", "ks", "none"]).unwrap();
    let noticed = || {
        let shard = cluster.daemon().shard();
        (shard["durability_policy"] == "none").then_some(shard)
    };
    let shard = wait_for(noticed).expect("the other cells do not go on");
    assert_eq!(shard["tablets"].as_array().unwrap().len(), 3, "{shard:#}");
    away.restart().unwrap();
    cluster.healthy(&[]);
}

/// A shard's topology, of which zone2 is on a ZooKeeper of its own that is ended and started.
fn with_zone2_away(story: impl FnOnce(Cluster, Away<'_, ZooKeeper>)) {
    let directory = tempfile::tempdir().unwrap();
    let global = ZooKeeper::start(&directory.path().join("zk")).unwrap();
    let mut server = ZooKeeper::start(&directory.path().join("zk2")).unwrap();
    let flags = topo_flags("zk2", &global.address(), "/vitess/global");
    let cluster = Cluster::with_topology(Flavor::MariaDb, "semi_sync", &[], directory, flags);
    let address = server.address();
    let leave = |_: &Cluster, server: &mut ZooKeeper| server.kill();
    let come_back = |_: &Cluster, server: &mut ZooKeeper| server.restart().unwrap();
    let (server, address) = (&mut server, &*address);
    story(cluster, Away { server, address, leave: &leave, come_back: &come_back });
}

#[test]
fn a_cells_zookeeper_that_dies_holds_no_shard_up() {
    with_zone2_away(goes_away);
}

#[test]
fn a_cells_zookeeper_that_dies_does_not_hold_up_a_shard_with_an_acker_there() {
    with_zone2_away(goes_away_with_an_acker);
}

#[test]
fn a_primary_that_is_lost_with_its_cells_zookeeper_is_replaced_and_follows_when_it_is_back() {
    with_zone2_away(goes_away_with_the_primary);
}

#[test]
fn a_cells_zookeeper_that_is_away_at_start_holds_no_shard_up() {
    with_zone2_away(is_away_at_start);
}

#[test]
fn what_a_shard_may_have_in_a_cell_that_was_never_read_is_waited_for() {
    with_zone2_away(is_away_at_start_with_an_acker);
}

#[test]
fn tls_with_certificates_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_owned();
    certificates(&place);
    let mut zookeeper = ZooKeeper::start_with_tls(&place.join("zk"), &place).unwrap();
    let file = |name: &str| place.join(name).display().to_string();
    let mut flags = topo_flags("zk2", &zookeeper.address(), "/vitess/global");
    for (flag, name) in [("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key")] {
        flags.push(format!("-topo_zk_tls_{flag}={}", file(name)));
    }
    let mut cluster =
        Cluster::with_topology(Flavor::MariaDb, "semi_sync", THREE, directory, flags.clone());
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    zookeeper.restart().unwrap();
    wait_for(|| (cluster.daemon().get("/debug/health")["healthy"] == true).then_some(()))
        .expect("not well again");
    cluster.server_mut(&first).kill();
    assert_ne!(cluster.healthy(&[&first]), first);
    // Without a certificate nobody is let in, two files of three are no TLS, and a wrong file is named.
    cluster.topo_flags.truncate(3);
    assert!(cluster.topo(&["show", "ks"]).is_err(), "anybody is let in");
    cluster.topo_flags = flags[..5].to_vec();
    let told = cluster.topo(&["show", "ks"]).unwrap_err();
    assert!(told.contains("go together"), "{told}");
    cluster.topo_flags = flags;
    cluster.topo_flags[3] = format!("-topo_zk_tls_ca={}", file("not-there.pem"));
    let told = cluster.topo(&["show", "ks"]).unwrap_err();
    assert!(told.contains("not-there.pem"), "{told}");
    cluster.topo_flags[1] = "-topo_global_server_address=no host:2181".to_owned();
    let told = cluster.topo(&["show", "ks"]).unwrap_err();
    assert!(told.contains("no host") && !told.contains("panicked"), "{told}");
}

#[test]
fn records_that_only_a_user_may_read_are_read_as_that_user() {
    let (mut cluster, zookeeper) = on_zookeeper();
    let other = connect(&zookeeper.address());
    other.add_auth("digest", b"vitess:secret-word".to_vec()).unwrap();
    let mine = Acl::creator_all().clone();
    other.set_acl("/vitess/global/keyspaces/ks/Keyspace", mine, None).unwrap();
    drop(other);
    assert!(cluster.topo(&["show", "ks"]).is_err(), "anybody may read it");
    let file = cluster.directory.path().join("auth");
    std::fs::write(&file, "digest:vitess:secret-word\n").unwrap();
    cluster.topo_flags.push(format!("-topo_zk_auth_file={}", file.display()));
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    assert!(!cluster.daemon().log_text().contains("secret-word"), "a password was logged");
}

/// What one client writes another reads, and the other way round: bytes, permissions, places in a queue.
#[test]
fn another_client_reads_what_vtorc_writes_and_writes_what_it_reads() {
    let (mut cluster, zookeeper) = on_zookeeper();
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let other = connect(&zookeeper.address());
    let (shard, _) = other.get_data("/vitess/global/keyspaces/ks/shards/0/Shard", false).unwrap();
    let uid: u8 = primary.rsplit_once('-').unwrap().1.parse().unwrap();
    // The first field is its primary's alias: cell and number.
    assert!(
        shard.starts_with(&[b"\x0a\x09\x0a\x05zone1\x10".as_slice(), &[uid]].concat()),
        "{shard:?}"
    );
    let (acl, _) = other.get_acl("/vitess/global/keyspaces/ks/shards/0/Shard").unwrap();
    let open = Permission::READ | Permission::WRITE | Permission::ADMIN;
    assert_eq!(acl, [Acl::new(open, "world", "anyone")]);
    let tablets = other.get_children("/vitess/zone1/tablets", false).unwrap();
    assert_eq!(tablets.len(), 3, "{tablets:?}");
    let keyspace = "/vitess/global/keyspaces/ks/Keyspace";
    other.set_data(keyspace, b"\x42\x04none".to_vec(), None).unwrap();
    wait_for(|| (cluster.daemon().shard()["durability_policy"] == "none").then_some(()))
        .expect("what the other wrote is not read");
}

/// A follower may lag: before it is believed that a lock is held, or that a record is what it says, it catches up.
#[test]
fn a_lock_is_checked_and_records_are_read_under_it_after_a_sync() {
    const SYNC: i32 = 9;
    const EXISTS: i32 = 3;
    let (cluster, zookeeper) = on_zookeeper();
    let (address, asked) = overheard(zookeeper.port);
    let since = |what: &str| {
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert!(!asked.is_empty(), "{what}: nothing was asked");
        asked
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session_timeout = Duration::from_secs(10);
        let options = Zk2Options { session_timeout, auth: None, tls: None };
        let open = move |root: &str| Zk2Conn::new(&address, root, options.clone()).unwrap();
        let global = Arc::new(open("/vitess/global"));
        let dial = move |_: &str, cell: &CellInfo| Arc::new(open(&cell.root)) as Arc<dyn TopoConn>;
        let store = TopoStore::new(global, Arc::new(dial), DurabilityPolicy::None);
        let shard: KeyspaceShard = "ks/0".parse().unwrap();
        let lock = store.lock_shard(&shard, "a story", Duration::ZERO).await.unwrap();
        since("lock");
        lock.check().await.unwrap();
        assert_eq!(since("check"), [SYNC, EXISTS]);
        store.read_shard(&shard).await.unwrap();
        let asked = since("read");
        assert_eq!((asked[0], asked.iter().filter(|one| **one == SYNC).count()), (SYNC, 2));
        lock.release().await;
    });
    drop(cluster);
}

/// Passes on what is said to a server, and notes which requests were made.
fn overheard(port: u16) -> (String, Arc<Mutex<Vec<i32>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    let proxy = Proxy::with_ears(format!("127.0.0.1:{port}"), move || ear(noted.clone()));
    (proxy.address, asked)
}

/// Requests are told by their length, their number, and what they are; the first one, which connects, is not.
fn ear(noted: Arc<Mutex<Vec<i32>>>) -> Ear {
    const PING: i32 = 11;
    let (mut said, mut number) = (Vec::new(), 0);
    Box::new(move |words| {
        said.extend_from_slice(words);
        while let Some(length) = said.first_chunk() {
            let end = 4 + usize::try_from(i32::from_be_bytes(*length)).unwrap();
            if said.len() < end {
                return;
            }
            let request: Vec<u8> = said.drain(..end).collect();
            let what = i32::from_be_bytes(request[8..12].try_into().unwrap());
            if number > 0 && what != PING {
                noted.lock().unwrap().push(what);
            }
            number += 1;
        }
    })
}

/// A session of another client than the program's own. It ends when this is dropped.
fn connect(address: &str) -> zookeeper::ZooKeeper {
    zookeeper::ZooKeeper::connect(address, Duration::from_secs(10), |_| {}).unwrap()
}

/// Takes the shard's lock as Vitess's own tools do: an ephemeral node whose name is a bare sequence number. This client
/// refuses to ask for such a name (the path would end in a slash), so it is the first of all by its own choice.
fn hold_lock(zookeeper: &ZooKeeper) -> zookeeper::ZooKeeper {
    let other = connect(&zookeeper.address());
    let locks = "/vitess/global/keyspaces/ks/shards/0/locks";
    let all = || Acl::open_unsafe().clone();
    // It may be there.
    let _ = other.create(locks, Vec::new(), all(), CreateMode::Persistent);
    let contents = b"{\"HostName\": \"somebody-else\"}".to_vec();
    let place = format!("{locks}/0000000000");
    other.create(&place, contents, all(), CreateMode::Ephemeral).unwrap();
    other
}

/// Whether anybody still has, or waits for, the shard's lock a moment from now.
fn is_locked(zookeeper: &ZooKeeper) -> bool {
    let other = connect(&zookeeper.address());
    std::thread::sleep(Duration::from_secs(1));
    let places = other.get_children("/vitess/global/keyspaces/ks/shards/0/locks", false);
    places.is_ok_and(|places| !places.is_empty())
}
