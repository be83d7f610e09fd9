//! One vtorc of the run: the daemon's own actors over simulated ports, in a set of tasks that can be dropped
//! at any moment, as `kill -9` would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Addr;
use async_trait::async_trait;
use slog::{Drain, Logger, OwnedKVList, Record, o};
use tokio::sync::watch;
use tokio::task::LocalSet;
use vtorc_actors::auditor::Auditor;
use vtorc_actors::board::Board;
use vtorc_actors::clock::Clock;
use vtorc_actors::guardian::start_guarded;
use vtorc_actors::meters::Who;
use vtorc_actors::registry::Registry;
use vtorc_actors::services::{Services, Settings};
use vtorc_core::hooks::{Hook, Occasion};
use vtorc_core::ids::WatchList;
use vtorc_core::ports::{HookPort, HookRun};
use vtorc_core::settings::RecoverySettings;
use vtorc_core::time::Timestamp;

use crate::history::MemoryHistory;
use crate::ports::Outside;
use crate::universe::Shared;

/// The wall clock at the beginning of every run: 2026-01-01.
pub(crate) const EPOCH_MS: u64 = 1_767_225_600_000;

/// A vtorc.
pub struct Manager {
    /// Its number.
    pub number: u8,
    /// Its history, which outlives it.
    pub history: Arc<MemoryHistory>,
    /// What it shows.
    pub board: Arc<Board>,
    /// Whom to ask for things.
    pub registry: Addr<Registry>,
    /// Its tasks. Dropping them is its death.
    pub tasks: LocalSet,
    alive: Arc<AtomicBool>,
    /// Keeps its settings.
    _settings: watch::Sender<Arc<Settings>>,
}

/// What a vtorc is started with.
#[derive(Clone)]
pub struct Launch {
    /// Everything.
    pub universe: Shared,
    /// Its number.
    pub number: u8,
    /// Its history, maybe of an earlier life.
    pub history: Arc<MemoryHistory>,
    /// What it may do.
    pub recovery: RecoverySettings,
    /// Its wall clock differs from the others' by so many milliseconds.
    pub clock_skew_ms: i64,
}

impl Manager {
    /// Starts it.
    pub async fn launch(launch: Launch) -> Self {
        let Launch { universe, number, history, recovery, clock_skew_ms } = launch;
        history.reopen();
        let tasks = LocalSet::new();
        let board = Arc::new(Board::new());
        let alive = Arc::new(AtomicBool::new(true));
        let life = universe.lock().topology.new_serial();
        let outside = Outside {
            universe: universe.clone(),
            manager: number,
            life,
            board: board.clone(),
            alive: alive.clone(),
            unwanted: Arc::default(),
        };
        let settings = Settings {
            recovery,
            poll_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(1),
            topo_refresh: Duration::from_secs(15),
            watched: WatchList::default(),
        };
        let (sender, settings) = watch::channel(Arc::new(settings));
        let log = logger(universe.clone(), number);
        let struck = universe.clone();
        let now = universe.lock().now;
        let base = (EPOCH_MS + now).saturating_add_signed(clock_skew_ms);
        let started = tasks.run_until(async {
            let meter = board.meters.register(Who::Auditor);
            let auditor = Auditor::new(history.clone(), meter.clone(), log.clone());
            let services = Services {
                probes: Arc::new(outside.clone()),
                mysql: Arc::new(outside.clone()),
                topo: Arc::new(outside.clone()),
                hooks: Arc::new(NoHooks),
                history: history.clone(),
                auditor: start_guarded(auditor, 4096, meter).recipient(),
                board: board.clone(),
                clock: Clock::starting_at(Timestamp::from_millis(base)),
                settings,
                numbers: Arc::default(),
                servers: Arc::default(),
                recoveries_enabled: Arc::new(AtomicBool::new(true)),
                controls: Arc::default(),
                ending: Arc::default(),
                topology_wanted: Arc::default(),
                log,
                failpoint: Arc::new(move |_| struck.lock().reach_point(number)),
            };
            tokio::task::spawn_local(outside.keep_alive());
            Registry::launch(services)
        });
        let registry = started.await;
        Self { number, history, board, registry, tasks, alive, _settings: sender }
    }

    /// From now on it does nothing: what is dropped with it is not given back in order.
    pub fn kill(&self) {
        self.alive.store(false, Ordering::Release);
    }
}

/// Nothing is run in a simulation.
struct NoHooks;

#[async_trait]
impl HookPort for NoHooks {
    fn wants(&self, _: Hook) -> bool {
        false
    }
    async fn run(&self, _: Hook, _: &Occasion) -> Vec<HookRun> {
        Vec::new()
    }
    fn running(&self) -> usize {
        0
    }
}

/// Log lines become part of what happened.
struct Lines {
    universe: Shared,
    number: u8,
}

impl Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        let mut fields = Fields(String::new());
        // A field that cannot be written is left out.
        let _ = slog::KV::serialize(&record.kv(), record, &mut fields);
        let number = self.number;
        let mut universe = self.universe.lock();
        universe.note(|| format!("m{number} {}{}", record.msg(), fields.0));
        Ok(())
    }
}

struct Fields(String);

impl slog::Serializer for Fields {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        use std::fmt::Write;
        let text = value.to_string();
        if !text.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(self.0, ", {key}: {text}");
        }
        Ok(())
    }
}

fn logger(universe: Shared, number: u8) -> Logger {
    Logger::root(Lines { universe, number }, o!())
}
