//! How long writes are refused, through vttablets. It measures and asserts nothing about time:
//! `cargo test --release --test e2e vitess::speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::cluster::{Way, with_vttablets};
use crate::harness::{Cluster, THREE};
use crate::writer::create_table;

const ROUNDS: usize = 7;

/// Milliseconds from now until somebody else takes a write.
fn until_written(cluster: &Cluster, dead: &str) -> u128 {
    let started = Instant::now();
    loop {
        for server in &cluster.servers {
            if server.address() == dead {
                continue;
            }
            let Ok(mut app) = server.connect_within("app", Duration::from_millis(500)) else {
                continue;
            };
            use mysql::prelude::Queryable;
            let row = started.elapsed().as_nanos() as u64;
            if app.query_drop(format!("INSERT INTO test.ledger VALUES ({row}, 'speed')")).is_ok() {
                return started.elapsed().as_millis();
            }
        }
        assert!(started.elapsed() < Duration::from_secs(60), "nobody takes writes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn measure(way: Way, with_vttablet: bool) {
    let mut cluster = with_vttablets("semi_sync", THREE, way, |_| {});
    cluster.configure(&[("RecoveryPeriodBlockSeconds", json!(0))]);
    cluster.start_daemon(&[]);
    let mut primary = cluster.healthy(&[]);
    create_table(cluster.server(&primary));
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(Duration::from_secs(1));
        let address = cluster.server(&primary).address();
        if with_vttablet {
            cluster.vttablets.get_mut(&primary).unwrap().kill();
        }
        cluster.server_mut(&primary).kill();
        took.push(until_written(&cluster, &address));
        let old = primary.clone();
        primary = cluster.healthy(&[&old]);
        cluster.server_mut(&old).restart().unwrap();
        if with_vttablet {
            cluster.vttablets.get_mut(&old).unwrap().restart();
        }
        cluster.healthy(&[]);
    }
    took.sort_unstable();
    let what = if with_vttablet { "mysqld and vttablet" } else { "mysqld" };
    println!("{way:?}, {what} killed: median {} ms, of {took:?}", took[ROUNDS / 2]);
}

#[test]
#[ignore = "measures"]
fn killed() {
    for way in [Way::Vttablets, Way::Both] {
        for with_vttablet in [false, true] {
            measure(way, with_vttablet);
        }
    }
}
