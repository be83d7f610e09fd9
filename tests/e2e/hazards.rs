//! Hazards met in the field that no other story tells.

use mysql::prelude::Queryable;
use serde_json::json;
use vtorc_fleet::{Flavor, Server, ServerOptions};

use crate::harness::{Cluster, PATIENCE, THREE, padded, template, wait_for};
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

/// A primary whose machine is lost, and with it the end of its binary log, comes back before anybody replaced it: it
/// is not opened again, and since it never gets its own transactions back from others, it is named and not elected.
#[test]
fn a_primary_that_lost_the_end_of_its_log_does_not_serve_again() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        cluster.daemons.clear();
        cluster.server_mut(&first).stop(PATIENCE).unwrap();
        cluster.server(&first).keep_data().unwrap();
        cluster.server_mut(&first).restart().unwrap();
        let insert = "INSERT INTO test.ledger VALUES (1, 'lost'), (2, 'lost')";
        cluster.server(&first).run(&["SET GLOBAL read_only = OFF", insert]).unwrap();
        let others: Vec<&str> = THREE.iter().copied().filter(|one| padded(one) != first).collect();
        let arrived = || others.iter().all(|one| rows(cluster.server(one)).len() == 2).then_some(());
        wait_for(arrived).expect("the rows did not arrive");
        cluster.server_mut(&first).kill();
        cluster.server(&first).put_back_data().unwrap();
        cluster.server_mut(&first).restart().unwrap();
        cluster.start_daemon(&[]);
        std::thread::sleep(std::time::Duration::from_secs(8));
        println!("{}", cluster.daemon().log_text());
        println!("{flavor:?} first {:?}", rows(cluster.server(&first)));
        println!("{:#}", cluster.daemon().shard());
    }
}

#[test]
fn zz_experiment() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        cluster.daemons.clear();
        cluster.server_mut(&first).stop(PATIENCE).unwrap();
        cluster.server(&first).keep_data().unwrap();
        cluster.server_mut(&first).restart().unwrap();
        let insert = "INSERT INTO test.ledger VALUES (1, 'lost'), (2, 'lost')";
        cluster.server(&first).run(&["SET GLOBAL read_only = OFF", insert]).unwrap();
        let others: Vec<&str> = THREE.iter().copied().filter(|one| padded(one) != first).collect();
        let arrived = || others.iter().all(|one| rows(cluster.server(one)).len() == 2).then_some(());
        wait_for(arrived).expect("the rows did not arrive");
        cluster.server_mut(&first).kill();
        cluster.server(&first).put_back_data().unwrap();
        cluster.server_mut(&first).restart().unwrap();
        let b = cluster.server(others[0]);
        let _ = b.run(&["STOP SLAVE"]);
        let _ = b.run(&["STOP REPLICA"]);
        let _ = b.run(&["SET GLOBAL read_only=OFF"]);
        b.run(&["INSERT INTO test.ledger VALUES (3, 'later')"]).unwrap();
        let a = cluster.server(&first);
        let port = b.port;
        match flavor {
            Flavor::MySql => a.run(&[&format!("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='admin', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1"), "START REPLICA"]).unwrap(),
            Flavor::MariaDb => a.run(&[&format!("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='admin', MASTER_USE_GTID=current_pos"), "START SLAVE"]).unwrap(),
        }
        std::thread::sleep(std::time::Duration::from_secs(4));
        println!("XX {flavor:?} A rows {:?}", rows(a));
        match flavor {
            Flavor::MySql => println!("XX {} / {} / {:?}", a.value("SELECT @@gtid_executed").unwrap(), b.value("SELECT @@gtid_executed").unwrap(), a.value("SELECT CONCAT(SERVICE_STATE,LAST_ERROR_MESSAGE) FROM performance_schema.replication_connection_status")),
            Flavor::MariaDb => println!("XX {} {} / {} / {:?}", a.value("SELECT @@gtid_binlog_pos").unwrap(), a.value("SELECT @@gtid_slave_pos").unwrap(), b.value("SELECT @@gtid_binlog_pos").unwrap(), 1),
        }
    }
}
