//! How a tablet is made a proper replica of its primary. One that has transactions which the primary lacks is taken out
//! of service: nothing is rewound silently.

use crate::analysis::{self, FindingKind};
use crate::durability::DurabilityPolicy;
use crate::gtid::GtidSet;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::ports::{RelayLog, SourceChange};
use crate::sabotage::{self, Bug};
use crate::status::{Flavor, ReceiverErrorKind, ReceiverState, ReplicationStatus, ServerStatus};
use crate::tablet::Tablet;

/// Whether what a replica received and has not applied may be thrown away when it is pointed at this source: only where
/// the source has committed all of it and its binary logs still hold it, so that it is sent again. What came from a
/// stranger may go.
pub fn relay_log(
    replica: &ServerStatus,
    source: &ServerStatus,
    snapshot: &ShardSnapshot,
) -> RelayLog {
    if sabotage::has(Bug::ThrowRelayLogsAway) {
        return RelayLog::MayGo;
    }
    let unapplied = replica.unapplied().subtract(&snapshot.foreign(replica));
    let has_all = source.gtid_executed.contains(&unapplied);
    let holds_all = source.gtid_purged.ahead_of(&replica.gtid_executed).is_empty();
    match unapplied.is_empty() || (has_all && holds_all) {
        true => RelayLog::MayGo,
        false => RelayLog::MustStay,
    }
}

/// A replica that was found wrong, and refuses writes by now; its primary was asked after it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What was found.
    pub finding: FindingKind,
    /// The keyspace's policy.
    pub policy: DurabilityPolicy,
    /// The primary.
    pub primary: &'a Tablet,
    /// Its server.
    pub source: &'a ServerStatus,
    /// The replica.
    pub tablet: &'a Tablet,
    /// Its server.
    pub status: &'a ServerStatus,
    /// The shard.
    pub snapshot: &'a ShardSnapshot,
}

/// What is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cure {
    /// It is taken out of service for these transactions, which the primary lacks.
    SetAside(GtidSet),
    /// It follows the primary.
    Follow {
        /// Acknowledge what is received.
        semi_sync: bool,
        /// Point it there anew, or only set what else is wrong.
        change: SourceChange,
        /// What becomes of what was received and is not applied.
        relay_log: RelayLog,
    },
    /// Nothing: the primary lost this, which it wrote and the replica has. The primary must be replaced, not its
    /// replicas.
    KeepFor(GtidSet),
}

/// Says what is to be done with a replica.
pub fn cure(case: Case<'_>) -> Cure {
    let Case { finding, primary, source, status, snapshot, .. } = case;
    let losses = snapshot.tablet(&primary.alias).map(|state| &state.losses);
    let lost = losses.and_then(|losses| losses.lost(source, status));
    let lost = lost.filter(|_| !sabotage::has(Bug::TrustSurvivors));
    if let Some(lost) = lost {
        return Cure::KeepFor(lost);
    }
    let replication = status.replication.as_ref();
    let follows = replication.is_some_and(|r| source.is_source_of(r, primary.mysql.as_ref()));
    let refused = follows && status.is_refused();
    let errant = lacking(status, source, refused).or_else(|| never_to_be_applied(case));
    let errant = errant.filter(|_| !follows || refused);
    if let Some(errant) = errant {
        return Cure::SetAside(errant);
    }
    let sound = replication.is_some_and(|r| r.auto_position && !is_to_be_told_anew(r))
        && finding != FindingKind::ReplicaMisconfigured;
    Cure::Follow {
        semi_sync: acknowledges(case),
        change: if follows && sound { SourceChange::Keep } else { SourceChange::Repoint },
        // One that is not let in could not fetch again what it gave away.
        relay_log: match finding == FindingKind::ReplicaCannotConnect {
            true => RelayLog::MustStay,
            false => relay_log(status, source, snapshot),
        },
    }
}

/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`, and what MySQL 8 and later call it.
const SAID_BY_THE_SOURCE: [u32; 2] = [1236, 13114];

/// One that follows the right source and is not let in is told its credentials anew. For what its source says once it
/// has let it in, the receiver is only started again: to repoint a MariaDB would throw away what it did not apply.
fn is_to_be_told_anew(replication: &ReplicationStatus) -> bool {
    replication.receiver_error.as_ref().is_some_and(|error| match error.kind {
        ReceiverErrorKind::Denied | ReceiverErrorKind::Unreachable => true,
        ReceiverErrorKind::Other => !SAID_BY_THE_SOURCE.contains(&error.number),
        ReceiverErrorKind::Diverged
        | ReceiverErrorKind::Purged
        | ReceiverErrorKind::PacketTooLarge
        | ReceiverErrorKind::DuplicateServerId => false,
    })
}

fn acknowledges(case: Case<'_>) -> bool {
    let Case { policy, primary, tablet, status, snapshot, .. } = case;
    let known = snapshot.tablet(&tablet.alias).zip(snapshot.tablet(&primary.alias));
    let apart = known.is_some_and(|(replica, primary)| {
        !analysis::is_to_acknowledge(replica, primary, policy, snapshot)
    });
    policy.wants_ack_of(primary, tablet, Some(status)) && !apart
}

/// How a replica fares that was told to follow its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fares {
    /// Both threads run.
    Replicates,
    /// It connects, and nothing is wrong so far.
    Connects,
    /// It does not work, in the server's words.
    Fails(String),
}

impl Fares {
    /// As the replica's channel has it; without one somebody took its source away.
    pub fn of(channel: Option<&ReplicationStatus>) -> Self {
        let Some(channel) = channel else { return Self::Fails("it has no source".into()) };
        if let Some(error) = &channel.receiver_error {
            return Self::Fails(format!("its receiver says: {error}"));
        }
        if !channel.applier_running {
            return Self::Fails(match &channel.applier_error {
                None => "its applier does not run".into(),
                Some(error) => format!("its applier says: {error}"),
            });
        }
        match channel.receiver {
            ReceiverState::Running => Self::Replicates,
            ReceiverState::Connecting => Self::Connects,
            ReceiverState::Stopped => Self::Fails("its receiver does not run".into()),
        }
    }
}

/// What the replica has and the primary, read afterwards, lacks. A commit of the primary's own that waits for
/// acknowledgements is on the replicas before the primary shows it. MariaDB's positions do not tell; there the primary
/// itself says that the histories differ. (Another source may only be behind the replica.)
fn lacking(replica: &ServerStatus, primary: &ServerStatus, refused: bool) -> Option<GtidSet> {
    if refused && replica.flavor == Flavor::MariaDb {
        return Some(replica.gtid_executed.clone());
    }
    let extra = replica.gtid_executed.ahead_of(&primary.gtid_executed);
    let extra = match primary.semi_sync.waiting_sessions > 0 {
        true => extra.without_writer(&primary.identity()),
        false => extra,
    };
    (!extra.is_empty()).then_some(extra)
}

/// What a MariaDB received elsewhere and the primary, read afterwards, lacks. It cannot be pointed at the primary
/// before that is applied, and would be refused there afterwards. (A MySQL takes it along.) What came from a stranger
/// may go.
fn never_to_be_applied(case: Case<'_>) -> Option<GtidSet> {
    let Case { source, status, snapshot, .. } = case;
    if status.flavor == Flavor::MySql {
        return None;
    }
    let unapplied = status.unapplied().subtract(&snapshot.foreign(status));
    // A commit of the primary's own that waits for acknowledgements is shown by others first.
    let extra = unapplied.subtract(&source.gtid_executed).without_writer(&source.identity());
    (!extra.is_empty()).then_some(extra)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ReceiverError;
    use crate::tablet::MysqlAddress;
    use crate::testkit;

    #[test]
    fn a_replica_that_does_not_work_says_why() {
        let channel = testkit::replication(MysqlAddress { host: "h1".into(), port: 3306 });
        let denied = ReceiverError {
            number: 1045,
            kind: ReceiverErrorKind::Denied,
            text: "Access denied for user 'repl'".into(),
        };
        let fails = |why: &str| Fares::Fails(why.into());
        let stands = |error: Option<&str>| ReplicationStatus {
            applier_running: false,
            applier_error: error.map(Into::into),
            ..channel.clone()
        };
        let with = |receiver| ReplicationStatus { receiver, ..channel.clone() };
        for (channel, expected) in [
            (Some(with(ReceiverState::Running)), Fares::Replicates),
            (Some(with(ReceiverState::Connecting)), Fares::Connects),
            (Some(with(ReceiverState::Stopped)), fails("its receiver does not run")),
            (None, fails("it has no source")),
            (Some(stands(None)), fails("its applier does not run")),
            (Some(stands(Some("Duplicate entry"))), fails("its applier says: Duplicate entry")),
            (
                Some(ReplicationStatus {
                    receiver_error: Some(denied),
                    ..with(ReceiverState::Connecting)
                }),
                fails("its receiver says: Access denied for user 'repl'"),
            ),
        ] {
            assert_eq!(Fares::of(channel.as_ref()), expected);
        }
    }
}
