//! Planned reparent: the candidate catches up before writes stop, and whatever goes wrong afterwards is
//! taken back while the old primary still can serve.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;
use vtorc_core::audit::StepOutcome;
use vtorc_core::gtid::GtidSet;
use vtorc_core::ports::{PromotionGrounds, ServerCommand, Sessions};
use vtorc_core::preflight::WhoWritesOn;
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::recovery::login::{self, LoginRefused};
use vtorc_core::recovery::planned::{self, Asker, Move, Silence, WritesOn};
use vtorc_core::recovery::reparent;
use vtorc_core::recovery::step::StepKind;
use vtorc_core::reparent::election::{Election, PassedOver, Reason};
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::Tablet;
use vtorc_core::time::Timestamp;

use super::job::{COMMAND_MARGIN, Locked, Stopped};
use super::login::NoLogin;
use super::promote::Promotion;
use crate::messages::{ReparentKind, ReparentRequest};

/// Sessions that hold the demotion up for so long are ended: writes are refused meanwhile.
const END_SESSIONS_AFTER_MS: u64 = 500;

/// While the candidate catches up, the primary is looked at so often, ...
const PRIMARY_LOOK: Duration = Duration::from_millis(300);
/// ... and has so long to answer.
const PRIMARY_PATIENCE: Duration = Duration::from_secs(1);

impl Locked<'_> {
    /// Moves the shard's writes from its primary to another tablet.
    pub(super) async fn planned_reparent(
        &self,
        request: &ReparentRequest,
        asker: Asker,
    ) -> Result<String, Stopped> {
        let plan = planned::plan(self.basis(), request);
        let (primary, election) = match plan.map_err(Stopped::refused)? {
            Move::NotNeeded => {
                return Ok("the tablet that was asked for is primary already".into());
            }
            Move::From(primary, election) => (*primary, election),
        };
        self.check_logins(std::slice::from_ref(&primary)).await?;
        let candidate = self.candidate_to_log_in_at(election, asker).await?;
        let chosen = self.status_of(&candidate.alias)?;
        let found = self.status_of(&primary.alias)?;
        let as_before = PromotionGrounds::of_primary(found);
        self.job.note(|record| record.old_primary = Some(primary.alias.clone()));
        if !sabotage::has(Bug::SkipWaiting) {
            self.catch_up_first(&primary, &candidate).await?;
        }
        self.check_lock().await?;
        let writes_stopped_at = self.job.services.clock.now();
        let last = match self.reach_the_last(&primary, &candidate, writes_stopped_at).await {
            Ok(last) => last,
            Err(why) => return Err(self.undo(&primary, as_before, why).await),
        };
        if let Err(lost) = self.check_lock().await {
            return Err(self.undo(&primary, as_before, lost.to_string()).await);
        }
        let again = PromotionGrounds::again(found, &last, candidate.mysql.clone());
        let mut followers = reparent::managed(&self.fresh);
        followers
            .retain(|tablet| tablet.alias != candidate.alias && self.fresh.answers(&tablet.alias));
        let promotion = Promotion {
            winner: candidate,
            grounds: PromotionGrounds::after(chosen, &last),
            followers,
            action: "PlannedReparentShard",
            refused: BTreeSet::new(),
            writes_stopped_at: Some(writes_stopped_at),
        };
        match self.promote(promotion).await {
            // It is certain that nobody else takes writes.
            Err(Stopped::Failed(why) | Stopped::NotPromoted(why)) => {
                Err(self.undo(&primary, again, why).await)
            }
            other => other,
        }
    }

    /// Away from a primary that is too busy: in peace if it still answers, else as from a dead one.
    pub(super) async fn move_away(&self) -> Result<String, Stopped> {
        let away = |kind| ReparentRequest::away_from_primary(kind, &self.fresh);
        let why = match self.planned_reparent(&away(ReparentKind::Planned), Asker::Vtorc).await {
            Err(
                Stopped::Refused(why)
                | Stopped::Failed(why)
                | Stopped::NotPromoted(why)
                | Stopped::Undone(why),
            ) => why,
            // Whether it serves is not known: that is seen to first.
            other @ (Ok(_) | Err(Stopped::Unclear(_) | Stopped::AlreadyFixed)) => return other,
        };
        if !planned::may_use_force(self.basis()) {
            return Err(Stopped::Refused(format!(
                "{why}; it does not wait for acknowledgements, so it is not replaced by force while it lives"
            )));
        }
        self.job.decided(StepKind::ReplaceByForce, None, format!("it did not step down: {why}"));
        self.check_lock().await?;
        let request = away(ReparentKind::Emergency);
        self.reparent(RecoveryKind::EmergencyReparent, Some(&request)).await
    }

    /// The first candidate at which replicas could log in. Whoever moves away from a primary that hardly answers does
    /// not try that.
    async fn candidate_to_log_in_at(
        &self,
        mut election: Election,
        asker: Asker,
    ) -> Result<Tablet, Stopped> {
        let mut refusals = Vec::new();
        while let Some(first) = election.first() {
            let candidate = self.tablet(&first.alias)?.clone();
            let tried = match asker {
                Asker::Somebody => self.try_login_first(&candidate).await,
                Asker::Vtorc => Ok(()),
            };
            match tried {
                Ok(()) => {
                    self.announce(&election, &candidate.alias);
                    return Ok(candidate);
                }
                Err(refused) => {
                    refusals.push(refused.to_string());
                    election.candidates.remove(0);
                    let passed = PassedOver { alias: candidate.alias, reason: Reason::NoLogin };
                    election.passed_over.push(passed);
                }
            }
        }
        match refusals.is_empty() {
            true => Err(Stopped::Refused("there is no candidate".into())),
            false => Err(Stopped::Refused(refusals.join("; "))),
        }
    }

    /// Before writes stop: if replicas could not log in at the new primary, no write would be acknowledged there. Where
    /// that cannot be told, nothing is known, as before an emergency.
    async fn try_login_first(&self, candidate: &Tablet) -> Result<(), LoginRefused> {
        if !login::is_tried(self.basis()) {
            return Ok(());
        }
        let step = self.job.begin_step(StepKind::TryLogin, Some(&candidate.alias));
        let tried = self.try_login(candidate, self.job.settings.command_timeout).await;
        let (outcome, refused) = match tried {
            Ok(()) => (StepOutcome::Done(String::new()), Ok(())),
            Err(NoLogin::Refused(why)) => (StepOutcome::NotDone(why.to_string()), Err(why)),
            Err(NoLogin::Unknown(error)) => (StepOutcome::Unknown(error.to_string()), Ok(())),
        };
        self.job.end_step(step, outcome);
        refused
    }

    /// Before writes stop: a candidate that does not get there now would not later either. It is not waited for once
    /// the primary is silent: that one is to be replaced, and nothing was changed yet.
    async fn catch_up_first(&self, primary: &Tablet, candidate: &Tablet) -> Result<(), Stopped> {
        let status = self.fresh.tablet(&primary.alias).and_then(|state| state.valid_status());
        let target = status.map(|status| status.gtid_executed.clone());
        let Some(target) = target else {
            return Err(Stopped::Refused(format!("{} does not answer", primary.alias)));
        };
        let patience = self.job.settings.wait_replicas_timeout;
        let wait = ServerCommand::WaitForPosition { target, timeout: patience };
        let wait = (wait, patience + COMMAND_MARGIN);
        let silent = self.falls_silent(primary);
        let waited = self.job.on_unless(StepKind::CatchUpFirst, candidate, wait, silent).await;
        waited
            .map(|_| ())
            .map_err(|error| Stopped::Refused(format!("{}: {error}", candidate.alias)))
    }

    /// Waits until the primary does not answer any more, and says so.
    async fn falls_silent(&self, primary: &Tablet) -> String {
        let mut silence = Silence::default();
        loop {
            sleep(PRIMARY_LOOK).await;
            let look = ServerCommand::ReadStatus;
            let answer = self.job.command(primary, look, PRIMARY_PATIENCE).await;
            if let Some(why) = silence.hear(answer.err()) {
                return format!("{} does not answer any more: {why}", primary.alias);
            }
        }
    }

    /// Stops writes, and waits until the candidate has what the primary has in the end. That is looked at once more:
    /// `read_only` does not stop everybody.
    async fn reach_the_last(
        &self,
        primary: &Tablet,
        candidate: &Tablet,
        since: Timestamp,
    ) -> Result<ServerStatus, String> {
        let patience = self.job.settings.write_outage_max;
        let politely = Sessions::EndAfter(END_SESSIONS_AFTER_MS);
        let mut last = self.demote(primary, politely, patience).await?;
        if sabotage::has(Bug::SkipWaiting) {
            last.gtid_executed = GtidSet::empty_mysql();
            return Ok(last);
        }
        let mut written = last.gtid_executed.empty_like();
        for _ in 0..planned::LAST_POSITIONS {
            if !written.is_empty() {
                let patience = self.left_of_the_outage(since);
                last = self.demote(primary, Sessions::EndAll, patience).await?;
            }
            match self.reach(candidate, last.gtid_executed.clone(), since).await {
                Ok(()) => {}
                Err(why) if written.is_empty() => return Err(why),
                Err(_) => break,
            }
            if planned::nobody_writes_on(&last) {
                return Ok(last);
            }
            let timeout = self.left_of_the_outage(since);
            let look = ServerCommand::ReadStatus;
            let now = self.job.on(StepKind::ReadPrimaryPosition, primary, look, timeout).await;
            let now = now.map_err(|error| format!("{}: {error}", primary.alias))?;
            written = planned::wrote_on(&last, &now);
            if written.is_empty() {
                return Ok(last);
            }
        }
        Err(self.writes_on(primary, written).await)
    }

    /// Why a primary that does not stop writing keeps its place, and who writes there, as far as that can be told.
    async fn writes_on(&self, primary: &Tablet, written: GtidSet) -> String {
        let who = match primary.address() {
            None => WhoWritesOn::default(),
            Some(address) => {
                let timeout = self.job.settings.command_timeout;
                let inspected = self.job.services.mysql.inspect(&address, timeout).await;
                inspected.as_ref().map(WhoWritesOn::of).unwrap_or_default()
            }
        };
        let (primary, written) = (primary.alias.clone(), Box::new(written));
        WritesOn { primary, written, who }.to_string()
    }

    /// For how long writes may still be refused that were stopped then.
    fn left_of_the_outage(&self, since: Timestamp) -> Duration {
        let spent = since.age(self.job.services.clock.now());
        self.job.settings.write_outage_max.saturating_sub(spent)
    }

    /// Stops writes and answers what the primary has then.
    async fn demote(
        &self,
        primary: &Tablet,
        sessions: Sessions,
        timeout: Duration,
    ) -> Result<ServerStatus, String> {
        let demote = ServerCommand::Demote { sessions };
        let demoted = self.job.on(StepKind::StopWrites, primary, demote, timeout).await;
        demoted.map_err(|error| format!("{}: {error}", primary.alias))
    }

    /// Waits until the candidate has everything, as long as writes may be refused.
    async fn reach(
        &self,
        candidate: &Tablet,
        target: GtidSet,
        since: Timestamp,
    ) -> Result<(), String> {
        let patience = self.left_of_the_outage(since);
        let wait = ServerCommand::WaitForPosition { target, timeout: patience };
        let margin = Duration::from_millis(200);
        match self.job.on(StepKind::ReachLastPosition, candidate, wait, patience + margin).await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{}: {error}", candidate.alias)),
        }
    }

    /// The old primary takes writes again on these grounds, if the shard's lock is still ours: otherwise somebody
    /// else may have promoted another one meanwhile. It stays closed then, and whoever holds the lock next finishes.
    async fn undo(&self, primary: &Tablet, grounds: PromotionGrounds, why: String) -> Stopped {
        let held = match self.check_lock().await {
            Ok(()) => self.opening_patience(primary).await,
            Err(lost) => Err(lost),
        };
        let patience = match held {
            // A vttablet's call is no exception here: another vtorc may have promoted somebody by then.
            Ok(patience) => patience.min(self.job.trust_left()),
            Err(_) if sabotage::has(Bug::UndoWithoutLock) => self.job.settings.command_timeout,
            Err(lost) => {
                return Stopped::Unclear(format!(
                    "{why}; {} refuses writes until the shard's lock is held again: {lost}",
                    primary.alias
                ));
            }
        };
        let fix = self.opening(grounds);
        match self.job.on(StepKind::TakeWritesAgain, primary, fix, patience).await {
            Ok(_) => Stopped::Undone(format!("{why}; {} serves as before", primary.alias)),
            Err(error) => Stopped::Unclear(format!(
                "{why}; and {} could not be made to take writes again: {error}",
                primary.alias
            )),
        }
    }
}
