//! A shard's state as a file: everything that decisions rest on, to be looked at later or elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vtorc_core::durability::{self, DurabilityPolicy};
use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::knowledge::health::{ProbeFailure, ProbeHistory, Reachability, RecentProbes};
use vtorc_core::knowledge::observe::TabletState;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::status::{
    BinlogFormat, Flavor, ReceiverError, ReceiverErrorKind, ReceiverState, ReplicationStatus,
    SemiSyncStatus, ServerStatus, VttabletState,
};
use vtorc_core::tablet::{MysqlAddress, PromotionRule, Tablet, TabletType, VttabletAddress};
use vtorc_core::time::{TermStart, Timestamp};
use vtorc_core::topology::{Place, ShardRecord};

/// A snapshot, as `GET …/snapshot` answers it and `vtorc explain` reads it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFile {
    keyspace: String,
    shard: String,
    durability_policy: String,
    #[serde(default)]
    primary_alias: Option<String>,
    #[serde(default)]
    primary_term_start: Option<Term>,
    #[serde(default)]
    emergency_reparent_disabled: bool,
    #[serde(default)]
    damaged: BTreeMap<String, String>,
    /// Cells that were read at least once.
    #[serde(default)]
    known_cells: BTreeSet<String>,
    /// Cells that could never be read, and why.
    #[serde(default)]
    unseen_cells: BTreeMap<String, String>,
    /// Tablets whose records could never be read, and why.
    #[serde(default)]
    unseen_records: BTreeMap<String, String>,
    /// Since when the primary's term is known; milliseconds since the epoch.
    #[serde(default)]
    term_known_since_ms: Option<u64>,
    /// Milliseconds since the epoch.
    now_ms: u64,
    tablets: Vec<TabletFile>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Term {
    seconds: i64,
    nanos: i32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TabletFile {
    alias: String,
    #[serde(rename = "type")]
    tablet_type: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    /// `host:port` of its vttablet.
    #[serde(default)]
    vttablet: Option<String>,
    #[serde(default)]
    term_start: Option<Term>,
    #[serde(default)]
    promotion_rule: Option<String>,
    /// `never_seen`, `reachable`, `suspect`, `unreachable` or `turned_away`.
    state: String,
    #[serde(default)]
    failing_since_ms: Option<u64>,
    /// How the last probe failed.
    #[serde(default)]
    trouble: Option<TroubleFile>,
    #[serde(default)]
    asked_at_ms: u64,
    #[serde(default)]
    answered_at_ms: u64,
    #[serde(default)]
    received_at_ms: Option<u64>,
    #[serde(default)]
    stuck_since_ms: Option<u64>,
    #[serde(default)]
    recent_timeouts: u32,
    #[serde(default)]
    recent_pings: u32,
    #[serde(default)]
    recent_answers: u32,
    #[serde(default)]
    server: Option<ServerFile>,
}

/// How a probe failed.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TroubleFile {
    kind: String,
    #[serde(default)]
    details: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ServerFile {
    flavor: String,
    version: String,
    server_id: u32,
    server_uuid: Option<String>,
    read_only: bool,
    super_read_only: bool,
    gtid_mode_on: bool,
    log_bin: bool,
    log_replica_updates: bool,
    #[serde(default)]
    binlog_format: Option<String>,
    #[serde(default)]
    binlog_state: String,
    gtid_executed: String,
    gtid_purged: String,
    journal_length: Option<u64>,
    #[serde(default)]
    vttablet: Option<VttabletFile>,
    semi_sync: SemiSyncFile,
    replication: Option<ReplicationFile>,
}

/// What is known of a vttablet.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
enum VttabletFile {
    Answers {
        #[serde(rename = "type")]
        tablet_type: String,
        disk_stalled: bool,
        semi_sync_blocked: bool,
    },
    Silent {
        why: String,
    },
    TooOld {
        why: String,
    },
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SemiSyncFile {
    source_available: bool,
    replica_available: bool,
    source_enabled: bool,
    replica_enabled: bool,
    source_active: bool,
    replica_active: bool,
    clients: u32,
    wait_count: u32,
    timeout_ms: u64,
    #[serde(default)]
    falls_back_alone: bool,
    waiting_sessions: u32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ReplicationFile {
    source_host: String,
    source_port: u16,
    source_uuid: Option<String>,
    source_server_id: Option<u32>,
    receiver: String,
    #[serde(default)]
    receiver_error: Option<ReceiverErrorFile>,
    applier_running: bool,
    applier_error: String,
    retrieved: String,
    auto_position: bool,
    filtered: bool,
    lag_seconds: Option<u64>,
    delay_seconds: u64,
    heartbeat_period_ms: Option<u64>,
    received_marker: String,
    marker_sees_heartbeats: bool,
}

/// A receiver's last error.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ReceiverErrorFile {
    number: u32,
    kind: String,
    text: String,
}

impl SnapshotFile {
    /// The file of a snapshot.
    pub fn of(snapshot: &ShardSnapshot) -> Self {
        Self {
            keyspace: snapshot.shard.keyspace.clone(),
            shard: snapshot.shard.shard.clone(),
            durability_policy: durability::name_of(&snapshot.durability).to_owned(),
            primary_alias: snapshot.record.primary_alias.as_ref().map(ToString::to_string),
            primary_term_start: snapshot.record.term_start.map(Term::of),
            emergency_reparent_disabled: snapshot.emergency_reparent_disabled,
            known_cells: snapshot.known_cells.clone(),
            unseen_cells: unseen_cells(snapshot),
            unseen_records: unseen_records(snapshot),
            term_known_since_ms: snapshot.term_known_since.map(Timestamp::as_millis),
            damaged: snapshot.damaged.clone(),
            now_ms: snapshot.now.as_millis(),
            tablets: snapshot.tablets.values().map(TabletFile::of).collect(),
        }
    }

    /// Reads a file's text; the error says where it is wrong.
    pub fn parse(text: &str) -> Result<ShardSnapshot, String> {
        let file: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        file.into_snapshot()
    }

    fn into_snapshot(self) -> Result<ShardSnapshot, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let shard =
            KeyspaceShard::new(&self.keyspace, &self.shard).map_err(|error| told(&error))?;
        let primary_alias = self.primary_alias.map(|alias| alias.parse()).transpose();
        let mut unseen: BTreeMap<Place, String> = BTreeMap::new();
        for (cell, why) in self.unseen_cells {
            unseen.insert(Place::Cell(cell), why);
        }
        for (alias, why) in self.unseen_records {
            unseen.insert(Place::Record(alias.parse().map_err(|error| told(&error))?), why);
        }
        let mut tablets = BTreeMap::new();
        for tablet in self.tablets {
            let alias = tablet.alias.clone();
            let state =
                tablet.into_state(&shard).map_err(|error| format!("tablet {alias}: {error}"))?;
            tablets.insert(state.tablet.alias.clone(), state);
        }
        Ok(ShardSnapshot {
            durability: self.durability_policy.parse::<DurabilityPolicy>(),
            record: ShardRecord {
                primary_alias: primary_alias.map_err(|error| told(&error))?,
                term_start: self.primary_term_start.map(Term::into_core),
                emergency_reparent_disabled: false,
            },
            emergency_reparent_disabled: self.emergency_reparent_disabled,
            known_cells: self.known_cells,
            unseen,
            term_known_since: self.term_known_since_ms.map(Timestamp::from_millis),
            damaged: self.damaged,
            now: Timestamp::from_millis(self.now_ms),
            shard,
            tablets,
        })
    }
}

fn unseen_cells(snapshot: &ShardSnapshot) -> BTreeMap<String, String> {
    let cell = |(place, why): (&Place, &String)| match place {
        Place::Cell(cell) => Some((cell.clone(), why.clone())),
        Place::Record(_) => None,
    };
    snapshot.unseen.iter().filter_map(cell).collect()
}

fn unseen_records(snapshot: &ShardSnapshot) -> BTreeMap<String, String> {
    let record = |(place, why): (&Place, &String)| match place {
        Place::Record(alias) => Some((alias.to_string(), why.clone())),
        Place::Cell(_) => None,
    };
    snapshot.unseen.iter().filter_map(record).collect()
}

impl Term {
    fn of(term: TermStart) -> Self {
        Self { seconds: term.seconds, nanos: term.nanos }
    }

    fn into_core(self) -> TermStart {
        TermStart { seconds: self.seconds, nanos: self.nanos }
    }
}

impl TabletFile {
    fn of(state: &TabletState) -> Self {
        let tablet = &state.tablet;
        Self {
            alias: tablet.alias.to_string(),
            tablet_type: tablet.tablet_type.name().to_owned(),
            host: tablet.mysql.as_ref().map(|address| address.host.clone()),
            port: tablet.mysql.as_ref().map(|address| address.port),
            vttablet: tablet.vttablet.as_ref().map(ToString::to_string),
            term_start: tablet.term_start.map(Term::of),
            promotion_rule: tablet.promotion_rule.map(|rule| rule.name().to_owned()),
            state: state_name(&state.reachability).to_owned(),
            failing_since_ms: state.reachability.failing_since().map(Timestamp::as_millis),
            trouble: state.reachability.failure().map(TroubleFile::of),
            asked_at_ms: state.status_at.as_millis(),
            answered_at_ms: state.answered_at.as_millis(),
            received_at_ms: state.received_at.map(Timestamp::as_millis),
            stuck_since_ms: state.stuck_since.map(Timestamp::as_millis),
            recent_timeouts: state.recent.timed_out,
            recent_pings: state.recent.pinged,
            recent_answers: state.recent.succeeded,
            server: state.status.as_deref().map(ServerFile::of),
        }
    }

    fn into_state(self, shard: &KeyspaceShard) -> Result<TabletState, String> {
        let tablet_type = TabletType::from_name(&self.tablet_type);
        let rule = self.promotion_rule.as_deref().map(|name| {
            PromotionRule::from_name(name).ok_or_else(|| format!("no promotion rule {name:?}"))
        });
        let since = Timestamp::from_millis(self.failing_since_ms.unwrap_or_default());
        let trouble = self.trouble;
        let why = || match trouble {
            Some(file) => file.into_core(),
            None => Err("it fails, and no trouble says how".to_owned()),
        };
        let reachability = match self.state.as_str() {
            "never_seen" => Reachability::Unseen,
            "reachable" => Reachability::Valid,
            "suspect" => Reachability::Suspect { since, why: why()? },
            "unreachable" => Reachability::Unreachable { since, why: why()? },
            "turned_away" => Reachability::TurnedAway { since, why: why()? },
            other => return Err(format!("no state {other:?}")),
        };
        Ok(TabletState {
            tablet: Tablet {
                alias: self.alias.parse().map_err(|error| format!("{error}"))?,
                shard: shard.clone(),
                tablet_type: tablet_type
                    .ok_or_else(|| format!("no type {:?}", self.tablet_type))?,
                mysql: self.host.zip(self.port).map(|(host, port)| MysqlAddress { host, port }),
                term_start: self.term_start.map(Term::into_core),
                vttablet: self.vttablet.as_deref().map(vttablet_address).transpose()?,
                promotion_rule: rule.transpose()?,
            },
            reachability,
            status: self.server.map(ServerFile::into_status).transpose()?.map(Arc::new),
            status_at: Timestamp::from_millis(self.asked_at_ms),
            asked_at: Timestamp::from_millis(self.asked_at_ms),
            history: ProbeHistory::default(),
            answered_at: Timestamp::from_millis(self.answered_at_ms.max(self.asked_at_ms)),
            earlier: Vec::new(),
            received_at: self.received_at_ms.map(Timestamp::from_millis),
            stuck_since: self.stuck_since_ms.map(Timestamp::from_millis),
            recent: RecentProbes {
                timed_out: self.recent_timeouts,
                pinged: self.recent_pings,
                succeeded: self.recent_answers,
            },
        })
    }
}

impl TroubleFile {
    fn of(failure: &ProbeFailure) -> Self {
        Self { kind: failure.kind().to_owned(), details: failure.details().to_owned() }
    }

    fn into_core(self) -> Result<ProbeFailure, String> {
        let kind = ProbeFailure::of_kind(&self.kind, &self.details);
        kind.ok_or_else(|| format!("no trouble {:?}", self.kind))
    }
}

/// The name of what the probes amount to.
pub(crate) fn state_name(reachability: &Reachability) -> &'static str {
    match reachability {
        Reachability::Unseen => "never_seen",
        Reachability::Valid => "reachable",
        Reachability::Suspect { .. } => "suspect",
        Reachability::Unreachable { .. } => "unreachable",
        Reachability::TurnedAway { .. } => "turned_away",
    }
}

impl VttabletFile {
    fn of(vttablet: &VttabletState) -> Self {
        match vttablet.clone() {
            VttabletState::Answers { tablet_type, disk_stalled, semi_sync_blocked } => {
                let tablet_type = tablet_type.name().to_owned();
                Self::Answers { tablet_type, disk_stalled, semi_sync_blocked }
            }
            VttabletState::Silent(why) => Self::Silent { why },
            VttabletState::TooOld(why) => Self::TooOld { why },
        }
    }

    fn into_core(self) -> Result<VttabletState, String> {
        Ok(match self {
            Self::Answers { tablet_type, disk_stalled, semi_sync_blocked } => {
                let known = TabletType::from_name(&tablet_type);
                let tablet_type = known.ok_or_else(|| format!("no type {tablet_type:?}"))?;
                VttabletState::Answers { tablet_type, disk_stalled, semi_sync_blocked }
            }
            Self::Silent { why } => VttabletState::Silent(why),
            Self::TooOld { why } => VttabletState::TooOld(why),
        })
    }
}

/// Reads `host:port`.
fn vttablet_address(text: &str) -> Result<VttabletAddress, String> {
    let bad = || format!("{text:?} is not host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(VttabletAddress { host, port: port.parse().map_err(|_| bad())? })
}

impl ServerFile {
    fn of(status: &ServerStatus) -> Self {
        Self {
            flavor: status.flavor.name().to_owned(),
            version: status.version.clone(),
            server_id: status.server_id,
            server_uuid: status.server_uuid.clone(),
            read_only: status.read_only,
            super_read_only: status.super_read_only,
            gtid_mode_on: status.gtid_mode_on,
            log_bin: status.log_bin,
            log_replica_updates: status.log_replica_updates,
            binlog_format: status.binlog_format.map(|format| format.name().to_owned()),
            binlog_state: status.binlog_state.to_string(),
            gtid_executed: status.gtid_executed.to_string(),
            gtid_purged: status.gtid_purged.to_string(),
            journal_length: status.journal_length,
            vttablet: status.vttablet.as_ref().map(VttabletFile::of),
            semi_sync: SemiSyncFile::of(&status.semi_sync),
            replication: status.replication.as_ref().map(ReplicationFile::of),
        }
    }

    fn into_status(self) -> Result<ServerStatus, String> {
        let flavors = [Flavor::MySql, Flavor::MariaDb];
        let flavor = flavors.into_iter().find(|flavor| flavor.name() == self.flavor);
        let flavor = flavor.ok_or_else(|| format!("no flavor {:?}", self.flavor))?;
        Ok(ServerStatus {
            gtid_executed: gtids(flavor, &self.gtid_executed)?,
            gtid_purged: gtids(flavor, &self.gtid_purged)?,
            replication: self.replication.map(|file| file.into_core(flavor)).transpose()?,
            semi_sync: self.semi_sync.into_core(),
            flavor,
            version: self.version,
            server_id: self.server_id,
            server_uuid: self.server_uuid,
            read_only: self.read_only,
            super_read_only: self.super_read_only,
            gtid_mode_on: self.gtid_mode_on,
            log_bin: self.log_bin,
            log_replica_updates: self.log_replica_updates,
            binlog_format: self.binlog_format.as_deref().and_then(BinlogFormat::from_name),
            binlog_state: self.binlog_state.parse().map_err(|error| format!("{error}"))?,
            journal_length: self.journal_length,
            vttablet: self.vttablet.map(VttabletFile::into_core).transpose()?,
        })
    }
}

fn gtids(flavor: Flavor, text: &str) -> Result<GtidSet, String> {
    let parsed = match flavor {
        Flavor::MySql => GtidSet::parse_mysql(text),
        Flavor::MariaDb => GtidSet::parse_mariadb(text),
    };
    parsed.map_err(|error| error.to_string())
}

impl SemiSyncFile {
    fn of(status: &SemiSyncStatus) -> Self {
        Self {
            source_available: status.source_available,
            replica_available: status.replica_available,
            source_enabled: status.source_enabled,
            replica_enabled: status.replica_enabled,
            source_active: status.source_active,
            replica_active: status.replica_active,
            clients: status.clients,
            wait_count: status.wait_count,
            timeout_ms: status.timeout_ms,
            falls_back_alone: status.falls_back_alone,
            waiting_sessions: status.waiting_sessions,
        }
    }

    fn into_core(self) -> SemiSyncStatus {
        SemiSyncStatus {
            source_available: self.source_available,
            replica_available: self.replica_available,
            source_enabled: self.source_enabled,
            replica_enabled: self.replica_enabled,
            source_active: self.source_active,
            replica_active: self.replica_active,
            clients: self.clients,
            wait_count: self.wait_count,
            timeout_ms: self.timeout_ms,
            falls_back_alone: self.falls_back_alone,
            waiting_sessions: self.waiting_sessions,
        }
    }
}

impl ReceiverErrorFile {
    fn of(error: &ReceiverError) -> Self {
        let kind = error.kind.name().to_owned();
        Self { number: error.number, kind, text: error.text.clone() }
    }

    fn into_core(self) -> Result<ReceiverError, String> {
        let kind = ReceiverErrorKind::ALL.into_iter().find(|kind| kind.name() == self.kind);
        let kind = kind.ok_or_else(|| format!("no kind of error {:?}", self.kind))?;
        Ok(ReceiverError { number: self.number, kind, text: self.text })
    }
}

impl ReplicationFile {
    fn of(status: &ReplicationStatus) -> Self {
        Self {
            source_host: status.source.host.clone(),
            source_port: status.source.port,
            source_uuid: status.source_uuid.clone(),
            source_server_id: status.source_server_id,
            receiver: status.receiver.to_string(),
            receiver_error: status.receiver_error.as_ref().map(ReceiverErrorFile::of),
            applier_running: status.applier_running,
            applier_error: status.applier_error.clone(),
            retrieved: status.retrieved.to_string(),
            auto_position: status.auto_position,
            filtered: status.filtered,
            lag_seconds: status.lag_seconds,
            delay_seconds: status.delay_seconds,
            heartbeat_period_ms: status.heartbeat_period_ms,
            received_marker: status.received_marker.clone(),
            marker_sees_heartbeats: status.marker_sees_heartbeats,
        }
    }

    fn into_core(self, flavor: Flavor) -> Result<ReplicationStatus, String> {
        let states = [ReceiverState::Running, ReceiverState::Connecting, ReceiverState::Stopped];
        let receiver = states.into_iter().find(|state| state.to_string() == self.receiver);
        Ok(ReplicationStatus {
            source: MysqlAddress { host: self.source_host, port: self.source_port },
            source_uuid: self.source_uuid,
            source_server_id: self.source_server_id,
            receiver: receiver.ok_or_else(|| format!("no receiver state {:?}", self.receiver))?,
            receiver_error: self.receiver_error.map(ReceiverErrorFile::into_core).transpose()?,
            applier_running: self.applier_running,
            applier_error: self.applier_error,
            retrieved: gtids(flavor, &self.retrieved)?,
            auto_position: self.auto_position,
            filtered: self.filtered,
            lag_seconds: self.lag_seconds,
            delay_seconds: self.delay_seconds,
            heartbeat_period_ms: self.heartbeat_period_ms,
            received_marker: self.received_marker,
            marker_sees_heartbeats: self.marker_sees_heartbeats,
        })
    }
}
