//! Whose receiver is restarted, so that a connection that is dead without knowing shows it; and who goes on receiving
//! when nothing comes of a reparent. A receiver that leads to a primary that was replaced stays as it is: started, it
//! would acknowledge what that one still writes.

use crate::analysis::FindingKind;
use crate::ids::TabletAlias;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::status::{ReceiverState, ReplicationStatus};

/// A replica whose receiver is to be restarted.
#[derive(Clone, Copy, Debug)]
pub struct Restart<'a> {
    /// Which one.
    pub replica: &'a TabletState,
    /// It receives. Where it does not receive again, its source is gone, and no other is restarted.
    pub receives: bool,
}

/// Whose receivers are restarted, in this order: one replica's, or all where some are broken already, and those first
/// that lose nothing by it. Where heartbeats are seen, a dead connection shows by itself.
pub fn to_restart(snapshot: &ShardSnapshot, finding: FindingKind) -> Vec<Restart<'_>> {
    let Some(primary) = snapshot.primary() else { return Vec::new() };
    let candidates = snapshot.replicas_of(&primary.tablet.alias).filter_map(|replica| {
        let channel = channel_of(replica).filter(|channel| !channel.marker_sees_heartbeats)?;
        let receives = channel.receiver == ReceiverState::Running;
        (!snapshot.follows_another(replica, primary)).then_some(Restart { replica, receives })
    });
    let mut restarts: Vec<Restart<'_>> = candidates.collect();
    restarts.sort_by_key(|restart| restart.receives);
    if finding != FindingKind::UnreachablePrimaryWithBrokenReplicas {
        restarts = restarts.split_off(restarts.len().saturating_sub(1));
    }
    restarts
}

/// Whether this replica, whose receiver a reparent stopped in vain, is told to go on: where it received before, and
/// gives no acknowledgements to somebody who was replaced, as far as can be seen. Where another tablet took writes, the
/// records' primary may be that.
pub fn goes_on(snapshot: &ShardSnapshot, alias: &TabletAlias) -> bool {
    let Some(replica) = snapshot.tablet(alias) else { return false };
    let Some(primary) = snapshot.primary() else { return ran(replica) };
    let takes_writes = |other: &TabletState| {
        other
            .valid_status()
            .is_some_and(|status| status.is_writable() && status.replication.is_none())
    };
    let rival = || snapshot.replicas_of(&primary.tablet.alias).any(takes_writes);
    let replaced =
        || snapshot.follows_another(replica, primary) || (acknowledges(replica) && rival());
    ran(replica) && !replaced()
}

fn ran(replica: &TabletState) -> bool {
    channel_of(replica).is_some_and(|channel| channel.receiver != ReceiverState::Stopped)
}

fn acknowledges(replica: &TabletState) -> bool {
    replica.valid_status().is_some_and(|status| status.semi_sync.replica_enabled)
}

fn channel_of(state: &TabletState) -> Option<&ReplicationStatus> {
    state.valid_status()?.replication.as_ref()
}
