//! What every actor is given: the ports, the clock, the board, the settings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actix::Recipient;
use slog::Logger;
use tokio::sync::{Notify, watch};
use vtorc_core::admission::Switches;
use vtorc_core::controls::Controls;
use vtorc_core::ids::{KeyspaceShard, TabletAlias, WatchList};
use vtorc_core::knowledge::servers::Servers;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::ports::{HistoryPort, HookPort, MysqlPort, ProbePort, TopoPort};
use vtorc_core::recovery::step::Failpoint;
use vtorc_core::settings::RecoverySettings;
use vtorc_core::status::ServerStatus;

use crate::board::Board;
use crate::clock::Clock;
use crate::messages::Audit;
use crate::numbers::Numbers;

/// The settings of the actors. Re-read on SIGHUP.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What decisions depend on.
    pub recovery: RecoverySettings,
    /// How often each server is probed.
    pub poll_interval: Duration,
    /// One probe takes at most this long.
    pub probe_timeout: Duration,
    /// How often the whole topology is read, whatever the watches say.
    pub topo_refresh: Duration,
    /// What is watched.
    pub watched: WatchList,
}

/// Is told of every point of a recovery; for tests of what a crash leaves behind.
pub type AtPoint = Arc<dyn Fn(Failpoint) + Send + Sync>;

/// What every actor is given.
#[derive(Clone)]
pub struct Services {
    /// Probes servers.
    pub probes: Arc<dyn ProbePort>,
    /// Changes servers.
    pub mysql: Arc<dyn MysqlPort>,
    /// The topology.
    pub topo: Arc<dyn TopoPort>,
    /// The operator's programs.
    pub hooks: Arc<dyn HookPort>,
    /// The history, for reading; it is written through `auditor`.
    pub history: Arc<dyn HistoryPort>,
    /// The one writer of the history.
    pub auditor: Recipient<Audit>,
    /// What everybody may read.
    pub board: Arc<Board>,
    /// The time.
    pub clock: Clock,
    /// The settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Whose the servers of all shards are.
    pub servers: Arc<RwLock<Servers>>,
    /// The numbers of recoveries.
    pub numbers: Arc<Numbers>,
    /// Automatic recoveries are on; kept in the history.
    pub recoveries_enabled: Arc<AtomicBool>,
    /// What operators control; kept in the history.
    pub controls: Arc<RwLock<Controls>>,
    /// The process is ending: nothing new is started.
    pub ending: Arc<AtomicBool>,
    /// Somebody wants the topology to be read now.
    pub topology_wanted: Arc<Notify>,
    /// Where to log.
    pub log: Logger,
    /// Called at each point of a recovery.
    pub failpoint: AtPoint,
}

impl Services {
    /// The settings in force now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    /// Tells whether the process is ending.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// What operators control.
    pub fn controls(&self) -> Controls {
        self.controls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is switched off now.
    pub fn switches(&self) -> SwitchesNow {
        SwitchesNow {
            recoveries_enabled: self.recoveries_enabled(),
            controls: self.controls(),
            isolated: self.board.isolated(self.clock.now()),
        }
    }

    /// The settings of recoveries, with the promotion rules that operators gave before all others.
    pub fn recovery_settings(&self) -> RecoverySettings {
        let mut settings = self.settings().recovery.clone();
        let rules = self.controls().promotion_rules(self.clock.now());
        settings.promotion_rules.splice(0..0, rules);
        settings
    }

    /// The tablet of another shard whose server gave this answer.
    pub(crate) fn claimed_by(
        &self,
        snapshot: &ShardSnapshot,
        answer: Option<&ServerStatus>,
    ) -> Option<TabletAlias> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        servers.owner_elsewhere(snapshot, &answer?.identity()).cloned()
    }

    /// Lets the other shards know whose servers this shard's tablets have.
    pub(crate) fn know_servers(&self, snapshot: &ShardSnapshot) {
        self.servers.write().unwrap_or_else(PoisonError::into_inner).know(snapshot);
    }

    /// The servers of a shard that is not watched any more belong to nobody here.
    pub(crate) fn forget_servers(&self, shard: &KeyspaceShard) {
        self.servers.write().unwrap_or_else(PoisonError::into_inner).forget(shard);
    }

    /// Tells whether automatic recoveries are on.
    pub fn recoveries_enabled(&self) -> bool {
        self.recoveries_enabled.load(Ordering::Acquire)
    }
}

/// What was switched off at one moment, and whether vtorc doubted its own sight.
pub struct SwitchesNow {
    recoveries_enabled: bool,
    controls: Controls,
    isolated: Option<String>,
}

impl SwitchesNow {
    /// The same, for core.
    pub fn get(&self) -> Switches<'_> {
        Switches {
            recoveries_enabled: self.recoveries_enabled,
            controls: &self.controls,
            isolated: self.isolated.as_deref(),
        }
    }
}
