//! The adapters of vtorc, one per outside system, each implementing one port of core.
//!
//! | module | system | port |
//! |---|---|---|
//! | [`mysql`] | MySQL and MariaDB servers | `ProbePort`, `MysqlPort` |
//! | [`vttablet`] | the vttablets of servers that have one | the same two |
//! | [`topo`] | ZooKeeper, etcd, consul, or files in a directory | `TopoPort` |
//! | [`history`] | the embedded SQLite store | `HistoryPort` |
//! | [`hooks`] | the operator's programs and webhooks | `HookPort` |
//!
//! Nothing is decided here, and no actor is named. When you change a statement sent to servers, run the
//! end-to-end tests on both MySQL and MariaDB.

mod certificates;
pub mod history;
pub mod hooks;
mod interface;
pub mod mysql;
pub mod topo;
pub mod vttablet;
