//! Whose server answers at a tablet's address. Addresses are given to others when machines and pods come and go: a
//! server that is not the tablet's is named, and never changed.

use std::sync::Arc;

use super::health::ProbeFailure;
pub use super::health::Stranger;
use super::observe::{Answer, TabletState};
use super::snapshot::ShardSnapshot;
use crate::gtid::GtidSet;
use crate::ids::{ServerIdentity, TabletAlias};
use crate::sabotage::{self, Bug};
use crate::status::{Flavor, ReceiverState, ServerStatus};
use crate::time::Timestamp;

/// What an answer says about who gave it.
enum Recognised {
    /// The tablet's own server.
    Own,
    /// The same, as its history or its source shows.
    Proven,
    /// Not enough is known of the shard to tell. It is believed until more is known.
    Unsettled,
    /// Somebody else's.
    Stranger(Stranger),
}

impl ShardSnapshot {
    /// Takes in an answer of one server, or that there was none.
    pub fn take_answer(&mut self, alias: &TabletAlias, answer: Answer, now: Timestamp) {
        let result = answer.result.map(|status| self.with_own_channel(alias, status));
        let answer = self.recognised(alias, Answer { result, ..answer });
        let primary = self.primary().filter(|primary| primary.tablet.alias != *alias);
        let primary_asked_at = primary.map(|primary| primary.status_at);
        let answered = answer.result.is_ok();
        if let Some(state) = self.tablets.get_mut(alias) {
            state.observe(answer, now);
            state.forget(primary_asked_at);
        }
        if answered {
            self.settle_primary();
            self.remember_losses(alias);
            self.forget_losses();
        }
        self.now = now;
    }

    /// The primary that was believed until more is known is known as soon as somebody answers who shares its history:
    /// other shards must hear at once whose server it is.
    fn settle_primary(&mut self) {
        let unsettled = self.primary().filter(|primary| primary.identity.is_none());
        let Some(primary) = unsettled else { return };
        let Some(status) = primary.valid_status() else { return };
        let identity = status.identity();
        let mut others = references(self, primary, &identity);
        if !others.any(|other| other.shares_history_of(status)) {
            return;
        }
        drop(others);
        let alias = primary.tablet.alias.clone();
        if let Some(primary) = self.tablets.get_mut(&alias) {
            primary.proven = is_unique(&identity);
            primary.identity = Some(identity);
        }
    }

    fn remember_losses(&mut self, alias: &TabletAlias) {
        let Some(state) = self.tablets.get(alias) else { return };
        let others = self.tablets.values().filter(|other| other.tablet.alias != *alias);
        let lacks = others.filter_map(|other| state.lacks_of_its_own(other));
        let lacks = lacks.fold(GtidSet::empty_mysql(), |all, lost| all.union(&lost));
        if let Some(state) = self.tablets.get_mut(alias) {
            state.losses.hear(lacks);
        }
    }

    /// What nobody has any more is no loss to be minded.
    fn forget_losses(&mut self) {
        let lost = self.tablets.values().filter(|state| state.losses.certain().is_some());
        let losers: Vec<TabletAlias> = lost.map(|state| state.tablet.alias.clone()).collect();
        for loser in losers {
            let others = self.tablets.values().filter(|other| other.tablet.alias != loser);
            // Who was never heard may have it.
            if others.clone().any(|other| other.status.is_none()) {
                continue;
            }
            let words = others.filter_map(|other| other.status.as_deref());
            let held =
                words.fold(GtidSet::empty_mysql(), |all, one| all.union(&one.gtid_received()));
            if let Some(state) = self.tablets.get_mut(&loser) {
                state.losses.keep(&held);
            }
        }
    }

    /// What a stranger answers says nothing of the tablet but that its own server is not there.
    fn recognised(&mut self, alias: &TabletAlias, answer: Answer) -> Answer {
        let (Ok(status), Some(state)) = (&answer.result, self.tablets.get(alias)) else {
            return answer;
        };
        let identity = status.identity();
        let recognised = recognise(self, state, status, &identity, &answer);
        let Some(state) = self.tablets.get_mut(alias) else { return answer };
        match recognised {
            Recognised::Own => {
                state.proven &= state.identity.as_ref() == Some(&identity);
                state.identity = Some(identity);
                state.stranger = None;
            }
            Recognised::Proven => {
                // Another shard's server may have the same `server_id`: of that, nothing is proven once for all.
                state.proven = is_unique(&identity);
                state.identity = Some(identity);
                state.stranger = None;
            }
            Recognised::Unsettled => state.stranger = None,
            Recognised::Stranger(stranger) => {
                state.stranger = Some(status.clone());
                // What it said before its owner was known are no words of the tablet's.
                state.identity = state.identity.take().filter(|known| *known != identity);
                let is_his = |said: &Arc<ServerStatus>| said.identity() == identity;
                state.status = state.status.take().filter(|said| !is_his(said));
                state.earlier.retain(|(said, _)| !is_his(said));
                return Answer { result: Err(ProbeFailure::Stranger(stranger)), ..answer };
            }
        }
        answer
    }
}

impl TabletState {
    /// The server that no other new shard's tablet has: its own, or, while it is not known whose that is, the one that
    /// answers here.
    pub fn claimed(&self) -> Option<ServerIdentity> {
        // One late answer gives it to nobody else.
        let said = self.status.as_ref().filter(|_| !self.reachability.is_unreachable());
        self.identity.clone().or_else(|| said.map(|status| status.identity()))
    }
}

/// So many transactions at most come from setting a server up: creating its users and its monitoring.
const SET_UP_MAX: u64 = 100;

/// Says whose server gave an answer. `status` and `mine` are what it says, and of itself.
///
/// A server that was there before is the tablet's own. So is a new one that has the shard's history, as after a
/// restore, or hardly any at all. Two records that lead to one server are told apart by whose it was first; the
/// primary's comes before all others, since a stranger in the primary's place is replaced, and one that acknowledged
/// before comes before one that is new.
fn recognise(
    snapshot: &ShardSnapshot,
    state: &TabletState,
    status: &ServerStatus,
    mine: &ServerIdentity,
    answer: &Answer,
) -> Recognised {
    if sabotage::has(Bug::TrustAddresses) {
        return Recognised::Unsettled;
    }
    let is_known = state.identity.as_ref() == Some(mine);
    if let Some(twin) = twin(snapshot, state, status, is_known) {
        return Recognised::Stranger(Stranger::Belongs(twin.clone()));
    }
    // A tablet that moved from one shard to another is its own neighbour for a while.
    let claimed_by = answer.claimed_by.as_ref().filter(|owner| **owner != state.tablet.alias);
    let leads = is_primary(snapshot, state);
    let shares = || references(snapshot, state, mine).any(|other| status.shares_history_of(other));
    // It was believed while it was alone; those who come back knew another one. (Asked at every probe, and histories
    // are long: they come last.)
    if is_known && leads && others_followed_another(snapshot, state, status) && !shares() {
        return Recognised::Stranger(Stranger::SharesNothing);
    }
    if is_known && !state.proven && follows_primary(snapshot, status) {
        return Recognised::Proven;
    }
    let may_be_elsewhere = is_known && !leads && !state.proven && is_in_use(snapshot, status);
    if may_be_elsewhere && references(snapshot, state, mine).next().is_some() && !shares() {
        return Recognised::Stranger(Stranger::SharesNothing);
    }
    // In a shard that never had a primary, nothing tells who came to this address first.
    if is_known && (claimed_by.is_none() || snapshot.had_primary()) {
        return Recognised::Own;
    }
    let references: Vec<&ServerStatus> = references(snapshot, state, mine).collect();
    let shares = references.iter().any(|other| status.shares_history_of(other));
    let is_empty = status.gtid_executed.is_empty();
    match (claimed_by, &state.identity) {
        // The records' primary that has the shard's history is believed before a claim from elsewhere.
        (Some(_), None) if shares && leads => Recognised::Proven,
        (Some(owner), _) => Recognised::Stranger(Stranger::Belongs(owner.clone())),
        // What the primary was known to have is not there: the primary is gone, whoever this is.
        (None, Some(_))
            if leads && lacks_what_it_wrote(snapshot, state, status, answer.sent_at) =>
        {
            Recognised::Stranger(Stranger::NotMeant)
        }
        (None, _) if shares => Recognised::Proven,
        // An empty one in the primary's place is not the one that others followed there.
        (None, _) if is_empty && !(leads && others_followed_another(snapshot, state, status)) => {
            Recognised::Own
        }
        (None, Some(_))
            if would_be_set_aside(snapshot, state, status)
                || is_somebody(snapshot, status, &references) =>
        {
            Recognised::Stranger(Stranger::SharesNothing)
        }
        (None, Some(_)) => Recognised::Own,
        (None, None) if leads => recognise_primary(snapshot, state, status, &references),
        (None, None) if !references.is_empty() && is_somebody(snapshot, status, &references) => {
            Recognised::Stranger(Stranger::SharesNothing)
        }
        (None, None) => Recognised::Unsettled,
    }
}

/// Tells whether a new server in the primary's place lacks what the primary wrote, by what others had when it was
/// asked.
fn lacks_what_it_wrote(
    snapshot: &ShardSnapshot,
    state: &TabletState,
    status: &ServerStatus,
    asked_at: Timestamp,
) -> bool {
    let has = status.gtid_received();
    let mut others = snapshot.replicas_of(&state.tablet.alias);
    others.any(|other| {
        let timely = other.words().filter(|(_, answered_at)| *answered_at <= asked_at);
        let Some(theirs) = timely.last().map(|(said, _)| said.gtid_received()) else {
            return false;
        };
        // A MariaDB's position is behind another one whoever wrote the two.
        let known = state.identity.as_ref();
        known.is_some_and(|known| !has.of_writer(known).contains(&theirs.of_writer(known)))
    })
}

/// Where the records' primary shares nothing with the others, either may be the strangers: unless those followed
/// another server at its address.
fn recognise_primary(
    snapshot: &ShardSnapshot,
    state: &TabletState,
    status: &ServerStatus,
    others: &[&ServerStatus],
) -> Recognised {
    if others.iter().any(|other| other.shares_history_of(status)) {
        return Recognised::Proven;
    }
    if others_followed_another(snapshot, state, status) {
        return Recognised::Stranger(Stranger::SharesNothing);
    }
    // It is alone, and everybody else was looked at.
    let mut others_asked = snapshot.replicas_of(&state.tablet.alias);
    let all_asked =
        others_asked.all(|other| other.status.is_some() || other.reachability.is_unreachable());
    match others.is_empty() && all_asked {
        true => Recognised::Own,
        false => Recognised::Unsettled,
    }
}

/// Tells whether a new server in a replica's place could not follow the primary, having transactions of its own: as the
/// tablet's it would be taken out of service, and it may be there for a moment only.
fn would_be_set_aside(
    snapshot: &ShardSnapshot,
    state: &TabletState,
    status: &ServerStatus,
) -> bool {
    let primary = snapshot.primary_in_sight();
    let primary = primary.filter(|primary| primary.tablet.alias != state.tablet.alias);
    let theirs = primary.and_then(TabletState::valid_status);
    theirs.is_some_and(|theirs| status.written_beyond(&[theirs]) > 0)
}

/// A server that was only set up, or that has hardly anything that the shard lacks, belongs to nobody yet. One that has
/// written, that others acknowledge to, or that follows somebody outside of the shard, has another place.
fn is_somebody(
    snapshot: &ShardSnapshot,
    status: &ServerStatus,
    references: &[&ServerStatus],
) -> bool {
    // One that takes writes has its own from there on.
    let known = if status.is_writable() { &[] } else { references };
    status.written_beyond(known) > SET_UP_MAX
        || status.semi_sync.clients > 0
        || follows_outside(snapshot, status)
}

/// It is connected to the primary, and receives from it.
fn follows_primary(snapshot: &ShardSnapshot, status: &ServerStatus) -> bool {
    let Some(replication) = &status.replication else { return false };
    let connected = replication.receiver == ReceiverState::Running && replication.knows_source();
    connected && snapshot.primary().is_some_and(|primary| primary.is_source_of(replication))
}

/// A server that follows no tablet and serves somebody: it writes, others acknowledge to it, or it follows somebody
/// outside of the shard. One that had hardly anything was taken for the tablet's own, and may turn out to be another
/// shard's.
fn is_in_use(snapshot: &ShardSnapshot, status: &ServerStatus) -> bool {
    let serves = status.semi_sync.clients > 0
        || (status.is_writable() && status.written_beyond(&[]) > SET_UP_MAX);
    (serves && status.replication.is_none()) || follows_outside(snapshot, status)
}

/// Which server a command to a tablet is meant for: the one that is known as the tablet's, else the one whose answer
/// was judged. A stranger is sent none, nor is somebody who may be one by what else is known of the shard.
pub fn meant(
    snapshot: &ShardSnapshot,
    state: &TabletState,
) -> Result<Option<ServerIdentity>, Stranger> {
    if state.identity.is_none()
        && let Some(status) = state.valid_status()
        && let Some(doubt) = doubt(snapshot, state, status)
    {
        return Err(doubt);
    }
    match state.reachability.failure() {
        Some(ProbeFailure::Stranger(stranger)) => Err(stranger.clone()),
        Some(
            ProbeFailure::Refused(_)
            | ProbeFailure::TimedOut
            | ProbeFailure::Overloaded
            | ProbeFailure::TurnedAway(_)
            | ProbeFailure::Full(_)
            | ProbeFailure::Blocked(_)
            | ProbeFailure::Garbled(_)
            | ProbeFailure::DiskStalled
            | ProbeFailure::TooOld(_),
        )
        | None => {
            let judged = || state.status.as_ref().map(|status| status.identity());
            match state.identity.clone().or_else(judged) {
                // Silence does not send the stranger away that answered last.
                None if state.stranger.is_some() => Err(Stranger::NotMeant),
                meant => Ok(meant),
            }
        }
    }
}

/// The tablet of the same shard whose server this is.
fn twin<'a>(
    snapshot: &'a ShardSnapshot,
    state: &TabletState,
    status: &ServerStatus,
    is_known: bool,
) -> Option<&'a TabletAlias> {
    let believed = is_primary(snapshot, state) && (is_known || state.identity.is_none());
    if believed {
        return None;
    }
    let mine = status.identity();
    let has_it = |other: &&TabletState| {
        let same = || other.status.as_ref().is_some_and(|said| said.is_of_same_server(status));
        other.identity.as_ref() == Some(&mine) && (is_unique(&mine) || same())
    };
    let others = snapshot.tablets.values().filter(|other| other.tablet.alias != state.tablet.alias);
    let mut owners = others.filter(has_it);
    let by_right = |one: &TabletState| {
        let acknowledged = !one.moved && snapshot.acknowledged_before(&one.tablet.alias);
        (is_primary(snapshot, one), acknowledged)
    };
    // Both are known where one MariaDB came back at another place before it was asked by its own record.
    let is_first = |one: &TabletState| {
        !is_unique(&mine)
            && by_right(one) == by_right(state)
            && one.tablet.alias < state.tablet.alias
    };
    // Who is known here has it unless the other has more right to it; so has one of whom nothing is known and who has
    // more right than the other.
    let owner = owners.find(|other| match (is_known, &state.identity) {
        (true, _) => by_right(other) > by_right(state) || is_first(other),
        (false, None) => by_right(other) >= by_right(state),
        (false, Some(_)) => true,
    })?;
    Some(&owner.tablet.alias)
}

/// Those whose history the shard's is: whoever answered here before, and the primary; for the primary, everybody else.
fn references<'a>(
    snapshot: &'a ShardSnapshot,
    state: &'a TabletState,
    mine: &'a ServerIdentity,
) -> impl Iterator<Item = &'a ServerStatus> {
    let leads = is_primary(snapshot, state);
    let said = snapshot.tablets.values().filter_map(move |other| {
        let said = other.status.as_deref()?;
        let vouches = match other.tablet.alias == state.tablet.alias {
            // Nobody vouches for itself.
            true => said.identity() != *mine,
            // A MariaDB's logs may not tell of all who wrote before it was cloned: others' do.
            false if said.flavor == Flavor::MariaDb => leads || other.identity.is_some(),
            false => leads || (is_primary(snapshot, other) && other.identity.is_some()),
        };
        vouches.then_some(said)
    });
    said.filter(|status| !status.gtid_executed.is_empty())
}

/// Tells whether a replica was connected to another server than this one at this tablet's address. Who was taken for a
/// stranger because it shares nothing with this one may be the replica.
fn others_followed_another(
    snapshot: &ShardSnapshot,
    state: &TabletState,
    status: &ServerStatus,
) -> bool {
    let address = state.tablet.mysql.as_ref();
    let replicas = snapshot.replicas_of(&state.tablet.alias);
    let shares_nothing = ProbeFailure::Stranger(Stranger::SharesNothing);
    let said = replicas.filter_map(|replica| {
        let strange = replica.reachability.failure() == Some(&shares_nothing);
        if strange { replica.stranger.as_deref() } else { replica.valid_status() }
    });
    let mut followed = said.filter_map(|said| said.replication.as_ref());
    followed.any(|replication| {
        replication.knows_source()
            && address == Some(&replication.source)
            && !status.is_source_of(replication, address)
    })
}

/// Why a server of which nobody knows whose it is must not be changed. In the primary's place, or in a shard that
/// comes up, it may be another shard's replica; elsewhere, another shard's primary as well.
fn doubt(snapshot: &ShardSnapshot, state: &TabletState, status: &ServerStatus) -> Option<Stranger> {
    let primary = snapshot.primary();
    let decisive = primary.is_none() || is_primary(snapshot, state);
    // Where the primary was never heard, the others speak for the shard.
    let unheard = primary.is_some_and(|primary| primary.status.is_none());
    let others = snapshot.tablets.values().filter(|other| match decisive || unheard {
        true => other.tablet.alias != state.tablet.alias,
        false => is_primary(snapshot, other),
    });
    let others = others.filter_map(|other| other.status.as_deref());
    let others: Vec<&ServerStatus> =
        others.filter(|status| !status.gtid_executed.is_empty()).collect();
    // Where there was a primary, and nobody else has anything, there is nobody to compare it with.
    let is_first = decisive && !snapshot.has_term();
    let compared = !others.is_empty() || is_first;
    if !compared || others.iter().any(|other| status.shares_history_of(other)) {
        return None;
    }
    // The servers of a shard that comes up may each have their own history; those of one that had a primary have its.
    let lost_primary = primary.is_none() && snapshot.has_term();
    if decisive && follows_outside(snapshot, status) {
        return Some(Stranger::FollowsOutside);
    }
    let may_be_elsewhere = !decisive || lost_primary;
    let strange = may_be_elsewhere && is_somebody(snapshot, status, &others);
    strange.then_some(Stranger::SharesNothing)
}

/// Tells whether it was connected to a server that is no tablet's. Names differ between the topology and replication,
/// so who was never connected to its source tells nothing.
fn follows_outside(snapshot: &ShardSnapshot, status: &ServerStatus) -> bool {
    let Some(replication) = &status.replication else { return false };
    let mut tablets = snapshot.tablets.values();
    replication.knows_source() && !tablets.any(|other| other.is_source_of(replication))
}

pub(crate) fn is_primary(snapshot: &ShardSnapshot, state: &TabletState) -> bool {
    snapshot.primary().is_some_and(|primary| primary.tablet.alias == state.tablet.alias)
}

/// Two servers of different shards may have the same `server_id`.
pub(super) fn is_unique(identity: &ServerIdentity) -> bool {
    match identity {
        ServerIdentity::Uuid(_) => true,
        ServerIdentity::Id(_) => false,
    }
}
