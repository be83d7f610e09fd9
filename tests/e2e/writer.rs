//! A client that writes through whoever takes writes, and remembers what was acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mysql::prelude::Queryable;
use vtorc_fleet::Server;

use crate::harness::{Cluster, wait_for};

/// Writes until it is stopped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<BTreeSet<u64>>>,
}

/// Creates the table through the primary.
pub fn create_table(primary: &Server) {
    primary
        .run(&[
            "CREATE DATABASE IF NOT EXISTS test",
            "CREATE TABLE IF NOT EXISTS test.ledger (id BIGINT PRIMARY KEY, who VARCHAR(20)) ENGINE=InnoDB",
        ])
        .unwrap();
}

impl Writer {
    pub fn start(cluster: &Cluster) -> Self {
        let sockets: Vec<String> = cluster
            .members
            .iter()
            .map(|member| {
                cluster.directory.path().join(&member.alias).join("s").display().to_string()
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (stop.clone(), acknowledged.clone());
        let thread = std::thread::spawn(move || {
            let mut rows = BTreeSet::new();
            let mut next = 0;
            while !stopped.load(Ordering::Acquire) {
                for socket in &sockets {
                    write_through(socket, &stopped, &mut next, |id| {
                        rows.insert(id);
                        count.fetch_add(1, Ordering::AcqRel);
                    });
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            rows
        });
        Self { stop, acknowledged, thread: Some(thread) }
    }

    /// Waits until so many more rows were acknowledged.
    pub fn wait_for_more(&self, rows: u64) {
        let target = self.acknowledged.load(Ordering::Acquire) + rows;
        let reached =
            wait_for(|| (self.acknowledged.load(Ordering::Acquire) >= target).then_some(()));
        reached.expect("no more rows were acknowledged");
    }

    /// Stops; answers what was acknowledged.
    pub fn finish(mut self) -> BTreeSet<u64> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Writes as long as this server takes it.
fn write_through(
    socket: &str,
    stop: &AtomicBool,
    next: &mut u64,
    mut acknowledged: impl FnMut(u64),
) {
    let timeout = Some(Duration::from_secs(2));
    let opts = mysql::OptsBuilder::new()
        .user(Some("app"))
        .socket(Some(socket))
        .read_timeout(timeout)
        .write_timeout(timeout);
    let Ok(mut conn) = mysql::Conn::new(opts) else { return };
    while !stop.load(Ordering::Acquire) {
        *next += 1;
        // A number is used once: what was not acknowledged may be there or not.
        let id = *next;
        match conn.query_drop(format!("INSERT INTO test.ledger VALUES ({id}, 'writer')")) {
            Ok(()) => acknowledged(id),
            Err(_) => return,
        }
    }
}

/// The rows that a server has.
pub fn rows(server: &Server) -> BTreeSet<u64> {
    try_rows(server).unwrap()
}

/// A server that was just started may hang up on whoever connects.
fn try_rows(server: &Server) -> Result<BTreeSet<u64>, String> {
    let mut conn = server.connect("admin").map_err(|error| error.to_string())?;
    let ids = conn.query::<u64, _>("SELECT id FROM test.ledger");
    Ok(ids.map_err(|error| error.to_string())?.into_iter().collect())
}

/// Tells whether a server has the table and all of these rows.
pub fn has(server: &Server, wanted: &BTreeSet<u64>) -> bool {
    try_rows(server).is_ok_and(|there| wanted.is_subset(&there))
}

/// Waits until a replica has the table and all of these rows.
pub fn arrives(server: &Server, wanted: &BTreeSet<u64>) {
    wait_for(|| has(server, wanted).then_some(())).expect("rows never arrived");
}
