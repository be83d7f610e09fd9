//! Planned failover: on request, under load, and taken back where it cannot be finished.

use mysql::prelude::Queryable;
use serde_json::json;
use vtorc_fleet::Flavor;

use crate::harness::{
    Cluster, Kind, PATIENCE, PLANNED, THREE, others, padded, purge_logs, request, wait_for,
};
use crate::writer::{Writer, arrives, create_table, rows};

pub(crate) fn under_load(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let writer = Writer::start(&cluster);
    writer.wait_for_more(50);
    // To a named tablet.
    let body = json!({"new_primary": "zone1-103", "reason": "test"});
    let moved = wait_for(|| {
        let (status, answer) = cluster.daemon().post(PLANNED, body.clone());
        // On a slow day a vttablet is silent for a moment.
        let silent = status == 409 && answer.to_string().contains("its vttablet does not answer");
        (!silent).then_some((status, answer))
    });
    let (status, answer) = moved.expect("its vttablet stays silent");
    assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{answer:#}");
    assert_eq!(cluster.settles(|alias| alias == padded("zone1-103")), padded("zone1-103"));
    let recovery = cluster.daemon().get(answer["url"].as_str().unwrap());
    assert_eq!((&recovery["trigger"], &recovery["reason"]), (&json!("requested"), &json!("test")));
    assert!(recovery["write_outage_ms"].is_u64(), "{recovery:#}");
    writer.wait_for_more(20);
    // To any other; a planned reparent blocks nothing.
    let (status, answer) = cluster.daemon().post(PLANNED, json!({"avoid_primary": "zone1-103"}));
    assert_eq!(status, 200, "{answer:#}");
    let last = cluster.settles(|alias| alias != padded("zone1-103"));
    assert_ne!(last, padded("zone1-103"));
    assert!(cluster.daemon().shard()["recovery_block"].is_null());
    writer.wait_for_more(20);
    let acknowledged = writer.finish();
    for alias in THREE {
        arrives(cluster.server(alias), &acknowledged);
    }
}

#[test]
fn mysql_moves_its_writes_under_load() {
    under_load(Flavor::MySql.into());
}

#[test]
fn mariadb_moves_its_writes_under_load() {
    under_load(Flavor::MariaDb.into());
}

/// Nobody waits until what the last one wrote is known everywhere: to whom writes go next may not have its journal yet.
#[test]
fn planned_reparents_that_are_asked_for_one_right_after_the_other_all_succeed() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    for round in 0..4 {
        for wanted in ["zone1-102", "zone1-103", "zone1-101"] {
            let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": wanted}));
            let succeeded = (status, &answer["outcome"]) == (200, &json!("succeeded"));
            assert!(succeeded, "round {round}, to {wanted}: {answer:#}");
        }
    }
}

#[test]
fn a_candidate_that_cannot_catch_up_is_refused_before_writes_stop() {
    a_candidate_that_cannot_catch_up_is_refused_before_writes_stop_on(Flavor::MySql.into());
}

pub(crate) fn a_candidate_that_cannot_catch_up_is_refused_before_writes_stop_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "none", &["zone1-101", "zone1-102"]);
    cluster.configure(&[("WaitReplicasTimeoutSeconds", json!(1))]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    arrives(cluster.server("zone1-102"), &[].into());
    let mut reader = cluster.server("zone1-102").connect("admin").unwrap();
    reader.query_drop("FLUSH TABLES test.ledger WITH READ LOCK").unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": "zone1-102"}));
    assert_eq!(status, 409, "{answer:#}");
    assert!(answer["message"].as_str().unwrap().contains("did not apply everything"), "{answer:#}");
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (2, 'x')"]).unwrap();
    let recovery = cluster.daemon().recovery(|one| one["kind"] == "PlannedReparent");
    let stopped =
        recovery["steps"].as_array().unwrap().iter().any(|step| step["name"] == "stop writes");
    assert!(!stopped, "{recovery:#}");
}

#[test]
fn a_candidate_that_stalls_after_writes_stopped_is_undone_and_writes_go_on() {
    a_candidate_that_stalls_after_writes_stopped_is_undone_and_writes_go_on_on(
        Flavor::MySql.into(),
    );
}

pub(crate) fn a_candidate_that_stalls_after_writes_stopped_is_undone_and_writes_go_on_on(
    kind: Kind,
) {
    let mut cluster = Cluster::new(kind, "none", &["zone1-101", "zone1-102"]);
    cluster.configure(&[("WriteOutageMaxSeconds", json!(1))]);
    let gate = cluster.directory.path().join("gate");
    let point = format!("after catch up before writes stop@{}", gate.display());
    cluster.start_daemon(&["--failpoint", &point]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    arrives(cluster.server("zone1-102"), &[].into());
    let url = cluster.daemon().url(PLANNED);
    let body = json!({"new_primary": "zone1-102"}).to_string();
    let asked = std::thread::spawn(move || request("POST", &url, Some(body), &[]));
    // The candidate has caught up, writes have not stopped yet: now it stalls, and the last write comes.
    wait_for(|| gate.exists().then_some(())).expect("the point was not reached");
    let mut reader = cluster.server("zone1-102").connect("admin").unwrap();
    reader.query_drop("FLUSH TABLES test.ledger WITH READ LOCK").unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'last')"]).unwrap();
    std::fs::remove_file(&gate).unwrap();
    let (status, answer) = asked.join().unwrap();
    assert_eq!((status, &answer["outcome"]), (409, &json!("undone")), "{answer:#}");
    assert!(answer["text"].as_str().unwrap().contains("serves as before"), "{answer:#}");
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (2, 'after')"]).unwrap();
    drop(reader);
    assert_eq!(cluster.healthy(&[]), first);
    // Its applier counts as running all the while: what it was kept from applying may still be on its way.
    arrives(cluster.server("zone1-102"), &[1, 2].into());
    assert_eq!(rows(cluster.server("zone1-102")), [1, 2].into());
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let mut cluster =
        Cluster::new(Flavor::MariaDb, "semi_sync", &["zone1-101", "zone1-102", "zone1-103 rdonly"]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let refused = |body, status: u16, word: &str| {
        let (given, answer) = cluster.daemon().post(PLANNED, body);
        assert_eq!(given, status, "{answer:#}");
        assert!(answer["message"].as_str().unwrap().contains(word), "{answer:#}");
    };
    refused(json!({"new_primary": "zone1-103"}), 409, "its type is RDONLY");
    refused(json!({"new_primary": "zone9-999"}), 400, "is not a tablet of this shard");
    refused(json!({"new_primary": "nonsense"}), 400, "is not a tablet alias");
    let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": first}));
    assert_eq!(status, 200, "{answer:#}");
    let (status, answer) =
        cluster.daemon().post("/api/v1/shards/ks/80-/planned-reparent", json!({}));
    assert_eq!((status, &answer["code"]), (404, &json!("not_found")));
    // Without wait it is accepted, and its outcome is where the answer says.
    let (status, answer) = cluster
        .daemon()
        .post("/api/v1/shards/ks/0/planned-reparent", json!({"new_primary": "zone1-102"}));
    assert_eq!(status, 202, "{answer:#}");
    let id = answer["id"].as_u64().unwrap();
    assert_eq!(cluster.daemon().recovery(|one| one["id"] == id)["outcome"], "succeeded");
    assert_eq!(cluster.settles(|alias| alias == padded("zone1-102")), padded("zone1-102"));
}

/// A replica that lags needs what a candidate has purged already: it could not follow, and acknowledge, any more.
/// MySQL tells what its binary logs no longer hold, MariaDB by how the oldest one begins.
fn a_candidate_that_would_leave_a_replica_behind_is_not_chosen(kind: Kind) {
    let flavor = kind.flavor();
    let mut cluster = Cluster::new(kind, "none", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let [candidate, lagging] = others(&first)[..] else { panic!("three tablets") };
    arrives(cluster.server(lagging), &[].into());
    let (status, answer) =
        cluster.daemon().post("/api/v1/recoveries/disable", json!({"comment": "a test"}));
    assert_eq!(status, 200, "{answer:#}");
    let stop = if flavor == Flavor::MySql { "STOP REPLICA" } else { "STOP SLAVE" };
    cluster.server(lagging).run(&[stop]).unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    arrives(cluster.server(candidate), &[1].into());
    purge_logs(cluster.server(candidate));
    let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": candidate}));
    assert_eq!(status, 409, "{answer:#}");
    let why = answer["message"].as_str().unwrap();
    assert!(why.contains("no longer hold") && why.contains(&padded(lagging)), "{answer:#}");
    // Who holds everything is chosen as before.
    let start = if flavor == Flavor::MySql { "START REPLICA" } else { "START SLAVE" };
    cluster.server(lagging).run(&[start]).unwrap();
    arrives(cluster.server(lagging), &[1].into());
    let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": candidate}));
    assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{answer:#}");
}

#[test]
fn a_mysql_that_would_leave_a_replica_behind_is_not_chosen() {
    a_candidate_that_would_leave_a_replica_behind_is_not_chosen(Flavor::MySql.into());
}

#[test]
fn a_mariadb_that_would_leave_a_replica_behind_is_not_chosen() {
    a_candidate_that_would_leave_a_replica_behind_is_not_chosen(Flavor::MariaDb.into());
}

/// The primary dies while a candidate still catches up with it: the move is not waited for, and another one takes over.
/// (The candidate would be waited for ten minutes.)
fn a_primary_that_dies_before_writes_stopped_is_replaced(kind: Kind) {
    let mut cluster = Cluster::new(kind, "none", THREE);
    cluster.configure(&[("WaitReplicasTimeoutSeconds", json!(600))]);
    let gate = cluster.directory.path().join("gate");
    let point = format!("before catch up before writes stop@{}", gate.display());
    cluster.start_daemon(&["--failpoint", &point]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let [candidate, other] = others(&first)[..] else { panic!("three tablets") };
    arrives(cluster.server(candidate), &[].into());
    let mut reader = cluster.server(candidate).connect("admin").unwrap();
    reader.query_drop("LOCK TABLES test.ledger READ").unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    arrives(cluster.server(other), &[1].into());
    let url = cluster.daemon().url(PLANNED);
    let body = json!({"new_primary": candidate}).to_string();
    let asked = std::thread::spawn(move || request("POST", &url, Some(body), &[]));
    wait_for(|| gate.exists().then_some(())).expect("the point was not reached");
    cluster.server_mut(&first).kill();
    std::fs::remove_file(&gate).unwrap();
    let (status, answer) = asked.join().unwrap();
    assert_eq!(status, 409, "{answer:#}");
    let why = answer["message"].as_str().unwrap();
    assert!(why.contains("does not answer any more"), "{answer:#}");
    drop(reader);
    assert_ne!(cluster.healthy(&[&first]), first);
}

#[test]
fn a_mysql_that_dies_before_writes_stopped_is_replaced() {
    a_primary_that_dies_before_writes_stopped_is_replaced(Flavor::MySql.into());
}

#[test]
fn a_mariadb_that_dies_before_writes_stopped_is_replaced() {
    a_primary_that_dies_before_writes_stopped_is_replaced(Flavor::MariaDb.into());
}

/// Three people ask at once: the second one's request waits for the first one's, and the third one is told so.
#[test]
fn what_is_asked_for_while_another_recovery_runs_is_done_after_it() {
    let mut cluster = Cluster::new(Flavor::MySql, "none", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let [second, third] = others(&first)[..] else { panic!("three tablets") };
    arrives(cluster.server(second), &[].into());
    let mut reader = cluster.server(second).connect("admin").unwrap();
    reader.query_drop("LOCK TABLES test.ledger READ").unwrap();
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    arrives(cluster.server(third), &[1].into());
    let url = cluster.daemon().url(PLANNED);
    let ask = |to: &str| {
        let body = json!({"new_primary": to, "ignore_block": true}).to_string();
        let url = url.clone();
        std::thread::spawn(move || request("POST", &url, Some(body), &[]))
    };
    let moved = ask(second);
    let runs = || cluster.daemon().shard()["recovering"].is_number().then_some(());
    wait_for(runs).expect("the first one does not run");
    let rivals = [ask(third), ask(third)];
    let one_knows = || rivals.iter().any(|asked| asked.is_finished()).then_some(());
    wait_for(one_knows).expect("both wait");
    drop(reader);
    let (status, answer) = moved.join().unwrap();
    assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{answer:#}");
    let mut answers = rivals.map(|asked| asked.join().unwrap());
    answers.sort_by_key(|(status, _)| *status);
    let [(done, _), (late, why)] = &answers;
    assert_eq!((*done, *late), (200, 409), "{answers:#?}");
    assert!(why["message"].as_str().unwrap().contains("another request waits"), "{why:#}");
    // What a recovery wrote is known when it is seen to have ended.
    let ended = || {
        let shard = cluster.daemon().shard();
        shard["recovering"].is_null().then(|| shard["primary"].clone())
    };
    assert_eq!(wait_for(ended), Some(json!(padded(third))));
    assert_eq!(cluster.healthy(&[]), padded(third));
}

/// `super_read_only` does not stop `XA COMMIT` on MySQL, nor `read_only` `XA PREPARE` on MariaDB: whoever could say
/// that is no longer connected once writes were moved.
#[test]
fn a_prepared_transaction_is_not_committed_where_writes_were_moved_from() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        let away = THREE.iter().map(|alias| padded(alias)).find(|alias| *alias != first).unwrap();
        let session = |statements: &[&str]| {
            let mut client = cluster.server(&first).connect_within("app", PATIENCE).unwrap();
            statements.iter().for_each(|statement| client.query_drop(statement).unwrap());
            client
        };
        // One that nobody could commit any more; one who reads goes on.
        let insert = "INSERT INTO test.ledger VALUES (2, 'ended')";
        let mut ended = session(&["XA START 'b'", insert, "XA END 'b'"]);
        let mut reader = session(&["BEGIN", "SELECT COUNT(*) FROM test.ledger"]);
        let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": away}));
        assert_eq!(status, 200, "{flavor:?}: {answer:#}");
        assert!(ended.query_drop("XA PREPARE 'b'").is_err(), "{flavor:?}");
        reader
            .query_drop("SELECT COUNT(*) FROM test.ledger")
            .expect("a reader's session was ended");
        let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": first}));
        assert_eq!(status, 200, "{flavor:?}: {answer:#}");
        assert_eq!(cluster.healthy(&[]), first);
        let insert = "INSERT INTO test.ledger VALUES (1, 'prepared')";
        let mut prepared = session(&["XA START 'a'", insert, "XA END 'a'", "XA PREPARE 'a'"]);
        let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": away}));
        assert_eq!(status, 200, "{flavor:?}: {answer:#}");
        assert!(prepared.query_drop("XA COMMIT 'a'").is_err(), "{flavor:?}");
        let second = cluster.healthy(&[]);
        assert_eq!(second, away);
        // What was prepared is where writes are now, and is committed there.
        cluster.server(&second).run(&["XA COMMIT 'a'"]).unwrap();
        arrives(cluster.server(&first), &[1].into());
        assert!(!rows(cluster.server(&second)).contains(&2), "{flavor:?}");
        assert_eq!(cluster.healthy(&[]), second);
    }
}
