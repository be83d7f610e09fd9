//! Candidates catch up side by side, and the best of those who are ready is chosen.

use std::cell::RefCell;
use std::time::Duration;

use futures::future::{self, Either};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::TabletAlias;
use vtorc_core::ports::{CommandError, PromotionGrounds, RelayLog, ServerCommand, SourceChange};
use vtorc_core::recovery::catch_up::{self, Choice, Goal, Patience, Progress};
use vtorc_core::recovery::step::StepKind;
use vtorc_core::reparent::election::{Candidate, Contender, Election};
use vtorc_core::status::ServerStatus;

use super::job::{COMMAND_MARGIN, Locked, Stopped};

/// A source that does not give what is wanted in this time leaves the next one its turn.
const SOURCE_PATIENCE: Duration = Duration::from_secs(5);

/// Who is to be promoted.
pub(super) struct Chosen {
    pub(super) alias: TabletAlias,
    pub(super) grounds: PromotionGrounds,
}

/// The candidates on their way.
struct Race<'a> {
    started: Instant,
    contenders: &'a [Contender],
    runners: RefCell<Vec<Runner>>,
    changed: Notify,
}

/// How one of them stands.
struct Runner {
    progress: Progress,
    grounds: Option<PromotionGrounds>,
    error: Option<String>,
    /// The configuration forbids to wait for it.
    forbidden: bool,
}

impl Race<'_> {
    fn progress(&self) -> Vec<Progress> {
        self.runners.borrow().iter().map(|runner| runner.progress).collect()
    }

    /// It has come so far, as its server says now. One that was written to meanwhile is not chosen at all.
    fn got_to(
        &self,
        (at, candidate): (usize, &Candidate),
        goal: Goal,
        now: &ServerStatus,
        has: &GtidSet,
    ) -> Result<(), CommandError> {
        let chosen = self.status_of(&candidate.alias).unwrap_or(now);
        let grounds = PromotionGrounds::caught_up(chosen, now, has.clone());
        let fits = grounds.check(now);
        if let Some(runner) = self.runners.borrow_mut().get_mut(at) {
            runner.progress = match (&fits, goal) {
                (Err(_), Goal::Required | Goal::All) => Progress::Failed,
                (Ok(()), Goal::Required) => Progress::HasRequired,
                (Ok(()), Goal::All) => Progress::HasAll { at: self.started.elapsed() },
            };
            runner.grounds = fits.is_ok().then_some(grounds);
        }
        self.changed.notify_one();
        fits
    }

    /// It follows another source now. One that may be chosen already is chosen as it is from here on.
    fn moved(&self, at: usize, status: &ServerStatus) {
        if let Some(runner) = self.runners.borrow_mut().get_mut(at) {
            let had = runner.grounds.take();
            runner.grounds = had.map(|had| {
                let own = had.own.clone();
                PromotionGrounds { own, ..PromotionGrounds::of(status, had.position) }
            });
        }
    }

    /// It does not get further. One that has what is required may still be chosen.
    fn gave_up(&self, at: usize, error: String) {
        if let Some(runner) = self.runners.borrow_mut().get_mut(at) {
            runner.error = Some(error);
            if runner.progress == Progress::Working {
                runner.progress = Progress::Failed;
            }
        }
        self.changed.notify_one();
    }

    fn forbid(&self, at: usize, why: String) {
        if let Some(runner) = self.runners.borrow_mut().get_mut(at) {
            runner.forbidden = true;
        }
        self.gave_up(at, why);
    }

    fn status_of(&self, alias: &TabletAlias) -> Option<&ServerStatus> {
        let contender = self.contenders.iter().find(|one| one.tablet.alias == *alias);
        contender.map(|contender| &contender.status)
    }
}

impl Locked<'_> {
    /// Lets the candidates get and apply what they lack, and answers who is to be promoted, and on what grounds.
    pub(super) async fn choose_when_ready(
        &self,
        contenders: &[Contender],
        election: &Election,
    ) -> Result<Chosen, Stopped> {
        let race = self.race(contenders, election);
        let running = election.candidates.iter().enumerate();
        let running = future::join_all(running.map(|(at, one)| self.run(&race, at, one, election)));
        let deciding = self.decide(&race, election);
        tokio::pin!(running, deciding);
        let choice = match future::select(deciding, running).await {
            Either::Left((choice, _)) => choice,
            Either::Right((_, deciding)) => deciding.await,
        };
        self.chosen(&race, election, choice)
    }

    fn race<'a>(&self, contenders: &'a [Contender], election: &Election) -> Race<'a> {
        let race = Race {
            started: Instant::now(),
            contenders,
            runners: RefCell::default(),
            changed: Notify::new(),
        };
        for candidate in &election.candidates {
            let status = race.status_of(&candidate.alias);
            let progress = status.map_or(Progress::Failed, |status| {
                catch_up::begun(candidate, election, &status.gtid_executed)
            });
            let grounds = status
                .filter(|_| progress != Progress::Working)
                .map(|status| PromotionGrounds::of(status, reached(progress, candidate, election)));
            race.runners.borrow_mut().push(Runner {
                progress,
                grounds,
                error: None,
                forbidden: false,
            });
        }
        race
    }

    async fn decide(&self, race: &Race<'_>, election: &Election) -> Choice {
        let hindered: Vec<bool> =
            election.candidates.iter().map(|one| one.hindrance.is_some()).collect();
        let patience = Patience {
            rest_within: catch_up::patience_for_the_rest(election, &self.job.settings),
            hindered: &hindered,
            unhindered_within: self.job.settings.wait_replicas_timeout,
        };
        loop {
            let choice = catch_up::choose(&race.progress(), race.started.elapsed(), patience);
            let Choice::WaitUntil(until) = choice else { return choice };
            let changed = race.changed.notified();
            match race.started.checked_add(until) {
                // Too late or somebody came further: decide anew.
                Some(deadline) => drop(timeout_at(deadline, changed).await),
                None => changed.await,
            }
        }
    }

    fn chosen(
        &self,
        race: &Race<'_>,
        election: &Election,
        choice: Choice,
    ) -> Result<Chosen, Stopped> {
        let mut runners = race.runners.borrow_mut();
        let reasons: Vec<String> = election
            .candidates
            .iter()
            .zip(runners.iter())
            .filter_map(|(one, runner)| Some(format!("{}: {}", one.alias, runner.error.as_ref()?)))
            .collect();
        let forbidden = runners.iter().any(|runner| runner.forbidden);
        let nobody = || {
            let why = format!("no candidate is ready: {}", reasons.join("; "));
            if forbidden { Stopped::Refused(why) } else { Stopped::Failed(why) }
        };
        let at = match choice {
            Choice::Promote(at) => at,
            Choice::Nobody | Choice::WaitUntil(_) => return Err(nobody()),
        };
        let grounds = runners.get_mut(at).and_then(|runner| runner.grounds.take());
        let candidate = election.candidates.get(at);
        let (Some(grounds), Some(candidate)) = (grounds, candidate) else { return Err(nobody()) };
        Ok(Chosen { alias: candidate.alias.clone(), grounds })
    }

    /// One candidate's way: its applier runs without a delay, it gets what it lacks, and applies it.
    async fn run(&self, race: &Race<'_>, at: usize, candidate: &Candidate, election: &Election) {
        let better_is_ready =
            race.progress().iter().take(at + 1).any(|one| matches!(one, Progress::HasAll { .. }));
        if better_is_ready {
            return;
        }
        let policy = self.job.settings.unapplied;
        let applied = race
            .status_of(&candidate.alias)
            .map(|status| catch_up::check_applied(candidate, &status.gtid_executed, policy));
        if let Some(Err(why)) = applied {
            race.forbid(at, why.to_string());
            return;
        }
        if let Err(error) = self.catch_up(race, at, candidate, election).await {
            race.gave_up(at, error.to_string());
        }
    }

    async fn catch_up(
        &self,
        race: &Race<'_>,
        at: usize,
        candidate: &Candidate,
        election: &Election,
    ) -> Result<(), CommandError> {
        let (required, all) = catch_up::positions(candidate, election);
        self.let_apply(race, &candidate.alias).await?;
        let patience = self.job.settings.wait_replicas_timeout;
        if candidate.received.contains(&required)
            && race.progress().get(at) == Some(&Progress::Working)
        {
            let status = self.wait_until_applied(&candidate.alias, &required, patience).await?;
            race.got_to((at, candidate), Goal::Required, &status, &required)?;
        }
        if candidate.received.contains(&election.target) {
            let status = self.wait_until_applied(&candidate.alias, &all, patience).await?;
            return race.got_to((at, candidate), Goal::All, &status, &all);
        }
        self.go_by_sources(race, at, candidate, election).await
    }

    /// Asks one source after the other for what it lacks.
    async fn go_by_sources(
        &self,
        race: &Race<'_>,
        at: usize,
        candidate: &Candidate,
        election: &Election,
    ) -> Result<(), CommandError> {
        let (required, all) = catch_up::positions(candidate, election);
        let mut last = None;
        for (source, goal) in catch_up::routes(candidate, election, race.contenders) {
            let wanted = match goal {
                Goal::All => &all,
                Goal::Required if race.progress().get(at) == Some(&Progress::Working) => &required,
                Goal::Required => continue,
            };
            match self.get_from(race, (at, candidate), &source, wanted).await {
                Ok(status) => {
                    race.got_to((at, candidate), goal, &status, wanted)?;
                    if goal == Goal::All {
                        return Ok(());
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Follows a source that has what is wanted, which logs what it applies.
    async fn get_from(
        &self,
        race: &Race<'_>,
        (at, candidate): (usize, &Candidate),
        source: &TabletAlias,
        wanted: &GtidSet,
    ) -> Result<ServerStatus, CommandError> {
        self.let_apply(race, source).await?;
        let no_record = || CommandError::NotDone(format!("{source} has no record or no address"));
        let address = self.tablet(source).ok().and_then(|tablet| tablet.address());
        let follow = ServerCommand::follow(
            address.ok_or_else(no_record)?,
            false,
            SourceChange::Repoint,
            RelayLog::MustStay,
        );
        let timeout = self.job.settings.command_timeout;
        let step = StepKind::FollowMostAdvanced;
        let followed = self.command(step, &candidate.alias, follow, timeout).await?;
        catch_up::check_source_helps(&followed)?;
        race.moved(at, &followed);
        let patience = match candidate.sources.len() + candidate.lesser_sources.len() {
            1 => self.job.settings.wait_replicas_timeout,
            _ => SOURCE_PATIENCE.min(self.job.settings.wait_replicas_timeout),
        };
        self.wait_until_applied(&candidate.alias, wanted, patience).await
    }

    /// Starts an applier that stands, and lifts a delay.
    async fn let_apply(&self, race: &Race<'_>, alias: &TabletAlias) -> Result<(), CommandError> {
        let status = race.status_of(alias);
        let Some(replication) = status.and_then(|status| status.replication.as_ref()) else {
            return Ok(());
        };
        let timeout = self.job.settings.command_timeout;
        let lifted = self.lifted.borrow().contains_key(alias);
        if replication.delay_seconds > 0 && !lifted {
            // Remembered first: whatever becomes of it, it is put back.
            self.lifted.borrow_mut().insert(alias.clone(), replication.delay_seconds);
            let lift = ServerCommand::SetDelay { seconds: 0 };
            self.command(StepKind::LiftDelay, alias, lift, timeout).await?;
        } else if !replication.applier_running {
            self.command(StepKind::StartApplier, alias, ServerCommand::StartApplier, timeout)
                .await?;
        }
        Ok(())
    }

    async fn wait_until_applied(
        &self,
        alias: &TabletAlias,
        target: &GtidSet,
        patience: Duration,
    ) -> Result<ServerStatus, CommandError> {
        let wait = ServerCommand::WaitForPosition { target: target.clone(), timeout: patience };
        let deadline = patience + COMMAND_MARGIN;
        self.command(StepKind::CatchUp, alias, wait, deadline).await
    }

    async fn command(
        &self,
        kind: StepKind,
        alias: &TabletAlias,
        command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError> {
        let no_record = |_| CommandError::NotDone(format!("{alias} has no record"));
        let tablet = self.tablet(alias).map_err(no_record)?;
        self.job.on(kind, tablet, command, deadline).await
    }
}

/// What a candidate has that came so far.
fn reached(progress: Progress, candidate: &Candidate, election: &Election) -> GtidSet {
    let (required, all) = catch_up::positions(candidate, election);
    match progress {
        Progress::HasAll { .. } => all,
        Progress::HasRequired | Progress::Working | Progress::Failed => required,
    }
}
