//! Schedules of shards of MariaDBs: positions instead of sets.

use super::hostile::{plain, storm, strikes};
use super::{Schedule, ShardPlan, pick};
use crate::faults::{Hostile, Kind};

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

impl Schedule {
    /// The schedule of a seed, all of whose servers are MariaDBs.
    pub fn mariadb(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x3a21_adb0_5ea1_105e);
        let count = pick(&mut dice, &[1, 1, 1, 2]);
        let plan = |dice: &mut fastrand::Rng| ShardPlan { mariadb: true, ..plain(dice) };
        let shards: Vec<ShardPlan> = (0..count).map(|_| plan(&mut dice)).collect();
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
