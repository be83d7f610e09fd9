//! Fixed schedules and some new ones: nothing that must never happen happens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vtorc_sim::run::{Trace, run};
use vtorc_sim::schedule::Schedule;

/// These are always run.
const FIXED: u64 = 800;
/// New ones are run for so long.
const NEW_FOR: Duration = Duration::from_secs(5);

/// Runs seeds on two threads until `goes_on` says no; answers what went wrong.
fn run_all(from: u64, goes_on: impl Fn(u64) -> bool + Sync) -> Vec<String> {
    let next = AtomicU64::new(from);
    let bad = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !goes_on(seed) {
                        return;
                    }
                    let verdict = run(&Schedule::of(seed), Trace::Drop);
                    if !verdict.violations.is_empty() {
                        let what = verdict.violations.join("; ");
                        let replay = format!("cargo run -p vtorc-sim -- --seed {seed} --trace");
                        bad.lock().unwrap().push(format!("seed {seed}: {what}\n  {replay}"));
                    }
                }
            });
        }
    });
    bad.into_inner().unwrap()
}

#[test]
fn fixed_schedules_violate_nothing() {
    let bad = run_all(0, |seed| seed < FIXED);
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// What it finds is a bug, and its seed becomes a fixed one.
#[test]
fn new_schedules_violate_nothing() {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let from = since_epoch.as_secs().wrapping_mul(1_000_003);
    let started = Instant::now();
    let bad = run_all(from, |_| started.elapsed() < NEW_FOR);
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3] {
        let (one, other) =
            (run(&Schedule::of(seed), Trace::Keep), run(&Schedule::of(seed), Trace::Keep));
        assert_eq!(one.trace, other.trace);
        assert!(!one.trace.is_empty());
    }
}

#[test]
fn schedules_reach_what_they_are_for() {
    let mut findings = std::collections::BTreeSet::new();
    let mut steps = std::collections::BTreeSet::new();
    for seed in 0..120 {
        let verdict = run(&Schedule::of(seed), Trace::Drop);
        findings.extend(verdict.findings.into_keys());
        steps.extend(verdict.steps.into_keys());
    }
    for finding in
        ["DeadPrimary", "DeadPrimaryAndSomeReplicas", "UnreachablePrimary", "PrimaryTabletDeleted"]
    {
        assert!(findings.contains(finding), "{finding} was never found: {findings:?}");
    }
    for step in ["promote", "stop writes", "follow the new primary", "fence", "fix the primary"] {
        assert!(steps.contains(step), "{step} never ran: {steps:?}");
    }
}
