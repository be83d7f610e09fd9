//! The story of a recovery: each step with its time and its outcome, kept and shown while it runs.

use std::sync::MutexGuard;

use slog::{info, warn};
use vtorc_core::audit::{RecoveryRecord, StepOutcome, StepRecord};
use vtorc_core::ids::TabletAlias;
use vtorc_core::recovery::step::{Failpoint, StepKind};

use super::job::Job;
use crate::locked::lock;
use crate::messages::Audit;

impl Job {
    /// Notes a decision as a step without duration.
    pub(crate) fn decided(&self, kind: StepKind, tablet: Option<&TabletAlias>, text: String) {
        let step = self.begin_step(kind, tablet);
        self.end_step(step, StepOutcome::Done(text));
    }

    pub(crate) fn begin_step(&self, kind: StepKind, tablet: Option<&TabletAlias>) -> usize {
        let step = StepRecord {
            kind,
            tablet: tablet.cloned(),
            started_at: self.services.clock.now(),
            duration_ms: None,
            outcome: None,
        };
        let mut at = 0;
        self.note(|record| {
            at = record.steps.len();
            record.steps.push(step);
        });
        at
    }

    pub(crate) fn end_step(&self, at: usize, outcome: StepOutcome) {
        let now = self.services.clock.now();
        self.note(|record| {
            let Some(step) = record.steps.get_mut(at) else { return };
            let took = step.started_at.age(now).as_millis();
            step.duration_ms = Some(u64::try_from(took).unwrap_or(u64::MAX));
            let tablet = step.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
            match &outcome {
                StepOutcome::Done(text) => {
                    info!(self.log, "step"; "step" => %step.kind, "tablet" => tablet, "ms" => took as u64,
                        "text" => text);
                }
                StepOutcome::NotDone(why) | StepOutcome::Unknown(why) => {
                    warn!(self.log, "step failed"; "step" => %step.kind, "tablet" => tablet,
                        "ms" => took as u64, "outcome" => outcome.name(), "error" => why);
                }
            }
            step.outcome = Some(outcome);
        });
    }

    /// Changes the story and shows it.
    pub(crate) fn note(&self, change: impl FnOnce(&mut RecoveryRecord)) {
        change(&mut self.story());
        self.publish();
    }

    /// The story so far.
    pub(crate) fn so_far(&self) -> RecoveryRecord {
        self.story().clone()
    }

    fn story(&self) -> MutexGuard<'_, RecoveryRecord> {
        lock(&self.record)
    }

    pub(super) fn publish(&self) {
        let record = self.story().clone();
        self.services.auditor.do_send(Audit::Recovery(Box::new(record.clone())));
        self.services.board.post_recovery(record);
    }

    pub(crate) fn failpoint(&self, point: Failpoint) {
        (self.services.failpoint)(point);
    }
}
