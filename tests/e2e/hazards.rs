//! Hazards met in the field that no other story tells.

use mysql::prelude::Queryable;
use serde_json::json;
use vtorc_fleet::{Flavor, Server, ServerOptions};

use crate::harness::{Cluster, Kind, PATIENCE, PLANNED, THREE, padded, template, wait_for};
use crate::vitess::Way;
use crate::writer::{arrives, create_table, rows};

fn kinds() -> [Kind; 4] {
    let plain = [Flavor::MySql, Flavor::MariaDb].map(Kind::from);
    [plain[0], plain[1], Way::Vttablets.into(), Way::Both.into()]
}

/// Servers that lack the semi-sync plugins are elected, replaced and repointed like others; what the policy
/// cannot have is named.
#[test]
fn a_server_without_semi_sync_breaks_no_repoint() {
    let directory = tempfile::tempdir().unwrap();
    let start = |alias: &&str| {
        let options = ServerOptions { no_semi_sync: true, ..ServerOptions::default() };
        let place = directory.path().join(alias);
        Server::start(template(Flavor::MySql), &place, options).unwrap()
    };
    let servers = THREE.iter().map(start).collect();
    let root = directory.path().join("topo/global");
    let flags = vec![format!("-topo_global_root={}", root.display())];
    let mut cluster = Cluster::with_servers("none", THREE, servers, directory, flags);
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    cluster.server_mut(&first).restart().unwrap();
    assert_eq!(cluster.healthy(&[]), second);
    let (status, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": first}));
    assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{answer:#}");
    assert_eq!(cluster.settles(|alias| alias == first), first);
    cluster.topo(&["set-durability", "ks", "semi_sync"]).unwrap();
    cluster.daemon().finding("SemiSyncPluginMissing");
}

/// A transaction that is left open and a table that is locked hold a demotion up by as much as ending them takes.
#[test]
fn a_transaction_that_is_left_open_does_not_hold_a_demotion_up() {
    for kind in kinds() {
        a_transaction_that_is_left_open_does_not_hold_a_demotion_up_on(kind);
    }
}

pub(crate) fn a_transaction_that_is_left_open_does_not_hold_a_demotion_up_on(kind: Kind) {
    for lock in ["INSERT INTO test.ledger VALUES (666, 'open')", "LOCK TABLES test.ledger WRITE"] {
        let mut cluster = Cluster::new(kind, "semi_sync", THREE);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        let arrived = || {
            let has =
                |one: &&str| cluster.server(one).value("SELECT COUNT(*) FROM test.ledger").is_ok();
            THREE.iter().all(has).then_some(())
        };
        wait_for(arrived).expect("the table did not arrive");
        let mut client = cluster.server(&first).connect_within("app", PATIENCE).unwrap();
        client.query_drop("SET autocommit = 0").unwrap();
        client.query_drop(lock).unwrap();
        let (status, answer) = cluster.daemon().post(PLANNED, json!({}));
        assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{answer:#}");
        let second = cluster.settles(|alias| alias != first);
        assert!(client.query_drop("COMMIT").is_err(), "{kind:?}: {lock}: it was committed");
        let second = cluster.server(&second);
        assert!(!rows(second).contains(&666), "{kind:?}: an uncommitted write is there");
    }
}

/// A primary loses its machine, and with it the end of its binary log, and is back before anybody could replace it.
/// What its replicas acknowledged counts: one of them takes over, and since no server gets its own transactions back
/// from others, the one that lost them is named and not promoted again.
#[test]
fn a_primary_that_lost_the_end_of_its_log_does_not_serve_again() {
    for kind in kinds() {
        let mut cluster = Cluster::new(kind, "semi_sync", THREE);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        cluster.daemons.clear();
        lose_the_end_of_the_log(&mut cluster, &first);
        cluster.start_daemon(&[]);
        let moved = || (cluster.daemon().shard()["primary"] != first.as_str()).then_some(());
        wait_for(moved).expect("it is primary still");
        let second = cluster.healthy(&[&first]);
        let kept = rows(cluster.server(&second));
        assert!(kept.contains(&1) && kept.contains(&2), "{kind:?}: {kept:?}");
        let shard = cluster.daemon().finding("LostTransactions");
        let findings = shard["findings"].as_array().unwrap();
        let lost = findings.iter().find(|finding| finding["code"] == "LostTransactions").unwrap();
        assert_eq!(lost["tablet"], first.as_str(), "{lost:#}");
        let (_, answer) = cluster.daemon().post(PLANNED, json!({"new_primary": first}));
        let text = answer["message"].as_str().unwrap_or_default();
        assert!(text.contains("wrote itself; it must be cloned anew"), "{answer:#}");
        assert_eq!(cluster.healthy(&[&first]), second);
    }
}

/// The chosen one loses its machine, and with it the end of its binary log, right before it is promoted, and is back at
/// once: it was chosen for having what it lacks now.
#[test]
fn a_candidate_that_loses_the_end_of_its_log_before_it_is_promoted_takes_no_writes_without_it() {
    for kind in kinds() {
        a_candidate_that_loses_the_end_of_its_log_is_not_promoted(kind);
    }
}

fn a_candidate_that_loses_the_end_of_its_log_is_not_promoted(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(first, padded("zone1-101"));
    create_table(cluster.server(&first));
    arrives(cluster.server("zone1-102"), &[].into());
    let prefer = json!({"control": "promotion zone1-102 prefer", "comment": "chosen"});
    assert_eq!(cluster.daemon().post("/api/v1/controls/set", prefer).0, 202);
    cluster.server_mut("zone1-102").stop(PATIENCE).unwrap();
    cluster.server("zone1-102").keep_data().unwrap();
    cluster.server_mut("zone1-102").restart().unwrap();
    cluster.healthy(&[]);
    cluster.daemons.clear();
    let gate = cluster.directory.path().join("gate");
    cluster.start_daemon(&["--failpoint", &format!("before promote@{}", gate.display())]);
    cluster.healthy(&[]);
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'acknowledged')"]).unwrap();
    for replica in ["zone1-102", "zone1-103"] {
        arrives(cluster.server(replica), &[1].into());
    }
    cluster.server_mut(&first).kill();
    wait_for(|| gate.exists().then_some(())).expect("nobody was chosen");
    cluster.server_mut("zone1-102").kill();
    cluster.server("zone1-102").put_back_data().unwrap();
    cluster.server_mut("zone1-102").restart().unwrap();
    std::fs::remove_file(&gate).unwrap();
    let refused = cluster.daemon().recovery(|one| one["outcome"] == "failed");
    let why = refused["outcome_text"].as_str().unwrap();
    assert!(why.contains("zone1-0000000102 was not promoted: it does not have"), "{refused:#}");
    // The next one gets it from the other.
    wait_for(|| gate.exists().then_some(())).expect("it is not tried again");
    std::fs::remove_file(&gate).unwrap();
    let second = cluster.healthy(&[&first]);
    assert!(rows(cluster.server(&second)).contains(&1), "{second}: what was acknowledged is lost");
}

/// Two rows arrive on the replicas and are gone from the primary, which runs on.
fn lose_the_end_of_the_log(cluster: &mut Cluster, primary: &str) {
    cluster.server_mut(primary).stop(PATIENCE).unwrap();
    cluster.server(primary).keep_data().unwrap();
    cluster.server_mut(primary).restart().unwrap();
    let insert = "INSERT INTO test.ledger VALUES (1, 'acknowledged'), (2, 'acknowledged')";
    cluster.server(primary).run(&["SET GLOBAL read_only = OFF", insert]).unwrap();
    let replicas = || THREE.iter().filter(|one| padded(one) != primary);
    let arrived = || replicas().all(|one| rows(cluster.server(one)).len() == 2).then_some(());
    wait_for(arrived).expect("the rows did not arrive");
    cluster.server_mut(primary).kill();
    cluster.server(primary).put_back_data().unwrap();
    cluster.server_mut(primary).restart().unwrap();
}
