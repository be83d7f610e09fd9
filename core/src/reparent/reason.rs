//! Why a tablet did not win, and why nobody did, in words.

use std::fmt;

use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::tablet::TabletType;

/// One who did not win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Who.
    pub alias: TabletAlias,
    /// Why.
    pub reason: Reason,
}

impl PassedOver {
    pub(super) fn is_errant(&self) -> bool {
        matches!(self.reason, Reason::Errant(_))
    }
}

/// Why a tablet cannot or did not win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its type is not promotable.
    WrongType(TabletType),
    /// It has transactions that no other tablet has and that did not come from its source.
    Errant(GtidSet),
    /// It missed reparents that others know of, and disagrees with them.
    MissedReparents,
    /// It wrote what nobody else ever received: no client was told that it is done.
    Unacknowledged(GtidSet),
    /// GTIDs or the binary log are off.
    NoGtids,
    /// It does not log what it received: nobody could follow it.
    NoLogReplicaUpdates,
    /// Its promotion rule is `must_not`.
    MustNot,
    /// Too few who could acknowledge its writes were reached.
    TooFewAckers {
        /// How many are reached.
        found: u32,
        /// How many the policy demands.
        required: u32,
    },
    /// It is in another cell than the old primary, and that is forbidden.
    OtherCell,
    /// Its vttablet does not answer, or cannot be driven: nobody could write through it.
    NoVttablet,
    /// Its host is on the list of those never promoted.
    IgnoredHost,
    /// An operator asked for another one.
    NotAskedFor,
    /// An operator wants to avoid it.
    Avoided,
    /// It does not replicate from the primary.
    NotFollowing,
    /// Its receiver or applier does not run, or it is delayed on purpose.
    ReplicationStopped,
    /// It is further behind than is tolerable; unknown counts as far.
    LagsBehind(Option<u64>),
    /// It lost what it wrote itself, which it never gets back from others.
    LostOwn(GtidSet),
    /// Its record cannot be read, and so not written: nobody would learn that it is primary.
    RecordUnread,
    /// It does not apply everything, on purpose: its GTIDs stand for data that it does not have.
    Filtered,
    /// Somebody holds a read lock on all its tables: it would not take a write.
    Locked,
    /// A backup runs there, at whose end writes wait.
    BackedUp,
    /// Its connections are used up: others could not follow it.
    NoConnections,
    /// Replicas could not log in there.
    NoLogin,
    /// It turns clients and replicas away (`offline_mode`).
    Offline,
    /// It was to be promoted just before, and refused.
    NotPromoted,
    /// It was chosen and did not catch up in time.
    DidNotCatchUp,
    /// It lacks what the binary logs of those who have it do not hold any more.
    CannotCatchUp,
    /// What it lacks, only those have at whom replicas could not log in, as at this one.
    TurnedAway(TabletAlias),
    /// Its binary logs do not hold any more what this one still lacks: it could never follow.
    LeavesBehind(TabletAlias),
    /// Somebody else ranks before it.
    RanksLower,
}

const LOCKED: &str =
    "somebody holds a lock for which writes wait, as backups do (FLUSH TABLES WITH READ LOCK)";
const OFFLINE: &str = "it is in offline mode and turns clients and replicas away: SET GLOBAL offline_mode = OFF there";
const RECORD_UNREAD: &str =
    "its record cannot be read now, so nobody would learn from the topology that it is primary";
const BACKED_UP: &str = "a backup runs there (BACKUP STAGE), at whose end writes wait";

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType(kind) => write!(f, "its type is {kind}"),
            Self::Errant(gtids) => write!(f, "it has errant GTIDs {}", gtids.shown()),
            Self::MissedReparents => {
                f.write_str("it missed a reparent and disagrees with the others")
            }
            Self::Unacknowledged(gtids) => {
                write!(f, "it alone has {}, which nobody ever acknowledged", gtids.shown())
            }
            Self::NoGtids => f.write_str("GTIDs or the binary log are off"),
            Self::NoLogReplicaUpdates => {
                f.write_str("log_replica_updates is off, so others could not follow it")
            }
            Self::MustNot => f.write_str("its promotion rule is must_not"),
            Self::TooFewAckers { found, required } => {
                write!(f, "{found} of {required} ackers that the policy demands were reached")
            }
            Self::OtherCell => {
                f.write_str("it is in another cell, and cross-cell failover is prevented")
            }
            Self::NoVttablet => f.write_str("its vttablet does not answer, or is too old"),
            Self::IgnoredHost => f.write_str("its host is on PromotionIgnoreHostnameFilters"),
            Self::NotAskedFor => f.write_str("another tablet was asked for"),
            Self::Avoided => f.write_str("it was asked to be avoided"),
            Self::NotFollowing => f.write_str("it does not replicate from the primary"),
            Self::ReplicationStopped => f.write_str("its replication is stopped or delayed"),
            Self::LagsBehind(Some(seconds)) => write!(f, "it is {seconds} s behind"),
            Self::LagsBehind(None) => f.write_str("nobody knows how far behind it is"),
            Self::LostOwn(gtids) => {
                write!(
                    f,
                    "it lost {}, which it wrote itself; it must be cloned anew",
                    gtids.shown()
                )
            }
            Self::RecordUnread => f.write_str(RECORD_UNREAD),
            Self::Locked => f.write_str(LOCKED),
            Self::BackedUp => f.write_str(BACKED_UP),
            Self::NoLogin => f.write_str("replicas could not log in there"),
            Self::Offline => f.write_str(OFFLINE),
            Self::NoConnections => f.write_str("its max_connections are used up"),
            Self::NotPromoted => f.write_str("it refused to be promoted"),
            Self::Filtered => f.write_str(
                "it has replication filters, so its GTIDs stand for data that it does not have",
            ),
            Self::DidNotCatchUp => f.write_str("it was chosen and did not catch up in time"),
            Self::CannotCatchUp => f.write_str(
                "it lacks what nobody's binary logs hold any more; it must be cloned anew",
            ),
            Self::TurnedAway(alias) => {
                write!(f, "it lacks what {alias} has, and replicas could not log in there")
            }
            Self::LeavesBehind(alias) => {
                write!(
                    f,
                    "its binary logs no longer hold what {alias} lacks, which could not follow it"
                )
            }
            Self::RanksLower => f.write_str("it ranks lower"),
        }
    }
}

/// Why there is no winner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCandidate {
    /// Nobody answered who may be compared.
    #[error("no tablet that can be compared was reached")]
    Nobody,
    /// Two sets of which neither contains the other.
    #[error(
        "split brain: {one} and {other} each have transactions that the other lacks ({} and {}); decide which to keep and take the other out of service", .only_one.shown(), .only_other.shown()
    )]
    Diverged {
        /// One tablet.
        one: TabletAlias,
        /// Another.
        other: TabletAlias,
        /// What only the first has.
        only_one: Box<GtidSet>,
        /// What only the second has.
        only_other: Box<GtidSet>,
    },
    /// A tablet that must not be promoted alone has what may have been acknowledged.
    #[error(
        "{alias} has errant GTIDs {}, so it is not promoted; and it alone has {}, which may have been acknowledged: bring the primary that wrote it back, or ask for an emergency reparent to {alias}", .errant.shown(), .only.shown()
    )]
    HeldByErrant {
        /// Who.
        alias: TabletAlias,
        /// Its errant transactions.
        errant: Box<GtidSet>,
        /// What no candidate has.
        only: Box<GtidSet>,
    },
    /// Only a replica with filters has what may have been acknowledged, and it does not have the data.
    #[error("{alias} alone has {}, which may have been acknowledged, and has replication filters: the data may be on the old primary only; bring that back", .only.shown())]
    HeldByFiltered {
        /// Who.
        alias: TabletAlias,
        /// What nobody else has.
        only: Box<GtidSet>,
    },
    /// An acker threw away what it had received when it was restarted, and nobody else who was reached has it.
    #[error("{by} had received {}, which may have been acknowledged, and lost it when it was restarted; nobody who was reached has it: bring {primary}, the primary, back, or give that up: ask for an emergency reparent to a tablet, or forget {primary}", .only.shown())]
    Forgotten {
        /// The acker.
        by: TabletAlias,
        /// Who has it as well.
        primary: TabletAlias,
        /// What is lost without it.
        only: Box<GtidSet>,
    },
    /// Everybody who may have acknowledged what the primary wrote last was restarted since that was heard.
    #[error(
        "everybody who was reached and may have acknowledged the last writes of {primary}, the primary, was restarted since that was last heard, and may have thrown them away; bring {primary} back, or give that up: ask for an emergency reparent to a tablet, or forget {primary}"
    )]
    AllRestarted {
        /// Who still has them.
        primary: TabletAlias,
    },
    /// The primary that is gone had more than anybody who was reached, though enough ackers were: they lost it.
    #[error("{by}, the primary, was seen with {}, which was acknowledged and which nobody who was reached has any more; bring {by} back, or give that up: ask for an emergency reparent to a tablet, or forget {by}", .only.shown())]
    OnlyOldPrimaryHas {
        /// The primary.
        by: TabletAlias,
        /// What nobody else has.
        only: Box<GtidSet>,
    },
    /// Everybody was passed over.
    #[error("no tablet can be promoted: {}", list(.0))]
    AllPassedOver(Vec<PassedOver>),
}

fn list(passed_over: &[PassedOver]) -> String {
    let each = passed_over.iter().map(|one| format!("{}: {}", one.alias, one.reason));
    each.collect::<Vec<_>>().join("; ")
}
