//! A primary that is too busy to answer vtorc, and serves its replicas and a few clients all the same.
//!
//! A proxy before the real server plays the crowd: it lets everybody through but lets the topology user wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, THREE, padded, wait_for};
use crate::proxy::{Ear, Proxy};
use crate::writer::{Writer, create_table, rows};

const TOPOLOGY_USER: &[u8] = b"orc_client_user\0";
/// Where the user's name begins in a client's first packet (protocol 4.1).
const USER_AT: usize = 36;

/// What the topology user says waits as long as the server is busy.
fn ear(busy: Arc<AtomicBool>) -> Ear {
    let mut is_vtorc = None;
    Box::new(move |words| {
        let named = words.get(USER_AT..).is_some_and(|user| user.starts_with(TOPOLOGY_USER));
        let held = *is_vtorc.get_or_insert(named);
        while held && busy.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

/// Its replicas receive from it, so it is not dead; a ping is answered, so it is not cut off. It is replaced by force,
/// loses nothing, and takes no write any more; when it has time again it becomes a replica.
#[test]
fn a_primary_that_is_too_busy_to_answer_is_replaced() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    let busy = Arc::new(AtomicBool::new(false));
    let heard = busy.clone();
    let server = cluster.server(THREE[0]).address();
    let address = Proxy::with_ears(server, move || ear(heard.clone())).address;
    cluster.topo(&["delete", THREE[0]]).unwrap();
    cluster.topo(&["add-tablet", THREE[0], "--shard", "ks/0", "--mysql", &address]).unwrap();
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    assert_eq!(first, padded(THREE[0]));
    create_table(cluster.server(&first));
    let writer = Writer::start(&cluster);
    writer.wait_for_more(50);
    busy.store(true, Ordering::Release);
    let recovery = cluster.daemon().recovery(|one| one["finding"] == "IncapacitatedPrimary");
    assert_eq!(recovery["outcome"], "succeeded", "{recovery:#}");
    assert_eq!(recovery["kind"], "PlannedReparent");
    let second = cluster.healthy(&[&first]);
    assert_ne!(second, first);
    writer.wait_for_more(20);
    busy.store(false, Ordering::Release);
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
