//! What is counted for the metrics.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vtorc_core::admission::inaction::Inaction;
use vtorc_core::analysis::FindingKind;
use vtorc_core::audit::{OutcomeKind, RecoveryRecord, StepOutcome};
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::recovery::step::StepKind;

use crate::locked::lock;

/// What is done with a shard's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockAction {
    /// It is taken.
    Lock,
    /// It is given back.
    Unlock,
}

/// A decision not to act: on which finding, why, and on which shard.
pub type HeldKey = (FindingKind, Inaction, KeyspaceShard);

/// A recovery that ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndedKey {
    /// What was done.
    pub kind: RecoveryKind,
    /// The finding that it was done for; none if it was asked for.
    pub finding: Option<FindingKind>,
    /// On which shard.
    pub shard: KeyspaceShard,
    /// How.
    pub outcome: OutcomeKind,
}

/// What is counted for the metrics.
#[derive(Default)]
pub struct Counters {
    probes: AtomicU64,
    probe_failures: AtomicU64,
    probes_late: AtomicU64,
    locks: Mutex<BTreeMap<(LockAction, u64), u64>>,
    ended: Mutex<BTreeMap<EndedKey, u64>>,
    detected: Mutex<BTreeMap<(FindingKind, KeyspaceShard), u64>>,
    held: Mutex<BTreeMap<HeldKey, u64>>,
}

impl Counters {
    /// Counts a probe.
    pub fn count_probe(&self, failure: Option<&ProbeFailure>) {
        self.probes.fetch_add(1, Ordering::Relaxed);
        if failure.is_some() {
            self.probe_failures.fetch_add(1, Ordering::Relaxed);
        }
        if failure == Some(&ProbeFailure::TimedOut) {
            self.probes_late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Probes that got no answer in time.
    pub fn late_probes(&self) -> u64 {
        self.probes_late.load(Ordering::Relaxed)
    }

    /// How long shards' locks took: so many milliseconds, so often.
    pub fn lock_timings(&self) -> BTreeMap<(LockAction, u64), u64> {
        lock(&self.locks).clone()
    }

    pub(crate) fn count_lock(&self, action: LockAction, ms: u64) {
        *lock(&self.locks).entry((action, ms)).or_default() += 1;
    }

    fn count_lock_taken(&self, record: &RecoveryRecord) {
        let taken = record.steps.iter().find(|step| step.kind == StepKind::TakeLock);
        let taken = taken.filter(|step| matches!(step.outcome, Some(StepOutcome::Done(_))));
        if let Some(took) = taken.and_then(|step| step.duration_ms) {
            self.count_lock(LockAction::Lock, took);
        }
    }

    /// Counts a recovery, where it has ended.
    pub(crate) fn count_recovery(&self, record: &RecoveryRecord) {
        let Some(outcome) = &record.outcome else { return };
        let key = EndedKey {
            kind: record.kind,
            finding: record.finding,
            shard: record.shard.clone(),
            outcome: outcome.kind(),
        };
        *lock(&self.ended).entry(key).or_default() += 1;
        self.count_lock_taken(record);
    }

    /// Counts decisions not to act that are new.
    pub(crate) fn count_held(&self, shard: &KeyspaceShard, begun: Vec<(FindingKind, Inaction)>) {
        let mut held = lock(&self.held);
        for (finding, reason) in begun {
            *held.entry((finding, reason, shard.clone())).or_default() += 1;
        }
    }

    /// Counts a finding that appeared.
    pub fn count_detected(&self, shard: &KeyspaceShard, finding: FindingKind) {
        let key = (finding, shard.clone());
        *lock(&self.detected).entry(key).or_default() += 1;
    }

    /// Decisions not to act, each counted when it was new.
    pub fn held_counts(&self) -> BTreeMap<HeldKey, u64> {
        lock(&self.held).clone()
    }

    /// Probes and failed probes so far.
    pub fn probe_counts(&self) -> (u64, u64) {
        (self.probes.load(Ordering::Relaxed), self.probe_failures.load(Ordering::Relaxed))
    }

    /// Recoveries that ended.
    pub fn recovery_counts(&self) -> BTreeMap<EndedKey, u64> {
        lock(&self.ended).clone()
    }

    /// Findings that appeared, by (finding, shard).
    pub fn detected_counts(&self) -> BTreeMap<(FindingKind, KeyspaceShard), u64> {
        lock(&self.detected).clone()
    }
}
