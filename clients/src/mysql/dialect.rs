//! Which words a server understands. Found by asking it, never from one version string alone.

use std::collections::BTreeMap;

use vtorc_core::status::Flavor;

/// One row as text, by lower-case column name.
pub(crate) type Row = BTreeMap<String, Option<String>>;

/// How to speak to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// MySQL with `SHOW REPLICA STATUS` (since 8.0.22).
    MySql,
    /// MySQL that only knows `SLAVE` and `MASTER`.
    OldMySql,
    /// MariaDB.
    MariaDb,
}

/// Error of a statement that the server's grammar does not know.
pub(crate) const SYNTAX_ERROR: u16 = 1064;

impl Dialect {
    /// What a version tells. MariaDB names itself; a MySQL must be asked [`Dialect::TRIAL`].
    pub(crate) fn of_version(version: &str) -> Option<Self> {
        version.to_ascii_lowercase().contains("mariadb").then_some(Self::MariaDb)
    }

    /// What an old MySQL does not understand.
    pub(crate) const TRIAL: &str = "SHOW REPLICA STATUS";

    /// What the answer to the trial tells; `code` is the number of a server's error.
    pub(crate) fn of_trial<E>(
        answer: Result<(), E>,
        code: impl Fn(&E) -> Option<u16>,
    ) -> Result<Self, E> {
        match answer {
            Ok(()) => Ok(Self::MySql),
            Err(error) if code(&error) == Some(SYNTAX_ERROR) => Ok(Self::OldMySql),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn flavor(self) -> Flavor {
        match self {
            Self::MySql | Self::OldMySql => Flavor::MySql,
            Self::MariaDb => Flavor::MariaDb,
        }
    }

    /// The word for a replica in statements.
    pub(crate) fn replica(self) -> &'static str {
        match self {
            Self::MySql => "REPLICA",
            Self::OldMySql | Self::MariaDb => "SLAVE",
        }
    }

    /// The statements of one probe, most important first: where one fails, the later ones are lost.
    pub(crate) fn probe_statements(self) -> [&'static str; 7] {
        match self {
            Self::MySql => [
                MYSQL_SERVER,
                "SHOW REPLICA STATUS",
                SETTINGS,
                SEMI_SYNC_STATUS,
                HEARTBEATS,
                FILTERS,
                WORKERS,
            ],
            Self::OldMySql => [
                MYSQL_SERVER,
                "SHOW SLAVE STATUS",
                SETTINGS,
                SEMI_SYNC_STATUS,
                HEARTBEATS,
                FILTERS,
                WORKERS,
            ],
            Self::MariaDb => [
                "SELECT @@global.server_id AS server_id, VERSION() AS version, \
                 @@global.read_only AS read_only, @@global.log_bin AS log_bin, \
                 @@global.gtid_binlog_pos AS gtid_binlog_pos, @@global.gtid_slave_pos AS gtid_slave_pos, \
                 @@global.gtid_binlog_state AS gtid_binlog_state, \
                 @@global.hostname AS hostname, @@global.port AS port, @@global.datadir AS datadir",
                "SHOW ALL SLAVES STATUS",
                SETTINGS,
                SEMI_SYNC_STATUS,
                "DO 0",
                "DO 0",
                "DO 0",
            ],
        }
    }
}

const MYSQL_SERVER: &str = "SELECT @@global.server_id AS server_id, @@global.server_uuid AS server_uuid, \
     VERSION() AS version, @@global.read_only AS read_only, \
     @@global.super_read_only AS super_read_only, @@global.gtid_mode AS gtid_mode, \
     @@global.log_bin AS log_bin, \
     @@global.gtid_executed AS gtid_executed, @@global.gtid_purged AS gtid_purged";

/// From this one on a probe's statements may be refused.
pub(crate) const MAY_BE_MISSING: usize = 4;

/// Servers have them or not, by version and plugins; asked for like this, none is missed.
pub(crate) const SETTINGS: &str = "SHOW GLOBAL VARIABLES \
     WHERE Variable_name LIKE 'rpl\\_semi\\_sync\\_%' OR Variable_name IN ('binlog_format', 'log_replica_updates', 'log_slave_updates', 'offline_mode') \
     OR Variable_name LIKE 'replicate\\_%'";
const SEMI_SYNC_STATUS: &str = "SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%'";
/// Empty where performance_schema is off; then a silent source only shows by `replica_net_timeout`.
const HEARTBEATS: &str = "SELECT CHANNEL_NAME AS channel_name, c.HEARTBEAT_INTERVAL AS heartbeat_interval, \
     s.COUNT_RECEIVED_HEARTBEATS AS heartbeats, s.LAST_HEARTBEAT_TIMESTAMP AS last_heartbeat, \
     s.LAST_QUEUED_TRANSACTION AS last_queued, s.QUEUEING_TRANSACTION AS queueing \
     FROM performance_schema.replication_connection_status s \
     JOIN performance_schema.replication_connection_configuration c USING (CHANNEL_NAME)";

/// What would be filtered of a source that is not configured yet; MySQL 5.7 has no such table.
const FILTERS: &str = "SELECT FILTER_NAME AS filter_name, FILTER_RULE AS filter_rule \
     FROM performance_schema.replication_applier_global_filters";

/// Why appliers stopped: where several workers apply, `SHOW REPLICA STATUS` only says where to look. (3030 says that
/// another worker stopped.)
const WORKERS: &str = "SELECT CHANNEL_NAME AS channel_name, LAST_ERROR_MESSAGE AS error \
     FROM performance_schema.replication_applier_status_by_worker WHERE LAST_ERROR_NUMBER <> 0 \
     ORDER BY LAST_ERROR_NUMBER = 3030, WORKER_ID";

/// The names of the semi-sync variables on one server, taken from those that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SemiSyncNames {
    pub(crate) source: Option<&'static str>,
    pub(crate) replica: Option<&'static str>,
    pub(crate) has_wait_count: bool,
}

impl SemiSyncNames {
    pub(crate) fn of(variables: &BTreeMap<String, String>) -> Self {
        let has = |side: &str| variables.contains_key(&format!("rpl_semi_sync_{side}_enabled"));
        let pick = |new: &'static str, old: &'static str| {
            if has(new) { Some(new) } else { has(old).then_some(old) }
        };
        let source = pick("source", "master");
        let has_wait_count = variables.contains_key("rpl_semi_sync_source_wait_for_replica_count")
            || variables.contains_key("rpl_semi_sync_master_wait_for_slave_count");
        Self { source, replica: pick("replica", "slave"), has_wait_count }
    }

    /// Whether the source goes on waiting when too few ackers are connected.
    pub(crate) fn wait_alone_variable(&self) -> Option<&'static str> {
        match self.source {
            Some("source") => Some("rpl_semi_sync_source_wait_no_replica"),
            Some(_) => Some("rpl_semi_sync_master_wait_no_slave"),
            None => None,
        }
    }

    pub(crate) fn wait_count_variable(&self) -> Option<&'static str> {
        match self.source {
            Some("source") if self.has_wait_count => {
                Some("rpl_semi_sync_source_wait_for_replica_count")
            }
            Some(_) if self.has_wait_count => Some("rpl_semi_sync_master_wait_for_slave_count"),
            Some(_) | None => None,
        }
    }
}

/// Turns `Variable_name`/`Value` rows into a map with lower-case names.
pub(crate) fn name_value(rows: &[Row]) -> BTreeMap<String, String> {
    let pair = |row: &Row| {
        let name = row.get("variable_name")?.clone()?.to_ascii_lowercase();
        Some((name, row.get("value")?.clone().unwrap_or_default()))
    };
    rows.iter().filter_map(pair).collect()
}
