//! Values for tests of this and other crates.

use std::time::Duration;

use crate::durability::DurabilityPolicy;
use crate::gtid::{GtidSet, MariaDbBinlogState};
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::settings::{RecoverySettings, UnappliedPolicy};
use crate::status::{
    BinlogFormat, Flavor, ReceiverState, ReplicationStatus, SemiSyncStatus, ServerStatus,
};
use crate::tablet::{MysqlAddress, Tablet, TabletType};
use crate::topology::{ShardRecord, ShardTopology};

/// A tablet of `ks/0` of which nothing more is known.
pub fn tablet(alias: TabletAlias, tablet_type: TabletType) -> Tablet {
    Tablet {
        alias,
        shard: KeyspaceShard { keyspace: "ks".into(), shard: "0".into() },
        tablet_type,
        mysql: None,
        term_start: None,
        vttablet: None,
        promotion_rule: None,
    }
}

/// `ks/0` with these replicas, as it is read from a topology that is well.
pub fn shard(replicas: &[TabletAlias]) -> ShardTopology {
    let replicas = replicas.iter();
    ShardTopology {
        shard: KeyspaceShard { keyspace: "ks".into(), shard: "0".into() },
        durability: Ok(DurabilityPolicy::None),
        record: ShardRecord::default(),
        emergency_reparent_disabled: false,
        tablets: replicas
            .map(|one| (one.clone(), tablet(one.clone(), TabletType::Replica)))
            .collect(),
        damaged: Default::default(),
        unread_tablets: Default::default(),
        unread_record: None,
        known_cells: Default::default(),
        unseen: Default::default(),
    }
}

/// A MySQL server that has nothing and follows nobody.
pub fn status() -> ServerStatus {
    ServerStatus {
        flavor: Flavor::MySql,
        version: "9.7".into(),
        server_id: 1,
        server_uuid: None,
        place: None,
        read_only: true,
        super_read_only: true,
        gtid_mode_on: true,
        log_bin: true,
        log_replica_updates: true,
        would_filter: false,
        binlog_format: Some(BinlogFormat::Row),
        gtid_executed: GtidSet::empty_mysql(),
        gtid_purged: GtidSet::empty_mysql(),
        binlog_state: MariaDbBinlogState::default(),
        replication: None,
        channels: Vec::new(),
        semi_sync: SemiSyncStatus::default(),
        journal_length: None,
        uptime: None,
        free_connections: None,
        writes_wait: false,
        backup_runs: false,
        offline: false,
        vttablet: None,
    }
}

/// Replication from this source that is well, and has brought nothing yet.
pub fn replication(source: MysqlAddress) -> ReplicationStatus {
    ReplicationStatus {
        channel: String::new(),
        source,
        source_uuid: None,
        source_server_id: None,
        receiver: ReceiverState::Running,
        receiver_error: None,
        applier_running: true,
        applier_error: None,
        retrieved: GtidSet::empty_mysql(),
        tls: None,
        auto_position: true,
        filtered: false,
        gives_up_after_s: None,
        lag_seconds: Some(0),
        delay_seconds: 0,
        heartbeat_period_ms: Some(250),
        received_marker: "1".into(),
        marker_sees_heartbeats: true,
    }
}

/// Settings as the documentation's defaults would give them, with a short block period.
pub fn settings() -> RecoverySettings {
    RecoverySettings {
        block_period: Duration::from_secs(60),
        default_durability: DurabilityPolicy::None,
        prevent_cross_cell_failover: false,
        wait_replicas_timeout: Duration::from_secs(30),
        lock_timeout: Duration::from_secs(45),
        reasonable_lag: Duration::from_secs(10),
        tolerable_lag: Duration::from_secs(10),
        disk_stalled_recovery: false,
        write_outage_max: Duration::from_secs(5),
        use_super_read_only: true,
        try_replica_login: true,
        unapplied: UnappliedPolicy::Wait,
        recover_filters: "*".parse().into_iter().collect(),
        emergency_reparents: true,
        cells_no_recovery: Vec::new(),
        promotion_rules: Vec::new(),
        promotion_ignore_hosts: Vec::new(),
        drain_errant: false,
        heartbeat_period: Duration::from_millis(250),
        keeps_logins: false,
        command_timeout: Duration::from_secs(5),
    }
}
