//! Hazards of servers and records that are odd in some way while a primary dies or is moved. Each takes several rare
//! things at once, which chance alone hardly ever brings together.

use vtorc_core::tablet::TabletType;

use super::{Hazard, PLAIN};
use crate::faults::{Hostile, Kind};
use crate::ills::Habit;

/// The last tablet is RDONLY: the policy does not count its acknowledgements.
const WITH_RDONLY: [TabletType; 4] =
    [TabletType::Replica, TabletType::Replica, TabletType::Replica, TabletType::Rdonly];
/// The last tablet is out of service.
const WITH_DRAINED: [TabletType; 4] =
    [TabletType::Replica, TabletType::Replica, TabletType::Replica, TabletType::Drained];

const REPLICA_LEADS_TO_PRIMARY: Hazard = Hazard {
    name: "a replica's record leads to the primary's server, which dies later",
    managers: 2,
    faults: &[
        (Kind::Hostile(Hostile::Twin), 4_000, 60_000, Some(1)),
        (Kind::Crash, 9_000, 60_000, Some(0)),
    ],
    other: 3,
    ..PLAIN
};
const REPLICA_LEADS_TO_REPLICA: Hazard = Hazard {
    name: "a dead replica's record leads to another replica's server, and the primary dies",
    managers: 2,
    faults: &[
        (Kind::Hostile(Hostile::Twin), 4_000, 60_000, Some(1)),
        (Kind::Crash, 9_000, 6_000, Some(0)),
    ],
    ..PLAIN
};
const PRIMARY_LEADS_TO_REPLICA: Hazard = Hazard {
    name: "the dead primary's record leads to a replica's server",
    managers: 2,
    faults: &[(Kind::Hostile(Hostile::Twin), 4_000, 60_000, Some(0))],
    ..PLAIN
};

/// All of them.
pub const ODD: &[Hazard] = &[
    Hazard {
        name: "a backup tool locks the tables of the replica that ranks first",
        faults: &[
            (Kind::Hostile(Hostile::Locked), 4_900, 60_000, Some(1)),
            (Kind::Crash, 5_000, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "the replica that ranks first refuses to be promoted",
        faults: &[
            (Kind::Hostile(Hostile::RefusesPromotion), 4_900, 60_000, Some(1)),
            (Kind::Crash, 5_000, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "a locked RDONLY tablet got one transaction more, which nobody acknowledged",
        types: WITH_RDONLY,
        faults: &[
            (Kind::Hostile(Hostile::Locked), 4_500, 60_000, Some(3)),
            (Kind::Isolate, 4_900, 200, Some(1)),
            (Kind::Isolate, 4_900, 200, Some(2)),
            (Kind::Crash, 5_050, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "a DRAINED tablet acknowledged by its configuration file, alone",
        types: WITH_DRAINED,
        habits: &[(3, Habit::AcksByFile)],
        faults: &[
            (Kind::Isolate, 4_900, 200, Some(1)),
            (Kind::Isolate, 4_900, 200, Some(2)),
            (Kind::Crash, 5_050, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "a DRAINED tablet that vtorc never reached acknowledged alone, while a replica stood that does otherwise",
        types: WITH_DRAINED,
        habits: &[(3, Habit::AcksByFile)],
        other: 1,
        faults: &[
            (Kind::ManagerCut, 0, 60_000, Some(3)),
            // Nothing is repaired meanwhile.
            (Kind::TopologyDown, 3_900, 1_700, None),
            (Kind::StoppedReplica, 4_000, 1_000, Some(2)),
            (Kind::Isolate, 5_000, 200, Some(1)),
            (Kind::Crash, 5_100, 55_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "an RDONLY tablet turns vtorc away from shortly before the primary dies",
        types: WITH_RDONLY,
        faults: &[
            (Kind::Hostile(Hostile::TurnsAway), 4_900, 60_000, Some(3)),
            (Kind::Crash, 5_000, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "the primary is cut off, no heartbeats are seen, and one replica lets in nobody but those who are in",
        types: WITH_RDONLY,
        heartbeats_seen: false,
        faults: &[
            (Kind::Hostile(Hostile::TurnsAway), 4_900, 60_000, Some(3)),
            (Kind::Isolate, 5_000, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "a script keeps a DRAINED tablet without super_read_only",
        types: WITH_DRAINED,
        habits: &[(3, Habit::NoSuperReadOnly)],
        ..PLAIN
    },
    Hazard {
        name: "the network of vtorc is slow and lossy",
        faults: &[(Kind::Hostile(Hostile::ManagerSlow), 9_000, 20_000, None)],
        // Which packets are lost is another matter each time.
        strike: Some((Kind::LateWatches, 100, None)),
        ..PLAIN
    },
    Hazard {
        name: "a replica has GTIDs of a former server that nobody else has",
        habits: &[(1, Habit::ForeignGtids)],
        faults: &[(Kind::Crash, 9_000, 60_000, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "somebody asks for a replica that errs",
        faults: &[
            (Kind::ErrantWrite, 4_500, 100, Some(2)),
            (Kind::PlannedReparent, 5_000, 1_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "packets to the candidate of a planned reparent are lost between two statements of its promotion",
        faults: &[
            (Kind::SlowLinks, 4_990, 15_000, Some(2)),
            (Kind::PlannedReparent, 5_000, 20_000, Some(0)),
        ],
        // Which packets are lost is another matter each time.
        strike: Some((Kind::LateWatches, 100, None)),
        ..PLAIN
    },
    Hazard {
        name: "connections to the candidate of a planned reparent break once it takes writes",
        faults: &[
            (Kind::Hostile(Hostile::DropsOnceOpened), 4_900, 20_000, Some(2)),
            (Kind::PlannedReparent, 5_000, 20_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "what the candidate of a planned reparent is told runs long after it was given up",
        faults: &[
            (Kind::Hostile(Hostile::LateCommands), 4_990, 20_000, Some(2)),
            (Kind::PlannedReparent, 5_000, 20_000, Some(0)),
        ],
        // Which statements are late is another matter each time.
        strike: Some((Kind::LateWatches, 100, None)),
        ..PLAIN
    },
    Hazard {
        name: "vtorc stands still in the middle of a planned reparent until its lock is lost",
        faults: &[(Kind::PlannedReparent, 5_000, 20_000, Some(0))],
        strike: Some((Kind::Hostile(Hostile::ManagerPaused), 9_000, None)),
        ..PLAIN
    },
    Hazard {
        name: "the record of a replica that another tool made primary cannot be read",
        faults: &[
            (Kind::Hostile(Hostile::ManagerPaused), 4_900, 6_500, None),
            (Kind::ForeignReparent, 5_000, 6_000, Some(0)),
            (Kind::Hostile(Hostile::DamagedRecord), 5_200, 60_000, Some(2)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "the applier of a replica fails that lags behind what the next primary, a clone, still holds",
        faults: &[
            (Kind::Hostile(Hostile::ApplierFails), 2_000, 20_000, Some(2)),
            (Kind::Clone, 2_500, 1_000, Some(1)),
            (Kind::Crash, 6_000, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "a source sends a MariaDB nothing, for another reason than its history",
        mariadb: true,
        faults: &[(Kind::Hostile(Hostile::GetsNothing), 5_000, 3_000, Some(1))],
        ..PLAIN
    },
    Hazard {
        name: "all servers have sets with a thousand gaps",
        habits: &[
            (0, Habit::ManyGaps),
            (1, Habit::ManyGaps),
            (2, Habit::ManyGaps),
            (3, Habit::ManyGaps),
        ],
        faults: &[(Kind::Crash, 5_000, 60_000, Some(0))],
        ..PLAIN
    },
    Hazard {
        name: "an emergency reparent is asked for while the primary waits for nobody and cannot be demoted",
        faults: &[
            (Kind::Hostile(Hostile::Ungoverned), 4_500, 30_000, Some(0)),
            (Kind::Hostile(Hostile::EmergencyAsked), 5_000, 1_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "the vttablet of an RDONLY was stopped in order before the primary dies",
        types: WITH_RDONLY,
        faults: &[
            (Kind::Hostile(Hostile::ShutDown), 4_000, 60_000, Some(3)),
            (Kind::Crash, 5_000, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "the primary dies while the shard's own record cannot be understood",
        managers: 2,
        faults: &[
            (Kind::Hostile(Hostile::DamagedShardRecord), 4_000, 60_000, Some(1)),
            (Kind::Crash, 5_000, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    Hazard {
        name: "two primaries die while the shard's own record cannot be understood, by two vtorcs",
        managers: 2,
        faults: &[
            (Kind::Hostile(Hostile::DamagedShardRecord), 4_000, 80_000, Some(1)),
            (Kind::Crash, 5_000, 9_000, None),
            (Kind::Crash, 30_000, 9_000, None),
        ],
        strike: Some((Kind::Hostile(Hostile::ManagerPaused), 9_000, None)),
        ..PLAIN
    },
    Hazard {
        name: "the user of the replicas was not made on the best candidate",
        faults: &[
            (Kind::Hostile(Hostile::LacksReplicaUser), 4_000, 60_000, Some(1)),
            (Kind::Crash, 5_000, 60_000, Some(0)),
        ],
        ..PLAIN
    },
    REPLICA_LEADS_TO_PRIMARY,
    Hazard {
        name: "a replica's record leads to the primary's server, which dies later, all MariaDBs",
        mariadb: true,
        ..REPLICA_LEADS_TO_PRIMARY
    },
    REPLICA_LEADS_TO_REPLICA,
    Hazard {
        name: "a dead replica's record leads to another replica's server, and the primary dies, all MariaDBs",
        mariadb: true,
        ..REPLICA_LEADS_TO_REPLICA
    },
    PRIMARY_LEADS_TO_REPLICA,
    Hazard {
        name: "the dead primary's record leads to a replica's server, all MariaDBs",
        mariadb: true,
        ..PRIMARY_LEADS_TO_REPLICA
    },
    Hazard {
        name: "the primary dies while it is in downtime",
        managers: 2,
        faults: &[
            (Kind::Hostile(Hostile::Downtime), 4_000, 12_000, Some(0)),
            (Kind::Crash, 6_000, 8_000, Some(0)),
        ],
        ..PLAIN
    },
];
