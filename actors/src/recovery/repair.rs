//! Repairs that leave the primary who it is: its settings, its replicas, the shard's record.

use std::time::Duration;

use futures::future;
use tokio::time::{Instant, sleep};
use vtorc_core::analysis::{Finding, FindingKind};
use vtorc_core::audit::StepOutcome;
use vtorc_core::ids::TabletAlias;
use vtorc_core::knowledge::observe::TabletState;
use vtorc_core::ports::{CommandError, PromotionGrounds, ServerCommand, Sessions};
use vtorc_core::recovery::care::{self, Care};
use vtorc_core::recovery::receivers::{self, Restart, Source};
use vtorc_core::recovery::records::{self, Completion};
use vtorc_core::recovery::reopen;
use vtorc_core::recovery::replica::{self, Case, Cure, Fares};
use vtorc_core::recovery::step::StepKind;
use vtorc_core::reparent::safety;
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::{Tablet, TabletType};

use super::job::{Locked, Stopped};

/// A write that is acknowledged at all is acknowledged sooner than this.
const FREE_COMMITS_PATIENCE: Duration = Duration::from_secs(1);

/// A receiver that is restarted on a source that lives is connected again within this.
const RECEIVES_WITHIN: Duration = Duration::from_secs(2);
/// One that replicates goes on doing so for this long, or it is not repaired: an applier stops at once on a row that it
/// cannot change.
const REPLICATES_FOR: Duration = Duration::from_millis(300);
const RECEIVES_LOOK: Duration = Duration::from_millis(50);

impl Locked<'_> {
    /// Brings semi-sync and writability in order, and takes away a source that a primary must not have.
    pub(super) async fn fix_primary(&self) -> Result<String, Stopped> {
        let primary = self.primary()?.tablet.clone();
        self.check_incumbent()?;
        self.check_lock().await?;
        let grounds = PromotionGrounds::of_primary(self.status_of(&primary.alias)?);
        let fix = self.opening(grounds);
        let patience = self.opening_patience(&primary).await?;
        match self.job.on(StepKind::FixPrimary, &primary, fix, patience).await {
            Ok(status) if status.is_writable() => Ok(format!("{} is in order", primary.alias)),
            Ok(_) => Err(Stopped::Failed(format!("{} still refuses writes", primary.alias))),
            Err(error) => Err(Stopped::Failed(format!("{}: {error}", primary.alias))),
        }
    }

    /// What opens a primary again on these grounds.
    pub(super) fn opening(&self, grounds: PromotionGrounds) -> ServerCommand {
        ServerCommand::FixPrimary { acks: self.policy.acks_required(), grounds }
    }

    /// A primary that refuses writes may have been replaced without the records knowing.
    fn check_incumbent(&self) -> Result<(), Stopped> {
        let writable = self.primary()?.status.as_ref().is_some_and(|status| status.is_writable());
        if writable || sabotage::has(Bug::FixBlindly) {
            return Ok(());
        }
        self.check_incumbent_is_alone()
    }

    fn check_incumbent_is_alone(&self) -> Result<(), Stopped> {
        reopen::check(&self.fresh, self.policy).map_err(Stopped::refused)
    }

    /// Completes the records after a crash between two of their writes.
    pub(super) async fn fix_shard_record(&self) -> Result<String, Stopped> {
        let primary = self.primary()?.tablet.clone();
        let named = safety::check_named(&self.fresh);
        named.map_err(Stopped::refused)?;
        self.check_lock().await?;
        let topo = &self.job.services.topo;
        let now = self.job.services.clock.now();
        let Completion { term, in_tablet_record } = records::completion(&self.fresh, &primary, now);
        if in_tablet_record {
            let set = topo.set_tablet_type(&primary.alias, TabletType::Primary, Some(term));
            self.write_record(StepKind::RecordPrimaryTerm, &primary.alias, set).await?;
        }
        let set = topo.set_shard_primary(&self.fresh.shard, &primary.alias, term);
        self.write_record(StepKind::RecordShardPrimary, &primary.alias, set).await?;
        Ok(format!("the shard's record names {}", primary.alias))
    }

    /// Restarts receivers, so that a connection that is dead without knowing shows it; no further where a source
    /// turns its replicas away. One that cannot be restarted does not hold up the others.
    pub(super) async fn restart_receivers(&self, kind: FindingKind) -> Result<String, Stopped> {
        if self.fresh.primary().is_none() {
            return Err(Stopped::AlreadyFixed);
        }
        let mut done = Vec::new();
        let mut failed = None;
        for round in receivers::to_restart(&self.fresh, kind) {
            let restarts = round.iter().map(|restart| self.restart_receiver(restart));
            let shown = future::join_all(restarts).await;
            let turned_away = shown.iter().any(|one| matches!(one, Ok(Source::TurnsAway)));
            for (restart, shown) in round.iter().zip(shown) {
                let alias = &restart.replica.tablet.alias;
                match shown {
                    Ok(_) => done.push(alias.to_string()),
                    Err(error) => failed = failed.or(Some(format!("{alias}: {error}"))),
                }
            }
            if turned_away {
                break;
            }
        }
        match failed {
            Some(error) if done.is_empty() => Err(Stopped::Failed(error)),
            _ if done.is_empty() => {
                Err(Stopped::Refused("no replica of the primary answers".into()))
            }
            _ => Ok(format!("{} connect(s) to its source anew", done.join(", "))),
        }
    }

    /// Restarts one, and waits for what it shows of its source where it received from it before.
    async fn restart_receiver(&self, restart: &Restart<'_>) -> Result<Source, CommandError> {
        let replica = &restart.replica.tablet;
        let timeout = self.job.settings.command_timeout;
        let command = ServerCommand::RestartReceiver;
        self.job.on(StepKind::RestartReceiver, replica, command, timeout).await?;
        let deadline = Instant::now() + RECEIVES_WITHIN;
        while restart.receives && Instant::now() < deadline {
            let status = self.job.send(replica, ServerCommand::ReadStatus).await;
            let channel = status.ok().and_then(|status| status.replication);
            match channel.as_ref().map(Source::of) {
                Some(shown @ (Source::Receives | Source::TurnsAway)) => return Ok(shown),
                Some(Source::Silent) | None => sleep(RECEIVES_LOOK).await,
            }
        }
        Ok(Source::Silent)
    }

    /// Repairs replicas side by side; each is looked at again first.
    pub(super) async fn fix_replicas(&self, findings: &[Finding]) -> Result<String, Stopped> {
        let due = care::due(findings, &self.fresh, &self.job.settings);
        if due.is_empty() {
            let silent = findings.iter().find_map(|finding| self.silent(finding));
            return Err(silent.map_or(Stopped::AlreadyFixed, Stopped::Failed));
        }
        self.check_lock().await?;
        self.leave_lost_source(&due).await?;
        let repairs = due.iter().filter_map(|finding| {
            let alias = finding.tablet.clone()?;
            Some(async move { (alias.clone(), self.fix_replica(&alias, finding.kind).await) })
        });
        let outcomes = future::join_all(repairs).await;
        if care::commits_wait(&due, &self.fresh) {
            self.free_commits().await;
        }
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (alias, outcome) in outcomes {
            match outcome {
                Ok(text) => done.push(format!("{alias} {text}")),
                Err(Stopped::AlreadyFixed) => {}
                Err(
                    Stopped::Refused(why)
                    | Stopped::Failed(why)
                    | Stopped::NotPromoted(why)
                    | Stopped::Undone(why)
                    | Stopped::Unclear(why),
                ) => failed.push(format!("{alias}: {why}")),
            }
        }
        if failed.is_empty() {
            Ok(done.join("; "))
        } else {
            Err(Stopped::Failed([failed, done].concat().join("; ")))
        }
    }

    /// The tablet of a finding did not answer under the lock: what it says, as far as it says something.
    fn silent(&self, finding: &Finding) -> Option<String> {
        let state = self.fresh.tablet(finding.tablet.as_ref()?)?;
        let failure = state.reachability.failure()?;
        Some(format!("{} did not answer under the lock: {failure}", state.tablet.alias))
    }

    /// Those that follow a tablet out of sight are all stopped first, and go on only if none of them has anything
    /// that the primary lacks.
    async fn leave_lost_source(&self, due: &[&Finding]) -> Result<(), Stopped> {
        let followers = care::followers_of_lost(due, &self.fresh);
        if followers.is_empty() {
            return Ok(());
        }
        self.check_incumbent_is_alone()?;
        let primary = self.primary()?.tablet.clone();
        self.check_lock().await?;
        let step = self.job.begin_step(StepKind::StopFollowersOfLost, None);
        let stopped = self.job.ask_all(&followers, ServerCommand::StopReceiver).await;
        let source = self.job.send(&primary, ServerCommand::ReadStatus).await;
        let ahead = care::may_be_ahead(&stopped, &source);
        if ahead.is_empty() {
            self.job.end_step(step, StepOutcome::Done(format!("{} stopped", followers.len())));
            return Ok(());
        }
        let why = format!(
            "{} may have what a tablet out of sight wrote as primary; it must come back first",
            ahead.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
        self.job.end_step(step, StepOutcome::NotDone(why.clone()));
        Err(Stopped::Refused(why))
    }

    /// Removes the record of a tablet that is gone for good. One that answers is not gone.
    pub(super) async fn forget(&self, alias: &TabletAlias) -> Result<String, Stopped> {
        if self.fresh.answers(alias) {
            return Err(Stopped::Refused(format!(
                "{alias} answers; take it out of the topology with vtorc topo delete if you mean it"
            )));
        }
        self.check_lock().await?;
        let forget = self.job.services.topo.forget_tablet(alias);
        self.write_record(StepKind::RemoveRecord, alias, forget).await?;
        Ok(format!("{alias} is forgotten; what only it had is lost"))
    }

    /// Frees commits that went out before their replicas acknowledged: nobody will acknowledge those by
    /// themselves. None if that is not why they wait.
    pub(super) async fn free_commits(&self) -> Option<String> {
        let primary = self.fresh.primary()?;
        let name = StepKind::WriteNothing;
        let write = ServerCommand::WriteNothing;
        let written = self.job.on(name, &primary.tablet, write, FREE_COMMITS_PATIENCE).await;
        written.ok().map(|_| format!("commits on {} go on", primary.tablet.alias))
    }

    /// Read-only first, then whom it follows; only what is wrong is changed.
    async fn fix_replica(&self, alias: &TabletAlias, kind: FindingKind) -> Result<String, Stopped> {
        let tablet = self.tablet(alias)?.clone();
        let status = self.fenced(&tablet).await?;
        match care::care(kind, &tablet, &self.fresh) {
            Care::NothingMore => {
                return Ok(format!("is {} and refuses writes", tablet.tablet_type));
            }
            Care::Drain(errant) => return self.drain_errant(&tablet, &errant).await,
            Care::Gone => return Err(Stopped::AlreadyFixed),
            Care::Cure => {}
        }
        let primary = self.primary()?.tablet.clone();
        let timeout = self.job.settings.command_timeout;
        let read = ServerCommand::ReadStatus;
        let source = self.job.on(StepKind::ReadPrimaryPosition, &primary, read, timeout);
        let source = source.await.map_err(|error| Stopped::Failed(error.to_string()))?;
        let case = Case {
            finding: kind,
            policy: self.policy,
            primary: &primary,
            source: &source,
            tablet: &tablet,
            status: &status,
            snapshot: &self.fresh,
        };
        let cure = replica::cure(case);
        let follows = matches!(cure, Cure::Follow { .. });
        let done = self.cure_replica(&tablet, &primary, cure).await?;
        if kind == FindingKind::StaleTopoPrimary {
            // Also for one with a vttablet: it publishes nothing when it follows another, unless it took itself for the
            // primary. Last, since the cell that holds the record may be away.
            self.record_replica(alias).await?;
        }
        if follows {
            self.replicates(&tablet).await?;
        }
        Ok(done)
    }

    /// The replica's server, once it refuses writes.
    async fn fenced(&self, tablet: &Tablet) -> Result<ServerStatus, Stopped> {
        let status = self.status_of(&tablet.alias)?.clone();
        if !status.is_writable() {
            return Ok(status);
        }
        self.check_lock().await?;
        let fence = ServerCommand::Demote { sessions: Sessions::EndAll };
        let fenced =
            self.job.on(StepKind::Fence, tablet, fence, self.job.settings.command_timeout).await;
        fenced.map_err(|error| Stopped::Failed(error.to_string()))
    }

    async fn cure_replica(
        &self,
        tablet: &Tablet,
        primary: &Tablet,
        cure: Cure,
    ) -> Result<String, Stopped> {
        match cure {
            Cure::SetAside(errant) => self.set_aside(tablet, &errant).await,
            Cure::KeepFor(lost) => Err(Stopped::Refused(format!(
                "{} lost {}, which {} has: the primary must be replaced, not its replicas",
                primary.alias,
                lost.shown(),
                tablet.alias
            ))),
            Cure::Follow { semi_sync, change, relay_log } => {
                let no_address = || format!("{} has no MySQL address", primary.alias);
                let source = primary.address().ok_or_else(|| Stopped::Failed(no_address()))?;
                let follow = ServerCommand::follow(source, semi_sync, change, relay_log);
                let timeout = self.job.settings.command_timeout;
                let followed = self.job.on(StepKind::FollowPrimary, tablet, follow, timeout).await;
                followed.map_err(|error| Stopped::Failed(error.to_string()))?;
                Ok("follows the primary".into())
            }
        }
    }

    /// Waits until a replica that was told to follow replicates, and goes on doing so for a moment.
    async fn replicates(&self, tablet: &Tablet) -> Result<(), Stopped> {
        let deadline = Instant::now() + RECEIVES_WITHIN;
        let mut since = None;
        loop {
            let status = self.job.send(tablet, ServerCommand::ReadStatus).await;
            let status = status.map_err(|error| Stopped::Failed(error.to_string()))?;
            let now = Instant::now();
            match Fares::of(status.replication.as_ref()) {
                Fares::Replicates if since.is_some_and(|since| now >= since + REPLICATES_FOR) => {
                    return Ok(());
                }
                Fares::Replicates => since = since.or(Some(now)),
                Fares::Connects if now < deadline => since = None,
                Fares::Connects => {
                    let why = format!("it follows, but is not connected after {RECEIVES_WITHIN:?}");
                    return Err(Stopped::Failed(why));
                }
                Fares::Fails(why) => return Err(Stopped::Failed(format!("it follows, but {why}"))),
            }
            sleep(RECEIVES_LOOK).await;
        }
    }

    async fn record_replica(&self, alias: &TabletAlias) -> Result<(), Stopped> {
        let set = self.job.services.topo.set_tablet_type(alias, TabletType::Replica, None);
        self.write_record(StepKind::RecordType, alias, set).await
    }

    pub(super) fn primary(&self) -> Result<&TabletState, Stopped> {
        self.fresh.primary_in_sight().ok_or(Stopped::AlreadyFixed)
    }

    pub(super) fn status_of(&self, alias: &TabletAlias) -> Result<&ServerStatus, Stopped> {
        let status = self.fresh.tablet(alias).and_then(|state| state.valid_status());
        status.ok_or_else(|| Stopped::Failed("it does not answer".into()))
    }
}
