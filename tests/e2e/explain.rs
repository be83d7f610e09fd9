//! `vtorc explain`: what a snapshot of a shard amounts to, without contacting anything.

use std::process::Command;

use vtorc_fleet::Flavor;

use crate::harness::{Cluster, padded, wait_for};
use crate::http::ctl;

#[test]
fn a_snapshot_of_a_running_shard_is_explained() {
    let members = ["zone1-101", "zone1-102", "zone1-103"];
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", &members);
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[]);
    let said = explain(&cluster);
    assert!(said.contains(&format!("ks/0: primary {primary}, durability semi_sync")), "{said}");
    assert!(said.contains("Nothing found."), "{said}");
    assert!(said.contains("would be promoted"), "{said}");
    assert!(said.contains("would be lost: nothing that was acknowledged"), "{said}");

    // With one replica gone the safety rule would refuse, and says who must come back.
    let gone = members.into_iter().find(|alias| padded(alias) != primary).unwrap();
    cluster.server_mut(gone).kill();
    let seen = wait_for(|| {
        let shard = cluster.daemon().shard();
        let found = shard["findings"].as_array()?.iter().any(|one| one["code"] == "InvalidReplica");
        (found && shard["if_primary_died"]["outcome"] == "refuses").then_some(())
    });
    seen.expect("the prognosis did not change");
    let said = explain(&cluster);
    assert!(said.contains(&format!("InvalidReplica on {}", padded(gone))), "{said}");
    assert!(said.contains("nothing would be done") && said.contains(&padded(gone)), "{said}");
}

#[test]
fn a_running_daemon_is_asked_from_the_command_line() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102"]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let second = ["zone1-101", "zone1-102"].into_iter().find(|one| padded(one) != first).unwrap();
    let url = cluster.daemon().url("");
    let ctl = |arguments: &[&str]| ctl(&[&["--url", &url][..], arguments].concat());
    let (ok, said) = ctl(&["shards"]);
    assert!(ok && said.contains(&format!("ks/0  primary {first}  in order")), "{said}");
    let (ok, said) = ctl(&["topology"]);
    let tree = said.lines().skip(2).map(str::trim_end).collect::<Vec<_>>();
    let leads = |line: &str, alias: &str| line.starts_with(alias) && line.contains("takes writes");
    let follows = format!("└─ {}", padded(second));
    assert!(ok && leads(tree[0], &first) && tree[1].starts_with(&follows), "{said}");
    assert!(tree[1].contains("replicates") && tree[1].ends_with(" s"), "{said}");
    let (ok, said) = ctl(&["planned-reparent", "ks/0", "--dry-run"]);
    let would = format!("{} would be primary instead of {first}", padded(second));
    assert!(ok && said.contains(&would), "{said}");
    let (ok, said) = ctl(&["planned-reparent", "ks/0", "--new-primary", "zone1-9", "--dry-run"]);
    assert!(!ok && said.contains("zone1-0000000009 is not a tablet of this shard"), "{said}");
    // Nothing was moved.
    assert_eq!(cluster.daemon().shard()["primary"], first.as_str());
    let (ok, said) = ctl(&["planned-reparent", "ks/0", "--new-primary", second, "--reason", "try"]);
    assert!(ok && said.contains(&format!("{} is primary", padded(second))), "{said}");
    // The history is written a moment later.
    let listed =
        wait_for(|| ctl(&["recoveries"]).1.contains("PlannedReparent  succeeded").then_some(()));
    listed.expect("the recovery is not listed");
    let (_, recoveries) = ctl(&["recoveries"]);
    let moved = recoveries.lines().find(|line| line.contains("PlannedReparent")).unwrap();
    let (ok, said) = ctl(&["recovery", moved.split_whitespace().next().unwrap()]);
    let promoted = said.lines().find(|line| line.contains(" promote ")).unwrap_or_default();
    assert!(ok && promoted.contains(&padded(second)) && promoted.contains("done"), "{said}");
    assert!(said.contains("writes stood for: ") && said.contains("reason: try"), "{said}");
    // The old primary is seen to follow a moment later.
    let tells = || {
        let (ok, said) = ctl(&["planned-reparent", "ks/0", "--dry-run"]);
        (ok && said.contains("in the last moves of this shard")).then_some(())
    };
    wait_for(tells).expect("earlier moves are not told");
    let (ok, said) = ctl(&["check", "ks/0"]);
    assert!(ok && said.starts_with("SEVERITY"), "{said}");
    let (ok, said) = ctl(&["findings", "--json"]);
    assert!(ok && serde_json::from_str::<serde_json::Value>(&said).unwrap().is_array(), "{said}");
    let (ok, said) = ctl(&["set", "recoveries-off", "ks", "--comment", "x", "--minutes", "5"]);
    assert!(ok && said.contains("recoveries-off ks"), "{said}");
    let (ok, said) = ctl(&["controls"]);
    assert!(ok && said.contains("recoveries-off ks"), "{said}");
    let (ok, said) = ctl(&["errant-gtids", "ks/0"]);
    assert!(ok && said.contains("no replica has"), "{said}");
    let (ok, said) = ctl(&["planned-reparent", "ks/9"]);
    assert!(!ok && said.contains("404") && said.contains("ks/9"), "{said}");
}

#[test]
fn what_is_no_snapshot_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("s.json");
    for (text, expected) in [
        ("", "EOF"),
        ("{}", "missing field"),
        ("{\"keyspace\": \"ks\", \"shard\": \"0\", \"x\": 1}", "unknown field"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = run(&file);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected) && said.contains("s.json"), "{said}");
    }
}

fn explain(cluster: &Cluster) -> String {
    let snapshot = cluster.daemon().get("/api/v1/shards/ks/0/snapshot");
    let file = cluster.directory.path().join("snapshot.json");
    std::fs::write(&file, snapshot.to_string()).unwrap();
    let output = run(&file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(file: &std::path::Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_vtorc")).arg("explain").arg(file).output().unwrap()
}
