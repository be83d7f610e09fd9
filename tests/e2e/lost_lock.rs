//! The lock is lost in the middle of a recovery, whatever keeps the topology.

use mysql::prelude::Queryable;
use serde_json::Value;

use crate::failover::emergency;
use crate::harness::{Cluster, THREE, padded, wait_for};
use crate::writer::{arrives, create_table};

/// The recovery waits for an applier, with the lock held; then the lock is lost, then the applier goes on.
pub fn lost_in_the_middle<S>(
    mut cluster: Cluster,
    server: &mut S,
    lose: impl Fn(&mut S),
    mend: impl Fn(&mut S),
) {
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let mut readers = Vec::new();
    for alias in THREE.iter().filter(|alias| padded(alias) != first) {
        arrives(cluster.server(alias), &[].into());
        let mut reader = cluster.server(alias).connect("admin").unwrap();
        reader.query_drop("FLUSH TABLES test.ledger WITH READ LOCK").unwrap();
        readers.push(reader);
    }
    cluster.server(&first).run(&["INSERT INTO test.ledger VALUES (1, 'x')"]).unwrap();
    cluster.server_mut(&first).kill();
    let waits = || {
        let all = cluster.daemon().recoveries();
        let running = all.iter().find(|one| one["kind"] == "EmergencyReparent")?.clone();
        let steps = running["steps"].as_array()?.clone();
        steps.iter().any(|step| step["name"] == "wait until everything is applied").then_some(())
    };
    wait_for(waits).expect("the recovery does not wait");
    lose(server);
    for reader in &mut readers {
        reader.query_drop("UNLOCK TABLES").unwrap();
    }
    let ended = |one: &Value| one["kind"] == "EmergencyReparent" && one["outcome"] == "failed";
    let stopped = cluster.daemon().recovery(ended);
    assert!(stopped["outcome_text"].as_str().unwrap().contains("lock"), "{stopped:#}");
    let steps = stopped["steps"].as_array().unwrap();
    assert!(!steps.iter().any(|step| step["name"] == "promote"), "{stopped:#}");
    drop(readers);
    mend(server);
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    assert_eq!(emergency(&cluster)["new_primary"], second.as_str());
}
