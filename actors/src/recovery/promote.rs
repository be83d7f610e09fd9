//! The second half of every reparent: promote, record, repoint, journal, verify.
//!
//! Order, so that a crash between any two writes leaves something that the next run completes: the server
//! takes writes; its tablet's record says PRIMARY with a new term; the shard's record names it; the old
//! primary's record says REPLICA. The topology never names a primary that was not promoted.

use std::collections::BTreeSet;

use futures::future::{self, FutureExt, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::SetOnce;
use tokio::time::{Instant, sleep, sleep_until};
use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::TabletAlias;
use vtorc_core::ports::{CommandError, PromotionGrounds, RelayLog, ServerCommand, TopoError};
use vtorc_core::recovery::promotion::{self, Following, Opened, Turn};
use vtorc_core::recovery::replica;
use vtorc_core::recovery::step::StepKind;
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::{Tablet, TabletType};
use vtorc_core::time::{TermStart, Timestamp};

use super::job::{Locked, Stopped};

/// Replicas that take longer than this to be repointed, once the winner is primary, go on as findings of their own.
const REPOINT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// A vttablet that was promoted makes the records say so within this.
const RECORDED_WITHIN: std::time::Duration = std::time::Duration::from_secs(15);
/// How often that is looked for.
const RECORDED_LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// What is to be done.
pub(super) struct Promotion {
    /// The new primary.
    pub(super) winner: Tablet,
    /// What it was chosen on.
    pub(super) grounds: PromotionGrounds,
    /// Who is to follow the winner.
    pub(super) followers: Vec<Tablet>,
    /// Vitess's name of what is done, for the reparent journal.
    pub(super) action: &'static str,
    /// Who refused to be promoted before in this recovery: others may follow these by now.
    pub(super) refused: BTreeSet<TabletAlias>,
    /// Since when no server takes writes, where that is known.
    pub(super) writes_stopped_at: Option<Timestamp>,
}

/// The promotion was not answered, and neither was the question whether it was done.
fn nobody_knows(winner: &Tablet, why: &str, error: &CommandError) -> Stopped {
    let winner = &winner.alias;
    Stopped::Unclear(format!("nobody knows whether {winner} was promoted: {why}; {error}"))
}

impl Locked<'_> {
    /// Promotes the winner while the others are already being repointed, and records it.
    pub(super) async fn promote(&self, promotion: Promotion) -> Result<String, Stopped> {
        let winner = &promotion.winner;
        let promoted = SetOnce::new();
        let repointing = self.repoint_all(&promotion, Some(&promoted));
        let promoting = async {
            if sabotage::has(Bug::RecordFirst) {
                self.record(&promotion).await?;
            }
            let status = self.take_writes(&promotion).await?;
            let _ = promoted.set(status.clone());
            let now = self.job.services.clock.now();
            let outage = promotion.writes_stopped_at.map(|since| since.age(now).as_millis());
            self.job.note(|record| {
                record.new_primary = Some(winner.alias.clone());
                record.write_outage_ms = outage.and_then(|ms| u64::try_from(ms).ok());
            });
            // Recorded and journalled side by side: the journal waits for an acknowledgement.
            let recorded = self.record(&promotion);
            let repointed = self.repoint_the_rest(&promotion, &status);
            let journalled = self.journal(&promotion, status.gtid_executed.clone(), now);
            let (recorded, journalled, rest) = future::join3(recorded, journalled, repointed).await;
            recorded?;
            journalled.map(|()| rest)
        };
        tokio::pin!(repointing, promoting);
        // Repointing is not waited for if the promotion fails: that must be known at once.
        let (promoted, mut followed) = match future::select(promoting, repointing).await {
            future::Either::Left((promoted, repointing)) => {
                promoted.as_ref().map_err(Clone::clone)?;
                (promoted, repointing.await)
            }
            future::Either::Right((followed, promoting)) => (promoting.await, followed),
        };
        followed.extend(promoted?);
        Ok(match followed.len() {
            0 if promotion.followers.is_empty() => {
                format!("{} is primary; it has no replicas", winner.alias)
            }
            count => format!(
                "{} is primary; {count} of {} follow it",
                winner.alias,
                promotion.followers.len()
            ),
        })
    }

    async fn take_writes(&self, promotion: &Promotion) -> Result<ServerStatus, Stopped> {
        let Promotion { winner, grounds, .. } = promotion;
        let (acks, grounds) = (self.policy.acks_required(), grounds.clone());
        let promote = ServerCommand::Promote { acks, grounds };
        let timeout = self.job.settings.command_timeout;
        let patience = self.opening_patience(winner).await?;
        match self.job.on(StepKind::Promote, winner, promote, patience).await {
            Ok(status) if status.is_writable() => Ok(status),
            Ok(_) => {
                Err(Stopped::Unclear(format!("{} was promoted and refuses writes", winner.alias)))
            }
            Err(error @ (CommandError::Unreached(_) | CommandError::NotDone(_))) => {
                Err(Stopped::NotPromoted(format!("{} was not promoted: {error}", winner.alias)))
            }
            // No answer is no answer: look, and never promote another one on a guess.
            Err(CommandError::Unknown(why)) => {
                // Late enough: the server's own deadline was counted from before.
                let over = Instant::now() + patience;
                let look = ServerCommand::ReadStatus;
                let looked = self.job.on(StepKind::SeeWhetherPromoted, winner, look, timeout);
                match promotion::opened(looked.await) {
                    Opened::Yes(status) => Ok(*status),
                    Opened::No => self.stays_closed(winner, over, &why).await,
                    Opened::Unknown(error) => Err(nobody_knows(winner, &why, &error)),
                }
            }
        }
    }

    /// Waits until nobody is at it any more, neither a statement nor its vttablet, and looks for the last time.
    async fn stays_closed(
        &self,
        winner: &Tablet,
        over: Instant,
        why: &str,
    ) -> Result<ServerStatus, Stopped> {
        sleep_until(over).await;
        let timeout = self.job.settings.command_timeout;
        let look = ServerCommand::ReadStatus;
        let looked = self.job.on(StepKind::SeeWhetherPromoted, winner, look, timeout).await;
        match promotion::opened_at_last(winner, looked) {
            Opened::Yes(status) => Ok(*status),
            Opened::No => {
                Err(Stopped::NotPromoted(format!("{} was not promoted: {why}", winner.alias)))
            }
            Opened::Unknown(error) => Err(nobody_knows(winner, why, &error)),
        }
    }

    /// Makes the topology say what is. Without the lock it does not: somebody else may have promoted another one, and
    /// whoever holds the lock next sees who takes writes.
    pub(super) async fn record(&self, promotion: &Promotion) -> Result<(), Stopped> {
        let topo = &self.job.services.topo;
        let winner = &promotion.winner;
        let unclear = |stopped: Stopped| match stopped {
            Stopped::Failed(why) | Stopped::NotPromoted(why) => {
                Stopped::Unclear(format!("{} takes writes, but {why}", winner.alias))
            }
            other @ (Stopped::AlreadyFixed
            | Stopped::Refused(_)
            | Stopped::Undone(_)
            | Stopped::Unclear(_)) => other,
        };
        match winner.vttablet {
            // It publishes its own type and the shard's primary itself.
            Some(_) => {
                let name = StepKind::AwaitRecords;
                let waited = self.recorded_by_itself(winner);
                self.job.topo_step(name, Some(&winner.alias), waited).await.map_err(unclear)?;
            }
            None => self.write_records(winner).await.map_err(unclear)?,
        }
        for stale in promotion::stale_records(&self.fresh, &winner.alias) {
            let set = topo.set_tablet_type(stale, TabletType::Replica, None);
            // Its term is older than the winner's. Where its cell is away with it, it is a finding until it can be
            // written.
            let _ = self.write_record(StepKind::RecordOldPrimaryType, stale, set).await;
        }
        Ok(())
    }

    async fn write_records(&self, winner: &Tablet) -> Result<(), Stopped> {
        let topo = &self.job.services.topo;
        let term = TermStart::after(self.fresh.newest_term(), self.job.services.clock.now());
        let set = topo.set_tablet_type(&winner.alias, TabletType::Primary, Some(term));
        self.write_record(StepKind::RecordPrimaryType, &winner.alias, set).await?;
        if self.fresh.unread_record.is_some() {
            // It is completed once it can be read again. The tablets' records tell until then.
            return Ok(());
        }
        let set = topo.set_shard_primary(&self.fresh.shard, &winner.alias, term);
        self.write_record(StepKind::RecordShardPrimary, &winner.alias, set).await
    }

    /// Waits until the records name a winner whose vttablet records it.
    async fn recorded_by_itself(&self, winner: &Tablet) -> Result<(), TopoError> {
        let topo = &self.job.services.topo;
        let deadline = Instant::now() + RECORDED_WITHIN;
        loop {
            let read = topo.read_shard(&self.fresh.shard).await?;
            let Some(shard) = read.shards.get(&self.fresh.shard) else {
                return Err(TopoError::NoNode(self.fresh.shard.to_string()));
            };
            // Where the shard's own record cannot be read, the vttablet cannot write it either.
            let named = shard.record.primary_alias.as_ref() == Some(&winner.alias)
                || read.unread_shards.contains_key(&self.fresh.shard);
            let record = shard.tablets.get(&winner.alias);
            if named && record.is_some_and(|one| one.tablet_type == TabletType::Primary) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(TopoError::Unavailable(format!(
                    "the vttablet of {} did not make the records name it",
                    winner.alias
                )));
            }
            sleep(RECORDED_LOOK).await;
        }
    }

    /// The first write of the new term. Under semi-sync it returns when a replica has it: proof that the
    /// shard takes writes again.
    async fn journal(
        &self,
        promotion: &Promotion,
        position: GtidSet,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let winner = &promotion.winner;
        let write = ServerCommand::WriteJournal {
            action: promotion.action.to_owned(),
            primary: winner.alias.clone(),
            position,
            time_created_ns: now.as_millis().saturating_mul(1_000_000),
        };
        let timeout = self.job.settings.command_timeout;
        match self.job.on(StepKind::WriteJournal, winner, write, timeout).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let what = match &error {
                    // It takes writes, and refuses this one: as a table of another making does.
                    CommandError::NotDone(_) => "its reparent journal cannot be written",
                    CommandError::Unreached(_) | CommandError::Unknown(_) => {
                        "its first write did not complete"
                    }
                };
                let alias = &winner.alias;
                Err(Stopped::Unclear(format!("{alias} was promoted, but {what}: {error}")))
            }
        }
    }

    /// Points everybody at the winner at once; answers who followed in time. Until the promotion is sure, nothing that
    /// was received and is not applied is thrown away; whoever would have to is asked again then.
    pub(super) async fn repoint_all(
        &self,
        promotion: &Promotion,
        promoted: Option<&SetOnce<ServerStatus>>,
    ) -> Vec<TabletAlias> {
        let mut waiting: FuturesUnordered<LocalBoxFuture<'_, Option<TabletAlias>>> =
            FuturesUnordered::new();
        for tablet in &promotion.followers {
            if promotion::turn(&self.fresh, &tablet.alias) == Turn::AtOnce {
                waiting.push(self.repoint_at_once(tablet, promotion, promoted).boxed_local());
            }
        }
        let mut followed = Vec::new();
        let collecting = async {
            while let Some(one) = waiting.next().await {
                followed.extend(one);
            }
        };
        // Whoever is asked again once the winner is primary has the same time for that.
        let late = async {
            if let Some(promoted) = promoted {
                promoted.wait().await;
            }
            sleep(REPOINT_PATIENCE).await;
        };
        tokio::pin!(collecting, late);
        future::select(collecting, late).await;
        followed
    }

    async fn repoint_at_once(
        &self,
        tablet: &Tablet,
        promotion: &Promotion,
        promoted: Option<&SetOnce<ServerStatus>>,
    ) -> Option<TabletAlias> {
        match (self.repoint(tablet, promotion, RelayLog::MustStay).await, promoted) {
            (Ok(()), _) => Some(tablet.alias.clone()),
            (Err(CommandError::NotDone(_)), Some(promoted)) => {
                let winner = promoted.wait().await;
                self.repoint_afterwards(tablet, promotion, winner).await
            }
            (Err(_), _) => None,
        }
    }

    /// Those with something that cannot be applied are repointed once the winner is primary for certain.
    async fn repoint_the_rest(
        &self,
        promotion: &Promotion,
        winner: &ServerStatus,
    ) -> Vec<TabletAlias> {
        let afterwards =
            |one: &&Tablet| promotion::turn(&self.fresh, &one.alias) == Turn::Afterwards;
        let rest = promotion.followers.iter().filter(afterwards);
        let repointed = rest.map(|tablet| self.repoint_afterwards(tablet, promotion, winner));
        future::join_all(repointed).await.into_iter().flatten().collect()
    }

    /// What it received and has not applied may go where the winner has it as well.
    async fn repoint_afterwards(
        &self,
        tablet: &Tablet,
        promotion: &Promotion,
        winner: &ServerStatus,
    ) -> Option<TabletAlias> {
        let winner = self.fresh.with_what_was_purged(&promotion.winner.alias, winner);
        let status = self.job.send(tablet, ServerCommand::ReadStatus).await.ok()?;
        let relay_log = replica::relay_log(&status, &winner, &self.fresh);
        self.repoint(tablet, promotion, relay_log).await.ok().map(|()| tablet.alias.clone())
    }

    async fn repoint(
        &self,
        tablet: &Tablet,
        promotion: &Promotion,
        relay_log: RelayLog,
    ) -> Result<(), CommandError> {
        let Promotion { winner, refused, .. } = promotion;
        let no_address = || CommandError::NotDone(format!("{} has no address", winner.alias));
        let source = winner.address().ok_or_else(no_address)?;
        let Following { semi_sync, change } =
            promotion::following(&self.fresh, self.policy, (tablet, winner), refused);
        let follow = ServerCommand::follow(source, semi_sync, change, relay_log);
        let timeout = self.job.settings.command_timeout;
        let done = self.job.on(StepKind::FollowNewPrimary, tablet, follow, timeout).await;
        self.put_delay_back(tablet).await;
        done.map(|_| ())
    }
}
