//! The topology in etcd, as Vitess's `etcd2` keeps it: the v3 interface, spoken over tonic.
//!
//! One connection an endpoint. A request that an endpoint does not answer is asked of the next one; a write
//! is not, once it may have arrived.

mod connection;
mod lock;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};

use super::conn::{TopoConn, Version};
use super::watch::KeptWatch;
use crate::interface::etcdserverpb as etcd;
use connection::Connection;
use etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::request_op::Request as Op;
use etcd::response_op::Response as Outcome;
use watch::Watcher;

/// Certificates for etcd, by Vitess's `--topo-etcd-tls-*` flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdTls {
    /// Our own certificate (PEM).
    pub cert: PathBuf,
    /// Our own key (PEM).
    pub key: PathBuf,
    /// Certificate authorities to trust (PEM); without one, the system's.
    pub ca: Option<PathBuf>,
}

/// How etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdOptions {
    /// A lock outlives a process that was killed by this long.
    pub lease_ttl: Duration,
    /// TLS, if wanted.
    pub tls: Option<EtcdTls>,
}

/// An etcd cluster and the root of one cell in it.
pub struct Etcd2Conn {
    connection: Arc<Connection>,
    root: String,
    lease_ttl: Duration,
    watch: KeptWatch<Watcher>,
}

impl Etcd2Conn {
    /// Names the endpoints (comma separated) and the root. Connects when it is used.
    pub fn new(endpoints: &str, root: &str, options: &EtcdOptions) -> Result<Self, TopoError> {
        Ok(Self {
            connection: Arc::new(Connection::new(endpoints, options.tls.as_ref())?),
            root: format!("/{}", root.trim_matches('/')),
            lease_ttl: options.lease_ttl,
            watch: KeptWatch::default(),
        })
    }

    fn key(&self, relative: &str) -> String {
        let root = self.root.trim_end_matches('/');
        if relative.is_empty() { root.to_owned() } else { format!("{root}/{relative}") }
    }

    async fn exists_below(&self, key: &str) -> Result<bool, TopoError> {
        let mut range = below(key);
        (range.limit, range.keys_only) = (1, true);
        Ok(!self.connection.range(range).await?.kvs.is_empty())
    }
}

/// Everything below a directory.
fn below(directory: &str) -> etcd::RangeRequest {
    let key = format!("{}/", directory.trim_end_matches('/')).into_bytes();
    etcd::RangeRequest { range_end: after(&key), key, ..Default::default() }
}

/// The first key that does not begin with this: what etcd takes for the end of a prefix.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A condition of a transaction.
fn when(key: &str, target: TargetUnion) -> etcd::Compare {
    let kind = match target {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    etcd::Compare {
        result: CompareResult::Equal.into(),
        target: kind.into(),
        key: key.as_bytes().to_vec(),
        target_union: Some(target),
    }
}

/// What a transaction does.
fn put(key: &str, value: &[u8], lease: i64) -> etcd::RequestOp {
    let request = etcd::PutRequest { key: key.as_bytes().to_vec(), value: value.to_vec(), lease };
    etcd::RequestOp { request: Some(Op::RequestPut(request)) }
}

#[async_trait]
impl TopoConn for Etcd2Conn {
    async fn get(&self, path: &str) -> Result<(Vec<u8>, Version), TopoError> {
        let key = self.key(path).into_bytes();
        let range = etcd::RangeRequest { key, ..Default::default() };
        let found = self.connection.range(range).await?.kvs.into_iter().next();
        let found = found.ok_or_else(|| TopoError::NoNode(path.to_owned()))?;
        Ok((found.value, Version(found.mod_revision)))
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, TopoError> {
        let directory = self.key(path);
        let mut range = below(&directory);
        range.keys_only = true;
        let skipped = range.key.len();
        let found = self.connection.range(range).await?.kvs;
        let mut names: Vec<String> = Vec::new();
        for entry in &found {
            let rest = entry.key.get(skipped..).unwrap_or_default();
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            // Keys come sorted, so those of one child stand together.
            if names.last() != Some(&name) && name != "locks" {
                names.push(name);
            }
        }
        if found.is_empty() && !self.exists_below(&self.root).await? {
            // A root that is not there is a wrong root, not an empty topology.
            return Err(TopoError::NoRoot(format!(
                "there is nothing below {} in etcd at {}; check the topology root",
                self.root,
                self.connection.endpoints()
            )));
        }
        Ok(names)
    }

    async fn create(&self, path: &str, data: &[u8]) -> Result<(), TopoError> {
        let key = self.key(path);
        let transaction = etcd::TxnRequest {
            compare: vec![when(&key, TargetUnion::Version(0))],
            success: vec![put(&key, data, 0)],
            failure: Vec::new(),
        };
        match self.connection.transact(transaction).await?.succeeded {
            true => Ok(()),
            false => Err(TopoError::NodeExists(path.to_owned())),
        }
    }

    async fn update(&self, path: &str, data: &[u8], version: Version) -> Result<(), TopoError> {
        let key = self.key(path);
        let transaction = etcd::TxnRequest {
            compare: vec![when(&key, TargetUnion::ModRevision(version.0))],
            success: vec![put(&key, data, 0)],
            failure: Vec::new(),
        };
        match self.connection.transact(transaction).await?.succeeded {
            true => Ok(()),
            false => Err(TopoError::BadVersion(path.to_owned())),
        }
    }

    async fn delete(&self, path: &str) -> Result<(), TopoError> {
        let key = self.key(path).into_bytes();
        let request = etcd::DeleteRangeRequest { key, range_end: Vec::new() };
        let success = vec![etcd::RequestOp { request: Some(Op::RequestDeleteRange(request)) }];
        let transaction = etcd::TxnRequest { success, ..Default::default() };
        let done = self.connection.transact(transaction).await?;
        let deleted = done.responses.into_iter().find_map(|response| match response.response {
            Some(Outcome::ResponseDeleteRange(outcome)) => Some(outcome.deleted),
            Some(Outcome::ResponseRange(_) | Outcome::ResponsePut(_)) | None => None,
        });
        if deleted == Some(0) { Err(TopoError::NoNode(path.to_owned())) } else { Ok(()) }
    }

    async fn catch_up(&self) -> Result<(), TopoError> {
        // Every range is linearizable where `serializable` is not asked for, which nothing here does: the member makes
        // sure with the quorum that it is not behind before it answers.
        Ok(())
    }

    async fn arm(&self) {
        self.watch.arm(Watcher::below(&self.connection, &self.root)).await;
    }

    async fn changed(&self) {
        self.watch.changed().await;
    }

    async fn lock(
        &self,
        path: &str,
        shard: &KeyspaceShard,
        contents: &str,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError> {
        let directory = self.key(path);
        if !self.exists_below(&directory).await? {
            return Err(TopoError::NoNode(path.to_owned()));
        }
        let queue = lock::Queue {
            connection: self.connection.clone(),
            directory: format!("{directory}/locks"),
            lease_ttl: self.lease_ttl,
        };
        // In a task of its own: a caller that goes away while it is being taken would leave it behind.
        let (shard, contents) = (shard.clone(), contents.to_owned());
        let taking = tokio::spawn(async move { queue.take(&shard, &contents, patience).await });
        let gone = |_| self.connection.unavailable("taking the lock was broken off");
        taking.await.map_err(gone)?
    }

    async fn give_back(&self, _: &str, LockToken(token): &LockToken) -> Result<(), TopoError> {
        // Nothing but the place in the queue hangs on the lease.
        let lease = token.parse().map_err(|_| TopoError::Invalid(format!("lease {token:?}")))?;
        self.connection.revoke_lease(lease).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_beyond_it() {
        assert_eq!(after(b"/vitess/"), b"/vitess0");
        assert_eq!(after(&[1, 255]), [2]);
        assert_eq!(after(&[255]), [0]);
        let range = below("/vitess/global/");
        assert_eq!(
            (range.key.as_slice(), range.range_end.as_slice()),
            (&b"/vitess/global/"[..], &b"/vitess/global0"[..])
        );
    }
}
