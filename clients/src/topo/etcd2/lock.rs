//! Shard locks in etcd, in one queue with Vitess's own tools.
//!
//! A place in the queue is a key bound to a lease; whoever's key was created first holds the lock. A key is never
//! written again: that would put it at the end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};

use super::super::local::one_line;
use super::connection::Connection;
use super::{below, etcd, put, when};
use etcd::compare::TargetUnion;
use etcd::range_request::{SortOrder, SortTarget};

/// Looks again after this even if no watch fired.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A shard's queue for its lock.
pub(super) struct Queue {
    pub(super) connection: Arc<Connection>,
    /// The directory of the places.
    pub(super) directory: String,
    pub(super) lease_ttl: Duration,
}

impl Queue {
    /// Queues up and waits at most `patience` for those before.
    pub(super) async fn take(
        self,
        shard: &KeyspaceShard,
        contents: &str,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError> {
        // With no patience, look before queueing: a place in the queue would keep others waiting.
        if patience.is_zero()
            && let Some(holder) = self.holder().await?
        {
            return Err(TopoError::Locked { shard: shard.clone(), holder });
        }
        let lease = Lease::grant(self.connection.clone(), self.lease_ttl).await?;
        let place = self.queue_up(lease, contents).await?;
        let started = Instant::now();
        loop {
            let Some(before) = self.before(place.revision).await? else {
                return Ok(Box::new(place));
            };
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() {
                let holder = self.holder().await?.unwrap_or_default();
                place.lease.revoke().await;
                return Err(TopoError::Locked { shard: shard.clone(), holder });
            }
            self.wait_for(before, place.revision, left.min(LOOK_AGAIN)).await;
        }
    }

    /// What the lock says about its holder; none if it is free.
    async fn holder(&self) -> Result<Option<String>, TopoError> {
        let mut range = below(&self.directory);
        range.limit = 1;
        range.sort_order = SortOrder::Ascend.into();
        range.sort_target = SortTarget::Mod.into();
        let first = self.connection.range(range).await?.kvs.into_iter().next();
        Ok(first.map(|kv| one_line(&String::from_utf8_lossy(&kv.value))))
    }

    async fn queue_up(&self, lease: Lease, contents: &str) -> Result<Place, TopoError> {
        // Vitess writes the lease's number as a signed decimal.
        let key = format!("{}/{}", self.directory, lease.id);
        let transaction = etcd::TxnRequest {
            compare: vec![when(&key, TargetUnion::Version(0))],
            success: vec![put(&key, contents.as_bytes(), lease.id)],
            failure: Vec::new(),
        };
        let done = self.connection.transact(transaction).await?;
        if !done.succeeded {
            return Err(TopoError::NodeExists(key));
        }
        let revision = done.header.map(|header| header.revision).unwrap_or_default();
        Ok(Place { lease, key, revision })
    }

    /// The last one before us.
    async fn before(&self, revision: i64) -> Result<Option<Vec<u8>>, TopoError> {
        let mut range = below(&self.directory);
        range.limit = 1;
        range.max_mod_revision = revision - 1;
        range.sort_order = SortOrder::Descend.into();
        range.sort_target = SortTarget::Mod.into();
        range.keys_only = true;
        Ok(self.connection.range(range).await?.kvs.into_iter().next().map(|kv| kv.key))
    }

    /// Until that one may be gone.
    async fn wait_for(&self, key: Vec<u8>, revision: i64, patience: Duration) {
        let wait = async {
            let start_revision = revision;
            let request = etcd::WatchCreateRequest { key, start_revision, ..Default::default() };
            let Ok(mut answers) = self.connection.watch(request).await else {
                return tokio::time::sleep(patience).await;
            };
            // Whatever it tells, or that it ended: look again.
            let _ = answers.message().await;
        };
        let _ = timeout(patience, wait).await;
    }
}

/// A lease that is kept alive, until it is revoked or dropped.
struct Lease {
    connection: Arc<Connection>,
    id: i64,
    ttl: Duration,
    keeping: JoinHandle<()>,
}

impl Lease {
    async fn grant(connection: Arc<Connection>, ttl: Duration) -> Result<Self, TopoError> {
        let id = connection.grant_lease(ttl).await?;
        let kept = connection.clone();
        let keeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(ttl / 3).await;
                // One that cannot be prolonged is found out by whoever checks the lock.
                if kept.prolong_lease(id).await == Ok(0) {
                    return;
                }
            }
        });
        Ok(Self { connection, id, ttl, keeping })
    }

    async fn revoke(&self) {
        self.keeping.abort();
        // What cannot be revoked now is revoked later: see `Drop`.
        let _ = self.connection.revoke_lease(self.id).await;
    }
}

impl Drop for Lease {
    /// A place that is not wanted any more must not block the shard until its lease is over.
    fn drop(&mut self) {
        self.keeping.abort();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (connection, id, over) = (self.connection.clone(), self.id, Instant::now() + self.ttl);
        runtime.spawn(async move {
            while connection.revoke_lease(id).await.is_err() && Instant::now() < over {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
    }
}

/// Our key in the queue.
struct Place {
    lease: Lease,
    key: String,
    revision: i64,
}

#[async_trait]
impl ShardLock for Place {
    fn token(&self) -> Option<LockToken> {
        Some(LockToken(self.lease.id.to_string()))
    }

    /// The lease could be prolonged, and our key is where it was: asked, not assumed. The leader prolongs leases, and a
    /// range is linearizable: neither is answered by a member that lags.
    async fn check(&self) -> Result<(), TopoError> {
        let lost = |why: String| TopoError::LockLost(why);
        match self.lease.connection.prolong_lease(self.lease.id).await {
            Ok(0) => return Err(lost("our lease in etcd is over".into())),
            Ok(_) => {}
            Err(error) => return Err(lost(error.to_string())),
        }
        let key = self.key.clone().into_bytes();
        let range = etcd::RangeRequest { key, ..Default::default() };
        match self.lease.connection.range(range).await {
            Ok(found) if found.kvs.iter().any(|kv| kv.mod_revision == self.revision) => Ok(()),
            Ok(_) => Err(lost("our key is gone".into())),
            Err(error) => Err(lost(error.to_string())),
        }
    }

    async fn release(self: Box<Self>) {
        self.lease.revoke().await;
    }
}
