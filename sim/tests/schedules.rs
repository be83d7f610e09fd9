//! Fixed schedules and some new ones: nothing that must never happen happens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vtorc_sim::faults::{Hostile, Kind};
use vtorc_sim::ills::Habit;
use vtorc_sim::run::{Trace, run};
use vtorc_sim::schedule::Schedule;

/// These are always run.
const FIXED: u64 = 800;
/// Hostile ones that are looked at.
const HOSTILE: u64 = 400;
/// Those of MariaDBs.
const MARIADB: u64 = 300;
/// Of these, those that found something.
const MARIADB_FOUND: &[u64] = &[
    1_005,
    1_542,
    3_328,
    5_557,
    8_100_003_821,
    8_400_007_904,
    8_900_028_519,
    9_100_006_885,
    9_100_019_173,
    9_200_001_982,
    9_300_000_395,
    9_300_001_436,
    9_300_001_463,
    9_400_002_404,
    9_800_004_585,
    10_100_010_607,
];
/// Those of them that have what was added since.
const MARIADB_LEARNED: [std::ops::Range<u64>; 2] =
    [9_200_000_000..9_200_000_100, 9_300_000_000..9_300_000_100];
/// ... and so many hostile ones of those that have what was added since.
const LEARNED: [std::ops::Range<u64>; 2] =
    [7_000_000_000..7_000_000_200, 10_000_000_000..10_000_000_200];
/// New ones that found something.
const FOUND: &[u64] = &[
    7_002_601,
    7_002_960,
    7_103_493,
    7_103_851,
    7_106_008,
    8_200_647,
    8_204_118,
    8_205_260,
    8_205_673,
    9_300_238,
    11_501_739,
    11_501_963,
    11_504_225,
    12_500_979,
    14_002_787,
    21_003_102,
    41_013_353,
    1_900_002_056,
    1_900_003_249,
    1_900_005_415,
    1_900_008_667,
    1_900_008_725,
    1_900_011_573,
    1_900_017_596,
    1_900_022_309,
    1_900_026_121,
    1_900_034_159,
    1_900_036_649,
    2_500_005_389,
    2_500_029_024,
    3_500_000_004,
    3_500_001_335,
    3_500_003_889,
    4_200_006_826,
    4_400_005_006,
    4_400_014_905,
    4_600_001_356,
    4_600_003_641,
    6_201_101_204,
    1_795_811_119_417_238,
    7_100_101_504,
    7_700_150_456,
    8_100_000_814,
    1_795_885_743_641_243,
    9_000_037_766,
    9_100_018_752,
    9_800_018_125,
];
/// Hostile ones that found something.
const HOSTILE_FOUND: &[u64] = &[
    1_315,
    1_640,
    2_063,
    2_204,
    2_486,
    2_510,
    2_694,
    2_881,
    3_590,
    3_886,
    3_946,
    5_491,
    5_633,
    5_910,
    5_918,
    100_955,
    101_201,
    104_758,
    200_484,
    200_781,
    200_785,
    204_562,
    205_334,
    206_839,
    300_906,
    303_117,
    306_465,
    307_511,
    900_616,
    900_971,
    2_600_000_461,
    2_600_004_642,
    2_600_009_679,
    2_600_010_208,
    2_600_010_658,
    2_600_011_368,
    2_600_011_794,
    2_600_012_887,
    2_600_014_295,
    2_800_010_489,
    2_800_014_194,
    3_600_001_073,
    3_600_001_871,
    4_100_000_310,
    4_100_003_612,
    4_300_000_933,
    4_300_005_133,
    4_300_005_713,
    4_300_007_279,
    4_300_008_297,
    4_500_000_065,
    5_200_001_143,
    6_200_001_107,
    6_200_100_417,
    6_200_701_629,
    6_200_901_127,
    6_201_100_035,
    7_000_002_120,
    7_000_010_100,
    7_000_101_441,
    7_000_101_992,
    7_000_101_306,
    7_100_102_745,
    7_100_107_573,
    7_100_106_170,
    7_300_500_565,
    7_600_501_343,
    7_600_502_261,
    7_700_500_319,
    8_000_501_644,
    8_000_502_468,
    8_100_501_566,
    8_100_501_221,
    8_200_000_220,
    8_300_500_206,
    8_400_004_991,
    2_600_006_592,
    8_900_014_488,
    8_900_015_743,
    8_900_031_735,
    9_000_007_001,
    9_000_012_283,
    9_000_035_613,
    9_000_041_329,
    9_000_050_677,
    9_100_000_659,
    9_800_021_561,
];
/// New ones are run for so long.
const NEW_FOR: Duration = Duration::from_secs(20);

/// Runs seeds on two threads until `goes_on` says no; answers what went wrong.
fn run_all(from: u64, goes_on: impl Fn(u64) -> bool + Sync) -> Vec<String> {
    run_each((Schedule::of, ""), from, goes_on)
}

/// `flag` is what tells the program of the same schedule.
fn run_each(
    (schedule, flag): (fn(u64) -> Schedule, &str),
    from: u64,
    goes_on: impl Fn(u64) -> bool + Sync,
) -> Vec<String> {
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
                    let verdict = run(&schedule(seed), Trace::Drop);
                    if !verdict.violations.is_empty() {
                        let what = verdict.violations.join("; ");
                        let replay =
                            format!("cargo run --release -p vtorc-sim --{flag} --seed {seed}");
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

#[test]
fn what_was_found_once_stays_away() {
    for seed in FOUND {
        let verdict = run(&Schedule::of(*seed), Trace::Drop);
        assert!(verdict.violations.is_empty(), "seed {seed}: {:?}", verdict.violations);
    }
}

#[test]
fn what_was_found_once_stays_away_from_hostile_schedules() {
    for seed in HOSTILE_FOUND {
        let verdict = run(&Schedule::hostile(*seed), Trace::Drop);
        assert!(verdict.violations.is_empty(), "seed {seed}: {:?}", verdict.violations);
    }
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
fn the_same_hostile_seed_is_the_same_run() {
    for seed in [5, 271, 573] {
        let run = || run(&Schedule::hostile(seed), Trace::Keep).trace;
        let (one, other) = (run(), run());
        assert_eq!(one, other);
        assert!(!one.is_empty());
    }
}

/// All kinds of fault and habit are drawn, and most schedules have several shards and several vtorcs.
#[test]
fn hostile_schedules_are_hostile() {
    let seeds = (0..HOSTILE).chain(LEARNED.into_iter().flatten());
    let schedules: Vec<Schedule> = seeds.map(Schedule::hostile).collect();
    let drawn = |kind: Hostile| {
        let kind = Kind::Hostile(kind);
        schedules.iter().any(|schedule| schedule.everything().any(|fault| fault.kind == kind))
    };
    let all = Hostile::DRAWN.into_iter().chain([Hostile::LyingRecord, Hostile::DamagedShardRecord]);
    let missing: Vec<Hostile> = all.filter(|kind| !drawn(*kind)).collect();
    assert!(missing.is_empty(), "never drawn: {missing:?}");
    let several = |schedule: &&Schedule| schedule.shards.len() > 1 && schedule.managers > 1;
    assert!(schedules.iter().filter(several).count() * 2 > schedules.len());
    let habits: Vec<Habit> = schedules
        .iter()
        .flat_map(|schedule| &schedule.shards)
        .flat_map(|plan| plan.habits.iter().map(|(_, habit)| *habit))
        .collect();
    let all = [
        Habit::Delayed,
        Habit::Filtered,
        Habit::ForeignGtids,
        Habit::AcksByFile,
        Habit::NeverUp,
        Habit::KeepsNoLog,
    ];
    assert!(all.iter().all(|habit| habits.contains(habit)));
}

/// `vtorc-sim --hostile` runs more.
#[test]
fn hostile_schedules_violate_nothing() {
    let hostile = (Schedule::hostile as fn(u64) -> Schedule, " --hostile");
    let mut bad = run_each(hostile, 0, |seed| seed < HOSTILE);
    for learned in LEARNED {
        bad.extend(run_each(hostile, learned.start, |seed| learned.contains(&seed)));
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// `vtorc-sim --mariadb` runs more.
#[test]
fn schedules_of_mariadbs_violate_nothing() {
    let mariadb = (Schedule::mariadb as fn(u64) -> Schedule, " --mariadb");
    let mut bad = run_each(mariadb, 0, |seed| seed < MARIADB);
    for learned in MARIADB_LEARNED {
        bad.extend(run_each(mariadb, learned.start, |seed| learned.contains(&seed)));
    }
    for found in MARIADB_FOUND {
        bad.extend(run_each(mariadb, *found, |seed| seed == *found));
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// What the fixed schedules must find ...
const FINDINGS: &[&str] = &[
    "AllPrimaryReplicasNotReplicating",
    "AllPrimaryReplicasNotReplicatingOrDead",
    "ClusterHasNoPrimary",
    "ConnectedToWrongPrimary",
    "DeadPrimary",
    "DeadPrimaryAndSomeReplicas",
    "ErrantGTIDDetected",
    "IncapacitatedPrimary",
    "InvalidReplica",
    "LostTransactions",
    "NotConnectedToPrimary",
    "NotEnoughSemiSyncReplicas",
    "PrimaryDiskStalled",
    "PrimaryHasPrimary",
    "PrimaryIsReadOnly",
    "PrimaryLostTransactions",
    "PrimarySemiSyncMustBeSet",
    "PrimaryTabletDeleted",
    "ReplicaIsWritable",
    "ReplicaSemiSyncMustBeSet",
    "ReplicaSemiSyncMustNotBeSet",
    "ReplicationStopped",
    "SplitBrain",
    "UnfinishedPromotion",
    "UnreachablePrimary",
    "UnreachablePrimaryWithBrokenReplicas",
];
/// ... and do.
const STEPS: &[&str] = &[
    "demote those who may take writes",
    "elect",
    "fence",
    "fix the primary",
    "follow the most advanced",
    "catch up before writes stop",
    "follow the new primary",
    "follow the primary",
    "make sure of the lock",
    "promote",
    "record the old primary's type",
    "record the primary's type",
    "record the shard's primary",
    "replace it by force",
    "restart the receiver",
    "start the receivers again",
    "stop all receivers",
    "stop writes",
    "take it out of service",
    "wait for the last position",
    "wait until everything is applied",
    "write nothing, so that an acknowledgement comes",
    "write the reparent journal",
];

#[test]
fn schedules_reach_what_they_are_for() {
    let mut findings = std::collections::BTreeSet::new();
    let mut steps = std::collections::BTreeSet::new();
    for seed in 0..FIXED / 4 {
        let verdict = run(&Schedule::of(seed), Trace::Drop);
        findings.extend(verdict.findings.into_keys());
        steps.extend(verdict.steps.into_keys());
    }
    let missing = |wanted: &[&'static str], reached: &std::collections::BTreeSet<String>| {
        let missing = wanted.iter().filter(|name| !reached.contains(**name));
        missing.copied().collect::<Vec<_>>()
    };
    assert_eq!(missing(FINDINGS, &findings), [""; 0], "never found");
    assert_eq!(missing(STEPS, &steps), [""; 0], "never done");
}
