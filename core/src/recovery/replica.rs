//! How a tablet is made a proper replica of its primary.

use crate::durability::DurabilityPolicy;
use crate::ports::RelayLog;
use crate::sabotage::{self, Bug};
use crate::status::ServerStatus;
use crate::tablet::Tablet;

/// Whether a replica is to acknowledge what this primary writes. One that does not apply everything would acknowledge
/// data that it does not have.
pub fn acknowledges(
    policy: DurabilityPolicy,
    primary: &Tablet,
    replica: &Tablet,
    status: &ServerStatus,
) -> bool {
    let filtered = status.is_filtered() && !sabotage::has(Bug::TrustFiltered);
    policy.is_acker(primary, &replica.as_replica()) && !filtered
}

/// Whether what a replica received and has not applied may be thrown away when it is pointed at this source: only where
/// the source has committed all of it and its binary logs still hold it, so that it is sent again.
pub fn relay_log(replica: &ServerStatus, source: &ServerStatus) -> RelayLog {
    if sabotage::has(Bug::ThrowRelayLogsAway) {
        return RelayLog::MayGo;
    }
    let unapplied = replica.gtid_received().subtract(&replica.gtid_executed);
    let has_all = source.gtid_executed.contains(&unapplied);
    let holds_all = source.gtid_purged.subtract(&replica.gtid_executed).is_empty();
    match unapplied.is_empty() || (has_all && holds_all) {
        true => RelayLog::MayGo,
        false => RelayLog::MustStay,
    }
}
