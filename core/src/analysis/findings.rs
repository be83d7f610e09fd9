//! Everything that can be found wrong, and what is kept of a finding.

use std::fmt;

use super::evidence::Evidence;
use crate::ids::TabletAlias;

/// Everything that can be found wrong, by the name that operators know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// The keyspace's durability policy is not known.
    UnknownDurabilityPolicy,
    /// No primary, and there never was one.
    ClusterHasNoPrimary,
    /// No primary, but there was one.
    PrimaryTabletDeleted,
    /// The primary was never reached since vtorc started.
    InvalidPrimary,
    /// The primary is gone and its replicas agree.
    DeadPrimary,
    /// The primary is gone, so are some replicas; those left agree.
    DeadPrimaryAndSomeReplicas,
    /// The primary and all its replicas are gone.
    DeadPrimaryAndReplicas,
    /// The primary is gone and has no replicas.
    DeadPrimaryWithoutReplicas,
    /// The primary cannot be reached from here, but its replicas follow it.
    UnreachablePrimary,
    /// The primary can be reached and fails more often than it answers.
    IncapacitatedPrimary,
    /// Commits wait for acknowledgements and none comes, though enough ackers are connected.
    PrimarySemiSyncBlocked,
    /// The primary cannot be reached from here; some replicas follow it, others do not.
    UnreachablePrimaryWithBrokenReplicas,
    /// The primary cannot be reached from here; its replicas follow it, far behind.
    UnreachablePrimaryWithLaggingReplicas,
    /// The primary came back without the end of its binary log, which replicas have.
    PrimaryLostTransactions,
    /// Another server of the shard was promoted and the records do not say so yet.
    UnfinishedPromotion,
    /// Two servers of the shard take writes, and each may be followed.
    SplitBrain,
    /// The primary replicates from something.
    PrimaryHasPrimary,
    /// The primary refuses writes.
    PrimaryIsReadOnly,
    /// The primary must wait for acknowledgements and does not.
    PrimarySemiSyncMustBeSet,
    /// The primary waits for acknowledgements though the policy wants none.
    PrimarySemiSyncMustNotBeSet,
    /// The shard's record names another primary or term than the primary's own record.
    ShardRecordMismatch,
    /// A tablet is PRIMARY in its record with an older term than the real primary.
    StaleTopoPrimary,
    /// A replica has transactions that the primary lacks.
    ErrantGTIDDetected,
    /// A replica takes writes.
    ReplicaIsWritable,
    /// A replica has no source.
    NotConnectedToPrimary,
    /// A replica follows another source than the primary.
    ConnectedToWrongPrimary,
    /// A replica does not get what the primary sends: it is turned away, or something else than the network fails.
    ReplicaCannotConnect,
    /// A replica's applier stopped on an error.
    ReplicaCannotApply,
    /// A replica's receiver or applier does not run.
    ReplicationStopped,
    /// A replica expects heartbeats so seldom that a dead source shows late.
    ReplicaMisconfigured,
    /// A replica must acknowledge and does not.
    ReplicaSemiSyncMustBeSet,
    /// A replica acknowledges and must not.
    ReplicaSemiSyncMustNotBeSet,
    /// A tablet that is not the primary cannot be reached.
    InvalidReplica,
    /// Somebody else's server answers at a tablet's address.
    StrangerAtAddress,
    /// A server turns vtorc away: wrong password, missing grant, locked account.
    AccessDenied,
    /// A server has no connection left for vtorc.
    TooManyConnections,
    /// A server lets nobody in from vtorc's host.
    HostBlocked,
    /// A tablet's record has no MySQL address.
    NoMysqlAddress,
    /// A record cannot be read or understood.
    DamagedRecord,
    /// Part of the topology could never be read.
    UnreadTopology,
    /// A server has GTIDs off; it can neither be promoted nor repaired.
    GtidModeOff,
    /// The policy wants semi-sync and the server has no plugin for it.
    SemiSyncPluginMissing,
    /// The primary waits for more acknowledgements than ackers are connected.
    LockedSemiSyncPrimaryHypothesis,
    /// ... and commits have been waiting for a while.
    LockedSemiSyncPrimary,
    /// The only replica does not replicate.
    PrimarySingleReplicaNotReplicating,
    /// The only replica cannot be reached.
    PrimarySingleReplicaDead,
    /// No replica replicates.
    AllPrimaryReplicasNotReplicating,
    /// No replica replicates; some cannot be reached.
    AllPrimaryReplicasNotReplicatingOrDead,
    /// Fewer ackers can be reached than the policy demands acknowledgements.
    NotEnoughSemiSyncReplicas,
    /// The servers of the shard are of several major versions.
    SeveralMajorVersions,
    /// A server does not log what it receives: others could not follow it.
    NoLogReplicaUpdates,
    /// The primary no longer has what a replica still needs.
    PurgedGtids,
    /// A replica does not apply everything.
    ReplicationFilters,
    /// Every replica is delayed on purpose.
    DelayedReplicasOnly,
    /// A server lost transactions that it wrote itself, and never gets them back.
    LostTransactions,
    /// Servers log in different formats.
    MixedBinlogFormats,
    /// The primary's vttablet says that it cannot write to its disk.
    PrimaryDiskStalled,
    /// The primary's vttablet takes itself for something else than its record says.
    PrimaryCurrentTypeMismatch,
    /// A server answers and its vttablet does not.
    VttabletUnreachable,
    /// A vttablet does not know the calls by which it would be driven.
    VttabletTooOld,
}

impl FindingKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 60] = [
        Self::UnknownDurabilityPolicy,
        Self::ClusterHasNoPrimary,
        Self::PrimaryTabletDeleted,
        Self::InvalidPrimary,
        Self::PrimaryDiskStalled,
        Self::DeadPrimary,
        Self::DeadPrimaryAndSomeReplicas,
        Self::DeadPrimaryAndReplicas,
        Self::DeadPrimaryWithoutReplicas,
        Self::IncapacitatedPrimary,
        Self::UnreachablePrimary,
        Self::UnreachablePrimaryWithBrokenReplicas,
        Self::UnreachablePrimaryWithLaggingReplicas,
        Self::PrimarySemiSyncBlocked,
        Self::PrimaryLostTransactions,
        Self::UnfinishedPromotion,
        Self::SplitBrain,
        Self::PrimaryHasPrimary,
        Self::PrimaryIsReadOnly,
        Self::PrimarySemiSyncMustBeSet,
        Self::PrimarySemiSyncMustNotBeSet,
        Self::PrimaryCurrentTypeMismatch,
        Self::ShardRecordMismatch,
        Self::StaleTopoPrimary,
        Self::ErrantGTIDDetected,
        Self::ReplicaIsWritable,
        Self::NotConnectedToPrimary,
        Self::ConnectedToWrongPrimary,
        Self::ReplicaCannotConnect,
        Self::ReplicaCannotApply,
        Self::ReplicationStopped,
        Self::ReplicaMisconfigured,
        Self::ReplicaSemiSyncMustBeSet,
        Self::ReplicaSemiSyncMustNotBeSet,
        Self::InvalidReplica,
        Self::StrangerAtAddress,
        Self::AccessDenied,
        Self::TooManyConnections,
        Self::HostBlocked,
        Self::VttabletUnreachable,
        Self::VttabletTooOld,
        Self::NoMysqlAddress,
        Self::DamagedRecord,
        Self::UnreadTopology,
        Self::GtidModeOff,
        Self::SemiSyncPluginMissing,
        Self::LockedSemiSyncPrimaryHypothesis,
        Self::LockedSemiSyncPrimary,
        Self::PrimarySingleReplicaNotReplicating,
        Self::PrimarySingleReplicaDead,
        Self::AllPrimaryReplicasNotReplicating,
        Self::AllPrimaryReplicasNotReplicatingOrDead,
        Self::NotEnoughSemiSyncReplicas,
        Self::SeveralMajorVersions,
        Self::NoLogReplicaUpdates,
        Self::PurgedGtids,
        Self::ReplicationFilters,
        Self::DelayedReplicasOnly,
        Self::LostTransactions,
        Self::MixedBinlogFormats,
    ];

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == name)
    }

    /// Tells whether it may stay although everything that can be repaired was repaired: it tells of
    /// something that only a person can decide.
    pub fn may_stay(self) -> bool {
        matches!(self, Self::ErrantGTIDDetected | Self::PurgedGtids | Self::LostTransactions)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One thing that is wrong, with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// On which tablet; none where it is about the shard as a whole.
    pub tablet: Option<TabletAlias>,
    /// The rule's reason, in words.
    pub why: &'static str,
    /// The observations it rests on, with their age.
    pub evidence: Vec<Evidence>,
}

impl Finding {
    /// Its evidence in words.
    pub fn evidence_lines(&self) -> Vec<String> {
        self.evidence.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tablet {
            Some(alias) => write!(f, "{} on {alias}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}
