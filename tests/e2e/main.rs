//! End to end: the daemon as a process, on real servers.

mod failover;
mod harness;
