//! The topology in consul, as Vitess keeps it: the agent's HTTP interface, spoken over reqwest.
//!
//! Keys have no leading slash. Locks are a key `Lock` in the directory that they lock.

mod agent;
mod lock;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};

use super::conn::{TopoConn, Version};
use super::watch::KeptWatch;
use crate::mysql::Secret;
use agent::Agent;
pub use agent::ConsulTls;
pub use lock::ConsulLocks;
use watch::Watcher;

/// How consul is reached.
#[derive(Clone, Debug)]
pub struct ConsulOptions {
    /// A token for each cell that wants one; that of the global cell is `global`'s.
    pub tokens: BTreeMap<String, Secret>,
    /// For cells without a token of their own.
    pub token: Option<Secret>,
    /// TLS, if wanted.
    pub tls: ConsulTls,
    /// How long one request for changes waits.
    pub watch_poll: Duration,
    /// What the sessions of locks are like.
    pub locks: ConsulLocks,
}

/// A consul agent and the root of one cell in its keys.
pub struct ConsulConn {
    agent: Arc<Agent>,
    root: String,
    watch_poll: Duration,
    locks: ConsulLocks,
    watch: KeptWatch<Watcher>,
}

impl ConsulConn {
    /// Names the cell (`global` for the global one), the agent and the root. Connects when it is used.
    pub fn new(
        cell: &str,
        address: &str,
        root: &str,
        options: &ConsulOptions,
    ) -> Result<Self, TopoError> {
        let token = options.tokens.get(cell).or(options.token.as_ref());
        Ok(Self {
            agent: Arc::new(Agent::new(address, token, &options.tls)?),
            root: root.trim_matches('/').to_owned(),
            watch_poll: options.watch_poll,
            locks: options.locks.clone(),
            watch: KeptWatch::default(),
        })
    }

    fn key(&self, relative: &str) -> String {
        let parts = [self.root.as_str(), relative];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    }

    /// The same with a slash at its end: what is below it.
    fn directory(&self, relative: &str) -> String {
        let key = self.key(relative);
        if key.is_empty() { key } else { key + "/" }
    }

    /// The door of a directory's lock.
    fn door(&self, path: &str, contents: &str) -> lock::Door {
        lock::Door {
            agent: self.agent.clone(),
            key: self.key(path) + "/Lock",
            contents: contents.to_owned(),
        }
    }
}

/// Whether a key is a lock, in whatever directory.
fn is_lock(key: &str) -> bool {
    key.rsplit('/').next() == Some("Lock")
}

#[async_trait]
impl TopoConn for ConsulConn {
    async fn get(&self, path: &str) -> Result<(Vec<u8>, Version), TopoError> {
        let found = self.agent.pair(&self.key(path)).await?;
        let pair = found.ok_or_else(|| TopoError::NoNode(path.to_owned()))?;
        let version = i64::try_from(pair.modify_index).unwrap_or(i64::MAX);
        Ok((pair.value()?, Version(version)))
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, TopoError> {
        let directory = self.directory(path);
        let found = self.agent.children(&directory).await?;
        if found.is_empty() && self.agent.children(&self.directory("")).await?.is_empty() {
            // A root that is not there is a wrong root, not an empty topology.
            return Err(TopoError::NoRoot(format!(
                "there is nothing below {} in consul at {}; check the topology root, and whether the token may read it",
                self.root,
                self.agent.address()
            )));
        }
        let names = found
            .iter()
            .filter(|key| !is_lock(key))
            .filter_map(|key| Some(key.strip_prefix(&directory)?.trim_end_matches('/').to_owned()));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn create(&self, path: &str, data: &[u8]) -> Result<(), TopoError> {
        match self.agent.put(&self.key(path), &[("cas", "0")], data).await? {
            true => Ok(()),
            false => Err(TopoError::NodeExists(path.to_owned())),
        }
    }

    async fn update(&self, path: &str, data: &[u8], version: Version) -> Result<(), TopoError> {
        let index = version.0.to_string();
        match self.agent.put(&self.key(path), &[("cas", &index)], data).await? {
            true => Ok(()),
            false => Err(TopoError::BadVersion(path.to_owned())),
        }
    }

    async fn delete(&self, path: &str) -> Result<(), TopoError> {
        let found = self.agent.pair(&self.key(path)).await?;
        let pair = found.ok_or_else(|| TopoError::NoNode(path.to_owned()))?;
        match self.agent.delete(&pair).await? {
            true => Ok(()),
            false => Err(TopoError::BadVersion(path.to_owned())),
        }
    }

    async fn catch_up(&self) -> Result<(), TopoError> {
        // Every reading of records and locks is `consistent`: the leader makes sure with the quorum that it is the
        // leader before it answers.
        Ok(())
    }

    async fn arm(&self) {
        self.watch
            .arm(Watcher::below(self.agent.clone(), self.directory(""), self.watch_poll))
            .await;
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
        if self.agent.children(&self.directory(path)).await?.is_empty() {
            return Err(TopoError::NoNode(path.to_owned()));
        }
        let door = self.door(path, contents);
        // In a task of its own: a caller that goes away while it is being taken would leave it behind.
        let (shard, locks) = (shard.clone(), self.locks.clone());
        let taking = tokio::spawn(async move { door.take(&locks, &shard, patience).await });
        let gone = |_| self.agent.unavailable("taking the lock was broken off");
        taking.await.map_err(gone)?
    }

    async fn give_back(&self, path: &str, LockToken(token): &LockToken) -> Result<(), TopoError> {
        self.door(path, "").leave(token).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_a_leaf_of_that_name() {
        assert!(is_lock("vitess/global/keyspaces/ks/shards/0/Lock"));
        assert!(!is_lock("vitess/global/keyspaces/Lock/Keyspace"));
        // A directory, as listings have it.
        assert!(!is_lock("vitess/global/keyspaces/Lock/"));
    }
}
