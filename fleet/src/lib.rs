//! Throw-away servers on loopback (MySQL, MariaDB, ZooKeeper, etcd, consul), for the demo, the benchmark and tests.
//!
//! Every server ends with the value that stands for it, by its own process id, also when a test panics. A
//! data directory is prepared once and copied, so that a server is up in a second.

mod binary;
mod child;
mod consul;
mod etcd;
mod server;
mod template;
mod zookeeper;

pub use binary::{Flavor, ServerBinary};
pub use child::{Child, free_port, free_ports, freeze};
pub use consul::{CONSUL_MASTER_TOKEN, Consul, ConsulOptions};
pub use etcd::Etcd;
pub use server::{Server, ServerOptions};
pub use template::Template;
pub use zookeeper::ZooKeeper;

/// Why a server could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FleetError(pub String);

impl FleetError {
    pub(crate) fn doing(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}
