//! Who wrote what, who was promoted, and what must never happen. Checked at every step, not at the end.

use std::collections::{BTreeMap, BTreeSet};

use vtorc_core::ids::TabletAlias;
use vtorc_core::tablet::{Tablet, TabletType};
use vtorc_core::time::TermStart;

use crate::Millis;
use crate::foreign::FOREIGN;
use crate::gtids::Txn;
use crate::network::Party;
use crate::policies;
use crate::universe::Universe;

/// A primary that served and was followed for so long is no ground for a failover.
const SERVED_FOR_MS: Millis = 4_000;
/// Failed probes are held against a server for so long.
const PROBES_COUNT_FOR_MS: Millis = 10_000;
/// A client that wrote so recently was being served.
const SERVED_JUST_NOW_MS: Millis = 500;

/// What became of a client's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On its way.
    Sent,
    /// The client was told that it is done.
    Acknowledged,
    /// The client was told that it failed, or was cut off.
    Failed,
}

/// A client's write.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What became of it.
    pub fate: Fate,
    /// Its transaction, once begun.
    pub txn: Option<Txn>,
    /// The client has given up waiting.
    pub abandoned: bool,
}

/// Why a server is made to take writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A vtorc replaces the primary by itself.
    Replace,
    /// A planned reparent that somebody asked for.
    Move,
    /// One that a vtorc does by itself, away from a primary that is too busy.
    MoveAway,
    /// Something else, or another tool.
    Other,
}

/// A server was made to take writes.
#[derive(Clone, Copy, Debug)]
pub struct Promotion {
    /// Who.
    pub server: u8,
    /// When.
    pub at: Millis,
    /// Something went wrong with it, or with the network, since.
    pub troubled: bool,
}

/// The books of one shard.
#[derive(Default)]
pub struct Ledger {
    attempts: BTreeMap<u64, Attempt>,
    next_attempt: u64,
    /// Acknowledged and promised to survive.
    pub promised: BTreeSet<Txn>,
    /// Nothing is promised before this: a policy was set that servers do not keep yet.
    pub promises_from: Millis,
    /// A failure is used up for these: the server that wrote them lost them.
    pub worn: BTreeSet<Txn>,
    /// Acknowledged by whatever policy.
    acknowledged_txns: BTreeSet<Txn>,
    /// Acknowledged in all.
    pub acknowledged: u64,
    /// Whose receiver each vtorc stopped since it took the lock: among those it chooses.
    pub asked: BTreeMap<u8, BTreeSet<u8>>,
    /// The newest term that each vtorc read in the records when it last read them.
    pub terms_read: BTreeMap<u8, TermStart>,
    /// Whose records each vtorc could read when it last read them.
    pub readable: BTreeMap<u8, BTreeSet<TabletAlias>>,
    /// Who was made to take writes, in order.
    pub promotions: Vec<Promotion>,
    /// Servers that a vtorc made primary and nobody demoted since.
    pub won: BTreeSet<u8>,
    last_ack: BTreeMap<u8, Millis>,
    /// When there was last no tablet of type PRIMARY.
    pub without_primary_at: Millis,
    /// When each vtorc last held the shard's lock.
    pub held_at: BTreeMap<u8, Millis>,
    /// Since when each server is served and followed without a break.
    pub serving_since: BTreeMap<u8, Millis>,
    /// When a fault last came or went.
    pub disturbed_at: Millis,
}

impl Ledger {
    /// A client begins a write.
    pub fn attempt(&mut self) -> u64 {
        self.next_attempt += 1;
        let attempt = Attempt { fate: Fate::Sent, txn: None, abandoned: false };
        self.attempts.insert(self.next_attempt, attempt);
        self.next_attempt
    }

    /// What became of it.
    pub fn fate(&self, attempt: u64) -> Fate {
        self.attempts.get(&attempt).map_or(Fate::Failed, |attempt| attempt.fate)
    }

    /// The client gives up waiting.
    pub fn abandon(&mut self, attempt: u64) {
        if let Some(attempt) = self.attempts.get_mut(&attempt) {
            attempt.abandoned = true;
        }
    }

    /// Its transaction has begun.
    pub fn began(&mut self, attempt: u64, txn: Txn) {
        if let Some(attempt) = self.attempts.get_mut(&attempt) {
            attempt.txn = Some(txn);
        }
    }

    /// The client is told that it failed.
    pub fn failed(&mut self, attempt: u64) {
        if let Some(attempt) = self.attempts.get_mut(&attempt) {
            attempt.fate = Fate::Failed;
        }
    }

    /// A server refuses writes from now on.
    pub fn stopped_taking_writes(&mut self, server: u8) {
        self.won.remove(&server);
        self.serving_since.remove(&server);
    }

    /// When a server last acknowledged something.
    pub fn last_ack(&self, server: u8) -> Option<Millis> {
        self.last_ack.get(&server).copied()
    }

    /// Something went wrong: what happens next has a cause.
    pub fn trouble(&mut self, now: Millis) {
        self.disturbed_at = now;
        if let Some(last) = self.promotions.last_mut() {
            last.troubled = true;
        }
        self.serving_since.clear();
    }

    /// Forgets who was served when clients were not served lately.
    pub fn look(&mut self, now: Millis) {
        let last_ack = &self.last_ack;
        self.serving_since.retain(|server, _| {
            last_ack.get(server).is_some_and(|at| now.saturating_sub(*at) < SERVED_JUST_NOW_MS)
        });
    }

    /// A server lost what it had received: one failure is used up for those writes.
    pub fn weakened(&mut self, lost: &[Txn]) {
        for txn in lost {
            self.promised.remove(txn);
        }
    }

    /// Who takes writes by the last promotion.
    pub fn reigning(&self) -> Option<u8> {
        self.promotions.last().map(|promotion| promotion.server)
    }
}

/// What an operator says is known everywhere after this.
const TOLD_AFTER_MS: Millis = 500;

impl Universe {
    /// A server tells a client that its write is done.
    pub fn acknowledge(&mut self, number: u8, attempt: u64, txn: Txn, ackers: &[u8]) {
        let now = self.now;
        // What they acknowledged they throw away, so the server that wrote it is all there is, or those who got it
        // besides.
        let all_filtered = ackers.iter().all(|one| self.server(*one).ills.filtered);
        let unsure = all_filtered && !ackers.is_empty();
        let open = self.network.is_open(Party::Server(number), Party::Clients);
        let promises_from = self.ledger(number).promises_from;
        // A primary that nobody could tell of a new policy yet keeps the old one.
        let server = self.server(number);
        let waits = server.waits_for_acks || (promises_from == 0 && !server.ills.ungoverned);
        let promises = policies::acks_required(self.records_of(number).policy) > 0
            && promises_from <= now
            && waits;
        let followed = self.is_followed(number);
        let ledger = self.ledger_mut(number);
        let Some(known) = ledger.attempts.get_mut(&attempt) else { return };
        if known.fate != Fate::Sent || known.abandoned || !open {
            known.fate = Fate::Failed;
            return;
        }
        known.fate = Fate::Acknowledged;
        ledger.acknowledged += 1;
        ledger.acknowledged_txns.insert(txn);
        ledger.last_ack.insert(number, now);
        if !promises {
            return;
        }
        ledger.promised.insert(txn);
        ledger.worn.extend(unsure.then_some(txn));
        if followed {
            ledger.serving_since.entry(number).or_insert(now);
        } else {
            ledger.serving_since.remove(&number);
        }
        let ledger = self.ledger(number);
        let later = ledger.promotions.last().filter(|last| last.server != number).copied();
        let acked = |last: &Promotion| ledger.last_ack(last.server) > Some(last.at);
        // What the new primary has as well was acknowledged in the old term; the answer came late.
        let lacks = |last: &Promotion| !self.server(last.server).has_received(txn);
        if let Some(last) = later.filter(acked).filter(lacks) {
            let reigning = last.server;
            let what = format!(
                "two primaries: s{number} acknowledged {txn:?} after s{reigning} was promoted"
            );
            self.violated(what);
        }
    }

    fn is_followed(&self, number: u8) -> bool {
        self.others(number)
            .any(|other| self.follows(other, number) && self.server(other).is_awake())
    }

    /// Tells whether a server gets what the other writes: a receiver that a cut keeps everything from does not know
    /// of it for a while, and still shows as connected.
    fn follows(&self, number: u8, source: u8) -> bool {
        let (from, to) = (Party::Server(source), Party::Server(number));
        self.server(number).source == Some(source)
            && self.is_connected(number)
            && self.network.is_open(from, to)
    }

    /// A vtorc made a server take writes.
    pub fn promoted(&mut self, number: u8, manager: u8, plan: Plan) {
        let now = self.now;
        self.note(|| format!("m{manager} made s{number} take writes"));
        let ledger = self.ledger_mut(number);
        let again = ledger.reigning() == Some(number);
        ledger.won.insert(number);
        if again {
            return;
        }
        self.give_up_what_is_out_of_sight(number, manager);
        self.check_nothing_is_lost(number);
        if matches!(plan, Plan::Replace | Plan::Other) {
            self.check_not_beside_a_writer(number, manager);
        }
        match plan {
            Plan::Replace => {
                self.check_most_advanced(number, manager);
                // With somebody else out of sight it may be that nobody but this one is left.
                let reigning = self.ledger(number).reigning();
                let others = self.others(number).filter(|one| Some(*one) != reigning);
                let others: Vec<u8> = others.collect();
                let record = |one: u8| self.topology.tablets.get(&self.server(one).alias);
                let could_be_primary = |one: &u8| {
                    record(*one).is_some_and(|record| record.tablet_type.is_promotable())
                };
                let all_there =
                    others.iter().all(|one| self.server(*one).is_awake() && record(*one).is_some());
                if all_there && others.iter().any(could_be_primary) {
                    self.check_no_error_is_spread(number, manager);
                    self.check_followable(number, manager);
                }
            }
            Plan::Move => {
                self.check_no_error_is_spread(number, manager);
                self.check_other_is_closed(number, manager);
            }
            Plan::MoveAway => {
                self.check_no_error_is_spread(number, manager);
                self.check_not_blamed(number, manager);
            }
            Plan::Other => {}
        }
        // One that the records do not name yet is not known to all.
        let named = self.records_of(number).record.primary_alias.clone();
        let known = |last: &Promotion| named.as_ref() == Some(&self.server(last.server).alias);
        let last = self.ledger(number).promotions.last();
        let calm = last.is_some_and(|last| {
            !last.troubled
                && known(last)
                && self.is_heard(last.server)
                && !self.wrote_anew(last.server)
        });
        if plan == Plan::Replace && calm {
            let what = format!("s{number} was promoted, and nothing was wrong with the one before");
            self.violated(what);
        }
        let ledger = self.ledger_mut(number);
        ledger.promotions.push(Promotion { server: number, at: now, troubled: false });
        ledger.serving_since.clear();
    }

    /// It lost what it wrote, and wrote under the same numbers again: a vtorc that saw the loss, and not that the
    /// others lost it too, cannot know that they have the same.
    fn wrote_anew(&self, number: u8) -> bool {
        let mut lost = self.ledger(number).worn.iter().filter(|txn| txn.source == number);
        lost.any(|txn| self.server(number).has_applied(*txn))
    }

    /// Whoever is promoted has all that clients were promised.
    fn check_nothing_is_lost(&mut self, number: u8) {
        let promised = self.ledger(number).promised.iter();
        let lost = promised.filter(|txn| !self.server(number).has_applied(**txn));
        let lost: Vec<Txn> = lost.copied().collect();
        if let Some(first) = lost.first() {
            let what = format!(
                "{} acknowledged write(s) lost, {first:?} among them: s{number} was promoted without",
                lost.len()
            );
            self.violated(what);
            self.ledger_mut(number).weakened(&lost);
        }
    }

    /// Nobody is opened beside one that was asked, takes writes, and acknowledges them alone.
    fn check_not_beside_a_writer(&mut self, number: u8, manager: u8) {
        let ledger = self.ledger(number);
        let Some(last) = ledger.reigning() else { return };
        let asked = ledger.asked.get(&manager).is_some_and(|all| all.contains(&last));
        let server = self.server(last);
        if asked && server.takes_writes(self.now) && !server.waits_for_acks {
            self.violated(format!("s{number} was opened though s{last} takes writes"));
        }
    }

    /// Whoever moves writes in peace opens nobody while the one that was opened last takes writes, and can be asked.
    fn check_other_is_closed(&mut self, number: u8, manager: u8) {
        let Some(last) = self.ledger(number).reigning() else { return };
        let in_sight = self.network.is_calm(Party::Manager(manager), Party::Server(last));
        let server = self.server(last);
        if in_sight
            && server.is_awake()
            && !server.opened_by_mistake
            && server.takes_writes(self.now)
        {
            self.violated(format!("m{manager} opened s{number} though s{last} takes writes"));
        }
    }

    /// Nobody is moved away from whom a vtorc finds as slow as everybody else: that is its own network.
    fn check_not_blamed(&mut self, number: u8, manager: u8) {
        let Some(last) = self.ledger(number).reigning() else { return };
        let slow_until = self.slow_managers.get(&manager).copied().unwrap_or(0);
        let slow_lately = slow_until.saturating_add(PROBES_COUNT_FOR_MS) > self.now;
        if slow_lately && !self.server(last).saturated {
            let what = format!(
                "m{manager} blamed s{last} for its own network and moved away to s{number}"
            );
            self.violated(what);
        }
    }

    /// Somebody hears it who acknowledges, if anybody must: where nobody does, as with disks that stall, nobody can
    /// tell whose fault that is.
    fn is_heard(&self, number: u8) -> bool {
        let wants_acks = policies::acks_required(self.records_of(number).policy) > 0;
        self.others(number).any(|one| {
            let other = self.server(one);
            let link = (Party::Server(number), Party::Server(one));
            let hears = other.is_awake() && !other.stalled;
            hears && (other.acks || !wants_acks) && self.network.is_calm(link.0, link.1)
        })
    }

    /// A server took writes at some time; what others have written since is not held against it.
    pub fn has_won(&mut self, number: u8) {
        self.ledger_mut(number).won.insert(number);
    }

    /// Of what the server that wrote it lost, the others are all there is: where a second failure keeps those from
    /// the vtorc that promotes, it is more than is promised to survive. Another tool takes the word of who lost it.
    fn give_up_what_is_out_of_sight(&mut self, number: u8, manager: u8) {
        let me = Party::Manager(manager);
        let in_sight = |one: &u8| {
            let (them, server) = (Party::Server(*one), self.server(*one));
            server.is_awake()
                && self.network.is_open_both_ways(me, them)
                && !server.ills.turns_away(manager)
                && self.behind(*one) == *one
        };
        let seen: Vec<u8> = match manager {
            FOREIGN => vec![number],
            _of_ours => self.others(number).filter(in_sight).collect(),
        };
        let ledger = self.ledger(number);
        let is_gone = |txn: &&Txn| !seen.iter().any(|one| self.server(*one).has_data(**txn));
        let worn = ledger.worn.intersection(&ledger.promised);
        let gone: Vec<Txn> = worn.filter(is_gone).copied().collect();
        self.ledger_mut(number).weakened(&gone);
    }

    /// What somebody wrote on a replica by mistake is not made everybody's, unless somebody asks for it.
    fn check_no_error_is_spread(&mut self, number: u8, manager: u8) {
        // What one has that follows nobody may be what it wrote as primary.
        if self.server(number).source.is_none() {
            return;
        }
        let others: Vec<u8> = self.others(number).collect();
        let is_alone = |txn: &&Txn| !others.iter().any(|one| self.server(*one).has_received(**txn));
        let errors = self.server(number).binlog.iter().filter(|txn| self.mistakes.contains(txn));
        let mut errors = errors.filter(|txn| !self.unwatched.contains(txn));
        if let Some(txn) = errors.find(is_alone).copied() {
            self.violated(format!(
                "m{manager} promoted s{number}, on which somebody wrote {txn:?} by mistake"
            ));
        }
    }

    /// Nobody whom it could have promoted has what counts and the promoted one lacks: what is promised, and, whatever
    /// the policy, what the last primary told its clients is done.
    fn check_most_advanced(&mut self, number: u8, manager: u8) {
        let winner = self.server(number);
        let ledger = self.ledger(number);
        let counts = |txn: &Txn| {
            let of_this_term = ledger.reigning() == Some(txn.source);
            ledger.promised.contains(txn)
                || (of_this_term && ledger.acknowledged_txns.contains(txn))
        };
        let could_win = |one: &&u8| {
            let other = self.server(**one);
            let tablet = self.topology.tablets.get(&other.alias);
            // Nobody can tell which GTIDs of a filtered one stand for data, and nobody gets what one has that logs
            // nothing.
            let ills = &other.ills;
            let whole = other.is_awake() && !ills.filtered && !ills.keeps_no_log;
            // Nobody would learn from a record that cannot be read that it is primary.
            let readable = ledger.readable.get(&manager);
            let named = readable.is_none_or(|aliases| aliases.contains(&other.alias));
            whole && named && tablet.is_some_and(|tablet| tablet.tablet_type.is_promotable())
        };
        let asked = ledger.asked.get(&manager).into_iter().flatten();
        let refused: Vec<u8> =
            asked.filter(|one| **one != number).filter(could_win).copied().collect();
        let found = refused.into_iter().find_map(|one| {
            let other = self.server(one);
            let received = other.binlog.iter().chain(&other.relay);
            let more: Vec<Txn> =
                received.filter(|txn| !winner.executed.contains(**txn)).copied().collect();
            // One with transactions of somebody else's as well was passed over for those.
            let errs = more.iter().any(|txn| ledger.reigning() != Some(txn.source));
            let first = more.into_iter().find(counts).filter(|_| !errs);
            first.map(|txn| (one, txn))
        });
        if let Some((other, txn)) = found {
            self.violated(format!(
                "m{manager} promoted s{number}, and s{other}, which it passed over, has {txn:?} as well"
            ));
        }
    }

    /// A vtorc that replaces a primary by itself stops a receiver.
    pub fn receiver_stopped(&mut self, number: u8, manager: u8) {
        let now = self.now;
        self.ledger_mut(number).asked.entry(manager).or_default().insert(number);
        let Some(source) = self.server(number).source else { return };
        let since = self.ledger(source).serving_since.get(&source).copied();
        let served = since.is_some_and(|since| now.saturating_sub(since) > SERVED_FOR_MS);
        // One whose disk stalls hears nothing, and cannot speak for it.
        let follows = self.follows(number, source) && !self.server(number).stalled;
        let primary = self.server(source).alias.clone();
        let named = self.records_of(source).record.primary_alias.as_ref() == Some(&primary);
        let shard = self.server(source).shard;
        let named_here = |one: &&Tablet| one.tablet_type == TabletType::Primary;
        let read = self.ledger(number).readable.get(&manager);
        let could_read = |one: &TabletAlias| read.is_none_or(|aliases| aliases.contains(one));
        let members = self.servers().iter().filter(|one| one.shard == shard);
        let members = members.map(|one| &one.alias).filter(|one| could_read(one));
        let records = members.filter_map(|one| self.topology.tablets.get(one));
        // A record that lies of a newer term is believed by whoever could read it.
        let newest = records.filter(named_here).max_by_key(|one| one.term_start);
        let recorded = newest.is_some_and(|one| one.alias == primary);
        let excused = self.server(source).ills.downtime_since;
        if excused.is_some_and(|since| now.saturating_sub(since) > TOLD_AFTER_MS) {
            let what = format!("m{manager} began a failover from s{source}, which is in downtime");
            self.violated(what);
        }
        // What others have of it under the same GTIDs is other data: it must be replaced.
        let is_worn = self.wrote_anew(source);
        if served && follows && named && recorded && !is_worn {
            let what = format!(
                "m{manager} began a failover from s{source}, which serves and is followed by s{number}"
            );
            self.violated(what);
        }
    }

    /// The topology is about to name a primary.
    pub fn check_named(&mut self, alias: &TabletAlias) {
        let server = self.server_of(alias);
        // Somebody opened it by mistake, and a promotion that was not answered is taken for done.
        let is_open = server.is_some_and(|server| !server.read_only);
        let number = server.map(|server| server.number);
        if !is_open && !number.is_some_and(|number| self.ledger(number).won.contains(&number)) {
            self.violated(format!("the topology names {alias}, which nobody promoted"));
        }
    }
}
