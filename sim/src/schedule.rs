//! What a seed stands for: shards, some vtorcs, and faults at their moments.
//!
//! Hostile schedules (`hostile`) are the second generation: more shards, more vtorcs, more kinds of fault. The first
//! one stays as it is, so that its seeds go on meaning what they meant.
//!
//! Each seed switches a few kinds of fault on and the others off: all kinds at once hide one another.

mod hostile;
mod mariadb;

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::tablet::TabletType;

use crate::Millis;
use crate::faults::{Fault, Kind};
use crate::ills::Habit;

/// The shard is left to bring itself up for so long.
const QUIET_MS: Millis = 4_000;
/// Faults begin until here.
const FAULTS_UNTIL_MS: Millis = 34_000;
/// The longest fault.
const LASTS_MAX_MS: Millis = 12_000;

/// One shard, planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    /// Its keyspace's policy.
    pub policy: DurabilityPolicy,
    /// Cells and types of its tablets.
    pub tablets: Vec<(&'static str, TabletType)>,
    /// What is odd about them from the beginning and for good, by their places.
    pub habits: Vec<(u8, Habit)>,
    /// Its servers are MariaDBs.
    pub mariadb: bool,
}

impl ShardPlan {
    /// One tablet, not all, has transactions of former servers: for vtorc they are errant.
    pub fn one_alone_has_former(&self) -> bool {
        let former = self.habits.iter().filter(|(_, habit)| *habit == Habit::ForeignGtids);
        ![0, self.tablets.len()].contains(&former.count())
    }
}

/// One run, planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Where all chance comes from.
    pub seed: u64,
    /// The shards.
    pub shards: Vec<ShardPlan>,
    /// How many vtorcs.
    pub managers: u8,
    /// How far their wall clocks differ.
    pub skews_ms: Vec<i64>,
    /// The block period.
    pub block_ms: Millis,
    /// Probes can see heartbeats.
    pub heartbeats_seen: bool,
    /// A vttablet is before every server.
    pub vttablets: bool,
    /// A primary whose disk is stalled is replaced.
    pub disk_stalled_recovery: bool,
    /// The topology lists a cell that nobody can reach, and that has no tablets.
    pub mistyped_cell: bool,
    /// Nothing more happens once something must not have happened.
    pub stops_at_violations: bool,
    /// Statements that let a server take writes name a deadline: after it they do nothing.
    pub deadlines_carried: bool,
    /// What goes wrong, in order of time.
    pub faults: Vec<Fault>,
    /// What goes wrong at the n-th step of all recoveries, whenever that is.
    pub strikes: Vec<(u64, Fault)>,
}

impl Schedule {
    /// Everything that goes wrong, at its time or at a step.
    pub fn everything(&self) -> impl Iterator<Item = &Fault> + Clone {
        self.faults.iter().chain(self.strikes.iter().map(|(_, fault)| fault))
    }

    /// The schedule of a seed.
    pub fn of(seed: u64) -> Self {
        // Not the dice of the run: a change there must not change the schedule.
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x5eed_05c4_ed01_e500);
        // Enough of them for a vtorc to tell that it is cut off itself.
        let count = if seed % 16 == 5 { dice.usize(3..=4) } else { 1 };
        let shards: Vec<ShardPlan> = (0..count)
            .map(|_| ShardPlan {
                policy: pick(&mut dice, &POLICIES),
                tablets: tablets(&mut dice),
                habits: Vec::new(),
                mariadb: false,
            })
            .collect();
        let managers = dice.u8(1..=2);
        let skews_ms = (0..managers).map(|_| dice.i64(-600_000..600_000)).collect();
        let mut faults = faults(&mut dice, &shards, managers);
        faults.sort_by_key(|fault| fault.at);
        Self {
            seed,
            managers,
            skews_ms,
            block_ms: pick(&mut dice, &[0, 5_000, 5_000, 20_000]),
            heartbeats_seen: dice.u8(0..8) > 0,
            vttablets: seed % 4 == 3,
            disk_stalled_recovery: dice.bool(),
            mistyped_cell: false,
            stops_at_violations: false,
            deadlines_carried: true,
            strikes: strikes(&mut dice, &shards, managers),
            shards,
            faults,
        }
    }
}

/// Semi-sync is what most shards run with.
pub const POLICIES: [DurabilityPolicy; 7] = [
    DurabilityPolicy::SemiSync,
    DurabilityPolicy::SemiSync,
    DurabilityPolicy::SemiSync,
    DurabilityPolicy::CrossCell,
    DurabilityPolicy::SemiSyncWithRdonlyAck,
    DurabilityPolicy::CrossCellWithRdonlyAck,
    DurabilityPolicy::None,
];

fn pick<T: Copy>(dice: &mut fastrand::Rng, all: &[T]) -> T {
    #[expect(clippy::indexing_slicing, reason = "the number is below the length")]
    all[dice.usize(0..all.len())]
}

fn tablets(dice: &mut fastrand::Rng) -> Vec<(&'static str, TabletType)> {
    let near = dice.usize(2..=3);
    let far = dice.usize(1..=2);
    let mut tablets = vec![("zone1", TabletType::Replica); near];
    tablets.extend(vec![("zone2", TabletType::Replica); far]);
    if dice.bool() {
        tablets.push((pick(dice, &["zone1", "zone2"]), TabletType::Rdonly));
    }
    tablets
}

/// A shard and two of its servers.
fn place(dice: &mut fastrand::Rng, shards: &[ShardPlan]) -> (usize, u8, u8) {
    let shard = dice.usize(0..shards.len());
    let sizes = shards.iter().map(|plan| u8::try_from(plan.tablets.len()).unwrap_or(u8::MAX));
    let first: u8 = sizes.clone().take(shard).sum();
    let size = sizes.skip(shard).take(1).sum::<u8>();
    (shard, first + dice.u8(0..size), first + dice.u8(0..size))
}

/// Kinds that hit a recovery where it hurts.
const STRIKES: [Kind; 8] = [
    Kind::SessionExpired,
    Kind::SessionExpired,
    Kind::Crash,
    Kind::Freeze,
    Kind::Isolate,
    Kind::ManagerCut,
    Kind::TopologyCut,
    Kind::Conflicts,
];

fn strikes(dice: &mut fastrand::Rng, shards: &[ShardPlan], managers: u8) -> Vec<(u64, Fault)> {
    let count = if dice.bool() { dice.usize(1..=3) } else { 0 };
    let strike = |dice: &mut fastrand::Rng| {
        let lasts = pick(dice, &[200, 1_000, 4_000, 8_000]);
        let (shard, server, other) = place(dice, shards);
        let fault = Fault {
            kind: pick(dice, &STRIKES),
            at: 0,
            lasts,
            shard,
            server: dice.bool().then_some(server),
            manager: dice.u8(0..managers),
            other,
        };
        (dice.u64(20..160), fault)
    };
    (0..count).map(|_| strike(dice)).collect()
}

fn faults(dice: &mut fastrand::Rng, shards: &[ShardPlan], managers: u8) -> Vec<Fault> {
    let kinds: Vec<Kind> = (0..dice.usize(1..=4)).map(|_| pick(dice, &Kind::ALL)).collect();
    let between = pick(dice, &[1_500, 3_000, 6_000, 12_000]);
    let mut faults = Vec::new();
    let mut at = QUIET_MS;
    loop {
        at += dice.u64(1..between * 2);
        if at >= FAULTS_UNTIL_MS {
            return faults;
        }
        let kind = pick(dice, &kinds);
        let lasts = pick(dice, &[200, 1_000, 3_000, 6_000, LASTS_MAX_MS]);
        // Half of all faults hit whoever is primary then.
        let (shard, server, other) = place(dice, shards);
        let server = dice.bool().then_some(server);
        let manager = dice.u8(0..managers);
        if kind == Kind::Flapping {
            for times in 0..10 {
                let at = at + times * 900;
                faults.push(Fault { kind, at, lasts: 450, shard, server, manager, other });
            }
        } else {
            faults.push(Fault { kind, at, lasts, shard, server, manager, other });
        }
    }
}
