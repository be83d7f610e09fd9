//! Values for tests of this and other crates.

use std::time::Duration;

use crate::durability::DurabilityPolicy;
use crate::settings::{RecoverySettings, UnappliedPolicy};

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
        unapplied: UnappliedPolicy::Wait,
        recover_filters: vec!["*".into()],
        cells_no_recovery: Vec::new(),
        promotion_rules: Vec::new(),
        promotion_ignore_hosts: Vec::new(),
        drain_errant: false,
        heartbeat_period: Duration::from_millis(250),
        command_timeout: Duration::from_secs(5),
    }
}
