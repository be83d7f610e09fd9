//! The topology as the flags name it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vtorc_clients::topo::conn::{TopoConn, Version};
use vtorc_clients::topo::consul::ConsulConn;
use vtorc_clients::topo::etcd2::Etcd2Conn;
use vtorc_clients::topo::local::LocalConn;
use vtorc_clients::topo::zk2::Zk2Conn;
use vtorc_clients::topo::{CellInfo, TopoStore};
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};

use crate::Failure;
use crate::cli::{DaemonOptions, TopoImplementation};

/// What Vitess calls the cell of what all cells share.
const GLOBAL: &str = "global";

/// Opens a connection for a cell: its name, its server, and its root in that.
type Open = Arc<dyn Fn(&str, &str, &str) -> Result<Arc<dyn TopoConn>, TopoError> + Send + Sync>;

/// The topology as the flags name it.
pub(crate) fn topo_store(
    options: &DaemonOptions,
    default: DurabilityPolicy,
) -> Result<TopoStore, Failure> {
    let (address, root) =
        (options.topo_global_server_address.as_str(), options.topo_global_root.as_str());
    let open = opener(options)?;
    let opened = open(GLOBAL, address, root);
    let global = opened.map_err(|error| Failure::while_doing("open the topology", error))?;
    let dial = Arc::new(move |cell: &str, info: &CellInfo| {
        let opened = open(cell, &info.server_address, &info.root);
        opened.unwrap_or_else(|error| Arc::new(Unusable(error.to_string())))
    });
    let reads_max = options.topology.topo_read_concurrency;
    Ok(TopoStore::new(global, dial, default).reading_at_once(reads_max))
}

fn opener(options: &DaemonOptions) -> Result<Open, Failure> {
    Ok(match options.topo_implementation {
        TopoImplementation::Local => Arc::new(|_: &str, _: &str, root: &str| {
            Ok(Arc::new(LocalConn::open(Path::new(root))?) as Arc<dyn TopoConn>)
        }),
        TopoImplementation::Zk2 => {
            check_remote("zk2", options)?;
            let how = options.topology.zk2()?;
            Arc::new(move |_: &str, address: &str, root: &str| {
                Ok(Arc::new(Zk2Conn::new(address, root, how.clone())?) as Arc<dyn TopoConn>)
            })
        }
        TopoImplementation::Etcd2 => {
            check_remote("etcd2", options)?;
            let how = options.topology.etcd2()?;
            Arc::new(move |_: &str, address: &str, root: &str| {
                Ok(Arc::new(Etcd2Conn::new(address, root, &how)?) as Arc<dyn TopoConn>)
            })
        }
        TopoImplementation::Consul => {
            check_address("consul", options)?;
            let how = options.topology.consul()?;
            Arc::new(move |cell: &str, address: &str, root: &str| {
                Ok(Arc::new(ConsulConn::new(cell, address, root, &how)?) as Arc<dyn TopoConn>)
            })
        }
    })
}

fn check_address(name: &str, options: &DaemonOptions) -> Result<(), Failure> {
    match options.topo_global_server_address.is_empty() {
        true => Err(Failure(format!("{name} needs --topo-global-server-address host:port"))),
        false => Ok(()),
    }
}

fn check_remote(name: &str, options: &DaemonOptions) -> Result<(), Failure> {
    check_address(name, options)?;
    if !options.topo_global_root.starts_with('/') {
        return Err(Failure(format!(
            "{name} needs --topo-global-root to be a path such as /vitess/global, not {:?}",
            options.topo_global_root
        )));
    }
    Ok(())
}

/// Stands in for a cell that cannot be opened: its tablets are unread, the others go on.
struct Unusable(String);

impl Unusable {
    fn error(&self) -> TopoError {
        TopoError::Invalid(self.0.clone())
    }
}

#[async_trait::async_trait]
impl TopoConn for Unusable {
    async fn get(&self, _: &str) -> Result<(Vec<u8>, Version), TopoError> {
        Err(self.error())
    }
    async fn list(&self, _: &str) -> Result<Vec<String>, TopoError> {
        Err(self.error())
    }
    async fn create(&self, _: &str, _: &[u8]) -> Result<(), TopoError> {
        Err(self.error())
    }
    async fn update(&self, _: &str, _: &[u8], _: Version) -> Result<(), TopoError> {
        Err(self.error())
    }
    async fn delete(&self, _: &str) -> Result<(), TopoError> {
        Err(self.error())
    }
    async fn catch_up(&self) -> Result<(), TopoError> {
        Err(self.error())
    }
    async fn arm(&self) {}
    async fn changed(&self) {
        std::future::pending().await
    }
    async fn lock(
        &self,
        _: &str,
        _: &KeyspaceShard,
        _: &str,
        _: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError> {
        Err(self.error())
    }
    async fn give_back(&self, _: &str, _: &LockToken) -> Result<(), TopoError> {
        Err(self.error())
    }
}
