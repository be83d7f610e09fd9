//! What is remembered of a shard's attempts: what came of each decides when the next may start.

use std::collections::BTreeMap;
use std::time::Duration;

use super::inaction::{HeldBack, Inaction};
use super::{Admission, AttemptMemory, BACKOFF_MAX, Block, Proposal, Refusal, Switches, admit};
use crate::analysis::{Finding, FindingKind};
use crate::audit::Outcome;
use crate::ids::{RecoveryId, TabletAlias};
use crate::knowledge::snapshot::ShardSnapshot;
use crate::recovery::kind::RecoveryKind;
use crate::remedy::{Remedy, Wanted};
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;
use crate::time::Timestamp;

/// A receiver is restarted at most so often: it is done to see something, not to cure it.
const RECEIVER_RESTART_PAUSE: Duration = Duration::from_secs(60);
/// An applier that stopped on an error is started again so often, ...
const APPLIER_STARTS: u32 = 5;
/// ... and then at most so often: a person must see to it, and starts it afterwards.
const APPLIER_PAUSE: Duration = Duration::from_secs(600);
/// Where some receivers cannot connect any more, the others are asked sooner: the primary may be dead.
const BROKEN_RESTART_PAUSE: Duration = Duration::from_secs(2);

/// A history that cannot be read must not leave the shard without recoveries: after this long it is taken for one in
/// which nothing blocks the shard.
const HISTORY_GIVEN_UP: Duration = Duration::from_secs(10);

/// What is remembered where the history could not be read since then; none as long as it is waited for.
pub fn without_history(unread_since: Timestamp, now: Timestamp) -> Option<Attempts> {
    let given_up = unread_since.age(now) >= HISTORY_GIVEN_UP && !sabotage::has(Bug::NeedHistory);
    given_up.then(Attempts::default)
}

/// The attempts of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Of recoveries of the shard as a whole, with the block.
    pub shard: AttemptMemory,
    receivers: BTreeMap<FindingKind, AttemptMemory>,
    repairs: BTreeMap<Repair, AttemptMemory>,
}

/// Which tablet, and whether an applier that stopped on an error is started: that one waits for a person holds no other
/// repair up.
type Repair = (TabletAlias, bool);

fn repair(finding: &Finding) -> Option<Repair> {
    Some((finding.tablet.clone()?, finding.kind == FindingKind::ReplicaCannotApply))
}

/// What may start now, and why the rest may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// What may start.
    pub approved: Option<Approved>,
    /// What may not, and why.
    pub held: Vec<HeldBack>,
}

/// What may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approved {
    /// A recovery of the shard as a whole, for a finding.
    Shard(RecoveryKind, Finding),
    /// Repairs of replicas, side by side.
    Replicas(Vec<Finding>),
}

impl Attempts {
    /// Nothing was tried yet; the shard may be blocked by a reparent of an earlier process.
    pub fn with_block(block: Option<Block>) -> Self {
        Self { shard: AttemptMemory { block, ..AttemptMemory::default() }, ..Self::default() }
    }

    /// More or fewer tablets can be reached, or the records changed: what was refused may go now, and what was tried
    /// for one failure says little about the next one.
    pub fn circumstances_changed(&mut self, now: Timestamp) {
        self.shard.fresh_start();
        let soon = now + BROKEN_RESTART_PAUSE;
        self.receivers.values_mut().for_each(|memory| memory.pause_at_most_until(soon));
    }

    /// Which part of what is wanted may start now, and why the rest may not.
    ///
    /// `before` is what was held back in the round before: what went wrong last stays the reason while it waits to be
    /// tried again.
    pub fn decide(
        &self,
        wanted: Wanted,
        snapshot: &ShardSnapshot,
        settings: &RecoverySettings,
        switches: Switches<'_>,
        before: &[HeldBack],
    ) -> Round {
        let none = AttemptMemory::default();
        match wanted {
            Wanted::Nothing => Round::default(),
            Wanted::Shard(remedy, finding) => {
                let restarts = remedy == Remedy::RestartReceiver;
                let restarted = self.receivers.get(&finding.kind).unwrap_or(&none);
                let memory = if restarts { restarted } else { &self.shard };
                match admit(memory, Proposal::new(remedy, &finding), snapshot, settings, switches) {
                    Admission::Admitted => {
                        let approved = remedy.recovery().map(|kind| Approved::Shard(kind, finding));
                        Round { approved, held: Vec::new() }
                    }
                    Admission::Refused(refusal) => {
                        Round { approved: None, held: vec![held(&finding, &refusal, before)] }
                    }
                }
            }
            Wanted::Replicas(findings) => {
                let mut round = Round::default();
                let mut due = Vec::new();
                for finding in findings {
                    let Some(repair) = repair(&finding) else { continue };
                    let memory = self.repairs.get(&repair).unwrap_or(&none);
                    let proposal = Proposal::new(Remedy::FixReplica, &finding);
                    match admit(memory, proposal, snapshot, settings, switches) {
                        Admission::Admitted => due.push(finding),
                        Admission::Refused(refusal) => {
                            round.held.push(held(&finding, &refusal, before));
                        }
                    }
                }
                round.approved = (!due.is_empty()).then_some(Approved::Replicas(due));
                round
            }
        }
    }

    /// What the outcome of an automatic recovery means for the next attempt. Answers whether the block changed.
    pub fn learn(
        &mut self,
        id: RecoveryId,
        kind: RecoveryKind,
        findings: &[Finding],
        outcome: &Outcome,
        settings: &RecoverySettings,
        now: Timestamp,
    ) -> bool {
        if kind == RecoveryKind::RestartReceiver {
            for finding in findings.iter().map(|finding| finding.kind) {
                let broken = finding == FindingKind::UnreachablePrimaryWithBrokenReplicas;
                // What was not done showed nothing.
                let not_done = matches!(outcome, Outcome::AlreadyFixed | Outcome::Refused(_));
                let soon = broken || not_done;
                let pause = if soon { BROKEN_RESTART_PAUSE } else { RECEIVER_RESTART_PAUSE };
                self.receivers.entry(finding).or_default().pause_until(now + pause);
            }
            return false;
        }
        if kind == RecoveryKind::FixReplica {
            for repair in findings.iter().filter_map(repair) {
                // Also where the commands went well: if it does not hold, do not try for ever.
                if sabotage::has(Bug::RepairOldNews) {
                    continue;
                }
                let (_, of_applier) = repair;
                let memory = self.repairs.entry(repair).or_default();
                if memory.not_before.is_some_and(|last| last.age(now) > BACKOFF_MAX * 10) {
                    memory.fresh_start();
                }
                memory.attempt_failed(now);
                if of_applier && memory.failures >= APPLIER_STARTS {
                    memory.pause_until(now + APPLIER_PAUSE);
                }
            }
            return false;
        }
        match outcome {
            Outcome::Succeeded(_) | Outcome::Unclear(_) if kind.replaces_a_primary() => {
                let unclear = matches!(outcome, Outcome::Unclear(_));
                let old = findings.first().and_then(|finding| finding.tablet.clone());
                self.shard.start_block(id, settings, now, old.filter(|_| unclear));
                // What was left half-done is tried again, but not in a storm.
                if unclear {
                    self.shard.attempt_failed(now);
                } else {
                    self.shard.fresh_start();
                }
                return true;
            }
            Outcome::Succeeded(_) => self.shard.fresh_start(),
            Outcome::AlreadyFixed => self.shard.has_vanished(now),
            Outcome::Failed(_) if sabotage::has(Bug::BlockOnLostLock) => {
                self.shard.start_block(id, settings, now, None);
                return true;
            }
            Outcome::Refused(_)
            | Outcome::Failed(_)
            | Outcome::Undone(_)
            | Outcome::Unclear(_)
            | Outcome::Preempted
            | Outcome::Interrupted => self.shard.attempt_failed(now),
        }
        false
    }
}

/// Why a finding is held back.
fn held(finding: &Finding, refusal: &Refusal, before: &[HeldBack]) -> HeldBack {
    let fresh = HeldBack::new(Inaction::from(refusal), finding, refusal.to_string());
    let same = |held: &&HeldBack| held.finding == finding.kind && held.tablet == finding.tablet;
    match refusal {
        Refusal::BackingOff { .. } => before.iter().find(same).cloned().unwrap_or(fresh),
        Refusal::Disabled
        | Refusal::SwitchedOff(_)
        | Refusal::EmergencyReparentsSwitchedOff(_)
        | Refusal::InDowntime(_)
        | Refusal::EmergencyReparentDisabled
        | Refusal::EmergencyReparentsForbidden
        | Refusal::Filtered
        | Refusal::CellLeftAlone(_)
        | Refusal::InBlockPeriod(_)
        | Refusal::KeepsVanishing { .. }
        | Refusal::ManagerIsolated(_)
        | Refusal::WaitsForDisk
        | Refusal::WatchOnly => fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    #[test]
    fn an_applier_that_stops_each_time_is_not_started_for_ever() {
        let finding =
            |kind| Finding { kind, tablet: "zone1-1".parse().ok(), why: "", evidence: Vec::new() };
        let (settings, failed) = (testkit::settings(), Outcome::Failed("Duplicate entry".into()));
        let tries_within_an_hour = |kind| {
            let (mut attempts, mut now) = (Attempts::default(), Timestamp::from_millis(1000));
            let (mut tries, end) = (0, now + Duration::from_secs(3600));
            while now < end {
                let (id, repair) = (RecoveryId(7), RecoveryKind::FixReplica);
                attempts.learn(id, repair, &[finding(kind)], &failed, &settings, now);
                tries += 1;
                now = attempts.repairs.values().find_map(|memory| memory.not_before).unwrap();
            }
            tries
        };
        assert_eq!(tries_within_an_hour(FindingKind::ReplicaCannotApply), 10);
        assert!(tries_within_an_hour(FindingKind::ReplicationStopped) > 100);
    }

    /// Kind, outcome, and what is then remembered: `block`, `again` (backed off), `free`.
    #[test]
    fn what_outcomes_mean_for_the_next_attempt() {
        let why = || "why".to_owned();
        let table = [
            (RecoveryKind::EmergencyReparent, Outcome::Succeeded(why()), "block"),
            (RecoveryKind::EmergencyReparent, Outcome::Unclear(why()), "block again"),
            (RecoveryKind::EmergencyReparent, Outcome::Refused(why()), "again"),
            (RecoveryKind::EmergencyReparent, Outcome::Failed(why()), "again"),
            (RecoveryKind::PlannedReparent, Outcome::Undone(why()), "again"),
            (RecoveryKind::FinishReparent, Outcome::Succeeded(why()), "block"),
            (RecoveryKind::ElectPrimary, Outcome::Succeeded(why()), "free"),
            (RecoveryKind::FixPrimary, Outcome::Succeeded(why()), "free"),
            (RecoveryKind::FixPrimary, Outcome::AlreadyFixed, "free"),
            (RecoveryKind::FixReplica, Outcome::Failed(why()), "free"),
            (RecoveryKind::RestartReceiver, Outcome::Failed(why()), "free"),
        ];
        for (kind, outcome, expected) in table {
            let mut attempts = Attempts::default();
            let finding = Finding {
                kind: FindingKind::DeadPrimary,
                tablet: "zone1-1".parse().ok(),
                why: "",
                evidence: Vec::new(),
            };
            let (id, now) = (RecoveryId(7), Timestamp::from_millis(1000));
            let settings = testkit::settings();
            attempts.learn(id, kind, &[finding], &outcome, &settings, now);
            let block = attempts.shard.block.is_some();
            let again = attempts.shard.not_before.is_some();
            let found = match (block, again) {
                (true, true) => "block again",
                (true, false) => "block",
                (false, true) => "again",
                (false, false) => "free",
            };
            assert_eq!(found, expected, "{kind} {outcome}");
        }
    }
}
