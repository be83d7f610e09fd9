//! Schedules of the second generation: several shards, several vtorcs, and all that the real world does.

use vtorc_core::tablet::TabletType;

use super::{POLICIES, QUIET_MS, STRIKES, Schedule, ShardPlan, pick, place};
use crate::Millis;
use crate::faults::{Fault, Hostile, Kind};
use crate::ills::Habit;
use crate::policies;

/// Faults begin until here ...
const FAULTS_UNTIL_MS: Millis = 24_000;
/// ... and are over here.
const OVER_MS: Millis = 48_000;
/// How long a fault lasts.
const LASTS_MS: [Millis; 5] = [500, 3_000, 12_000, 25_000, OVER_MS];
/// The longest pause of a vtorc.
const PAUSE_MAX_MS: Millis = 60_000;
/// How often one flaps.
const FLAPS: u64 = 10;

impl Schedule {
    /// The hostile schedule of a seed.
    pub fn hostile(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x0af5_a1e5_c0de_ba5e);
        let count = pick(&mut dice, &[1, 2, 2, 2, 2, 3]);
        let vttablets = dice.u8(0..4) == 0;
        let shards: Vec<ShardPlan> = (0..count).map(|_| shard(&mut dice, vttablets)).collect();
        let managers = pick(&mut dice, &[1, 2, 2, 2]);
        let skews_ms = (0..managers).map(|_| dice.i64(-600_000..600_000)).collect();
        // Half of the runs are storms; in the others one primary dies while this and that is odd, and nothing else
        // happens.
        let mut faults = match dice.bool() {
            true => storm(&mut dice, kinds, &shards, managers),
            false => plot(&mut dice, &shards, managers),
        };
        let mut shards = shards;
        if seed >= LEARNED_SINCE {
            let mut more = fastrand::Rng::with_seed(seed ^ 0x1ea2_4ed5);
            shards.iter_mut().for_each(|plan| learned(&mut more, plan));
            faults.extend(rare(Hostile::LyingRecord, &mut more, &shards, managers));
        }
        if seed >= DAMAGES_SHARDS_SINCE {
            let mut more = fastrand::Rng::with_seed(seed ^ 0xda3a_6ed5);
            faults.extend(rare(Hostile::DamagedShardRecord, &mut more, &shards, managers));
        }
        if seed >= TWINS_SINCE {
            let mut more = fastrand::Rng::with_seed(seed ^ 0x7219_6ed5);
            faults.extend(rare(Hostile::Twin, &mut more, &shards, managers));
        }
        faults.sort_by_key(|fault| fault.at);
        Self {
            seed,
            managers,
            skews_ms,
            block_ms: pick(&mut dice, &[0, 5_000, 5_000, 20_000]),
            heartbeats_seen: dice.u8(0..8) > 0,
            vttablets,
            disk_stalled_recovery: dice.bool(),
            mistyped_cell: dice.u8(0..8) == 0,
            stops_at_violations: true,
            deadlines_carried: true,
            strikes: strikes(&mut dice, &shards, managers),
            shards,
            faults,
        }
    }
}

/// Schedules from here on also have what was added later; those before stay what they were when something was found by
/// them.
const LEARNED_SINCE: u64 = 7_000_000_000;
/// And from here on shards' own records are damaged.
const DAMAGES_SHARDS_SINCE: u64 = 10_000_000_000;
/// And from here on two records of a shard may lead to one server.
const TWINS_SINCE: u64 = 11_000_000_000;

/// One replica in a few shards does not log what it receives.
fn learned(dice: &mut fastrand::Rng, plan: &mut ShardPlan) {
    let at = dice.usize(0..plan.tablets.len());
    let free = u8::try_from(at).ok().filter(|at| plan.habits.iter().all(|(other, _)| other != at));
    if dice.u8(0..5) == 0 && is_replica(plan, at) {
        plan.habits.extend(free.map(|at| (at, Habit::KeepsNoLog)));
    }
}

/// A fault of this kind, in one of a few runs.
fn rare(
    kind: Hostile,
    dice: &mut fastrand::Rng,
    shards: &[ShardPlan],
    managers: u8,
) -> Option<Fault> {
    let (shard, server, other) = place(dice, shards);
    let at = QUIET_MS + dice.u64(0..FAULTS_UNTIL_MS - QUIET_MS);
    let lasts = pick(dice, &LASTS_MS).min(OVER_MS - at);
    let (kind, manager) = (Kind::Hostile(kind), dice.u8(0..managers));
    let fault = Fault { kind, at, lasts, shard, server: Some(server), manager, other };
    (dice.u8(0..5) == 0).then_some(fault)
}

/// Types that no vtorc looks after, or that nobody is promoted to.
const ODD_TYPES: [TabletType; 6] = [
    TabletType::Drained,
    TabletType::Drained,
    TabletType::Backup,
    TabletType::Restore,
    TabletType::Spare,
    TabletType::Experimental,
];

fn shard(dice: &mut fastrand::Rng, vttablets: bool) -> ShardPlan {
    let mut plan = plain(dice);
    let replicas = plan.tablets.len();
    if dice.bool() {
        let cell = pick(dice, &["zone1", "zone2", "zone3"]);
        plan.tablets.push((cell, pick(dice, &ODD_TYPES)));
    }
    for at in 0..plan.tablets.len() {
        let habit = habit_of(dice, at < replicas && is_replica(&plan, at));
        // A vttablet follows nobody who lacks what it has.
        let fits = !(vttablets && habit == Some(Habit::ForeignGtids));
        let number = u8::try_from(at).unwrap_or(u8::MAX);
        // Whom the policy counts must have been seen once, or nobody could be chosen at first.
        let counted = is_counted(&plan, at) && habit == Some(Habit::NeverUp);
        plan.habits.extend(habit.filter(|_| fits && !counted).map(|habit| (number, habit)));
    }
    if dice.u8(0..6) == 0 {
        plan.habits.retain(|(_, habit)| *habit != Habit::ForeignGtids);
        let all = 0..u8::try_from(plan.tablets.len()).unwrap_or(u8::MAX);
        plan.habits.extend(all.map(|at| (at, Habit::ForeignGtids)));
    }
    plan
}

/// A shard without anything odd.
pub(super) fn plain(dice: &mut fastrand::Rng) -> ShardPlan {
    let (policy, tablets) = (pick(dice, &POLICIES), few_tablets(dice));
    ShardPlan { policy, tablets, habits: Vec::new(), mariadb: false }
}

/// Somewhat fewer than in the first generation, since there are more shards.
fn few_tablets(dice: &mut fastrand::Rng) -> Vec<(&'static str, TabletType)> {
    let mut tablets = vec![("zone1", TabletType::Replica); pick(dice, &[2, 2, 3])];
    tablets.extend(vec![("zone2", TabletType::Replica); pick(dice, &[1, 1, 2])]);
    if dice.u8(0..5) < 2 {
        tablets.push((pick(dice, &["zone1", "zone2"]), TabletType::Rdonly));
    }
    tablets
}

pub(super) fn is_replica(plan: &ShardPlan, at: usize) -> bool {
    plan.tablets.get(at).is_some_and(|(_, tablet_type)| *tablet_type == TabletType::Replica)
}

fn is_counted(plan: &ShardPlan, at: usize) -> bool {
    let rdonly = plan.tablets.get(at).is_some_and(|(_, kind)| *kind == TabletType::Rdonly);
    rdonly && policies::counts_rdonly(plan.policy)
}

/// One in twelve replicas is odd, and half of those who are none.
fn habit_of(dice: &mut fastrand::Rng, is_replica: bool) -> Option<Habit> {
    let odd = if is_replica { dice.u8(0..12) == 0 } else { dice.bool() };
    let habits: &[Habit] = match is_replica {
        true => &[Habit::Delayed, Habit::Filtered, Habit::ForeignGtids],
        false => &[Habit::AcksByFile, Habit::AcksByFile, Habit::NeverUp, Habit::Delayed],
    };
    odd.then(|| pick(dice, habits))
}

pub(super) fn strikes(
    dice: &mut fastrand::Rng,
    shards: &[ShardPlan],
    managers: u8,
) -> Vec<(u64, Fault)> {
    let count = if dice.bool() { dice.usize(1..=3) } else { 0 };
    let strike = |dice: &mut fastrand::Rng| {
        let paused = dice.u8(0..3) == 0;
        let (shard, server, other) = place(dice, shards);
        let fault = Fault {
            kind: match paused {
                true => Kind::Hostile(Hostile::ManagerPaused),
                false => pick(dice, &STRIKES),
            },
            at: 0,
            lasts: match paused {
                true => dice.u64(1_000..PAUSE_MAX_MS),
                false => pick(dice, &[200, 1_000, 4_000, 8_000]),
            },
            shard,
            server: dice.bool().then_some(server),
            manager: dice.u8(0..managers),
            other,
        };
        (dice.u64(20..240), fault)
    };
    (0..count).map(|_| strike(dice)).collect()
}

/// A few kinds of each generation; every second time one that lets a primary die is among them.
fn kinds(dice: &mut fastrand::Rng) -> Vec<Kind> {
    let mut kinds: Vec<Kind> =
        (0..dice.usize(1..=3)).map(|_| Kind::Hostile(pick(dice, &Hostile::DRAWN))).collect();
    kinds.extend((0..dice.usize(0..=2)).map(|_| pick(dice, &Kind::ALL)));
    if dice.bool() {
        kinds.push(pick(dice, &[Kind::Crash, Kind::Crash, Kind::Isolate, Kind::Freeze]));
    }
    kinds
}

/// What may be odd in a shard while its primary dies.
const ODDITIES: [Hostile; 12] = [
    Hostile::TurnsAway,
    Hostile::TurnsAway,
    Hostile::Delayed,
    Hostile::Delayed,
    Hostile::Locked,
    Hostile::Filtered,
    Hostile::DamagedRecord,
    Hostile::CellTopologyDown,
    Hostile::StrayAcker,
    Hostile::HistoryFails,
    Hostile::Stranger,
    Hostile::OpenTransaction,
];

/// How a primary dies, and how long for.
const DEATHS: [Kind; 6] = [
    Kind::Crash,
    Kind::Crash,
    Kind::Crash,
    Kind::Isolate,
    Kind::Freeze,
    Kind::Hostile(Hostile::Stranger),
];

fn plot(dice: &mut fastrand::Rng, shards: &[ShardPlan], managers: u8) -> Vec<Fault> {
    let (shard, _, _) = place(dice, shards);
    let here = |dice: &mut fastrand::Rng| loop {
        let (of, server, other) = place(dice, shards);
        if of == shard {
            return (server, other);
        }
    };
    let mut faults = Vec::new();
    let mut at = QUIET_MS + dice.u64(0..3_000);
    for _ in 0..dice.usize(1..=3) {
        let (server, other) = here(dice);
        let kind = Kind::Hostile(pick(dice, &ODDITIES));
        let lasts = pick(dice, &[12_000, OVER_MS, OVER_MS]).min(OVER_MS - at);
        let manager = dice.u8(0..managers);
        faults.push(Fault { kind, at, lasts, shard, server: Some(server), manager, other });
        at += dice.u64(1..3_000);
    }
    let (_, other) = here(dice);
    let manager = dice.u8(0..managers);
    let (kind, lasts) = (pick(dice, &DEATHS), pick(dice, &[4_000, OVER_MS, OVER_MS]));
    let lasts = lasts.min(OVER_MS - at);
    faults.push(Fault { kind, at, lasts, shard, server: None, manager, other });
    faults
}

/// Faults of a few kinds, which are drawn first.
pub(super) fn storm(
    dice: &mut fastrand::Rng,
    kinds: impl Fn(&mut fastrand::Rng) -> Vec<Kind>,
    shards: &[ShardPlan],
    managers: u8,
) -> Vec<Fault> {
    let kinds = kinds(dice);
    let between = pick(dice, &[2_000, 4_000, 8_000]);
    let mut faults = Vec::new();
    let mut at = QUIET_MS;
    // A history may fail before vtorc is there.
    if kinds.contains(&Kind::Hostile(Hostile::HistoryFails)) && dice.bool() {
        at = 0;
    }
    loop {
        if at >= FAULTS_UNTIL_MS {
            return faults;
        }
        let kind = match at {
            0 => Kind::Hostile(Hostile::HistoryFails),
            _later => pick(dice, &kinds),
        };
        let lasts = match kind == Kind::Hostile(Hostile::ManagerPaused) {
            true => dice.u64(1_000..PAUSE_MAX_MS),
            false => pick(dice, &LASTS_MS),
        };
        let lasts = lasts.min(OVER_MS - at);
        // Half of all faults hit whoever is primary then.
        let (shard, server, other) = place(dice, shards);
        let server = dice.bool().then_some(server);
        let manager = dice.u8(0..managers);
        if kind == Kind::Flapping {
            for times in 0..FLAPS {
                let at = at + times * 900;
                faults.push(Fault { kind, at, lasts: 450, shard, server, manager, other });
            }
        } else {
            faults.push(Fault { kind, at, lasts, shard, server, manager, other });
        }
        at += dice.u64(1..between * 2).max(u64::from(at == 0) * QUIET_MS);
    }
}
