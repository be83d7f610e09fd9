//! The simulator can see: each deliberate bug is found within a stated number of schedules of the world in which it
//! shows.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::sabotage::Bug;
use vtorc_sim::hazards::{HAZARDS, Hazard, ODD};
use vtorc_sim::run::{Trace, run_with};
use vtorc_sim::schedule::Schedule;

/// Every bug shows in one of the first so many schedules, in one of the hazards after them, or in one of the odd ones.
const SEEDS_MAX: u64 = 300;
/// Those that need the hostile world show in one of the first so many schedules of that.
const HOSTILE_SEEDS_MAX: u64 = 400;

/// Bugs that only show where the world does what the first schedules do not know.
const HOSTILE: &[Bug] = &[
    Bug::WaitForUnseen,
    Bug::TrustFiltered,
    Bug::NeedHistory,
    Bug::NeedAllCells,
    Bug::NeedAllRecords,
    Bug::ForgetUnreadRecords,
    Bug::BelieveOldAnswers,
    Bug::TrustAddresses,
    Bug::ActWithoutLock,
];

fn first_seed(bug: Bug) -> Option<(u64, String)> {
    let found = |schedule: Schedule| {
        let verdict = run_with(bug, &schedule, Trace::Drop);
        Some((schedule.seed, verdict.violations.into_iter().next()?))
    };
    let odd = || ODD.iter().flat_map(Hazard::schedules).find_map(found);
    match HOSTILE.contains(&bug) {
        true => (0..HOSTILE_SEEDS_MAX).map(Schedule::hostile).find_map(found),
        false => (0..SEEDS_MAX).map(Schedule::of).chain(hazards()).find_map(found).or_else(odd),
    }
}

/// Where chance alone would take too long.
fn hazards() -> impl Iterator<Item = Schedule> {
    HAZARDS.iter().flat_map(|hazard| hazard.schedules())
}

#[test]
fn every_deliberate_bug_is_found() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match first_seed(*bug) {
                        Some((seed, violation)) => eprintln!("{bug:?}: seed {seed}: {violation}"),
                        None => missed.lock().unwrap().push(*bug),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found within the stated numbers of schedules: {missed:?}");
}

/// Where nothing is promised, who is promoted must still be the most advanced of those who were asked.
#[test]
fn a_second_best_is_found_also_where_nothing_is_promised() {
    let asynchronous = (0..SEEDS_MAX).map(Schedule::of).map(|mut schedule| {
        schedule.shards.iter_mut().for_each(|plan| plan.policy = DurabilityPolicy::None);
        schedule
    });
    let found = asynchronous
        .flat_map(|schedule| run_with(Bug::PromoteSecondBest, &schedule, Trace::Drop).violations)
        .find(|violation| violation.contains("which it passed over, has"));
    assert!(found.is_some(), "not found within {SEEDS_MAX} schedules");
}
