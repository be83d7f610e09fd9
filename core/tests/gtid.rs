//! GTID algebra: cases by hand, and laws that hold for any sets.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use vtorc_core::gtid::{GtidRelation, GtidSet, MariaDbGtidSet, MariaDbServer};
use vtorc_core::ids::ServerIdentity;

const A: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const B: &str = "bbbbbbbb-0000-0000-0000-000000000002";

fn mysql(text: &str) -> GtidSet {
    GtidSet::parse_mysql(text).unwrap()
}

fn maria(text: &str) -> GtidSet {
    GtidSet::parse_mariadb(text).unwrap()
}

#[test]
fn mysql_text_is_normalised() {
    let upper = A.to_ascii_uppercase();
    assert_eq!(
        mysql(&format!(" {upper}:6-10:1-5,\n{B}:7 ")).to_string(),
        format!("{A}:1-10,{B}:7")
    );
    assert_eq!(mysql(&format!("{A}:5-3")).to_string(), "");
    assert_eq!(mysql(&format!("{A}:1-3:backup:4-5")).to_string(), format!("{A}:1-3:backup:4-5"));
    assert_eq!(mysql("").to_string(), "");
}

#[test]
fn nonsense_is_refused() {
    for bad in [
        "x",
        "aaaa:1",
        A,
        &format!("{A}:0"),
        &format!("{A}:x-1"),
        &format!("{A}:-1"),
        &format!("{A}:9223372036854775808"),
        &format!("{A}:1-2-3"),
    ] {
        assert!(GtidSet::parse_mysql(bad).is_err(), "{bad}");
    }
    for bad in ["0-1", "0-1-2-3", "a-1-2", "0-1--2"] {
        assert!(GtidSet::parse_mariadb(bad).is_err(), "{bad}");
    }
}

#[test]
fn relations() {
    let few = mysql(&format!("{A}:1-5"));
    let more = mysql(&format!("{A}:1-9"));
    let other = mysql(&format!("{A}:1-5,{B}:1"));
    assert_eq!(few.relation(&few), GtidRelation::Equal);
    assert_eq!(more.relation(&few), GtidRelation::Ahead);
    assert_eq!(few.relation(&more), GtidRelation::Behind);
    assert_eq!(more.relation(&other), GtidRelation::Diverged);
    assert_eq!(more.subtract(&other).to_string(), format!("{A}:6-9"));
    assert_eq!(other.without_source(B), few);
}

#[test]
fn mariadb_compares_by_domain_and_sequence() {
    assert!(maria("0-2-9,1-1-3").contains(&maria("0-1-9")));
    assert_eq!(maria("0-2-9").relation(&maria("1-1-3")), GtidRelation::Diverged);
    assert_eq!(maria("0-1-5").union(&maria("0-2-7,3-1-1")).to_string(), "0-2-7,3-1-1");
    assert_eq!(maria("0-1-5,1-1-2").subtract(&maria("0-2-5")).to_string(), "1-1-2");
}

/// A server that lost its last writes and follows on skips them when they come back to it: its position goes past them.
/// One that was made anew as a copy has them, and its logs do not tell.
#[test]
fn a_mariadb_that_lost_its_own_does_not_have_it() {
    let has = |state: &str, applied: &str| {
        let (state, applied) = (state.parse().unwrap(), applied.parse().unwrap());
        GtidSet::MariaDb(MariaDbGtidSet::of_server(&MariaDbServer {
            server_id: 1,
            applied: &applied,
            written: &applied,
            state: &state,
            logs_what_it_applies: true,
        }))
    };
    let (lost, copied) = (has("0-1-74,0-3-83", "0-3-83"), has("0-3-83", "0-3-83"));
    let own = maria("0-1-80").of_writer(&ServerIdentity::Id(1));
    assert!(!lost.contains(&own) && copied.contains(&own));
    // With others' it is there, whichever comes first.
    let received = maria("0-3-84").of_writer(&ServerIdentity::Id(3));
    assert!(!lost.union(&received).contains(&own) && !received.union(&lost).contains(&own));
    assert!(lost.union(&copied).contains(&maria("0-2-80")));
}

#[test]
fn flavours_do_not_mix() {
    assert!(!mysql(&format!("{A}:1")).contains(&maria("0-1-1")));
    assert!(mysql(&format!("{A}:1")).contains(&maria("")));
}

/// With a gap after every transaction. Done pairwise, this would take minutes.
#[test]
fn sets_with_many_gaps() {
    let with_gaps = |from: u64| {
        let numbers: Vec<String> = (0..200_000).map(|at| (from + at * 2).to_string()).collect();
        mysql(&format!("{A}:{}", numbers.join(":")))
    };
    let (odd, even) = (with_gaps(1), with_gaps(2));
    assert!(!odd.contains(&even) && odd.contains(&odd));
    assert_eq!(odd.subtract(&even), odd);
    assert_eq!(odd.union(&even).to_string(), format!("{A}:1-400000"));
    let shown = odd.shown().to_string();
    assert!(shown.starts_with(&format!("{A}:1:3:5")) && shown.len() < 400, "{shown}");
    assert!(shown.ends_with("... (200000 transactions)"), "{shown}");
    let few = mysql(&format!("{A}:1-5"));
    assert_eq!(few.shown().to_string(), few.to_string());
}

fn any_set() -> impl Strategy<Value = GtidSet> {
    let interval = (1u64..40, 0u64..6);
    proptest::collection::vec((0usize..3, interval), 0..8).prop_map(|parts| {
        let sources = [A, B, "cccccccc-0000-0000-0000-000000000003"];
        let texts: Vec<String> = parts
            .iter()
            .map(|(s, (from, len))| format!("{}:{from}-{}", sources[*s], from + len))
            .collect();
        mysql(&texts.join(","))
    })
}

proptest! {
    #[test]
    fn text_round_trips(a in any_set()) {
        prop_assert_eq!(mysql(&a.to_string()), a);
    }

    #[test]
    fn union_contains_both_and_nothing_else(a in any_set(), b in any_set()) {
        let both = a.union(&b);
        prop_assert!(both.contains(&a) && both.contains(&b));
        prop_assert_eq!(both.subtract(&a).subtract(&b), GtidSet::empty_mysql());
        prop_assert_eq!(both, b.union(&a));
    }

    #[test]
    fn subtract_leaves_exactly_what_is_missing(a in any_set(), b in any_set()) {
        let rest = a.subtract(&b);
        prop_assert!(a.contains(&rest));
        prop_assert_eq!(rest.union(&b), a.union(&b));
        prop_assert_eq!(rest.is_empty(), b.contains(&a));
    }

    /// Against the plain way: one transaction after the other.
    #[test]
    fn sets_are_what_their_transactions_are(a in any_set(), b in any_set()) {
        let each = |set: &GtidSet| -> BTreeSet<String> { set.each(u64::MAX).into_iter().collect() };
        let (ones, others) = (each(&a), each(&b));
        prop_assert_eq!(each(&a.union(&b)), &ones | &others);
        prop_assert_eq!(each(&a.subtract(&b)), &ones - &others);
        prop_assert_eq!(a.contains(&b), ones.is_superset(&others));
    }

    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "\\PC{0,60}") {
        let _ = GtidSet::parse_mysql(&text);
        let _ = GtidSet::parse_mariadb(&text);
    }
}
