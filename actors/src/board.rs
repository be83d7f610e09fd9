//! What everybody may read: the last report of each shard and actor, and a stream of what changes.
//!
//! The web reads here instead of asking actors, so a page never keeps an actor from its work.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::broadcast;
use vtorc_core::admission::Block;
use vtorc_core::admission::inaction::{Decisions, HeldBack, Inaction};
use vtorc_core::analysis::{Finding, FindingKind};
use vtorc_core::audit::{RecoveryRecord, StepOutcome};
use vtorc_core::ids::{KeyspaceShard, RecoveryId};
use vtorc_core::isolation::{self, OutOfSight};
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::recovery::step::StepKind;
use vtorc_core::reparent::prognosis::Prognosis;
use vtorc_core::time::Timestamp;

/// Changes that a slow reader may lag behind before it is told to read everything anew.
const EVENTS_MAX: usize = 1024;
/// Looking at all shards at once is not done more often.
const LOOK_AROUND_EVERY: Duration = Duration::from_millis(100);
/// Recoveries kept at hand; older ones are in the history.
const RECENT_MAX: usize = 50;

/// All that is known about a shard, as last reported.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// The shard's state.
    pub snapshot: Arc<ShardSnapshot>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
    /// The block in force.
    pub block: Option<Block>,
    /// The recovery that runs.
    pub running: Option<RecoveryId>,
    /// Why what is wanted is not done.
    pub held_back: Option<String>,
    /// All that was not done, and why.
    pub decisions: Decisions,
    /// What would happen if the primary died now.
    pub prognosis: Prognosis,
}

/// Whether a report says anything that the one before did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It does.
    Something,
    /// The same, seen again later.
    OnlyFresher,
}

/// Something changed.
#[derive(Clone, Debug)]
pub enum Event {
    /// A shard's report.
    Shard(Arc<ShardReport>),
    /// A shard is not watched any more.
    ShardGone(KeyspaceShard),
    /// A recovery's story.
    Recovery(Arc<RecoveryRecord>),
    /// The topology's or a switch's state.
    System,
}

/// The process as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemReport {
    /// The topology was read at least once.
    pub topology_read: bool,
    /// Why the last reading failed.
    pub topology_error: Option<String>,
    /// Cells and records that could not be read, and why.
    pub topology_warnings: BTreeMap<String, String>,
    /// Why vtorc doubts its own sight.
    pub isolated: Option<String>,
}

/// The board.
#[derive(Default)]
pub struct Board {
    shards: RwLock<BTreeMap<KeyspaceShard, Arc<ShardReport>>>,
    recoveries: RwLock<VecDeque<Arc<RecoveryRecord>>>,
    system: RwLock<SystemReport>,
    meters: RwLock<Vec<Weak<Meter>>>,
    events: Option<broadcast::Sender<Event>>,
    counters: Counters,
    decisions: Mutex<BTreeMap<KeyspaceShard, Decisions>>,
    doubt: Mutex<Option<(Timestamp, Option<String>)>>,
    ready: AtomicBool,
}

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
    /// The outcome's name.
    pub outcome: &'static str,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        Self { events: Some(broadcast::channel(EVENTS_MAX).0), ..Self::default() }
    }

    /// All that changes from now on.
    pub fn subscribe(&self) -> Option<broadcast::Receiver<Event>> {
        self.events.as_ref().map(broadcast::Sender::subscribe)
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            // Nobody listening is fine.
            let _ = events.send(event);
        }
    }

    /// Pins up a shard's report, and tells of it where it says something new.
    pub fn post_shard(&self, report: ShardReport, news: News) {
        let name = report.snapshot.shard.clone();
        let report = Arc::new(report);
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.insert(name, report.clone());
        drop(shards);
        match news {
            News::Something => self.tell(Event::Shard(report)),
            News::OnlyFresher => {}
        }
    }

    /// Takes a shard's report down.
    pub fn remove_shard(&self, name: &KeyspaceShard) {
        self.shards.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        lock(&self.decisions).remove(name);
        self.tell(Event::ShardGone(name.clone()));
    }

    /// All shards.
    pub fn shards(&self) -> Vec<Arc<ShardReport>> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// One shard.
    pub fn shard(&self, name: &KeyspaceShard) -> Option<Arc<ShardReport>> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Pins up a recovery's story so far.
    pub fn post_recovery(&self, record: RecoveryRecord) {
        // What its programs print is added to the story after its end.
        let counted = self.recovery(record.id).is_some_and(|known| known.outcome.is_some());
        if let Some(outcome) = record.outcome.as_ref().filter(|_| !counted) {
            let key = EndedKey {
                kind: record.kind,
                finding: record.finding,
                shard: record.shard.clone(),
                outcome: outcome.name(),
            };
            *lock(&self.counters.ended).entry(key).or_default() += 1;
            self.count_lock_taken(&record);
        }
        let record = Arc::new(record);
        let mut recent = self.recoveries.write().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|known| known.id != record.id);
        recent.push_front(record.clone());
        recent.truncate(RECENT_MAX);
        drop(recent);
        self.tell(Event::Recovery(record));
    }

    /// A recent recovery.
    pub fn recovery(&self, id: RecoveryId) -> Option<Arc<RecoveryRecord>> {
        let recent = self.recoveries.read().unwrap_or_else(PoisonError::into_inner);
        recent.iter().find(|known| known.id == id).cloned()
    }

    /// Recoveries that have not ended.
    pub fn running(&self) -> Vec<Arc<RecoveryRecord>> {
        let recent = self.recoveries.read().unwrap_or_else(PoisonError::into_inner);
        recent.iter().filter(|known| known.ended_at.is_none()).cloned().collect()
    }

    /// Changes the report of the process as a whole.
    pub fn update_system(&self, change: impl FnOnce(&mut SystemReport)) {
        let mut system = self.system.write().unwrap_or_else(PoisonError::into_inner);
        let before = system.clone();
        change(&mut system);
        let changed = *system != before;
        drop(system);
        if changed {
            self.tell(Event::System);
        }
    }

    /// Tells that a switch was turned.
    pub fn system_changed(&self) {
        self.tell(Event::System);
    }

    /// The process as a whole.
    pub fn system(&self) -> SystemReport {
        self.system.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that the process serves.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Tells whether the process serves.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Counts a probe.
    pub fn count_probe(&self, failure: Option<&ProbeFailure>) {
        self.counters.probes.fetch_add(1, Ordering::Relaxed);
        if failure.is_some() {
            self.counters.probe_failures.fetch_add(1, Ordering::Relaxed);
        }
        if failure == Some(&ProbeFailure::TimedOut) {
            self.counters.probes_late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Probes that got no answer in time.
    pub fn late_probes(&self) -> u64 {
        self.counters.probes_late.load(Ordering::Relaxed)
    }

    /// How long shards' locks took: so many milliseconds, so often.
    pub fn lock_timings(&self) -> BTreeMap<(LockAction, u64), u64> {
        lock(&self.counters.locks).clone()
    }

    pub(crate) fn count_lock(&self, action: LockAction, ms: u64) {
        *lock(&self.counters.locks).entry((action, ms)).or_default() += 1;
    }

    fn count_lock_taken(&self, record: &RecoveryRecord) {
        let taken = record.steps.iter().find(|step| step.kind == StepKind::TakeLock);
        let taken = taken.filter(|step| matches!(step.outcome, Some(StepOutcome::Done(_))));
        if let Some(took) = taken.and_then(|step| step.duration_ms) {
            self.count_lock(LockAction::Lock, took);
        }
    }

    /// Counts a finding that appeared.
    pub fn count_detected(&self, shard: &KeyspaceShard, finding: FindingKind) {
        let key = (finding, shard.clone());
        *lock(&self.counters.detected).entry(key).or_default() += 1;
    }

    /// Keeps a round of decisions not to act.
    pub fn hold(
        &self,
        shard: &KeyspaceShard,
        only_watched: bool,
        round: &[HeldBack],
        now: Timestamp,
    ) {
        let mut decisions = lock(&self.decisions);
        if round.is_empty() && !decisions.contains_key(shard) {
            return;
        }
        let news = decisions.entry(shard.clone()).or_default().observe(only_watched, round, now);
        drop(decisions);
        let mut held = lock(&self.counters.held);
        for (finding, reason) in news.begun {
            *held.entry((finding, reason, shard.clone())).or_default() += 1;
        }
    }

    /// Why nothing was done about a shard, newest first.
    pub fn decisions(&self, shard: &KeyspaceShard) -> Decisions {
        lock(&self.decisions).get(shard).cloned().unwrap_or_default()
    }

    /// Decisions not to act, each counted when it was new.
    pub fn held_counts(&self) -> BTreeMap<HeldKey, u64> {
        lock(&self.counters.held).clone()
    }

    /// Why vtorc must doubt its own sight, if it must. Looked at anew when the last look is old.
    pub fn isolated(&self, now: Timestamp) -> Option<String> {
        let mut doubt = lock(&self.doubt);
        if let Some((at, known)) = &*doubt
            && at.age(now) < LOOK_AROUND_EVERY
        {
            return known.clone();
        }
        let sights: Vec<OutOfSight> =
            self.shards().iter().map(|report| OutOfSight::of(&report.snapshot)).collect();
        let found = isolation::doubt(&sights, self.system().topology_error.is_some());
        *doubt = Some((now, found.clone()));
        drop(doubt);
        self.update_system(|system| system.isolated.clone_from(&found));
        found
    }

    /// Probes and failed probes so far.
    pub fn probe_counts(&self) -> (u64, u64) {
        let counters = &self.counters;
        (counters.probes.load(Ordering::Relaxed), counters.probe_failures.load(Ordering::Relaxed))
    }

    /// Recoveries that ended.
    pub fn recovery_counts(&self) -> BTreeMap<EndedKey, u64> {
        lock(&self.counters.ended).clone()
    }

    /// Findings that appeared, by (finding, shard).
    pub fn detected_counts(&self) -> BTreeMap<(FindingKind, KeyspaceShard), u64> {
        lock(&self.counters.detected).clone()
    }

    /// A place for a new actor's figures.
    pub fn register(&self, kind: &'static str, name: &str) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(kind, name));
        let mut meters = self.meters.write().unwrap_or_else(PoisonError::into_inner);
        meters.retain(|known| known.strong_count() > 0);
        meters.push(Arc::downgrade(&meter));
        meter
    }

    /// The actors that live, in the order of their birth.
    pub fn actors(&self) -> Vec<ActorReport> {
        let meters = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        meters.iter().filter_map(Weak::upgrade).map(|meter| meter.report()).collect()
    }
}

/// What an actor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorState {
    /// Serving.
    Running,
    /// Pausing after a panic.
    Restarting,
    /// Stopped in order.
    Stopped,
    /// It panicked too often.
    GivenUp,
}

/// An actor's figures.
pub struct Meter {
    kind: &'static str,
    name: String,
    handled: AtomicU64,
    queued: AtomicU64,
    dropped: AtomicU64,
    restarts: AtomicU64,
    trouble: Mutex<(ActorState, Option<String>)>,
    doing: Mutex<String>,
}

/// An actor as the status page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorReport {
    /// What it is.
    pub kind: &'static str,
    /// Its name, with its parents' before it.
    pub name: String,
    /// Whether it serves.
    pub state: ActorState,
    /// What it is busy with, in words.
    pub doing: String,
    /// Messages that wait.
    pub mailbox: u64,
    /// Messages handled.
    pub handled: u64,
    /// Messages that found the mailbox full.
    pub dropped: u64,
    /// Restarts after a panic.
    pub restarts: u64,
    /// The last panic or error.
    pub last_error: Option<String>,
}

impl Meter {
    fn new(kind: &'static str, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            handled: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            trouble: Mutex::new((ActorState::Running, None)),
            doing: Mutex::default(),
        }
    }

    /// A message is on its way.
    pub fn sent(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// A message found the mailbox full.
    pub fn lost(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.taken();
    }

    fn taken(&self) {
        // Messages that were sent without being counted must not make it wrap.
        let fewer = |queued: u64| Some(queued.saturating_sub(1));
        let _ = self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// A message is being handled.
    pub fn handled(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        self.taken();
    }

    /// Says what the actor is busy with.
    pub fn doing(&self, what: impl Into<String>) {
        *lock(&self.doing) = what.into();
    }

    /// Notes an error that did not stop it.
    pub fn failed(&self, error: &str) {
        lock(&self.trouble).1 = Some(error.to_owned());
    }

    pub(crate) fn set_state(&self, state: ActorState) {
        lock(&self.trouble).0 = state;
    }

    pub(crate) fn panicked(&self, what: &str, state: ActorState) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        *lock(&self.trouble) = (state, Some(format!("panicked: {what}")));
    }

    /// The figures now.
    pub fn report(&self) -> ActorReport {
        let (state, last_error) = lock(&self.trouble).clone();
        ActorReport {
            kind: self.kind,
            name: self.name.clone(),
            state,
            doing: lock(&self.doing).clone(),
            mailbox: self.queued.load(Ordering::Relaxed),
            handled: self.handled.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            last_error,
        }
    }
}
