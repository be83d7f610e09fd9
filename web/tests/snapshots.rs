//! Snapshot files come from anywhere: they are read or refused, and whatever is read can be explained.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use vtorc_core::admission::Switches;
use vtorc_core::analysis::detect;
use vtorc_core::controls::Controls;
use vtorc_core::preflight::concerns;
use vtorc_core::remedy::wanted;
use vtorc_core::reparent::prognosis::if_primary_died;
use vtorc_core::testkit;
use vtorc_web::SnapshotFile;

fn tablet(uid: u32, kind: &str, replication: Value) -> Value {
    json!({
        "alias": format!("zone1-{uid:010}"), "type": kind, "host": "h", "port": 3306, "state": "reachable",
        "asked_at_ms": 900, "received_at_ms": 900,
        "server": {
            "flavor": "mysql", "version": "8.0.36", "server_id": uid, "read_only": kind != "PRIMARY",
            "server_uuid": format!("3e11fa47-71ca-11e1-9e33-{uid:012}"), "super_read_only": false,
            "gtid_mode_on": true, "log_bin": true, "log_replica_updates": true, "gtid_purged": "",
            "gtid_executed": "3e11fa47-71ca-11e1-9e33-000000000001:1-9", "journal_length": 1,
            "semi_sync": {
                "source_available": true, "replica_available": true, "source_enabled": true,
                "replica_enabled": true, "source_active": true, "replica_active": true, "clients": 1,
                "wait_count": 1, "timeout_ms": 1000, "waiting_sessions": 0
            },
            "replication": replication
        }
    })
}

fn snapshot() -> Value {
    let follows = json!({
        "source_host": "h", "source_port": 3306, "source_uuid": "3e11fa47-71ca-11e1-9e33-000000000001",
        "source_server_id": 1, "receiver": "running", "receiver_error": null, "applier_running": true,
        "applier_error": "", "retrieved": "", "auto_position": true, "filtered": false, "lag_seconds": 0,
        "delay_seconds": 0, "heartbeat_period_ms": 300, "received_marker": "x", "marker_sees_heartbeats": true
    });
    json!({
        "keyspace": "ks", "shard": "0", "durability_policy": "semi_sync", "primary_alias": "zone1-0000000001",
        "emergency_reparent_disabled": false, "damaged": {}, "now_ms": 1000,
        "tablets": [
            tablet(1, "PRIMARY", Value::Null), tablet(2, "REPLICA", follows.clone()),
            tablet(3, "REPLICA", follows)
        ]
    })
}

/// Every place in a value, as a JSON pointer.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, one)| places(one, &format!("{at}/{key}"), all));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, one)| places(one, &format!("{at}/{n}"), all));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn odd() -> impl Strategy<Value = Value> {
    let numbers = vec![0, 1, 999, 1001, 3_000_000, u64::MAX - 1, u64::MAX];
    let words = vec![
        "unreachable",
        "suspect",
        "turned_away",
        "never_seen",
        "DRAINED",
        "RDONLY",
        "BACKUP",
        "none",
        "cross_cell",
        "mariadb",
        "0-1-5",
        "stopped",
        "connecting",
        "must_not",
        "zone2-0000000009",
        "3e11fa47-71ca-11e1-9e33-000000000002:1-18446744073709551615",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(numbers).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
    ]
}

fn explain(text: &str) {
    let Ok(snapshot) = SnapshotFile::parse(text) else { return };
    let settings = testkit::settings();
    let findings = detect(&snapshot, &settings);
    let _ = wanted(&findings, &snapshot, &settings);
    let _ = if_primary_died(&snapshot, &settings, Switches::on(&Controls::default()));
    let _ = concerns(&snapshot, &BTreeMap::new(), &settings, Switches::on(&Controls::default()));
    let again = serde_json::to_string(&SnapshotFile::of(&snapshot)).unwrap();
    assert_eq!(SnapshotFile::parse(&again).unwrap(), snapshot);
}

#[test]
fn the_sample_is_read() {
    SnapshotFile::parse(&snapshot().to_string()).unwrap();
    explain(&snapshot().to_string());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_files(
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..5),
    ) {
        let mut file = snapshot();
        for (at, value) in changes {
            let mut all = Vec::new();
            places(&file, "", &mut all);
            let place = at.get(&all);
            if let Some(one) = file.pointer_mut(place) {
                *one = value;
            }
        }
        explain(&file.to_string());
    }

    #[test]
    fn any_text(text in any::<String>()) {
        explain(&text);
    }
}
