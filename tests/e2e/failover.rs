//! Bring-up and failover.

use vtorc_fleet::Flavor;

use crate::harness::Cluster;

const THREE: &[&str] = &["zone1-101", "zone1-102", "zone1-103"];

fn elects_and_replaces_a_killed_primary(flavor: Flavor) {
    let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    assert_ne!(first, second);
    let recovery = cluster.daemon().recovery(|one| one["kind"] == "EmergencyReparent");
    assert_eq!(recovery["outcome"], "succeeded", "{recovery:#}");
    assert_eq!(recovery["new_primary"], second.as_str());
    cluster.server_mut(&first).restart().unwrap();
    assert_eq!(cluster.healthy(&[]), second);
}

#[test]
fn mysql_elects_and_replaces_a_killed_primary() {
    elects_and_replaces_a_killed_primary(Flavor::MySql);
}

#[test]
fn mariadb_elects_and_replaces_a_killed_primary() {
    elects_and_replaces_a_killed_primary(Flavor::MariaDb);
}
