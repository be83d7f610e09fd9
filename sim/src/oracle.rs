//! Liveness as an invariant: whenever a human with a vtorc's view could give a shard its primary safely, the program
//! does so within a stated time.
//!
//! What a human could do is judged by the simulator's own truth. Of `core` only plain facts are used here (types,
//! addresses, who acknowledges by a policy), nothing that decides, so that both cannot share a mistake. Where the truth
//! is complicated, the time does not count.

use std::collections::{BTreeMap, BTreeSet};

use vtorc_core::tablet::TabletType;

use crate::Millis;
use crate::faults::{Fault, Hostile, Kind};
use crate::foreign::FOREIGN;
use crate::ledger::Ledger;
use crate::network::Party;
use crate::schedule::{Schedule, ShardPlan};
use crate::universe::Universe;

mod means;

/// What makes it slow, and how much time is allowed for it. What applies is summed.
pub struct Limits;

impl Limits {
    /// Whatever happens: noticed in 3 s, the lock in 5 s, done in 2 s.
    pub const PLAIN_MS: Millis = 10_000;
    /// The history cannot be read at the start: it is waited for before it is done without.
    pub const HISTORY_AWAY_MS: Millis = 10_000;
    /// The primary is silent instead of refusing, or heartbeats cannot be seen: timeouts must pass.
    pub const SILENT_MS: Millis = 5_000;
    /// Tablets are silent: each step that asks them waits for its timeout.
    pub const OTHERS_AWAY_MS: Millis = 10_000;
    /// Somebody applies nothing: it is waited for before another one is taken (5 s, and once more).
    pub const APPLIES_LATE_MS: Millis = 12_000;
    /// Another vtorc, with a worse view, may hold the lock for one vain attempt.
    pub const SECOND_VTORC_MS: Millis = 8_000;
    /// Attempts failed while it was impossible: the longest pause between two.
    pub const RETRY_MS: Millis = 32_000;
    /// A reparent ends so long after the promotion at most; the block period counts from there.
    pub const ENDS_MS: Millis = 12_000;
}

/// A tablet that answers for so long has been heard.
const HEARD_AFTER_MS: Millis = 2_500;

/// What a human could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Replace a primary that is gone.
    FailOver,
    /// Let a primary that came back take writes again.
    Reopen,
    /// Give a shard its first primary.
    Elect,
}

impl Deed {
    /// In words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::FailOver => "failed over",
            Self::Reopen => "opened the primary that came back",
            Self::Elect => "elected a first primary",
        }
    }
}

/// Since when it could be done, and how slow it may be.
#[derive(Clone, Copy, Debug)]
struct Chance {
    deed: Deed,
    since: Millis,
    allowed: Millis,
}

/// What one vtorc, in its present life, has come to know.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Tablets whose record it could read.
    known: BTreeSet<u8>,
    /// Shards whose own record it could read.
    shards: BTreeSet<usize>,
    /// Tablets that it could ask for a while.
    heard: BTreeSet<u8>,
    answers_since: BTreeMap<u8, Millis>,
    /// When each answered last.
    answered_at: BTreeMap<u8, Millis>,
    /// It may have heard somebody of whom this view does not tell: its vtorc stood still once, or another one ran
    /// before it and kept what it had heard.
    may_have_heard: bool,
}

/// A vtorc keeps when it heard the primary at least so often, for the one that is started after it.
const HEARD_KEPT_EVERY_MS: Millis = 10_000;

impl View {
    /// What a vtorc knows that is started after another one: when the primary was heard, as far as that was kept.
    fn after(before: &Self) -> Self {
        let kept = |at: &Millis| at.saturating_sub(HEARD_KEPT_EVERY_MS);
        let answered_at = before.answered_at.iter().map(|(one, at)| (*one, kept(at))).collect();
        Self { answered_at, may_have_heard: true, ..Self::default() }
    }
}

/// What is seen of a vtorc from outside.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// Its number.
    pub manager: u8,
    /// Its process runs.
    pub runs: bool,
}

/// Watches over all vtorcs and shards of a run.
#[derive(Debug, Default)]
pub struct Oracle {
    views: BTreeMap<u8, View>,
    chances: BTreeMap<(u8, usize), Chance>,
    /// When each shard was last seen in order, with one history.
    in_order_at: BTreeMap<usize, Millis>,
    reported: BTreeSet<usize>,
    /// How often each was there at all, and for how long at most.
    pub seen: BTreeMap<Deed, (u64, Millis)>,
}

/// A chance that was missed.
#[derive(Clone, Debug)]
pub struct Missed {
    /// By which vtorc.
    pub manager: u8,
    /// In which shard.
    pub shard: usize,
    /// Since when it was there, undisturbed.
    pub since: Millis,
    /// How long it may take, less pauses between attempts.
    pub allowed: Millis,
    /// In words.
    pub what: String,
}

impl Oracle {
    /// A vtorc was started: it knows nothing yet but what another one kept.
    pub fn restarted(&mut self, manager: u8) {
        if let Some(view) = self.views.get_mut(&manager) {
            *view = View::after(view);
        }
        self.chances.retain(|(of, _), _| *of != manager);
    }

    /// Said once for each shard.
    pub fn tell(&mut self, missed: &Missed) -> bool {
        self.reported.insert(missed.shard)
    }

    /// Looks at one vtorc. Answers the chances that it misses, for which time enough has passed.
    pub fn look(
        &mut self,
        universe: &Universe,
        schedule: &Schedule,
        watched: Watched,
    ) -> Vec<Missed> {
        let Watched { manager, runs } = watched;
        let acts = runs && !universe.is_paused(usize::from(manager));
        let view = self.views.entry(manager).or_default();
        view.may_have_heard |= runs && !acts;
        if acts {
            view.look(universe, manager);
        }
        let view = self.views.get(&manager).cloned().unwrap_or_default();
        let now = universe.now;
        let mut missed = Vec::new();
        for (shard, ledger) in universe.books.iter().enumerate() {
            if universe.disorder(shard).is_none() && universe.has_one_history(shard) {
                self.in_order_at.insert(shard, now);
            }
            let in_order_at = self.in_order_at.get(&shard).copied();
            let human = Human { universe, schedule, manager, shard, view: &view, in_order_at };
            let could = (acts && human.is_down()).then(|| human.could_do()).flatten();
            let Some((deed, allowed)) = could else {
                self.chances.remove(&(manager, shard));
                continue;
            };
            let new = Chance { deed, since: now, allowed };
            let known = self.chances.get(&(manager, shard)).is_some_and(|old| old.deed == deed);
            let chance = self.chances.entry((manager, shard)).or_insert(new);
            let seen = self.seen.entry(deed).or_default();
            if !known {
                *chance = new;
                seen.0 += 1;
            }
            seen.1 = seen.1.max(now - chance.since);
            chance.allowed = chance.allowed.max(allowed);
            let since = chance.since.max(ledger.disturbed_at);
            if now.saturating_sub(since) > chance.allowed {
                let (deed, allowed) = (deed.in_words(), chance.allowed);
                let what = format!(
                    "a human with m{manager}'s view could have {deed} in shard {shard} for {} ms",
                    now - since
                );
                missed.push(Missed { manager, shard, since, allowed, what });
            }
        }
        missed
    }
}

impl View {
    fn look(&mut self, universe: &Universe, manager: u8) {
        let (me, topology) = (Party::Manager(manager), Party::Topology);
        let reads = !universe.topology.down && universe.network.is_calm(me, topology);
        let records = universe.topology.shards.iter().enumerate();
        self.shards.extend(records.filter(|(_, one)| reads && !one.damaged).map(|(at, _)| at));
        for server in universe.servers() {
            let number = server.number;
            let recorded = universe.topology.tablets.contains_key(&server.alias);
            if reads && recorded && universe.topology.is_readable(&server.alias) {
                self.known.insert(number);
            }
            if self.known.contains(&number) && universe.answers(manager, number) {
                self.answered_at.insert(number, universe.now);
                let since = *self.answers_since.entry(number).or_insert(universe.now);
                if universe.now - since >= HEARD_AFTER_MS {
                    self.heard.insert(number);
                }
            } else {
                self.answers_since.remove(&number);
            }
        }
    }
}

impl Universe {
    /// A vtorc can ask this server and will be answered at once.
    pub(crate) fn answers(&self, manager: u8, number: u8) -> bool {
        let server = self.server(number);
        let vttablet = self.vttablets.get(usize::from(number));
        server.is_awake()
            && !server.stalled
            && !server.saturated
            && !server.ills.late
            && !server.ills.turns_away(manager)
            && self.behind(number) == number
            && vttablet.is_none_or(|vttablet| !vttablet.down)
            && self.network.is_calm(Party::Manager(manager), Party::Server(number))
    }
}

/// A human who sees what one vtorc sees, before one shard.
struct Human<'a> {
    universe: &'a Universe,
    schedule: &'a Schedule,
    manager: u8,
    shard: usize,
    view: &'a View,
    in_order_at: Option<Millis>,
}

/// Whoever does one of these to a shard may leave more than one history, or promises that nobody can weigh, until the
/// shard was seen in order afterwards.
const COMPLICATED: [Kind; 10] = [
    Kind::ErrantWrite,
    Kind::WritableReplica,
    Kind::WrongSource,
    Kind::TailLost,
    Kind::DeletedRecord,
    Kind::PolicyChanged,
    Kind::Clone,
    Kind::WrongSemiSync,
    Kind::ForeignReparent,
    Kind::PlannedReparent,
];

impl Human<'_> {
    /// Nobody takes writes that clients reach.
    fn is_down(&self) -> bool {
        let serves = |number: u8| {
            let server = self.universe.server(number);
            let (clients, me) = (Party::Clients, Party::Server(number));
            let reached = self.universe.network.is_open_both_ways(clients, me);
            server.is_awake() && !server.read_only && reached
        };
        let mut members = self.universe.members(self.shard);
        // Whoever put one into downtime wants nothing to be done.
        let excused = |number: u8| self.universe.server(number).ills.downtime_since.is_some();
        !members.any(|number| serves(number) || excused(number))
    }

    fn could_do(&self) -> Option<(Deed, Millis)> {
        if self.is_complicated() || !self.may_act() {
            return None;
        }
        let records = self.universe.topology.shards.get(self.shard)?;
        if records.damaged && !self.knows_damaged_record() {
            return None;
        }
        let ledger = self.universe.books.get(self.shard)?;
        match (&records.record.primary_alias, ledger.reigning()) {
            (None, None) => self.could_elect().then(|| (Deed::Elect, self.allowed(None))),
            (Some(named), Some(reigning)) => {
                let primary = self.universe.server_of(named)?.number;
                // Half-way between two primaries.
                if primary != reigning
                    || !self.view.known.contains(&primary)
                    || self.is_a_hollow_one_recorded(primary)
                {
                    return None;
                }
                let deed = if self.could_fail_over(primary) {
                    Deed::FailOver
                } else if self.could_reopen(primary) {
                    Deed::Reopen
                } else {
                    return None;
                };
                Some((deed, self.allowed(Some(primary))))
            }
            (None, Some(_)) | (Some(_), None) => None,
        }
    }

    /// A record says that one is primary which does not have everything: somebody must correct it first.
    fn is_a_hollow_one_recorded(&self, primary: u8) -> bool {
        self.universe.members(self.shard).any(|one| {
            let is_filtered = self.universe.server(one).ills.filtered;
            one != primary && is_filtered && self.type_of(one) == TabletType::Primary
        })
    }

    /// The shard's own record was read before it was damaged, and the tablets' records tell of every promotion since.
    fn knows_damaged_record(&self) -> bool {
        let topology = &self.universe.topology;
        let mut members = self.universe.members(self.shard).map(|one| self.universe.server(one));
        self.view.shards.contains(&self.shard)
            && topology.mistyped_cell.is_none()
            && members.all(|server| topology.is_readable(&server.alias))
    }

    fn is_complicated(&self) -> bool {
        let in_order_at = self.in_order_at.unwrap_or(0);
        let matters = |fault: &&Fault| {
            let is_over = fault.at + fault.lasts < in_order_at;
            fault.shard == self.shard && fault.at <= self.universe.now && !is_over
        };
        let faults = self.schedule.faults.iter().filter(matters);
        // Nobody knows beforehand when those hit.
        let strikes = self.schedule.strikes.iter().map(|(_, fault)| fault);
        let mut here = faults.chain(strikes.filter(|fault| fault.shard == self.shard));
        let plan = self.schedule.shards.get(self.shard);
        let known = self.has_heard_all() && self.is_first_reparent_written();
        let odd = plan.is_some_and(ShardPlan::one_alone_has_former) && !known;
        odd || here.any(|fault| COMPLICATED.contains(&fault.kind))
    }

    /// Everybody was heard for a while, the primary as well: what only one has that the primary did not write, it had
    /// while that lived.
    fn has_heard_all(&self) -> bool {
        self.universe.members(self.shard).all(|one| self.view.heard.contains(&one))
    }

    /// The journals tell of the primary. Before their first row, what unknown servers wrote may be of a later term.
    fn is_first_reparent_written(&self) -> bool {
        let reigning = self.universe.books.get(self.shard).and_then(Ledger::reigning);
        reigning.is_some_and(|primary| self.universe.server(primary).journal > 0)
    }

    /// The topology works for it, and no lock, no block and no doubt in its own eyes stands in the way.
    fn may_act(&self) -> bool {
        let (universe, topology) = (self.universe, &self.universe.topology);
        let works = !topology.down && topology.conflicts == 0;
        let reached = universe.network.is_calm(Party::Manager(self.manager), Party::Topology);
        works && reached && self.lock_can_be_had() && self.block_is_over() && !self.doubts_itself()
    }

    /// The lock is free, or one that works has it: those whose session is left behind, who stand still, and other
    /// tools may keep it.
    fn lock_can_be_had(&self) -> bool {
        let topology = &self.universe.topology;
        let records = topology.shards.get(self.shard);
        let Some(holder) = records.and_then(|records| records.holder) else { return true };
        let lives = topology.sessions.iter().filter(|((of, _), _)| *of == holder.manager);
        let present = lives.max_by_key(|((_, life), _)| *life).map(|(_, (session, _))| *session);
        holder.manager != FOREIGN
            && present == Some(holder.session)
            && !self.universe.is_paused(usize::from(holder.manager))
    }

    fn block_is_over(&self) -> bool {
        let ledger = self.universe.books.get(self.shard);
        let last = ledger.and_then(|ledger| ledger.promotions.last());
        let over = |at: Millis| at + self.schedule.block_ms + Limits::ENDS_MS;
        last.is_none_or(|last| over(last.at) <= self.universe.now)
    }

    /// Whoever lost half of several shards thinks of the own network first.
    fn doubts_itself(&self) -> bool {
        let shards = self.universe.books.len();
        let lost = (0..shards).filter(|shard| {
            let members = self.universe.members(*shard);
            let (seen, lost): (Vec<u8>, Vec<u8>) =
                members.partition(|one| self.universe.answers(self.manager, *one));
            lost.len() >= seen.len()
        });
        shards >= 3 && lost.count() * 2 >= shards
    }

    fn allowed(&self, primary: Option<u8>) -> Millis {
        let silent = primary.is_some_and(|primary| self.universe.server(primary).running);
        let others = self.universe.members(self.shard).filter(|one| Some(*one) != primary);
        let others: Vec<u8> = others.collect();
        let away = others.iter().any(|one| {
            self.universe.server(*one).running && !self.universe.answers(self.manager, *one)
        });
        let now = self.universe.now;
        let late = others.iter().map(|one| self.universe.server(*one)).any(|server| {
            server.ills.holds_applier() || server.applier_sleeps_until > now || server.stalled
        });
        let several = self.schedule.managers > 1;
        let blind = !self.schedule.heartbeats_seen;
        let extra = [
            (silent || blind, Limits::SILENT_MS),
            (away, Limits::OTHERS_AWAY_MS),
            (late, Limits::APPLIES_LATE_MS),
            (several, Limits::SECOND_VTORC_MS),
            (self.meets(Hostile::HistoryFails), Limits::HISTORY_AWAY_MS),
        ];
        let extra = extra.iter().filter(|(applies, _)| *applies).map(|(_, ms)| ms);
        Limits::PLAIN_MS + extra.sum::<Millis>()
    }

    /// What a record says a tablet is for, or what it was made for.
    fn type_of(&self, number: u8) -> TabletType {
        let server = self.universe.server(number);
        let tablet = self.universe.topology.tablets.get(&server.alias);
        tablet.map_or(server.made_for, |tablet| tablet.tablet_type)
    }

    /// The schedule has this fault somewhere.
    fn meets(&self, fault: Hostile) -> bool {
        self.schedule.everything().any(|one| one.kind == Kind::Hostile(fault))
    }

    /// Part of the topology, or a tablet, may be out of sight from the beginning.
    fn is_hostile_place(&self) -> bool {
        self.universe.topology.mistyped_cell.is_some()
            || !self.universe.topology.down_cells.is_empty()
            || !self.universe.topology.unread_cells.is_empty()
            || self.meets(Hostile::DamagedRecord)
            || self.universe.members(self.shard).any(|one| self.universe.server(one).ills.never_up)
    }
}
