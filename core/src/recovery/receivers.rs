//! Whose receiver is restarted, so that a connection that is dead without knowing shows it; and who goes on receiving
//! when nothing comes of a reparent. A receiver that leads to a primary that was replaced stays as it is: started, it
//! would acknowledge what that one still writes.

use crate::analysis::FindingKind;
use crate::ids::TabletAlias;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::status::{ReceiverError, ReceiverErrorKind, ReceiverState, ReplicationStatus};

/// A replica whose receiver is to be restarted.
#[derive(Clone, Copy, Debug)]
pub struct Restart<'a> {
    /// Which one.
    pub replica: &'a TabletState,
    /// It receives. Whether it receives again says whether its source lives.
    pub receives: bool,
}

/// Whose receivers are restarted: one replica's, or all where some are broken already. Where heartbeats are seen, a
/// dead connection shows by itself.
///
/// They are restarted in rounds: first those that lose nothing by it and one that does, then twice as many each time.
/// Until a round has shown something, a primary that lives must not lose all of its followers.
pub fn to_restart(snapshot: &ShardSnapshot, finding: FindingKind) -> Vec<Vec<Restart<'_>>> {
    let Some(primary) = snapshot.primary() else { return Vec::new() };
    let candidates = snapshot.replicas_of(&primary.tablet.alias).filter_map(|replica| {
        let channel = replica.channel().filter(|channel| !channel.marker_sees_heartbeats)?;
        let receives = channel.receiver == ReceiverState::Running;
        may_receive(snapshot, replica, primary).then_some(Restart { replica, receives })
    });
    let (mut receiving, mut broken): (Vec<_>, Vec<_>) =
        candidates.partition(|restart: &Restart<'_>| restart.receives);
    if finding != FindingKind::UnreachablePrimaryWithBrokenReplicas {
        let one = receiving.pop().or_else(|| broken.pop());
        return one.map(|one| vec![one]).into_iter().collect();
    }
    let mut rounds = vec![broken];
    let mut size = 1;
    while !receiving.is_empty() {
        let round = receiving.drain(..size.min(receiving.len()));
        match rounds.last_mut().filter(|_| size == 1) {
            Some(first) => first.extend(round),
            None => rounds.push(round.collect()),
        }
        size *= 2;
    }
    rounds.retain(|round| !round.is_empty());
    rounds
}

/// What a replica whose receiver was restarted says of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is connected again: the source lives.
    Receives,
    /// The source answers and turns it away: the source lives, and would turn the next one away too.
    TurnsAway,
    /// It does not come through.
    Silent,
}

impl Source {
    /// As the replica's channel has it.
    pub fn of(channel: &ReplicationStatus) -> Self {
        let answers = |error: &ReceiverError| error.kind != ReceiverErrorKind::Unreachable;
        match channel.receiver {
            ReceiverState::Running => Self::Receives,
            ReceiverState::Stopped | ReceiverState::Connecting => {
                match channel.receiver_error.as_ref().is_some_and(answers) {
                    true => Self::TurnsAway,
                    false => Self::Silent,
                }
            }
        }
    }
}

/// Whether this replica, whose receiver a reparent stopped in vain, is told to go on: where it received before.
pub fn goes_on(snapshot: &ShardSnapshot, alias: &TabletAlias) -> bool {
    let Some(replica) = snapshot.tablet(alias) else { return false };
    let ran = replica.channel().is_some_and(|one| one.receiver != ReceiverState::Stopped);
    ran && snapshot.primary().is_none_or(|primary| may_receive(snapshot, replica, primary))
}

/// It gives no acknowledgements to somebody who was replaced, as far as can be seen: where another tablet takes
/// writes and is followed, the records' primary may be that.
fn may_receive(snapshot: &ShardSnapshot, replica: &TabletState, primary: &TabletState) -> bool {
    let acknowledges =
        replica.valid_status().is_some_and(|status| status.semi_sync.replica_enabled);
    let rival = || {
        let mut others = snapshot.replicas_of(&primary.tablet.alias);
        others.any(|other| takes_writes(other) && is_followed(snapshot, other))
    };
    let replaced = snapshot.follows_another(replica, primary) || (acknowledges && rival());
    !replaced
}

fn takes_writes(tablet: &TabletState) -> bool {
    tablet.tablet.tablet_type.is_promotable()
        && tablet
            .valid_status()
            .is_some_and(|status| status.is_writable() && status.replication.is_none())
}

/// Somebody's channel leads to it, by its last word.
fn is_followed(snapshot: &ShardSnapshot, source: &TabletState) -> bool {
    let mut channels = snapshot.tablets.values().filter_map(|state| state.status.as_ref());
    channels.any(|status| {
        status.replication.as_ref().is_some_and(|channel| source.is_source_of(channel))
    })
}
