//! The topology: Vitess's records at Vitess's paths, over any of several servers.
//!
//! [`conn::TopoConn`] is what a server must be able to do; [`local`], [`zk2`], [`etcd2`] and [`consul`] do it;
//! [`store::TopoStore`] knows records and paths and serves core's `TopoPort`. A new server is one new file.

mod admin;
mod cells;
pub mod conn;
pub mod consul;
pub mod etcd2;
#[cfg(test)]
mod fuzz;
pub mod local;
mod paths;
mod records;
pub mod store;
mod tablets;
#[cfg(test)]
mod tests;
mod translate;
mod watch;
pub mod zk2;

pub use records::CellInfo;
pub use store::TopoStore;
