//! `vtorc explain`: what a snapshot of a shard amounts to, without contacting anything.

use std::process::Command;

use vtorc_fleet::Flavor;

use crate::harness::{Cluster, padded, wait_for};

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
