//! The second half of every reparent: whether the winner was opened, and how the others are made to follow it.

use std::collections::BTreeSet;

use crate::durability::DurabilityPolicy;
use crate::ids::TabletAlias;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::ports::{CommandError, SourceChange};
use crate::sabotage::{self, Bug};
use crate::status::ServerStatus;
use crate::tablet::{Tablet, TabletType};

/// Whether a server was promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It takes writes.
    Yes(Box<ServerStatus>),
    /// It does not, and will not.
    No,
    /// Nobody knows, since it does not answer.
    Unknown(CommandError),
}

/// What a look at a server tells whose promotion was not answered. One that takes writes was promoted, whatever is
/// left to be done on it. One that does not was not, as long as nobody is still at it: what opens a server carries its
/// own deadline.
pub fn opened(looked: Result<ServerStatus, CommandError>) -> Opened {
    match looked {
        Ok(status) if sabotage::has(Bug::HalfPromotedIsNot) && status.replication.is_some() => {
            Opened::No
        }
        Ok(status) if status.is_writable() => Opened::Yes(Box::new(status)),
        Ok(_) => Opened::No,
        Err(error) => Opened::Unknown(error),
    }
}

/// What the last look tells, after the deadline of whatever was to open it. What a vttablet was told shows in what it
/// takes itself for, before its server takes writes.
pub fn opened_at_last(winner: &Tablet, looked: Result<ServerStatus, CommandError>) -> Opened {
    let word = looked.as_ref().ok().and_then(|status| status.vttablet.clone());
    let unsure = winner.vttablet.is_some() && !word.is_some_and(|word| word.is_no_primary());
    match opened(looked) {
        Opened::No if unsure => {
            let why = "its vttablet does not say that it was not promoted";
            Opened::Unknown(CommandError::Unknown(why.into()))
        }
        other @ (Opened::Yes(_) | Opened::No | Opened::Unknown(_)) => other,
    }
}

/// When a follower is pointed at the winner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// At once, while the winner is still being promoted: it throws nothing away.
    AtOnce,
    /// Once the winner is primary for certain: it has something that it cannot apply.
    Afterwards,
}

/// Whose turn is when. At once where nothing waits to be applied, or where an applier that runs will get to it. Where
/// it may be a stranger's, which does not apply, nobody can tell.
pub fn turn(snapshot: &ShardSnapshot, follower: &TabletAlias) -> Turn {
    if snapshot.has_stranger() {
        return Turn::Afterwards;
    }
    let status = snapshot.tablet(follower).and_then(|state| state.status.as_deref());
    let keeps_all = status.is_none_or(|status| {
        let runs = status.replication.as_ref().is_some_and(|channel| channel.applier_running);
        runs || status.gtid_executed.contains(&status.gtid_received())
    });
    if keeps_all { Turn::AtOnce } else { Turn::Afterwards }
}

/// What a follower is told beside its source's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// It acknowledges what it receives.
    pub semi_sync: bool,
    /// It is pointed there anew, or follows already.
    pub change: SourceChange,
}

/// How a tablet is made to follow a primary. Where others were to be promoted before, nobody follows the one any more
/// that was found under the lock.
pub fn following(
    snapshot: &ShardSnapshot,
    policy: DurabilityPolicy,
    (follower, primary): (&Tablet, &Tablet),
    refused: &BTreeSet<TabletAlias>,
) -> Following {
    let status = snapshot.tablet(&follower.alias).and_then(|state| state.status.as_deref());
    Following {
        semi_sync: policy.wants_ack_of(primary, follower, status),
        change: match refused.is_empty() && follows(snapshot, follower, primary) {
            true => SourceChange::Keep,
            false => SourceChange::Repoint,
        },
    }
}

/// Whether both answered, and one follows the other.
pub fn follows(snapshot: &ShardSnapshot, tablet: &Tablet, source: &Tablet) -> bool {
    let status = |alias| snapshot.tablet(alias).and_then(|state| state.valid_status());
    let (Some(replica), Some(primary)) = (status(&tablet.alias), status(&source.alias)) else {
        return false;
    };
    let channel = replica.replication.as_ref();
    channel.is_some_and(|channel| primary.is_source_of(channel, source.mysql.as_ref()))
}

/// Whose records still say PRIMARY beside the winner's, and are vtorc's to write: a vttablet publishes its type itself.
pub fn stale_records<'a>(
    snapshot: &'a ShardSnapshot,
    winner: &'a TabletAlias,
) -> impl Iterator<Item = &'a TabletAlias> {
    let tablets = snapshot.tablets.values().map(|state| &state.tablet);
    let stale = tablets.filter(move |tablet| {
        let was_primary = tablet.tablet_type == TabletType::Primary;
        was_primary && tablet.alias != *winner && tablet.vttablet.is_none()
    });
    stale.map(|tablet| &tablet.alias)
}
