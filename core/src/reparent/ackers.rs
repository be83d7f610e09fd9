//! Who may hold what a primary told its clients is done, beside those whom the policy counts.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::TabletAlias;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::sabotage::{self, Bug};
use crate::status::{ReceiverState, ReplicationStatus, ServerStatus};
use crate::tablet::TabletType;
use crate::time::Timestamp;
use crate::topology::Place;

/// Ackers that the policy does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrayAckers {
    /// Tablets that acknowledge, or may, against the policy.
    pub tablets: BTreeSet<TabletAlias>,
    /// Where tablets may be that nobody here has ever read, and that may acknowledge.
    pub places: BTreeSet<Place>,
}

/// Finds them.
///
/// A tablet that was heard is judged by its last words: semi-sync is switched on in a `my.cnf`, stays on while a backup
/// is taken, and for a moment after the policy was changed. Of one that was never heard the primary knows: it counts
/// its connected ackers (`Rpl_semi_sync_*_clients`), and where those that are known account for all of them, nobody
/// else can have acknowledged anything.
pub fn stray_ackers(snapshot: &ShardSnapshot) -> StrayAckers {
    if sabotage::has(Bug::CountPolicyAckersOnly) {
        return StrayAckers::default();
    }
    // Where there never was a primary, nothing was acknowledged.
    let room = if snapshot.had_primary() { unaccounted(snapshot) } else { Some(0) };
    let may_acknowledge = |state: &&TabletState| match &state.status {
        Some(_) => snapshot.may_have_acknowledged(state),
        None => state.tablet.mysql.is_some() && unheard_may_acknowledge(state, room, snapshot),
    };
    let tablets = snapshot.tablets.values().filter(may_acknowledge);
    let places = snapshot.unseen.keys().filter(|_| room != Some(0));
    StrayAckers {
        tablets: tablets.map(|state| state.tablet.alias.clone()).collect(),
        places: places.cloned().collect(),
    }
}

/// Its source counts it among its connected ackers. One whose receiver stood does not explain anything of that count.
fn is_counted_acker(status: &ServerStatus) -> bool {
    let connected = |channel: &ReplicationStatus| channel.receiver == ReceiverState::Running;
    let counts =
        status.semi_sync.replica_active && status.replication.as_ref().is_some_and(connected);
    counts || (status.acknowledges() && sabotage::has(Bug::CountStoppedAckers))
}

fn unheard_may_acknowledge(
    state: &TabletState,
    room: Option<u32>,
    snapshot: &ShardSnapshot,
) -> bool {
    if sabotage::has(Bug::WaitForUnseen) {
        return !state.tablet.tablet_type.is_managed();
    }
    match (state.tablet.tablet_type, room) {
        // Whoever restores a tablet has stopped its replication.
        (TabletType::Restore, _) | (_, Some(0)) => false,
        (_, Some(_)) => true,
        // The primary was never heard either. A tablet that takes a backup was an acker a moment ago; what is out of
        // service, or is no acker by its type, was set up by whoever took it out.
        (tablet_type, None) => {
            tablet_type == TabletType::Backup || snapshot.may_have_acknowledged(state)
        }
    }
}

/// Whoever said no later that it was connected may be gone, and somebody else in its place.
const EXPLAINS_FOR: Duration = Duration::from_secs(5);

/// What a tablet said last before the primary was asked, if that was not long before; or else what it said next.
fn said_about(state: &TabletState, asked_at: Timestamp) -> Option<&ServerStatus> {
    let lately = |answered_at: &Timestamp| {
        *answered_at <= asked_at && answered_at.age(asked_at) <= EXPLAINS_FOR
    };
    let before = state.words().filter(|(_, answered_at)| lately(answered_at)).last();
    let next = || state.words().find(|(_, answered_at)| *answered_at > asked_at);
    before.or_else(next).map(|(status, _)| status)
}

/// How many ackers the primary last said that it has, beside those who said shortly before that they were connected
/// to it as such; none if it was never heard.
fn unaccounted(snapshot: &ShardSnapshot) -> Option<u32> {
    let primary = snapshot.primary()?;
    let status = primary.status.as_ref()?;
    let address = primary.tablet.mysql.as_ref();
    let said = snapshot.tablets.values().filter_map(|state| said_about(state, primary.status_at));
    let accounted = said.filter(|theirs| {
        let follows = |replication| status.is_source_of(replication, address);
        is_counted_acker(theirs) && theirs.replication.as_ref().is_some_and(follows)
    });
    let accounted = u32::try_from(accounted.count()).unwrap_or(u32::MAX);
    Some(status.semi_sync.clients.saturating_sub(accounted))
}
