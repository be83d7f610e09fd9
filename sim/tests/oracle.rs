//! The oracle sees who is slower than a human, and only those.

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::sabotage::Bug;
use vtorc_core::tablet::TabletType;
use vtorc_sim::faults::{Fault, Hostile, Kind};
use vtorc_sim::ills::Habit;
use vtorc_sim::run::{Trace, Verdict, run, run_with};
use vtorc_sim::schedule::{Schedule, ShardPlan};

const SAID: &str = "a human with m0's view could have ";

/// One shard under `semi_sync` whose primary dies, and what happens beside that.
fn schedule(habits: Vec<(u8, Habit)>, beside: Option<(Hostile, u8)>) -> Schedule {
    let fault = |kind, at, server| Fault {
        kind,
        at,
        lasts: 40_000,
        shard: 0,
        server: Some(server),
        manager: 0,
        other: 2,
    };
    let beside = beside.map(|(kind, server)| fault(Kind::Hostile(kind), 4_000, server));
    let mut tablets = vec![("zone1", TabletType::Replica); 3];
    tablets.push(("zone2", TabletType::Drained));
    Schedule {
        seed: 1,
        shards: vec![ShardPlan {
            policy: DurabilityPolicy::SemiSync,
            tablets,
            habits,
            mariadb: false,
        }],
        managers: 1,
        skews_ms: vec![0],
        block_ms: 0,
        heartbeats_seen: true,
        vttablets: false,
        disk_stalled_recovery: true,
        mistyped_cell: false,
        stops_at_violations: true,
        deadlines_carried: true,
        faults: beside.into_iter().chain([fault(Kind::Crash, 6_000, 0)]).collect(),
        strikes: Vec::new(),
    }
}

fn says(verdict: &Verdict) -> bool {
    verdict.violations.iter().any(|violation| violation.contains(SAID))
}

#[test]
fn who_waits_for_a_tablet_that_never_was_is_slower_than_a_human() {
    let unseen = schedule(vec![(3, Habit::NeverUp)], None);
    let verdict = run(&unseen, Trace::Drop);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    let slow = run_with(Bug::WaitForUnseen, &unseen, Trace::Drop);
    assert!(says(&slow), "{:?}", slow.violations);
}

/// Who refuses the logins of a vtorc may be acknowledging what the old primary writes: no human could go on either.
#[test]
fn where_a_human_could_do_nothing_nothing_is_asked_for() {
    let turned_away = schedule(Vec::new(), Some((Hostile::TurnsAway, 1)));
    let verdict = run(&turned_away, Trace::Drop);
    assert!(!says(&verdict), "{:?}", verdict.violations);
}
