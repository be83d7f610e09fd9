//! One schedule from its beginning to its verdict.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::poll_fn;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::sleep;
use vtorc_actors::messages::{ReparentKind, ReparentRequest, Request, RequestRecovery};
use vtorc_core::analysis::FindingKind;
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::settings::{RecoverySettings, UnappliedPolicy};
use vtorc_core::topology::TabletType;

use crate::Millis;
use crate::claims::{ECHO_MS, Silence};
use crate::clients;
use crate::faults::{Fault, Kind};
use crate::history::MemoryHistory;
use crate::manager::{EPOCH_MS, Launch, Manager};
use crate::schedule::Schedule;
use crate::universe::{Shared, Universe};

/// One step of simulated replication.
const TICK_MS: Millis = 5;
/// So long after the last fault everything must be in order, block period and back-off aside.
pub const SETTLES_WITHIN_MS: Millis = 75_000;
/// A primary's record that was there for so long is known.
const CLAIM_AFTER_MS: Millis = 15_000;
/// What a vtorc shows is looked at so often.
const LOOK_MS: Millis = 200;
/// The shard comes up within this.
const FIRST_PRIMARY_MS: Millis = 3_000;
/// In order for so long is in order.
const STAYS_MS: Millis = 2_000;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// What happened, in words; empty unless asked for.
    pub trace: Vec<String>,
    /// Stands for all that happened.
    pub digest: u64,
    /// Virtual time from the last fault until all was in order.
    pub settled_after_ms: Option<Millis>,
    /// It ended with two histories that an operator's mistake made, which vtorc names and leaves to a person.
    pub left_to_a_person: bool,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Faults injected, by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Findings that appeared, and how often.
    pub findings: BTreeMap<String, u64>,
    /// Steps of recoveries that ran, and how often.
    pub steps: BTreeMap<String, u64>,
    /// How recoveries ended.
    pub outcomes: BTreeMap<String, u64>,
}

/// Whether to keep the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Keep every line.
    Keep,
    /// Only the digest.
    Drop,
}

/// What the run's own tasks and its vtorcs share.
struct Stage {
    universe: Shared,
    schedule: Schedule,
    managers: Vec<Option<Manager>>,
    histories: Vec<Arc<MemoryHistory>>,
    silences: Vec<Silence>,
    healed_at: Millis,
    findings: BTreeMap<String, u64>,
}

/// Runs a schedule with a deliberate bug in vtorc.
pub fn run_with(bug: Bug, schedule: &Schedule) -> Verdict {
    sabotage::plant(Some(bug));
    let verdict = run(schedule, Trace::Drop);
    sabotage::plant(None);
    verdict
}

/// Runs a schedule.
pub fn run(schedule: &Schedule, trace: Trace) -> Verdict {
    let builder =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match builder {
        Ok(runtime) => runtime,
        Err(error) => {
            let violations = vec![format!("no runtime: {error}")];
            return Verdict { violations, ..Verdict::default() };
        }
    };
    let mut universe = Universe::new(schedule.seed, schedule.policy, &schedule.tablets);
    universe.trace = (trace == Trace::Keep).then(Vec::new);
    universe.strikes.clone_from(&schedule.strikes);
    universe.managers = schedule.managers;
    if schedule.vttablets {
        universe.give_vttablets();
    }
    for number in 0..universe.count() {
        universe.server_mut(number).heartbeats_seen = schedule.heartbeats_seen;
    }
    let universe = Shared::new(universe);
    let verdict = runtime.block_on(perform(schedule.clone(), universe));
    drop(runtime);
    verdict
}

async fn perform(schedule: Schedule, universe: Shared) -> Verdict {
    let histories = (0..schedule.managers).map(|_| Arc::default()).collect();
    let managers = (0..schedule.managers).map(|_| None).collect();
    let silences = (0..schedule.managers).map(|_| Silence::default()).collect();
    let stage = Stage {
        universe: universe.clone(),
        schedule,
        managers,
        histories,
        silences,
        healed_at: 0,
        findings: BTreeMap::new(),
    };
    let stage = std::rc::Rc::new(std::cell::RefCell::new(stage));
    let tasks = LocalSet::new();
    tasks.spawn_local(tick_for_ever(universe.clone()));
    tasks.spawn_local(clients::write_for_ever(universe.clone()));
    let mut play = Box::pin(tasks.run_until(play(stage.clone())));
    // The vtorcs are polled beside the play, so that the play can drop them at any moment.
    poll_fn(move |context| {
        if let Poll::Ready(verdict) = play.as_mut().poll(context) {
            return Poll::Ready(verdict);
        }
        let count = stage.borrow().managers.len();
        for at in 0..count {
            let taken = stage.borrow_mut().managers.get_mut(at).and_then(Option::take);
            let Some(mut manager) = taken else { continue };
            // Its tasks never end by themselves.
            let _ = Pin::new(&mut manager.tasks).poll(context);
            if let Some(place) = stage.borrow_mut().managers.get_mut(at) {
                *place = Some(manager);
            }
        }
        Poll::Pending
    })
    .await
}

async fn tick_for_ever(universe: Shared) {
    let started = tokio::time::Instant::now();
    loop {
        sleep(Duration::from_millis(TICK_MS)).await;
        let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        universe.lock().tick(now);
    }
}

type SharedStage = std::rc::Rc<std::cell::RefCell<Stage>>;

/// The play: vtorcs start, faults come and go, everything heals, and order must return.
async fn play(stage: SharedStage) -> Verdict {
    let schedule = stage.borrow().schedule.clone();
    for number in 0..schedule.managers {
        launch(&stage, number).await;
    }
    let mut verdict = Verdict::default();
    let mut moments: Vec<(Millis, bool, usize)> = Vec::new();
    for (at, fault) in schedule.faults.iter().enumerate() {
        moments.push((fault.at, true, at));
        moments.push((fault.at + fault.lasts, false, at));
    }
    moments.sort();
    let mut targets: BTreeMap<usize, u8> = BTreeMap::new();
    for (moment, begins, at) in moments {
        let Some(fault) = schedule.faults.get(at) else { continue };
        wait_until(&stage, moment).await;
        if begins {
            let primary = stage.borrow().universe.lock().primary_now();
            let server = *targets.entry(at).or_insert(fault.server.unwrap_or(primary));
            *verdict.faults.entry(fault.kind).or_default() += 1;
            begin(&stage, fault, server).await;
        } else if let Some(server) = targets.get(&at) {
            end(&stage, fault, *server).await;
        }
    }
    heal(&stage).await;
    let healed_at = stage.borrow().universe.lock().now;
    stage.borrow_mut().healed_at = healed_at;
    verdict.settled_after_ms = settle(&stage).await;
    conclude(&stage, verdict)
}

async fn wait_until(stage: &SharedStage, moment: Millis) {
    loop {
        let now = stage.borrow().universe.lock().now;
        let left = moment.saturating_sub(now);
        sleep(Duration::from_millis(left.min(LOOK_MS))).await;
        check_silence(&mut stage.borrow_mut());
        if left <= LOOK_MS {
            break;
        }
    }
    collect_findings(stage);
}

async fn begin(stage: &SharedStage, fault: &Fault, server: u8) {
    let managers = stage.borrow().schedule.managers;
    {
        let stage = stage.borrow();
        let mut universe = stage.universe.lock();
        universe.note(|| format!("FAULT {:?} on s{server} m{}", fault.kind, fault.manager));
        universe.begin(fault, server, managers);
    }
    if fault.kind == Kind::ManagerKilled {
        let mut stage = stage.borrow_mut();
        let place = stage.managers.get_mut(usize::from(fault.manager));
        if let Some(killed) = place.and_then(Option::take) {
            killed.kill();
        }
    }
    if fault.kind == Kind::PlannedReparent {
        ask_for_reparent(stage, fault);
    }
}

async fn end(stage: &SharedStage, fault: &Fault, server: u8) {
    let managers = stage.borrow().schedule.managers;
    {
        let stage = stage.borrow();
        let mut universe = stage.universe.lock();
        universe.note(|| format!("MENDED {:?} on s{server} m{}", fault.kind, fault.manager));
        universe.end(fault, server, managers);
    }
    if fault.kind == Kind::ManagerKilled {
        launch(stage, fault.manager).await;
    }
}

fn ask_for_reparent(stage: &SharedStage, fault: &Fault) {
    let stage = stage.borrow();
    let Some(Some(manager)) = stage.managers.get(usize::from(fault.manager)) else { return };
    let universe = stage.universe.lock();
    let named = fault.other.is_multiple_of(2);
    let new_primary = named.then(|| universe.server(fault.other).alias.clone());
    let request = ReparentRequest {
        kind: ReparentKind::Planned,
        new_primary,
        avoid_primary: None,
        reason: String::new(),
        by: "operator".into(),
        ignore_block: false,
    };
    // Nobody waits for the answer.
    let (reply, _) = oneshot::channel();
    let shard = universe.topology.shard.clone();
    drop(universe);
    manager.registry.do_send(RequestRecovery { shard, request: Request::Reparent(request), reply });
}

/// Starts a vtorc, or starts it again on its history.
async fn launch(stage: &SharedStage, number: u8) {
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
    if let Some(place) = stage.borrow_mut().managers.get_mut(at) {
        *place = Some(manager);
    }
}

fn settings(schedule: &Schedule) -> RecoverySettings {
    RecoverySettings {
        block_period: Duration::from_millis(schedule.block_ms),
        default_durability: schedule.policy,
        prevent_cross_cell_failover: false,
        wait_replicas_timeout: Duration::from_secs(5),
        lock_timeout: Duration::from_secs(5),
        reasonable_lag: Duration::from_secs(10),
        tolerable_lag: Duration::from_secs(10),
        disk_stalled_recovery: false,
        write_outage_max: Duration::from_secs(3),
        use_super_read_only: true,
        unapplied: UnappliedPolicy::Wait,
        recover_filters: vec!["*".into()],
        promotion_rules: Vec::new(),
        promotion_ignore_hosts: Vec::new(),
        drain_errant: false,
        heartbeat_period: Duration::from_millis(crate::server::HEARTBEAT_MS),
        command_timeout: Duration::from_secs(3),
    }
}

/// Everything is well again, and every vtorc runs.
async fn heal(stage: &SharedStage) {
    let managers = {
        let stage = stage.borrow();
        let mut universe = stage.universe.lock();
        universe.note(|| "HEALED".to_owned());
        universe.heal_all();
        stage.schedule.managers
    };
    for number in 0..managers {
        launch(stage, number).await;
    }
}

/// Waits until all is in order and stays so; none if it never does.
async fn settle(stage: &SharedStage) -> Option<Millis> {
    let healed_at = stage.borrow().healed_at;
    let bound = healed_at + SETTLES_WITHIN_MS + stage.borrow().schedule.block_ms;
    let mut in_order_since: Option<Millis> = None;
    loop {
        sleep(Duration::from_millis(100)).await;
        check_silence(&mut stage.borrow_mut());
        collect_findings(stage);
        let (now, disorder) = {
            let stage = stage.borrow();
            let now = stage.universe.lock().now;
            (now, disorder(&stage))
        };
        let stage = stage.borrow();
        if !stage.universe.lock().ledger.violations.is_empty() {
            return None;
        }
        match disorder {
            None => {
                let since = *in_order_since.get_or_insert(now);
                if now - since >= STAYS_MS {
                    return Some(since - healed_at);
                }
            }
            Some(why) => {
                in_order_since = None;
                if now >= bound && names_two_histories(&stage) {
                    return None;
                }
                if now >= bound {
                    let what =
                        format!("not in order {} ms after the last fault: {why}", now - healed_at);
                    stage.universe.lock().ledger.violated(now, what);
                    return None;
                }
            }
        }
    }
}

/// Somebody's mistake gave one server what another one may have promised: every vtorc refuses to choose, and
/// says between whom.
fn names_two_histories(stage: &Stage) -> bool {
    let mistakes = [Kind::WrongSource, Kind::ErrantWrite, Kind::WritableReplica];
    let strikes = stage.schedule.strikes.iter().map(|(_, fault)| fault);
    let mut faults = stage.schedule.faults.iter().chain(strikes);
    let shard = stage.universe.lock().topology.shard.clone();
    let refuses = |manager: &Manager| {
        let report = manager.board.shard(&shard);
        let why = report.and_then(|report| report.held_back.clone());
        why.is_some_and(|why| why.starts_with("split brain: "))
    };
    faults.any(|fault| mistakes.contains(&fault.kind))
        && stage.managers.iter().flatten().all(refuses)
}

/// What is not as it should be.
fn disorder(stage: &Stage) -> Option<String> {
    if let Some(why) = stage.universe.lock().disorder() {
        return Some(why);
    }
    let shard = stage.universe.lock().topology.shard.clone();
    for manager in stage.managers.iter().flatten() {
        let Some(report) = manager.board.shard(&shard) else {
            return Some(format!("m{} shows no shard", manager.number));
        };
        let drained = report
            .snapshot
            .tablets
            .values()
            .any(|state| state.tablet.tablet_type == TabletType::Drained);
        let may_stay = |kind: FindingKind| {
            // With a tablet out of service a person must bring another one.
            let short = matches!(
                kind,
                FindingKind::NotEnoughSemiSyncReplicas
                    | FindingKind::LockedSemiSyncPrimaryHypothesis
                    | FindingKind::LockedSemiSyncPrimary
            );
            kind.may_stay() || (drained && short)
        };
        let finding = report.findings.iter().find(|finding| !may_stay(finding.kind));
        if let Some(finding) = finding {
            let held_back = report.held_back.clone().unwrap_or_default();
            return Some(format!("m{} finds {finding} ({held_back})", manager.number));
        }
    }
    None
}

fn collect_findings(stage: &SharedStage) {
    check_claims(&stage.borrow());
    let mut stage = stage.borrow_mut();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for manager in stage.managers.iter().flatten() {
        for ((finding, _), count) in manager.board.detected_counts() {
            *seen.entry(finding).or_default() += count;
        }
    }
    for (finding, count) in seen {
        let known = stage.findings.entry(finding).or_default();
        *known = (*known).max(count);
    }
}

/// A vtorc that wants a reparent and does nothing says why.
fn check_silence(stage: &mut Stage) {
    let mut universe = stage.universe.lock();
    let (now, shard) = (universe.now, universe.topology.shard.clone());
    for (at, silence) in stage.silences.iter_mut().enumerate() {
        let manager = stage.managers.get(at).and_then(Option::as_ref);
        let report = manager.and_then(|manager| manager.board.shard(&shard));
        if let Some(lasted) = silence.look(now, report.as_deref()) {
            let findings = report.iter().flat_map(|report| &report.findings);
            let found = findings.map(|one| one.kind.to_string()).collect::<Vec<_>>().join(", ");
            let what = format!("m{at} does nothing and does not say why for {lasted} ms: {found}");
            universe.ledger.violated(now, what);
        }
    }
}

/// No vtorc that can read the topology says that a primary's record is gone while it is there.
fn check_claims(stage: &Stage) {
    let blinding = [Kind::TopologyCut, Kind::TopologyDown, Kind::LateWatches, Kind::DeletedRecord];
    let strikes = stage.schedule.strikes.iter().map(|(_, fault)| fault);
    if stage.schedule.faults.iter().chain(strikes).any(|fault| blinding.contains(&fault.kind)) {
        return;
    }
    let mut universe = stage.universe.lock();
    let last = universe.ledger.promotions.last().map_or(0, |promotion| promotion.at);
    if universe.now.saturating_sub(universe.without_primary_at.max(last)) < CLAIM_AFTER_MS {
        return;
    }
    let shard = universe.topology.shard.clone();
    for manager in stage.managers.iter().flatten() {
        let report = manager.board.shard(&shard);
        let claims = report.is_some_and(|report| {
            report.findings.iter().any(|finding| finding.kind == FindingKind::PrimaryTabletDeleted)
        });
        if claims {
            let (now, number) = (universe.now, manager.number);
            let what = format!("m{number} says that the primary's record is gone, and it is not");
            universe.ledger.violated(now, what);
        }
    }
}

fn conclude(stage: &SharedStage, mut verdict: Verdict) -> Verdict {
    let stage = stage.borrow();
    let mut universe = stage.universe.lock();
    let faults = stage.schedule.faults.iter();
    let lasts = |one: &Fault| if one.kind.is_a_moment() { 0 } else { one.lasts + ECHO_MS };
    let mut troubled: Vec<_> = faults.map(|one| (one.at, one.at + lasts(one))).collect();
    troubled.push((0, FIRST_PRIMARY_MS));
    troubled.push((stage.healed_at, stage.healed_at + ECHO_MS));
    for (number, history) in stage.histories.iter().enumerate() {
        let records = history.all();
        let block = history.only_block();
        universe.check_block_period(number, &records, block.as_ref(), stage.schedule.block_ms);
        let skew = stage.schedule.skews_ms.get(number).copied().unwrap_or(0);
        let epoch = EPOCH_MS.saturating_add_signed(skew);
        // When a strike was at work is not known here.
        if stage.schedule.strikes.is_empty() {
            universe.check_repaired_once(number, &records, epoch, &troubled);
        }
        for record in &records {
            let ended = record.outcome.as_ref().map_or("unfinished", |outcome| outcome.name());
            *verdict.outcomes.entry(format!("{} {ended}", record.kind)).or_default() += 1;
            for step in &record.steps {
                *verdict.steps.entry(step.name.clone()).or_default() += 1;
            }
        }
    }
    let settled = verdict.settled_after_ms.is_some();
    verdict.left_to_a_person = !settled && universe.ledger.violations.is_empty();
    if verdict.left_to_a_person {
        universe.check_nothing_is_gone();
    } else {
        universe.check_survival();
    }
    verdict.findings.clone_from(&stage.findings);
    verdict.violations = std::mem::take(&mut universe.ledger.violations);
    verdict.trace = universe.trace.take().unwrap_or_default();
    verdict.digest = universe.digest;
    verdict.acknowledged = universe.ledger.acknowledged;
    verdict
}
