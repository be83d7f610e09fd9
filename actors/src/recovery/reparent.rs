//! Electing a first primary, and replacing one that is gone.
//!
//! Stop every receiver at once; make sure that nobody out of sight can acknowledge a write; let core elect;
//! let the winner apply what it received; promote it while the others are already being repointed.

use std::collections::BTreeSet;

use futures::future;
use vtorc_core::audit::StepOutcome;
use vtorc_core::ids::TabletAlias;
use vtorc_core::ports::{CommandError, ServerCommand, Sessions};
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::recovery::receivers;
use vtorc_core::recovery::reparent::{self, Adoption, Halted};
use vtorc_core::recovery::step::{Failpoint, StepKind};
use vtorc_core::reparent::choice::{Asked, Basis, Wish};
use vtorc_core::reparent::election::{Contender, Election, NOBODY};
use vtorc_core::reparent::safety::{self, Reach};
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::Tablet;

use super::catch_up::Chosen;
use super::job::{Locked, Stopped};
use super::promote::Promotion;
use crate::messages::ReparentRequest;

/// Who was to be demoted, what it had said before, and why it was not.
struct NotDemoted<'a> {
    tablet: Tablet,
    before: &'a ServerStatus,
    error: CommandError,
}

impl std::fmt::Display for NotDemoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} was not demoted: {}", self.tablet.alias, self.error)
    }
}

impl Locked<'_> {
    /// Elects among all tablets that answer, and makes the winner primary.
    pub(super) async fn reparent(
        &self,
        kind: RecoveryKind,
        request: Option<&ReparentRequest>,
    ) -> Result<String, Stopped> {
        let first = kind == RecoveryKind::ElectPrimary;
        let mut refused = BTreeSet::new();
        if first {
            let adoption = reparent::adoption(&self.fresh, self.policy);
            if let Some(adoption) = adoption.map_err(Stopped::refused)? {
                let (primary, serves) = (adoption.primary.alias.clone(), adoption.serves);
                match self.adopt(adoption).await {
                    // The tree gets another one then; one that serves is left alone.
                    Err(Stopped::NotPromoted(_)) if !serves => drop(refused.insert(primary)),
                    done => return done,
                }
            }
        }
        let managed = reparent::managed(&self.fresh);
        // One alone follows nobody.
        if first && managed.len() > 1 {
            self.check_logins(&managed).await?;
        }
        let old_primary = self.fresh.primary().map(|state| state.tablet.alias.clone());
        self.job.note(|record| record.old_primary.clone_from(&old_primary));
        let wish = reparent::wish(&self.fresh, request);
        // No answer changes these, so they are asked before anybody is stopped.
        safety::check_named(&self.fresh).map_err(Stopped::refused)?;
        reparent::check_worthwhile(self.basis(), wish).map_err(Stopped::refused)?;
        let action = if first { "InitShardPrimary" } else { "EmergencyReparentShard" };
        self.promote_best(old_primary.as_ref(), wish, action, refused).await
    }

    /// Promotes the best candidate; the next one where that refuses and certainly was not opened.
    async fn promote_best(
        &self,
        old_primary: Option<&TabletAlias>,
        wish: Wish<'_>,
        action: &'static str,
        refused: BTreeSet<TabletAlias>,
    ) -> Result<String, Stopped> {
        let (mut refused, mut refusals) = (refused, Vec::new());
        let mut closed = BTreeSet::new();
        loop {
            let tried = self.promote_one(old_primary, wish, action, (&refused, &mut closed)).await;
            match tried {
                Err((Some(alias), Stopped::NotPromoted(why)))
                    if !sabotage::has(Bug::TryOneOnly) =>
                {
                    refused.insert(alias);
                    refusals.push(why);
                }
                Err((
                    _,
                    Stopped::Refused(why) | Stopped::Failed(why) | Stopped::NotPromoted(why),
                )) if !refusals.is_empty() => {
                    refusals.push(why);
                    return Err(Stopped::Failed(refusals.join("; then: ")));
                }
                done => return done.map_err(|(_, why)| why),
            }
        }
    }

    /// Promotes the best of those who did not refuse; an error tells who was chosen.
    async fn promote_one(
        &self,
        old_primary: Option<&TabletAlias>,
        wish: Wish<'_>,
        action: &'static str,
        (refused, closed): (&BTreeSet<TabletAlias>, &mut BTreeSet<TabletAlias>),
    ) -> Result<String, (Option<TabletAlias>, Stopped)> {
        let nobody = |why| (None, why);
        self.check_lock().await.map_err(nobody)?;
        let stop = self.stop_everything(old_primary, closed);
        let (stopped, refuse_replicas) = future::join(stop, self.refuse_replicas()).await;
        let (mut contenders, not_demoted) = stopped.map_err(nobody)?;
        for one in &mut contenders {
            one.refuses_replicas = refuse_replicas.contains(&one.tablet.alias);
        }
        *closed = reparent::closed(&contenders);
        let chosen = match self.elect(&contenders, wish, refused).await {
            Err(Stopped::Refused(why)) if !not_demoted.is_empty() => {
                let why = format!("{why}; {}", not_demoted.join("; "));
                return Err(nobody(Stopped::Refused(why)));
            }
            chosen => chosen.map_err(nobody)?,
        };
        self.check_lock().await.map_err(nobody)?;
        let promotion = Promotion {
            winner: self.tablet(&chosen.alias).map_err(nobody)?.clone(),
            grounds: chosen.grounds,
            followers: reparent::followers(&contenders, &chosen.alias),
            action,
            refused: refused.clone(),
            writes_stopped_at: self.writes_stopped_at(),
        };
        self.promote(promotion).await.map_err(|why| (Some(chosen.alias), why))
    }

    /// No server took writes since the old primary was last heard of.
    fn writes_stopped_at(&self) -> Option<vtorc_core::time::Timestamp> {
        self.job.seen.primary().and_then(|primary| primary.reachability.failing_since())
    }

    /// What an election goes by.
    pub(super) fn basis(&self) -> Basis<'_> {
        Basis {
            snapshot: &self.fresh,
            policy: self.policy,
            settings: &self.job.settings,
            refused: &NOBODY,
        }
    }

    /// Takes over a replication tree that works: nobody is stopped or repointed.
    async fn adopt(&self, adoption: Adoption) -> Result<String, Stopped> {
        let Adoption { primary, grounds, followers, serves: _ } = adoption;
        let why = "all others follow it already".to_owned();
        self.job.decided(StepKind::FindPrimary, Some(&primary.alias), why);
        self.check_lock().await?;
        let promotion = Promotion {
            winner: primary,
            grounds,
            followers,
            action: "InitShardPrimary",
            refused: BTreeSet::new(),
            writes_stopped_at: None,
        };
        // It is followed already: a write that went out before its followers acknowledge would wait for ever.
        self.repoint_all(&promotion, None).await;
        self.promote(promotion).await
    }

    /// Stops every receiver at once. Whoever may be taking writes is demoted by force, and its position counts; tells
    /// also who could not be demoted, and why. Of those who refused writes the last time nobody takes any: whoever
    /// does was opened by somebody else, who is not disturbed.
    async fn stop_everything(
        &self,
        old_primary: Option<&TabletAlias>,
        closed: &BTreeSet<TabletAlias>,
    ) -> Result<(Vec<Contender>, Vec<String>), Stopped> {
        let step = self.job.begin_step(StepKind::StopAllReceivers, None);
        let tablets = reparent::to_be_stopped(&self.fresh);
        let enough = |reached: &BTreeSet<TabletAlias>| {
            Reach::of(&self.fresh, self.policy, reached).check_reached(old_primary).is_ok()
        };
        let answers = self.job.ask_until(&tablets, ServerCommand::StopReceiver, enough).await;
        let mut stopped = Vec::new();
        let mut open: Vec<(Tablet, &ServerStatus)> = Vec::new();
        let (mut silent, mut writable) = (Vec::new(), Vec::new());
        for tablet in &tablets {
            match answers.get(&tablet.alias) {
                Some(Ok(status)) if status.is_writable() && closed.contains(&tablet.alias) => {
                    writable.push(tablet.alias.to_string());
                }
                Some(Ok(status)) => match reparent::halted(tablet, status) {
                    Halted::TakesPart => {
                        stopped.push(self.contender(tablet, status));
                    }
                    Halted::MustRefuseWrites => open.push((tablet.clone(), status)),
                    Halted::LeftAlone => {}
                },
                Some(Err(error)) => silent.push(format!("{}: {error}", tablet.alias)),
                None => {}
            }
        }
        let text = match silent.is_empty() {
            true => format!("{} stopped, {} to be demoted", stopped.len(), open.len()),
            false => format!(
                "{} stopped, {} to be demoted, not reached: {}",
                stopped.len(),
                open.len(),
                silent.join("; ")
            ),
        };
        self.job.end_step(step, StepOutcome::Done(text));
        self.job.failpoint(Failpoint::After(StepKind::StopAllReceivers));
        if !writable.is_empty() {
            self.let_go_on(&stopped).await;
            let who = writable.join(", ");
            return Err(Stopped::Failed(format!("somebody else made {who} take writes meanwhile")));
        }
        let mut not_demoted = Vec::new();
        if !open.is_empty() && !sabotage::has(Bug::LeaveWritable) {
            self.check_lock().await?;
            let (demoted, failed) = self.demote_all(&open).await;
            stopped.extend(demoted);
            for NotDemoted { tablet, before, error } in &failed {
                let checked = reparent::check_demoted(self.basis(), tablet, before, error);
                if let Err(why) = checked {
                    self.let_go_on(&stopped).await;
                    return Err(Stopped::refused(why));
                }
            }
            not_demoted = failed.iter().map(ToString::to_string).collect();
        }
        Ok((stopped, not_demoted))
    }

    fn contender(&self, tablet: &Tablet, status: &ServerStatus) -> Contender {
        let now = self.job.services.clock.now();
        Contender::new(tablet, status.clone(), &self.fresh).by_its_memory(&self.fresh, now)
    }

    /// One that refuses writes already takes part also where it does not let us demote it.
    async fn demote_all<'a>(
        &self,
        open: &[(Tablet, &'a ServerStatus)],
    ) -> (Vec<Contender>, Vec<NotDemoted<'a>>) {
        let step = self.job.begin_step(StepKind::DemoteAlone, None);
        let demote = ServerCommand::Demote { sessions: Sessions::EndAll };
        let tablets: Vec<Tablet> = open.iter().map(|(tablet, _)| tablet.clone()).collect();
        let answers = self.job.ask_all(&tablets, demote).await;
        let mut demoted = Vec::new();
        let mut failed = Vec::new();
        for (tablet, before) in open {
            match answers.get(&tablet.alias) {
                Some(Ok(status)) => {
                    demoted.push(self.contender(tablet, status));
                }
                Some(Err(error)) => {
                    if reparent::is_shut(&self.fresh, before) {
                        demoted.push(self.contender(tablet, before));
                    }
                    let (tablet, error) = (tablet.clone(), error.clone());
                    failed.push(NotDemoted { tablet, before, error });
                }
                None => {}
            }
        }
        let told: Vec<String> = failed.iter().map(ToString::to_string).collect();
        self.job.end_step(
            step,
            match told.is_empty() {
                true => StepOutcome::Done(format!("{} demoted", demoted.len())),
                false => StepOutcome::Unknown(told.join("; ")),
            },
        );
        (demoted, failed)
    }

    /// Elects, and lets the candidates catch up.
    async fn elect(
        &self,
        contenders: &[Contender],
        wish: Wish<'_>,
        refused: &BTreeSet<TabletAlias>,
    ) -> Result<Chosen, Stopped> {
        let basis = Basis { refused, ..self.basis() };
        let chosen = match basis.choose(contenders, Asked::Stopped, wish) {
            Ok(election) => {
                let chosen = self.choose_when_ready(contenders, &election).await;
                chosen.inspect(|chosen| self.announce(&election, &chosen.alias))
            }
            Err(why) => Err(Stopped::Refused(why.to_string())),
        };
        if chosen.is_err() {
            self.let_go_on(contenders).await;
        }
        chosen
    }

    /// Nothing comes of it: those who were stopped go on as before.
    async fn let_go_on(&self, contenders: &[Contender]) {
        let stopped = contenders.iter().filter(|one| one.was_replica).map(|one| one.tablet.clone());
        let replicas: Vec<Tablet> =
            stopped.filter(|one| receivers::goes_on(&self.fresh, &one.alias)).collect();
        if replicas.is_empty() {
            return;
        }
        let step = self.job.begin_step(StepKind::StartReceivers, None);
        let answers = self.job.ask_all(&replicas, ServerCommand::RestartReceiver).await;
        let failed: Vec<String> = answers
            .iter()
            .filter_map(|(alias, answer)| {
                answer.as_ref().err().map(|error| format!("{alias}: {error}"))
            })
            .collect();
        self.job.end_step(
            step,
            match failed.is_empty() {
                true => StepOutcome::Done(String::new()),
                false => StepOutcome::NotDone(failed.join("; ")),
            },
        );
        for tablet in &replicas {
            self.put_delay_back(tablet).await;
        }
    }

    /// A delay that was lifted for the reparent is set again.
    pub(super) async fn put_delay_back(&self, tablet: &Tablet) {
        let seconds = self.lifted.borrow().get(&tablet.alias).copied();
        let Some(seconds) = seconds else { return };
        let set = ServerCommand::SetDelay { seconds };
        let timeout = self.job.settings.command_timeout;
        // Where it fails it is tried again at the end, and the story says so; the tablet replicates without a delay.
        if self.job.on(StepKind::PutDelayBack, tablet, set, timeout).await.is_ok() {
            self.lifted.borrow_mut().remove(&tablet.alias);
        }
    }

    /// Whatever became of the reparent, a replica that is late on purpose is late again.
    pub(super) async fn put_delays_back(&self) {
        let lifted: Vec<TabletAlias> = self.lifted.borrow().keys().cloned().collect();
        for tablet in lifted.iter().filter_map(|alias| self.tablet(alias).ok()) {
            let status = self.job.send(tablet, ServerCommand::ReadStatus).await;
            if status.is_ok_and(|status| status.replication.is_some()) {
                self.put_delay_back(tablet).await;
            }
        }
    }

    /// Tells who was chosen, and why the others were not.
    pub(super) fn announce(&self, election: &Election, chosen: &TabletAlias) {
        let others = election.others(chosen);
        let others: Vec<String> =
            others.iter().map(|one| format!("{}: {}", one.alias, one.reason)).collect();
        let mut candidates = election.candidates.iter();
        let winner = candidates.find(|one| one.alias == *chosen);
        let hindrance = winner.and_then(|one| one.hindrance.as_ref());
        let although = hindrance.map(|why| format!("although {why}; ")).unwrap_or_default();
        let text = match others.is_empty() {
            true => format!("{although}not contested"),
            false => format!("{although}not {}", others.join("; ")),
        };
        self.job.decided(StepKind::Elect, Some(chosen), text);
    }
}
