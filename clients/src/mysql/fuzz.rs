//! Servers of unknown versions answer: whatever they say, it is read or refused.

use proptest::prelude::*;

use super::dialect::{Dialect, Row};
use super::status;

/// The columns that are looked at, and one that nobody knows.
const COLUMNS: &[&str] = &[
    "server_id",
    "server_uuid",
    "version",
    "read_only",
    "super_read_only",
    "gtid_mode",
    "log_bin",
    "gtid_executed",
    "gtid_purged",
    "gtid_binlog_pos",
    "gtid_slave_pos",
    "source_host",
    "master_host",
    "source_port",
    "master_port",
    "source_uuid",
    "master_uuid",
    "source_server_id",
    "master_server_id",
    "replica_io_running",
    "slave_io_running",
    "replica_sql_running",
    "slave_sql_running",
    "last_io_error",
    "last_sql_error",
    "retrieved_gtid_set",
    "gtid_io_pos",
    "auto_position",
    "using_gtid",
    "seconds_behind_source",
    "seconds_behind_master",
    "sql_delay",
    "channel_name",
    "connection_name",
    "replicate_do_db",
    "heartbeat_interval",
    "heartbeats",
    "last_heartbeat",
    "variable_name",
    "value",
    "wibble",
];

fn cell() -> impl Strategy<Value = Option<String>> {
    let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    prop_oneof![
        Just(None),
        any::<String>().prop_map(Some),
        any::<i64>().prop_map(|number| Some(number.to_string())),
        any::<u64>().prop_map(|number| Some(number.to_string())),
        (any::<u64>(), any::<u64>())
            .prop_map(move |(from, to)| Some(format!("{uuid}:{from}-{to}"))),
        (any::<u32>(), any::<u32>(), any::<u64>())
            .prop_map(|(domain, server, number)| Some(format!("{domain}-{server}-{number}"))),
        prop::sample::select(vec!["ON", "OFF", "Yes", "No", "Connecting", "1", "0", ""])
            .prop_map(|word| Some(word.to_owned())),
        prop::sample::select(vec![
            "rpl_semi_sync_source_enabled",
            "rpl_semi_sync_master_timeout",
            "Rpl_semi_sync_source_clients",
            "log_replica_updates",
        ])
        .prop_map(|word| Some(word.to_owned())),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let column = prop::sample::select(COLUMNS).prop_map(ToOwned::to_owned);
    prop::collection::btree_map(column, cell(), 0..COLUMNS.len())
}

proptest! {
    #[test]
    fn any_answer(
        answers in prop::collection::vec(prop::collection::vec(row(), 0..3), 0..6),
        dialect in prop::sample::select(vec![Dialect::MySql, Dialect::OldMySql, Dialect::MariaDb]),
    ) {
        if let Ok(status) = status::read(dialect, &answers, "") {
            let received = status.gtid_received();
            prop_assert!(received.contains(&status.gtid_executed));
            let _ = received.subtract(&status.gtid_executed).to_string();
        }
    }
}
