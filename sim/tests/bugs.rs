//! The simulator can see: each deliberate bug is found within a stated number of schedules.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vtorc_core::sabotage::Bug;
use vtorc_sim::hazards::HAZARDS;
use vtorc_sim::run::run_with;
use vtorc_sim::schedule::Schedule;

/// Every bug shows in one of the first so many schedules, or in one of the hazards after them.
const SEEDS_MAX: u64 = 300;

fn first_seed(bug: Bug) -> Option<(u64, String)> {
    (0..SEEDS_MAX).map(Schedule::of).chain(hazards()).find_map(|schedule| {
        let verdict = run_with(bug, &schedule);
        Some((schedule.seed, verdict.violations.into_iter().next()?))
    })
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
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} schedules: {missed:?}");
}
