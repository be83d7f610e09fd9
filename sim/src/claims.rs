//! What vtorcs say of a shard, and what their histories tell: claims that must be true, and silence that must not
//! be.

use vtorc_actors::board::ShardReport;
use vtorc_core::audit::{Outcome, RecoveryRecord, Trigger};
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::remedy::remedy;
use vtorc_core::tablet::TabletType;
use vtorc_core::time::TermStart;
use vtorc_core::topology::ShardTopology;

use crate::Millis;
use crate::foreign::FOREIGN;
use crate::server::Server;
use crate::universe::Universe;

/// A shard that wants a primary is worked on, or it is said why not, within this.
const SILENT_MAX_MS: Millis = 3_000;
/// What a fault left behind is seen within this.
pub const ECHO_MS: Millis = 2_000;

/// Since when a vtorc wants a reparent, does nothing and does not say why.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence(Option<Millis>);

impl Silence {
    /// Takes in what a vtorc shows. Answers how long it has been silent where that is too long.
    pub fn look(&mut self, now: Millis, report: Option<&ShardReport>) -> Option<Millis> {
        let silent = report.is_some_and(|report| {
            let wants = report.findings.iter().any(|one| remedy(one.kind).is_reparent());
            wants && report.running.is_none() && report.held_back.is_none()
        });
        self.0 = silent.then(|| self.0.unwrap_or(now));
        let lasted = now - self.0?;
        (lasted > SILENT_MAX_MS).then_some(lasted)
    }
}

impl Universe {
    /// A vtorc that must doubt its own sight begins nothing.
    pub fn check_alone(
        &mut self,
        manager: usize,
        records: &[RecoveryRecord],
        epoch: Millis,
        alone: &[(Millis, Millis)],
    ) {
        for record in records.iter().filter(|one| one.trigger == Trigger::Automatic) {
            let began = record.started_at.as_millis().saturating_sub(epoch);
            if alone.iter().any(|(from, to)| (*from..*to).contains(&began)) {
                self.violated(format!(
                    "m{manager} began recovery {} {began} ms in, while it was cut off from nearly everything",
                    record.id
                ));
            }
        }
    }

    /// A shard's number.
    fn at(&self, shard: &KeyspaceShard) -> Option<usize> {
        self.topology.shards.iter().position(|records| records.name == *shard)
    }

    /// A vtorc read a shard's records.
    pub fn records_were_read(&mut self, manager: u8, read: &ShardTopology) {
        let terms = read.tablets.values().filter_map(|tablet| tablet.term_start);
        let newest = terms.chain(read.record.term_start).max();
        let at = self.at(&read.shard);
        let Some(ledger) = at.and_then(|at| self.books.get_mut(at)) else { return };
        ledger.readable.insert(manager, read.tablets.keys().cloned().collect());
        match newest {
            Some(newest) => drop(ledger.terms_read.insert(manager, newest)),
            // A record that lied of a term was put right.
            None => drop(ledger.terms_read.remove(&manager)),
        }
    }

    /// A vtorc gives a primary a term: terms decide who is primary, so a new one is later than all that it read. The
    /// other tool takes its own clock's word.
    pub fn check_new_term(&mut self, manager: u8, alias: &TabletAlias, term: TermStart) {
        if manager == FOREIGN {
            return;
        }
        let Some(tablet) = self.topology.tablets.get(alias) else { return };
        // The shard's record tells of it where the tablet's own was written anew.
        let shard = self.topology.shards.iter().find(|records| records.name == tablet.shard);
        let of_shard = shard.filter(|shard| shard.record.primary_alias.as_ref() == Some(alias));
        let known = [tablet.term_start, of_shard.and_then(|shard| shard.record.term_start)];
        let is_new = !known.contains(&Some(term));
        let ledger = self.at(&tablet.shard).and_then(|at| self.books.get(at));
        let read = ledger.and_then(|ledger| ledger.terms_read.get(&manager)).copied();
        if let Some(read) = read.filter(|read| is_new && *read >= term) {
            self.violated(format!(
                "m{manager} began the term {term} of {alias}, having read that there was one of {read}"
            ));
        }
    }

    /// A vtorc takes a tablet out of service: it has something that the primary lacks. The other tool does what it
    /// likes.
    pub fn check_set_aside(&mut self, manager: u8, alias: &TabletAlias, to: TabletType) {
        let server = self.server_of(alias).filter(|_| to == TabletType::Drained);
        // Another shard's server that wrote hardly anything is taken for the tablet's.
        let own = |one: &&Server| manager != FOREIGN && self.behind(one.number) == one.number;
        let Some(server) = server.filter(own) else { return };
        let named = self.records_of(server.number).record.primary_alias.as_ref();
        let named = named.filter(|named| **named != server.alias);
        let Some(primary) = named.and_then(|named| self.server_of(named)) else { return };
        let mut has = server.binlog.iter().chain(&server.relay);
        // Who lost something wrote other data under the same GTIDs since.
        let worn = &self.ledger(server.number).worn;
        if has.all(|txn| primary.executed.contains(*txn) && !worn.contains(txn)) {
            let (number, primary) = (server.number, primary.number);
            self.violated(format!(
                "m{manager} takes s{number} out of service, and s{primary} has all that it has"
            ));
        }
    }

    /// Where nobody could follow the one that a vtorc promotes, nobody else of its cell could have been promoted. Whom
    /// replicas log in as where vttablets tell them, no vtorc knows.
    pub fn check_followable(&mut self, number: u8, manager: u8) {
        let winner = self.server(number);
        let could_be = |one: &u8| {
            let other = self.server(*one);
            let record = self.topology.tablets.get(&other.alias);
            let promotable = record.is_some_and(|record| record.tablet_type == TabletType::Replica);
            promotable && !other.ills.refuses_replicas && other.alias.cell == winner.alias.cell
        };
        let knows = self.vttablets.is_empty();
        if knows && winner.ills.refuses_replicas && self.others(number).any(|one| could_be(&one)) {
            self.violated(format!("m{manager} promoted s{number}, at which no replica can log in"));
        }
    }

    /// The same thing is not repaired twice by the same vtorc where nothing happened in between. `epoch` is what
    /// its clock read at the beginning; `troubled` are the times in which faults were at work or echoed.
    pub fn check_repaired_once(
        &mut self,
        shard: usize,
        manager: usize,
        records: &[RecoveryRecord],
        epoch: Millis,
        troubled: &[(Millis, Millis)],
    ) {
        let time = |at: vtorc_core::time::Timestamp| at.as_millis().saturating_sub(epoch);
        let repairs: Vec<&RecoveryRecord> = records
            .iter()
            .filter(|one| one.trigger == Trigger::Automatic)
            .filter(|one| matches!(one.outcome, Some(Outcome::Succeeded(_))))
            .collect();
        for (at, later) in repairs.iter().enumerate() {
            let same = |one: &&&RecoveryRecord| {
                one.kind == later.kind
                    && one.finding == later.finding
                    && one.finding_tablet == later.finding_tablet
            };
            let Some(earlier) = repairs.iter().take(at).rev().find(same) else { continue };
            let (began, again) = (time(earlier.started_at), time(later.started_at));
            let calm = !troubled.iter().any(|(from, to)| *from < again && began < *to);
            let promotions = self.books.get(shard).map(|books| books.promotions.as_slice());
            let changed = promotions
                .unwrap_or_default()
                .iter()
                .any(|one| one.at + ECHO_MS > began && one.at < again);
            if calm && !changed {
                let what = format!(
                    "m{manager} repaired {} of {} twice: recoveries {} and {}",
                    later.finding.map_or("nothing".to_owned(), |finding| finding.to_string()),
                    later.finding_tablet.as_ref().map(ToString::to_string).unwrap_or_default(),
                    earlier.id,
                    later.id
                );
                self.violated(what);
            }
        }
    }
}
