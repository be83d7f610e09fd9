//! A backup tool holds `FLUSH TABLES WITH READ LOCK` on a replica, which receives, acknowledges, and applies nothing.

use mysql::Conn;
use mysql::prelude::Queryable;
use serde_json::json;
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, PLANNED, THREE, others, padded};
use crate::writer::{arrives, create_table, rows};

/// A shard of three, its primary, and its replicas, the one that ranks first before the other.
fn cluster(flavor: Flavor) -> (Cluster, String, [&'static str; 2]) {
    let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let replicas = others(&first).try_into().expect("two replicas");
    for replica in replicas {
        arrives(cluster.server(replica), &[].into());
    }
    (cluster, first, replicas)
}

/// What most backup tools hold.
const READ_LOCK: &[&str] = &["FLUSH TABLES WITH READ LOCK"];

/// The backup's session: the lock is held as long as that.
fn backed_up(cluster: &Cluster, alias: &str, lock: &[&str]) -> Conn {
    let mut backup = cluster.server(alias).connect("admin").unwrap();
    lock.iter().for_each(|statement| backup.query_drop(statement).unwrap());
    backup
}

/// The locked replica is the only one left that can acknowledge: it follows the new primary while it is locked, and
/// has lost nothing when it applies again.
fn the_locked_replica_acknowledges_to_the_new_primary(flavor: Flavor) {
    let (mut cluster, first, [locked, other]) = cluster(flavor);
    let backup = backed_up(&cluster, locked, READ_LOCK);
    for row in 1..=5 {
        let insert = format!("INSERT INTO test.ledger VALUES ({row}, 'x')");
        cluster.server(&first).run(&[&insert]).unwrap();
    }
    arrives(cluster.server(other), &(1..=5).collect());
    cluster.server_mut(&first).kill();
    assert_eq!(cluster.healthy(&[&first]), padded(other));
    cluster.server(other).run(&["INSERT INTO test.ledger VALUES (6, 'x')"]).unwrap();
    assert_eq!(rows(cluster.server(locked)), [].into());
    drop(backup);
    arrives(cluster.server(locked), &(1..=6).collect());
    cluster.healthy(&[&first]);
}

#[test]
fn a_locked_mysql_replica_acknowledges_to_the_new_primary() {
    the_locked_replica_acknowledges_to_the_new_primary(Flavor::MySql);
}

#[test]
fn a_locked_mariadb_replica_acknowledges_to_the_new_primary() {
    the_locked_replica_acknowledges_to_the_new_primary(Flavor::MariaDb);
}

/// The replica that ranks first has applied everything, and would not take a write: another one is promoted, and a
/// planned reparent to it is refused before writes stop.
fn the_locked_replica_is_not_promoted(flavor: Flavor, lock: &[&str], reason: &str) {
    let (mut cluster, first, [locked, other]) = cluster(flavor);
    let backup = backed_up(&cluster, locked, lock);
    let planned = json!({"new_primary": locked, "reason": "test"});
    let (_, answer) = cluster.daemon().post(PLANNED, planned);
    assert!(answer.to_string().contains(reason), "{answer:#}");
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    drop(backup);
    arrives(cluster.server(locked), &[1].into());
    let _backup = backed_up(&cluster, locked, lock);
    cluster.server_mut(&first).kill();
    assert_eq!(cluster.healthy(&[&first]), padded(other));
    let recovery = cluster.daemon().recovery(|one| one["kind"] == "EmergencyReparent");
    let why = format!("not {}: {reason}", padded(locked));
    assert!(recovery["steps"].to_string().contains(&why), "{recovery:#}");
}

#[test]
fn a_locked_mysql_replica_is_not_promoted() {
    the_locked_replica_is_not_promoted(Flavor::MySql, READ_LOCK, "somebody holds a lock");
}

#[test]
fn a_locked_mariadb_replica_is_not_promoted() {
    the_locked_replica_is_not_promoted(Flavor::MariaDb, READ_LOCK, "somebody holds a lock");
}

#[test]
fn a_mariadb_replica_that_is_backed_up_in_stages_is_not_promoted() {
    let stages = [
        "BACKUP STAGE START",
        "BACKUP STAGE FLUSH",
        "BACKUP STAGE BLOCK_DDL",
        "BACKUP STAGE BLOCK_COMMIT",
    ];
    the_locked_replica_is_not_promoted(Flavor::MariaDb, &stages, "a backup runs there");
}
