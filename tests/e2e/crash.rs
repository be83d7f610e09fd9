//! vtorc dies at each step of a recovery; the next one finishes the job.

use serde_json::json;
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, Kind, PATIENCE, THREE, padded};
use crate::writer::create_table;

/// Every point of an emergency reparent.
const EMERGENCY_POINTS: &[&str] = &[
    "locked",
    "after stop all receivers",
    "before promote",
    "after promote",
    "after record the primary's type",
    "after record the shard's primary",
    "after record the old primary's type",
    "before follow the new primary",
    "after follow the new primary",
    "before write the reparent journal",
    "after write the reparent journal",
];

/// Every point of a planned one.
const PLANNED_POINTS: &[&str] = &[
    "locked",
    "after catch up before writes stop",
    "after stop writes",
    "after wait for the last position",
    "before promote",
    "after promote",
    "after record the primary's type",
    "after record the shard's primary",
    "after write the reparent journal",
];

/// Every point of a first election.
const ELECTION_POINTS: &[&str] = &[
    "locked",
    "after stop all receivers",
    "before promote",
    "after promote",
    "after record the primary's type",
    "after record the shard's primary",
];

/// Those of each where a vttablet publishes its type and the shard's primary by itself.
const THROUGH_VTTABLETS: (&[&str], &[&str], &[&str]) = (
    &[
        "locked",
        "after stop all receivers",
        "before promote",
        "after promote",
        "before follow the new primary",
        "after follow the new primary",
        "after wait for its vttablet's records",
        "after write the reparent journal",
    ],
    &[
        "locked",
        "after catch up before writes stop",
        "after stop writes",
        "after wait for the last position",
        "before promote",
        "after promote",
        "after follow the new primary",
        "after wait for its vttablet's records",
        "after write the reparent journal",
    ],
    &["locked", "after stop all receivers", "before promote", "after promote"],
);

pub(crate) fn emergency_through_vttablets(kind: Kind) {
    emergency(kind, THROUGH_VTTABLETS.0);
}

pub(crate) fn planned_through_vttablets(kind: Kind) {
    planned(kind, THROUGH_VTTABLETS.1);
}

pub(crate) fn election_through_vttablets(kind: Kind) {
    election(kind, THROUGH_VTTABLETS.2);
}

pub(crate) fn dies(cluster: &mut Cluster, point: &str) {
    let code = cluster.daemons.last_mut().unwrap().child.wait(PATIENCE);
    assert!(code.is_some(), "{point}: the point was never reached");
    cluster.daemons.pop();
}

fn emergency(kind: Kind, points: &[&str]) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    cluster.start_daemon(&[]);
    let mut primary = cluster.healthy(&[]);
    for point in points {
        cluster.daemons.pop();
        cluster.start_daemon(&["--failpoint", point]);
        cluster.healthy(&[]);
        cluster.server_mut(&primary).kill();
        dies(&mut cluster, point);
        cluster.start_daemon(&[]);
        let next = cluster.healthy(&[&primary]);
        assert_ne!(next, primary, "{point}");
        create_table(cluster.server(&next));
        cluster.server_mut(&primary).restart().unwrap();
        // The old primary may hold a write that nobody acknowledged; either way it takes none.
        assert_eq!(cluster.healthy(&[]), next, "{point}");
        let shard = cluster.daemon().shard();
        let drained =
            shard["tablets"].as_array().unwrap().iter().any(|tablet| tablet["type"] == "DRAINED");
        assert!(!drained, "{point}: {shard:#}");
        primary = next;
    }
}

#[test]
fn a_mariadb_failover_is_finished_after_a_crash_at_any_step() {
    emergency(Flavor::MariaDb.into(), EMERGENCY_POINTS);
}

#[test]
fn a_mysql_failover_is_finished_after_a_crash_around_the_promotion() {
    emergency(
        Flavor::MySql.into(),
        &["after stop all receivers", "after promote", "after record the primary's type"],
    );
}

#[test]
fn a_planned_reparent_leaves_a_shard_that_serves_after_a_crash_at_any_step() {
    planned(Flavor::MariaDb.into(), PLANNED_POINTS);
}

fn planned(kind: Kind, points: &[&str]) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    for point in points {
        cluster.daemons.pop();
        cluster.start_daemon(&["--failpoint", point]);
        let primary = cluster.healthy(&[]);
        let url = cluster.daemon().url("/api/v1/shards/ks/0/planned-reparent");
        let body = json!({"avoid_primary": primary}).to_string();
        let asked = ureq::post(&url).header("Content-Type", "application/json").send(body);
        drop(asked);
        dies(&mut cluster, point);
        cluster.start_daemon(&[]);
        let serves = cluster.healthy(&[]);
        create_table(cluster.server(&serves));
    }
}

#[test]
fn a_first_election_is_finished_after_a_crash_at_any_step() {
    election(Flavor::MariaDb.into(), ELECTION_POINTS);
}

fn election(kind: Kind, points: &[&str]) {
    for point in points {
        let mut cluster = Cluster::new(kind, "semi_sync", THREE);
        cluster.start_daemon(&["--failpoint", point]);
        dies(&mut cluster, point);
        cluster.start_daemon(&[]);
        let primary = cluster.healthy(&[]);
        assert!(THREE.iter().any(|alias| padded(alias) == primary), "{point}");
    }
}
