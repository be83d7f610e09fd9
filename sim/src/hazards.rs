//! Hazards that were met in the field, each as a family of schedules: the same faults, with one that strikes
//! at another step of the recovery each time.

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::tablet::TabletType;

use crate::Millis;
use crate::faults::{Fault, Kind};
use crate::ills::Habit;
use crate::schedule::{Schedule, ShardPlan};

mod odd;

pub use odd::ODD;

/// A hazard by its name.
#[derive(Debug)]
pub struct Hazard {
    /// What it is.
    pub name: &'static str,
    /// How many vtorcs.
    pub managers: u8,
    /// How many shards; several are spread over three cells and acknowledge across them.
    pub shards: usize,
    /// What goes wrong at its time: kind, begin, how long, which server (none: the primary).
    pub faults: &'static [(Kind, Millis, Millis, Option<u8>)],
    /// What strikes at some step of the recoveries: kind, how long, which server.
    pub strike: Option<(Kind, Millis, Option<u8>)>,
    /// The tablets' types.
    pub types: [TabletType; 4],
    /// Which of its variants each fault is; an even number is whom a planned reparent names.
    pub other: u8,
    /// What is odd about them from the beginning.
    pub habits: &'static [(u8, Habit)],
    /// Heartbeats can be seen.
    pub heartbeats_seen: bool,
    /// The servers are MariaDBs.
    pub mariadb: bool,
}

/// One vtorc and one shard of four replicas of which one must acknowledge; nothing happens.
const PLAIN: Hazard = Hazard {
    name: "",
    managers: 1,
    shards: 1,
    faults: &[],
    strike: None,
    types: [TabletType::Replica; 4],
    other: 2,
    habits: &[],
    heartbeats_seen: true,
    mariadb: false,
};

/// Steps of recoveries at which something may strike; bring-up takes the first ones.
pub const STEPS: std::ops::Range<u64> = 1..70;

/// All of them.
pub const HAZARDS: &[Hazard] = &[
    Hazard {
        name: "a repair does not block a failover",
        faults: &[(Kind::StoppedReplica, 5_000, 1_000, Some(1)), (Kind::Crash, 5_050, 6_000, None)],
        ..PLAIN
    },
    Hazard {
        name: "two managers and one dead primary",
        managers: 2,
        faults: &[(Kind::Crash, 5_000, 6_000, None)],
        strike: Some((Kind::SessionExpired, 1_000, None)),
        ..PLAIN
    },
    Hazard {
        name: "the primary is lost for less than the detection time, ten times in a row",
        managers: 2,
        faults: &[
            (Kind::Flapping, 5_000, 400, None),
            (Kind::Flapping, 5_900, 400, None),
            (Kind::Flapping, 6_800, 400, None),
            (Kind::Flapping, 7_700, 400, None),
            (Kind::Flapping, 8_600, 400, None),
            (Kind::Flapping, 9_500, 400, None),
            (Kind::Flapping, 10_400, 400, None),
            (Kind::Flapping, 11_300, 400, None),
            (Kind::Flapping, 12_200, 400, None),
            (Kind::Flapping, 13_100, 400, None),
        ],
        ..PLAIN
    },
    Hazard {
        name: "the topology server is away while the primary dies",
        faults: &[(Kind::TopologyDown, 4_900, 8_000, None), (Kind::Crash, 5_000, 20_000, None)],
        ..PLAIN
    },
    Hazard {
        name: "the session is lost in the middle of a recovery",
        faults: &[(Kind::Crash, 5_000, 10_000, None)],
        strike: Some((Kind::SessionExpired, 1_000, None)),
        ..PLAIN
    },
    Hazard {
        name: "somebody else writes the records in the middle of a recovery",
        faults: &[(Kind::Crash, 5_000, 4_000, None)],
        strike: Some((Kind::Conflicts, 12_000, None)),
        ..PLAIN
    },
    Hazard {
        name: "the winner dies in the middle of its promotion",
        faults: &[(Kind::Crash, 5_000, 12_000, Some(0))],
        strike: Some((Kind::Crash, 3_000, Some(1))),
        ..PLAIN
    },
    Hazard {
        name: "the winner is cut off in the middle of its promotion",
        managers: 2,
        faults: &[(Kind::Freeze, 5_000, 12_000, Some(0))],
        strike: Some((Kind::Isolate, 6_000, Some(1))),
        ..PLAIN
    },
    Hazard {
        name: "the old primary wakes up in the middle of its replacement",
        faults: &[(Kind::Freeze, 5_000, 1_650, Some(0))],
        strike: Some((Kind::SlowApplier, 1_000, Some(1))),
        ..PLAIN
    },
    Hazard {
        name: "the candidate of a planned reparent stalls after writes were stopped",
        faults: &[(Kind::PlannedReparent, 5_000, 1_000, Some(2))],
        strike: Some((Kind::SlowApplier, 8_000, Some(2))),
        ..PLAIN
    },
    Hazard {
        name: "the candidate of a planned reparent lags",
        faults: &[
            (Kind::SlowApplier, 4_500, 4_000, Some(2)),
            (Kind::PlannedReparent, 5_000, 1_000, Some(2)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "the old primary returns while its successor, of whom no record tells, is away",
        faults: &[(Kind::Crash, 5_000, 4_000, Some(0)), (Kind::Crash, 8_000, 6_000, Some(1))],
        strike: Some((Kind::Conflicts, 12_000, None)),
        ..PLAIN
    },
    Hazard {
        name: "a second dead tablet in the shard",
        faults: &[(Kind::Crash, 4_900, 15_000, Some(2)), (Kind::Crash, 5_000, 8_000, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "a black-holed host",
        managers: 2,
        faults: &[(Kind::Isolate, 5_000, 12_000, Some(0))],
        strike: Some((Kind::ManagerCut, 2_000, Some(1))),
        ..PLAIN
    },
    Hazard {
        name: "a cell is not read while its primary is fine",
        faults: &[
            (Kind::ManagerKilled, 5_000, 500, None),
            (Kind::PartialRead, 5_200, 8_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "a replica with errant transactions has more than the others",
        faults: &[(Kind::ErrantWrite, 4_800, 1_000, Some(1)), (Kind::Crash, 5_000, 8_000, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "a replica takes a backup and goes on acknowledging",
        faults: &[(Kind::Backup, 4_500, 15_000, Some(1)), (Kind::Crash, 5_000, 8_000, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "vtorc is killed between demotion and promotion",
        faults: &[
            (Kind::PlannedReparent, 5_000, 1_000, Some(2)),
            (Kind::ManagerKilled, 5_020, 2_000, None),
        ],
        ..PLAIN
    },
    Hazard {
        name: "a cell is lost, and with it the primaries of many shards",
        shards: 4,
        faults: &[(Kind::ZoneLost, 5_000, 12_000, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "vtorc is cut off from nearly everything while a primary dies",
        shards: 4,
        faults: &[
            (Kind::ManagerAlone, 5_000, 12_000, Some(0)),
            (Kind::Crash, 6_000, 12_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "another tool reparents while a primary dies",
        managers: 2,
        faults: &[
            (Kind::ForeignReparent, 5_000, 8_000, Some(0)),
            (Kind::Crash, 5_010, 9_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "another tool dies in the middle of its reparent",
        faults: &[(Kind::ForeignReparent, 5_000, 20, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "a stalled disk goes on in the middle of the failover",
        faults: &[(Kind::DiskStall, 5_000, 1_100, Some(0))],
        strike: Some((Kind::SlowApplier, 500, Some(1))),
        ..PLAIN
    },
    Hazard {
        name: "a primary is so busy that it answers now and then",
        managers: 2,
        faults: &[(Kind::Saturated, 5_000, 25_000, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "a primary comes back at once without the end of its log",
        faults: &[(Kind::TailLost, 5_000, 30, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "a primary comes back without the end of its log, and every replica has errant transactions",
        faults: &[
            (Kind::ErrantWrite, 4_700, 100, Some(1)),
            (Kind::ErrantWrite, 4_710, 100, Some(2)),
            (Kind::ErrantWrite, 4_720, 100, Some(3)),
            (Kind::TailLost, 5_000, 30, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "another policy is set while the primary dies",
        faults: &[
            (Kind::PolicyChanged, 4_950, 1_000, Some(0)),
            (Kind::Crash, 5_000, 9_000, Some(0)),
        ],
        ..PLAIN
    },
];

/// All of them, by a part of the name.
pub fn named(part: &str) -> Option<&'static Hazard> {
    HAZARDS.iter().chain(ODD).find(|hazard| hazard.name.contains(part))
}

impl Hazard {
    /// The schedules of the family.
    pub fn schedules(&self) -> Vec<Schedule> {
        match self.strike {
            None => vec![self.schedule(0)],
            Some(_) => STEPS.map(|step| self.schedule(step)).collect(),
        }
    }

    /// The same with a vttablet before every server.
    pub fn schedules_with_vttablets(&self) -> Vec<Schedule> {
        let mut schedules = self.schedules();
        for schedule in &mut schedules {
            schedule.vttablets = true;
        }
        schedules
    }

    fn shard(&self) -> ShardPlan {
        let (policy, cells) = match self.shards {
            1 => (DurabilityPolicy::SemiSync, ["zone1"; 4]),
            _ => (DurabilityPolicy::CrossCell, ["zone1", "zone2", "zone2", "zone3"]),
        };
        let tablets = cells.into_iter().zip(self.types).collect();
        ShardPlan { policy, tablets, habits: self.habits.to_vec(), mariadb: self.mariadb }
    }

    /// The one that strikes at this step; at none where it is 0.
    pub fn schedule(&self, step: u64) -> Schedule {
        let fault = |kind, at, lasts, server: Option<u8>| Fault {
            kind,
            at,
            lasts,
            shard: 0,
            server,
            manager: 0,
            other: self.other,
        };
        let faults: Vec<Fault> = self
            .faults
            .iter()
            .map(|(kind, at, lasts, server)| fault(*kind, *at, *lasts, *server))
            .collect();
        let strikes = self
            .strike
            .filter(|_| step > 0)
            .map(|(kind, lasts, server)| (step, fault(kind, 0, lasts, server)));
        Schedule {
            seed: step,
            shards: vec![self.shard(); self.shards],
            managers: self.managers,
            skews_ms: vec![-250_000, 400_000],
            block_ms: 5_000,
            heartbeats_seen: self.heartbeats_seen,
            vttablets: false,
            disk_stalled_recovery: true,
            mistyped_cell: false,
            stops_at_violations: false,
            deadlines_carried: true,
            faults,
            strikes: strikes.into_iter().collect(),
        }
    }
}
