//! Replicas log in as somebody whom the configuration does not name: that is kept, or nothing is begun.

use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, PLANNED, THREE, padded, wait_for};
use crate::writer::{arrives, create_table, rows};

/// A shard whose replicas log in as `repl2`; the user of the sample configuration is gone. vtorc starts anew with
/// these keys.
fn cluster(flavor: Flavor, keys: &[(&str, Value)], may_read: bool) -> (Cluster, String) {
    let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    for alias in THREE {
        arrives(cluster.server(alias), &[].into());
    }
    cluster.daemons.pop();
    for alias in THREE {
        locally(&cluster, flavor, alias, may_read);
    }
    let change = match flavor {
        Flavor::MySql => [
            "STOP REPLICA",
            "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'repl2', SOURCE_PASSWORD = 'secret'",
            "START REPLICA",
        ],
        Flavor::MariaDb => [
            "STOP SLAVE",
            "CHANGE MASTER TO MASTER_USER = 'repl2', MASTER_PASSWORD = 'secret'",
            "START SLAVE",
        ],
    };
    for alias in THREE.iter().filter(|alias| padded(alias) != first) {
        cluster.server(alias).run(&change).unwrap();
    }
    let without = [("MySQLReplicaUser", json!("")), ("RecoveryPeriodBlockSeconds", json!(0))];
    cluster.configure(&[&without[..], keys].concat());
    cluster.start_daemon(&[]);
    assert_eq!(cluster.healthy(&[]), first);
    (cluster, first)
}

/// Users that each server has for itself.
fn locally(cluster: &Cluster, flavor: Flavor, alias: &str, may_read: bool) {
    let server = cluster.server(alias);
    let open = server.value("SELECT @@GLOBAL.read_only").unwrap() == "0";
    let mut statements = vec!["SET sql_log_bin = 0"];
    if flavor == Flavor::MySql && !open {
        statements.push("SET GLOBAL super_read_only = OFF");
    }
    statements.extend([
        "CREATE USER repl2@'%' IDENTIFIED BY 'secret'",
        "GRANT REPLICATION SLAVE ON *.* TO repl2@'%'",
        "DROP USER vt_repl@'%'",
    ]);
    if may_read {
        statements.push("GRANT SELECT ON mysql.slave_master_info TO 'orc_client_user'@'%'");
    }
    if flavor == Flavor::MySql && !open {
        statements.push("SET GLOBAL super_read_only = ON");
    }
    server.run(&statements).unwrap();
}

/// A planned failover, and one after a crash, from which the old primary comes back.
pub fn moves_about(cluster: &mut Cluster, first: &str) {
    let (status, answer) = cluster.daemon().post(PLANNED, json!({"reason": "test"}));
    assert_eq!(status, 200, "{answer:#}");
    let second = cluster.settles(|alias| alias != first);
    cluster.server(&second).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    arrives(cluster.server(first), &[1].into());
    cluster.server_mut(&second).kill();
    let third = cluster.healthy(&[&second]);
    cluster.server(&third).run(&["INSERT INTO test.ledger VALUES (2, 'x')"]).unwrap();
    cluster.server_mut(&second).restart().unwrap();
    arrives(cluster.server(&second), &[1, 2].into());
    cluster.healthy(&[]);
}

#[test]
fn what_a_channel_uses_is_kept_and_read_for_those_that_have_none() {
    let (mut cluster, first) = cluster(Flavor::MySql, &[], true);
    moves_about(&mut cluster, &first);
    let log = cluster.daemon().log_text();
    assert!(!log.contains("secret"), "a password is in the log");
}

#[test]
fn an_operators_query_tells_what_mariadb_does_not() {
    let query = ("ReplicationCredentialsQuery", json!("SELECT 'repl2', 'secret'"));
    let (mut cluster, first) = cluster(Flavor::MariaDb, &[query], false);
    moves_about(&mut cluster, &first);
}

#[test]
fn where_nobody_knows_whom_to_log_in_as_nothing_is_stopped() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let (mut cluster, first) = cluster(flavor, &[], false);
        let (status, answer) = cluster.daemon().post(PLANNED, json!({"reason": "test"}));
        assert_eq!(status, 409, "{answer:#}");
        let why = answer["message"].as_str().unwrap();
        assert!(why.contains("MySQLReplicaUser") && why.contains(&first), "{why}");
        cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
        // Those that follow somebody know whom to log in as: a dead primary is replaced all the same.
        cluster.server_mut(&first).kill();
        let second = cluster.healthy(&[&first]);
        assert!(rows(cluster.server(&second)).contains(&1));
        // The one that comes back is named, and left as it is.
        cluster.server_mut(&first).restart().unwrap();
        let named = wait_for(|| {
            let held = cluster.daemon().shard()["held_back"].clone();
            held.as_str().filter(|why| why.contains("MySQLReplicaUser")).map(|_| ())
        });
        named.unwrap_or_else(|| panic!("{flavor:?}: {:#}", cluster.daemon().shard()));
    }
}

/// A new shard whose servers follow nobody is not begun: no server is touched.
#[test]
fn a_new_shard_without_a_login_is_not_brought_up() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    cluster.configure(&[("MySQLReplicaUser", json!(""))]);
    cluster.start_daemon(&[]);
    cluster.daemon().held_back("MySQLReplicaUser");
    assert!(cluster.daemon().shard()["primary"].is_null());
}

/// Before the bad day: `check` logs in as a replica would.
#[test]
fn a_replica_user_that_is_not_let_in_is_told_by_check() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut cluster = Cluster::new(flavor, "none", THREE);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        let codes = |cluster: &Cluster| -> Vec<String> {
            let shown = cluster.daemon().get("/api/v1/shards/ks/0/check");
            let shown = shown.as_array().unwrap().iter();
            let errors = shown.filter(|one| one["code"] == "ReplicaUserRefused");
            errors
                .map(|one| format!("{} {}", one["code"].as_str().unwrap(), one["tablet"]))
                .collect()
        };
        assert!(codes(&cluster).is_empty(), "{flavor:?}: {:?}", codes(&cluster));
        let server = cluster.server(&first);
        server
            .run(&["SET sql_log_bin = 0", "REVOKE REPLICATION SLAVE ON *.* FROM vt_repl@'%'"])
            .unwrap();
        let refused = [format!("ReplicaUserRefused \"{first}\"")];
        // One that does not answer in time is not judged.
        let told = || (codes(&cluster) == refused).then_some(());
        wait_for(told).unwrap_or_else(|| {
            panic!("{flavor:?}: {:#}", cluster.daemon().get("/api/v1/shards/ks/0/check"))
        });
        server.run(&["SET sql_log_bin = 0", "DROP USER vt_repl@'%'"]).unwrap();
        wait_for(told).unwrap_or_else(|| {
            panic!("{flavor:?}: {:#}", cluster.daemon().get("/api/v1/shards/ks/0/check"))
        });
    }
}

/// The password of the replicas' user is changed under a shard that works: whoever connects anew is turned away. The
/// finding has the server's words, nothing is moved there, and once the password is right again all is in order by
/// itself.
#[test]
fn a_wrong_replica_password_is_found_and_no_write_stops_for_it() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
        cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        let alter = "ALTER USER vt_repl@'%' IDENTIFIED BY 'another one'";
        cluster.server(&first).run(&[alter]).unwrap();
        let (status, answer) = cluster.daemon().post(PLANNED, json!({"reason": "test"}));
        assert_eq!(status, 409, "{flavor:?}: {answer:#}");
        let why = answer["message"].as_str().unwrap();
        assert!(why.contains("could not log in") && why.contains("vt_repl"), "{flavor:?}: {why}");
        cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
        let replica = THREE.iter().map(|alias| padded(alias)).find(|alias| *alias != first);
        let replica = replica.unwrap();
        let restart = match flavor {
            Flavor::MySql => ["STOP REPLICA IO_THREAD", "START REPLICA IO_THREAD"],
            Flavor::MariaDb => ["STOP SLAVE IO_THREAD", "START SLAVE IO_THREAD"],
        };
        cluster.server(&replica).run(&restart).unwrap();
        let shown = cluster.daemon().finding("ReplicaCannotConnect");
        let mut found = shown["findings"].as_array().unwrap().iter();
        let found = found.find(|one| one["code"] == "ReplicaCannotConnect").unwrap();
        assert_eq!(found["tablet"], replica.as_str(), "{found:#}");
        assert!(found["evidence"].to_string().contains("Access denied"), "{found:#}");
        let failed = cluster.daemon().recovery(|one| one["outcome"] == "failed");
        assert!(failed["outcome_text"].as_str().unwrap().contains("Access denied"), "{failed:#}");
        let alter = "ALTER USER vt_repl@'%' IDENTIFIED BY ''";
        cluster.server(&first).run(&[alter]).unwrap();
        assert_eq!(cluster.healthy(&[]), first);
    }
}

/// What a password may contain: in the configuration, in an option file, and in the statements that replicas get.
#[test]
fn a_password_may_contain_anything() {
    const PASSWORD: &str = r#"a"b\c'd#e ü;%`$"#;
    let quoted = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
        for alias in THREE {
            let alter = |user: &str| format!("ALTER USER {user}@'%' IDENTIFIED BY '{quoted}'");
            let (replica, topology) = (alter("vt_repl"), alter("orc_client_user"));
            cluster.server(alias).run(&["SET sql_log_bin = 0", &replica, &topology]).unwrap();
        }
        let file = cluster.directory.path().join("topology.cnf");
        let escaped = PASSWORD.replace('\\', "\\\\").replace('"', "\\\"");
        std::fs::write(&file, format!("[client]\nuser=orc_client_user\npassword=\"{escaped}\"\n"))
            .unwrap();
        cluster.configure(&[
            ("MySQLTopologyCredentialsConfigFile", json!(file.display().to_string())),
            ("MySQLReplicaPassword", json!(PASSWORD)),
            ("RecoveryPeriodBlockSeconds", json!(0)),
        ]);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        moves_about(&mut cluster, &first);
        let log = cluster.daemon().log_text();
        assert!(!log.contains("d#e"), "a password is in the log");
    }
}
