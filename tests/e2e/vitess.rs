//! Shards whose tablets have vttablets: doubles that do what real ones do, each in front of a real mysqld.

mod cluster;
pub mod programs;
mod relay_logs;
mod speed;
mod stories;
mod vttablets;

pub use cluster::{Way, before_servers, with_vttablets};
