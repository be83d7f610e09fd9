//! A new shard gets a primary, or is left alone and says why.

use serde_json::json;
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, Kind, padded, wait_for};
use crate::writer::create_table;

#[test]
fn the_tablet_with_data_is_elected_and_the_others_get_it() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        the_tablet_with_data_is_elected_and_the_others_get_it_on(flavor.into());
    }
}

pub(crate) fn the_tablet_with_data_is_elected_and_the_others_get_it_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", &["zone1-101", "zone1-102", "zone1-103"]);
    create_table(cluster.server("zone1-103"));
    cluster.server("zone1-103").run(&["INSERT INTO test.ledger VALUES (7, 'before')"]).unwrap();
    cluster.start_daemon(&[]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-103"));
    for alias in ["zone1-101", "zone1-102"] {
        let arrived = || {
            let count = cluster.server(alias).value("SELECT COUNT(*) FROM test.ledger").ok()?;
            (count == "1").then_some(())
        };
        wait_for(arrived).expect("the data did not arrive");
    }
    let shard = cluster.daemon().shard();
    let primary = &shard["tablets"][2];
    assert_eq!(primary["semi_sync"]["source_enabled"], true, "{primary:#}");
}

#[test]
fn tablets_with_data_of_their_own_are_not_chosen_from() {
    tablets_with_data_of_their_own_are_not_chosen_from_on(Flavor::MySql.into());
}

pub(crate) fn tablets_with_data_of_their_own_are_not_chosen_from_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "none", &["zone1-101", "zone1-102"]);
    for alias in ["zone1-101", "zone1-102"] {
        create_table(cluster.server(alias));
    }
    cluster.start_daemon(&[]);
    let shard = cluster.daemon().held_back("split brain");
    assert_eq!(shard["primary"], json!(null));
    // Refused means that nothing was made to take writes, and nothing follows anything.
    for alias in ["zone1-101", "zone1-102"] {
        assert_eq!(
            cluster
                .server(alias)
                .value(
                    "SELECT COUNT(*) FROM performance_schema.replication_connection_configuration"
                )
                .unwrap(),
            "0"
        );
    }
}

#[test]
fn rdonly_tablets_alone_are_refused() {
    rdonly_tablets_alone_are_refused_on(Flavor::MariaDb.into());
}

pub(crate) fn rdonly_tablets_alone_are_refused_on(kind: Kind) {
    let members = ["zone1-101 rdonly", "zone1-102 rdonly"];
    let mut cluster = Cluster::new(kind, "none", &members);
    cluster.start_daemon(&[]);
    let shard = cluster.daemon().held_back("its type is RDONLY");
    assert_eq!(shard["primary"], json!(null));
}

#[test]
fn too_few_ackers_are_refused_and_counted() {
    too_few_ackers_are_refused_and_counted_on(Flavor::MariaDb.into());
}

pub(crate) fn too_few_ackers_are_refused_and_counted_on(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", &["zone1-101", "zone1-102 rdonly"]);
    cluster.start_daemon(&[]);
    cluster.daemon().held_back("0 of 1 ackers");
    // With another policy the same shard comes up by itself.
    cluster.topo(&["set-durability", "ks", "semi_sync_with_rdonly_ack"]).unwrap();
    assert_eq!(cluster.healthy(&[]), padded("zone1-101"));
}

#[test]
fn a_replication_tree_that_works_is_taken_over_as_it_is() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        a_replication_tree_that_works_is_taken_over_as_it_is_on(flavor.into());
    }
}

pub(crate) fn a_replication_tree_that_works_is_taken_over_as_it_is_on(kind: Kind) {
    let flavor = kind.flavor();
    let mut cluster = Cluster::new(kind, "none", &["zone1-101", "zone1-102"]);
    let source = cluster.server("zone1-102");
    create_table(source);
    let statement = match flavor {
        Flavor::MySql => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, SOURCE_USER='vt_repl', \
                 SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
            source.port
        ),
        Flavor::MariaDb => format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='vt_repl', \
                 MASTER_USE_GTID=slave_pos",
            source.port
        ),
    };
    cluster.server("zone1-101").run(&[&statement, "START REPLICA"]).unwrap();
    cluster.start_daemon(&[]);
    assert_eq!(cluster.healthy(&[]), padded("zone1-102"));
    let elected = cluster.daemon().recovery(|one| one["kind"] == "ElectPrimary");
    let steps = elected["steps"].as_array().unwrap();
    assert!(!steps.iter().any(|step| step["name"] == "stop all receivers"), "{elected:#}");
}
