//! Instances, analyses and tables as VTOrc writes them. Only fields with a meaning here are there.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use vtorc_actors::board::ShardReport;
use vtorc_core::analysis::{Finding, errant_gtids};
use vtorc_core::durability;
use vtorc_core::knowledge::observe::TabletState;
use vtorc_core::remedy::{Remedy, remedy};
use vtorc_core::status::{ReceiverState, ReplicationStatus, VttabletState};
use vtorc_core::tablet::TabletType;

use super::table;
use crate::views::{receiver_error, time};

/// A tablet's server.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instance {
    hostname: String,
    port: u16,
    instance_alias: String,
    tablet_type: i32,
    cell: String,
    #[serde(rename = "ServerID")]
    server_id: u32,
    #[serde(rename = "ServerUUID")]
    server_uuid: String,
    version: String,
    flavor_name: String,
    read_only: bool,
    binlog_format: String,
    log_bin_enabled: bool,
    log_replication_updates_enabled: bool,
    source_host: String,
    source_port: u16,
    #[serde(rename = "SourceUUID")]
    source_uuid: String,
    heartbeat_interval: f64,
    #[serde(rename = "ReplicationSQLThreadRuning")]
    applier_running: bool,
    #[serde(rename = "ReplicationIOThreadRuning")]
    receiver_running: bool,
    has_replication_filters: bool,
    #[serde(rename = "UsingOracleGTID")]
    using_gtid: bool,
    #[serde(rename = "LastSQLError")]
    applier_error: String,
    #[serde(rename = "LastIOError")]
    receiver_error: String,
    replication_lag_seconds: Option<u64>,
    #[serde(rename = "SQLDelay")]
    delay: u64,
    executed_gtid_set: String,
    gtid_purged: String,
    gtid_errant: String,
    /// What versions until 23 called the cell.
    data_center: String,
    semi_sync_primary_enabled: bool,
    semi_sync_replica_enabled: bool,
    semi_sync_primary_timeout: u64,
    semi_sync_primary_wait_for_replica_count: u32,
    semi_sync_primary_status: bool,
    semi_sync_primary_clients: u32,
    semi_sync_replica_status: bool,
    semi_sync_blocked: bool,
    stalled_disk: bool,
    last_seen_timestamp: String,
    is_last_check_valid: bool,
    problems: Vec<String>,
}

impl Instance {
    pub(super) fn of(state: &TabletState, report: &ShardReport) -> Self {
        let snapshot = &report.snapshot;
        let (tablet, status) = (&state.tablet, state.status.as_ref());
        let replication = status.and_then(|status| status.replication.as_ref());
        let semi_sync = status.map(|status| status.semi_sync.clone()).unwrap_or_default();
        let errant = snapshot.primary().and_then(|primary| errant_gtids(state, primary));
        let text =
            |of: &dyn Fn(&ReplicationStatus) -> String| replication.map(of).unwrap_or_default();
        let address = tablet.mysql.as_ref();
        let problems =
            report.findings.iter().filter(|one| one.tablet.as_ref() == Some(&tablet.alias));
        Self {
            hostname: address.map(|address| address.host.clone()).unwrap_or_default(),
            port: address.map(|address| address.port).unwrap_or_default(),
            instance_alias: tablet.alias.to_string(),
            server_id: status.map(|status| status.server_id).unwrap_or_default(),
            server_uuid: status.and_then(|status| status.server_uuid.clone()).unwrap_or_default(),
            version: status.map(|status| status.version.clone()).unwrap_or_default(),
            flavor_name: status.map(|status| status.flavor.name().to_owned()).unwrap_or_default(),
            read_only: status.is_some_and(|status| status.read_only),
            binlog_format: status
                .and_then(|status| status.binlog_format)
                .map(|format| format.name().to_owned())
                .unwrap_or_default(),
            log_bin_enabled: status.is_some_and(|status| status.log_bin),
            log_replication_updates_enabled: status
                .is_some_and(|status| status.log_replica_updates),
            source_host: text(&|r| r.source.host.clone()),
            source_port: replication.map(|r| r.source.port).unwrap_or_default(),
            source_uuid: text(&|r| r.source_uuid.clone().unwrap_or_default()),
            heartbeat_interval: replication.map(heartbeat).unwrap_or_default(),
            applier_running: replication.is_some_and(|r| r.applier_running),
            receiver_running: replication.is_some_and(|r| r.receiver == ReceiverState::Running),
            has_replication_filters: status.is_some_and(|status| status.is_filtered()),
            using_gtid: replication.is_some_and(|r| r.auto_position),
            applier_error: text(&|r| r.applier_error.clone().unwrap_or_default()),
            receiver_error: text(&receiver_error),
            replication_lag_seconds: replication.and_then(|r| r.lag_seconds),
            delay: replication.map(|r| r.delay_seconds).unwrap_or_default(),
            executed_gtid_set: status.map(|s| s.gtid_executed.to_string()).unwrap_or_default(),
            gtid_purged: status.map(|s| s.gtid_purged.to_string()).unwrap_or_default(),
            gtid_errant: errant.map(|errant| errant.to_string()).unwrap_or_default(),
            data_center: tablet.alias.cell.clone(),
            cell: tablet.alias.cell.clone(),
            tablet_type: current_type(state).number(),
            semi_sync_primary_enabled: semi_sync.source_enabled,
            semi_sync_replica_enabled: semi_sync.replica_enabled,
            semi_sync_primary_timeout: semi_sync.timeout_ms,
            semi_sync_primary_wait_for_replica_count: semi_sync.wait_count,
            semi_sync_primary_status: semi_sync.source_active,
            semi_sync_primary_clients: semi_sync.clients,
            semi_sync_replica_status: semi_sync.replica_active,
            semi_sync_blocked: matches!(
                status.and_then(|status| status.vttablet.as_ref()),
                Some(VttabletState::Answers { semi_sync_blocked: true, .. })
            ),
            stalled_disk: state.disk_stalled(),
            last_seen_timestamp: status.map(|_| time(state.status_at)).unwrap_or_default(),
            is_last_check_valid: state.reachability.is_valid(),
            problems: problems.map(|finding| finding.kind.to_string()).collect(),
        }
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty() || !self.is_last_check_valid
    }
}

/// What is wrong with a shard, one entry a finding.
pub(super) fn analyses(report: &ShardReport) -> Vec<Value> {
    report.findings.iter().map(|finding| analysis(finding, report)).collect()
}

fn analysis(finding: &Finding, report: &ShardReport) -> Value {
    let snapshot = &report.snapshot;
    let primary = snapshot.primary();
    let primary_alias = primary.map(|state| state.tablet.alias.to_string()).unwrap_or_default();
    let about = finding.tablet.as_ref().and_then(|alias| snapshot.tablet(alias));
    let status = about.and_then(|state| state.status.as_ref());
    let replication = status.and_then(|status| status.replication.as_ref());
    let replicas =
        || primary.into_iter().flat_map(|state| snapshot.replicas_of(&state.tablet.alias));
    let healthy = |state: &&TabletState| {
        let replication = state.valid_status().and_then(|status| status.replication.as_ref());
        replication.is_some_and(ReplicationStatus::is_healthy)
    };
    let acks = |state: &&TabletState| {
        state.valid_status().is_some_and(|status| status.semi_sync.replica_enabled)
    };
    let alias = finding.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
    let errant = about.and_then(|state| errant_gtids(state, primary?));
    json!({
        "AnalyzedInstanceAlias": alias,
        "AnalyzedInstancePrimaryAlias": primary_alias,
        "TabletType": about.map_or(TabletType::Unknown, |state| state.tablet.tablet_type).number(),
        "CurrentTabletType": about.map_or(TabletType::Unknown, current_type).number(),
        "AnalyzedKeyspace": snapshot.shard.keyspace,
        "AnalyzedShard": snapshot.shard.shard,
        "AnalyzedShardEmergencyReparentDisabled": snapshot.emergency_reparent_disabled,
        "IsPrimary": status.is_some_and(|status| status.replication.is_none()),
        "IsClusterPrimary": !alias.is_empty() && alias == primary_alias,
        "LastCheckValid": about.is_some_and(|state| state.reachability.is_valid()),
        "CountReplicas": replicas().count(),
        "CountValidReplicas": replicas().filter(|state| state.reachability.is_valid()).count(),
        "CountValidReplicatingReplicas": replicas().filter(healthy).count(),
        "ReplicationStopped": replication.is_some_and(|one| !one.is_healthy()),
        "HeartbeatInterval": replication.map(heartbeat).unwrap_or_default(),
        "CountValidSemiSyncReplicatingReplicas":
            replicas().filter(healthy).filter(acks).count(),
        "CountSemiSyncReplicasEnabled": replicas().filter(acks).count(),
        "ErrantGTID": errant.map(|errant| errant.to_string()).unwrap_or_default(),
        "Analysis": finding.kind.to_string(),
        "Description": format!("{}: {}", finding.why, finding.evidence_lines().join("; ")),
        "StructureAnalysis": null,
        "SemiSyncPrimaryEnabled": status.is_some_and(|status| status.semi_sync.source_enabled),
        "SemiSyncPrimaryStatus": status.is_some_and(|status| status.semi_sync.source_active),
        "SemiSyncPrimaryWaitForReplicaCount": status.map_or(0, |status| status.semi_sync.wait_count),
        "SemiSyncPrimaryClients": status.map_or(0, |status| status.semi_sync.clients),
        "SemiSyncReplicaEnabled": status.is_some_and(|status| status.semi_sync.replica_enabled),
        "IsActionableRecovery": remedy(finding.kind) != Remedy::WatchOnly,
        "RecoveryId": report.running.map(|id| id.0).unwrap_or(0),
        "IsReadOnly": status.is_some_and(|status| status.read_only),
        "IsDiskStalled": about.is_some_and(TabletState::disk_stalled),
    })
}

/// What VTOrc keeps in its database: keyspaces, shards, tablets and servers.
pub(super) fn database_state(reports: &[Arc<ShardReport>]) -> Vec<Value> {
    let (mut keyspaces, mut shards, mut tablets) = (Vec::new(), Vec::new(), Vec::new());
    let mut instances = Vec::new();
    for report in reports {
        let snapshot = &report.snapshot;
        let keyspace = json!({
            "keyspace": snapshot.shard.keyspace,
            "durability_policy": durability::name_of(&snapshot.durability),
            "disable_emergency_reparent": bit(snapshot.emergency_reparent_disabled),
        });
        if !keyspaces.contains(&keyspace) {
            keyspaces.push(keyspace);
        }
        let primary = snapshot.record.primary_alias.as_ref();
        shards.push(json!({
            "keyspace": snapshot.shard.keyspace,
            "shard": snapshot.shard.shard,
            "primary_alias": primary.map(ToString::to_string).unwrap_or_default(),
            "disable_emergency_reparent": bit(snapshot.record.emergency_reparent_disabled),
        }));
        for state in snapshot.tablets.values() {
            let tablet = &state.tablet;
            let address = tablet.mysql.as_ref();
            tablets.push(json!({
                "alias": tablet.alias.to_string(),
                "cell": tablet.alias.cell,
                "hostname": address.map(|address| address.host.as_str()).unwrap_or_default(),
                "port": address.map(|address| address.port.to_string()).unwrap_or_default(),
                "keyspace": tablet.shard.keyspace,
                "shard": tablet.shard.shard,
                "tablet_type": tablet.tablet_type.name(),
            }));
            instances.push(json!(Instance::of(state, report)));
        }
    }
    vec![
        table("vitess_keyspace", keyspaces),
        table("vitess_shard", shards),
        table("vitess_tablet", tablets),
        table("database_instance", instances),
    ]
}

/// What a tablet takes itself for; its record may lag behind.
fn current_type(state: &TabletState) -> TabletType {
    match state.status.as_ref().and_then(|status| status.vttablet.as_ref()) {
        Some(VttabletState::Answers { tablet_type, .. }) => *tablet_type,
        Some(VttabletState::Silent(_) | VttabletState::TooOld(_)) | None => {
            state.tablet.tablet_type
        }
    }
}

/// In seconds.
fn heartbeat(replication: &ReplicationStatus) -> f64 {
    let ms = replication.heartbeat_period_ms.unwrap_or_default();
    Duration::from_millis(ms).as_secs_f64()
}

fn bit(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}
