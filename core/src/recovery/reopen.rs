//! Whether the records' primary, which refuses writes, may take them again.

use std::collections::BTreeSet;

use crate::durability::DurabilityPolicy;
use crate::ids::TabletAlias;
use crate::knowledge::observe::{Receiving, TabletState};
use crate::knowledge::snapshot::ShardSnapshot;
use crate::reparent::election::{Contender, PrimaryPosition, Witnesses, position_of_primary};
use crate::reparent::safety::{Reach, Unsafe, check_named};
use crate::status::{ReceiverState, ReplicationStatus};
use crate::time::Timestamp;

/// Records may lie. To open a replica that still has something to apply would throw that away, and one with filters
/// lacks what it threw away: unless it got nothing from anybody since it took writes itself in this term.
fn check_applied(primary: &TabletState) -> Result<(), Unsafe> {
    let status = primary.valid_status().filter(|status| status.replication.is_some());
    let Some(status) = status else { return Ok(()) };
    let (alias, unapplied) = (primary.tablet.alias.clone(), status.unapplied());
    if !unapplied.is_empty() {
        let unapplied = Box::new(unapplied);
        return Err(Unsafe::NotApplied { primary: alias, unapplied });
    }
    let served = primary.as_primary.as_ref();
    let got_nothing_since = served.is_some_and(|then| {
        let since = status.gtid_executed.subtract(&then.gtid_executed);
        since.without_writer(&status.identity()).is_empty()
    });
    match status.is_filtered() && !got_nothing_since {
        true => Err(Unsafe::Filtered(alias)),
        false => Ok(()),
    }
}

/// Who receives from a tablet out of sight acknowledges to it, maybe: that one takes writes. One that is connected and
/// hears nothing, where heartbeats would be heard, speaks for nobody. So does whoever receives from a server that is no
/// tablet's, where the records' primary receives from it too: the record of that one was deleted, and theirs lies.
fn check_not_followed_elsewhere(snapshot: &ShardSnapshot) -> Result<(), Unsafe> {
    let receives = |state: &&TabletState| {
        let channel = state.channel();
        let connected = channel.is_some_and(|channel| channel.receiver == ReceiverState::Running);
        connected && state.receiving(Timestamp::default()) != Receiving::No
    };
    let is_tablets = |channel: &ReplicationStatus| {
        snapshot.tablets.values().any(|other| other.is_source_of(channel))
    };
    let primary = snapshot.primary().filter(receives);
    let foreign = primary.and_then(|state| Some((state, state.channel()?)));
    let foreign = foreign.filter(|(_, channel)| !is_tablets(channel));
    let beside_primary = |state: &TabletState| {
        foreign.is_some_and(|(primary, of_primary)| {
            let other = state.tablet.alias != primary.tablet.alias;
            other && state.channel().is_some_and(|channel| channel.has_source_of(of_primary))
        })
    };
    let mut followers = snapshot.tablets.values().filter(receives);
    match followers.find(|state| snapshot.follows_lost_tablet(state) || beside_primary(state)) {
        Some(follower) => {
            Err(Unsafe::FollowedElsewhere { follower: follower.tablet.alias.clone() })
        }
        None => Ok(()),
    }
}

/// Checks that nobody out of sight can have taken its place. Checks also that nobody out of sight was last seen with
/// what the primary lacks and what may have been acknowledged. (Of those in sight the findings tell.)
pub fn check(snapshot: &ShardSnapshot, policy: DurabilityPolicy) -> Result<(), Unsafe> {
    let answered = snapshot.tablets.values().filter(|state| state.valid_status().is_some());
    let reached: BTreeSet<TabletAlias> = answered.map(|state| state.tablet.alias.clone()).collect();
    check_named(snapshot)?;
    Reach::of(snapshot, policy, &reached).check_incumbent()?;
    let Some(primary) = snapshot.primary() else { return Ok(()) };
    check_applied(primary)?;
    check_not_followed_elsewhere(snapshot)?;
    let primary = &primary.tablet.alias;
    let hidden = |state: &&TabletState| state.valid_status().is_none();
    let heard = Contender::heard(snapshot);
    for holder in snapshot.tablets.values().filter(hidden).map(|state| &state.tablet.alias) {
        let in_question =
            |one: &&Contender| reached.contains(&one.tablet.alias) || one.tablet.alias == *holder;
        let everybody: Vec<Contender> = heard.iter().filter(in_question).cloned().collect();
        let position = position_of_primary(primary, &everybody, policy, Witnesses::All);
        if position == PrimaryPosition::Behind {
            let (holder, primary) = (holder.clone(), primary.clone());
            return Err(Unsafe::AheadOutOfSight { holder, primary });
        }
    }
    Ok(())
}
