//! What is asked of a run while it goes on and at its end: that vtorcs say what is true and why they do nothing, and
//! that order returns.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;
use vtorc_actors::board::ShardReport;
use vtorc_core::analysis::{Finding, FindingKind};
use vtorc_core::audit::Outcome;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::tablet::{Tablet, TabletType};

use crate::Millis;
use crate::claims::ECHO_MS;
use crate::faults::{Fault, Hostile, Kind};
use crate::ledger::Ledger;
use crate::manager::EPOCH_MS;
use crate::oracle::{Limits, Watched};
use crate::policies;
use crate::ports::{LATE_MS, SATURATED_MS};
use crate::run::Verdict;
use crate::schedule::{Schedule, ShardPlan};
use crate::stage::{SharedStage, Stage};
use crate::universe::Universe;

/// So long after the last fault everything must be in order, block period and back-off aside.
pub const SETTLES_WITHIN_MS: Millis = 75_000;
/// A primary's record that was there for so long is known.
const CLAIM_AFTER_MS: Millis = 15_000;
/// The shard comes up within this.
const FIRST_PRIMARY_MS: Millis = 3_000;
/// A recovery that runs then is waited for.
const LAST_RECOVERY_MS: Millis = 2_000;
/// In order for so long is in order.
const STAYS_MS: Millis = 2_000;

impl Stage {
    /// The shards' names, by their places.
    fn shards(&self) -> Vec<KeyspaceShard> {
        let universe = self.universe.lock();
        universe.topology.shards.iter().map(|records| records.name.clone()).collect()
    }

    fn violated(&self, what: String) {
        self.universe.lock().violated(what);
    }

    /// A vtorc works on a shard.
    fn recovers(&self) -> bool {
        let shards = self.shards();
        let managers = self.managers.iter().flatten();
        let reports =
            managers.flat_map(|one| shards.iter().filter_map(|shard| one.board.shard(shard)));
        reports.into_iter().any(|report| report.running.is_some())
    }
}

/// Waits until all is in order and stays so; none if it never does.
pub async fn settle(stage: &SharedStage) -> Option<Millis> {
    let healed_at = stage.borrow().healed_at;
    let bound = healed_at + SETTLES_WITHIN_MS + stage.borrow().schedule.block_ms;
    let mut in_order_since: Option<Millis> = None;
    loop {
        sleep(Duration::from_millis(100)).await;
        check_silence(&mut stage.borrow_mut());
        collect_findings(&mut stage.borrow_mut());
        let stage = stage.borrow();
        let now = stage.universe.lock().now;
        if !stage.universe.lock().violations.is_empty() {
            return None;
        }
        let shards = stage.shards();
        let wrong = |(at, shard)| Some((at, disorder(&stage, at, shard)?));
        let disorders: Vec<(usize, String)> = shards.iter().enumerate().filter_map(wrong).collect();
        let Some((_, why)) = disorders.first() else {
            let since = *in_order_since.get_or_insert(now);
            if now - since >= STAYS_MS {
                return Some(since - healed_at);
            }
            continue;
        };
        in_order_since = None;
        // While a recovery runs nothing says why the last one ended in vain.
        if now < bound || (stage.recovers() && now < bound + LAST_RECOVERY_MS) {
            continue;
        }
        let is_named = |at: &usize| {
            let shard = shards.get(*at);
            shard.is_some_and(|shard| names_two_histories(&stage, *at, shard))
        };
        if !disorders.iter().all(|(at, _)| is_named(at)) {
            let after = now - healed_at;
            stage.violated(format!("not in order {after} ms after the last fault: {why}"));
        }
        return None;
    }
}

/// What vtorc says where only a person can choose.
const LEFT_TO_A_PERSON: [&str; 5] = [
    "split brain: ",
    "which it wrote itself",
    "which may have been acknowledged",
    "it alone has",
    HELD_BY_NO_LOG,
];

/// What it says where one that logs nothing of what it receives may alone have what was promised.
const HELD_BY_NO_LOG: &str = "it lacks what nobody's binary logs hold any more";

/// What it says where too many are out of service: a person must bring another tablet, or ask for less.
const TOO_FEW: [&str; 1] = ["ackers that the policy demands were reached"];

/// What it says of those who wrote something in vain: they must be made anew before they can acknowledge.
const WENT_ALONE: [&str; 2] = ["disagrees with the others", "which nobody ever acknowledged"];

/// Somebody's mistake gave one server what another one may have promised: every vtorc refuses to choose, and
/// says between whom.
fn names_two_histories(stage: &Stage, at: usize, shard: &KeyspaceShard) -> bool {
    let lie = Kind::Hostile(Hostile::LyingRecord);
    let mistakes = [Kind::WrongSource, Kind::ErrantWrite, Kind::WritableReplica, lie];
    let faults = stage.schedule.everything().filter(|fault| fault.shard == at);
    // One log's lost end is survived. Those of several servers may be more than is promised, and so may one's beside
    // what another wrote in vain: whoever lost its end may have acknowledged that.
    let tails = faults.clone().filter(|fault| fault.kind == Kind::TailLost).count();
    let tails = tails.min(faults.clone().count().saturating_sub(1));
    let alone = stage.schedule.shards.get(at).is_some_and(ShardPlan::one_alone_has_former);
    // Where nothing is promised, a primary that is cut off is replaced, and may go on.
    let nothing_promised =
        stage.schedule.shards.get(at).is_some_and(|plan| policies::acks_required(plan.policy) == 0);
    let mistaken = alone
        || nothing_promised
        || faults.map(|fault| fault.kind).any(|kind| mistakes.contains(&kind));
    // A vtorc that did not see what was lost has nothing to refuse.
    let reports = stage.managers.iter().flatten().filter_map(|one| one.board.shard(shard));
    let concerned: Vec<_> = reports.filter(|report| trouble(stage, report).is_some()).collect();
    let refuses = |words: &[&str]| {
        let why = concerned.iter().map(|report| report.held_back.as_ref());
        let mut named =
            why.map(|why| why.is_some_and(|why| words.iter().any(|words| why.contains(words))));
        !concerned.is_empty() && named.all(|named| named)
    };
    let universe = stage.universe.lock();
    let out_of_service = |tablet: &Tablet| {
        let filtered = universe.server_of(&tablet.alias).is_some_and(|one| one.ills.filtered);
        tablet.tablet_type == TabletType::Drained || filtered
    };
    let depleted = universe.topology.tablets_of(shard).any(out_of_service);
    let logless = universe.members(at).any(|one| universe.server(one).ills.keeps_no_log);
    drop(universe);
    let too_few = (depleted || refuses(&WENT_ALONE)) && refuses(&TOO_FEW);
    ((mistaken || tails > 0) && refuses(&LEFT_TO_A_PERSON))
        || (logless && refuses(&[HELD_BY_NO_LOG]))
        || too_few
}

/// What is not as it should be in a shard, in truth or by what vtorcs say.
fn disorder(stage: &Stage, at: usize, shard: &KeyspaceShard) -> Option<String> {
    if let Some(why) = stage.universe.lock().disorder(at) {
        return Some(why);
    }
    for manager in stage.managers.iter().flatten() {
        let Some(report) = manager.board.shard(shard) else {
            return Some(format!("m{} does not show {shard}", manager.number));
        };
        if let Some(finding) = trouble(stage, &report) {
            let held_back = report.held_back.clone().unwrap_or_default();
            return Some(format!("m{} finds {finding} in {shard} ({held_back})", manager.number));
        }
    }
    None
}

/// The first finding that may not stay.
fn trouble(stage: &Stage, report: &ShardReport) -> Option<Finding> {
    let universe = stage.universe.lock();
    let wrong = |finding: &&Finding| !may_stay(finding.kind, report) && !universe.is_habit(finding);
    report.findings.iter().find(wrong).cloned()
}

impl Universe {
    /// Tells whether a finding tells of what was so from the beginning and stays so.
    fn is_habit(&self, finding: &Finding) -> bool {
        let server = finding.tablet.as_ref().and_then(|alias| self.server_of(alias));
        if server.is_some_and(|server| server.ills.never_up) {
            return true;
        }
        let delayed = || self.servers().iter().any(|server| server.ills.delay_seconds > 0);
        let never_up = || self.servers().iter().any(|server| server.ills.never_up);
        let filtered = server.is_some_and(|server| server.ills.filtered);
        let keeps_no_log = server.is_some_and(|server| server.ills.keeps_no_log);
        (finding.kind == FindingKind::UnreadTopology && self.topology.mistyped_cell.is_some())
            || (finding.kind == FindingKind::ReplicationFilters && filtered)
            || (finding.kind == FindingKind::NoLogReplicaUpdates && keeps_no_log)
            || (finding.kind == FindingKind::PrimarySingleReplicaDead && never_up())
            || (finding.kind == FindingKind::DelayedReplicasOnly && delayed())
    }
}

/// Tells whether only a person can put it right.
fn may_stay(kind: FindingKind, report: &ShardReport) -> bool {
    let mut tablets = report.snapshot.tablets.values();
    let drained = tablets.any(|state| {
        let filtered = state.status.as_ref().is_some_and(|status| status.is_filtered());
        state.tablet.tablet_type == TabletType::Drained || filtered
    });
    let short = matches!(
        kind,
        FindingKind::NotEnoughSemiSyncReplicas
            | FindingKind::LockedSemiSyncPrimaryHypothesis
            | FindingKind::LockedSemiSyncPrimary
    );
    let still = matches!(
        kind,
        FindingKind::PrimarySingleReplicaNotReplicating
            | FindingKind::AllPrimaryReplicasNotReplicating
    );
    let mut findings = report.findings.iter();
    let to_be_cloned = findings.any(|one| one.kind == FindingKind::PurgedGtids);
    // With a tablet out of service a person must bring another one.
    kind.may_stay() || (drained && short) || (to_be_cloned && still)
}

/// Counts what vtorcs found, and asks whether it is true.
pub fn collect_findings(stage: &mut Stage) {
    check_claims(stage);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for manager in stage.managers.iter().flatten() {
        for ((finding, _), count) in manager.board.counters.detected_counts() {
            *seen.entry(finding.to_string()).or_default() += count;
        }
    }
    for (finding, count) in seen {
        let known = stage.findings.entry(finding).or_default();
        *known = (*known).max(count);
    }
}

/// A vtorc that wants a reparent and does nothing says why.
pub fn check_silence(stage: &mut Stage) {
    let now = stage.universe.lock().now;
    let mut silent = Vec::new();
    for (at, shard) in stage.shards().iter().enumerate() {
        for number in 0..stage.managers.len() {
            let manager = stage.managers.get(number).and_then(Option::as_ref);
            let paused = stage.universe.lock().is_paused(number);
            let manager = manager.filter(|_| !paused);
            let report = manager.and_then(|manager| manager.board.shard(shard));
            let silence = stage.silences.entry((number, at)).or_default();
            if let Some(lasted) = silence.look(now, report.as_deref()) {
                let findings = report.iter().flat_map(|report| &report.findings);
                let found = findings.map(|one| one.kind.to_string()).collect::<Vec<_>>().join(", ");
                silent.push(format!(
                    "m{number} does nothing about {shard} and does not say why for {lasted} ms: {found}"
                ));
            }
        }
    }
    silent.into_iter().for_each(|what| stage.violated(what));
    check_chances(stage);
}

/// No vtorc misses for long what a human with its view could have done.
fn check_chances(stage: &mut Stage) {
    let mut missed = Vec::new();
    let universe = stage.universe.lock();
    for number in 0..stage.schedule.managers {
        let runs = stage.managers.get(usize::from(number)).is_some_and(Option::is_some);
        let watched = Watched { manager: number, runs };
        missed.extend(stage.oracle.look(&universe, &stage.schedule, watched));
    }
    let now = universe.now;
    let names: Vec<_> = universe.topology.shards.iter().map(|one| one.name.clone()).collect();
    drop(universe);
    for chance in missed {
        let name = names.get(chance.shard);
        let pause = name.map_or(0, |name| pause_between_attempts(stage, name, chance.since));
        let allowed = chance.allowed + pause;
        if now - chance.since > allowed && stage.oracle.tell(&chance) {
            stage.violated(chance.what);
        }
    }
}

/// Attempts that failed before the chance was there are followed by a pause, which doubles each time: the last one is
/// about as long as all before it.
fn pause_between_attempts(stage: &Stage, shard: &KeyspaceShard, since: Millis) -> Millis {
    let failures =
        stage.histories.iter().zip(&stage.schedule.skews_ms).flat_map(|(history, skew)| {
            let epoch = EPOCH_MS.saturating_add_signed(*skew);
            let failed = history.attempts_at(shard).into_iter().filter(|one| match one.outcome {
                None | Some(Outcome::Failed(_) | Outcome::Unclear(_) | Outcome::Refused(_)) => true,
                Some(
                    Outcome::Succeeded(_)
                    | Outcome::AlreadyFixed
                    | Outcome::Undone(_)
                    | Outcome::Preempted
                    | Outcome::Interrupted,
                ) => false,
            });
            failed.map(move |one| one.started_at.as_millis().saturating_sub(epoch))
        });
    let recent = |began: &Millis| *began < since && since - *began < 2 * Limits::RETRY_MS;
    let first = failures.filter(recent).min();
    first.map_or(0, |first| (since - first + Limits::PLAIN_MS / 2).min(Limits::RETRY_MS))
}

/// No vtorc that can read the topology says that a primary's record is gone while it is there.
fn check_claims(stage: &Stage) {
    let blinding = [
        Kind::TopologyCut,
        Kind::SlowTopology,
        Kind::OneWayCut,
        Kind::TopologyDown,
        Kind::LateWatches,
        Kind::DeletedRecord,
        Kind::Hostile(Hostile::CellTopologyDown),
        Kind::Hostile(Hostile::DamagedRecord),
        Kind::Hostile(Hostile::DamagedShardRecord),
        Kind::Hostile(Hostile::ManagerPaused),
    ];
    if stage.schedule.everything().any(|fault| blinding.contains(&fault.kind)) {
        return;
    }
    for (at, shard) in stage.shards().iter().enumerate() {
        let settled = {
            let universe = stage.universe.lock();
            let Some(books) = universe.books.get(at) else { continue };
            let last = books.promotions.last().map_or(0, |promotion| promotion.at);
            universe.now.saturating_sub(books.without_primary_at.max(last)) >= CLAIM_AFTER_MS
        };
        for manager in stage.managers.iter().flatten().filter(|_| settled) {
            let report = manager.board.shard(shard);
            let gone = FindingKind::PrimaryTabletDeleted;
            let claims = report
                .is_some_and(|report| report.findings.iter().any(|finding| finding.kind == gone));
            if claims {
                let number = manager.number;
                stage.violated(format!(
                    "m{number} says that the record of the primary of {shard} is gone, and it is not"
                ));
            }
        }
    }
}

/// A vtorc that lost most of everything doubts itself within this.
const DOUBTS_WITHIN_MS: Millis = 4_000;
/// With fewer shards than this it cannot tell.
const SHARDS_TO_DOUBT: usize = 3;

/// When a vtorc must have doubted itself: it was cut off from nearly everything that it had seen before.
fn alone_times(schedule: &Schedule, number: usize) -> Vec<(Millis, Millis)> {
    let of_mine = |fault: &&Fault| usize::from(fault.manager) == number;
    let mine = || schedule.faults.iter().filter(of_mine);
    let stops = [Kind::ManagerKilled, Kind::Hostile(Hostile::ManagerPaused)];
    // A strike hits whoever takes the step that it waits for.
    let restarted = mine().any(|fault| stops.contains(&fault.kind))
        || schedule.strikes.iter().any(|(_, fault)| stops.contains(&fault.kind));
    if restarted || schedule.shards.len() < SHARDS_TO_DOUBT {
        return Vec::new();
    }
    let alone = mine().filter(|fault| fault.kind == Kind::ManagerAlone);
    alone.map(|fault| (fault.at + DOUBTS_WITHIN_MS, fault.at + fault.lasts)).collect()
}

/// The last questions, and the verdict.
pub fn conclude(stage: &mut Stage, mut verdict: Verdict) -> Verdict {
    let mut universe = stage.universe.lock();
    let faults = stage.schedule.faults.iter();
    // A busy server does late what it was asked while it was busy.
    let late = Kind::Hostile(Hostile::LateCommands);
    let echo = |kind: Kind| {
        let of_its_own = [(Kind::Saturated, SATURATED_MS), (late, LATE_MS)];
        let known = of_its_own.iter().find(|(other, _)| *other == kind);
        known.map_or(ECHO_MS, |(_, ms)| *ms)
    };
    let lasts = |one: &Fault| if one.kind.is_a_moment() { 0 } else { one.lasts + echo(one.kind) };
    let mut troubled: Vec<_> = faults.map(|one| (one.at, one.at + lasts(one))).collect();
    troubled.extend(universe.struck_times());
    troubled.push((0, FIRST_PRIMARY_MS));
    troubled.push((stage.healed_at, stage.healed_at + ECHO_MS));
    let names: Vec<_> = universe.topology.shards.iter().map(|one| one.name.clone()).collect();
    for (number, history) in stage.histories.iter().enumerate() {
        let skew = stage.schedule.skews_ms.get(number).copied().unwrap_or(0);
        let epoch = EPOCH_MS.saturating_add_signed(skew);
        for (at, name) in names.iter().enumerate() {
            let records = history.of_shard(name);
            let block = history.block_of(name);
            universe.check_block_period(number, &records, block.as_ref(), stage.schedule.block_ms);
            universe.check_repaired_once(at, number, &records, epoch, &troubled);
            universe.check_alone(number, &records, epoch, &alone_times(&stage.schedule, number));
            for record in &records {
                let ended = record.outcome.as_ref().map_or("unfinished", |outcome| outcome.name());
                *verdict.outcomes.entry(format!("{} {ended}", record.kind)).or_default() += 1;
                for step in &record.steps {
                    *verdict.steps.entry(step.kind.name().to_owned()).or_default() += 1;
                }
            }
        }
    }
    let settled = verdict.settled_after_ms.is_some();
    verdict.left_to_a_person = !settled && universe.violations.is_empty();
    if verdict.left_to_a_person {
        universe.check_nothing_is_gone();
    } else {
        universe.check_survival();
    }
    verdict.findings.clone_from(&stage.findings);
    verdict.chances.clone_from(&stage.oracle.seen);
    verdict.violations = std::mem::take(&mut universe.violations);
    verdict.trace = universe.trace.take().unwrap_or_default();
    verdict.digest = universe.digest;
    let promoted = |books: &Ledger| books.promotions.iter().map(|promotion| promotion.at).collect();
    verdict.promotions = universe.books.iter().map(promoted).collect();
    verdict.acknowledged = universe.books.iter().map(|books| books.acknowledged).sum();
    verdict
}
