//! What a topology server must be able to do, whichever it is.

use std::time::Duration;

use async_trait::async_trait;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};

/// The version of a record, for conditional updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub i64);

/// A connection to one cell's topology server. Paths are relative to the cell's root.
#[async_trait]
pub trait TopoConn: Send + Sync {
    /// Reads a record.
    async fn get(&self, path: &str) -> Result<(Vec<u8>, Version), TopoError>;

    /// Lists the children of a directory, sorted; a missing directory has none.
    async fn list(&self, path: &str) -> Result<Vec<String>, TopoError>;

    /// Creates a record and the directories above it.
    async fn create(&self, path: &str, data: &[u8]) -> Result<(), TopoError>;

    /// Replaces a record if it still has this version.
    async fn update(&self, path: &str, data: &[u8], version: Version) -> Result<(), TopoError>;

    /// Deletes a record and the directories above it that become empty.
    async fn delete(&self, path: &str) -> Result<(), TopoError>;

    /// Makes sure that what is read from now on is no older than this call: asked under a lock, before the records that
    /// a recovery acts on are read.
    async fn catch_up(&self) -> Result<(), TopoError>;

    /// Makes sure that changes from now on are noticed. Called before a reading: what changes after it must
    /// not fall between the two.
    async fn arm(&self);

    /// Waits until something below the root may have changed since it was armed, locks aside.
    async fn changed(&self);

    /// Takes the lock of the directory `path`.
    async fn lock(
        &self,
        path: &str,
        shard: &KeyspaceShard,
        contents: &str,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError>;

    /// Gives back the lock of the directory `path` that this token names; one that is gone is fine.
    async fn give_back(&self, path: &str, token: &LockToken) -> Result<(), TopoError>;
}
