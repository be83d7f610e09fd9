//! What the records must say after a reparent that stopped between two of their writes.

use crate::knowledge::snapshot::ShardSnapshot;
use crate::tablet::Tablet;
use crate::time::{TermStart, Timestamp};

/// What is missing in the records of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The term that both records must name.
    pub term: TermStart,
    /// The tablet's record does not name it yet: it is written before the shard's.
    pub in_tablet_record: bool,
}

/// How a primary's records are completed: with the term that they tell of already, where that can stand, else with a
/// later one.
pub fn completion(snapshot: &ShardSnapshot, primary: &Tablet, now: Timestamp) -> Completion {
    let settled = snapshot.settled_term(primary);
    let term = settled.unwrap_or_else(|| TermStart::after(snapshot.newest_term(), now));
    Completion { term, in_tablet_record: primary.term_start != Some(term) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    #[test]
    fn a_term_that_stands_is_kept_and_another_is_later_than_all() {
        let alias = |uid| crate::ids::TabletAlias { cell: "zone1".into(), uid };
        let at = |seconds: u64| TermStart::after(None, Timestamp::from_millis(seconds * 1000));
        let now = Timestamp::from_millis(50_000);
        let topology = testkit::shard(&[alias(1), alias(2)]);
        let mut snapshot = ShardSnapshot::unprobed(&topology, now);
        let mut primary = testkit::tablet(alias(1), crate::tablet::TabletType::Primary);
        for (in_tablet, in_shard, named, term, written) in [
            // The tablet's record was written, the shard's was not.
            (Some(at(9)), Some(at(5)), 2, at(9), false),
            // Only the shard's names a term, for this primary.
            (None, Some(at(5)), 1, at(5), true),
            // The shard's tells of a later term of another one: a new one begins.
            (Some(at(4)), Some(at(5)), 2, at(50), true),
            // There is none at all.
            (None, None, 2, at(50), true),
        ] {
            primary.term_start = in_tablet;
            snapshot.record.term_start = in_shard;
            snapshot.record.primary_alias = Some(alias(named));
            let expected = Completion { term, in_tablet_record: written };
            assert_eq!(completion(&snapshot, &primary, now), expected);
        }
    }
}
