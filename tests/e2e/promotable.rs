//! The best candidate cannot be promoted, and another one can: it is promoted at once.

use mysql::Conn;
use serde_json::Value;
use vtorc_fleet::{Flavor, Server, ServerOptions};

use crate::harness::{Cluster, THREE, others, padded, template};
use crate::writer::{arrives, create_table};

/// A shard of three whose best candidate is told beside it.
fn cluster(flavor: Flavor) -> (Cluster, String, &'static str) {
    let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'acknowledged')"]).unwrap();
    let replicas = others(&first);
    for replica in &replicas {
        arrives(cluster.server(replica), &[1].into());
    }
    // Among equals the alias decides.
    let best = *replicas.iter().min().unwrap();
    (cluster, first, best)
}

/// The primary dies: the other replica is promoted by the first recovery, and takes writes.
fn the_other_is_promoted(mut cluster: Cluster, first: &str, best: &str) -> Value {
    cluster.server_mut(first).kill();
    let promoted = |one: &Value| one["kind"] == "EmergencyReparent";
    let recovery = cluster.daemon().recovery(promoted);
    assert_eq!(recovery["outcome"], "succeeded", "{recovery:#}\n{}", cluster.daemon().log_text());
    assert_ne!(recovery["new_primary"], padded(best), "{recovery:#}");
    let second = recovery["new_primary"].as_str().unwrap();
    cluster.server(second).run(&["INSERT INTO test.ledger VALUES (2, 'x')"]).unwrap();
    arrives(cluster.server(best), &[1, 2].into());
    recovery
}

/// Clients open connections until no more are let in.
pub fn fill(cluster: &Cluster, alias: &str) -> Vec<Conn> {
    let server = cluster.server(alias);
    server.run(&["SET GLOBAL max_connections = 12"]).unwrap();
    std::iter::from_fn(|| server.connect("app").ok()).collect()
}

#[test]
fn a_candidate_whose_connections_are_used_up_leaves_the_other_its_place() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let (cluster, first, best) = cluster(flavor);
        let _clients = fill(&cluster, best);
        the_other_is_promoted(cluster, &first, best);
    }
}

#[test]
fn where_the_topology_user_may_not_open_a_candidate_the_next_one_is_promoted() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let (cluster, first, best) = cluster(flavor);
        let (revoke, lift, lower) = match flavor {
            Flavor::MySql => {
                ("SYSTEM_VARIABLES_ADMIN", "super_read_only = OFF", "super_read_only = ON")
            }
            Flavor::MariaDb => ("READ_ONLY ADMIN", "read_only = OFF", "read_only = ON"),
        };
        let revoke = format!("REVOKE {revoke} ON *.* FROM 'orc_client_user'@'%'");
        let (lift, lower) = (format!("SET GLOBAL {lift}"), format!("SET GLOBAL {lower}"));
        let revoked = ["SET sql_log_bin = 0", &lift, &revoke, &lower];
        cluster.server(best).run(&revoked).unwrap();
        let recovery = the_other_is_promoted(cluster, &first, best);
        let steps = recovery["steps"].to_string();
        assert!(steps.contains("denied"), "{recovery:#}");
    }
}

/// Clients open connections until none is left for vtorc, which has no privilege to come in all the same.
pub fn fill_for_vtorc(cluster: &Cluster, alias: &str) -> Vec<Conn> {
    let server = cluster.server(alias);
    let (grant, lift, lower) = match server.flavor() {
        Flavor::MySql => (
            "CONNECTION_ADMIN",
            "SET GLOBAL super_read_only = OFF",
            "SET GLOBAL super_read_only = ON",
        ),
        Flavor::MariaDb => ("CONNECTION ADMIN", "DO 0", "DO 0"),
    };
    let revoke = format!("REVOKE {grant} ON *.* FROM 'orc_client_user'@'%'");
    server.run(&["SET sql_log_bin = 0", lift, &revoke, lower]).unwrap();
    fill(cluster, alias)
}

/// A server that has no connection left for vtorc is named as such, and not for a wrong password.
#[test]
fn a_server_without_a_free_connection_is_named() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let (mut cluster, _, best) = cluster(flavor);
        cluster.daemons.clear();
        let _clients = fill_for_vtorc(&cluster, best);
        cluster.start_daemon(&[]);
        let shard = cluster.daemon().finding("TooManyConnections");
        assert!(shard["findings"].to_string().contains("1040"), "{shard:#}");
    }
}

/// A tree that serves is registered, and its primary cannot be set up as the policy wants: it goes on serving.
#[test]
fn a_tree_that_serves_is_left_alone_where_its_primary_cannot_be_set_up() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    let [primary, replicas @ ..] = THREE else { panic!("three tablets") };
    let address = cluster.server(primary).address();
    let (host, port) = address.split_once(':').unwrap();
    let follow = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, \
         SOURCE_USER = 'vt_repl', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1"
    );
    create_table(cluster.server(primary));
    for replica in replicas {
        cluster
            .server(replica)
            .run(&[&follow, "START REPLICA", "SET GLOBAL super_read_only = ON"])
            .unwrap();
        arrives(cluster.server(replica), &[].into());
    }
    cluster.server(primary).run(&["UNINSTALL PLUGIN rpl_semi_sync_source"]).unwrap();
    cluster.start_daemon(&[]);
    cluster.daemon().recovery(|one| one["kind"] == "ElectPrimary" && one["outcome"] == "failed");
    cluster.server(primary).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
}

/// A server that serves is registered, and could never be promoted: it goes on serving.
#[test]
fn a_server_that_serves_is_left_alone_where_nobody_can_be_promoted() {
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        extra: vec!["--skip-log-slave-updates".into()],
        ..ServerOptions::default()
    };
    let place = directory.path().join(THREE[0]);
    let server = Server::start(template(Flavor::MariaDb), &place, options).unwrap();
    let flags =
        vec![format!("-topo_global_root={}", directory.path().join("topo/global").display())];
    let mut cluster = Cluster::with_servers("none", &THREE[..1], vec![server], directory, flags);
    create_table(cluster.server(THREE[0]));
    cluster.start_daemon(&[]);
    cluster.daemon().recovery(|one| one["kind"] == "ElectPrimary" && one["outcome"] == "refused");
    cluster.server(THREE[0]).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    assert_eq!(cluster.server(THREE[0]).value("SELECT @@read_only").unwrap(), "0");
}

/// One server of a new shard refuses to be demoted, and refuses writes already: another one is elected.
#[test]
fn a_new_shard_comes_up_without_one_that_refuses() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
        let (revoke, shut) = match flavor {
            Flavor::MySql => ("SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN", "super_read_only = ON"),
            Flavor::MariaDb => ("READ_ONLY ADMIN", "read_only = ON"),
        };
        for alias in THREE {
            let shut = format!("SET GLOBAL {shut}");
            let revoke = format!("REVOKE {revoke} ON *.* FROM 'orc_client_user'@'%'");
            let statements = match *alias == THREE[0] {
                true => vec!["SET sql_log_bin = 0", &revoke, &shut],
                false => vec![shut.as_str()],
            };
            cluster.server(alias).run(&statements).unwrap();
        }
        cluster.start_daemon(&[]);
        let elected = cluster.daemon().recovery(|one| one["new_primary"].is_string());
        assert_ne!(elected["new_primary"], padded(THREE[0]), "{elected:#}");
    }
}
