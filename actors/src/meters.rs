//! What each actor does, and how much of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::locked::lock;

/// The figures of all actors that live.
#[derive(Default)]
pub struct Meters {
    living: RwLock<Vec<Weak<Meter>>>,
}

impl Meters {
    /// A place for a new actor's figures.
    pub fn register(&self, kind: &'static str, name: &str) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(kind, name));
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
