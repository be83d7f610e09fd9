//! What a vttablet asks of its server and tells it, over the server's socket.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mysql::prelude::Queryable;
use tonic::{Code, Status};

use crate::interface::query::{Field, QueryResult, Row};
use crate::interface::replicationdata as data;

/// Why a statement failed, as a vttablet words it.
#[derive(Clone, Debug)]
pub(crate) struct Fault(pub(crate) Code, pub(crate) String);

impl Fault {
    pub(crate) fn precondition(text: impl Into<String>) -> Self {
        Self(Code::FailedPrecondition, text.into())
    }

    /// As it is sent: with the call and the tablet before it.
    pub(crate) fn status(self, call: &str, alias: &str) -> Status {
        Status::new(self.0, format!("TabletManager.{call} on {alias}: {}", self.1))
    }
}

/// A server.
#[derive(Clone)]
pub(crate) struct Mysqld {
    pub(crate) socket: PathBuf,
}

type Answers = BTreeMap<String, String>;

impl Mysqld {
    fn connect(&self) -> Result<mysql::Conn, Fault> {
        let socket = self.socket.display().to_string();
        let opts = mysql::OptsBuilder::new().user(Some("admin")).socket(Some(&socket));
        mysql::Conn::new(opts).map_err(|error| {
            let text = format!(
                "net.Dial({socket}) to local server failed: {error} (errno 2002) (sqlstate HY000)"
            );
            Fault(Code::Unknown, text)
        })
    }

    /// Runs statements one after another over one connection.
    pub(crate) fn run(&self, statements: &[&str]) -> Result<(), Fault> {
        let mut conn = self.connect()?;
        for statement in statements {
            conn.query_drop(statement).map_err(|error| fault(statement, &error))?;
        }
        Ok(())
    }

    fn rows(&self, statement: &str) -> Result<Vec<Answers>, Fault> {
        let mut conn = self.connect()?;
        let rows: Vec<mysql::Row> =
            conn.query(statement).map_err(|error| fault(statement, &error))?;
        let answers = |row: mysql::Row| {
            let names: Vec<String> =
                row.columns_ref().iter().map(|c| c.name_str().to_ascii_lowercase()).collect();
            let values = row.unwrap().into_iter();
            names.into_iter().zip(values.map(|value| text(value).unwrap_or_default())).collect()
        };
        Ok(rows.into_iter().map(answers).collect())
    }

    fn pairs(&self, statement: &str) -> Result<Answers, Fault> {
        let pair = |mut row: Answers| {
            let name = row.remove("variable_name").unwrap_or_default().to_ascii_lowercase();
            (name, row.remove("value").unwrap_or_default())
        };
        Ok(self.rows(statement)?.into_iter().map(pair).collect())
    }

    /// A statement of somebody else's, with its rows as they are sent.
    pub(crate) fn fetch(&self, statements: &str, several: bool) -> Result<Vec<QueryResult>, Fault> {
        let mut conn = self.connect()?;
        let each: Vec<&str> =
            if several { statements.split("; ").collect() } else { vec![statements] };
        let mut results = Vec::new();
        for statement in each {
            let rows: Vec<mysql::Row> =
                conn.query(statement).map_err(|error| fault(statement, &error))?;
            let fields = rows.first().map(|row| {
                let name = |column: &mysql::Column| Field { name: column.name_str().into_owned() };
                row.columns_ref().iter().map(name).collect()
            });
            let rows = rows.into_iter().map(|row| {
                let values: Vec<Option<String>> = row.unwrap().into_iter().map(text).collect();
                Row {
                    lengths: values
                        .iter()
                        .map(|v| v.as_ref().map_or(-1, |v| v.len() as i64))
                        .collect(),
                    values: values.into_iter().flatten().collect::<String>().into_bytes(),
                }
            });
            let rows = rows.collect();
            results.push(QueryResult {
                fields: fields.unwrap_or_default(),
                rows,
                ..Default::default()
            });
        }
        Ok(results)
    }

    pub(crate) fn global(&self, variable: &str) -> Result<String, Fault> {
        let rows = self.rows(&format!("SELECT @@global.{variable} AS value"))?;
        Ok(rows.into_iter().next().and_then(|mut row| row.remove("value")).unwrap_or_default())
    }

    pub(crate) fn is_read_only(&self) -> Result<bool, Fault> {
        Ok(self.global("read_only")? == "1")
    }

    /// `gtid_executed` with its flavour.
    pub(crate) fn position(&self) -> Result<String, Fault> {
        Ok(format!("MySQL56/{}", self.global("gtid_executed")?.replace('\n', "")))
    }

    pub(crate) fn primary_status(&self) -> Result<data::PrimaryStatus, Fault> {
        Ok(data::PrimaryStatus {
            position: self.position()?,
            server_uuid: self.global("server_uuid")?,
            ..Default::default()
        })
    }

    /// None where it is not a replica.
    pub(crate) fn replication(&self) -> Result<Option<data::Status>, Fault> {
        let Some(row) = self.rows("SHOW REPLICA STATUS")?.into_iter().next() else {
            return Ok(None);
        };
        let text = |name: &str| row.get(name).cloned().unwrap_or_default();
        let executed = text("executed_gtid_set").replace('\n', "");
        let retrieved = text("retrieved_gtid_set").replace('\n', "");
        let both = match (executed.is_empty(), retrieved.is_empty()) {
            (_, true) => executed.clone(),
            (true, false) => retrieved,
            (false, false) => union(&executed, &retrieved),
        };
        let uuid = text("source_uuid");
        Ok(Some(data::Status {
            position: format!("MySQL56/{executed}"),
            relay_log_position: format!("MySQL56/{both}"),
            replication_lag_seconds: text("seconds_behind_source").parse().unwrap_or(0),
            replication_lag_unknown: text("seconds_behind_source").parse::<u32>().is_err(),
            source_host: text("source_host"),
            source_port: text("source_port").parse().unwrap_or(0),
            source_user: text("source_user"),
            source_server_id: text("source_server_id").parse().unwrap_or(0),
            source_uuid: if uuid.is_empty() { crate::tablet::NO_UUID.into() } else { uuid },
            io_state: thread(&text("replica_io_running")),
            sql_state: thread(&text("replica_sql_running")),
            last_io_error: text("last_io_error"),
            last_sql_error: text("last_sql_error"),
            auto_position: text("auto_position") == "1",
            sql_delay: text("sql_delay").parse().unwrap_or(0),
            relay_log_source_binlog_equivalent_position: format!(
                "FilePos/{}:{}",
                text("source_log_file"),
                text("read_source_log_pos")
            ),
            ..Default::default()
        }))
    }

    pub(crate) fn full_status(&self) -> Result<data::FullStatus, Fault> {
        let variables = self.pairs("SHOW GLOBAL VARIABLES LIKE 'rpl\\_semi\\_sync\\_%'")?;
        let status = self.pairs("SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%'")?;
        let on = |map: &Answers, name: &str| map.get(name).is_some_and(|v| v == "ON");
        let count = |map: &Answers, name: &str| -> u64 {
            map.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let replication_status = self.replication()?;
        let configuration = self.rows(
            "SELECT HEARTBEAT_INTERVAL AS h FROM performance_schema.replication_connection_configuration",
        )?;
        let heartbeat = configuration.first().and_then(|row| row.get("h")?.parse().ok());
        let net_timeout = self.global("replica_net_timeout")?.parse().unwrap_or(0);
        Ok(data::FullStatus {
            server_id: self.global("server_id")?.parse().unwrap_or(0),
            server_uuid: self.global("server_uuid")?,
            replication_status,
            primary_status: Some(self.primary_status()?),
            gtid_purged: format!("MySQL56/{}", self.global("gtid_purged")?.replace('\n', "")),
            version: self.global("version")?.split('-').next().unwrap_or_default().to_owned(),
            version_comment: self.global("version_comment")?,
            read_only: self.is_read_only()?,
            super_read_only: self.global("super_read_only")? == "1",
            gtid_mode: self.global("gtid_mode")?,
            binlog_format: "ROW".into(),
            binlog_row_image: self.global("binlog_row_image")?,
            log_bin_enabled: self.global("log_bin")? == "1",
            log_replica_updates: self.global("log_replica_updates")? == "1",
            semi_sync_primary_enabled: on(&variables, "rpl_semi_sync_source_enabled"),
            semi_sync_replica_enabled: on(&variables, "rpl_semi_sync_replica_enabled"),
            semi_sync_primary_status: on(&status, "rpl_semi_sync_source_status"),
            semi_sync_replica_status: on(&status, "rpl_semi_sync_replica_status"),
            semi_sync_primary_clients: count(&status, "rpl_semi_sync_source_clients") as u32,
            semi_sync_primary_timeout: count(&variables, "rpl_semi_sync_source_timeout"),
            semi_sync_wait_for_replica_count: count(
                &variables,
                "rpl_semi_sync_source_wait_for_replica_count",
            ) as u32,
            replication_configuration: heartbeat.map(|heartbeat_interval| data::Configuration {
                heartbeat_interval,
                replica_net_timeout: net_timeout,
            }),
            ..Default::default()
        })
    }

    /// Commits that wait for an acknowledgement.
    pub(crate) fn waiting_sessions(&self) -> Result<u64, Fault> {
        let status =
            self.pairs("SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_source\\_wait\\_sessions'")?;
        Ok(status.values().next().and_then(|value| value.parse().ok()).unwrap_or(0))
    }

    /// Both sides of semi-sync, as a vttablet sets them for a primary or another.
    pub(crate) fn fix_semi_sync(&self, primary: bool, wanted: bool) -> Result<(), Fault> {
        let has =
            !self.pairs("SHOW GLOBAL VARIABLES LIKE 'rpl\\_semi\\_sync\\_%\\_enabled'")?.is_empty();
        match (has, wanted) {
            (false, true) => Err(Fault::precondition("VT09013: semi-sync plugins are not loaded")),
            (false, false) => Ok(()),
            (true, true) => self.run(&[&format!(
                "SET GLOBAL rpl_semi_sync_source_enabled = {}, GLOBAL rpl_semi_sync_replica_enabled = 1",
                u8::from(primary)
            )]),
            (true, false) => self.run(&[
                "SET GLOBAL rpl_semi_sync_source_enabled = 0, GLOBAL rpl_semi_sync_replica_enabled = 0",
            ]),
        }
    }

    /// What this set has and that other lacks, the transactions of one server aside.
    pub(crate) fn beyond(&self, mine: &str, theirs: &str, but: &str) -> Result<bool, Fault> {
        let set = |position: &str| position.split_once('/').unwrap_or(("", position)).1.to_owned();
        let (mine, theirs) = (set(mine), set(theirs));
        let own: Vec<&str> = mine.split(',').filter(|part| !part.starts_with(but)).collect();
        let rows =
            self.rows(&format!("SELECT GTID_SUBSET('{}', '{theirs}') AS within", own.join(",")))?;
        Ok(rows.first().and_then(|row| row.get("within")).map(String::as_str) == Some("0"))
    }
}

/// One text after another is a set to whoever reads it; overlapping parts are merged there.
fn union(one: &str, other: &str) -> String {
    format!("{one},{other}")
}

fn thread(state: &str) -> i32 {
    match state.to_ascii_lowercase().as_str() {
        "yes" => 3,
        "connecting" => 2,
        "no" => 1,
        _ => 0,
    }
}

fn fault(statement: &str, error: &mysql::Error) -> Fault {
    let (errno, text) = match error {
        mysql::Error::MySqlError(error) => (error.code, error.message.clone()),
        other => (2013, other.to_string()),
    };
    let text = format!(
        "ExecuteFetch({statement}) failed: {text} (errno {errno}) (sqlstate HY000) during query: {statement}"
    );
    Fault(Code::Unknown, text)
}

fn text(value: mysql::Value) -> Option<String> {
    match value {
        mysql::Value::NULL => None,
        mysql::Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        mysql::Value::Int(number) => Some(number.to_string()),
        mysql::Value::UInt(number) => Some(number.to_string()),
        mysql::Value::Float(number) => Some(number.to_string()),
        mysql::Value::Double(number) => Some(number.to_string()),
        other => Some(other.as_sql(true)),
    }
}
