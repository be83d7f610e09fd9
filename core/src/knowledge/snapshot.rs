//! One shard at one moment: what the topology says beside what the probes found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::memory::{Journal, LastHeard};
use super::observe::{Receiving, TabletState};
use crate::durability::{DurabilityPolicy, UnknownPolicy};
use crate::gtid::GtidSet;
use crate::ids::{KeyspaceShard, ServerIdentity, TabletAlias};
use crate::sabotage::{self, Bug};
use crate::status::{ReplicationStatus, ServerStatus};
use crate::tablet::{Tablet, TabletType};
use crate::time::Timestamp;
use crate::topology::{Place, ShardRecord, ShardTopology, UnreadRecord};

/// When the primary was last heard is kept so often. An acker that was restarted within that time before the silence
/// counts as one that was restarted in it.
const HEARD_KEPT_EVERY: Duration = Duration::from_secs(10);

/// A shard as it is known at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// Which shard.
    pub shard: KeyspaceShard,
    /// The policy, or the name that nobody knows.
    pub durability: Result<DurabilityPolicy, UnknownPolicy>,
    /// The shard's record.
    pub record: ShardRecord,
    /// The keyspace or the shard forbids emergency reparents.
    pub emergency_reparent_disabled: bool,
    /// Its tablets.
    pub tablets: BTreeMap<TabletAlias, TabletState>,
    /// Records that could not be understood, by path, and why.
    pub damaged: BTreeMap<String, String>,
    /// Cells that were read at least once: what the shard has there is known.
    pub known_cells: BTreeSet<String>,
    /// Where the shard may have tablets that nobody here has ever read, and why.
    pub unseen: BTreeMap<Place, String>,
    /// Those of its tablets whose record cannot be read or understood now, and is what it was.
    pub unread_tablets: BTreeSet<TabletAlias>,
    /// The shard's own record cannot be read or understood now.
    pub unread_record: Option<UnreadRecord>,
    /// Since when the primary's term is known here; none where no other term was known before it.
    pub term_known_since: Option<Timestamp>,
    /// When the primary was last heard before this process began, where this one never did and that was kept.
    pub heard_before: Option<LastHeard>,
    /// The moment.
    pub now: Timestamp,
}

impl ShardSnapshot {
    /// A snapshot of a shard of which nothing is known but the topology.
    pub fn unprobed(topology: &ShardTopology, now: Timestamp) -> Self {
        let tablets = topology.tablets.iter();
        let tablets =
            tablets.map(|(alias, tablet)| (alias.clone(), TabletState::unprobed(tablet.clone())));
        Self {
            shard: topology.shard.clone(),
            durability: topology.durability.clone(),
            record: topology.record.clone(),
            emergency_reparent_disabled: topology.emergency_reparent_disabled,
            tablets: tablets.collect(),
            damaged: topology.damaged.clone(),
            known_cells: topology.known_cells.clone(),
            unseen: topology.unseen.clone(),
            unread_tablets: topology.unread_tablets.clone(),
            unread_record: topology.unread_record,
            term_known_since: None,
            heard_before: None,
            now,
        }
    }

    /// When the primary last answered this process, or one before it.
    pub fn last_heard(&self) -> Option<Timestamp> {
        let primary = self.primary()?;
        let alias = &primary.tablet.alias;
        let now = primary.status.as_ref().map(|_| primary.status_at);
        let before = self.heard_before.as_ref().filter(|before| before.primary == *alias);
        now.max(before.map(|before| before.at))
    }

    /// What is known of the primary that was heard last: it stays known when that one's record leads elsewhere.
    fn heard(&self) -> Option<LastHeard> {
        let before = self.heard_before.as_ref();
        let heard = self.primary().filter(|primary| primary.status.is_some());
        let now = heard.zip(self.last_heard()).map(|(primary, at)| LastHeard {
            primary: primary.tablet.alias.clone(),
            at,
            ackers: self.known_ackers(before),
        });
        now.or_else(|| before.cloned())
    }

    /// Who acknowledges by what it said last, to this process or to one before it.
    fn known_ackers(&self, before: Option<&LastHeard>) -> BTreeSet<TabletAlias> {
        let acknowledges = |state: &&TabletState| match &state.status {
            Some(_) => state.acknowledged_lately(),
            None => before.is_some_and(|before| before.ackers.contains(&state.tablet.alias)),
        };
        let ackers = self.tablets.values().filter(acknowledges);
        ackers.map(|state| state.tablet.alias.clone()).collect()
    }

    /// It may have acknowledged though its last word does not say so: it said so shortly before, or to a process before
    /// this one, where the primary was not heard since. (A server that is restarted acknowledges no more.) What the
    /// primary acknowledged before it was promoted is its own business.
    pub fn may_have_acknowledged(&self, state: &TabletState) -> bool {
        let is_primary =
            self.primary().is_some_and(|primary| primary.tablet.alias == state.tablet.alias);
        if is_primary {
            return state.status.as_ref().is_some_and(|status| status.acknowledges());
        }
        let unheard = self.primary().filter(|primary| primary.status.is_none());
        let before = self.heard_before.as_ref().zip(unheard);
        let before = before.filter(|(before, primary)| before.primary == primary.tablet.alias);
        before.is_some_and(|(before, _)| before.ackers.contains(&state.tablet.alias))
            || state.acknowledged_lately()
    }

    /// It acknowledged, as a process before this one knew.
    pub fn acknowledged_before(&self, alias: &TabletAlias) -> bool {
        self.heard_before.as_ref().is_some_and(|before| before.ackers.contains(alias))
    }

    /// What a tablet said last, it said before the primary's term was known here.
    pub fn asked_before_term(&self, state: &TabletState) -> bool {
        self.term_known_since.is_some_and(|since| state.status_at < since)
    }

    /// Tells whether a tablet that answers was not asked again since then.
    pub fn is_from_before(&self, moment: Timestamp) -> bool {
        let mut managed = self.tablets.values().filter(|s| s.tablet.tablet_type.is_managed());
        let old = |state: &TabletState| state.reachability.is_valid() && state.asked_at < moment;
        managed.any(old) && !sabotage::has(Bug::RepairOldNews)
    }

    /// What is to be kept of that, where this was kept last.
    pub fn heard_to_keep(&self, kept: Option<&LastHeard>) -> Option<LastHeard> {
        let mut ackers = self.known_ackers(kept);
        // While the primary is silent nobody acknowledges less than before.
        if !self.primary().is_some_and(|primary| primary.reachability.is_valid()) {
            ackers.extend(kept.iter().flat_map(|kept| kept.ackers.iter().cloned()));
        }
        let primary = self.primary()?.tablet.alias.clone();
        let kept = kept.filter(|kept| kept.primary == primary);
        let at = self.last_heard()?.max(kept.map(|kept| kept.at).unwrap_or_default());
        let heard = LastHeard { primary, at, ackers };
        let is_old = |kept: &LastHeard| {
            kept.ackers != heard.ackers || kept.at.age(heard.at) >= HEARD_KEPT_EVERY
        };
        kept.is_none_or(is_old).then_some(heard)
    }

    /// What the topology says of the shard, as far as it is known here.
    pub fn topology(&self) -> ShardTopology {
        let tablets = self.tablets.iter();
        ShardTopology {
            shard: self.shard.clone(),
            durability: self.durability.clone(),
            record: self.record.clone(),
            emergency_reparent_disabled: self.emergency_reparent_disabled,
            tablets: tablets.map(|(alias, state)| (alias.clone(), state.tablet.clone())).collect(),
            damaged: self.damaged.clone(),
            known_cells: self.known_cells.clone(),
            unseen: self.unseen.clone(),
            unread_tablets: self.unread_tablets.clone(),
            unread_record: self.unread_record,
        }
    }

    /// Takes in what the topology says now. What is known of a server stays, unless its tablet moved to another one.
    pub fn take_topology(&mut self, topology: &ShardTopology, now: Timestamp) {
        let same_term = topology.primary_term() == self.topology().primary_term();
        let had_primary = self.had_primary();
        let led = self.primary().map(|primary| primary.tablet.alias.clone());
        let mut fresh = Self::unprobed(topology, now);
        let same_primary = fresh.primary().map(|primary| &primary.tablet.alias) == led.as_ref();
        fresh.term_known_since = if same_term { self.term_known_since } else { Some(now) };
        fresh.heard_before = self.heard();
        for (alias, state) in &mut fresh.tablets {
            let Some(known) = self.tablets.remove(alias) else { continue };
            // A tablet that moved to another server is as good as new.
            if known.tablet.address() != state.tablet.address() {
                state.moved = true;
                continue;
            }
            let journal = known.journal.clone().filter(|_| same_term);
            let forgotten = known.forgotten.clone().filter(|_| same_term);
            let as_primary = known.as_primary.clone().filter(|_| same_term);
            let tablet = state.tablet.clone();
            let led_before =
                if same_primary { known.led_before } else { led.as_ref() == Some(alias) };
            *state = TabletState { tablet, journal, forgotten, as_primary, led_before, ..known };
        }
        *self = fresh;
        if !had_primary {
            self.forget_whose_primary();
        }
    }

    /// Whoever named the shard's first primary asked that server. Somebody else who answered at its address before
    /// that is not the tablet's server for having been there first.
    fn forget_whose_primary(&mut self) {
        let first = self.primary().map(|primary| primary.tablet.alias.clone());
        if let Some(state) = first.and_then(|alias| self.tablets.get_mut(&alias)) {
            state.identity = None;
        }
    }

    /// Takes in what a server said that was asked for its reparent journal too, as no probe does.
    pub fn take_journal(&mut self, alias: &TabletAlias, said: &ServerStatus) {
        let (Some(state), Some(length)) = (self.tablets.get_mut(alias), said.journal_length) else {
            return;
        };
        if state.status.as_ref().is_some_and(|status| status.identity() == said.identity()) {
            state.journal = Some(Journal { length, executed: said.gtid_executed.clone() });
        }
    }

    /// Says what everybody's probes amount to at a later moment, until which nothing more was heard.
    pub fn judge(&mut self, now: Timestamp) {
        self.now = now;
        self.tablets.values_mut().for_each(|state| state.judge(now));
    }

    /// The same shard at a later moment, until which nothing more was heard.
    pub fn at(&self, now: Timestamp) -> Self {
        let mut later = self.clone();
        later.judge(now);
        later
    }

    /// The shard's primary: the tablet of type PRIMARY with the newest term.
    pub fn primary(&self) -> Option<&TabletState> {
        let primaries =
            self.tablets.values().filter(|state| state.tablet.tablet_type == TabletType::Primary);
        primaries.max_by_key(|state| (state.tablet.term_start, state.tablet.alias.clone()))
    }

    /// Whether the shard has a primary, or may have had one, by its records.
    pub fn had_primary(&self) -> bool {
        self.primary().is_some() || self.has_term()
    }

    /// Whether the shard's own record tells of a primary's term, or may.
    pub fn has_term(&self) -> bool {
        self.record.term_start.is_some() || self.unread_record == Some(UnreadRecord::Never)
    }

    /// Whom the shard's record names, where nobody here has ever read that tablet's record: its term may be the newest.
    /// Nobody where the primary that is known has a newer term than the shard's record and takes writes, by its last
    /// word: a reparent stopped between its two records.
    pub fn named_unread(&self) -> Option<&TabletAlias> {
        let serves = |state: &&TabletState| {
            let last = state.status.as_deref();
            self.record.term_start.is_some()
                && state.tablet.term_start > self.record.term_start
                && last.is_some_and(|last| last.is_writable() && last.replication.is_none())
        };
        let named = self.record.primary_alias.as_ref().filter(|alias| self.tablet(alias).is_none());
        named.filter(|alias| self.is_unseen(alias) && self.primary().filter(serves).is_none())
    }

    /// Whether a tablet's record may be where nobody here has ever read.
    pub fn is_unseen(&self, alias: &TabletAlias) -> bool {
        self.unseen.contains_key(&Place::Cell(alias.cell.clone()))
            || self.unseen.contains_key(&Place::Record(alias.clone()))
    }

    /// The primary, where it answers.
    pub fn primary_in_sight(&self) -> Option<&TabletState> {
        self.primary().filter(|primary| primary.valid_status().is_some())
    }

    /// Whether a tablet's server answered the last look.
    pub fn answers(&self, alias: &TabletAlias) -> bool {
        self.tablet(alias).is_some_and(|state| state.valid_status().is_some())
    }

    /// One tablet.
    pub fn tablet(&self, alias: &TabletAlias) -> Option<&TabletState> {
        self.tablets.get(alias)
    }

    /// The managed tablets other than `primary`.
    pub fn replicas_of<'a>(
        &'a self,
        primary: &'a TabletAlias,
    ) -> impl Iterator<Item = &'a TabletState> {
        let managed = self.tablets.values().filter(|state| state.tablet.tablet_type.is_managed());
        managed.filter(move |state| state.tablet.alias != *primary)
    }

    /// Tells whether a replica's source is a tablet of the shard that could be primary and does not answer.
    pub fn follows_lost_tablet(&self, replica: &TabletState) -> bool {
        let Some(replication) = replica.channel() else { return false };
        let mut lost = self.tablets.values().filter(|other| {
            other.tablet.tablet_type.is_promotable() && other.valid_status().is_none()
        });
        lost.any(|other| other.is_source_of(replication))
    }

    /// Whether a replica's source is known to be another tablet than the primary, or a stranger at a tablet's
    /// address: what it receives from there is no sign of the primary's life, and must not be acknowledged. A source
    /// that is no tablet's may be the primary under another name.
    pub fn follows_another(&self, replica: &TabletState, primary: &TabletState) -> bool {
        let foreign = replica.channel().filter(|channel| !primary.is_source_of(channel));
        let Some(replication) = foreign else {
            return false;
        };
        let mut all = self.tablets.values();
        all.any(|one| {
            one.leads_to_stranger(replication)
                || (one.tablet.alias != primary.tablet.alias && one.is_source_of(replication))
        })
    }

    /// The tablet of this shard that a channel leads to.
    pub fn source_of(&self, channel: &ReplicationStatus) -> Option<&TabletAlias> {
        let mut tablets = self.tablets.values();
        tablets.find(|state| state.is_source_of(channel)).map(|state| &state.tablet.alias)
    }

    /// Whoever asks this tablet's server waits for its answer: nothing says that none will come.
    pub fn expects_answer_of(&self, tablet: &Tablet) -> bool {
        let dead =
            |state: &TabletState| state.reachability.is_unreachable() || state.disk_stalled();
        tablet.mysql.is_some() && !self.tablet(&tablet.alias).is_some_and(dead)
    }

    /// Whether a replica hears nothing from the primary while others do, as with a disk that stalls: it may be
    /// connected, and acknowledges nothing. Where nobody hears anything, that is the primary's fault.
    pub fn is_silent(&self, replica: &TabletState, primary: &TabletState) -> bool {
        let hears = |one: &TabletState| {
            one.channel().is_some_and(|channel| primary.is_source_of(channel))
                && one.receiving(Timestamp::default()) == Receiving::Yes
        };
        !hears(replica) && self.replicas_of(&primary.tablet.alias).any(hears)
    }

    /// Servers of other shards that answer at tablets' addresses, for certain. (One that is another tablet's of this
    /// shard brings nothing that is not the shard's.)
    fn strangers(&self) -> impl Iterator<Item = &ServerStatus> {
        let strangers = self.tablets.values().filter_map(TabletState::certain_stranger);
        strangers.filter(|stranger| {
            let mut known = self.tablets.values().filter_map(|state| state.identity.as_ref());
            !known.any(|identity| *identity == stranger.identity())
        })
    }

    /// Another shard's server answers at a tablet's address, for certain.
    pub fn has_stranger(&self) -> bool {
        self.strangers().next().is_some()
    }

    /// What a server took from another shard's servers at this shard's addresses: replicas that may log in there
    /// follow them until they are repointed. What the primary had as well, as clones of one server have, is the
    /// shard's, and so is what any of the shard's servers wrote. Nothing where the primary was never heard.
    ///
    /// MariaDB's positions do not say where a transaction came from, and a MariaDB sends nothing to who has another
    /// history.
    pub fn foreign(&self, status: &ServerStatus) -> GtidSet {
        let nothing = status.gtid_executed.empty_like();
        let Some(own) = self.primary().and_then(|primary| primary.status.as_deref()) else {
            return nothing;
        };
        let mut strangers = self.strangers().peekable();
        if strangers.peek().is_none() {
            return nothing;
        }
        let received = status.gtid_received().subtract(&own.gtid_executed);
        let brought = strangers.fold(nothing, |all, stranger| match &stranger.server_uuid {
            Some(uuid) => all
                .union(&received.of_source(uuid))
                .union(&received.intersect(&stranger.gtid_received())),
            None => all,
        });
        let members = self.tablets.values().filter_map(|state| state.identity.as_ref());
        members.fold(brought, |left, member| match member {
            ServerIdentity::Uuid(uuid) => left.without_source(uuid),
            ServerIdentity::Id(_) => left,
        })
    }

    /// What a replica of the primary has that no server of the shard wrote, from writers of whom the primary has
    /// nothing: somebody committed it on replicas, and it is of no primary's term.
    ///
    /// Nothing of it counts as such where a server that could have written it is not known, or where the replica may
    /// know of a reparent that the primary does not: a server that was given a new uuid, or a former one that was
    /// cloned anew, wrote under a uuid that nobody has any more.
    pub fn of_nobody(&self, alias: &TabletAlias, status: &ServerStatus) -> GtidSet {
        let nothing = status.gtid_executed.empty_like();
        let (Some(primary), Some(channel)) = (self.primary(), &status.replication) else {
            return nothing;
        };
        let own = primary.status.as_deref();
        let follows = |own: &&ServerStatus| {
            own.server_uuid.is_some() && own.server_uuid == channel.source_uuid
        };
        let Some(own) = own.filter(follows) else { return nothing };
        let unknown = status.gtid_received().subtract(&own.gtid_executed);
        let mut unknown = unknown.of_writers_unknown_to(&own.gtid_received());
        if unknown.is_empty() || !self.damaged.is_empty() || !self.unseen.is_empty() {
            return nothing;
        }
        for identity in self.tablets.values().map(|state| state.identity.as_ref()) {
            match identity {
                Some(ServerIdentity::Uuid(uuid)) => unknown = unknown.without_source(uuid),
                Some(ServerIdentity::Id(_)) | None => return nothing,
            }
        }
        let journals = self.journal(&primary.tablet.alias, own).zip(self.journal(alias, status));
        let Some((of_primary, here)) = journals else { return nothing };
        // A journal without rows says nothing; nor does one from before the primary's time.
        let reigned = !own.written_by_itself().intersect(&here.executed).is_empty();
        match reigned && here.length > 0 && here.length <= of_primary.length {
            true => unknown.intersect(&here.executed),
            false => nothing,
        }
    }

    /// The reparent journal as a server tells it, or as it was last read in this term.
    fn journal(&self, alias: &TabletAlias, status: &ServerStatus) -> Option<Journal> {
        let told = status.journal_length;
        let told = told.map(|length| Journal { length, executed: status.gtid_executed.clone() });
        told.or_else(|| self.tablet(alias)?.journal.clone())
    }

    /// Whether a tablet lost what it wrote, by what anybody else was seen to have.
    pub fn has_lost_own(&self, alias: &TabletAlias) -> bool {
        let Some(state) = self.tablet(alias).filter(|_| !sabotage::has(Bug::TrustSurvivors)) else {
            return false;
        };
        let mut others = self.tablets.values().filter(|other| other.tablet.alias != *alias);
        others.any(|other| state.lost_to(other).is_some())
    }

    /// An answer of this tablet's server with what its binary logs no longer hold, where only the look under the lock
    /// asked for that.
    pub fn with_what_was_purged(&self, alias: &TabletAlias, answer: &ServerStatus) -> ServerStatus {
        let mut answer = answer.clone();
        if let Some(known) = self.tablet(alias).and_then(|state| state.status.as_deref())
            && answer.gtid_purged.is_empty()
        {
            answer.gtid_purged = known.gtid_purged.clone();
        }
        answer
    }

    /// The newest term that any record of the shard names.
    pub fn newest_term(&self) -> Option<crate::time::TermStart> {
        let tablets = self.tablets.values().filter_map(|state| state.tablet.term_start);
        tablets.chain(self.record.term_start).max()
    }

    /// The term that this primary's record names, or the shard's record for it, if it can stand. Not where the
    /// shard's record knows a later one, as after two who had the lock one after the other, and wrote as if each had
    /// it alone: a record never goes back.
    pub fn settled_term(&self, primary: &Tablet) -> Option<crate::time::TermStart> {
        let named = self.record.primary_alias.as_ref() == Some(&primary.alias);
        let term = primary.term_start.or(self.record.term_start.filter(|_| named));
        term.filter(|term| self.record.term_start.is_none_or(|known| known <= *term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;
    use crate::time::TermStart;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    /// The shard of tablets 1 to 3, of which one is primary since that moment.
    fn led_by(primary: u32, since: u64) -> ShardTopology {
        let aliases = [1, 2, 3].map(|uid| TabletAlias { cell: "zone1".into(), uid });
        let mut topology = testkit::shard(&aliases);
        let tablet = topology.tablets.values_mut().find(|tablet| tablet.alias.uid == primary);
        let tablet = tablet.unwrap();
        tablet.tablet_type = TabletType::Primary;
        tablet.term_start = Some(TermStart::after(None, at(since)));
        topology
    }

    fn who_led_before(snapshot: &ShardSnapshot) -> Vec<u32> {
        let led = snapshot.tablets.values().filter(|state| state.led_before);
        led.map(|state| state.tablet.alias.uid).collect()
    }

    #[test]
    fn who_led_before_is_known_until_somebody_else_leads() {
        let mut snapshot = ShardSnapshot::unprobed(&led_by(1, 1), at(1));
        assert_eq!(who_led_before(&snapshot), []);
        assert_eq!(snapshot.term_known_since, None);
        snapshot.take_topology(&led_by(2, 5), at(5));
        assert_eq!(who_led_before(&snapshot), [1]);
        assert_eq!(snapshot.term_known_since, Some(at(5)));
        // Read again, nothing changes; nor is a new term of the same primary another one's.
        snapshot.take_topology(&led_by(2, 5), at(6));
        assert_eq!(who_led_before(&snapshot), [1]);
        assert_eq!(snapshot.term_known_since, Some(at(5)));
        snapshot.take_topology(&led_by(2, 7), at(7));
        assert_eq!(who_led_before(&snapshot), [1]);
        assert_eq!(snapshot.term_known_since, Some(at(7)));
        snapshot.take_topology(&led_by(3, 9), at(9));
        assert_eq!(who_led_before(&snapshot), [2]);
    }
}
