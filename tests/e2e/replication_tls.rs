//! Replicas whose user may only come by TLS.

use serde_json::{Value, json};
use vtorc_fleet::{Flavor, Server, ServerOptions};

use crate::certificates::certificates;
use crate::check::check;
use crate::credentials::moves_about;
use crate::harness::{Cluster, PLANNED, THREE, padded, template};
use crate::writer::{arrives, create_table};

/// Servers that speak TLS, with nothing set up yet.
fn servers(flavor: Flavor, policy: &str, members: &[&str], more: &[&str]) -> Cluster {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let start = |alias: &&str| {
        let mut extra = vec![
            format!("--ssl-ca={}", file("ca.pem")),
            format!("--ssl-cert={}", file("server.pem")),
            format!("--ssl-key={}", file("server.key")),
        ];
        extra.extend(more.iter().map(ToString::to_string));
        let options = ServerOptions { extra, ..ServerOptions::default() };
        Server::start(template(flavor), &directory.path().join(alias), options).unwrap()
    };
    let servers = members.iter().map(start).collect();
    let root = directory.path().join("topo/global");
    let flags = vec![format!("-topo_global_root={}", root.display())];
    let cluster = Cluster::with_servers(policy, members, servers, directory, flags);
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    cluster
}

/// The replicas' user may only come by TLS, everywhere.
fn require_tls(cluster: &Cluster, flavor: Flavor, members: &[&str]) {
    for alias in members {
        let server = cluster.server(alias);
        let shut = server.value("SELECT @@GLOBAL.read_only").unwrap() == "1";
        let mut statements = vec!["SET sql_log_bin = 0"];
        let alter = "ALTER USER vt_repl@'%' REQUIRE SSL";
        match flavor == Flavor::MySql && shut {
            true => statements.extend([
                "SET GLOBAL super_read_only = OFF",
                alter,
                "SET GLOBAL super_read_only = ON",
            ]),
            false => statements.push(alter),
        }
        server.run(&statements).unwrap();
    }
}

/// A shard of three that is up.
fn started(flavor: Flavor) -> (Cluster, String) {
    let mut cluster = servers(flavor, "semi_sync", THREE, &[]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    for alias in THREE {
        arrives(cluster.server(alias), &[].into());
    }
    (cluster, first)
}

/// Sets this of every channel: an option without the word that its name begins with.
fn repoint(cluster: &Cluster, primary: &str, option: &str) {
    for alias in THREE.iter().filter(|alias| padded(alias) != primary) {
        let server = cluster.server(alias);
        let (command, word, threads) = match server.flavor() {
            Flavor::MySql => ("CHANGE REPLICATION SOURCE TO", "SOURCE", "REPLICA"),
            Flavor::MariaDb => ("CHANGE MASTER TO", "MASTER", "SLAVE"),
        };
        let change = format!("{command} {word}{}", option.replace(", ", &format!(", {word}")));
        server.run(&[&format!("STOP {threads}"), &change, &format!("START {threads}")]).unwrap();
    }
}

/// Replicas that follow by TLS, as an operator had set them up; the configuration says nothing of it.
fn set_up_by_hand(flavor: Flavor) -> (Cluster, String) {
    let (mut cluster, first) = started(flavor);
    cluster.daemons.pop();
    let ca = cluster.directory.path().join("ca.pem").display().to_string();
    repoint(&cluster, &first, &format!("_SSL = 1, _SSL_CA = '{ca}'"));
    require_tls(&cluster, flavor, THREE);
    cluster.start_daemon(&[]);
    assert_eq!(cluster.healthy(&[]), first);
    (cluster, first)
}

#[test]
fn what_mysql_channels_have_is_kept_and_given_to_those_that_have_none() {
    let (mut cluster, first) = set_up_by_hand(Flavor::MySql);
    moves_about(&mut cluster, &first);
    let of_channel = "SELECT CONCAT(ssl_allowed, ssl_ca_file) \
                      FROM performance_schema.replication_connection_configuration";
    let primary = cluster.healthy(&[]);
    for replica in THREE.iter().filter(|alias| padded(alias) != primary) {
        let kept = cluster.server(replica).value(of_channel).unwrap();
        assert!(kept.starts_with("YES/") && kept.ends_with("ca.pem"), "{replica}: {kept}");
    }
}

#[test]
fn what_mariadb_channels_have_is_kept_and_given_to_those_that_have_none() {
    let (mut cluster, first) = set_up_by_hand(Flavor::MariaDb);
    moves_about(&mut cluster, &first);
}

/// A new shard of two whose user may only come by TLS, on servers that let nobody in without.
fn the_configuration_says(flavor: Flavor) {
    let two = &THREE[..2];
    let mut cluster = servers(flavor, "none", two, &["--require-secure-transport=ON"]);
    require_tls(&cluster, flavor, two);
    let ca = cluster.directory.path().join("ca.pem").display().to_string();
    let keys: [(&str, Value); 3] = [
        ("MySQLTopologySSLSkipVerify", json!(true)),
        ("MySQLReplicaSSLCAFile", json!(ca)),
        ("RecoveryPeriodBlockSeconds", json!(0)),
    ];
    cluster.configure(&keys);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let (status, answer) = cluster.daemon().post(PLANNED, json!({"reason": "test"}));
    assert_eq!(status, 200, "{answer:#}");
    let second = cluster.settles(|alias| alias != first);
    cluster.server(&second).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    arrives(cluster.server(&first), &[1].into());
    cluster.server_mut(&second).kill();
    assert_eq!(cluster.healthy(&[&second]), first);
    cluster.server_mut(&second).restart().unwrap();
    assert_eq!(cluster.healthy(&[]), first);
}

#[test]
fn a_new_mysql_shard_follows_by_tls_where_the_configuration_says() {
    the_configuration_says(Flavor::MySql);
}

#[test]
fn a_new_mariadb_shard_follows_by_tls_where_the_configuration_says() {
    the_configuration_says(Flavor::MariaDb);
}

#[test]
fn check_tells_of_a_user_that_must_come_by_tls_beside_channels_without() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let (mut cluster, first) = started(flavor);
        // MySQL's default is TLS since 9.7.
        repoint(&cluster, &first, "_SSL = 0");
        cluster.daemons.pop();
        require_tls(&cluster, flavor, THREE);
        let (_, concerns) = check(&cluster);
        let told = |one: &&Value| {
            let cure = one["cure"].as_str().unwrap_or_default();
            one["code"] == "ReplicaUserRefused" && cure.contains("MySQLReplicaUseSSL")
        };
        // Of each replica; the primary has no channel that would say.
        assert_eq!(concerns.iter().filter(told).count(), 2, "{concerns:#?}");
    }
}
