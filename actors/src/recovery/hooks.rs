//! The operator's own programs around a reparent. Those before it may veto it; nobody waits for those after.

use vtorc_core::audit::{Outcome, StepOutcome};
use vtorc_core::hooks::{Hook, Occasion};
use vtorc_core::recovery::step::StepKind;
use vtorc_core::recovery::task::Task;

use super::job::{Job, Locked, Stopped};
use crate::messages::ReparentKind;

impl Locked<'_> {
    /// Runs the programs before a reparent; the first that fails stops it.
    pub(super) async fn run_hooks_before(&self, task: &Task) -> Result<(), Stopped> {
        for hook in Hook::before(is_planned(task)) {
            self.check_lock().await?;
            if let Some(veto) = self.job.run_hook(*hook, is_planned(task)).await {
                return Err(Stopped::Refused(veto));
            }
        }
        Ok(())
    }
}

impl Job {
    /// Runs the programs after a reparent, beside whatever the shard needs next.
    pub(super) fn run_hooks_after(self, task: &Task, outcome: Outcome) {
        let is_reparent = task.kind().is_reparent();
        let planned = is_planned(task);
        let hooks = Hook::after(planned, &outcome);
        if !is_reparent || !hooks.iter().any(|hook| self.services.hooks.wants(*hook)) {
            return;
        }
        actix::spawn(async move {
            for hook in hooks {
                self.run_hook(*hook, planned).await;
            }
        });
    }

    /// Runs one hook's programs, each a step of the story; answers why the reparent must not go on.
    async fn run_hook(&self, hook: Hook, planned: bool) -> Option<String> {
        if !self.services.hooks.wants(hook) {
            return None;
        }
        let occasion = Occasion::of_reparent(&self.seen, &self.so_far(), planned);
        let mut veto = None;
        let step = self.begin_step(StepKind::Hook(hook), None);
        let runs = self.services.hooks.run(hook, &occasion).await;
        let lines: Vec<String> =
            runs.iter().map(|run| format!("{}: {}", run.command, run.outcome)).collect();
        let failed = runs.iter().find(|run| !run.outcome.is_done());
        if let Some(failed) = failed.filter(|_| hook.may_veto()) {
            veto =
                Some(format!("{} vetoed it: {}: {}", hook.key(), failed.command, failed.outcome));
        }
        let text = lines.join("; ");
        self.end_step(
            step,
            if failed.is_some() { StepOutcome::NotDone(text) } else { StepOutcome::Done(text) },
        );
        veto
    }
}

fn is_planned(task: &Task) -> bool {
    match task {
        Task::Requested(request) => request.kind == ReparentKind::Planned,
        Task::Shard(..) | Task::Replicas(_) | Task::CureErrant(_) | Task::Forget(_) => false,
    }
}
