//! What core's values look like as JSON. Inner types are not serialisable on purpose: these are the contract.

mod finding;
pub(crate) mod preview;

use std::collections::BTreeMap;

use serde::Serialize;
use vtorc_actors::board::ShardReport;
use vtorc_actors::meters::{ActorReport, ActorState};
use vtorc_core::admission::Block;
use vtorc_core::admission::inaction::Decision;
use vtorc_core::analysis::errant_gtids;
use vtorc_core::audit::{RecoveryRecord, StepRecord, Trigger};
use vtorc_core::durability;
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::knowledge::observe::TabletState;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::preflight::Concern;
use vtorc_core::reparent::prognosis::Prognosis;
use vtorc_core::status::{ReplicationStatus, SemiSyncStatus, VttabletState};
use vtorc_core::time::{TermStart, Timestamp};

use self::finding::FindingView;
use crate::snapshot::state_name;

/// A moment as RFC 3339 with milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(0);
    let stamp = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    format!("{stamp:.3}")
}

fn term(at: TermStart) -> String {
    let stamp = jiff::Timestamp::new(at.seconds, at.nanos).unwrap_or_default();
    stamp.to_string()
}

fn name(alias: &TabletAlias) -> String {
    alias.to_string()
}

#[derive(Serialize)]
pub(crate) struct ShardView {
    keyspace: String,
    shard: String,
    durability_policy: String,
    primary: Option<String>,
    primary_term_start: Option<String>,
    findings: Vec<FindingView>,
    recovery_block: Option<BlockView>,
    recovering: Option<u64>,
    held_back: Option<String>,
    why_not: Vec<DecisionView>,
    if_primary_died: PrognosisView,
    tablets: Vec<TabletView>,
    as_of: String,
}

impl ShardView {
    pub(crate) fn of(report: &ShardReport) -> Self {
        let snapshot = &report.snapshot;
        let primary = snapshot.primary().map(|state| &state.tablet);
        Self {
            keyspace: snapshot.shard.keyspace.clone(),
            shard: snapshot.shard.shard.clone(),
            durability_policy: durability::name_of(&snapshot.durability).to_owned(),
            primary: primary.map(|tablet| name(&tablet.alias)),
            primary_term_start: primary.and_then(|tablet| tablet.term_start).map(term),
            findings: report.findings.iter().map(FindingView::of).collect(),
            recovery_block: report
                .block
                .as_ref()
                .map(|block| BlockView::of(block, &snapshot.shard)),
            recovering: report.running.map(|id| id.0),
            held_back: report.held_back.clone(),
            why_not: report.decisions.iter().map(DecisionView::of).collect(),
            if_primary_died: PrognosisView::of(&report.prognosis),
            tablets: snapshot
                .tablets
                .values()
                .map(|state| TabletView::of(state, snapshot))
                .collect(),
            as_of: time(snapshot.now),
        }
    }
}

/// What would happen if the primary died this second.
#[derive(Serialize)]
pub(crate) struct PrognosisView {
    /// `promotes`, `refuses` or `no_primary`.
    outcome: &'static str,
    new_primary: Option<String>,
    catches_up_from: Option<String>,
    may_lose: Option<String>,
    why: Option<String>,
    not: BTreeMap<String, String>,
}

impl PrognosisView {
    pub(crate) fn of(prognosis: &Prognosis) -> Self {
        let mut view = Self {
            outcome: "no_primary",
            new_primary: None,
            catches_up_from: None,
            may_lose: None,
            why: None,
            not: BTreeMap::new(),
        };
        let others = match prognosis {
            Prognosis::NoPrimary => return view,
            Prognosis::Promotes { winner, catches_up_from, passed_over, may_lose } => {
                view.outcome = "promotes";
                view.new_primary = Some(name(winner));
                view.catches_up_from = catches_up_from.as_ref().map(name);
                view.may_lose.clone_from(may_lose);
                passed_over
            }
            Prognosis::Refuses { why, passed_over } => {
                view.outcome = "refuses";
                view.why = Some(why.clone());
                passed_over
            }
        };
        view.not = others.iter().map(|one| (name(&one.alias), one.reason.to_string())).collect();
        view
    }
}

/// Something to be put in order before the bad day.
#[derive(Serialize)]
pub(crate) struct ConcernView {
    severity: String,
    code: String,
    tablet: Option<String>,
    what: String,
    cure: String,
}

impl ConcernView {
    pub(crate) fn of(concern: &Concern) -> Self {
        Self {
            severity: concern.severity.to_string(),
            code: concern.code.clone(),
            tablet: concern.tablet.as_ref().map(name),
            what: concern.what.clone(),
            cure: concern.cure.clone(),
        }
    }
}

/// A decision not to act.
#[derive(Serialize)]
struct DecisionView {
    why: &'static str,
    finding: String,
    tablet: Option<String>,
    reason: String,
    since: String,
    last: String,
    /// None while it stands.
    until: Option<String>,
    count: u64,
}

impl DecisionView {
    fn of(decision: &Decision) -> Self {
        Self {
            why: decision.held.inaction.name(),
            finding: decision.held.finding.to_string(),
            tablet: decision.held.tablet.as_ref().map(name),
            reason: decision.held.reason.clone(),
            since: time(decision.since),
            last: time(decision.last),
            until: decision.until.map(time),
            count: decision.count,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct BlockView {
    recovery: u64,
    since: String,
    until: String,
    lift_with: String,
}

impl BlockView {
    pub(crate) fn of(block: &Block, shard: &KeyspaceShard) -> Self {
        Self {
            recovery: block.recovery.0,
            since: time(block.since),
            until: time(block.until),
            lift_with: format!("POST /api/v1/shards/{shard}/acknowledge {{\"comment\": \"...\"}}"),
        }
    }
}

#[derive(Serialize)]
struct TabletView {
    alias: String,
    #[serde(rename = "type")]
    tablet_type: &'static str,
    cell: String,
    mysql_host: Option<String>,
    mysql_port: Option<u16>,
    reachable: bool,
    state: &'static str,
    trouble: Option<String>,
    last_seen: Option<String>,
    version: Option<String>,
    flavor: Option<&'static str>,
    server_id: Option<u32>,
    server_uuid: Option<String>,
    read_only: Option<bool>,
    super_read_only: Option<bool>,
    gtid_executed: Option<String>,
    /// What it has and the primary lacks.
    errant_gtids: Option<String>,
    replication: Option<ReplicationView>,
    /// Pull from elsewhere; vtorc leaves them alone.
    other_channels: Vec<ReplicationView>,
    semi_sync: Option<SemiSyncView>,
    vttablet: Option<VttabletView>,
}

/// The tablet's vttablet: where it is, and what is known of it.
#[derive(Serialize)]
struct VttabletView {
    address: String,
    /// `answers`, `silent` or `too_old`; none where it was not asked yet.
    state: Option<&'static str>,
    /// What it takes itself for.
    #[serde(rename = "type")]
    tablet_type: Option<&'static str>,
    disk_stalled: bool,
    trouble: Option<String>,
}

impl VttabletView {
    fn of(state: &TabletState) -> Option<Self> {
        let address = state.tablet.vttablet.as_ref()?.to_string();
        let known = state.status.as_ref().and_then(|status| status.vttablet.clone());
        let mut view = Self {
            address,
            state: None,
            tablet_type: None,
            disk_stalled: state.disk_stalled(),
            trouble: None,
        };
        match known {
            Some(VttabletState::Answers { tablet_type, .. }) => {
                (view.state, view.tablet_type) = (Some("answers"), Some(tablet_type.name()));
            }
            Some(VttabletState::Silent(why)) => {
                (view.state, view.trouble) = (Some("silent"), Some(why));
            }
            Some(VttabletState::TooOld(why)) => {
                (view.state, view.trouble) = (Some("too_old"), Some(why));
            }
            None => {}
        }
        Some(view)
    }
}

impl TabletView {
    fn of(state: &TabletState, snapshot: &ShardSnapshot) -> Self {
        let errant = snapshot.primary().and_then(|primary| errant_gtids(state, primary));
        let tablet = &state.tablet;
        let status = state.status.as_deref();
        let reachability = &state.reachability;
        Self {
            alias: name(&tablet.alias),
            tablet_type: tablet.tablet_type.name(),
            cell: tablet.alias.cell.clone(),
            mysql_host: tablet.mysql.as_ref().map(|address| address.host.clone()),
            mysql_port: tablet.mysql.as_ref().map(|address| address.port),
            reachable: reachability.is_valid(),
            state: state_name(reachability),
            trouble: reachability.failure().map(ToString::to_string),
            last_seen: status.map(|_| time(state.status_at)),
            version: status.map(|status| status.version.clone()),
            flavor: status.map(|status| status.flavor.name()),
            server_id: status.map(|status| status.server_id),
            server_uuid: status.and_then(|status| status.server_uuid.clone()),
            read_only: status.map(|status| status.read_only),
            super_read_only: status.map(|status| status.super_read_only),
            gtid_executed: status.map(|status| status.gtid_executed.shown().to_string()),
            errant_gtids: errant.map(|errant| errant.shown().to_string()),
            replication: status
                .and_then(|status| status.replication.as_ref())
                .map(|channel| ReplicationView::of(channel, snapshot)),
            other_channels: status
                .map(|status| status.channels.iter())
                .map(|all| all.map(|one| ReplicationView::of(one, snapshot)).collect())
                .unwrap_or_default(),
            semi_sync: status.map(|status| SemiSyncView::of(&status.semi_sync)),
            vttablet: VttabletView::of(state),
        }
    }
}

#[derive(Serialize)]
struct ReplicationView {
    channel: String,
    source_host: String,
    source_port: u16,
    source_uuid: Option<String>,
    /// The tablet that it follows, where it is one of this shard.
    source_tablet: Option<String>,
    receiver: String,
    receiver_error: String,
    applier: &'static str,
    applier_error: String,
    retrieved: String,
    lag_seconds: Option<u64>,
    delay_seconds: u64,
    heartbeat_period_ms: Option<u64>,
}

/// The receiver's last error in words; empty if there is none.
pub(crate) fn receiver_error(replication: &ReplicationStatus) -> String {
    replication.receiver_error.as_ref().map(ToString::to_string).unwrap_or_default()
}

impl ReplicationView {
    fn of(replication: &ReplicationStatus, snapshot: &ShardSnapshot) -> Self {
        Self {
            channel: replication.channel.clone(),
            source_host: replication.source.host.clone(),
            source_port: replication.source.port,
            source_uuid: replication.source_uuid.clone(),
            source_tablet: snapshot.source_of(replication).map(name),
            receiver: replication.receiver.to_string(),
            receiver_error: receiver_error(replication),
            applier: if replication.applier_running { "running" } else { "stopped" },
            applier_error: replication.applier_error.clone().unwrap_or_default(),
            retrieved: replication.retrieved.to_string(),
            lag_seconds: replication.lag_seconds,
            delay_seconds: replication.delay_seconds,
            heartbeat_period_ms: replication.heartbeat_period_ms,
        }
    }
}

#[derive(Serialize)]
struct SemiSyncView {
    source_enabled: bool,
    source_active: bool,
    replica_enabled: bool,
    replica_active: bool,
    clients: u32,
    wait_count: u32,
    waiting_sessions: u32,
}

impl SemiSyncView {
    fn of(semi_sync: &SemiSyncStatus) -> Self {
        Self {
            source_enabled: semi_sync.source_enabled,
            source_active: semi_sync.source_active,
            replica_enabled: semi_sync.replica_enabled,
            replica_active: semi_sync.replica_active,
            clients: semi_sync.clients,
            wait_count: semi_sync.wait_count,
            waiting_sessions: semi_sync.waiting_sessions,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct RecoveryView {
    id: u64,
    keyspace: String,
    shard: String,
    kind: String,
    /// It changes who the primary is.
    reparents: bool,
    trigger: &'static str,
    requested_by: Option<String>,
    reason: Option<String>,
    finding: Option<String>,
    finding_tablet: Option<String>,
    evidence: Vec<String>,
    started_at: String,
    ended_at: Option<String>,
    duration_ms: Option<u64>,
    outcome: Option<&'static str>,
    outcome_text: Option<String>,
    old_primary: Option<String>,
    new_primary: Option<String>,
    write_outage_ms: Option<u64>,
    steps: Vec<StepView>,
}

impl RecoveryView {
    pub(crate) fn of(record: &RecoveryRecord) -> Self {
        let (trigger, requested_by, reason) = match &record.trigger {
            Trigger::Automatic => ("automatic", None, None),
            Trigger::Requested { by, reason } => {
                ("requested", Some(by.clone()), Some(reason.clone()))
            }
        };
        let duration = record.ended_at.map(|end| record.started_at.age(end).as_millis());
        Self {
            id: record.id.0,
            keyspace: record.shard.keyspace.clone(),
            shard: record.shard.shard.clone(),
            kind: record.kind.name().to_owned(),
            reparents: record.kind.is_reparent(),
            trigger,
            requested_by,
            reason,
            finding: record.finding.map(|finding| finding.to_string()),
            finding_tablet: record.finding_tablet.as_ref().map(name),
            evidence: record.evidence.clone(),
            started_at: time(record.started_at),
            ended_at: record.ended_at.map(time),
            duration_ms: duration.and_then(|ms| u64::try_from(ms).ok()),
            outcome: record.outcome.as_ref().map(|outcome| outcome.name()),
            outcome_text: record.outcome.as_ref().map(|outcome| outcome.text().to_owned()),
            old_primary: record.old_primary.as_ref().map(name),
            new_primary: record.new_primary.as_ref().map(name),
            write_outage_ms: record.write_outage_ms,
            steps: record.steps.iter().map(|step| StepView::of(step, record.started_at)).collect(),
        }
    }
}

#[derive(Serialize)]
struct StepView {
    name: &'static str,
    tablet: Option<String>,
    started_at: String,
    offset_ms: u64,
    duration_ms: Option<u64>,
    outcome: Option<&'static str>,
    text: String,
}

impl StepView {
    fn of(step: &StepRecord, recovery_started: Timestamp) -> Self {
        let offset = recovery_started.age(step.started_at).as_millis();
        Self {
            name: step.kind.name(),
            tablet: step.tablet.as_ref().map(name),
            started_at: time(step.started_at),
            offset_ms: u64::try_from(offset).unwrap_or(u64::MAX),
            duration_ms: step.duration_ms,
            outcome: step.outcome.as_ref().map(|outcome| outcome.name()),
            text: step
                .outcome
                .as_ref()
                .map(|outcome| outcome.text().to_owned())
                .unwrap_or_default(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct ActorView {
    kind: &'static str,
    name: String,
    /// The shard that it serves.
    shard: Option<String>,
    state: &'static str,
    doing: String,
    mailbox_depth: u64,
    messages_handled: u64,
    messages_dropped: u64,
    restarts: u64,
    last_error: Option<String>,
}

impl ActorView {
    pub(crate) fn of(report: ActorReport) -> Self {
        Self {
            kind: report.who.kind(),
            name: report.who.to_string(),
            shard: report.who.shard().map(ToString::to_string),
            state: match report.state {
                ActorState::Running => "running",
                ActorState::Restarting => "restarting",
                ActorState::Stopped => "stopped",
                ActorState::GivenUp => "given_up",
            },
            doing: report.doing,
            mailbox_depth: report.mailbox,
            messages_handled: report.handled,
            messages_dropped: report.dropped,
            restarts: report.restarts,
            last_error: report.last_error,
        }
    }
}
