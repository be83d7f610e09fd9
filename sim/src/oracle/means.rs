//! What a human would need: proof that nobody out of sight goes on, data, and somebody to promote.

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::tablet::{Tablet, TabletType};

use super::Human;
use crate::Millis;
use crate::gtids::Txn;
use crate::network::Party;
use crate::policies;
use crate::server::Receiver;

/// A server is asked so often, and tells for how long it has run in whole seconds: who was started only so long before
/// the primary was last heard may have been started afterwards.
const HEARD_LATE_MS: Millis = 3_000;

impl Human<'_> {
    /// The primary is gone for this vtorc, nobody gets anything from it, nobody out of sight can let it go on, and
    /// somebody has, or can get, all that was promised.
    pub(super) fn could_fail_over(&self, primary: u8) -> bool {
        self.is_gone(primary)
            && !self.is_followed(primary)
            && self.knows_all_ackers(primary)
            && self.is_fenced_by_those_in_sight(primary)
            && self.has_a_candidate(primary)
            && self.an_acker_ran_on(primary)
    }

    /// Somebody who may have acknowledged what the primary wrote last ran all the time since that was heard: not all of
    /// them can have thrown it away.
    fn an_acker_ran_on(&self, primary: u8) -> bool {
        let heard = self.view.answered_at.get(&primary).copied().unwrap_or(0);
        let ran_on = |one: u8| {
            let began = self.universe.server(one).started_at;
            // Uptimes are told in seconds: one that began just before cannot be told from one that began after.
            began + HEARD_LATE_MS <= heard
                || (began == 0 && heard == 0 && !self.view.may_have_heard)
        };
        let acker_ran_on = |one: u8| self.may_acknowledge(primary, one) && ran_on(one);
        policies::acks_required(self.policy()) == 0
            || self.all_in_sight().into_iter().any(acker_ran_on)
    }

    /// The primary is back, has all that was promised, and nobody out of sight can have taken its place.
    pub(super) fn could_reopen(&self, primary: u8) -> bool {
        let server = self.universe.server(primary);
        let in_sight = self.in_sight(primary);
        let lacks = |txn: &Txn| !server.has_applied(*txn);
        let enough = self.ackers_in_sight(primary, &self.all_in_sight());
        in_sight.is_some()
            && self.out_of_sight().is_empty()
            && !server.ills.locked
            && !self.promised().any(|txn| lacks(&txn))
            && self.is_recordable(primary)
            && enough
            && !self.must_choose_a_history(primary)
    }

    /// Where nothing is promised, others may have written what the primary lacks, and nobody but a person says which
    /// writes to keep.
    fn must_choose_a_history(&self, primary: u8) -> bool {
        let server = self.universe.server(primary);
        let seen = self.all_in_sight().into_iter().map(|one| self.universe.server(one));
        let lacks = |txn: &Txn| !server.has_received(*txn);
        let mut logs = seen.flat_map(|other| other.binlog.iter().chain(&other.relay));
        policies::acks_required(self.policy()) == 0 && logs.any(lacks)
    }

    /// Everybody is there and nothing was ever promised.
    pub(super) fn could_elect(&self) -> bool {
        let all = self.all_in_sight();
        let fit = |one: &&u8| {
            self.type_of(**one) == TabletType::Replica
                && self.is_recordable(**one)
                && self.is_fit(**one)
                && self.ackers_in_sight(**one, &all)
        };
        self.out_of_sight().is_empty()
            && self.promised().next().is_none()
            && all.iter().any(|one| fit(&one))
    }

    fn is_gone(&self, primary: u8) -> bool {
        let (me, them) = (Party::Manager(self.manager), Party::Server(primary));
        let reached = self.universe.network.is_open_both_ways(me, them);
        let replaced = self.universe.behind(primary) != primary;
        !self.universe.server(primary).is_awake() || !reached || replaced
    }

    /// Somebody gets from it what it writes.
    fn is_followed(&self, primary: u8) -> bool {
        let origin = self.universe.server(primary);
        self.universe.others(primary).any(|one| {
            let server = self.universe.server(one);
            let (from, to) = (Party::Server(primary), Party::Server(one));
            let open = self.universe.network.is_open(from, to);
            let runs = matches!(server.receiver, Receiver::Running { .. });
            server.source == Some(primary) && runs && origin.is_awake() && open
        })
    }

    /// Where there may be tablets that nobody ever read or saw, only the primary's own count of its ackers tells that
    /// they are none.
    fn knows_all_ackers(&self, primary: u8) -> bool {
        !self.is_hostile_place() || self.view.heard.contains(&primary)
    }

    fn in_sight(&self, number: u8) -> Option<u8> {
        let recognised = !self.universe.is_behind_two_records(number);
        let known = self.view.known.contains(&number) && recognised;
        (known && self.universe.answers(self.manager, number)).then_some(number)
    }

    fn all_in_sight(&self) -> Vec<u8> {
        self.universe.members(self.shard).filter_map(|one| self.in_sight(one)).collect()
    }

    /// Those who may be somewhere and do something; one that never ran is nowhere.
    fn out_of_sight(&self) -> Vec<u8> {
        let members = self.universe.members(self.shard);
        let hidden = members.filter(|one| self.in_sight(*one).is_none());
        hidden.filter(|one| !self.universe.server(*one).ills.never_up).collect()
    }

    fn policy(&self) -> DurabilityPolicy {
        let records = self.universe.topology.shards.get(self.shard);
        records.map_or(DurabilityPolicy::None, |records| records.policy)
    }

    fn promised(&self) -> impl Iterator<Item = Txn> + '_ {
        let ledger = self.universe.books.get(self.shard);
        ledger.into_iter().flat_map(|ledger| ledger.promised.iter().copied())
    }

    /// A tablet as it would be if it were no primary.
    fn as_replica(&self, number: u8) -> Tablet {
        let is_primary = self.type_of(number) == TabletType::Primary;
        let tablet_type = if is_primary { TabletType::Replica } else { self.type_of(number) };
        Tablet { tablet_type, ..self.universe.new_record(number) }
    }

    fn may_acknowledge(&self, writer: u8, acker: u8) -> bool {
        let ills = &self.universe.server(acker).ills;
        let sends = self.universe.server(acker).acks || ills.acks_by_file;
        writer != acker
            && (sends
                || policies::is_acker(
                    self.policy(),
                    &self.as_replica(writer),
                    &self.as_replica(acker),
                ))
    }

    /// No tablet that is out of sight, the primary first of all, can get a write acknowledged by others out of sight.
    fn is_fenced_by_those_in_sight(&self, primary: u8) -> bool {
        let required = policies::acks_required(self.policy()) as usize;
        let hidden = self.out_of_sight();
        if required == 0 {
            // One that runs would go on by itself.
            return hidden.iter().all(|one| *one == primary)
                && !self.universe.server(primary).running;
        }
        let could_write = |one: &&u8| {
            let promotable = self.as_replica(**one).tablet_type == TabletType::Replica;
            **one == primary || promotable
        };
        hidden.iter().filter(could_write).all(|writer| {
            let ackers = hidden.iter().filter(|acker| self.may_acknowledge(*writer, **acker));
            ackers.count() < required
        })
    }

    /// Its record can be read and written.
    fn is_recordable(&self, number: u8) -> bool {
        let universe = self.universe;
        let alias = &universe.server(number).alias;
        let by_itself = universe.vttablets.is_empty()
            || universe.network.is_calm(Party::Server(number), Party::Topology);
        universe.topology.tablets.contains_key(alias)
            && universe.topology.is_readable(alias)
            && by_itself
    }

    /// It applies what it gets, all of it, once a delay is lifted.
    fn is_fit(&self, number: u8) -> bool {
        let server = self.universe.server(number);
        let sleeps = server.applier_sleeps_until > self.universe.now;
        !server.ills.locked && !server.ills.filtered && !sleeps && !server.stalled
    }

    /// It alone has transactions of a server that is none of the shard's: nobody promotes it without being asked to.
    fn has_strange_gtids(&self, number: u8) -> bool {
        let server = self.universe.server(number);
        let others: Vec<u8> =
            self.universe.members(self.shard).filter(|one| *one != number).collect();
        let strange = |txn: &&Txn| txn.source != number && !others.contains(&txn.source);
        let lacking =
            |txn: &Txn| others.iter().any(|one| !self.universe.server(*one).has_received(*txn));
        server.binlog.iter().filter(strange).any(lacking)
    }

    fn has_a_candidate(&self, primary: u8) -> bool {
        let seen: Vec<u8> = self.all_in_sight().into_iter().filter(|one| *one != primary).collect();
        let promised: Vec<Txn> = self.promised().collect();
        seen.iter().any(|one| {
            self.type_of(*one) == TabletType::Replica
                && self.is_recordable(*one)
                && self.is_fit(*one)
                && !self.universe.server(*one).ills.keeps_no_log
                && !self.has_strange_gtids(*one)
                && !seen.iter().any(|other| self.wrote_in_vain(*one, *other))
                && self.ackers_in_sight(*one, &seen)
                && self.can_get(*one, &promised, &seen)
        })
    }

    /// It has all of these, or can get what it lacks from one that has all of them.
    fn can_get(&self, candidate: u8, promised: &[Txn], seen: &[u8]) -> bool {
        let universe = self.universe;
        let has_all = |one: u8| promised.iter().all(|txn| universe.server(one).has_data(*txn));
        let winner = universe.server(candidate);
        if has_all(candidate) {
            return true;
        }
        // What it has as an empty shell it will never get.
        let hollow = promised.iter().any(|txn| winner.ills.hollow.contains(txn));
        let gives = |donor: u8| {
            let origin = universe.server(donor);
            let kept = origin.not_logged().all(|txn| winner.has_received(txn));
            // A vttablet looks its source up in the topology.
            let found =
                universe.vttablets.is_empty() || universe.topology.is_readable(&origin.alias);
            donor != candidate
                && found
                && self.type_of(donor).is_managed()
                && self.is_fit(donor)
                && universe.network.is_calm(Party::Server(candidate), Party::Server(donor))
                && kept
                && has_all(donor)
        };
        !hollow && seen.iter().any(|donor| gives(*donor))
    }

    /// It wrote, as a primary that was replaced, what this one lacks and nobody was promised: nobody makes a replica
    /// or a primary of it without a look at that.
    fn wrote_in_vain(&self, number: u8, writer: u8) -> bool {
        let promised: Vec<Txn> = self.promised().collect();
        let mut own = self.universe.server(number).binlog.iter().filter(|txn| txn.source == number);
        own.any(|txn| !self.universe.server(writer).has_received(*txn) && !promised.contains(txn))
    }

    /// Enough of those in sight would acknowledge what it writes.
    fn ackers_in_sight(&self, writer: u8, seen: &[u8]) -> bool {
        let (policy, primary) = (self.policy(), self.as_replica(writer));
        // What one that does not apply everything acknowledges is no promise.
        let whole = |one: u8| !self.universe.server(one).ills.filtered;
        let acks = |one: &&u8| {
            let link = (Party::Server(writer), Party::Server(**one));
            policies::is_acker(policy, &primary, &self.as_replica(**one))
                && whole(**one)
                && !self.wrote_in_vain(**one, writer)
                && self.universe.network.is_calm(link.0, link.1)
        };
        seen.iter().filter(acks).count() >= policies::acks_required(policy) as usize
    }
}
