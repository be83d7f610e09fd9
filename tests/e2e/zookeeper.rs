//! The topology in a real ZooKeeper: its restarts, its silence, its sessions and its locks.

use std::time::Duration;

use serde_json::json;
use vtorc_fleet::{Flavor, ZooKeeper};

use crate::cells::{
    Away, goes_away, goes_away_with_an_acker, is_away_at_start, is_away_at_start_with_an_acker,
};
use crate::certificates::certificates;
use crate::harness::{Cluster, THREE, wait_for};
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
    // A server that goes on may hear our old signs of life before it looks for sessions that are over.
    let expire = |zookeeper: &mut ZooKeeper| {
        for _ in 0..2 {
            zookeeper.freeze();
            // Longer than the session.
            std::thread::sleep(Duration::from_secs(11));
            zookeeper.thaw();
            if !is_locked(zookeeper) {
                return;
            }
        }
        panic!("the session lives on");
    };
    let (cluster, mut zookeeper) = on_zookeeper();
    lost_in_the_middle(cluster, &mut zookeeper, expire, |_| {});
}

#[test]
fn a_lock_that_somebody_else_holds_is_waited_for_and_named() {
    let (mut cluster, _zookeeper) = on_zookeeper();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    // Another manager, frozen while it holds the lock of a planned reparent.
    cluster.configure(&[("SQLite3DataFile", json!(":memory:"))]);
    cluster.start_daemon(&["own-history"]);
    cluster.healthy(&[]);
    let other = cluster.daemons.pop().unwrap();
    let lock = hold_lock(&cluster);
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connector =
        zookeeper_client::Client::connector().with_auth("digest", b"vitess:secret-word");
    runtime.block_on(async {
        let client = connector.connect(&zookeeper.address()).await.unwrap();
        let mine = zookeeper_client::Acls::creator_all();
        client.set_acl("/vitess/global/keyspaces/ks/Keyspace", &mine, None).await.unwrap();
    });
    assert!(cluster.topo(&["show", "ks"]).is_err(), "anybody may read it");
    let file = cluster.directory.path().join("auth");
    std::fs::write(&file, "digest:vitess:secret-word\n").unwrap();
    cluster.topo_flags.push(format!("-topo_zk_auth_file={}", file.display()));
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    assert!(!cluster.daemon().log_text().contains("secret-word"), "a password was logged");
}

/// Takes the shard's lock as Vitess's own tools do: an ephemeral sequential node without a prefix.
fn hold_lock(cluster: &Cluster) -> (tokio::runtime::Runtime, zookeeper_client::Client) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = cluster.topo_flags[1].split_once('=').unwrap().1.to_owned();
    let client = runtime.block_on(async {
        let client = zookeeper_client::Client::connect(&address).await.unwrap();
        let shard = "/vitess/global/keyspaces/ks/shards/0";
        let directory = zookeeper_client::CreateMode::Persistent
            .with_acls(zookeeper_client::Acls::anyone_all());
        // It may be there.
        let _ = client.create(&format!("{shard}/locks"), b"", &directory).await;
        let place = zookeeper_client::CreateMode::EphemeralSequential
            .with_acls(zookeeper_client::Acls::anyone_all());
        client
            .create(&format!("{shard}/locks/"), b"{\"HostName\": \"somebody-else\"}", &place)
            .await
            .unwrap();
        client
    });
    (runtime, client)
}

/// Whether anybody still has, or waits for, the shard's lock a moment from now.
fn is_locked(zookeeper: &ZooKeeper) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = zookeeper_client::Client::connect(&zookeeper.address()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let places = client.list_children("/vitess/global/keyspaces/ks/shards/0/locks").await;
        places.is_ok_and(|places| !places.is_empty())
    })
}
