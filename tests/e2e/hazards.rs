//! Hazards met in the field that no other story tells.

use mysql::prelude::Queryable;
use serde_json::json;
use vtorc_fleet::{Flavor, Server, ServerOptions};

use crate::harness::{Cluster, PATIENCE, THREE, template, wait_for};
use crate::writer::{create_table, rows};

const PLANNED: &str = "/api/v1/shards/ks/0/planned-reparent?wait=true";

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
    for lock in ["INSERT INTO test.ledger VALUES (666, 'open')", "LOCK TABLES test.ledger WRITE"] {
        for flavor in [Flavor::MySql, Flavor::MariaDb] {
            let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
            cluster.start_daemon(&[]);
            let first = cluster.healthy(&[]);
            create_table(cluster.server(&first));
            let arrived = || {
                let has = |one: &&str| {
                    cluster.server(one).value("SELECT COUNT(*) FROM test.ledger").is_ok()
                };
                THREE.iter().all(has).then_some(())
            };
            wait_for(arrived).expect("the table did not arrive");
            let mut client = cluster.server(&first).connect_within("app", PATIENCE).unwrap();
            client.query_drop("SET autocommit = 0").unwrap();
            client.query_drop(lock).unwrap();
            let (status, answer) = cluster.daemon().post(PLANNED, json!({}));
            assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{answer:#}");
            let second = cluster.settles(|alias| alias != first);
            assert!(client.query_drop("COMMIT").is_err(), "{flavor:?}: {lock}: it was committed");
            let second = cluster.server(&second);
            assert!(!rows(second).contains(&666), "{flavor:?}: an uncommitted write is there");
        }
    }
}
