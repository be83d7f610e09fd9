//! A replica that has transactions of its own: shown, never promoted, and cured in the way that is asked for.

use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, THREE, others, padded, vtorc, wait_for};
use crate::writer::{Writer, arrives, create_table};

/// A shard, its primary, and a replica on which somebody wrote.
fn with_an_errant_replica(settings: &[(&str, Value)]) -> (Cluster, String, &'static str) {
    with_errors_on_a_replica(settings, "AUTOMATIC")
}

fn with_errors_on_a_replica(
    settings: &[(&str, Value)],
    gtid_next: &str,
) -> (Cluster, String, &'static str) {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    cluster.configure(settings);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let replica = *THREE.iter().find(|alias| padded(alias) != primary).unwrap();
    let gtid_next = format!("SET gtid_next = '{gtid_next}'");
    let by_mistake = [
        "SET GLOBAL super_read_only = 0",
        &gtid_next,
        "CREATE DATABASE mistake",
        "SET gtid_next = 'AUTOMATIC'",
        "SET GLOBAL super_read_only = 1",
    ];
    cluster.server(replica).run(&by_mistake).unwrap();
    (cluster, primary, replica)
}

fn errant(cluster: &Cluster, alias: &str) -> Option<String> {
    let shard = cluster.daemon().shard();
    tablet(&shard, alias)["errant_gtids"].as_str().map(ToOwned::to_owned)
}

fn ctl(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let url = cluster.daemon().url("");
    let mut all = vec!["ctl", "--url", &url];
    all.extend(arguments);
    vtorc(&all)
}

#[test]
fn empty_transactions_on_the_primary_end_it() {
    let (cluster, primary, replica) = with_an_errant_replica(&[]);
    let uuid = cluster.server(replica).value("SELECT @@server_uuid").unwrap();
    let shown = wait_for(|| errant(&cluster, replica)).expect("it is not shown");
    assert_eq!(shown, format!("{uuid}:1"));
    let said = ctl(&cluster, &["errant-gtids"]).unwrap();
    assert!(said.contains(&shown) && said.contains("Three ways out"), "{said}");
    // Nothing is done to one that has nothing of its own.
    let other = THREE.iter().find(|alias| **alias != replica && padded(alias) != primary).unwrap();
    let refused = ctl(&cluster, &["errant-gtids", "ks/0", "--inject", other]).unwrap_err();
    assert!(refused.contains("has nothing that"), "{refused}");
    let said =
        ctl(&cluster, &["errant-gtids", "ks/0", "--inject", replica, "--reason", "harmless"]);
    assert!(said.unwrap().contains("1 empty transaction(s)"));
    assert!(wait_for(|| errant(&cluster, replica).is_none().then_some(())).is_some());
    let executed = cluster.server(&primary).value("SELECT @@gtid_executed").unwrap();
    assert!(executed.contains(&uuid), "{executed}");
    assert_eq!(cluster.healthy(&[]), primary);
}

/// Since 8.3 GTIDs may have tags, and who commits them needs a privilege.
#[test]
fn empty_transactions_with_tags_end_it() {
    let (cluster, primary, replica) = with_errors_on_a_replica(&[], "AUTOMATIC:mistake");
    let shown = wait_for(|| errant(&cluster, replica)).expect("it is not shown");
    assert!(shown.contains(":mistake:1"), "{shown}");
    let said = ctl(&cluster, &["errant-gtids", "ks/0", "--inject", replica]);
    assert!(said.unwrap().contains("1 empty transaction(s)"));
    assert!(wait_for(|| errant(&cluster, replica).is_none().then_some(())).is_some());
    let executed = cluster.server(&primary).value("SELECT @@gtid_executed").unwrap();
    assert!(executed.contains(":mistake:1"), "{executed}");
}

#[test]
fn it_is_drained_on_request_or_by_itself_where_that_is_wanted() {
    for by_itself in [false, true] {
        let wanted = [("DrainErrantTablets", json!(by_itself))];
        let (cluster, primary, replica) = with_an_errant_replica(&wanted);
        wait_for(|| errant(&cluster, replica)).expect("it is not shown");
        if !by_itself {
            let shard = cluster.daemon().shard();
            assert_eq!(tablet(&shard, replica)["type"], "REPLICA");
            let said = ctl(&cluster, &["errant-gtids", "ks/0", "--drain", replica]).unwrap();
            assert!(said.contains("is DRAINED"), "{said}");
        }
        let drained = wait_for(|| {
            let shard = cluster.daemon().shard();
            let one = tablet(&shard, replica);
            (one["type"] == "DRAINED" && one["semi_sync"]["replica_enabled"] == false).then_some(())
        });
        assert!(drained.is_some(), "{:#}", cluster.daemon().shard());
        assert_eq!(cluster.healthy(&[]), primary);
    }
}

/// It could be the only one that has the last writes: it acknowledges only while nobody else does, and nobody has to
/// decide when the primary dies.
#[test]
fn it_acknowledges_only_where_too_few_others_do() {
    let (mut cluster, primary, replica) = with_an_errant_replica(&[]);
    create_table(cluster.server(&primary));
    let other = *THREE.iter().find(|one| **one != replica && padded(one) != primary).unwrap();
    let acknowledges = |cluster: &Cluster, alias: &str| {
        let one = tablet(&cluster.daemon().shard(), alias).clone();
        one["semi_sync"]["replica_enabled"] == true && one["replication"]["receiver"] == "running"
    };
    wait_for(|| (!acknowledges(&cluster, replica)).then_some(())).expect("it acknowledges");
    assert!(acknowledges(&cluster, other));
    cluster.server_mut(other).kill();
    cluster.server(&primary).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    wait_for(|| acknowledges(&cluster, replica).then_some(())).expect("who acknowledged?");
    cluster.server_mut(other).restart().unwrap();
    wait_for(|| (acknowledges(&cluster, other) && !acknowledges(&cluster, replica)).then_some(()))
        .expect("it goes on acknowledging");
    cluster.server(&primary).run(&["DELETE FROM test.ledger"]).unwrap();
    let writer = Writer::start(&cluster);
    // Longer than it takes until nothing that it gets can have been acknowledged by it.
    writer.wait_for_more(500);
    cluster.server_mut(&primary).kill();
    let promoted = || (cluster.daemon().shard()["primary"] == padded(other)).then_some(());
    wait_for(promoted).expect("nobody is promoted");
    let acknowledged = writer.finish();
    arrives(cluster.server(other), &acknowledged);
}

/// A MariaDB's position does not tell of what somebody wrote on it once it has received more. It is shown all the same
/// where vtorc saw that, and the replica is not promoted.
#[test]
fn what_was_written_on_a_mariadb_that_follows_is_shown_and_not_promoted() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    create_table(cluster.server(&primary));
    let [replica, other] = others(&primary)[..] else { panic!("not a shard of three") };
    // Or the last one in its binary log is the primary's.
    arrives(cluster.server(replica), &[].into());
    assert_eq!(errant(&cluster, replica), None);
    cluster.server(replica).run(&["CREATE DATABASE mistake"]).unwrap();
    let written = cluster.server(replica).value("SELECT @@gtid_binlog_pos").unwrap();
    let writer = Writer::start(&cluster);
    writer.wait_for_more(50);
    let shown = wait_for(|| errant(&cluster, replica)).expect("it is not shown");
    assert_eq!(shown, written);
    assert_eq!(errant(&cluster, other), None);
    let said = ctl(&cluster, &["errant-gtids"]).unwrap();
    assert!(said.contains(&shown) && said.contains("while vtorc watched"), "{said}");
    cluster.server_mut(&primary).kill();
    let promoted = || (cluster.daemon().shard()["primary"] == padded(other)).then_some(());
    wait_for(promoted).expect("the other one is not promoted");
    let acknowledged = writer.finish();
    arrives(cluster.server(other), &acknowledged);
}
