//! A topology server in memory, that can be slow, silent, or behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};

use super::super::conn::{TopoConn, Version};

/// The server and the one connection to it.
#[derive(Default)]
pub(super) struct Memory {
    records: Mutex<BTreeMap<String, (Vec<u8>, i64)>>,
    connects_in: Mutex<Duration>,
    answers_in: Mutex<Duration>,
    /// As real ones do: whoever asks first connects, the others wait, and nobody goes on where an asker left off.
    connecting: tokio::sync::Mutex<()>,
    no_root: bool,
    lags: AtomicBool,
    told_old: AtomicBool,
}

impl Memory {
    pub(super) fn without_root() -> Self {
        Self { no_root: true, ..Self::default() }
    }

    pub(super) fn put(&self, path: &str, data: &[u8]) {
        let mut records = self.records.lock().unwrap();
        let version = records.get(path).map_or(0, |(_, version)| version + 1);
        records.insert(path.to_owned(), (data.to_vec(), version));
    }

    /// The next request waits for a connection.
    pub(super) fn connects_in(&self, time: Duration) {
        *self.connects_in.lock().unwrap() = time;
    }

    pub(super) fn answers_in(&self, time: Duration) {
        *self.answers_in.lock().unwrap() = time;
    }

    /// It has not heard of the latest changes until it is told to catch up.
    pub(super) fn lags(&self) {
        self.lags.store(true, Ordering::Release);
        self.told_old.store(false, Ordering::Release);
    }

    /// Whether anything was read while it lagged.
    pub(super) fn told_old(&self) -> bool {
        self.told_old.load(Ordering::Acquire)
    }

    async fn answer(&self) {
        {
            let _connecting = self.connecting.lock().await;
            let connects_in = *self.connects_in.lock().unwrap();
            if !connects_in.is_zero() {
                sleep(connects_in).await;
                self.connects_in(Duration::ZERO);
            }
        }
        let answers_in = *self.answers_in.lock().unwrap();
        if !answers_in.is_zero() {
            sleep(answers_in).await;
        }
        let lags = self.lags.load(Ordering::Acquire);
        self.told_old.fetch_or(lags, Ordering::AcqRel);
    }
}

#[async_trait]
impl TopoConn for Memory {
    async fn get(&self, path: &str) -> Result<(Vec<u8>, Version), TopoError> {
        self.answer().await;
        let found = self.records.lock().unwrap().get(path).cloned();
        let found = found.map(|(data, version)| (data, Version(version)));
        found.ok_or_else(|| TopoError::NoNode(path.to_owned()))
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, TopoError> {
        self.answer().await;
        if self.no_root {
            return Err(TopoError::NoRoot("there is no root".into()));
        }
        let directory = format!("{path}/");
        let records = self.records.lock().unwrap();
        let below = records.keys().filter_map(|key| key.strip_prefix(&directory));
        let names: BTreeSet<&str> = below.filter_map(|rest| rest.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    async fn create(&self, path: &str, data: &[u8]) -> Result<(), TopoError> {
        if self.records.lock().unwrap().contains_key(path) {
            return Err(TopoError::NodeExists(path.to_owned()));
        }
        self.put(path, data);
        Ok(())
    }

    async fn update(
        &self,
        path: &str,
        data: &[u8],
        Version(from): Version,
    ) -> Result<(), TopoError> {
        let now = self.records.lock().unwrap().get(path).map(|(_, version)| *version);
        if now != Some(from) {
            return Err(TopoError::BadVersion(path.to_owned()));
        }
        self.put(path, data);
        Ok(())
    }

    async fn delete(&self, path: &str) -> Result<(), TopoError> {
        let gone = self.records.lock().unwrap().remove(path);
        gone.map(|_| ()).ok_or_else(|| TopoError::NoNode(path.to_owned()))
    }

    async fn catch_up(&self) -> Result<(), TopoError> {
        self.lags.store(false, Ordering::Release);
        Ok(())
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
        Err(TopoError::Invalid("it has no locks".into()))
    }

    async fn give_back(&self, _: &str, _: &LockToken) -> Result<(), TopoError> {
        Ok(())
    }
}
