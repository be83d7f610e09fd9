//! Whatever text comes from outside: it is read or refused, and what was read prints as something that reads
//! the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::str::FromStr;

use proptest::prelude::*;
use vtorc_core::controls::Control;
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::gtid::GtidSet;
use vtorc_core::hooks::command_line;
use vtorc_core::ids::{KeyspaceShard, TabletAlias, WatchList};
use vtorc_core::preflight::{Grant, missing_grants};
use vtorc_core::status::Flavor;

fn reads_as_it_prints<T: FromStr + ToString + PartialEq + Debug>(text: &str)
where
    T::Err: Debug,
{
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string().parse::<T>().unwrap(), read, "{text:?}");
    }
}

/// Letters that mean something somewhere.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[-a-f0-9:,_/ .*]{0,60}",
        "(zone1|cell|ks)-?[0-9]{0,12}(/[-0-9a-f]{0,9})?",
        "(recoveries-off|downtime|promotion|emergency-reparents-off) [a-z0-9/_-]{0,20}( [a-z_]{0,10})?",
        "GRANT [A-Z ,_]{0,40} ON [`*._a-z]{0,20} TO `[a-z%@`]{0,10}",
    ]
}

proptest! {
    #[test]
    fn names_and_controls(text in text()) {
        reads_as_it_prints::<TabletAlias>(&text);
        reads_as_it_prints::<KeyspaceShard>(&text);
        reads_as_it_prints::<DurabilityPolicy>(&text);
        reads_as_it_prints::<Control>(&text);
        let _ = WatchList::parse([text.as_str()]);
    }

    #[test]
    fn gtid_sets(text in "[-a-f0-9:, ]{0,120}", far in any::<u64>()) {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        for text in [text.clone(), format!("{uuid}:{far}"), format!("{uuid}:1-{far},{text}")] {
            if let Ok(set) = GtidSet::parse_mysql(&text) {
                prop_assert_eq!(GtidSet::parse_mysql(&set.to_string()).unwrap(), set.clone());
                prop_assert!(set.union(&set) == set && set.subtract(&set).is_empty());
                prop_assert!(set.each(3).len() <= 3);
            }
            if let Ok(set) = GtidSet::parse_mariadb(&text) {
                prop_assert_eq!(GtidSet::parse_mariadb(&set.to_string()).unwrap(), set);
            }
        }
    }

    #[test]
    fn grants(on in prop::collection::vec(text(), 0..4), version in text()) {
        let grants: Vec<Grant> = on.into_iter().map(|on| Grant { privileges: ["SELECT".to_owned()].into(), on }).collect();
        for flavor in [Flavor::MySql, Flavor::MariaDb] {
            let _ = missing_grants(&grants, flavor, &version);
        }
    }

    /// Without placeholders a command line is what it was.
    #[test]
    fn command_lines(text in any::<String>(), odd in "[a{}'\"\\\\ é]{0,40}") {
        for text in [text, odd] {
            prop_assert_eq!(command_line(&text, &[]), text.clone());
            let _ = command_line(&text, &[("a", "ORC_A")]);
        }
    }
}
