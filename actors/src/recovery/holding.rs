//! What may start now, and why the rest may not: each round of deciding is kept, and said when it is news.

use slog::warn;
use vtorc_core::admission::inaction::{Held, Inaction};
use vtorc_core::admission::{self, Admission, Ledger, Proposal, Refusal, Switches};
use vtorc_core::analysis::Finding;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::remedy::{Remedy, Wanted};
use vtorc_core::sabotage::{self, Bug};

use super::{RecoveryActor, Task};

/// What came of a round of deciding.
#[derive(Default)]
pub(super) struct Round {
    /// What may start.
    pub(super) task: Option<Task>,
    /// What may not, and why.
    pub(super) held: Vec<Held>,
}

impl RecoveryActor {
    /// Which part of what is wanted may start now, and why the rest may not.
    pub(super) fn decide(&mut self, wanted: Wanted, snapshot: &ShardSnapshot) -> Round {
        let Some(ledger) = self.ledger.clone() else { return Round::default() };
        match wanted {
            Wanted::Nothing => Round::default(),
            Wanted::Shard(remedy, finding) => {
                let restarts = remedy == Remedy::RestartReceiver;
                let ledger = if restarts { self.receivers.clone() } else { ledger };
                let proposal = Proposal::new(remedy, &finding);
                // A receiver is restarted for the shard's sake.
                let tablet = proposal.tablet.filter(|_| !restarts);
                match self.admit(&ledger, Proposal { tablet, ..proposal }, snapshot) {
                    Admission::Admitted => {
                        Round { task: Some(Task::Shard(remedy, finding)), held: Vec::new() }
                    }
                    Admission::Refused(refusal) => {
                        Round { task: None, held: vec![self.held(&finding, &refusal)] }
                    }
                }
            }
            Wanted::Replicas(findings) => {
                let mut round = Round::default();
                let mut due = Vec::new();
                for finding in findings {
                    let Some(alias) = &finding.tablet else { continue };
                    let ledger = self.repairs.entry(alias.clone()).or_default().clone();
                    let proposal = Proposal::new(Remedy::FixReplica, &finding);
                    match self.admit(&ledger, proposal, snapshot) {
                        Admission::Admitted => due.push(finding),
                        Admission::Refused(refusal) => {
                            round.held.push(self.held(&finding, &refusal))
                        }
                    }
                }
                round.task = (!due.is_empty()).then_some(Task::Replicas(due));
                round
            }
        }
    }

    fn admit(
        &self,
        ledger: &Ledger,
        proposal: Proposal<'_>,
        snapshot: &ShardSnapshot,
    ) -> Admission {
        let settings = self.world.settings();
        let controls = self.world.controls();
        let isolated = self.world.board.isolated(self.world.clock.now());
        let switches = Switches {
            recoveries_enabled: self.world.recoveries_enabled(),
            controls: &controls,
            isolated: isolated.as_deref(),
        };
        admission::admit(ledger, proposal, snapshot, &settings.recovery, switches)
    }

    /// What went wrong last stays the reason while it waits to be tried again.
    fn held(&self, finding: &Finding, refusal: &Refusal) -> Held {
        let fresh = Held::new(Inaction::from(refusal), finding, refusal.to_string());
        let same = |held: &&Held| held.finding == finding.kind && held.tablet == finding.tablet;
        match refusal {
            Refusal::BackingOff { .. } => self.held.iter().find(same).cloned().unwrap_or(fresh),
            Refusal::Disabled
            | Refusal::SwitchedOff(_)
            | Refusal::EmergencyReparentsSwitchedOff(_)
            | Refusal::InDowntime(_)
            | Refusal::EmergencyReparentDisabled
            | Refusal::Filtered
            | Refusal::CellLeftAlone(_)
            | Refusal::InBlockPeriod(_)
            | Refusal::KeepsVanishing { .. }
            | Refusal::ManagerIsolated(_)
            | Refusal::WaitsForDisk
            | Refusal::WatchOnly => fresh,
        }
    }

    /// Keeps why nothing is done; one line of the log a change.
    pub(super) fn hold(&mut self, held: Vec<Held>) {
        let held = if sabotage::has(Bug::KeepSilent) { Vec::new() } else { held };
        let now = self.world.clock.now();
        self.world.board.hold(&self.shard, false, &held, now);
        for one in held.iter().filter(|one| !self.held.contains(one)) {
            let tablet = one.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
            warn!(self.log, "not recovering"; "reason" => &one.reason, "finding" => %one.finding,
                "tablet" => tablet);
        }
        let changed = self.held != held;
        self.held = held;
        if changed {
            self.tell_standing(None);
        }
    }
}
