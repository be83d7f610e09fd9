//! What would go wrong on the bad day is told before it, by real servers' own word.

use std::process::Command;

use serde_json::Value;
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, THREE, padded};

/// Exit status and concerns.
pub fn check(cluster: &Cluster) -> (i32, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_vtorc"))
        .args(&cluster.topo_flags)
        .arg(format!("-config={}", cluster.config.display()))
        .args(["check", "--json"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let concerns = serde_json::from_str(&text).unwrap_or_else(|_| {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code().unwrap(), concerns)
}

fn codes<'a>(concerns: &'a [Value], severity: &str) -> Vec<&'a str> {
    let fitting = concerns.iter().filter(|one| one["severity"] == severity);
    fitting.map(|one| one["code"].as_str().unwrap()).collect()
}

fn grants_and_settings_are_looked_at(flavor: Flavor) {
    let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let replica = *THREE.iter().find(|alias| padded(alias) != primary).unwrap();
    let (status, before) = check(&cluster);
    assert_eq!((status, codes(&before, "error")), (3, Vec::new()), "{flavor:?}: {before:#?}");
    assert!(codes(&before, "warning").contains(&"OneHost"), "{before:#?}");

    let user = "'orc_client_user'@'%'";
    let (revoke, grant) =
        (format!("REVOKE RELOAD ON *.* FROM {user}"), format!("GRANT RELOAD ON *.* TO {user}"));
    let aside = |statement: &str| {
        let mut statements = vec!["SET sql_log_bin = 0", statement];
        if flavor == Flavor::MySql {
            statements.insert(0, "SET GLOBAL super_read_only = 0");
            statements.push("SET GLOBAL super_read_only = 1");
        }
        cluster.server(replica).run(&statements).unwrap();
    };
    aside(&revoke);
    cluster.server(replica).run(&["SET GLOBAL sync_binlog = 0"]).unwrap();
    let (status, after) = check(&cluster);
    let about = |code: &str| {
        let mut all = after.iter();
        let found = all.find(|one| one["code"] == code && one["tablet"] == padded(replica));
        found.unwrap_or_else(|| panic!("{flavor:?}: no {code}: {after:#?}"))
    };
    assert_eq!(status, 4);
    assert!(about("MissingGrant")["what"].as_str().unwrap().contains("RELOAD ON *.*"));
    about("CommitsNotDurable");
    // The running daemon says the same.
    let shown = cluster.daemon().get("/api/v1/shards/ks/0/check");
    assert_eq!(codes(shown.as_array().unwrap(), "error"), ["MissingGrant"], "{shown:#}");

    aside(&grant);
    cluster.server(replica).run(&["SET GLOBAL sync_binlog = 1"]).unwrap();
    assert_eq!(check(&cluster).0, 3);
    cluster.daemons.pop();
    cluster.server_mut(replica).kill();
    let (status, gone) = check(&cluster);
    assert_eq!((status, codes(&gone, "error")), (4, vec!["NoFailoverPossible"]), "{gone:#?}");
}

#[test]
fn mysql_grants_and_settings_are_looked_at() {
    grants_and_settings_are_looked_at(Flavor::MySql);
}

#[test]
fn mariadb_grants_and_settings_are_looked_at() {
    grants_and_settings_are_looked_at(Flavor::MariaDb);
}
