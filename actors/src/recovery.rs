//! One recovery actor a shard: decides with core whether a recovery may start, runs at most one at a time,
//! and keeps its story. Nothing else changes servers or records.

mod catch_up;
mod decide;
mod errant;
mod give_back;
mod held;
mod hooks;
mod job;
mod lock;
mod login;
mod planned;
mod promote;
mod repair;
mod reparent;
mod story;
mod waiting;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Recipient, Supervised,
    WrapFuture,
};
use actix::{ActorFutureExt, fut};
use futures::FutureExt;
use slog::{Logger, info, o, warn};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vtorc_core::admission::Block;
use vtorc_core::admission::attempts::{self, Attempts};
use vtorc_core::admission::inaction::{HeldBack, Inaction};
use vtorc_core::audit::{Outcome, RecoveryRecord};
use vtorc_core::ids::{KeyspaceShard, RecoveryId};
use vtorc_core::knowledge::memory::LastHeard;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::ports::HistoryError;
use vtorc_core::recovery::task::Task;
use vtorc_core::remedy::{self, Wanted};
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::time::Timestamp;

use crate::guardian::start_guarded;
use crate::messages::{
    Accepted, Audit, CircumstancesChanged, JournalsWereRead, LiftBlock, Recover, RecoveryReport,
    Rejected, RequestRecovery, ShardTopologyWasRead, Stop,
};
use crate::meters::{Meter, Who};
use crate::patience::answer_within;
use crate::services::Services;
use give_back::give_back_lock;
use job::Job;
use waiting::Waiting;

/// Messages that may wait; the shard repeats what matters.
const MAILBOX_MAX: usize = 64;

/// The history is given so long to tell of a block, ...
const BLOCK_PATIENCE: Duration = Duration::from_secs(2);
/// ... and is asked again after this.
const BLOCK_RETRY: Duration = Duration::from_secs(1);

/// The shard's actor, as far as its recoveries tell it something.
#[derive(Clone)]
pub(crate) struct Owner {
    /// How recoveries stand.
    pub(crate) report: Recipient<RecoveryReport>,
    /// What a recovery read under the lock: it may be newer than what the watcher knows.
    pub(crate) records: Recipient<ShardTopologyWasRead>,
    /// What it read of reparent journals, which no probe reads.
    pub(crate) journals: Recipient<JournalsWereRead>,
    /// What somebody asked for and whose turn it is now: it is done by what is known then.
    pub(crate) requests: Recipient<RequestRecovery>,
}

/// Runs the recoveries of one shard.
pub struct RecoveryActor {
    services: Services,
    shard: KeyspaceShard,
    owner: Owner,
    attempts: Option<Attempts>,
    running: Option<Running>,
    /// What somebody asked for while another recovery ran.
    waiting: Option<Waiting>,
    begun: u64,
    held: Vec<HeldBack>,
    unread: Option<Unread>,
    /// When the shard's primary was last heard by an earlier process.
    heard_before: Option<LastHeard>,
    /// What was seen before it may be what the last recovery changed.
    fresh_after: Timestamp,
    meter: Arc<Meter>,
    log: Logger,
}

/// The block period could not be read yet.
struct Unread {
    why: String,
    since: Timestamp,
}

struct Running {
    /// Tells it from one that was called off before it had a number.
    serial: u64,
    /// None while it is fetched.
    id: Option<RecoveryId>,
    task: Task,
    work: Option<JoinHandle<()>>,
}

impl Running {
    fn is_over(&self) -> bool {
        self.work.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Ends it where it is; answers its number, if it has one.
    fn call_off(&self) -> Option<RecoveryId> {
        if let Some(work) = &self.work {
            work.abort();
        }
        self.id
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct HistoryWasRead(Result<(Option<Block>, Option<LastHeard>), HistoryError>);

#[derive(Message)]
#[rtype(result = "()")]
struct IdWasGiven {
    serial: u64,
    id: RecoveryId,
    task: Task,
    snapshot: Arc<ShardSnapshot>,
    reply: Option<oneshot::Sender<Result<Accepted, Rejected>>>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Ended {
    id: RecoveryId,
    outcome: Outcome,
    /// The shard as it was found under the lock.
    seen: Option<Arc<ShardSnapshot>>,
    asker: Option<oneshot::Sender<Outcome>>,
}

impl RecoveryActor {
    /// Starts the shard's recovery actor.
    pub(crate) fn launch(
        services: &Services,
        shard: KeyspaceShard,
        owner: Owner,
    ) -> (Addr<Self>, Arc<Meter>) {
        let meter = services.board.meters.register(Who::Recovery(shard.clone()));
        let log = services
            .log
            .new(o!("keyspace" => shard.keyspace.clone(), "shard" => shard.shard.clone()));
        let actor = Self {
            services: services.clone(),
            shard,
            owner,
            attempts: None,
            running: None,
            waiting: None,
            begun: 0,
            held: Vec::new(),
            unread: None,
            heard_before: None,
            fresh_after: Timestamp::default(),
            meter: meter.clone(),
            log,
        };
        (start_guarded(actor, MAILBOX_MAX, meter.clone()), meter)
    }

    fn tell_owner(&self, ended: Option<RecoveryId>) {
        let now = self.services.clock.now();
        let block = self.block_at(now);
        self.owner.report.do_send(RecoveryReport {
            running: self.running.as_ref().and_then(|running| running.id),
            block,
            held_back: self.held_back(),
            ended,
            heard_before: self.heard_before.clone(),
            knows_history: self.attempts.is_some(),
        });
    }

    fn held_back(&self) -> Option<String> {
        let held = self.held.first().map(|held| &held.reason);
        held.or(self.unread.as_ref().map(|unread| &unread.why)).cloned()
    }

    /// Calls off what runs where the task goes before it.
    fn make_way(&mut self, task: &Task) -> bool {
        let Some(running) = &self.running else { return true };
        if !task.goes_before(&running.task) || running.is_over() {
            return false;
        }
        let id = running.call_off();
        self.running = None;
        // One that has no number yet has not begun.
        let Some(id) = id else { return true };
        warn!(self.log, "called off for a reparent"; "recovery" => %id);
        if let Some(record) = self.services.board.recovery(id) {
            let mut record = (*record).clone();
            record.outcome = Some(Outcome::Preempted);
            record.ended_at = Some(self.services.clock.now());
            self.services.auditor.do_send(Audit::Recovery(Box::new(record.clone())));
            self.services.board.post_recovery(record);
        }
        true
    }

    fn begin(
        &mut self,
        task: Task,
        snapshot: Arc<ShardSnapshot>,
        reply: Option<oneshot::Sender<Result<Accepted, Rejected>>>,
        context: &mut Context<Self>,
    ) {
        self.begun += 1;
        let serial = self.begun;
        // Nothing else may start while the number is fetched.
        self.running = Some(Running { serial, id: None, task: task.clone(), work: None });
        let (services, log) = (self.services.clone(), self.log.clone());
        let fetch = async move { services.numbers.next(services.history.as_ref(), &log).await };
        context.spawn(fetch.into_actor(self).then(move |id, _, context| {
            context.notify(IdWasGiven { serial, id, task, snapshot, reply });
            fut::ready(())
        }));
    }

    fn run(
        &mut self,
        id: RecoveryId,
        task: Task,
        snapshot: Arc<ShardSnapshot>,
        reply: Option<oneshot::Sender<Result<Accepted, Rejected>>>,
        context: &mut Context<Self>,
    ) {
        let log = self.log.new(o!("recovery" => id.to_string()));
        let now = self.services.clock.now();
        let (shard, finding) = (self.shard.clone(), task.finding());
        let record = RecoveryRecord::begin(id, shard, task.kind(), task.trigger(), finding, now);
        info!(log, "recovery begins"; "kind" => task.kind().name(), "finding" => record.finding.map(|finding| finding.to_string()),
            "evidence" => record.evidence.join("; "));
        let snapshot = self.with_what_was_heard_before(snapshot);
        let job = Job::new(self.services.clone(), record, snapshot, self.owner.clone(), log);
        let asker = reply.and_then(|reply| {
            let (asker, outcome) = oneshot::channel();
            reply.send(Ok(Accepted { id, outcome })).is_ok().then_some(asker)
        });
        let (myself, work_task) = (context.address(), task.clone());
        let work = actix::spawn(async move {
            let ran = AssertUnwindSafe(job.run(work_task)).catch_unwind().await;
            let (outcome, seen) = ran.unwrap_or_else(|_| {
                (Outcome::Unclear("the recovery panicked; this is a bug".into()), None)
            });
            myself.do_send(Ended { id, outcome, seen, asker });
        });
        // Whether it is held back is over for what is being done; the rest is decided again soon.
        self.hold(Vec::new());
        self.running = Some(Running { serial: self.begun, id: Some(id), task, work: Some(work) });
        self.meter.doing(format!("recovery {id}"));
        self.tell_owner(None);
    }

    /// Goes on with what is due instead, where the finding was another one once the lock was held.
    fn turn(&mut self, task: &Task, seen: Arc<ShardSnapshot>, context: &mut Context<Self>) {
        let Task::Shard(_, gone) = task else { return };
        let settings = self.services.recovery_settings();
        let times_gone = self.attempts.as_ref().map_or(0, |attempts| attempts.shard.vanished);
        let wanted = remedy::turns_into(gone, &seen, &settings, times_gone);
        let Some(wanted) = wanted else { return };
        context.notify(Recover { wanted, snapshot: seen });
    }

    /// What an outcome means for the next attempt. What somebody asked for means nothing.
    fn learn(&mut self, id: RecoveryId, task: &Task, outcome: &Outcome) {
        let now = self.services.clock.now();
        let settings = self.services.settings();
        let Some(attempts) = self.attempts.as_mut().filter(|_| !task.is_requested()) else {
            return;
        };
        let findings = task.findings();
        let blocks = attempts.learn(id, task.kind(), findings, outcome, &settings.recovery, now);
        if blocks {
            let block = attempts.shard.block.clone();
            self.services.auditor.do_send(Audit::Block(self.shard.clone(), block));
        }
    }

    fn block_at(&self, now: Timestamp) -> Option<Block> {
        self.attempts.as_ref().and_then(|attempts| attempts.shard.block_at(now)).cloned()
    }

    fn read_history(&self, context: &mut Context<Self>) {
        let (services, shard, log) = (self.services.clone(), self.shard.clone(), self.log.clone());
        let read = async move {
            give_back_lock(&services, &shard, &log).await;
            let block = answer_within(BLOCK_PATIENCE, services.history.block(&shard)).await?;
            let heard = services.history.last_heard(&shard);
            Ok((block, answer_within(BLOCK_PATIENCE, heard).await?))
        };
        context.spawn(read.into_actor(self).then(|read, _, context| {
            context.notify(HistoryWasRead(read));
            fut::ready(())
        }));
    }

    /// Where this process never heard the primary, an earlier one may have.
    fn with_what_was_heard_before(&self, mut seen: Arc<ShardSnapshot>) -> Arc<ShardSnapshot> {
        if self.heard_before.is_some() && seen.heard_before.is_none() {
            Arc::make_mut(&mut seen).heard_before.clone_from(&self.heard_before);
        }
        seen
    }

    /// Tried again, until it is given up.
    fn block_was_not_read(&mut self, error: &HistoryError, context: &mut Context<Self>) {
        if self.attempts.is_some() {
            context.run_later(BLOCK_RETRY, |actor, context| actor.read_history(context));
            return;
        }
        let now = self.services.clock.now();
        let since = self.unread.as_ref().map_or(now, |unread| unread.since);
        let why = format!("the block period cannot be read: {error}");
        if let Some(attempts) = attempts::without_history(since, now) {
            warn!(self.log, "recovering without the history"; "reason" => &why);
            (self.attempts, self.unread) = (Some(attempts), None);
            context.run_later(BLOCK_RETRY, |actor, context| actor.read_history(context));
            return;
        }
        warn!(self.log, "not recovering"; "reason" => &why);
        self.unread = Some(Unread { why, since });
        if !sabotage::has(Bug::NeedHistory) {
            context.run_later(BLOCK_RETRY, |actor, context| actor.read_history(context));
        }
    }
}

impl Actor for RecoveryActor {
    type Context = Context<Self>;

    /// What blocks the shard is read before anything is recovered.
    fn started(&mut self, context: &mut Context<Self>) {
        self.read_history(context);
    }
}

impl Supervised for RecoveryActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.attempts = None;
        self.running = None;
        self.waiting = None;
    }
}

impl Handler<HistoryWasRead> for RecoveryActor {
    type Result = ();
    fn handle(&mut self, HistoryWasRead(read): HistoryWasRead, context: &mut Context<Self>) {
        match read {
            Ok((block, heard)) => {
                self.unread = None;
                self.heard_before = heard;
                if self.attempts.is_some() {
                    // The block was given up; that an earlier process heard the primary is no less true.
                    return;
                }
                self.attempts = Some(Attempts::with_block(block));
            }
            Err(error) => self.block_was_not_read(&error, context),
        }
        self.tell_owner(None);
    }
}

impl Handler<Recover> for RecoveryActor {
    type Result = ();
    fn handle(&mut self, Recover { wanted, snapshot }: Recover, context: &mut Context<Self>) {
        self.meter.handled();
        let is_old_news = || snapshot.is_from_before(self.fresh_after);
        if self.services.is_ending() || (wanted != Wanted::Nothing && is_old_news()) {
            return;
        }
        let round = self.decide(wanted, &snapshot);
        if let Some(task) = round.approved.map(Task::from) {
            if self.make_way(&task) {
                self.begin(task, snapshot, None, context);
            }
        } else if self.running.is_none() {
            self.hold(round.held);
        }
    }
}

impl Handler<CircumstancesChanged> for RecoveryActor {
    type Result = ();
    fn handle(&mut self, _: CircumstancesChanged, _: &mut Context<Self>) {
        self.meter.handled();
        let now = self.services.clock.now();
        if let Some(attempts) = &mut self.attempts {
            attempts.circumstances_changed(now);
        }
    }
}

impl Handler<IdWasGiven> for RecoveryActor {
    type Result = ();
    fn handle(&mut self, message: IdWasGiven, context: &mut Context<Self>) {
        let IdWasGiven { serial, id, task, snapshot, reply } = message;
        if self.running.as_ref().is_none_or(|running| running.serial != serial) {
            // Called off meanwhile; only repairs are, and nobody waits for those.
            return;
        }
        self.run(id, task, snapshot, reply, context);
    }
}

impl Handler<Ended> for RecoveryActor {
    type Result = ();
    fn handle(&mut self, ended: Ended, context: &mut Context<Self>) {
        let Ended { id, outcome, seen, asker } = ended;
        if let Some(asker) = asker {
            // The asker may have gone away.
            let _ = asker.send(outcome.clone());
        }
        // The outcome of one that was called off comes too late to matter.
        let Some(running) = self.running.take_if(|running| running.id == Some(id)) else { return };
        self.learn(id, &running.task, &outcome);
        if outcome != Outcome::AlreadyFixed {
            self.fresh_after = self.services.clock.now();
        }
        // What it wrote is known at once, also where no watch tells of it.
        self.services.topology_wanted.notify_one();
        self.meter.doing("");
        match &outcome {
            Outcome::Refused(why) | Outcome::Failed(why) | Outcome::Unclear(why) => {
                self.meter.failed(why);
                let refused = matches!(outcome, Outcome::Refused(_));
                let inaction = if refused { Inaction::Refused } else { Inaction::Failed };
                let held = running.task.findings().iter();
                let held =
                    held.map(|finding| HeldBack::new(inaction, finding, why.clone())).collect();
                if !running.task.is_requested() {
                    self.hold(held);
                }
            }
            Outcome::Succeeded(_)
            | Outcome::AlreadyFixed
            | Outcome::Undone(_)
            | Outcome::Preempted
            | Outcome::Interrupted => {}
        }
        self.tell_owner(Some(id));
        // Whoever asked goes before what vtorc would do next.
        if self.is_next_turn() {
            return;
        }
        if let Some(seen) = seen.filter(|_| outcome == Outcome::AlreadyFixed) {
            self.turn(&running.task, seen, context);
        }
    }
}

impl Handler<LiftBlock> for RecoveryActor {
    type Result = ();
    fn handle(&mut self, LiftBlock { reply }: LiftBlock, _: &mut Context<Self>) {
        self.meter.handled();
        let Some(attempts) = &mut self.attempts else {
            let unread = Rejected::Unavailable("the block period was not read yet".into());
            drop(reply.send(Err(unread)));
            return;
        };
        let lifted = attempts.shard.block_at(self.services.clock.now()).cloned();
        attempts.shard.block = None;
        attempts.shard.fresh_start();
        self.services.auditor.do_send(Audit::Block(self.shard.clone(), None));
        self.hold(Vec::new());
        self.tell_owner(None);
        drop(reply.send(Ok(lifted)));
    }
}

impl Handler<Stop> for RecoveryActor {
    type Result = ();
    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        context.stop();
    }
}
