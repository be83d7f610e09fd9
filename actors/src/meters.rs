//! What each actor does, and how much of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use vtorc_core::ids::{KeyspaceShard, TabletAlias};

use crate::locked::lock;

/// The figures of all actors that live.
#[derive(Default)]
pub struct Meters {
    living: RwLock<Vec<Weak<Meter>>>,
}

impl Meters {
    /// A place for a new actor's figures.
    pub fn register(&self, who: Who) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(who));
        let mut meters = self.living.write().unwrap_or_else(PoisonError::into_inner);
        meters.retain(|known| known.strong_count() > 0);
        meters.push(Arc::downgrade(&meter));
        meter
    }

    /// The actors that live, in the order of their birth.
    pub fn actors(&self) -> Vec<ActorReport> {
        let meters = self.living.read().unwrap_or_else(PoisonError::into_inner);
        meters.iter().filter_map(Weak::upgrade).map(|meter| meter.report()).collect()
    }
}

/// Which actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The one that starts a shard's actor for each shard of the topology.
    Registry,
    /// The one that reads the topology.
    TopoWatcher,
    /// The one that writes the history.
    Auditor,
    /// The one that knows a shard's tablets.
    Shard(KeyspaceShard),
    /// The one that runs a shard's recoveries.
    Recovery(KeyspaceShard),
    /// The one that probes a tablet's server.
    Prober(KeyspaceShard, TabletAlias),
}

impl Who {
    /// What it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::TopoWatcher => "topo-watcher",
            Self::Auditor => "auditor",
            Self::Shard(_) => "shard",
            Self::Recovery(_) => "recovery",
            Self::Prober(..) => "prober",
        }
    }

    /// The shard that it serves.
    pub fn shard(&self) -> Option<&KeyspaceShard> {
        match self {
            Self::Registry | Self::TopoWatcher | Self::Auditor => None,
            Self::Shard(shard) | Self::Recovery(shard) | Self::Prober(shard, _) => Some(shard),
        }
    }
}

/// Its name, with its parents' before it.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry | Self::Auditor => f.write_str(self.kind()),
            Self::TopoWatcher => write!(f, "{}/{}", Self::Registry, self.kind()),
            Self::Shard(shard) => write!(f, "{shard}"),
            Self::Recovery(shard) => write!(f, "{shard}/{}", self.kind()),
            Self::Prober(shard, alias) => write!(f, "{shard}/{alias}"),
        }
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
    who: Who,
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
    /// Which one.
    pub who: Who,
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
    fn new(who: Who) -> Self {
        Self {
            who,
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
            who: self.who.clone(),
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
