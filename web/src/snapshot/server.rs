//! A server's state in a snapshot file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vtorc_core::gtid::{GtidSet, MariaDbGtidSet};
use vtorc_core::status::{
    BinlogFormat, Flavor, ReceiverError, ReceiverErrorKind, ReceiverState, ReplicationStatus,
    SemiSyncStatus, ServerPlace, ServerStatus, VttabletState,
};
use vtorc_core::tablet::{MysqlAddress, TabletType};

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerFile {
    flavor: String,
    version: String,
    server_id: u32,
    server_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<PlaceFile>,
    read_only: bool,
    super_read_only: bool,
    gtid_mode_on: bool,
    log_bin: bool,
    log_replica_updates: bool,
    #[serde(default)]
    would_filter: bool,
    #[serde(default)]
    binlog_format: Option<String>,
    #[serde(default)]
    binlog_state: String,
    /// Up to which number a MariaDB has everything of a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    through: Option<BTreeMap<u32, u64>>,
    gtid_executed: String,
    gtid_purged: String,
    pub(super) journal_length: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uptime_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    free_connections: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    writes_wait: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    backup_runs: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    offline: bool,
    #[serde(default)]
    vttablet: Option<VttabletFile>,
    semi_sync: SemiSyncFile,
    replication: Option<ReplicationFile>,
    #[serde(default)]
    channels: Vec<ReplicationFile>,
}

/// Where a server's process runs.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PlaceFile {
    hostname: String,
    port: u16,
    datadir: String,
}

impl PlaceFile {
    fn of(place: &ServerPlace) -> Self {
        let ServerPlace { hostname, port, datadir } = place.clone();
        Self { hostname, port, datadir }
    }

    fn into_core(self) -> ServerPlace {
        let Self { hostname, port, datadir } = self;
        ServerPlace { hostname, port, datadir }
    }
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
    #[serde(default)]
    seen_is_acknowledged: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ReplicationFile {
    #[serde(default)]
    channel: String,
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
    #[serde(default)]
    gives_up_after_s: Option<u64>,
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

impl ServerFile {
    pub(super) fn of(status: &ServerStatus) -> Self {
        Self {
            flavor: status.flavor.name().to_owned(),
            version: status.version.clone(),
            server_id: status.server_id,
            server_uuid: status.server_uuid.clone(),
            place: status.place.as_ref().map(PlaceFile::of),
            read_only: status.read_only,
            super_read_only: status.super_read_only,
            gtid_mode_on: status.gtid_mode_on,
            log_bin: status.log_bin,
            log_replica_updates: status.log_replica_updates,
            would_filter: status.would_filter,
            binlog_format: status.binlog_format.map(|format| format.name().to_owned()),
            binlog_state: status.binlog_state.to_string(),
            through: match &status.gtid_executed {
                GtidSet::MariaDb(set) => Some(set.through().clone()),
                GtidSet::MySql(_) => None,
            },
            gtid_executed: status.gtid_executed.to_string(),
            gtid_purged: status.gtid_purged.to_string(),
            journal_length: status.journal_length,
            uptime_s: status.uptime.map(|uptime| uptime.as_secs()),
            free_connections: status.free_connections,
            writes_wait: status.writes_wait,
            backup_runs: status.backup_runs,
            offline: status.offline,
            vttablet: status.vttablet.as_ref().map(VttabletFile::of),
            semi_sync: SemiSyncFile::of(&status.semi_sync),
            replication: status.replication.as_ref().map(ReplicationFile::of),
            channels: status.channels.iter().map(ReplicationFile::of).collect(),
        }
    }

    /// A file of before has positions alone.
    fn executed(&self, flavor: Flavor) -> Result<GtidSet, String> {
        let told = gtids(flavor, &self.gtid_executed)?;
        let (GtidSet::MariaDb(written), Some(through)) = (&told, &self.through) else {
            return Ok(told);
        };
        let state = self.binlog_state.parse().map_err(|error| format!("{error}"))?;
        Ok(GtidSet::MariaDb(MariaDbGtidSet::told_apart(
            self.server_id,
            &state,
            written,
            through.clone(),
        )))
    }

    pub(super) fn into_status(self) -> Result<ServerStatus, String> {
        let flavors = [Flavor::MySql, Flavor::MariaDb];
        let flavor = flavors.into_iter().find(|flavor| flavor.name() == self.flavor);
        let flavor = flavor.ok_or_else(|| format!("no flavor {:?}", self.flavor))?;
        let gtid_executed = self.executed(flavor)?;
        let channels = self.channels.into_iter().map(|file| file.into_core(flavor));
        Ok(ServerStatus {
            channels: channels.collect::<Result<_, _>>()?,
            gtid_executed,
            gtid_purged: gtids(flavor, &self.gtid_purged)?,
            replication: self.replication.map(|file| file.into_core(flavor)).transpose()?,
            semi_sync: self.semi_sync.into_core(),
            flavor,
            version: self.version,
            server_id: self.server_id,
            server_uuid: self.server_uuid,
            place: self.place.map(PlaceFile::into_core),
            read_only: self.read_only,
            super_read_only: self.super_read_only,
            gtid_mode_on: self.gtid_mode_on,
            log_bin: self.log_bin,
            log_replica_updates: self.log_replica_updates,
            would_filter: self.would_filter,
            binlog_format: self.binlog_format.as_deref().and_then(BinlogFormat::from_name),
            binlog_state: self.binlog_state.parse().map_err(|error| format!("{error}"))?,
            journal_length: self.journal_length,
            uptime: self.uptime_s.map(Duration::from_secs),
            free_connections: self.free_connections,
            writes_wait: self.writes_wait,
            backup_runs: self.backup_runs,
            offline: self.offline,
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
            seen_is_acknowledged: status.seen_is_acknowledged,
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
            seen_is_acknowledged: self.seen_is_acknowledged,
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
            channel: status.channel.clone(),
            source_host: status.source.host.clone(),
            source_port: status.source.port,
            source_uuid: status.source_uuid.clone(),
            source_server_id: status.source_server_id,
            receiver: status.receiver.to_string(),
            receiver_error: status.receiver_error.as_ref().map(ReceiverErrorFile::of),
            applier_running: status.applier_running,
            applier_error: status.applier_error.clone().unwrap_or_default(),
            retrieved: status.retrieved.to_string(),
            auto_position: status.auto_position,
            filtered: status.filtered,
            lag_seconds: status.lag_seconds,
            delay_seconds: status.delay_seconds,
            gives_up_after_s: status.gives_up_after_s,
            heartbeat_period_ms: status.heartbeat_period_ms,
            received_marker: status.received_marker.clone(),
            marker_sees_heartbeats: status.marker_sees_heartbeats,
        }
    }

    fn into_core(self, flavor: Flavor) -> Result<ReplicationStatus, String> {
        let states = [ReceiverState::Running, ReceiverState::Connecting, ReceiverState::Stopped];
        let receiver = states.into_iter().find(|state| state.to_string() == self.receiver);
        Ok(ReplicationStatus {
            channel: self.channel,
            source: MysqlAddress { host: self.source_host, port: self.source_port },
            source_uuid: self.source_uuid,
            source_server_id: self.source_server_id,
            receiver: receiver.ok_or_else(|| format!("no receiver state {:?}", self.receiver))?,
            receiver_error: self.receiver_error.map(ReceiverErrorFile::into_core).transpose()?,
            applier_running: self.applier_running,
            applier_error: Some(self.applier_error).filter(|error| !error.is_empty()),
            retrieved: match gtids(flavor, &self.retrieved)? {
                GtidSet::MariaDb(position) => GtidSet::MariaDb(position.last_ones()),
                set @ GtidSet::MySql(_) => set,
            },
            tls: None,
            auto_position: self.auto_position,
            filtered: self.filtered,
            lag_seconds: self.lag_seconds,
            delay_seconds: self.delay_seconds,
            gives_up_after_s: self.gives_up_after_s,
            heartbeat_period_ms: self.heartbeat_period_ms,
            received_marker: self.received_marker,
            marker_sees_heartbeats: self.marker_sees_heartbeats,
        })
    }
}
