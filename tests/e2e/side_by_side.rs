//! Two servers that wrote side by side, MariaDBs under the same numbers: what was acknowledged is kept, whoever comes
//! back first.

use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::Value;
use vtorc_fleet::{Flavor, Server};

use crate::failover::tablet;
use crate::harness::{Cluster, Kind, THREE, padded, wait_for};
use crate::window::BOTH;
use crate::writer::{arrives, create_table, rows};

/// Somebody's reparent was cut short after its new primary was opened: the records name the old one, which came back
/// and wrote on. Nobody acknowledged that; what the new one wrote was acknowledged.
#[test]
fn what_a_half_promoted_server_had_acknowledged_is_kept() {
    for flavor in BOTH {
        half_promoted(flavor.into());
    }
}

fn half_promoted(kind: Kind) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let others: Vec<&str> = THREE.iter().copied().filter(|one| padded(one) != first).collect();
    let [second, third] = others.as_slice() else { panic!("{others:?}") };
    for other in [second, third] {
        arrives(cluster.server(other), &[].into());
    }
    cluster.daemons.clear();
    let words = Words::of(kind.flavor());
    let open = [words.stop, words.acknowledges_no_more, words.waits, "SET GLOBAL read_only = OFF"];
    cluster.server(second).run(&open).unwrap();
    let follow = words.follow(cluster.server(second));
    cluster.server(third).run(&[words.stop, &follow, words.start]).unwrap();
    cluster.server(second).run(&["INSERT INTO test.ledger VALUES (1, 'acknowledged')"]).unwrap();
    arrives(cluster.server(third), &[1].into());
    // More than the other wrote, so that it is ahead by its numbers.
    let in_vain: Vec<_> = (661..666)
        .map(|id| {
            let patience = Duration::from_secs(60);
            let mut client = cluster.server(&first).connect_within("app", patience).unwrap();
            std::thread::spawn(move || {
                client.query_drop(format!("INSERT INTO test.ledger VALUES ({id}, 'in vain')"))
            })
        })
        .collect();
    let begun = "SELECT COUNT(*) FROM information_schema.processlist \
                 WHERE info LIKE 'INSERT INTO test.ledger VALUES (66%'";
    let wait = || (cluster.server(&first).value(begun).ok()? == "5").then_some(());
    wait_for(wait).expect("the old primary does not wait for acknowledgements");
    // Whoever was at it closes it again, and is gone.
    cluster.server(second).run(&["SET GLOBAL read_only = ON"]).unwrap();
    cluster.start_daemon(&[]);
    let primary = cluster.healthy(&[&first]);
    assert!(rows(cluster.server(&primary)).contains(&1), "{primary} lost what was acknowledged");
    for client in in_vain {
        assert!(client.join().unwrap().is_err(), "a write was acknowledged that is lost");
    }
    // MySQL lets it follow with what it has; MariaDB does not.
    let named = || {
        let shard = cluster.daemon().shard();
        let errs = |one: &Value| one["code"] == "ErrantGTIDDetected" && one["tablet"] == first;
        let drained = tablet(&shard, &first)["type"] == "DRAINED";
        let read_only = tablet(&shard, &first)["read_only"] == true;
        let errs = shard["findings"].as_array()?.iter().any(errs);
        (read_only && (drained || errs)).then_some(())
    };
    wait_for(named).expect("nobody says that the old primary wrote in vain");
    assert!(!rows(cluster.server(&primary)).iter().any(|id| *id > 600));
}

/// What is told to the servers by hand.
struct Words {
    stop: &'static str,
    start: &'static str,
    acknowledges_no_more: &'static str,
    waits: &'static str,
    flavor: Flavor,
}

impl Words {
    fn of(flavor: Flavor) -> Self {
        match flavor {
            Flavor::MySql => Self {
                stop: "STOP REPLICA",
                start: "START REPLICA",
                acknowledges_no_more: "SET GLOBAL rpl_semi_sync_replica_enabled = OFF",
                waits: "SET GLOBAL rpl_semi_sync_source_enabled = ON",
                flavor,
            },
            Flavor::MariaDb => Self {
                stop: "STOP SLAVE",
                start: "START SLAVE",
                acknowledges_no_more: "SET GLOBAL rpl_semi_sync_slave_enabled = OFF",
                waits: "SET GLOBAL rpl_semi_sync_master_enabled = ON",
                flavor,
            },
        }
    }

    fn follow(&self, source: &Server) -> String {
        let port = source.port;
        match self.flavor {
            Flavor::MySql => format!("CHANGE REPLICATION SOURCE TO SOURCE_PORT = {port}"),
            Flavor::MariaDb => format!("CHANGE MASTER TO MASTER_PORT = {port}"),
        }
    }
}
