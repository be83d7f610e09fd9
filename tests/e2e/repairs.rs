//! What an operator or an accident put out of order is put in order, each thing on a real server.

use mysql::prelude::Queryable;
use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, Kind, PATIENCE, THREE, others, padded, purge_logs, wait_for};
use crate::writer::{arrives, create_table};

/// What is done to whom (`P` the primary, `R` a replica) on MySQL and MariaDB, and what must be found.
const DAMAGE: &[(&str, char, &[&str], &[&str])] = &[
    ("PrimaryIsReadOnly", 'P', &["SET GLOBAL super_read_only = 1"], &["SET GLOBAL read_only = 1"]),
    ("ReplicaIsWritable", 'R', &["SET GLOBAL read_only = 0"], &["SET GLOBAL read_only = 0"]),
    ("ReplicationStopped", 'R', &["STOP REPLICA"], &["STOP SLAVE"]),
    ("ReplicationStopped", 'R', &["STOP REPLICA IO_THREAD"], &["STOP SLAVE IO_THREAD"]),
    ("ReplicationStopped", 'R', &["STOP REPLICA SQL_THREAD"], &["STOP SLAVE SQL_THREAD"]),
    (
        "NotConnectedToPrimary",
        'R',
        &["STOP REPLICA", "RESET REPLICA ALL"],
        &["STOP SLAVE", "RESET SLAVE ALL"],
    ),
    (
        "PrimarySemiSyncMustBeSet",
        'P',
        &["SET GLOBAL rpl_semi_sync_source_enabled = 0"],
        &["SET GLOBAL rpl_semi_sync_master_enabled = 0"],
    ),
    (
        "PrimarySemiSyncMustBeSet",
        'P',
        &["SET GLOBAL rpl_semi_sync_source_timeout = 1000"],
        &["SET GLOBAL rpl_semi_sync_master_timeout = 1000"],
    ),
    (
        "PrimarySemiSyncMustBeSet",
        'P',
        &["SET GLOBAL rpl_semi_sync_source_wait_no_replica = 0"],
        &["SET GLOBAL rpl_semi_sync_master_wait_no_slave = 0"],
    ),
    (
        "ReplicaMisconfigured",
        'R',
        &[
            "STOP REPLICA",
            "CHANGE REPLICATION SOURCE TO SOURCE_HEARTBEAT_PERIOD = 30",
            "START REPLICA",
        ],
        &["STOP SLAVE", "CHANGE MASTER TO MASTER_HEARTBEAT_PERIOD = 30", "START SLAVE"],
    ),
    (
        "ReplicaSemiSyncMustBeSet",
        'R',
        &["SET GLOBAL rpl_semi_sync_replica_enabled = 0"],
        &["SET GLOBAL rpl_semi_sync_slave_enabled = 0"],
    ),
];

pub(crate) fn each_damage_is_found_and_repaired(kind: Kind) {
    let flavor = kind.flavor();
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let replica = if primary == padded("zone1-103") { "zone1-102" } else { "zone1-103" };
    for (finding, whom, mysql, mariadb) in DAMAGE {
        let alias = if *whom == 'P' { &primary } else { replica };
        let statements = if flavor == Flavor::MySql { mysql } else { mariadb };
        let before = cluster.daemon().recoveries().len();
        cluster.server(alias).run(statements).unwrap();
        let repaired = wait_for(|| {
            let all = cluster.daemon().recoveries();
            let fresh = all.iter().take(all.len() - before);
            let mut matching =
                fresh.filter(|one| one["finding"] == *finding && one["outcome"] == "succeeded");
            matching.next().cloned()
        });
        let repaired = repaired.unwrap_or_else(|| panic!("{flavor:?}: {finding} was not repaired"));
        assert_eq!(repaired["finding_tablet"], padded(alias), "{repaired:#}");
        assert_eq!(cluster.healthy(&[]), primary, "{finding}");
    }
}

#[test]
fn mysql_damage_is_found_and_repaired() {
    each_damage_is_found_and_repaired(Flavor::MySql.into());
}

#[test]
fn mariadb_damage_is_found_and_repaired() {
    each_damage_is_found_and_repaired(Flavor::MariaDb.into());
}

#[test]
fn wrong_sources_are_put_right_for_replicas_and_primaries() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        wrong_sources_are_put_right_for_replicas_and_primaries_on(flavor.into());
    }
}

pub(crate) fn wrong_sources_are_put_right_for_replicas_and_primaries_on(kind: Kind) {
    let flavor = kind.flavor();
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let others = others(&primary);
    let follow = |port: u16| match flavor {
        Flavor::MySql => vec![
            "STOP REPLICA".to_owned(),
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, \
                    SOURCE_USER='vt_repl', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1"
            ),
            "START REPLICA".to_owned(),
        ],
        Flavor::MariaDb => vec![
            "STOP SLAVE".to_owned(),
            format!(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='vt_repl', \
                    MASTER_USE_GTID=slave_pos"
            ),
            "START SLAVE".to_owned(),
        ],
    };
    let run = |alias: &str, statements: &[String]| {
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        cluster.server(alias).run(&statements).unwrap();
    };
    run(others[0], &follow(cluster.server(others[1]).port));
    let recovery = cluster.daemon().recovery(|one| one["finding"] == "ConnectedToWrongPrimary");
    assert_eq!(recovery["finding_tablet"], padded(others[0]), "{recovery:#}");
    cluster.healthy(&[]);
    run(&primary, &follow(cluster.server(others[0]).port)[1..]);
    let recovery = cluster
        .daemon()
        .recovery(|one| one["finding"] == "PrimaryHasPrimary" && one["outcome"] == "succeeded");
    assert_eq!(recovery["finding_tablet"], primary, "{recovery:#}");
    assert_eq!(cluster.healthy(&[]), primary);
}

#[test]
fn a_policy_set_at_run_time_takes_effect_by_itself() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        a_policy_set_at_run_time_takes_effect_by_itself_on(flavor.into());
    }
}

pub(crate) fn a_policy_set_at_run_time_takes_effect_by_itself_on(kind: Kind) {
    let mut cluster =
        Cluster::new(kind, "none", &["zone1-101", "zone1-102", "zone2-103", "zone1-104 rdonly"]);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    assert_eq!(primary, padded("zone1-101"));
    // policy, source waits, who acknowledges
    let table: &[(&str, bool, &[&str])] = &[
        ("semi_sync", true, &["zone1-102", "zone2-103"]),
        ("semi_sync_with_rdonly_ack", true, &["zone1-102", "zone2-103", "zone1-104"]),
        ("cross_cell", true, &["zone2-103"]),
        ("cross_cell_with_rdonly_ack", true, &["zone2-103"]),
        ("none", false, &[]),
    ];
    for (policy, waits, ackers) in table {
        cluster.topo(&["set-durability", "ks", policy]).unwrap();
        let settled = wait_for(|| {
            let shard = cluster.daemon().shard();
            let acks = |alias: &&str| tablet(&shard, alias)["semi_sync"]["replica_enabled"] == true;
            let acking: Vec<&str> =
                ["zone1-102", "zone2-103", "zone1-104"].into_iter().filter(acks).collect();
            let mut wanted = ackers.to_vec();
            wanted.sort_by_key(|alias| {
                ["zone1-102", "zone2-103", "zone1-104"].iter().position(|one| one == alias)
            });
            let waiting = tablet(&shard, &primary)["semi_sync"]["source_enabled"] == *waits;
            (shard["durability_policy"] == *policy && waiting && acking == wanted).then_some(())
        });
        settled.unwrap_or_else(|| panic!("{policy}: {:#}", cluster.daemon().shard()));
        assert_eq!(cluster.healthy(&[]), primary, "{policy}");
        create_table(cluster.server(&primary));
    }
    // On the way up the replicas come first, on the way down the primary does.
    let off = cluster.daemon().recovery(|one| one["finding"] == "PrimarySemiSyncMustNotBeSet");
    let replicas = cluster.daemon().recovery(|one| one["finding"] == "ReplicaSemiSyncMustNotBeSet");
    assert!(off["id"].as_u64() < replicas["id"].as_u64() || replicas["id"].is_u64());
}

#[test]
fn an_errant_old_primary_is_set_aside_and_named() {
    an_errant_old_primary_is_set_aside_and_named_on(Flavor::MySql.into());
}

pub(crate) fn an_errant_old_primary_is_set_aside_and_named_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    drop(cluster.daemons.pop());
    cluster.server_mut(&first).restart().unwrap();
    create_table_aside(&cluster, &first);
    cluster.start_daemon(&[]);
    let aside = wait_for(|| {
        let shard = cluster.daemon().shard();
        let old = tablet(&shard, &first);
        (old["type"] == "DRAINED" && old["read_only"] == true && old["replication"].is_null())
            .then_some(())
    });
    aside.expect("the errant primary was not set aside");
    let recovery = cluster.daemon().recovery(|one| {
        one["outcome_text"].as_str().is_some_and(|text| text.contains("is DRAINED"))
    });
    let uuid = cluster.server(&first).value("SELECT @@server_uuid").unwrap();
    assert!(recovery["outcome_text"].as_str().unwrap().contains(&uuid), "{recovery:#}");
    assert_eq!(cluster.healthy(&[]), second);
}

/// Its source no longer has what it needs: it must be cloned anew, has nothing of its own, and nothing is tried. (On
/// MySQL the sets of GTIDs tell.)
#[test]
fn a_replica_whose_source_purged_what_it_needs_is_not_set_aside() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    create_table(cluster.server(&primary));
    let replicas = others(&primary);
    for replica in &replicas {
        arrives(cluster.server(replica), &[].into());
    }
    cluster.daemons.clear();
    for replica in &replicas {
        cluster.server(replica).run(&["STOP REPLICA"]).unwrap();
    }
    let source = cluster.server(&primary);
    source.run(&["INSERT INTO test.ledger VALUES (1, 'purged')"]).unwrap();
    purge_logs(source);
    cluster.start_daemon(&[]);
    for replica in &replicas {
        let told = || {
            let one = tablet(&cluster.daemon().shard(), replica);
            let error = one["replication"]["receiver_error"].as_str()?.to_owned();
            error.contains("purged").then_some(())
        };
        wait_for(told).expect("it does not tell what is wrong");
        let found = || {
            let shard = cluster.daemon().shard();
            let findings = shard["findings"].as_array()?;
            let is_it =
                |one: &Value| one["code"] == "PurgedGtids" && one["tablet"] == padded(replica);
            findings.iter().any(is_it).then_some(())
        };
        wait_for(found).expect("it is not found that it must be cloned anew");
    }
    let shard = cluster.daemon().shard();
    for replica in &replicas {
        assert_eq!(tablet(&shard, replica)["type"], "REPLICA", "{shard:#}");
    }
    assert_eq!(shard["primary"], primary);
}

fn create_table_aside(cluster: &Cluster, alias: &str) {
    cluster
        .server(alias)
        .run(&["SET GLOBAL rpl_semi_sync_source_enabled = 0", "CREATE DATABASE errant"])
        .unwrap();
}

#[test]
fn names_that_differ_between_topology_and_replication_are_no_finding() {
    let mut cluster = Cluster::new(Flavor::MySql, "none", &["zone1-101", "zone1-102"]);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let replica = if primary == padded("zone1-101") { "zone1-102" } else { "zone1-101" };
    let port = cluster.server(&primary).port;
    let before = cluster.daemon().recoveries().len();
    let change = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='localhost', SOURCE_PORT={port}, SOURCE_HEARTBEAT_PERIOD=0.25"
    );
    cluster.daemon().post("/api/v1/recoveries/disable", json!({}));
    cluster
        .server(replica)
        .run(&["STOP REPLICA IO_THREAD", &change, "START REPLICA IO_THREAD"])
        .unwrap();
    let seen = wait_for(|| {
        let replication = tablet(&cluster.daemon().shard(), replica)["replication"].clone();
        (replication["source_host"] == "localhost" && replication["receiver"] == "running")
            .then_some(())
    });
    seen.expect("the replica does not follow under the other name");
    cluster.daemon().post("/api/v1/recoveries/enable", json!({}));
    cluster.healthy(&[]);
    assert_eq!(cluster.daemon().recoveries().len(), before, "{:#?}", cluster.daemon().recoveries());
}

/// A commit that went out to a replica before it acknowledged is never acknowledged afterwards: the replica
/// has it. The next write's acknowledgement frees it, and vtorc makes that write.
#[test]
fn commits_that_nobody_was_asked_to_acknowledge_are_freed_by_another_write() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        commits_that_nobody_was_asked_to_acknowledge_are_freed_by_another_write_on(flavor.into());
    }
}

pub(crate) fn commits_that_nobody_was_asked_to_acknowledge_are_freed_by_another_write_on(
    kind: Kind,
) {
    let flavor = kind.flavor();
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    drop(cluster.daemons.pop());
    let replicas = others(&primary);
    let acknowledging = |on: u8| {
        let (word, switch) = match flavor {
            Flavor::MySql => ("REPLICA", "replica"),
            Flavor::MariaDb => ("SLAVE", "slave"),
        };
        for replica in &replicas {
            let statements = [
                format!("STOP {word} IO_THREAD"),
                format!("SET GLOBAL rpl_semi_sync_{switch}_enabled = {on}"),
                format!("START {word} IO_THREAD"),
            ];
            let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
            cluster.server(replica).run(&statements).unwrap();
        }
    };
    acknowledging(0);
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist \
                       WHERE info = 'CREATE DATABASE waiting'";
    let server = cluster.server(&primary);
    let mut client = server.connect_within("root", PATIENCE).unwrap();
    let commit = std::thread::spawn(move || client.query_drop("CREATE DATABASE waiting"));
    let received = "SELECT COUNT(*) FROM information_schema.schemata \
                        WHERE schema_name = 'waiting'";
    let everywhere = wait_for(|| {
        let has = |alias: &&str| cluster.server(alias).value(received).unwrap() == "1";
        replicas.iter().all(has).then_some(())
    });
    everywhere.expect("the replicas did not receive the write");
    acknowledging(1);
    assert_eq!(server.value(waiting).unwrap(), "1", "the commit waits for nobody");
    cluster.start_daemon(&[]);
    let freed = cluster.daemon().recovery(|one| one["finding"] == "PrimarySemiSyncBlocked");
    assert_eq!(freed["outcome"], "succeeded", "{freed:#}");
    assert_eq!(cluster.healthy(&[]), primary, "{freed:#}");
    commit.join().unwrap().unwrap();
}

/// Root has `SYSTEM_USER` and vtorc has not, so it cannot end its session: whoever reads the story must learn that.
#[test]
fn a_session_that_may_not_be_ended_is_named() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let off = json!({"control": "recoveries-off ks/0", "comment": "test"});
    assert_eq!(cluster.daemon().post("/api/v1/controls/set", off).0, 202);
    for replica in THREE.iter().filter(|alias| padded(alias) != primary) {
        cluster.server(replica).run(&["STOP REPLICA IO_THREAD"]).unwrap();
    }
    let revoke = "REVOKE SYSTEM_USER ON *.* FROM 'orc_client_user'@'%'";
    cluster.server(&primary).run(&["SET sql_log_bin = 0", revoke]).unwrap();
    let mut client = cluster.server(&primary).connect_within("root", PATIENCE).unwrap();
    let commit = std::thread::spawn(move || client.query_drop("CREATE DATABASE waiting"));
    let waits = || {
        let shard = cluster.daemon().shard();
        tablet(&shard, &primary)["semi_sync"]["waiting_sessions"].as_u64().filter(|n| *n > 0)
    };
    wait_for(waits).expect("nobody waits for an acknowledgement");
    cluster.daemon().post("/api/v1/shards/ks/0/emergency-reparent", json!({}));
    let done = cluster.daemon().recovery(|one| one["kind"] == "EmergencyReparent");
    let steps = done["steps"].to_string();
    assert!(steps.contains("of root holds it up and cannot be ended"), "{done:#}");
    let moved = || (cluster.daemon().shard()["primary"] != primary.as_str()).then_some(());
    wait_for(moved).expect("the records still name it");
    cluster.server_mut(&primary).kill();
    assert!(commit.join().unwrap().is_err(), "a write that nobody else has was acknowledged");
}

#[test]
fn a_repair_after_which_the_applier_stops_again_has_failed_and_says_why() {
    for flavor in [Flavor::MariaDb, Flavor::MySql] {
        let mut cluster = Cluster::new(flavor, "none", THREE);
        cluster.start_daemon(&[]);
        let primary = cluster.healthy(&[]);
        let replica = *THREE.iter().find(|alias| padded(alias) != primary).unwrap();
        create_table(cluster.server(&primary));
        arrives(cluster.server(replica), &[].into());
        // On the replica alone, by somebody with the rights for it.
        let by_hand = |statement: &str| {
            let alone = ["SET sql_log_bin = 0", statement];
            let opened = [
                "SET GLOBAL super_read_only = 0",
                "SET sql_log_bin = 0",
                statement,
                "SET GLOBAL super_read_only = 1",
            ];
            let all: &[&str] = if flavor == Flavor::MySql { &opened } else { &alone };
            cluster.server(replica).run(all).unwrap();
        };
        by_hand("INSERT INTO test.ledger VALUES (1, 'by hand')");
        cluster.server(&primary).run(&["INSERT INTO test.ledger VALUES (1, 'kept')"]).unwrap();
        let failed = || {
            let all = cluster.daemon().recoveries();
            let of_applier = |one: &&Value| one["finding"] == "ReplicaCannotApply";
            let mut repairs = all.iter().filter(of_applier);
            repairs.find(|one| one["outcome"] == "failed").cloned()
        };
        let failed = wait_for(failed)
            .unwrap_or_else(|| panic!("not said: {:#?}", cluster.daemon().recoveries()));
        let text = failed["outcome_text"].as_str().unwrap();
        assert!(text.contains("it follows, but its applier says: "), "{text}");
        assert!(text.contains("Duplicate entry"), "{flavor:?}: {text}");
        let shown = cluster.daemon().finding("ReplicaCannotApply").to_string();
        assert!(shown.contains("Duplicate entry"), "{flavor:?}: {shown}");
        let all = cluster.daemon().recoveries();
        let told =
            |one: &&Value| one["finding"] == "ReplicaCannotApply" && one["outcome"] == "succeeded";
        assert_eq!(all.iter().find(told), None);
        // Whoever takes the row away lets it go on.
        by_hand("DELETE FROM test.ledger");
        assert_eq!(cluster.healthy(&[]), primary);
        arrives(cluster.server(replica), &[1].into());
    }
}
