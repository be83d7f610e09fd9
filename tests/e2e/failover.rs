//! A primary that is gone is replaced, and nothing that was acknowledged is lost.

use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, Kind, THREE, padded, wait_for};
use crate::writer::{Writer, arrives, create_table, has, rows};

pub(crate) fn killed_under_load(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let writer = Writer::start(&cluster);
    writer.wait_for_more(50);
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    assert_ne!(first, second);
    writer.wait_for_more(20);
    let acknowledged = writer.finish();
    let missing: Vec<u64> =
        acknowledged.difference(&rows(cluster.server(&second))).copied().collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    let recovery = emergency(&cluster);
    assert_eq!(
        (&recovery["outcome"], &recovery["new_primary"]),
        (&json!("succeeded"), &json!(second))
    );
    assert_eq!(recovery["finding"], "DeadPrimary");
    assert!(recovery["write_outage_ms"].as_u64().unwrap() > 0);
    // The old primary comes back: as a replica that gets every row, or set aside if it has what nobody
    // acknowledged. MariaDB says only after a moment of following that the histories differ.
    cluster.server_mut(&first).restart().unwrap();
    let end = wait_for(|| {
        let shard = cluster.daemon().shard();
        let old = tablet(&shard, &first);
        let follows = old["replication"]["receiver"] == "running"
            && has(cluster.server(&first), &acknowledged);
        let settled = follows || old["type"] == "DRAINED";
        (settled && old["read_only"] == true).then_some(())
    });
    assert!(
        end.is_some(),
        "the old primary was left as it came back: {:#}",
        cluster.daemon().shard()
    );
    assert_eq!(cluster.healthy(&[]), second);
}

#[test]
fn mysql_loses_no_acknowledged_row_when_the_primary_is_killed() {
    killed_under_load(Flavor::MySql.into());
}

#[test]
fn mariadb_loses_no_acknowledged_row_when_the_primary_is_killed() {
    killed_under_load(Flavor::MariaDb.into());
}

pub(crate) fn frozen(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    // A client that is connected already and will write as soon as the server goes on. Newer vttablets let go
    // what waits for an acknowledgement when they step down: who writes past them is not protected.
    let past_vttablets = !matches!(kind, Kind::Programs(_));
    let client = past_vttablets
        .then(|| cluster.server(&first).connect_within("app", Duration::from_secs(30)).unwrap());
    cluster.server(&first).freeze();
    let late = client.map(|mut client| {
        std::thread::spawn(move || {
            client.query_drop("INSERT INTO test.ledger VALUES (666, 'late')")
        })
    });
    let second = cluster.healthy(&[&first]);
    assert_ne!(first, second);
    cluster.server(&first).thaw();
    assert!(
        late.is_none_or(|late| late.join().unwrap().is_err()),
        "the frozen primary acknowledged a write after its successor's election"
    );
    let fenced = wait_for(|| {
        let old = tablet(&cluster.daemon().shard(), &first);
        let fenced = old["read_only"] == true
            && (old["type"] == "DRAINED" || old["replication"]["receiver"] == "running");
        fenced.then_some(())
    });
    fenced.expect("the frozen primary was not made a replica");
    assert!(!rows(cluster.server(&second)).contains(&666), "a write of the old term survived");
    assert_eq!(cluster.healthy(&[]), second);
}

#[test]
fn mysql_that_was_frozen_takes_no_write_that_survives() {
    frozen(Flavor::MySql.into());
}

#[test]
fn mariadb_that_was_frozen_takes_no_write_that_survives() {
    frozen(Flavor::MariaDb.into());
}

#[test]
fn a_frozen_idle_primary_ends_as_a_replica() {
    a_frozen_idle_primary_ends_as_a_replica_on(Flavor::MySql.into());
}

pub(crate) fn a_frozen_idle_primary_ends_as_a_replica_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.server(&first).freeze();
    let second = cluster.healthy(&[&first]);
    cluster.server(&first).thaw();
    assert_eq!(cluster.healthy(&[]), second);
    assert_eq!(tablet(&cluster.daemon().shard(), &first)["type"], "REPLICA");
}

/// policy, members, who else is down, and whether the failover may be done or why not.
const ONE_DOWN: &[(&str, &[&str], &str, &str)] = &[
    ("none", &["zone1-101", "zone1-102", "zone1-103"], "zone1-103", "nothing can be proven safe"),
    (
        "semi_sync",
        &["zone1-101", "zone1-102", "zone1-103"],
        "zone1-103",
        "could still get 1 acknowledgement",
    ),
    (
        "semi_sync",
        &["zone1-101", "zone1-102", "zone1-103", "zone1-104 rdonly"],
        "zone1-104",
        "done",
    ),
    (
        "semi_sync_with_rdonly_ack",
        &["zone1-101", "zone1-102", "zone1-103", "zone1-104 rdonly"],
        "zone1-104",
        "could still get 1 acknowledgement",
    ),
    ("cross_cell", &["zone1-101", "zone1-102", "zone1-103", "zone2-104"], "zone1-103", "done"),
    (
        "cross_cell",
        &["zone1-101", "zone1-102", "zone2-103", "zone2-104"],
        "zone2-104",
        "could still get 1 acknowledgement",
    ),
    (
        "cross_cell_with_rdonly_ack",
        &["zone1-101", "zone1-102", "zone2-103", "zone2-104 rdonly"],
        "zone2-104",
        "could still get 1 acknowledgement",
    ),
];

#[test]
fn a_second_dead_tablet_is_judged_by_the_policy() {
    a_second_dead_tablet_is_judged_by_the_policy_on(Flavor::MariaDb.into());
}

pub(crate) fn a_second_dead_tablet_is_judged_by_the_policy_on(kind: Kind) {
    for (policy, members, other, expected) in ONE_DOWN {
        let mut cluster = Cluster::new(kind, policy, members);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        assert_eq!(first, padded("zone1-101"), "{policy}");
        cluster.server_mut(other).kill();
        let gone = wait_for(|| {
            let shard = cluster.daemon().shard();
            (tablet(&shard, other)["state"] == "unreachable").then_some(())
        });
        gone.expect("the dead replica was not noticed");
        cluster.server_mut("zone1-101").kill();
        if *expected == "done" {
            let second = cluster.healthy(&[&first, other]);
            assert_ne!(second, first, "{policy}");
            let recovery = emergency(&cluster);
            assert_eq!(recovery["finding"], "DeadPrimaryAndSomeReplicas", "{policy}");
        } else {
            let recovery = cluster.daemon().recovery(|one| one["outcome"] == "refused");
            let why = recovery["outcome_text"].as_str().unwrap();
            assert!(why.contains(expected) && why.contains(&padded(other)), "{policy}: {why}");
            // It says who must come back; when that one does, the failover is done.
            cluster.server_mut(other).restart().unwrap();
            let second = cluster.healthy(&[&first]);
            assert_ne!(second, first, "{policy}");
        }
    }
}

#[test]
fn the_most_advanced_rdonly_gives_what_it_has_and_is_not_promoted() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        the_most_advanced_rdonly_gives_what_it_has_and_is_not_promoted_on(flavor.into());
    }
}

pub(crate) fn the_most_advanced_rdonly_gives_what_it_has_and_is_not_promoted_on(kind: Kind) {
    let flavor = kind.flavor();
    let members = ["zone1-101", "zone1-102", "zone1-103 rdonly"];
    let mut cluster = Cluster::new(kind, "none", &members);
    cluster.start_daemon(&[]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
    create_table(cluster.server("zone1-101"));
    // Only the RDONLY gets the next row, and the primary dies before the other one does.
    cluster.daemon().post("/api/v1/recoveries/disable", json!({}));
    let stop =
        if flavor == Flavor::MySql { "STOP REPLICA IO_THREAD" } else { "STOP SLAVE IO_THREAD" };
    cluster.server("zone1-102").run(&[stop]).unwrap();
    cluster.server("zone1-101").run(&["INSERT INTO test.ledger VALUES (42, 'ahead')"]).unwrap();
    arrives(cluster.server("zone1-103"), &[42].into());
    cluster.server_mut("zone1-101").kill();
    cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
    assert_eq!(cluster.healthy(&["zone1-101"]), padded("zone1-102"));
    assert!(
        rows(cluster.server("zone1-102")).contains(&42),
        "{flavor:?}: what only the RDONLY had was lost"
    );
    let recovery = emergency(&cluster);
    let steps = recovery["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step["name"] == "follow the most advanced"), "{recovery:#}");
}

#[test]
fn a_candidate_that_lags_applies_all_it_received_first() {
    a_candidate_that_lags_applies_all_it_received_first_on(Flavor::MySql.into());
}

pub(crate) fn a_candidate_that_lags_applies_all_it_received_first_on(kind: Kind) {
    let members = ["zone1-101", "zone1-102", "zone1-103 rdonly"];
    let mut cluster = Cluster::new(kind, "semi_sync_with_rdonly_ack", &members);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(first, padded("zone1-101"));
    create_table(cluster.server(&first));
    arrives(cluster.server("zone1-102"), &[].into());
    // A reader's lock holds the applier up; the receiver goes on and acknowledges.
    let mut reader = cluster.server("zone1-102").connect("admin").unwrap();
    reader.query_drop("FLUSH TABLES test.ledger WITH READ LOCK").unwrap();
    for row in 0..20 {
        cluster
            .server(&first)
            .run(&[&format!("INSERT INTO test.ledger VALUES ({row}, 'unapplied')")])
            .unwrap();
    }
    cluster.server_mut(&first).kill();
    let waits = wait_for(|| {
        let all = cluster.daemon().recoveries();
        let running = all.iter().find(|one| one["kind"] == "EmergencyReparent")?.clone();
        let steps = running["steps"].as_array()?.clone();
        steps.iter().any(|step| step["name"] == "wait until everything is applied").then_some(())
    });
    waits.expect("the promotion did not wait for the applier");
    assert_eq!(
        cluster.server("zone1-102").value("SELECT @@read_only").unwrap(),
        "1",
        "promoted too early"
    );
    reader.query_drop("UNLOCK TABLES").unwrap();
    drop(reader);
    assert_eq!(cluster.daemon().recovery(|one| one["kind"] == "EmergencyReparent" && one["new_primary"] != Value::Null)["new_primary"], padded("zone1-102"));
    assert_eq!(rows(cluster.server("zone1-102")), (0..20).collect());
}

#[test]
fn a_candidate_that_lags_is_not_waited_for_where_that_is_configured() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        a_candidate_that_lags_is_not_waited_for_where_that_is_configured_on(flavor.into());
    }
}

pub(crate) fn a_candidate_that_lags_is_not_waited_for_where_that_is_configured_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "none", &["zone1-101", "zone1-102"]);
    cluster.configure(&[("FailMasterPromotionIfSQLThreadNotUpToDate", json!(true))]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    arrives(cluster.server("zone1-102"), &[].into());
    let mut reader = cluster.server("zone1-102").connect("admin").unwrap();
    reader.query_drop("FLUSH TABLES test.ledger WITH READ LOCK").unwrap();
    let retrieved = || {
        let state = tablet(&cluster.daemon().shard(), "zone1-102");
        state["replication"]["retrieved"].as_str().map(str::to_owned)
    };
    let before = retrieved().unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'unapplied')"]).unwrap();
    let received = || (retrieved()? != before).then_some(());
    wait_for(received).expect("nothing was received and left unapplied");
    cluster.server_mut(&first).kill();
    let refused = cluster.daemon().recovery(|one| one["outcome"] == "refused");
    let why = refused["outcome_text"].as_str().unwrap();
    assert!(why.contains("FailMasterPromotionIfSQLThreadNotUpToDate"), "{refused:#}");
    drop(reader);
    assert_eq!(cluster.healthy(&[&first]), padded("zone1-102"));
    assert_eq!(rows(cluster.server("zone1-102")), [1].into());
}

#[test]
fn a_stopped_applier_does_not_delay_the_failover() {
    a_stopped_applier_does_not_delay_the_failover_on(Flavor::MySql.into());
}

pub(crate) fn a_stopped_applier_does_not_delay_the_failover_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    cluster.daemon().post("/api/v1/recoveries/disable", json!({}));
    // The best by name has a standing applier and received rows; the other one must win at once.
    cluster.server("zone1-102").run(&["STOP REPLICA SQL_THREAD"]).unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    arrives(cluster.server("zone1-103"), &[1].into());
    cluster.server_mut(&first).kill();
    cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
    assert_eq!(cluster.healthy(&[&first]), padded("zone1-103"));
    let recovery = emergency(&cluster);
    let waited = recovery["steps"]
        .as_array()
        .unwrap()
        .iter()
        .any(|step| step["name"] == "start the applier");
    assert!(!waited, "{recovery:#}");
    arrives(cluster.server("zone1-102"), &[1].into());
}

#[test]
fn a_preferred_candidate_that_lags_catches_up_and_is_promoted() {
    a_preferred_candidate_that_lags_catches_up_and_is_promoted_on(Flavor::MySql.into());
}

pub(crate) fn a_preferred_candidate_that_lags_catches_up_and_is_promoted_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(first, padded("zone1-101"));
    create_table(cluster.server(&first));
    arrives(cluster.server("zone1-103"), &[].into());
    let prefer = json!({"control": "promotion zone1-103 prefer", "comment": "biggest machine"});
    assert_eq!(cluster.daemon().post("/api/v1/controls/set", prefer).0, 202);
    cluster.daemon().post("/api/v1/recoveries/disable", json!({}));
    // The other one has what the preferred one never received.
    cluster.server("zone1-103").run(&["STOP REPLICA IO_THREAD"]).unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    arrives(cluster.server("zone1-102"), &[1].into());
    cluster.server_mut(&first).kill();
    cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
    assert_eq!(cluster.healthy(&[&first]), padded("zone1-103"));
    assert_eq!(rows(cluster.server("zone1-103")), [1].into());
}

#[test]
fn what_the_configuration_forbids_is_not_promoted() {
    what_the_configuration_forbids_is_not_promoted_on(Flavor::MariaDb.into());
}

pub(crate) fn what_the_configuration_forbids_is_not_promoted_on(kind: Kind) {
    // PromotionIgnoreHostnameFilters names every host here; the other key leaves only the primary's cell.
    let table = [
        ("PreventCrossDataCenterMasterFailover", json!(true), "cross-cell failover is prevented"),
        ("PromotionIgnoreHostnameFilters", json!(["127.0.0"]), "PromotionIgnoreHostnameFilters"),
    ];
    for (key, value, word) in table {
        let mut cluster = Cluster::new(kind, "semi_sync", &["zone1-101", "zone2-102", "zone2-103"]);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        assert_eq!(first, padded("zone1-101"));
        cluster.daemons.pop();
        cluster.configure(&[(key, value)]);
        cluster.start_daemon(&[]);
        cluster.healthy(&[]);
        cluster.server_mut(&first).kill();
        let recovery = cluster.daemon().recovery(|one| one["outcome"] == "refused");
        assert!(recovery["outcome_text"].as_str().unwrap().contains(word), "{recovery:#}");
        assert_eq!(cluster.daemon().shard()["primary"], first);
        cluster.daemons.pop();
        cluster.configure(&[]);
        cluster.start_daemon(&[]);
        assert_ne!(cluster.healthy(&[&first]), first);
    }
}

#[test]
fn a_primary_that_was_dead_before_the_start_is_replaced() {
    a_primary_that_was_dead_before_the_start_is_replaced_on(Flavor::MariaDb.into());
}

pub(crate) fn a_primary_that_was_dead_before_the_start_is_replaced_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    drop(cluster.daemons.pop());
    cluster.server_mut(&first).kill();
    cluster.start_daemon(&[]);
    assert_ne!(cluster.healthy(&[&first]), first);
    assert_eq!(emergency(&cluster)["finding"], "DeadPrimary");
}

#[test]
fn a_deleted_primary_tablet_is_replaced_once_all_others_answer() {
    a_deleted_primary_tablet_is_replaced_once_all_others_answer_on(Flavor::MariaDb.into());
}

pub(crate) fn a_deleted_primary_tablet_is_replaced_once_all_others_answer_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.topo(&["delete", &first]).unwrap();
    let second = wait_for(|| {
        cluster.daemon().shard()["primary"]
            .as_str()
            .map(str::to_owned)
            .filter(|primary| *primary != first)
    });
    assert!(second.is_some());
    assert_eq!(emergency(&cluster)["finding"], "PrimaryTabletDeleted");
}

#[test]
fn a_second_failure_within_the_block_period_waits_for_an_acknowledgement() {
    a_second_failure_within_the_block_period_waits_for_an_acknowledgement_on(
        Flavor::MariaDb.into(),
    );
}

pub(crate) fn a_second_failure_within_the_block_period_waits_for_an_acknowledgement_on(kind: Kind) {
    let mut cluster =
        Cluster::new(kind, "semi_sync", &["zone1-101", "zone1-102", "zone1-103", "zone1-104"]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    cluster.server_mut(&first).restart().unwrap();
    cluster.healthy(&[]);
    cluster.server_mut(&second).kill();
    let blocked = cluster.daemon().held_back("blocked by recovery");
    assert_eq!(blocked["primary"], second);
    let block = &blocked["recovery_block"];
    assert!(
        block["recovery"].is_u64() && block["until"].is_string() && block["lift_with"].is_string(),
        "{block:#}"
    );
    // The block survives a restart of vtorc.
    drop(cluster.daemons.pop());
    cluster.start_daemon(&[]);
    cluster.daemon().held_back("blocked by recovery");
    let (status, answer) =
        cluster.daemon().post("/api/v1/shards/ks/0/acknowledge", json!({"comment": "seen"}));
    assert_eq!(status, 200, "{answer:#}");
    assert!(answer["lifted"]["recovery"].is_u64(), "{answer:#}");
    let third = cluster.healthy(&[&second]);
    assert!(third != second);
}

#[test]
fn without_a_block_period_the_next_failure_is_recovered_at_once() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    cluster.server_mut(&first).restart().unwrap();
    cluster.healthy(&[]);
    cluster.server_mut(&second).kill();
    assert_ne!(cluster.healthy(&[&second]), second);
}

pub fn emergency(cluster: &Cluster) -> Value {
    cluster
        .daemon()
        .recovery(|one| one["kind"] == "EmergencyReparent" && one["outcome"] == "succeeded")
}

pub fn tablet(shard: &Value, alias: &str) -> Value {
    let tablets = shard["tablets"].as_array().cloned().unwrap_or_default();
    tablets.into_iter().find(|tablet| tablet["alias"] == padded(alias)).unwrap_or(Value::Null)
}
