//! A source that dies, or is left, in the middle of a long transaction: its replicas have a part of it, and nobody
//! sends the rest. MySQL would wait a minute for that before it stops an applier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vtorc_core::ports::{PromotionGrounds, RelayLog, ServerCommand, SourceChange};
use vtorc_fleet::{Flavor, FleetError, Server};

use crate::harness::{Cluster, THREE, padded, wait_for};
use crate::proxy::{Ear, Proxy};
use crate::window::{BOTH, Bench, plain};
use crate::writer::{Writer, arrives, create_table, rows};

/// More than a proxy passes on at once, so that a part of it is a part of the transaction.
const ROWS: usize = 64;
/// So much of what the source sends is passed on once the proxy is told to stop in between.
const PASSED: usize = 512 * 1024;
/// MySQL waits a minute for the rest. Whoever is done by then did not wait for it.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A proxy that lets replicas have only a part of what comes, from a moment on.
pub fn cut_short(server: &Server, now: Arc<AtomicBool>) -> Proxy {
    Proxy::with_both_ears(server.address(), move || {
        let (now, mut passed) = (now.clone(), 0);
        let of_server: Ear = Box::new(move |words| {
            if now.load(Ordering::Acquire) {
                passed += words.len();
            }
            while passed > PASSED && now.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        (Box::new(|_| {}), of_server)
    })
}

/// One transaction of several megabytes.
pub fn write_a_long_transaction(server: &Server) {
    try_a_long_transaction(server).unwrap();
}

pub fn try_a_long_transaction(server: &Server) -> Result<(), FleetError> {
    let row = "INSERT INTO test.long_ones (body) VALUES (REPEAT('x', 100000))";
    let mut statements = vec!["SET SESSION binlog_format = ROW", "BEGIN"];
    statements.extend([row; ROWS]);
    statements.push("COMMIT");
    server.run(&statements)
}

pub fn create_long_ones(server: &Server) {
    let create = "CREATE TABLE test.long_ones (id INT PRIMARY KEY AUTO_INCREMENT, body LONGTEXT)";
    server.run(&[create]).unwrap();
}

/// It has begun to apply what it has not received.
pub fn has_a_part(server: &Server) {
    let applies = "SELECT COUNT(*) FROM performance_schema.replication_applier_status_by_worker \
                   WHERE APPLYING_TRANSACTION <> ''";
    let part = || (server.value(applies).unwrap() == "1").then_some(());
    wait_for(part).expect("it has no part of the transaction");
}

/// The second server has a part of a transaction, and its receiver stands.
fn with_a_part(flavor: Flavor) -> Bench {
    let bench = Bench::new(flavor, 3);
    create_long_ones(&bench.servers[0]);
    let now = Arc::new(AtomicBool::new(false));
    let proxy = cut_short(&bench.servers[0], now.clone());
    let through =
        ServerCommand::follow(plain(&proxy.address), false, SourceChange::Repoint, RelayLog::MayGo);
    bench.run(1, through).unwrap();
    bench.servers[0].run(&["INSERT INTO test.ledger VALUES (1, 'acknowledged')"]).unwrap();
    arrives(&bench.servers[1], &[1].into());
    now.store(true, Ordering::Release);
    write_a_long_transaction(&bench.servers[0]);
    match flavor {
        Flavor::MySql => has_a_part(&bench.servers[1]),
        // It does not tell.
        Flavor::MariaDb => std::thread::sleep(Duration::from_secs(1)),
    }
    bench.run(1, ServerCommand::StopReceiver).unwrap();
    bench
}

pub fn at_once(what: &str, act: impl FnOnce()) {
    let started = Instant::now();
    act();
    assert!(started.elapsed() < AT_ONCE, "{what} waited for the rest of a transaction");
}

#[test]
fn a_part_of_a_transaction_holds_up_no_promotion() {
    for flavor in BOTH {
        let bench = with_a_part(flavor);
        let status = bench.status(1);
        let grounds = PromotionGrounds::of(&status, status.gtid_executed.clone());
        at_once("a promotion", || {
            bench.run(1, ServerCommand::Promote { acks: 0, grounds }).unwrap();
        });
        assert!(!bench.is_read_only(1));
        let left = bench.servers[1].value("SELECT COUNT(*) FROM test.long_ones").unwrap();
        assert_eq!(left, "0", "{flavor:?}: a part of a transaction was kept");
    }
}

#[test]
fn a_part_of_a_transaction_holds_up_no_other_change() {
    let bench = with_a_part(Flavor::MySql);
    at_once("a delay", || {
        bench.run(1, ServerCommand::SetDelay { seconds: 1 }).unwrap();
    });
    let bench = with_a_part(Flavor::MySql);
    at_once("fixing the primary", || {
        bench.run(1, bench.opening(1)).unwrap();
    });
    // Whoever follows another gets the whole.
    let bench = with_a_part(Flavor::MySql);
    at_once("following another", || {
        bench.follow(1, 2, SourceChange::Repoint, RelayLog::MustStay).unwrap();
        let whole = || {
            let count = bench.servers[1].value("SELECT COUNT(*) FROM test.long_ones").unwrap();
            (count == ROWS.to_string()).then_some(())
        };
        wait_for(whole).expect("the transaction did not arrive");
    });
}

/// All replicas have a part of what the primary wrote last when it dies. Nobody was told that it is written.
#[test]
fn a_primary_that_dies_in_the_middle_of_a_transaction_is_replaced_at_once() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    let now = Arc::new(AtomicBool::new(false));
    let proxy = cut_short(cluster.server(THREE[0]), now.clone());
    cluster.topo(&["delete", THREE[0]]).unwrap();
    cluster.topo(&["add-tablet", THREE[0], "--shard", "ks/0", "--mysql", &proxy.address]).unwrap();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(first, padded(THREE[0]));
    create_table(cluster.server(&first));
    create_long_ones(cluster.server(&first));
    let writer = Writer::start(&cluster);
    writer.wait_for_more(20);
    now.store(true, Ordering::Release);
    std::thread::scope(|scope| {
        let primary = cluster.server(&first);
        // It is never acknowledged, so it may end as it likes.
        scope.spawn(|| try_a_long_transaction(primary));
        for replica in [THREE[1], THREE[2]] {
            has_a_part(cluster.server(replica));
        }
        primary.freeze();
        let recovery = cluster.daemon().recovery(|one| one["outcome"] == "succeeded");
        let took = recovery["duration_ms"].as_u64().unwrap();
        assert!(u128::from(took) < AT_ONCE.as_millis(), "{recovery:#}");
        primary.thaw();
    });
    let second = cluster.healthy(&[&first]);
    writer.wait_for_more(20);
    let acknowledged = writer.finish();
    assert!(acknowledged.is_subset(&rows(cluster.server(&second))));
}
