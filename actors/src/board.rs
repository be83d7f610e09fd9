//! What everybody may read: the last report of each shard and actor, and a stream of what changes.
//!
//! The web reads here instead of asking actors, so a page never keeps an actor from its work.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::broadcast;
use vtorc_core::admission::Block;
use vtorc_core::admission::inaction::{Decisions, HeldBack};
use vtorc_core::analysis::Finding;
use vtorc_core::audit::RecoveryRecord;
use vtorc_core::ids::{KeyspaceShard, RecoveryId};
use vtorc_core::isolation::{self, OutOfSight};
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::reparent::prognosis::Prognosis;
use vtorc_core::time::Timestamp;

use crate::counters::Counters;
use crate::locked::lock;
use crate::meters::Meters;

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
    /// The recovery that runs, or ended just now: what it changed was not seen yet.
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
    /// The actors' figures.
    pub meters: Meters,
    events: Option<broadcast::Sender<Event>>,
    /// What is counted for the metrics.
    pub counters: Counters,
    decisions: Mutex<BTreeMap<KeyspaceShard, Decisions>>,
    doubt: Mutex<Option<(Timestamp, Option<String>)>>,
    ready: AtomicBool,
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
        if !counted {
            self.counters.count_recovery(&record);
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
        self.counters.count_held(shard, news.begun);
    }

    /// Why nothing was done about a shard, newest first.
    pub fn decisions(&self, shard: &KeyspaceShard) -> Decisions {
        lock(&self.decisions).get(shard).cloned().unwrap_or_default()
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
}
