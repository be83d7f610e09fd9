//! Users whom `read_only` does not stop: what they are told is done is on the new primary, or nothing is moved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::{Value, json};
use vtorc_fleet::{Flavor, Server};

use crate::harness::{Cluster, PLANNED, THREE, padded, wait_for};
use crate::writer::{arrives, create_table, rows};

/// What an administrator's session does that is ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It is over.
    Leaves,
    /// It comes back at once, and writes.
    ComesBack,
}

/// An administrator who writes to one server all the time.
struct Administrator {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<u64>>,
}

impl Administrator {
    fn start(server: &Server, first_id: u64, ended: Ended) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, port) = (stop.clone(), server.port);
        let thread = std::thread::spawn(move || {
            let mut acknowledged = BTreeSet::new();
            let mut id = first_id;
            while !stopped.load(Ordering::Acquire) {
                let opts = mysql::OptsBuilder::new()
                    .user(Some("admin"))
                    .ip_or_hostname(Some("127.0.0.1"))
                    .prefer_socket(false)
                    .tcp_port(port);
                let Ok(mut conn) = mysql::Conn::new(opts) else { continue };
                while !stopped.load(Ordering::Acquire) {
                    id += 1;
                    let insert = format!("INSERT INTO test.ledger VALUES ({id}, 'admin')");
                    match conn.query_drop(insert) {
                        Ok(()) => acknowledged.insert(id),
                        Err(_) => break,
                    };
                    // Slowly enough for a candidate on a busy machine.
                    std::thread::sleep(Duration::from_millis(2));
                }
                if ended == Ended::Leaves {
                    break;
                }
            }
            acknowledged
        });
        Self { stop, thread }
    }

    fn finish(self) -> BTreeSet<u64> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn moved_while_an_administrator_writes(kind: crate::harness::Kind, ended: Ended) {
    let mut cluster = Cluster::new(kind, "none", THREE);
    cluster.configure(&[("UseSuperReadOnly", json!(false))]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let server = cluster.server(&first);
    create_table(server);
    let administrators: Vec<Administrator> =
        (0..3).map(|at| Administrator::start(server, at * 1_000_000, ended)).collect();
    wait_for(|| (rows(server).len() > 100).then_some(())).expect("nobody writes");
    let (status, answer): (u16, Value) =
        cluster.daemon().post(PLANNED, json!({"avoid_primary": first}));
    std::thread::sleep(Duration::from_millis(200));
    let acknowledged: BTreeSet<u64> =
        administrators.into_iter().flat_map(Administrator::finish).collect();
    match ended {
        Ended::Leaves => {
            assert_eq!((status, &answer["outcome"]), (200, &json!("succeeded")), "{answer:#}");
            let second = cluster.settles(|alias| alias != first);
            arrives(cluster.server(&second), &acknowledged);
        }
        Ended::ComesBack => {
            assert_eq!((status, &answer["outcome"]), (409, &json!("undone")), "{answer:#}");
            let why = answer["text"].as_str().unwrap();
            assert!(why.contains("admin"), "{answer:#}");
            assert_eq!(cluster.healthy(&[]), first);
        }
    }
    for alias in THREE {
        arrives(cluster.server(&padded(alias)), &acknowledged);
    }
}

#[test]
fn what_a_mariadb_administrator_wrote_is_moved_along() {
    moved_while_an_administrator_writes(Flavor::MariaDb.into(), Ended::Leaves);
}

#[test]
fn what_a_mysql_administrator_wrote_is_moved_along() {
    moved_while_an_administrator_writes(Flavor::MySql.into(), Ended::Leaves);
}

#[test]
fn a_mariadb_administrator_who_comes_back_stops_the_move() {
    moved_while_an_administrator_writes(Flavor::MariaDb.into(), Ended::ComesBack);
}

#[test]
fn a_mysql_administrator_who_comes_back_stops_the_move() {
    moved_while_an_administrator_writes(Flavor::MySql.into(), Ended::ComesBack);
}
