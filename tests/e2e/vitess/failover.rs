//! Primaries behind vttablets are elected, lost and replaced.

use serde_json::{Value, json};

use super::cluster::{Way, with_vttablets};
use crate::harness::{Cluster, THREE};
use crate::writer::{Writer, create_table, rows};

/// The last recovery of this kind that ended.
fn recovery(cluster: &Cluster, kind: &str) -> Value {
    cluster.daemon().recovery(|one| one["kind"] == kind)
}

fn down_primary(way: Way) {
    let mut cluster = with_vttablets("semi_sync", THREE, way, |_| {});
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(recovery(&cluster, "ElectPrimary")["outcome"], "succeeded");
    create_table(cluster.server(&first));
    let writer = Writer::start(&cluster);
    writer.wait_for_more(50);
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    assert_ne!(first, second);
    writer.wait_for_more(20);
    let acknowledged = writer.finish();
    let missing: Vec<u64> =
        acknowledged.difference(&rows(cluster.server(&second))).copied().collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    let emergency = recovery(&cluster, "EmergencyReparent");
    assert_eq!(
        (&emergency["outcome"], &emergency["finding"]),
        (&json!("succeeded"), &json!("DeadPrimary"))
    );
    // The new primary's vttablet promoted its server and wrote the records; vtorc did not.
    let calls = cluster.vttablets[&second].calls();
    assert_eq!(calls.get("PromoteReplica"), Some(&1), "{calls:?}");
    cluster.server_mut(&first).restart().unwrap();
    assert_eq!(cluster.healthy(&[]), second);
}

#[test]
fn down_primary_through_vttablets_alone() {
    down_primary(Way::Vttablets);
}

#[test]
fn down_primary_with_the_servers_probed_directly() {
    down_primary(Way::Both);
}
