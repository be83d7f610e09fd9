//! A primary that is too busy to answer vtorc, and serves its replicas and a few clients all the same.
//!
//! A proxy before the real server plays the crowd: it lets everybody through but lets the topology user wait.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, THREE, padded, wait_for};
use crate::writer::{Writer, create_table, rows};

const TOPOLOGY_USER: &[u8] = b"orc_client_user\0";
/// Where the user's name begins in a client's first packet (protocol 4.1).
const USER_AT: usize = 36;

/// Ends with the process; each connection has two threads.
struct Crowd {
    port: u16,
    busy: Arc<AtomicBool>,
}

impl Crowd {
    fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let busy = Arc::new(AtomicBool::new(false));
        let waits = busy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let (from, to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pass(from, to, &AtomicBool::new(false), false));
                let waits = waits.clone();
                std::thread::spawn(move || pass(client, upstream, &waits, true));
            }
        });
        Self { port, busy }
    }
}

/// Passes everything on; what the topology user says waits as long as the server is busy.
fn pass(mut from: TcpStream, mut to: TcpStream, busy: &AtomicBool, from_client: bool) {
    let mut buffer = [0; 16 * 1024];
    let mut is_vtorc = None;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let words = &buffer[..length];
        let named = words.get(USER_AT..).is_some_and(|user| user.starts_with(TOPOLOGY_USER));
        let held = *is_vtorc.get_or_insert(from_client && named);
        while held && busy.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if to.write_all(words).is_err() {
            break;
        }
    }
    // The other side may have hung up before.
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Its replicas receive from it, so it is not dead; a ping is answered, so it is not cut off. It is replaced by force,
/// loses nothing, and takes no write any more; when it has time again it becomes a replica.
#[test]
fn a_primary_that_is_too_busy_to_answer_is_replaced() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    let crowd = Crowd::before(cluster.server(THREE[0]).address());
    cluster.topo(&["delete", THREE[0]]).unwrap();
    let address = format!("127.0.0.1:{}", crowd.port);
    cluster.topo(&["add-tablet", THREE[0], "--shard", "ks/0", "--mysql", &address]).unwrap();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(first, padded(THREE[0]));
    create_table(cluster.server(&first));
    let writer = Writer::start(&cluster);
    writer.wait_for_more(50);
    crowd.busy.store(true, Ordering::Release);
    let recovery = cluster.daemon().recovery(|one| one["finding"] == "IncapacitatedPrimary");
    assert_eq!(recovery["outcome"], "succeeded", "{recovery:#}");
    assert_eq!(recovery["kind"], "PlannedReparent");
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    writer.wait_for_more(20);
    crowd.busy.store(false, Ordering::Release);
    assert_eq!(cluster.healthy(&[]), second);
    let acknowledged = writer.finish();
    // It follows with every row, or is set aside with what it wrote last and nobody acknowledged.
    let settled = || {
        let old = tablet(&cluster.daemon().shard(), &first);
        let follows = rows(cluster.server(&first)).is_superset(&acknowledged);
        ((follows || old["type"] == "DRAINED") && old["read_only"] == true).then_some(())
    };
    assert!(wait_for(settled).is_some(), "{:#}", cluster.daemon().shard());
    assert!(acknowledged.is_subset(&rows(cluster.server(&second))));
    // It does not go on like this: the period that blocks another failover has begun.
    assert_ne!(cluster.daemon().shard()["recovery_block"], json!(null));
}
