//! The frame of every recovery: lock, look again, act step by step, keep the story.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::future;
use futures::stream::{FuturesUnordered, StreamExt};
use slog::{Logger, info, warn};
use tokio::time::{Instant, timeout_at};
use vtorc_core::analysis::{self, Finding, FindingKind};
use vtorc_core::audit::{Outcome, RecoveryRecord, StepOutcome};
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::{ServerIdentity, TabletAlias};
use vtorc_core::knowledge::identity;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::ports::{CommandError, ServerCommand, ShardLock, TopoError};
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::recovery::login::tls_for;
use vtorc_core::recovery::planned::Asker;
use vtorc_core::recovery::request::{ReparentKind, ReparentRequest};
use vtorc_core::recovery::step::{Failpoint, StepKind};
use vtorc_core::recovery::task::Task;
use vtorc_core::remedy;
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::settings::RecoverySettings;
use vtorc_core::source_access::{Login, SourceAccess};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::{Tablet, TabletAddress};

use super::Owner;
use crate::services::Services;

/// When everybody from whom an answer is expected has answered, those held for dead get this much more.
const LAST_CALL: Duration = Duration::from_millis(50);
/// When those who answered are enough, the others get this much more.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// A command that ran out of time says so itself, and why, within this.
const LAST_WORDS: Duration = Duration::from_millis(1200);

/// Added to what a command may take when it is itself told how long to wait.
pub(super) const COMMAND_MARGIN: Duration = Duration::from_secs(2);

/// Delays that were lifted, in seconds: they are put back when it is over.
pub(super) type LiftedDelays = RefCell<BTreeMap<TabletAlias, u64>>;

/// Why a recovery stopped before its end.
#[derive(Clone, Debug)]
pub(crate) enum Stopped {
    /// The finding was gone.
    AlreadyFixed,
    /// Nothing was changed, and must not be.
    Refused(String),
    /// It went wrong before the primary was changed.
    Failed(String),
    /// The chosen tablet refused to be promoted, and takes no writes for certain: another one may be promoted.
    NotPromoted(String),
    /// What was done was taken back.
    Undone(String),
    /// It went wrong when the primary may have been changed.
    Unclear(String),
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.clone().into_outcome().text())
    }
}

impl Stopped {
    /// Core refuses it.
    pub(super) fn refused(why: impl std::fmt::Display) -> Self {
        Self::Refused(why.to_string())
    }

    fn into_outcome(self) -> Outcome {
        match self {
            Self::AlreadyFixed => Outcome::AlreadyFixed,
            Self::Refused(why) => Outcome::Refused(why),
            Self::Failed(why) | Self::NotPromoted(why) => Outcome::Failed(why),
            Self::Undone(why) => Outcome::Undone(why),
            Self::Unclear(why) => Outcome::Unclear(why),
        }
    }
}

/// One running recovery.
pub(crate) struct Job {
    pub(crate) services: Services,
    pub(crate) settings: RecoverySettings,
    pub(crate) seen: Arc<ShardSnapshot>,
    /// The shard as it was found under the lock.
    pub(super) looked: OnceLock<Arc<ShardSnapshot>>,
    /// Whom servers are to log in as, as far as that was asked.
    pub(super) logins: Mutex<BTreeMap<TabletAlias, Login>>,
    pub(crate) log: Logger,
    pub(super) owner: Owner,
    pub(super) held: HeldLock,
    pub(super) record: Arc<Mutex<RecoveryRecord>>,
}

/// The shard's lock, and when the topology server was last asked whether it is held, and said so.
#[derive(Default)]
pub(super) struct HeldLock {
    pub(super) lock: tokio::sync::Mutex<Option<Box<dyn ShardLock>>>,
    pub(super) asked_at: Mutex<Option<Instant>>,
}

impl HeldLock {
    /// The lock was taken.
    pub(super) async fn take(&self, lock: Box<dyn ShardLock>) {
        *self.lock.lock().await = Some(lock);
    }

    /// Hands the lock over to be given back.
    pub(super) async fn give(&self) -> Option<Box<dyn ShardLock>> {
        self.lock.lock().await.take()
    }
}

/// A recovery under the shard's lock, with the shard as it was found there.
pub(crate) struct Locked<'a> {
    pub(crate) job: &'a Job,
    pub(crate) fresh: ShardSnapshot,
    pub(crate) policy: DurabilityPolicy,
    pub(super) lifted: LiftedDelays,
}

impl Job {
    pub(crate) fn new(
        services: Services,
        record: RecoveryRecord,
        seen: Arc<ShardSnapshot>,
        owner: Owner,
        log: Logger,
    ) -> Self {
        let settings = services.recovery_settings();
        let (looked, record) = (OnceLock::new(), Arc::new(Mutex::new(record)));
        let (logins, held) = (Mutex::default(), HeldLock::default());
        let job = Self { services, settings, seen, looked, logins, log, owner, held, record };
        job.publish();
        job
    }

    /// Runs the recovery to its end and keeps its outcome. Answers with it what was seen under the lock.
    pub(crate) async fn run(self, task: Task) -> (Outcome, Option<Arc<ShardSnapshot>>) {
        let outcome = match self.under_lock(&task).await {
            Ok(text) => Outcome::Succeeded(text),
            Err(stopped) => stopped.into_outcome(),
        };
        let now = self.services.clock.now();
        self.note(|record| {
            record.outcome = Some(outcome.clone());
            record.ended_at = Some(now);
        });
        match &outcome {
            Outcome::Succeeded(_) | Outcome::AlreadyFixed => {
                info!(self.log, "recovery ended"; "outcome" => outcome.name(), "text" => outcome.text());
            }
            Outcome::Refused(_)
            | Outcome::Failed(_)
            | Outcome::Undone(_)
            | Outcome::Unclear(_)
            | Outcome::Preempted
            | Outcome::Interrupted => {
                warn!(self.log, "recovery ended"; "outcome" => outcome.name(), "text" => outcome.text());
            }
        }
        let seen = self.looked.get().cloned();
        self.run_hooks_after(&task, outcome.clone());
        (outcome, seen)
    }

    async fn under_lock(&self, task: &Task) -> Result<String, Stopped> {
        let locked = self.lock(task).await?;
        self.failpoint(Failpoint::Locked);
        let done = locked.act(task).await;
        locked.put_delays_back().await;
        self.release().await;
        if done.is_ok() {
            self.tell_records().await;
        }
        done
    }

    /// Sends a command to many servers at once. Those held for dead are asked too, but not waited for.
    pub(crate) async fn ask_all(
        &self,
        tablets: &[Tablet],
        command: ServerCommand,
    ) -> BTreeMap<TabletAlias, Result<ServerStatus, CommandError>> {
        self.ask_until(tablets, command, |_| false).await
    }

    /// The same, and once those who did it are enough, the others are waited for only a little: one server that
    /// hangs must not hold a failover up that is safe without it.
    pub(crate) async fn ask_until(
        &self,
        tablets: &[Tablet],
        command: ServerCommand,
        enough: impl Fn(&BTreeSet<TabletAlias>) -> bool,
    ) -> BTreeMap<TabletAlias, Result<ServerStatus, CommandError>> {
        let expected: BTreeSet<TabletAlias> = tablets
            .iter()
            .filter(|tablet| self.seen.expects_answer_of(tablet))
            .map(|tablet| tablet.alias.clone())
            .collect();
        let mut waiting = FuturesUnordered::new();
        for tablet in tablets {
            let command = command.clone();
            waiting.push(async move { (tablet.alias.clone(), self.send(tablet, command).await) });
        }
        let mut answers = BTreeMap::new();
        let mut deadline = Instant::now() + self.settings.command_timeout + LAST_WORDS;
        let mut last_call = false;
        let mut done = BTreeSet::new();
        while let Ok(Some((alias, answer))) = timeout_at(deadline, waiting.next()).await {
            if answer.is_ok() {
                done.insert(alias.clone());
            }
            answers.insert(alias, answer);
            if !last_call && enough(&done) {
                deadline = deadline.min(Instant::now() + STRAGGLERS);
            }
            if !last_call && expected.iter().all(|alias| answers.contains_key(alias)) {
                last_call = true;
                deadline = Instant::now() + LAST_CALL;
            }
        }
        for tablet in tablets {
            let silent = || Err(CommandError::Unknown("no answer in time".into()));
            answers.entry(tablet.alias.clone()).or_insert_with(silent);
        }
        answers
    }

    /// Runs a command on one server.
    pub(crate) async fn send(
        &self,
        tablet: &Tablet,
        command: ServerCommand,
    ) -> Result<ServerStatus, CommandError> {
        self.command(tablet, command, self.settings.command_timeout).await
    }

    /// Runs a command on one server as a step of the story.
    pub(crate) async fn on(
        &self,
        kind: StepKind,
        tablet: &Tablet,
        command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError> {
        self.on_unless(kind, tablet, (command, deadline), future::pending()).await
    }

    /// The same, as long as there is no reason not to wait for it any more.
    pub(crate) async fn on_unless(
        &self,
        kind: StepKind,
        tablet: &Tablet,
        (command, deadline): (ServerCommand, Duration),
        unless: impl Future<Output = String>,
    ) -> Result<ServerStatus, CommandError> {
        self.failpoint(Failpoint::Before(kind));
        let step = self.begin_step(kind, Some(&tablet.alias));
        let sent = pin!(self.command(tablet, command, deadline));
        let sent = match future::select(sent, pin!(unless)).await {
            future::Either::Left((sent, _)) => sent,
            future::Either::Right((why, _)) => Err(CommandError::NotDone(why)),
        };
        self.end_step(
            step,
            match &sent {
                Ok(_) => StepOutcome::Done(String::new()),
                Err(CommandError::Unreached(failure)) => StepOutcome::NotDone(failure.to_string()),
                Err(CommandError::NotDone(why)) => StepOutcome::NotDone(why.clone()),
                Err(CommandError::Unknown(why)) => StepOutcome::Unknown(why.clone()),
            },
        );
        self.failpoint(Failpoint::After(kind));
        sent
    }

    /// Runs a command on the server that was looked at under the lock, and on no other. One that changes something
    /// goes out only while the lock is held.
    pub(crate) async fn command(
        &self,
        tablet: &Tablet,
        mut command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError> {
        let asks = !sabotage::has(Bug::ActWithoutLock) && !sabotage::has(Bug::UndoWithoutLock);
        if asks && !command.only_reads() {
            let lost = |stopped: Stopped| CommandError::NotDone(stopped.to_string());
            self.still_locked().await.map_err(lost)?;
        }
        let missing = || CommandError::NotDone("its record has no MySQL address".into());
        let address = tablet.address().ok_or_else(missing)?;
        let meant = self.meant(tablet, &command)?;
        let known = self.known();
        if let ServerCommand::Follow { access, .. } = &mut command {
            let login = self.login_for(tablet).await?;
            let asked = login.as_ref().and_then(|login| login.tls.clone());
            *access = SourceAccess { login, tls: asked.or_else(|| tls_for(known, &tablet.alias)) };
        }
        let address = TabletAddress { channel: known.channel_of(&tablet.alias), ..address };
        let status = if command == ServerCommand::ReadStatus {
            // Whose server answers a question is told from the answer.
            let status = self.services.mysql.run(&address, command, deadline).await?;
            if let Some(meant) = meant {
                CommandError::check_meant(&meant, &status.identity())?;
            }
            status
        } else {
            let address = TabletAddress { server: meant, ..address };
            self.services.mysql.run(&address, command, deadline).await?
        };
        Ok(Arc::unwrap_or_clone(known.with_own_channel(&tablet.alias, Arc::new(status))))
    }

    /// What was seen under the lock; before that, what is watched.
    pub(super) fn known(&self) -> &ShardSnapshot {
        self.looked.get().unwrap_or(&self.seen)
    }

    /// Which server a command is meant for. The look under the lock itself asks whoever is there.
    fn meant(
        &self,
        tablet: &Tablet,
        command: &ServerCommand,
    ) -> Result<Option<ServerIdentity>, CommandError> {
        if self.looked.get().is_none() && *command == ServerCommand::ReadStatus {
            return Ok(None);
        }
        let known = self.known();
        let state = known.tablet(&tablet.alias);
        let meant = state.map(|state| identity::meant(known, state)).transpose();
        Ok(meant.map_err(CommandError::of_stranger)?.flatten())
    }

    /// Does something with the topology as a step of the story.
    pub(crate) async fn topo_step<T>(
        &self,
        kind: StepKind,
        tablet: Option<&TabletAlias>,
        work: impl Future<Output = Result<T, TopoError>>,
    ) -> Result<T, Stopped> {
        self.failpoint(Failpoint::Before(kind));
        let step = self.begin_step(kind, tablet);
        let done = work.await;
        self.end_step(
            step,
            match &done {
                Ok(_) => StepOutcome::Done(String::new()),
                Err(error) => StepOutcome::NotDone(error.to_string()),
            },
        );
        self.failpoint(Failpoint::After(kind));
        done.map_err(|error| Stopped::Failed(format!("{kind}: {error}")))
    }
}

impl Locked<'_> {
    /// Checks that there is still something to do, and does it.
    async fn act(&self, task: &Task) -> Result<String, Stopped> {
        match task {
            Task::Shard(kind, finding) => {
                self.still_there(finding)?;
                if finding.kind == FindingKind::PrimarySemiSyncBlocked
                    && let Some(freed) = self.free_commits().await
                {
                    return Ok(freed);
                }
                if kind.is_reparent() {
                    self.run_hooks_before(task).await?;
                }
                self.recover_shard(*kind, finding).await
            }
            Task::Replicas(findings) => self.fix_replicas(findings).await,
            Task::CureErrant(request) => self.cure_errant(request).await,
            Task::Forget(request) => self.forget(&request.tablet).await,
            Task::Requested(request) => {
                self.run_hooks_before(task).await?;
                self.requested(request).await
            }
        }
    }

    async fn recover_shard(
        &self,
        kind: RecoveryKind,
        finding: &Finding,
    ) -> Result<String, Stopped> {
        match kind {
            RecoveryKind::ElectPrimary
            | RecoveryKind::EmergencyReparent
            | RecoveryKind::FinishReparent => {
                let away = remedy::leaves_primary(finding.kind);
                let emergency = ReparentKind::Emergency;
                let request =
                    away.then(|| ReparentRequest::away_from_primary(emergency, &self.fresh));
                self.reparent(kind, request.as_ref()).await
            }
            RecoveryKind::PlannedReparent => self.move_away().await,
            RecoveryKind::FixPrimary => self.fix_primary().await,
            RecoveryKind::FixShardRecord => self.fix_shard_record().await,
            RecoveryKind::RestartReceiver => self.restart_receivers(finding.kind).await,
            RecoveryKind::FixReplica
            | RecoveryKind::DrainErrant
            | RecoveryKind::InjectErrant
            | RecoveryKind::Forget => {
                Err(Stopped::Refused("there is nothing to do for the shard as a whole".into()))
            }
        }
    }

    async fn requested(&self, request: &ReparentRequest) -> Result<String, Stopped> {
        request.check_still_meant(&self.fresh).map_err(Stopped::refused)?;
        match request.kind {
            ReparentKind::Planned => self.planned_reparent(request, Asker::Somebody).await,
            ReparentKind::Emergency => {
                self.reparent(RecoveryKind::EmergencyReparent, Some(request)).await
            }
        }
    }

    fn still_there(&self, finding: &Finding) -> Result<(), Stopped> {
        if analysis::still_present(finding, &self.fresh, &self.job.settings) {
            return Ok(());
        }
        let now = analysis::detect(&self.fresh, &self.job.settings);
        let now = now.first().map(ToString::to_string).unwrap_or_else(|| "nothing".into());
        let state = finding.tablet.as_ref().and_then(|alias| self.fresh.tablet(alias));
        let text = match state.and_then(|state| state.reachability.failure()) {
            Some(failure) => format!("it is gone; found now: {now}; {failure}"),
            None => format!("it is gone; found now: {now}"),
        };
        self.job.decided(StepKind::LookAgain, finding.tablet.as_ref(), text);
        Err(Stopped::AlreadyFixed)
    }

    /// A tablet's record, as read under the lock.
    pub(crate) fn tablet(&self, alias: &TabletAlias) -> Result<&Tablet, Stopped> {
        let state = self.fresh.tablet(alias);
        state
            .map(|state| &state.tablet)
            .ok_or_else(|| Stopped::Failed(format!("{alias} has no record")))
    }
}
