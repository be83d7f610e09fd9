//! What a vttablet says of its server, as core's `ServerStatus`.

use std::time::Duration;

use vtorc_core::gtid::{GtidSet, MariaDbBinlogState};
use vtorc_core::status::{
    BinlogFormat, Flavor, ReceiverError, ReceiverState, ReplicationStatus, SemiSyncStatus,
    ServerStatus, VttabletState,
};
use vtorc_core::tablet::{MysqlAddress, TabletType};

use crate::interface::replicationdata::{FullStatus, Status};
use crate::mysql::{Row, free_connections, name_value, receiver_error};

/// Vitess writes this for a source whose uuid is not known.
const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// What the vttablet says of itself.
pub(crate) fn vttablet(full: &FullStatus) -> VttabletState {
    VttabletState::Answers {
        tablet_type: TabletType::from_number(full.tablet_type),
        disk_stalled: full.disk_stalled,
        semi_sync_blocked: full.semi_sync_blocked,
    }
}

/// What a FullStatus lacks, asked of the server through its vttablet: the sessions that wait for an
/// acknowledgement, whether the source falls back when it is alone, whether it waits before the commit, for how long it
/// has been running, and whatever arrived last from the source.
pub(crate) const BESIDES: &str = "SELECT VARIABLE_NAME AS variable_name, VARIABLE_VALUE AS value \
     FROM performance_schema.global_status \
     WHERE VARIABLE_NAME LIKE 'Rpl\\_semi\\_sync\\_%\\_wait\\_sessions' \
     OR VARIABLE_NAME IN ('Uptime', 'Threads_connected') \
     UNION ALL SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.global_variables \
     WHERE VARIABLE_NAME LIKE 'rpl\\_semi\\_sync\\_%\\_wait\\_no\\_%' \
     OR VARIABLE_NAME LIKE 'rpl\\_semi\\_sync\\_%\\_wait\\_point' OR VARIABLE_NAME = 'max_connections' \
     UNION ALL SELECT 'received', CONCAT_WS(' ', COUNT_RECEIVED_HEARTBEATS, LAST_HEARTBEAT_TIMESTAMP, \
     LAST_QUEUED_TRANSACTION, QUEUEING_TRANSACTION) \
     FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = ''";

/// Reads what it says of the server, with the answer to [`BESIDES`] where there is one; the error says what is
/// wrong with it.
pub(crate) fn server(full: &FullStatus, besides: Option<&[Row]>) -> Result<ServerStatus, String> {
    let mut status = server_by_itself(full)?;
    let besides = besides.map(name_value).unwrap_or_default();
    let connected = besides.get("threads_connected").and_then(|count| count.parse().ok());
    let limit = besides.get("max_connections").map(String::as_str);
    status.free_connections = free_connections(limit, connected);
    for (name, value) in besides {
        if name == "received" {
            if let Some(replication) = &mut status.replication {
                replication.marker_sees_heartbeats = true;
                replication.received_marker = value;
            }
        } else if name.eq_ignore_ascii_case("uptime") {
            status.uptime = value.parse().ok().map(Duration::from_secs);
        } else if name == "max_connections" || name == "threads_connected" {
            continue;
        } else if name.ends_with("wait_sessions") {
            status.semi_sync.waiting_sessions = value.parse().unwrap_or(0);
        } else if name.ends_with("wait_point") {
            let before_commit = value.eq_ignore_ascii_case("after_sync");
            status.semi_sync.seen_is_acknowledged = before_commit && status.flavor == Flavor::MySql;
        } else {
            status.semi_sync.falls_back_alone |= value.eq_ignore_ascii_case("off");
        }
    }
    Ok(status)
}

fn server_by_itself(full: &FullStatus) -> Result<ServerStatus, String> {
    let position = full
        .primary_status
        .as_ref()
        .map(|status| status.position.as_str())
        .or(full.replication_status.as_ref().map(|status| status.position.as_str()))
        .unwrap_or_default();
    let gtid_executed = parse_position(position)?;
    let flavor = match gtid_executed {
        GtidSet::MySql(_) => Flavor::MySql,
        GtidSet::MariaDb(_) => Flavor::MariaDb,
    };
    let replication = match &full.replication_status {
        Some(status) => replication(status, full)?,
        None => None,
    };
    Ok(ServerStatus {
        flavor,
        version: full.version.clone(),
        server_id: full.server_id,
        server_uuid: Some(full.server_uuid.clone()).filter(|uuid| !uuid.is_empty()),
        place: None,
        read_only: full.read_only,
        super_read_only: full.super_read_only,
        gtid_mode_on: flavor == Flavor::MariaDb || full.gtid_mode.eq_ignore_ascii_case("on"),
        log_bin: full.log_bin_enabled,
        log_replica_updates: full.log_replica_updates,
        would_filter: false,
        binlog_format: BinlogFormat::from_name(&full.binlog_format),
        binlog_state: MariaDbBinlogState::default(),
        gtid_executed,
        gtid_purged: parse_position(&full.gtid_purged)?,
        replication,
        // It tells of the unnamed channel alone.
        channels: Vec::new(),
        semi_sync: semi_sync(full),
        journal_length: None,
        uptime: None,
        free_connections: None,
        writes_wait: false,
        backup_runs: false,
        offline: false,
        vttablet: Some(vttablet(full)),
    })
}

/// Reads `MySQL56/uuid:1-5` or `MariaDB/0-1-2`; nothing at all is the empty set.
fn parse_position(text: &str) -> Result<GtidSet, String> {
    let (flavor, set) = text.split_once('/').unwrap_or(("MySQL56", text));
    let parsed = match flavor {
        "MySQL56" => GtidSet::parse_mysql(set),
        "MariaDB" => GtidSet::parse_mariadb(set),
        other => return Err(format!("positions of flavour {other:?} cannot be compared")),
    };
    parsed.map_err(|error| error.to_string())
}

fn replication(status: &Status, full: &FullStatus) -> Result<Option<ReplicationStatus>, String> {
    if status.source_host.is_empty() {
        // What RESET REPLICA without ALL leaves behind: nobody to follow.
        return Ok(None);
    }
    let port = u16::try_from(status.source_port).unwrap_or(0);
    let heartbeat = full.replication_configuration.as_ref().map(|config| config.heartbeat_interval);
    Ok(Some(ReplicationStatus {
        channel: String::new(),
        source: MysqlAddress { host: status.source_host.clone(), port },
        source_uuid: Some(status.source_uuid.clone())
            .filter(|uuid| !uuid.is_empty() && uuid != NO_UUID),
        source_server_id: Some(status.source_server_id).filter(|id| *id != 0),
        receiver: thread(status.io_state),
        receiver_error: receiver_error_of_text(&status.last_io_error),
        applier_running: thread(status.sql_state) == ReceiverState::Running,
        applier_error: Some(status.last_sql_error.clone()).filter(|error| !error.is_empty()),
        retrieved: parse_position(&status.relay_log_position)?,
        // A vttablet tells a part of it.
        tls: None,
        auto_position: status.auto_position || status.using_gtid,
        filtered: status.has_replication_filters,
        lag_seconds: (!status.replication_lag_unknown)
            .then_some(u64::from(status.replication_lag_seconds)),
        delay_seconds: u64::from(status.sql_delay),
        gives_up_after_s: None,
        heartbeat_period_ms: heartbeat.map(|seconds| (seconds * 1000.0).round() as u64),
        received_marker: format!(
            "{} {}",
            status.relay_log_source_binlog_equivalent_position, status.relay_log_position
        ),
        // A FullStatus does not tell of heartbeats.
        marker_sees_heartbeats: false,
    }))
}

/// 0 unknown, 1 stopped, 2 connecting, 3 running.
fn thread(state: i32) -> ReceiverState {
    match state {
        3 => ReceiverState::Running,
        2 => ReceiverState::Connecting,
        _ => ReceiverState::Stopped,
    }
}

/// A vttablet answers zeros where its server has no plugin.
fn semi_sync(full: &FullStatus) -> SemiSyncStatus {
    let available = full.semi_sync_primary_timeout > 0
        || full.semi_sync_wait_for_replica_count > 0
        || full.semi_sync_primary_enabled
        || full.semi_sync_replica_enabled;
    SemiSyncStatus {
        source_available: available,
        replica_available: available,
        source_enabled: full.semi_sync_primary_enabled,
        replica_enabled: full.semi_sync_replica_enabled,
        source_active: full.semi_sync_primary_status,
        replica_active: full.semi_sync_replica_status,
        clients: full.semi_sync_primary_clients,
        wait_count: full.semi_sync_wait_for_replica_count,
        timeout_ms: full.semi_sync_primary_timeout,
        falls_back_alone: false,
        waiting_sessions: u32::from(full.semi_sync_blocked),
        // It does not tell.
        seen_is_acknowledged: false,
    }
}

/// A vttablet tells the words of an error and not its number, which stand at the end in the words of newer servers.
fn receiver_error_of_text(text: &str) -> Option<ReceiverError> {
    let marks = ["Error_code: MY-", "error code ", "(errno "];
    let number = marks.iter().find_map(|mark| {
        let digits = text.rsplit_once(mark)?.1;
        let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
        digits.get(..end)?.parse().ok()
    });
    receiver_error(number.unwrap_or(0), text.to_owned())
}
