//! The settings that decisions depend on, as the configuration gave them. No defaults for safety settings
//! beyond those that the documentation names.

use std::time::Duration;

use crate::durability::DurabilityPolicy;
use crate::filter::{HostFilter, ShardFilter};
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::tablet::{PromotionRule, Tablet};

/// What the recoveries may do and how long they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverySettings {
    /// No second automatic reparent of a shard before this has passed since the last one ended.
    pub block_period: Duration,
    /// The policy of keyspaces whose record names none.
    pub default_durability: DurabilityPolicy,
    /// A primary is never taken from another cell than the old one's.
    pub prevent_cross_cell_failover: bool,
    /// How long a promotion waits for received transactions to be applied.
    pub wait_replicas_timeout: Duration,
    /// How long a requested recovery waits for the shard's lock.
    pub lock_timeout: Duration,
    /// A replica further behind is too far behind.
    pub reasonable_lag: Duration,
    /// A replica further behind is no candidate of a planned reparent.
    pub tolerable_lag: Duration,
    /// A planned reparent that would refuse writes for longer is undone.
    pub write_outage_max: Duration,
    /// Also `super_read_only` where the server has it.
    pub use_super_read_only: bool,
    /// Log in at the candidate as replicas will, before a planned reparent stops writes.
    pub try_replica_login: bool,
    /// What to do with a winner that has not applied all it received.
    pub unapplied: UnappliedPolicy,
    /// The shards that are recovered (`RecoverMasterClusterFilters`); the others are only watched.
    pub recover_filters: Vec<ShardFilter>,
    /// Primaries that are gone are replaced (VTOrc's `--allow-emergency-reparent`).
    pub emergency_reparents: bool,
    /// Cells whose tablets are watched and not repaired (`CellsNoRecovery`).
    pub cells_no_recovery: Vec<String>,
    /// How willingly tablets are promoted, first match: an alias, or a regular expression over the host.
    /// They go before the records' tags.
    pub promotion_rules: Vec<(String, PromotionRule)>,
    /// Tablets on these hosts are never promoted.
    pub promotion_ignore_hosts: Vec<HostFilter>,
    /// Tablets with errant GTIDs are taken out of service.
    pub drain_errant: bool,
    /// A primary whose vttablet says that its disk is stalled is replaced.
    pub disk_stalled_recovery: bool,
    /// What vtorc sets as every replica's heartbeat period.
    pub heartbeat_period: Duration,
    /// Replicas keep whom they log in as at their source (`MySQLReplicaUser` is not set).
    pub keeps_logins: bool,
    /// One statement on a server that answers takes at most this long.
    pub command_timeout: Duration,
}

/// What a promotion does when the winner has received more than it applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnappliedPolicy {
    /// Wait until it has applied everything (`DelayMasterPromotionIfSQLThreadNotUpToDate`).
    Wait,
    /// Give up (`FailMasterPromotionIfSQLThreadNotUpToDate`).
    Fail,
}

impl RecoverySettings {
    /// How willingly this tablet is promoted.
    pub fn promotion_rule(&self, tablet: &Tablet) -> PromotionRule {
        let alias = tablet.alias.to_string();
        let by_settings = self.promotion_rules.iter().find(|(who, _)| {
            let means =
                |address| who.parse::<HostFilter>().is_ok_and(|filter| filter.means(address));
            *who == alias || tablet.mysql.as_ref().is_some_and(means)
        });
        by_settings.map(|(_, rule)| *rule).or(tablet.promotion_rule).unwrap_or_default()
    }

    /// Why this tablet is not repaired, if so: its cell is to be left alone, as VTOrc's `--cells-no-recovery` has it.
    pub fn left_alone(&self, tablet: &TabletAlias) -> Option<String> {
        let cell = &tablet.cell;
        let named = self.cells_no_recovery.contains(cell);
        named.then(|| format!("CellsNoRecovery leaves cell {cell} alone"))
    }

    /// The same of a shard as a whole: each cell in which it has tablets is.
    pub fn all_left_alone<'a>(
        &self,
        mut tablets: impl Iterator<Item = &'a TabletAlias>,
    ) -> Option<String> {
        let alone = !self.cells_no_recovery.is_empty()
            && tablets.all(|tablet| self.left_alone(tablet).is_some());
        alone.then(|| "CellsNoRecovery leaves all cells of this shard alone".into())
    }

    /// Tells whether anything of this shard is changed automatically.
    pub fn recovers(&self, shard: &KeyspaceShard) -> bool {
        self.recover_filters.iter().any(|filter| filter.means(shard))
    }
}
