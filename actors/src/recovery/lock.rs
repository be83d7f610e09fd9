//! The shard's lock is taken before anything is looked at or done, and given back at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use vtorc_core::audit::StepOutcome;
use vtorc_core::ids::TabletAlias;
use vtorc_core::knowledge::health::Reachability;
use vtorc_core::knowledge::observe::{Answer, TabletState};
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::ports::{CommandError, ServerCommand, TopoError};
use vtorc_core::recovery::step::StepKind;
use vtorc_core::recovery::task::Task;
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::Tablet;
use vtorc_core::topology::{ShardTopology, TopologyRead, merge_shard};

use super::job::{Job, LiftedDelays, Locked, Stopped};
use crate::counters::LockAction;
use crate::messages::{Audit, JournalsWereRead, ReparentKind, ShardTopologyWasRead};

/// An automatic recovery waits so long for the lock: whoever holds it is at work on the shard.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Reading the shard's records takes at most this long.
const TOPO_TIMEOUT: Duration = Duration::from_secs(15);
/// The end of a recovery waits so long for what it wrote to be read.
const RECORDS_PATIENCE: Duration = Duration::from_millis(500);

impl Job {
    /// Takes the shard's lock, then looks at everything anew: what was seen before may be over.
    pub(super) async fn lock(&self, task: &Task) -> Result<Locked<'_>, Stopped> {
        let patience = match task {
            Task::Requested(_) | Task::CureErrant(_) | Task::Forget(_) => {
                self.settings.lock_timeout
            }
            Task::Shard(..) | Task::Replicas(_) => LOCK_PATIENCE,
        };
        let action = lock_action(task);
        let shard = &self.seen.shard;
        let topo = &self.services.topo;
        // Whoever waits is told for whom, before the wait.
        let taking = async {
            match topo.lock_shard(shard, &action, Duration::ZERO).await {
                Err(TopoError::Locked { holder, .. }) if !patience.is_zero() => {
                    self.decided(StepKind::WaitForLock, None, format!("held by {holder}"));
                    topo.lock_shard(shard, &action, patience).await
                }
                other => other,
            }
        };
        let lock = self.topo_step(StepKind::TakeLock, None, taking).await?;
        self.services.auditor.do_send(Audit::Lock(shard.clone(), lock.token()));
        self.held.take(lock).await;
        let read = timeout(TOPO_TIMEOUT, topo.read_shard(shard));
        let read = async {
            read.await.unwrap_or_else(|_| Err(TopoError::Unavailable("no answer".into())))
        };
        let read = self.topo_step(StepKind::ReadRecords, None, read).await?;
        let topology = self.with_what_was_known(read)?;
        self.owner.records.do_send(ShardTopologyWasRead(topology.clone()));
        let policy =
            topology.durability.clone().map_err(|unknown| Stopped::Refused(unknown.to_string()))?;
        let fresh = self.look_again(&topology).await;
        Ok(Locked { job: self, fresh, policy, lifted: LiftedDelays::default() })
    }

    /// What cannot be read under the lock is what it was before.
    fn with_what_was_known(&self, read: TopologyRead) -> Result<ShardTopology, Stopped> {
        if sabotage::has(Bug::NeedAllCells) && read.is_partial() {
            return Err(Stopped::Failed("a cell cannot be read".into()));
        }
        if sabotage::has(Bug::NeedShardRecord) && !read.unread_shards.is_empty() {
            return Err(Stopped::Failed("the shard's record cannot be read".into()));
        }
        let gone =
            || Stopped::Failed(format!("there is no record of {} any more", self.seen.shard));
        let mut known = self.seen.topology();
        if sabotage::has(Bug::ForgetUnreadRecords) {
            known.tablets.clear();
        }
        merge_shard(known, read).ok_or_else(gone)
    }

    async fn look_again(&self, topology: &ShardTopology) -> ShardSnapshot {
        let asked_at = self.services.clock.now();
        let tablets: Vec<Tablet> = topology.tablets.values().cloned().collect();
        let step = self.begin_step(StepKind::AskEverybody, None);
        let answers = self.ask_all(&tablets, ServerCommand::ReadStatus).await;
        let answered = answers.values().filter(|answer| answer.is_ok()).count();
        let text = format!("{answered} of {} answered", tablets.len());
        self.end_step(step, StepOutcome::Done(text));
        let now = self.services.clock.now();
        self.tell_journals(&answers);
        let mut fresh = (*self.seen).clone();
        fresh.take_topology(topology, asked_at);
        for (alias, answer) in answers {
            let result = answer.map(Arc::new).map_err(CommandError::into_probe_failure);
            let claimed_by =
                self.services.claimed_by(&fresh, result.as_ref().ok().map(AsRef::as_ref));
            fresh.take_answer(&alias, Answer { sent_at: asked_at, result, claimed_by }, now);
        }
        fresh.judge(now);
        if sabotage::has(Bug::SecondLookForgets) {
            let turned_away = |state: &&mut TabletState| {
                matches!(state.reachability, Reachability::TurnedAway { .. })
            };
            for state in fresh.tablets.values_mut().filter(turned_away) {
                state.reachability = Reachability::Unseen;
            }
        }
        self.looked.get_or_init(|| Arc::new(fresh.clone()));
        fresh
    }

    /// The reparent journals that were read under the lock are not forgotten with the recovery: a finding that only
    /// they refute would come and go for ever.
    fn tell_journals(&self, answers: &BTreeMap<TabletAlias, Result<ServerStatus, CommandError>>) {
        let said = answers.iter().filter_map(|(alias, answer)| {
            let status = answer.as_ref().ok().filter(|status| status.journal_length.is_some())?;
            Some((alias.clone(), status.clone()))
        });
        self.owner.journals.do_send(JournalsWereRead(said.collect()));
    }

    /// What was written is known before the recovery is seen to have ended: nobody is shown the old primary after it.
    pub(super) async fn tell_records(&self) {
        let topo = &self.services.topo;
        let read = timeout(RECORDS_PATIENCE, topo.read_shard(&self.seen.shard)).await;
        // The watcher reads them as well.
        let Ok(Ok(read)) = read else { return };
        if let Ok(topology) = self.with_what_was_known(read) {
            self.owner.records.do_send(ShardTopologyWasRead(topology));
        }
    }

    /// Gives the lock back, if it was taken.
    pub(super) async fn release(&self) {
        let Some(lock) = self.held.give().await else { return };
        let services = &self.services;
        let before = services.clock.now();
        lock.release().await;
        services.auditor.do_send(Audit::Lock(self.seen.shard.clone(), None));
        let took = u64::try_from(before.age(services.clock.now()).as_millis());
        services.board.counters.count_lock(LockAction::Unlock, took.unwrap_or(u64::MAX));
    }
}

/// The text that other tools show of who holds the lock, as VTOrc words it.
fn lock_action(task: &Task) -> String {
    match (task, task.finding()) {
        (Task::Requested(request), _) => match request.kind {
            ReparentKind::Planned => format!(
                "PlannedReparentShard({}, AvoidPrimary = {})",
                named(request.new_primary.as_ref()),
                named(request.avoid_primary.as_ref())
            ),
            ReparentKind::Emergency => match &request.new_primary {
                Some(alias) => format!("EmergencyReparentShard({alias})"),
                None => "EmergencyReparentShard".to_owned(),
            },
        },
        (Task::Forget(request), _) => format!("VTOrc Forget {}", request.tablet),
        (Task::CureErrant(request), _) => format!("VTOrc {} for {}", task.kind(), request.tablet),
        (_, Some(finding)) => {
            format!("VTOrc Recovery for {} on {}", finding.kind, named(finding.tablet.as_ref()))
        }
        (_, None) => "VTOrc Recovery".to_owned(),
    }
}

fn named(alias: Option<&TabletAlias>) -> String {
    alias.map(ToString::to_string).unwrap_or_else(|| "<nil>".to_owned())
}
