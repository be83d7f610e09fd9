//! One actor a shard: owns what is known about its tablets and asks for recoveries. What it does with an
//! event is decided by `ShardState::step`; this is the shell around it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Supervised};
use slog::{Logger, info, o, warn};
use vtorc_core::admission::inaction::{HeldBack, Inaction};
use vtorc_core::analysis::Finding;
use vtorc_core::audit::AuditEntry;
use vtorc_core::hooks::{Hook, Occasion};
use vtorc_core::ids::{KeyspaceShard, RecoveryId, TabletAlias};
use vtorc_core::knowledge::memory::LastHeard;
use vtorc_core::knowledge::observe::{Answer, TabletState};
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::ports::FindingsChange;
use vtorc_core::remedy::{self, Remedy};
use vtorc_core::reparent::prognosis::{self, Prognosis};
use vtorc_core::shard::{Effect, Pace, ProbeTarget, ShardEvent, ShardState};
use vtorc_core::topology::ShardTopology;

use crate::board::{News, ShardReport};
use crate::guardian::start_guarded;
use crate::messages::{
    Acknowledge, Aim, Audit, CircumstancesChanged, JournalsWereRead, LiftBlock, ProbeCompleted,
    Recover, RecoveryReport, RequestRecovery, SetPace, ShardTopologyWasRead, StartRequested, Stop,
};
use crate::meters::{Meter, Who};
use crate::prober::ProberActor;
use crate::recovery::{Owner, RecoveryActor};
use crate::services::Services;

/// Time itself is an event, so often while in doubt ...
const TICK_ALERT: Duration = Duration::from_millis(50);
/// ... and so often otherwise.
const TICK_CALM: Duration = Duration::from_secs(1);
/// Messages that a shard may have waiting; a shard has a handful of probers.
const MAILBOX_MAX: usize = 256;

/// Owns a shard.
pub struct ShardActor {
    services: Services,
    state: ShardState,
    report: RecoveryReport,
    /// The last recovery, until the shard was looked at once more.
    ended: Option<RecoveryId>,
    probers: BTreeMap<TabletAlias, (ProbeTarget, Addr<ProberActor>)>,
    recovery: Option<(Addr<RecoveryActor>, Arc<Meter>)>,
    pace: Pace,
    changed: bool,
    posted: Vec<String>,
    heard_kept: Option<LastHeard>,
    meter: Arc<Meter>,
    log: Logger,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

/// Stop the shard and everything below it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Retire;

impl ShardActor {
    /// Starts the shard's actors.
    pub(crate) fn launch(services: &Services, topology: ShardTopology) -> (Addr<Self>, Arc<Meter>) {
        let name = topology.shard.clone();
        let meter = services.board.meters.register(Who::Shard(name.clone()));
        let log = services
            .log
            .new(o!("keyspace" => name.keyspace.clone(), "shard" => name.shard.clone()));
        let actor = Self {
            state: ShardState::new(topology, services.settings().recovery.clone()),
            services: services.clone(),
            report: RecoveryReport::default(),
            ended: None,
            probers: BTreeMap::new(),
            recovery: None,
            pace: Pace::Calm,
            changed: true,
            posted: Vec::new(),
            heard_kept: None,
            meter: meter.clone(),
            log,
        };
        (start_guarded(actor, MAILBOX_MAX, meter.clone()), meter)
    }

    fn name(&self) -> &KeyspaceShard {
        self.state.name()
    }

    fn step(&mut self, event: ShardEvent, context: &mut Context<Self>) {
        self.state.configure(self.services.settings().recovery.clone());
        let effects = self.state.step(event, self.services.clock.now());
        for effect in effects {
            self.perform(effect, context);
        }
        self.keep_last_heard();
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::ProbeThese(targets) => self.probe_these(targets, context),
            Effect::SetPace(pace) => {
                self.pace = pace;
                self.probers.values().for_each(|(_, prober)| prober.do_send(SetPace(pace)));
            }
            Effect::Recover(wanted) => {
                self.tell_recovery(Recover { wanted, snapshot: self.state.latest() });
            }
            Effect::FindingsChanged { appeared, gone } => {
                self.log_findings(&appeared, &gone);
                self.keep_findings(&appeared, &gone);
                self.run_detection_hooks(appeared);
                self.hold_watched();
                self.changed = true;
                self.post();
            }
            Effect::CircumstancesChanged => {
                self.changed = true;
                self.tell_recovery(CircumstancesChanged);
            }
        }
    }

    /// What a process that comes after this one has to know of the primary.
    fn keep_last_heard(&mut self) {
        // What an earlier process kept must not be written over before it is known.
        if !self.report.knows_history {
            return;
        }
        let Some(heard) = self.state.latest().heard_to_keep(self.heard_kept.as_ref()) else {
            return;
        };
        self.heard_kept = Some(heard.clone());
        self.services.auditor.do_send(Audit::LastHeard(self.name().clone(), heard));
    }

    fn keep_findings(&self, appeared: &[Finding], gone: &[Finding]) {
        let named = |findings: &[Finding]| {
            findings.iter().map(|one| (one.kind, one.tablet.clone())).collect()
        };
        self.services.auditor.do_send(Audit::Findings(FindingsChange {
            shard: self.name().clone(),
            at: self.services.clock.now(),
            appeared: named(appeared),
            gone: named(gone),
        }));
    }

    /// What is only watched is a decision as well.
    fn hold_watched(&self) {
        let watched = self.state.findings().iter();
        let watched = watched.filter(|one| remedy::remedy(one.kind) == Remedy::WatchOnly);
        let held: Vec<HeldBack> =
            watched.map(|one| HeldBack::new(Inaction::WatchOnly, one, one.why)).collect();
        self.services.board.hold(self.name(), true, &held, self.services.clock.now());
    }

    /// Whatever comes of a failure of the primary, the operator's programs learn of it; nobody waits for them.
    fn run_detection_hooks(&self, appeared: Vec<Finding>) {
        let hook = Hook::OnFailureDetection;
        if !self.services.hooks.wants(hook) {
            return;
        }
        let snapshot = self.state.latest();
        let controls = self.services.controls();
        for finding in appeared {
            if !remedy::remedy(finding.kind).is_reparent() {
                continue;
            }
            let excused = |alias| controls.downtime(alias, snapshot.now).is_some();
            let is_downtimed = finding.tablet.as_ref().is_some_and(excused);
            let occasion = Occasion::detected(&snapshot, &finding, is_downtimed);
            let services = self.services.clone();
            actix::spawn(async move {
                for run in services.hooks.run(hook, &occasion).await {
                    services.auditor.do_send(Audit::Act(AuditEntry {
                        at: services.clock.now(),
                        shard: Some(occasion.shard.clone()),
                        action: hook.key().to_owned(),
                        by: "vtorc".into(),
                        comment: format!("{}: {}", run.command, run.outcome),
                    }));
                }
            });
        }
    }

    fn probe_these(&mut self, targets: Vec<ProbeTarget>, context: &mut Context<Self>) {
        self.changed = true;
        let wanted: BTreeMap<TabletAlias, ProbeTarget> =
            targets.into_iter().map(|target| (target.address.alias.clone(), target)).collect();
        self.probers.retain(|alias, (_, prober)| {
            let stays = wanted.contains_key(alias);
            if !stays {
                prober.do_send(Stop);
            }
            stays
        });
        for (alias, target) in wanted {
            match self.probers.get_mut(&alias) {
                Some((known, _)) if *known == target => {}
                Some((known, prober)) => {
                    *known = target.clone();
                    prober.do_send(Aim(target));
                }
                None => {
                    let prober = self.start_prober(target.clone(), context);
                    self.probers.insert(alias, (target, prober));
                }
            }
        }
    }

    fn start_prober(&self, target: ProbeTarget, context: &mut Context<Self>) -> Addr<ProberActor> {
        let meter = self
            .services
            .board
            .meters
            .register(Who::Prober(self.name().clone(), target.address.alias.clone()));
        let shard = (context.address(), self.meter.clone());
        let prober = ProberActor::new(
            self.services.clone(),
            shard.0.recipient(),
            shard.1,
            target,
            meter.clone(),
        );
        start_guarded(prober, 8, meter)
    }

    fn tell_recovery<M>(&self, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
        RecoveryActor: Handler<M>,
    {
        let Some((recovery, meter)) = &self.recovery else { return };
        meter.sent();
        // It is told again as long as it matters.
        if recovery.try_send(message).is_err() {
            meter.lost();
        }
    }

    fn log_findings(&self, appeared: &[Finding], gone: &[Finding]) {
        for finding in appeared {
            self.services.board.counters.count_detected(self.name(), finding.kind);
            let tablet = finding.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
            warn!(self.log, "found"; "finding" => %finding.kind, "tablet" => tablet,
                "why" => finding.why, "evidence" => finding.evidence_lines().join("; "));
        }
        for finding in gone {
            let tablet = finding.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
            info!(self.log, "no longer found"; "finding" => %finding.kind, "tablet" => tablet);
        }
    }

    /// Pins the shard's report up, and tells of it if it says anything new.
    fn post(&mut self) {
        let snapshot = self.state.latest();
        let block = self.report.block.clone().filter(|block| snapshot.now < block.until);
        let mut gist = gist(&snapshot);
        gist.push(format!("blocked {}", block.is_some()));
        let (switches, settings) = (self.services.switches(), self.services.recovery_settings());
        let prognosis = prognosis::if_primary_died(&snapshot, &settings, switches.get());
        gist.push(forecast(&prognosis));
        let news =
            if self.changed || gist != self.posted { News::Something } else { News::OnlyFresher };
        self.changed = false;
        self.posted = gist;
        let report = ShardReport {
            snapshot,
            findings: self.state.findings().to_vec(),
            block,
            running: self.report.running.or(self.ended),
            held_back: self.report.held_back.clone(),
            decisions: self.services.board.decisions(self.name()),
            prognosis,
        };
        self.services.board.post_shard(report, news);
    }

    fn tick_later(&self, context: &mut Context<Self>) {
        let pause = if self.pace == Pace::Alert { TICK_ALERT } else { TICK_CALM };
        context.notify_later(Tick, pause);
    }
}

/// Whom a failover would promote, or that it would be refused.
fn forecast(prognosis: &Prognosis) -> String {
    match prognosis {
        Prognosis::NoPrimary => "no primary".into(),
        Prognosis::Promotes { winner, may_lose, .. } => format!("{winner} {may_lose:?}"),
        Prognosis::Refuses { why, .. } => why.clone(),
    }
}

/// What a person would call a change, of each tablet: positions and ages that move all the time are not.
fn gist(snapshot: &ShardSnapshot) -> Vec<String> {
    let one = |state: &TabletState| {
        let valid = state.reachability.is_valid();
        let status = state.status.as_ref();
        let replication = status.and_then(|status| status.replication.as_ref());
        let threads =
            replication.map(|r| (r.receiver, r.applier_running, r.lag_seconds, r.source.clone()));
        let writable = status.map(|status| (status.read_only, status.super_read_only));
        let tablet = &state.tablet;
        let semi_sync = status.map(|status| &status.semi_sync);
        format!(
            "{} {valid} {writable:?} {threads:?} {semi_sync:?} {:?}",
            tablet.alias, tablet.tablet_type
        )
    };
    snapshot.tablets.values().map(one).collect()
}

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if self.recovery.is_none() {
            let launched = RecoveryActor::launch(
                &self.services,
                self.name().clone(),
                Owner {
                    report: context.address().recipient(),
                    records: context.address().recipient(),
                    journals: context.address().recipient(),
                    requests: context.address().recipient(),
                },
            );
            self.recovery = Some(launched);
        }
        self.tick_later(context);
    }
}

impl Supervised for ShardActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.meter.doing("restarted");
    }
}

impl Handler<Tick> for ShardActor {
    type Result = ();
    fn handle(&mut self, _: Tick, context: &mut Context<Self>) {
        self.step(ShardEvent::Tick, context);
        self.ended = self.ended.filter(|_| self.state.awaits_news());
        let findings = self.state.findings().len();
        self.meter.doing(if findings == 0 {
            "in order".into()
        } else {
            format!("{findings} findings")
        });
        self.post();
        self.tick_later(context);
    }
}

impl Handler<ShardTopologyWasRead> for ShardActor {
    type Result = ();
    fn handle(&mut self, message: ShardTopologyWasRead, context: &mut Context<Self>) {
        self.meter.handled();
        self.step(ShardEvent::TopologyRead(Box::new(message.0)), context);
        self.services.know_servers(&self.state.latest());
    }
}

impl Handler<ProbeCompleted> for ShardActor {
    type Result = ();
    fn handle(&mut self, message: ProbeCompleted, context: &mut Context<Self>) {
        self.meter.handled();
        let ProbeCompleted { address, sent_at, result } = message;
        let alias = address.alias.clone();
        // Nobody may hold the snapshot while the step changes it, or all of it is copied.
        let (first_word, owned) = {
            let latest = self.state.latest();
            let Some(known) = latest.tablet(&alias) else { return };
            // It was asked where the tablet was before.
            if known.tablet.address().is_some_and(|now| now != address) {
                return;
            }
            (known.status.is_none(), (known.claimed(), known.proven))
        };
        let claimed_by = self.services.claimed_by(&self.state.latest(), result.as_ref().ok());
        let answer = Answer { sent_at, result: result.map(Arc::new), claimed_by };
        self.step(ShardEvent::Probed { alias: alias.clone(), answer: Box::new(answer) }, context);
        let now = self.state.latest();
        let owns = |state: &TabletState| (state.claimed(), state.proven);
        if now.tablet(&alias).map(owns).is_some_and(|owns| owns != owned) {
            self.services.know_servers(&now);
        }
        let looked = !self.state.awaits_news() && self.ended.take().is_some();
        if first_word || looked || self.changed {
            self.post();
        }
    }
}

impl Handler<JournalsWereRead> for ShardActor {
    type Result = ();
    fn handle(&mut self, message: JournalsWereRead, context: &mut Context<Self>) {
        self.meter.handled();
        self.step(ShardEvent::JournalsRead(message.0), context);
    }
}

impl Handler<RecoveryReport> for ShardActor {
    type Result = ();
    fn handle(&mut self, report: RecoveryReport, context: &mut Context<Self>) {
        self.meter.handled();
        let ended = report.ended;
        let heard = report.heard_before.clone();
        let heard = heard.filter(|_| self.state.latest().heard_before.is_none());
        self.report = report;
        self.changed = true;
        if let Some(heard) = heard {
            self.heard_kept.get_or_insert_with(|| heard.clone());
            self.step(ShardEvent::HistoryRead(heard), context);
        }
        if ended.is_some() {
            self.step(ShardEvent::RecoveryEnded, context);
            self.ended = ended.filter(|_| self.state.awaits_news());
            // Look at what it left behind at once.
            self.probers.values().for_each(|(_, prober)| prober.do_send(SetPace(self.pace)));
        }
        self.post();
    }
}

impl Handler<RequestRecovery> for ShardActor {
    type Result = ();
    fn handle(&mut self, message: RequestRecovery, _: &mut Context<Self>) {
        self.meter.handled();
        let snapshot = Arc::new(self.state.at(self.services.clock.now()));
        let RequestRecovery { request, reply, .. } = message;
        self.tell_recovery(StartRequested { request, snapshot, reply });
    }
}

impl Handler<Acknowledge> for ShardActor {
    type Result = ();
    fn handle(&mut self, message: Acknowledge, _: &mut Context<Self>) {
        self.meter.handled();
        info!(self.log, "block acknowledged"; "by" => &message.by, "comment" => &message.comment);
        self.tell_recovery(LiftBlock { reply: message.reply });
    }
}

impl Handler<Retire> for ShardActor {
    type Result = ();
    fn handle(&mut self, _: Retire, context: &mut Context<Self>) {
        self.services.board.remove_shard(self.name());
        self.services.forget_servers(self.name());
        self.probers.values().for_each(|(_, prober)| prober.do_send(Stop));
        self.recovery.iter().for_each(|(recovery, _)| recovery.do_send(Stop));
        context.stop();
    }
}
