//! End to end: the daemon as a process, on real servers.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::type_complexity,
    unreachable_pub,
    reason = "a test fails by panicking, and a story is told in one piece"
)]

mod bringup;
mod busy;
mod cells;
mod certificates;
mod channels;
mod check;
mod console;
mod consul;
mod controls;
mod crash;
mod credentials;
mod daemon;
mod damage;
mod demo;
mod errant;
mod etcd;
mod explain;
mod failover;
mod harness;
mod hazards;
mod hooks;
mod http;
mod input;
mod isolation;
mod locked;
mod network;
mod partial;
mod past_read_only;
mod patience;
mod planned;
mod power;
mod promotable;
mod proxy;
mod reality;
mod relay_logs;
mod repairs;
mod replication_tls;
mod side_by_side;
mod strangers;
mod topologies;
mod vitess;
mod vtorc_face;
mod window;
mod writer;
mod zookeeper;
