//! Turns the answers of a probe into a `ServerStatus`, the same for every version and flavour.

use std::collections::BTreeMap;

use vtorc_core::gtid::{GtidError, GtidSet, MariaDbBinlogState, MariaDbGtidSet, MariaDbServer};
use vtorc_core::source_access::ChannelTls;
use vtorc_core::status::{
    BinlogFormat, ReceiverState, ReplicationStatus, SemiSyncStatus, ServerPlace, ServerStatus,
};
use vtorc_core::tablet::MysqlAddress;

use super::dialect::{Dialect, Row, SemiSyncNames, name_value};
use super::errors;

/// The result sets of one probe, in the order of the statements.
pub(crate) type Answers = Vec<Vec<Row>>;

/// Reads the answers; the error says what was missing or wrong.
/// `channel` is the shard's.
pub(crate) fn read(
    dialect: Dialect,
    answers: &Answers,
    channel: &str,
) -> Result<ServerStatus, String> {
    let set = |at: usize| answers.get(at).map(Vec::as_slice).unwrap_or_default();
    let server = set(0).first().ok_or("no answer to the server's variables")?;
    let variables = name_value(set(2));
    let status = name_value(set(3));
    let log_replica_updates = logs_what_it_applies(&variables);
    let gtid_executed = executed(dialect, server, log_replica_updates)?;
    let gtid_purged = match dialect {
        Dialect::MariaDb => GtidSet::empty_mariadb(),
        Dialect::MySql | Dialect::OldMySql => parse_gtid(dialect, &text(server, "gtid_purged"))?,
    };
    let read_only = flag(server, "read_only");
    let server_id = number(server, "server_id").unwrap_or(0);
    let (replication, channels) = read_channels(dialect, answers, (channel, server_id))?;
    let would_filter = variables.iter().any(|(name, value)| is_filter(name) && !value.is_empty())
        || set(5).iter().any(has_global_filter);
    Ok(ServerStatus {
        flavor: dialect.flavor(),
        version: text(server, "version"),
        server_id,
        server_uuid: server.get("server_uuid").cloned().flatten(),
        place: place(server),
        read_only,
        super_read_only: match dialect {
            Dialect::MariaDb => read_only,
            Dialect::MySql | Dialect::OldMySql => flag(server, "super_read_only"),
        },
        gtid_mode_on: match dialect {
            Dialect::MariaDb => true,
            Dialect::MySql | Dialect::OldMySql => {
                text(server, "gtid_mode").eq_ignore_ascii_case("on")
            }
        },
        log_bin: flag(server, "log_bin"),
        log_replica_updates,
        would_filter,
        binlog_format: variables
            .get("binlog_format")
            .and_then(|name| BinlogFormat::from_name(name)),
        binlog_state: binlog_state(server)?,
        gtid_executed,
        gtid_purged,
        replication,
        channels,
        semi_sync: semi_sync(&variables, &status),
        journal_length: None,
        uptime: None,
        free_connections: None,
        writes_wait: false,
        backup_runs: false,
        offline: variables.get("offline_mode").is_some_and(|value| is_on(value)),
        vttablet: None,
    })
}

fn place(server: &Row) -> Option<ServerPlace> {
    let port = number(server, "port")?;
    Some(ServerPlace { hostname: text(server, "hostname"), port, datadir: text(server, "datadir") })
}

/// The shard's channel, by its name, and all others.
fn read_channels(
    dialect: Dialect,
    answers: &Answers,
    (channel, server_id): (&str, u32),
) -> Result<(Option<ReplicationStatus>, Vec<ReplicationStatus>), String> {
    let set = |at: usize| answers.get(at).map(Vec::as_slice).unwrap_or_default();
    let (mut replication, mut channels) = (None, Vec::new());
    for row in set(1) {
        let name = channel_of(dialect, row);
        let heartbeats = set(4).iter().find(|row| text(row, "channel_name") == name);
        let worker = set(6).iter().find(|row| text(row, "channel_name") == name);
        let read = read_channel(dialect, row, heartbeats)?;
        let read = read.map(|read| ReplicationStatus {
            filtered: read.filtered || ignores_others(row, server_id),
            ..with_error_of(worker, read)
        });
        match read {
            Some(read) if name == channel => replication = Some(read),
            Some(read) => channels.push(read),
            None => {}
        }
    }
    Ok((replication, channels))
}

/// How many clients a server would still let in, by `max_connections` and `Threads_connected`.
pub(crate) fn free_connections(limit: Option<&str>, connected: Option<u64>) -> Option<u32> {
    let limit: u64 = limit?.parse().ok()?;
    u32::try_from(limit.saturating_sub(connected?)).ok()
}

/// A column that says something.
fn filled(row: &Row, name: &str) -> Option<String> {
    Some(text(row, name)).filter(|text| !text.is_empty())
}

/// The worker's error says more than the coordinator's. That of one that goes on is an old one.
fn with_error_of(worker: Option<&Row>, mut channel: ReplicationStatus) -> ReplicationStatus {
    let error = worker.and_then(|worker| filled(worker, "error"));
    channel.applier_error = channel.applier_error.map(|coordinators| error.unwrap_or(coordinators));
    channel
}

/// Tells whether a channel has replication filters.
fn has_filter(channel: &Row) -> bool {
    let mut columns = channel.iter();
    columns.any(|(name, value)| is_filter(name) && value.as_ref().is_some_and(|v| !v.is_empty()))
}

/// Tells whether a channel leaves out what other servers wrote (`IGNORE_SERVER_IDS`). What it wrote itself every server
/// leaves out.
fn ignores_others(channel: &Row, own: u32) -> bool {
    let ids = text(channel, "replicate_ignore_server_ids");
    ids.split(',').map(str::trim).any(|id| !id.is_empty() && id != own.to_string())
}

fn has_global_filter(row: &Row) -> bool {
    is_filter(&text(row, "filter_name").to_ascii_lowercase())
        && !text(row, "filter_rule").is_empty()
}

/// The columns of the replication filters, on MariaDB also the variables.
fn is_filter(column: &str) -> bool {
    ["replicate_do_", "replicate_ignore_", "replicate_wild_", "replicate_rewrite_"]
        .iter()
        .any(|begin| column.starts_with(begin))
        && !column.contains("server_ids")
}

/// By whichever of its names the server has: MySQL since 8.0.26 both, since 8.4 the first one, all others the second.
fn logs_what_it_applies(variables: &BTreeMap<String, String>) -> bool {
    let names = ["log_replica_updates", "log_slave_updates"];
    let told = names.iter().find_map(|name| variables.get(*name));
    told.is_some_and(|value| is_on(value))
}

fn executed(dialect: Dialect, server: &Row, logs_what_it_applies: bool) -> Result<GtidSet, String> {
    match dialect {
        Dialect::MySql | Dialect::OldMySql => parse_gtid(dialect, &text(server, "gtid_executed")),
        Dialect::MariaDb => {
            let position = |column: &str| {
                text(server, column).parse().map_err(|error: GtidError| error.to_string())
            };
            let (written, applied) = (position("gtid_binlog_pos")?, position("gtid_slave_pos")?);
            Ok(GtidSet::MariaDb(MariaDbGtidSet::of_server(&MariaDbServer {
                server_id: number(server, "server_id").unwrap_or(0),
                applied: &applied,
                written: &written,
                state: &binlog_state(server)?,
                logs_what_it_applies,
            })))
        }
    }
}

fn binlog_state(server: &Row) -> Result<MariaDbBinlogState, String> {
    let state = text(server, "gtid_binlog_state").parse();
    state.map_err(|error| format!("gtid_binlog_state: {error}"))
}

fn parse_gtid(dialect: Dialect, text: &str) -> Result<GtidSet, String> {
    let parsed = match dialect {
        Dialect::MySql | Dialect::OldMySql => GtidSet::parse_mysql(text),
        Dialect::MariaDb => GtidSet::parse_mariadb(text),
    };
    parsed.map_err(|error| error.to_string())
}

fn channel_of(dialect: Dialect, row: &Row) -> String {
    text(
        row,
        match dialect {
            Dialect::MySql | Dialect::OldMySql => "channel_name",
            Dialect::MariaDb => "connection_name",
        },
    )
}

fn read_channel(
    dialect: Dialect,
    row: &Row,
    heartbeats: Option<&Row>,
) -> Result<Option<ReplicationStatus>, String> {
    let either = |new: &str, old: &str| {
        let value = row.get(new).or_else(|| row.get(old)).cloned().flatten();
        value.unwrap_or_default()
    };
    let host = either("source_host", "master_host");
    if host.is_empty() {
        // What RESET REPLICA without ALL leaves behind: nobody to follow.
        return Ok(None);
    }
    let retrieved = match dialect {
        Dialect::MySql | Dialect::OldMySql => text(row, "retrieved_gtid_set"),
        Dialect::MariaDb => text(row, "gtid_io_pos"),
    };
    let receiver = either("replica_io_running", "slave_io_running");
    let (heartbeat_period_ms, beats) = heartbeat(dialect, row, heartbeats);
    let retries = either("source_retry_count", "master_retry_count").parse::<u64>().ok();
    let pause = number(row, "connect_retry");
    let gives_up_after_s = retries.filter(|count| *count > 0).zip(pause);
    Ok(Some(ReplicationStatus {
        channel: channel_of(dialect, row),
        source: MysqlAddress {
            host,
            port: either("source_port", "master_port").parse().unwrap_or(3306),
        },
        source_uuid: Some(either("source_uuid", "master_uuid")).filter(|uuid| !uuid.is_empty()),
        source_server_id: either("source_server_id", "master_server_id").parse().ok(),
        receiver: match receiver.as_str() {
            "Yes" => ReceiverState::Running,
            "No" => ReceiverState::Stopped,
            _ => ReceiverState::Connecting,
        },
        receiver_error: errors::receiver_error(
            number(row, "last_io_errno").unwrap_or(0),
            text(row, "last_io_error"),
        ),
        applier_running: either("replica_sql_running", "slave_sql_running") == "Yes",
        applier_error: filled(row, "last_sql_error"),
        retrieved: match parse_gtid(dialect, &retrieved)? {
            GtidSet::MariaDb(position) => GtidSet::MariaDb(position.last_ones()),
            set @ GtidSet::MySql(_) => set,
        },
        tls: Some(channel_tls(row)),
        auto_position: match dialect {
            Dialect::MySql | Dialect::OldMySql => text(row, "auto_position") == "1",
            Dialect::MariaDb => !text(row, "using_gtid").eq_ignore_ascii_case("no"),
        },
        filtered: has_filter(row),
        gives_up_after_s: gives_up_after_s.map(|(count, pause)| count.saturating_mul(pause)),
        lag_seconds: either("seconds_behind_source", "seconds_behind_master").parse().ok(),
        delay_seconds: number(row, "sql_delay").unwrap_or(0),
        heartbeat_period_ms,
        received_marker: format!(
            "{}:{}:{retrieved}:{}",
            either("source_log_file", "master_log_file"),
            either("read_source_log_pos", "read_master_log_pos"),
            beats.clone().unwrap_or_default(),
        ),
        marker_sees_heartbeats: beats.is_some(),
    }))
}

fn channel_tls(row: &Row) -> ChannelTls {
    let said = |name: &str| {
        let value =
            row.get(&format!("source_{name}")).or_else(|| row.get(&format!("master_{name}")));
        value.cloned().flatten().unwrap_or_default()
    };
    ChannelTls {
        // "Ignored" is said by a server that has no TLS itself.
        required: said("ssl_allowed") == "Yes",
        ca_file: said("ssl_ca_file"),
        ca_path: said("ssl_ca_path"),
        certificate: said("ssl_cert"),
        key: said("ssl_key"),
        verifies_host: Some(said("ssl_verify_server_cert") == "Yes"),
    }
}

/// The heartbeat period and something that changes with every heartbeat, where the server tells.
fn heartbeat(
    dialect: Dialect,
    row: &Row,
    heartbeats: Option<&Row>,
) -> (Option<u64>, Option<String>) {
    let (row, period, beats) = match dialect {
        Dialect::MariaDb => (Some(row), "slave_heartbeat_period", "slave_received_heartbeats"),
        Dialect::MySql | Dialect::OldMySql => (heartbeats, "heartbeat_interval", "heartbeats"),
    };
    let Some(row) = row else { return (None, None) };
    let seconds: f64 = text(row, period).parse().unwrap_or(0.0);
    if seconds <= 0.0 {
        return (None, None);
    }
    let moving = ["last_heartbeat", "last_queued", "queueing"].map(|column| text(row, column));
    let marker = format!("{}/{}", text(row, beats), moving.join("/"));
    (Some((seconds * 1000.0) as u64), Some(marker))
}

pub(crate) fn semi_sync(
    variables: &BTreeMap<String, String>,
    status: &BTreeMap<String, String>,
) -> SemiSyncStatus {
    let names = SemiSyncNames::of(variables);
    let on = |map: &BTreeMap<String, String>, name: String| {
        map.get(&name).is_some_and(|value| is_on(value))
    };
    let count = |map: &BTreeMap<String, String>, name: String| {
        map.get(&name).and_then(|value| value.parse::<u64>().ok())
    };
    let source = names.source.unwrap_or("source");
    let replica = names.replica.unwrap_or("replica");
    let small = |value: Option<u64>| u32::try_from(value.unwrap_or(0)).unwrap_or(u32::MAX);
    let waits = match names.wait_count_variable() {
        Some(variable) => small(count(variables, variable.to_owned())),
        // MariaDB always waits for exactly one.
        None => 1,
    };
    SemiSyncStatus {
        source_available: names.source.is_some(),
        replica_available: names.replica.is_some(),
        source_enabled: on(variables, format!("rpl_semi_sync_{source}_enabled")),
        replica_enabled: on(variables, format!("rpl_semi_sync_{replica}_enabled")),
        source_active: on(status, format!("rpl_semi_sync_{source}_status")),
        replica_active: on(status, format!("rpl_semi_sync_{replica}_status")),
        clients: small(count(status, format!("rpl_semi_sync_{source}_clients"))),
        wait_count: waits,
        timeout_ms: count(variables, format!("rpl_semi_sync_{source}_timeout")).unwrap_or(0),
        falls_back_alone: names
            .wait_alone_variable()
            .and_then(|variable| variables.get(variable))
            .is_some_and(|value| !is_on(value)),
        waiting_sessions: small(count(status, format!("rpl_semi_sync_{source}_wait_sessions"))),
        // MariaDB's position moves before a commit is acknowledged; it alone has no count to wait for.
        seen_is_acknowledged: names.has_wait_count
            && variables
                .get(&format!("rpl_semi_sync_{source}_wait_point"))
                .is_some_and(|point| point.eq_ignore_ascii_case("after_sync")),
    }
}

fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true")
}

fn text(row: &Row, column: &str) -> String {
    row.get(column).cloned().flatten().unwrap_or_default()
}

fn flag(row: &Row, column: &str) -> bool {
    // read_only has more than two values on newer MariaDB; everything but off is on.
    !matches!(text(row, column).to_ascii_lowercase().as_str(), "" | "0" | "off")
}

fn number<T: std::str::FromStr>(row: &Row, column: &str) -> Option<T> {
    text(row, column).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which names versions have; the value stands for all of them.
    const NAMES: [(&str, Dialect, &[&str]); 6] = [
        ("8.0.11", Dialect::OldMySql, &["log_slave_updates"]),
        ("8.0.22", Dialect::MySql, &["log_slave_updates"]),
        ("8.0.26", Dialect::MySql, &["log_slave_updates", "log_replica_updates"]),
        ("8.4.0", Dialect::MySql, &["log_replica_updates"]),
        ("9.7.0", Dialect::MySql, &["log_replica_updates"]),
        ("11.4.2-MariaDB", Dialect::MariaDb, &["log_slave_updates"]),
    ];

    #[test]
    fn names_that_versions_do_not_have_are_not_asked_for() {
        for (version, dialect, names) in NAMES {
            let asked = dialect.probe_statements().concat();
            assert!(!asked.contains("@@global.log_replica_updates"), "{version}");
            assert!(!asked.contains("@@global.log_slave_updates"), "{version}");
            for value in ["ON", "OFF"] {
                let row = |name: &&str| -> Row {
                    let pair = [("variable_name", *name), ("value", value)];
                    pair.map(|(key, value)| (key.to_owned(), Some(value.to_owned()))).into()
                };
                let variables = names.iter().map(row).collect();
                let server = [("version".to_owned(), Some(version.to_owned()))].into();
                let status = read(dialect, &vec![vec![server], vec![], variables], "").unwrap();
                assert_eq!(status.log_replica_updates, value == "ON", "{version}");
            }
        }
    }
}
