//! Who acknowledges what the primary writes, and who is to.

use super::{Facts, errant_gtids};
use crate::durability::DurabilityPolicy;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::sabotage::{self, Bug};
use crate::status::{Flavor, ReceiverState, ServerStatus};

/// Counts those who acknowledge, who will once they are told to, and who could.
pub(super) fn count(
    facts: &mut Facts,
    snapshot: &ShardSnapshot,
    primary: &TabletState,
    status: &ServerStatus,
    policy: DurabilityPolicy,
) {
    for replica in snapshot.replicas_of(&primary.tablet.alias) {
        let last = replica.status.as_deref();
        if !policy.wants_ack_of(&primary.tablet, &replica.tablet, last) {
            continue;
        }
        // Whoever was never there, as a server that is to be set up, is waited for by nobody.
        let is_possible = match last {
            Some(theirs) => theirs.semi_sync.replica_available,
            None => snapshot.acknowledged_before(&replica.tablet.alias),
        };
        facts.ackers_possible += u32::from(is_possible);
        let Some(theirs) = replica.valid_status() else { continue };
        let connected = follows(theirs, status, primary);
        let enabled = theirs.semi_sync.replica_enabled;
        if connected && enabled && !snapshot.is_silent(replica, primary) {
            facts.ackers_ready += 1;
        } else if connected && !enabled && is_possible {
            facts.ackers_coming += 1;
        }
    }
}

/// It is connected to the primary.
fn follows(replica: &ServerStatus, primary: &ServerStatus, primary_state: &TabletState) -> bool {
    let address = primary_state.tablet.mysql.as_ref();
    replica.replication.as_ref().is_some_and(|replication| {
        replication.receiver == ReceiverState::Running && primary.is_source_of(replication, address)
    })
}

/// Whether a replica is to acknowledge. One with errant GTIDs is never promoted while there is another: it acknowledges
/// only where too few others do, or it could be the only one that has the last writes.
pub fn is_to_acknowledge(
    replica: &TabletState,
    primary: &TabletState,
    policy: DurabilityPolicy,
    snapshot: &ShardSnapshot,
) -> bool {
    let wanted = |one: &TabletState| {
        policy.wants_ack_of(&primary.tablet, &one.tablet, one.status.as_deref())
    };
    // Only what every vtorc can see counts: two of them would undo each other's work. Of a MariaDB, what one saw is not
    // known to one that was started later.
    let all_see = |one: &TabletState| {
        one.status.as_ref().is_some_and(|status| status.flavor == Flavor::MySql)
    };
    let errs = |one: &TabletState| all_see(one) && errant_gtids(one, primary).is_some();
    if !wanted(replica) || !errs(replica) || sabotage::has(Bug::LetErrantAcknowledge) {
        return wanted(replica);
    }
    let others = snapshot.replicas_of(&primary.tablet.alias).filter(|other| {
        let both = other.valid_status().zip(primary.valid_status());
        let acknowledges = both.is_some_and(|(theirs, source)| {
            let semi_sync = &theirs.semi_sync;
            semi_sync.replica_active
                && semi_sync.replica_enabled
                && follows(theirs, source, primary)
        });
        other.tablet.alias != replica.tablet.alias
            && wanted(other)
            && !errs(other)
            && !snapshot.is_silent(other, primary)
            && acknowledges
    });
    others.count() < policy.acks_required() as usize
}
