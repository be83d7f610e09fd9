//! A vtorc's history store: survives the process, as a file would.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use vtorc_core::admission::Block;
use vtorc_core::audit::{AuditEntry, FindingSpan, RecoveryRecord};
use vtorc_core::controls::Controls;
use vtorc_core::ids::{KeyspaceShard, RecoveryId};
use vtorc_core::knowledge::memory::LastHeard;
use vtorc_core::ports::{FindingsChange, HistoryError, HistoryPort, LockToken, RecoveryFilter};
use vtorc_core::time::Timestamp;

/// What one vtorc keeps.
#[derive(Default)]
pub struct MemoryHistory {
    kept: Mutex<Kept>,
    /// It answers errors.
    fails: AtomicBool,
}

#[derive(Default)]
struct Kept {
    last_id: u64,
    recoveries: BTreeMap<RecoveryId, RecoveryRecord>,
    /// What it was given while it failed. Nobody but the judge reads it.
    unwritten: Vec<RecoveryRecord>,
    blocks: BTreeMap<KeyspaceShard, Block>,
    locks: BTreeMap<KeyspaceShard, LockToken>,
    left_behind: BTreeMap<KeyspaceShard, LockToken>,
    heard: BTreeMap<KeyspaceShard, LastHeard>,
    disabled: bool,
    controls: Controls,
}

impl MemoryHistory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it answers errors, or no more.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Release);
    }

    fn open(&self) -> Result<MutexGuard<'_, Kept>, HistoryError> {
        if self.fails.load(Ordering::Acquire) {
            return Err(HistoryError("the disk is full".into()));
        }
        Ok(self.kept())
    }

    /// The process that wrote it has ended, another one begins.
    pub fn reopen(&self) {
        let mut kept = self.kept();
        let locks = std::mem::take(&mut kept.locks);
        kept.left_behind.extend(locks);
    }

    /// A shard's block.
    pub fn block_of(&self, shard: &KeyspaceShard) -> Option<Block> {
        self.kept().blocks.get(shard).cloned()
    }

    /// All recoveries of a shard, oldest first.
    pub fn of_shard(&self, shard: &KeyspaceShard) -> Vec<RecoveryRecord> {
        let kept = self.kept();
        let recoveries = kept.recoveries.values().filter(|record| record.shard == *shard);
        recoveries.cloned().collect()
    }

    /// All recoveries of a shard, also those that ended while nothing could be written.
    pub fn attempts_at(&self, shard: &KeyspaceShard) -> Vec<RecoveryRecord> {
        let kept = self.kept();
        let ended = kept.unwritten.iter().filter(|one| one.outcome.is_some());
        let all = kept.recoveries.values().chain(ended);
        all.filter(|record| record.shard == *shard).cloned().collect()
    }
}

#[async_trait]
impl HistoryPort for MemoryHistory {
    async fn next_recovery_id(&self) -> Result<RecoveryId, HistoryError> {
        let mut kept = self.open()?;
        kept.last_id += 1;
        Ok(RecoveryId(kept.last_id))
    }

    async fn save_recovery(&self, record: RecoveryRecord) -> Result<(), HistoryError> {
        match self.open() {
            Ok(mut kept) => drop(kept.recoveries.insert(record.id, record)),
            Err(error) => {
                self.kept().unwritten.push(record);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn recovery(&self, id: RecoveryId) -> Result<Option<RecoveryRecord>, HistoryError> {
        Ok(self.open()?.recoveries.get(&id).cloned())
    }

    async fn recoveries(
        &self,
        filter: RecoveryFilter,
    ) -> Result<Vec<RecoveryRecord>, HistoryError> {
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        Ok(self.open()?.recoveries.values().rev().take(limit).cloned().collect())
    }

    async fn save_block(
        &self,
        shard: &KeyspaceShard,
        block: Option<Block>,
    ) -> Result<(), HistoryError> {
        match block {
            Some(block) => self.open()?.blocks.insert(shard.clone(), block),
            None => self.open()?.blocks.remove(shard),
        };
        Ok(())
    }

    async fn block(&self, shard: &KeyspaceShard) -> Result<Option<Block>, HistoryError> {
        Ok(self.open()?.blocks.get(shard).cloned())
    }

    async fn save_last_heard(
        &self,
        shard: &KeyspaceShard,
        heard: LastHeard,
    ) -> Result<(), HistoryError> {
        self.open()?.heard.insert(shard.clone(), heard);
        Ok(())
    }

    async fn last_heard(&self, shard: &KeyspaceShard) -> Result<Option<LastHeard>, HistoryError> {
        Ok(self.open()?.heard.get(shard).cloned())
    }

    async fn save_lock(
        &self,
        shard: &KeyspaceShard,
        token: Option<LockToken>,
    ) -> Result<(), HistoryError> {
        let mut kept = self.open()?;
        kept.left_behind.remove(shard);
        match token {
            Some(token) => kept.locks.insert(shard.clone(), token),
            None => kept.locks.remove(shard),
        };
        Ok(())
    }

    async fn lock_left_behind(
        &self,
        shard: &KeyspaceShard,
    ) -> Result<Option<LockToken>, HistoryError> {
        Ok(self.open()?.left_behind.get(shard).cloned())
    }

    async fn save_recoveries_enabled(&self, enabled: bool) -> Result<(), HistoryError> {
        self.open()?.disabled = !enabled;
        Ok(())
    }

    async fn recoveries_enabled(&self) -> Result<bool, HistoryError> {
        Ok(!self.open()?.disabled)
    }

    async fn save_controls(&self, controls: Controls) -> Result<(), HistoryError> {
        self.open()?.controls = controls;
        Ok(())
    }

    async fn controls(&self) -> Result<Controls, HistoryError> {
        Ok(self.open()?.controls.clone())
    }

    async fn save_audit(&self, _: AuditEntry) -> Result<(), HistoryError> {
        self.open().map(|_| ())
    }

    async fn audit(&self, _: u32) -> Result<Vec<AuditEntry>, HistoryError> {
        self.open().map(|_| Vec::new())
    }

    async fn save_findings(&self, _: FindingsChange) -> Result<(), HistoryError> {
        self.open().map(|_| ())
    }

    async fn findings(&self, _: RecoveryFilter) -> Result<Vec<FindingSpan>, HistoryError> {
        self.open().map(|_| Vec::new())
    }

    async fn purge(&self, _: Timestamp) -> Result<(), HistoryError> {
        self.open().map(|_| ())
    }
}
