//! Schedules of shards of MariaDBs: positions instead of sets.

use super::hostile::{is_replica, plain, storm, strikes};
use super::{Schedule, ShardPlan, pick};
use crate::faults::{Hostile, Kind};
use crate::ills::Habit;

/// What goes wrong there.
const KINDS: [Kind; 38] = [
    Kind::Crash,
    Kind::Crash,
    Kind::ZoneLost,
    Kind::Freeze,
    Kind::DiskStall,
    Kind::Saturated,
    Kind::Isolate,
    Kind::ManagerCut,
    Kind::ManagerAlone,
    Kind::OneWayCut,
    Kind::Flapping,
    Kind::SlowLinks,
    Kind::SlowTopology,
    Kind::SlowApplier,
    Kind::StoppedReplica,
    Kind::ReadOnlyPrimary,
    Kind::WrongSemiSync,
    Kind::Backup,
    Kind::Clone,
    Kind::DeletedRecord,
    Kind::TopologyDown,
    Kind::TopologyCut,
    Kind::SessionExpired,
    Kind::PartialRead,
    Kind::LateWatches,
    Kind::Conflicts,
    Kind::ManagerKilled,
    Kind::PlannedReparent,
    Kind::PolicyChanged,
    Kind::Hostile(Hostile::TurnsAway),
    Kind::Hostile(Hostile::CellTopologyDown),
    Kind::Hostile(Hostile::DamagedRecord),
    Kind::Hostile(Hostile::Locked),
    Kind::Hostile(Hostile::ManagerPaused),
    Kind::Hostile(Hostile::HistoryFails),
    Kind::Hostile(Hostile::OpenTransaction),
    Kind::Hostile(Hostile::LateCommands),
    Kind::Hostile(Hostile::GetsNothing),
];

/// ... and from a later seed on as well.
const LEARNED: [Kind; 7] = [
    Kind::Hostile(Hostile::Delayed),
    Kind::Hostile(Hostile::Filtered),
    Kind::Hostile(Hostile::StrayAcker),
    Kind::Hostile(Hostile::Stranger),
    Kind::WrongSource,
    Kind::ErrantWrite,
    Kind::TailLost,
];
/// Schedules from here on have those; the ones before stay what they were when something was found by them.
const LEARNED_SINCE: u64 = 9_200_000_000;

/// Schedules from here on also have replicas that are odd from the beginning.
const ODD_SINCE: u64 = 9_300_000_000;
/// How one may be odd.
const HABITS: [Habit; 3] = [Habit::Delayed, Habit::Filtered, Habit::KeepsNoLog];

/// One replica in every second shard is odd.
fn make_odd(dice: &mut fastrand::Rng, plan: &mut ShardPlan) {
    let at = dice.usize(0..plan.tablets.len());
    let is_odd = dice.bool() && is_replica(plan, at);
    let number = u8::try_from(at).ok().filter(|_| is_odd);
    plan.habits.extend(number.map(|number| (number, pick(dice, &HABITS))));
}

impl Schedule {
    /// The schedule of a seed, all of whose servers are MariaDBs.
    pub fn mariadb(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x3a21_adb0_5ea1_105e);
        let count = pick(&mut dice, &[1, 1, 1, 2]);
        let plan = |dice: &mut fastrand::Rng| ShardPlan { mariadb: true, ..plain(dice) };
        let mut shards: Vec<ShardPlan> = (0..count).map(|_| plan(&mut dice)).collect();
        if seed >= ODD_SINCE {
            let mut more = fastrand::Rng::with_seed(seed ^ 0x0dd0_57a7);
            shards.iter_mut().for_each(|plan| make_odd(&mut more, plan));
        }
        let managers = dice.u8(1..=2);
        let skews_ms = (0..managers).map(|_| dice.i64(-600_000..600_000)).collect();
        let has_learned = seed >= LEARNED_SINCE;
        let kinds = |dice: &mut fastrand::Rng| {
            let mut kinds = kinds(dice);
            kinds.extend(has_learned.then(|| pick(dice, &LEARNED)));
            kinds
        };
        let mut faults = storm(&mut dice, kinds, &shards, managers);
        faults.sort_by_key(|fault| fault.at);
        Self {
            seed,
            managers,
            skews_ms,
            block_ms: pick(&mut dice, &[0, 5_000, 5_000, 20_000]),
            heartbeats_seen: true,
            vttablets: false,
            disk_stalled_recovery: dice.bool(),
            mistyped_cell: false,
            stops_at_violations: true,
            deadlines_carried: true,
            strikes: strikes(&mut dice, &shards, managers),
            shards,
            faults,
        }
    }
}

/// A few kinds; every second time one that lets a primary die is among them.
fn kinds(dice: &mut fastrand::Rng) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = (0..dice.usize(1..=4)).map(|_| pick(dice, &KINDS)).collect();
    if dice.bool() {
        kinds.push(pick(dice, &[Kind::Crash, Kind::Crash, Kind::Isolate, Kind::Freeze]));
    }
    kinds
}
