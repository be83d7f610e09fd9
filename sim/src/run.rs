//! One schedule from its beginning to its verdict.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::future::poll_fn;
use tokio::task::LocalSet;
use tokio::time::sleep;
use vtorc_core::sabotage::{self, Bug};

use crate::Millis;
use crate::clients;
use crate::faults::Kind;
use crate::oracle::Deed;
use crate::schedule::Schedule;
use crate::stage::{SharedStage, Stage};
use crate::universe::{Shared, Universe};
use crate::{judge, stage};

/// One step of simulated replication.
const TICK_MS: Millis = 5;
/// What a vtorc shows is looked at so often.
const LOOK_MS: Millis = 200;

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
    /// When servers were promoted, by shard.
    pub promotions: Vec<Vec<Millis>>,
    /// Faults injected, by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Findings that appeared, and how often.
    pub findings: BTreeMap<String, u64>,
    /// Steps of recoveries that ran, and how often.
    pub steps: BTreeMap<String, u64>,
    /// What humans could have done, how often it came about, and for how long at most it lasted.
    pub chances: BTreeMap<Deed, (u64, Millis)>,
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

/// Runs a schedule with a deliberate bug in vtorc.
pub fn run_with(bug: Bug, schedule: &Schedule, trace: Trace) -> Verdict {
    sabotage::plant(Some(bug));
    let verdict = run(schedule, trace);
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
    let mut universe = Universe::new(schedule.seed, &schedule.shards);
    universe.trace = (trace == Trace::Keep).then(Vec::new);
    universe.strikes.clone_from(&schedule.strikes);
    universe.managers = schedule.managers;
    universe.deadlines_carried = schedule.deadlines_carried;
    universe.topology.mistyped_cell = schedule.mistyped_cell.then(|| "zone9".to_owned());
    if schedule.vttablets {
        universe.give_vttablets();
    }
    for number in 0..universe.count() {
        universe.server_mut(number).heartbeats_seen = schedule.heartbeats_seen;
    }
    let universe = Shared::new(universe);
    let mut verdict = runtime.block_on(perform(schedule.clone(), universe));
    drop(runtime);
    if let Some((steps, intervals)) = sabotage::cost::take_worst() {
        let what = format!("comparing two sets of {intervals} intervals took {steps} steps");
        verdict.violations.push(what);
    }
    verdict
}

async fn perform(schedule: Schedule, universe: Shared) -> Verdict {
    let shards = schedule.shards.len();
    let stage = Rc::new(RefCell::new(Stage::new(schedule, universe.clone())));
    let tasks = LocalSet::new();
    tasks.spawn_local(tick_for_ever(universe.clone()));
    for shard in 0..shards {
        tasks.spawn_local(clients::write_for_ever(universe.clone(), shard));
    }
    let mut play = Box::pin(tasks.run_until(play(stage.clone())));
    // The vtorcs are polled beside the play, so that the play can drop them at any moment.
    poll_fn(move |context| {
        if let Poll::Ready(verdict) = play.as_mut().poll(context) {
            return Poll::Ready(verdict);
        }
        let count = stage.borrow().managers.len();
        for at in 0..count {
            // A process that stands still finds all its timers due when it goes on.
            if stage.borrow().universe.lock().is_stopped(at) {
                continue;
            }
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

/// The play: vtorcs start, faults come and go, everything heals, and order must return.
async fn play(stage: SharedStage) -> Verdict {
    let schedule = stage.borrow().schedule.clone();
    for number in 0..schedule.managers {
        stage::launch(&stage, number).await;
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
        if schedule.stops_at_violations && !stage.borrow().universe.lock().violations.is_empty() {
            break;
        }
        if begins {
            let hit = stage.borrow().universe.lock().target_of(fault);
            let server = *targets.entry(at).or_insert(hit);
            *verdict.faults.entry(fault.kind).or_default() += 1;
            stage::begin(&stage, at, fault, server);
        } else if let Some(server) = targets.get(&at) {
            stage::end(&stage, at, fault, *server).await;
        }
    }
    stage::heal(&stage).await;
    verdict.settled_after_ms = judge::settle(&stage).await;
    judge::conclude(&mut stage.borrow_mut(), verdict)
}

async fn wait_until(stage: &SharedStage, moment: Millis) {
    loop {
        let now = stage.borrow().universe.lock().now;
        let left = moment.saturating_sub(now);
        sleep(Duration::from_millis(left.min(LOOK_MS))).await;
        judge::check_silence(&mut stage.borrow_mut());
        if left <= LOOK_MS {
            break;
        }
    }
    judge::collect_findings(&mut stage.borrow_mut());
}
