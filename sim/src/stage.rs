//! What a run's own tasks and its vtorcs share, and how faults reach processes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use vtorc_actors::messages::{
    ChangeControl, ControlChange, ReparentKind, ReparentRequest, Request, RequestRecovery,
};
use vtorc_core::controls::Control;
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::settings::{RecoverySettings, UnappliedPolicy};

use crate::Millis;
use crate::claims::Silence;
use crate::faults::{Fault, Hostile, Kind};
use crate::foreign::Foreign;
use crate::history::MemoryHistory;
use crate::manager::{Launch, Manager};
use crate::oracle::Oracle;
use crate::schedule::Schedule;
use crate::universe::Shared;

/// One run while it goes on.
pub struct Stage {
    /// Everything simulated.
    pub universe: Shared,
    /// What was planned.
    pub schedule: Schedule,
    /// The vtorcs that run.
    pub managers: Vec<Option<Manager>>,
    /// Their histories, which outlive them.
    pub histories: Vec<Arc<MemoryHistory>>,
    /// What they do not say, by vtorc and shard.
    pub silences: BTreeMap<(usize, usize), Silence>,
    /// Knows what a human could have done.
    pub oracle: Oracle,
    /// When the last fault was taken back.
    pub healed_at: Millis,
    /// Findings that appeared, and how often.
    pub findings: BTreeMap<String, u64>,
    /// Other tools at work, by the fault that started them.
    foreigners: BTreeMap<usize, Foreign>,
}

/// A stage that the play shares with what polls its vtorcs.
pub type SharedStage = Rc<RefCell<Stage>>;

impl Stage {
    /// Before the beginning.
    pub fn new(schedule: Schedule, universe: Shared) -> Self {
        let numbers = 0..schedule.managers;
        let histories: Vec<Arc<MemoryHistory>> = numbers.clone().map(|_| Arc::default()).collect();
        // What goes wrong at the very beginning goes wrong before a vtorc is started.
        for fault in schedule.faults.iter().filter(|fault| fault.at == 0) {
            fail_history(&histories, fault, true);
        }
        Self {
            universe,
            managers: numbers.map(|_| None).collect(),
            histories,
            silences: BTreeMap::new(),
            oracle: Oracle::default(),
            healed_at: 0,
            findings: BTreeMap::new(),
            foreigners: BTreeMap::new(),
            schedule,
        }
    }
}

fn fail_history(histories: &[Arc<MemoryHistory>], fault: &Fault, begins: bool) {
    let history = histories.get(usize::from(fault.manager));
    if let Some(history) = history.filter(|_| fault.kind == Kind::Hostile(Hostile::HistoryFails)) {
        history.fail(begins);
    }
}

/// Begins a fault; `at` is its place in the schedule.
pub fn begin(stage: &SharedStage, at: usize, fault: &Fault, server: u8) {
    let managers = stage.borrow().schedule.managers;
    {
        let stage = stage.borrow();
        let mut universe = stage.universe.lock();
        universe.note(|| format!("FAULT {:?} on s{server} m{}", fault.kind, fault.manager));
        universe.begin(fault, server, managers);
        fail_history(&stage.histories, fault, true);
    }
    if fault.kind == Kind::ManagerKilled {
        let mut stage = stage.borrow_mut();
        let place = stage.managers.get_mut(usize::from(fault.manager));
        if let Some(killed) = place.and_then(Option::take) {
            killed.kill();
        }
    }
    if matches!(fault.kind, Kind::PlannedReparent | Kind::Hostile(Hostile::EmergencyAsked)) {
        ask_for_reparent(stage, fault, server);
    }
    if fault.kind == Kind::Hostile(Hostile::Downtime) {
        change_downtime(stage, server, ControlChange::Set(None));
    }
    if fault.kind == Kind::ForeignReparent {
        let mut stage = stage.borrow_mut();
        let shard = stage.universe.lock().records_of(server).name.clone();
        let tool = Foreign::launch(&stage.universe, shard, fault.other);
        stage.foreigners.insert(at, tool);
    }
}

/// Takes a fault back.
pub async fn end(stage: &SharedStage, at: usize, fault: &Fault, server: u8) {
    let managers = stage.borrow().schedule.managers;
    {
        let mut stage = stage.borrow_mut();
        if let Some(tool) = stage.foreigners.remove(&at) {
            tool.kill();
        }
        let mut universe = stage.universe.lock();
        universe.note(|| format!("MENDED {:?} on s{server} m{}", fault.kind, fault.manager));
        universe.end(fault, server, managers);
        drop(universe);
        fail_history(&stage.histories, fault, false);
    }
    if fault.kind == Kind::ManagerKilled {
        launch(stage, fault.manager).await;
    }
    if fault.kind == Kind::Hostile(Hostile::Downtime) {
        change_downtime(stage, server, ControlChange::Lift);
    }
}

/// An operator tells every vtorc.
fn change_downtime(stage: &SharedStage, server: u8, change: ControlChange) {
    let stage = stage.borrow();
    let alias = stage.universe.lock().server(server).alias.clone();
    for manager in stage.managers.iter().flatten() {
        let (control, (kept, _)) = (Control::Downtime(alias.clone()), oneshot::channel());
        let (by, comment) = ("operator".to_owned(), "new disks".to_owned());
        manager.registry.do_send(ChangeControl { control, change, by, comment, kept });
    }
}

fn ask_for_reparent(stage: &SharedStage, fault: &Fault, server: u8) {
    let stage = stage.borrow();
    let Some(Some(manager)) = stage.managers.get(usize::from(fault.manager)) else { return };
    let universe = stage.universe.lock();
    let named = fault.other.is_multiple_of(2);
    let new_primary = named.then(|| universe.server(fault.other).alias.clone());
    let planned = fault.kind == Kind::PlannedReparent;
    let kind = if planned { ReparentKind::Planned } else { ReparentKind::Emergency };
    let request = ReparentRequest {
        kind,
        new_primary,
        avoid_primary: None,
        reason: String::new(),
        by: "operator".into(),
        ignore_block: false,
        seen: vtorc_core::recovery::request::SeenPrimary::NotLooked,
    };
    // Nobody waits for the answer.
    let (reply, _) = oneshot::channel();
    let shard = universe.records_of(server).name.clone();
    drop(universe);
    manager.registry.do_send(RequestRecovery { shard, request: Request::Reparent(request), reply });
}

/// Starts a vtorc, or starts it again on its history.
pub async fn launch(stage: &SharedStage, number: u8) {
    let at = usize::from(number);
    let launch = {
        let stage = stage.borrow();
        if stage.managers.get(at).is_none_or(Option::is_some) {
            return;
        }
        let Some(history) = stage.histories.get(at).cloned() else { return };
        Launch {
            universe: stage.universe.clone(),
            number,
            history,
            recovery: settings(&stage.schedule),
            clock_skew_ms: stage.schedule.skews_ms.get(at).copied().unwrap_or(0),
        }
    };
    let manager = Manager::launch(launch).await;
    stage.borrow_mut().oracle.restarted(number);
    stage.borrow().universe.lock().vtorc_starts();
    if let Some(place) = stage.borrow_mut().managers.get_mut(at) {
        *place = Some(manager);
    }
}

fn settings(schedule: &Schedule) -> RecoverySettings {
    RecoverySettings {
        block_period: Duration::from_millis(schedule.block_ms),
        // Every keyspace's record has its own.
        default_durability: DurabilityPolicy::None,
        prevent_cross_cell_failover: false,
        wait_replicas_timeout: Duration::from_secs(5),
        lock_timeout: Duration::from_secs(5),
        reasonable_lag: Duration::from_secs(10),
        tolerable_lag: Duration::from_secs(10),
        disk_stalled_recovery: schedule.disk_stalled_recovery,
        write_outage_max: Duration::from_secs(3),
        use_super_read_only: true,
        try_replica_login: true,
        unapplied: UnappliedPolicy::Wait,
        recover_filters: "*".parse().into_iter().collect(),
        emergency_reparents: true,
        cells_no_recovery: Vec::new(),
        promotion_rules: Vec::new(),
        promotion_ignore_hosts: Vec::new(),
        drain_errant: false,
        heartbeat_period: Duration::from_millis(crate::server::HEARTBEAT_MS),
        keeps_logins: false,
        command_timeout: Duration::from_secs(3),
    }
}

/// Everything is well again, and every vtorc runs.
pub async fn heal(stage: &SharedStage) {
    let managers = {
        let mut stage = stage.borrow_mut();
        std::mem::take(&mut stage.foreigners).into_values().for_each(|tool| tool.kill());
        let mut universe = stage.universe.lock();
        universe.note(|| "HEALED".to_owned());
        universe.heal_all();
        stage.histories.iter().for_each(|history| history.fail(false));
        let healed_at = universe.now;
        drop(universe);
        stage.healed_at = healed_at;
        stage.schedule.managers
    };
    for number in 0..managers {
        launch(stage, number).await;
    }
}
