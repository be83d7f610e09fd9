//! What would help: the recovery that belongs to each finding.

use crate::analysis::{self, Finding, FindingKind};
use crate::ids::TabletAlias;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::recovery::kind::RecoveryKind;
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;

/// What would help against a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remedy {
    /// Replace the primary by the most advanced replica.
    EmergencyReparent,
    /// Move writes away from a primary that still answers now and then; if that fails, replace it.
    PlannedReparent,
    /// Complete a reparent that stopped half-way, by the same steps.
    FinishReparent,
    /// Choose a first primary.
    ElectPrimary,
    /// Bring the primary's settings in order.
    FixPrimary,
    /// Make a tablet a proper replica of the primary.
    FixReplica,
    /// Restart a replica's receiver, so that a dead connection shows.
    RestartReceiver,
    /// Make the shard's record name the primary.
    FixShardRecord,
    /// Nothing to be done; a person is told.
    WatchOnly,
}

impl Remedy {
    /// The recovery by which it is applied; watching is none.
    pub fn recovery(self) -> Option<RecoveryKind> {
        Some(match self {
            Self::EmergencyReparent => RecoveryKind::EmergencyReparent,
            Self::PlannedReparent => RecoveryKind::PlannedReparent,
            Self::FinishReparent => RecoveryKind::FinishReparent,
            Self::ElectPrimary => RecoveryKind::ElectPrimary,
            Self::FixPrimary => RecoveryKind::FixPrimary,
            Self::FixReplica => RecoveryKind::FixReplica,
            Self::RestartReceiver => RecoveryKind::RestartReceiver,
            Self::FixShardRecord => RecoveryKind::FixShardRecord,
            Self::WatchOnly => return None,
        })
    }

    /// Tells whether it changes who the primary is.
    pub fn is_reparent(self) -> bool {
        self.recovery().is_some_and(RecoveryKind::is_reparent)
    }

    /// The name on the page and in metrics: that of its recovery.
    pub fn name(self) -> &'static str {
        self.recovery().map_or("WatchOnly", RecoveryKind::name)
    }
}

/// The recovery for a finding: a table, a line for each.
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub fn remedy(kind: FindingKind) -> Remedy {
    match kind {
        FindingKind::ClusterHasNoPrimary => Remedy::ElectPrimary,
        FindingKind::PrimaryTabletDeleted
        | FindingKind::DeadPrimary
        | FindingKind::DeadPrimaryAndSomeReplicas
        | FindingKind::PrimarySemiSyncBlocked
        | FindingKind::PrimaryLostTransactions
        | FindingKind::PrimaryDiskStalled => Remedy::EmergencyReparent,
        FindingKind::IncapacitatedPrimary => Remedy::PlannedReparent,
        FindingKind::UnfinishedPromotion | FindingKind::SplitBrain => Remedy::FinishReparent,
        FindingKind::PrimaryHasPrimary
        | FindingKind::PrimaryIsReadOnly
        | FindingKind::PrimarySemiSyncMustBeSet
        | FindingKind::PrimarySemiSyncMustNotBeSet
        | FindingKind::PrimaryCurrentTypeMismatch => Remedy::FixPrimary,
        FindingKind::ShardRecordMismatch => Remedy::FixShardRecord,
        FindingKind::StaleTopoPrimary
        | FindingKind::ReplicaIsWritable
        | FindingKind::NotConnectedToPrimary
        | FindingKind::ConnectedToWrongPrimary
        | FindingKind::ReplicaCannotConnect
        | FindingKind::ReplicaCannotApply
        | FindingKind::ReplicationStopped
        | FindingKind::ReplicaMisconfigured
        | FindingKind::ReplicaSemiSyncMustBeSet
        | FindingKind::ReplicaSemiSyncMustNotBeSet => Remedy::FixReplica,
        FindingKind::UnreachablePrimary | FindingKind::UnreachablePrimaryWithBrokenReplicas => {
            Remedy::RestartReceiver
        }
        FindingKind::UnknownDurabilityPolicy
        | FindingKind::ErrantGTIDDetected
        | FindingKind::InvalidPrimary
        | FindingKind::DeadPrimaryAndReplicas
        | FindingKind::DeadPrimaryWithoutReplicas
        | FindingKind::InvalidReplica
        | FindingKind::StrangerAtAddress
        | FindingKind::AccessDenied
        | FindingKind::TooManyConnections
        | FindingKind::HostBlocked
        | FindingKind::VttabletUnreachable
        | FindingKind::VttabletTooOld
        | FindingKind::NoMysqlAddress
        | FindingKind::DamagedRecord
        | FindingKind::UnreadTopology
        | FindingKind::GtidModeOff
        | FindingKind::UnreachablePrimaryWithLaggingReplicas
        | FindingKind::SemiSyncPluginMissing
        | FindingKind::LockedSemiSyncPrimaryHypothesis
        | FindingKind::LockedSemiSyncPrimary
        | FindingKind::PrimarySingleReplicaNotReplicating
        | FindingKind::PrimarySingleReplicaDead
        | FindingKind::AllPrimaryReplicasNotReplicating
        | FindingKind::AllPrimaryReplicasNotReplicatingOrDead
        | FindingKind::NotEnoughSemiSyncReplicas
        | FindingKind::SeveralMajorVersions
        | FindingKind::NoLogReplicaUpdates
        | FindingKind::PurgedGtids
        | FindingKind::ReplicationFilters
        | FindingKind::DelayedReplicasOnly
        | FindingKind::LostTransactions
        | FindingKind::MixedBinlogFormats => Remedy::WatchOnly,
    }
}

/// The primary lives and does not serve, so an emergency reparent must not elect it again.
pub fn leaves_primary(finding: FindingKind) -> bool {
    matches!(finding, FindingKind::PrimarySemiSyncBlocked | FindingKind::PrimaryDiskStalled)
}

/// What says that the records' primary does not serve, or that another server may: writes cannot be moved away from it
/// in peace.
pub fn not_in_charge(snapshot: &ShardSnapshot, settings: &RecoverySettings) -> Option<Finding> {
    let first = analysis::detect(snapshot, settings).into_iter().next()?;
    let repaired_alone =
        matches!(first.kind, FindingKind::PrimaryHasPrimary | FindingKind::PrimaryIsReadOnly);
    let remedy = remedy(first.kind);
    let moved_away = remedy == Remedy::PlannedReparent;
    (repaired_alone || (remedy.is_reparent() && !moved_away)).then_some(first)
}

/// What a shard wants done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// One recovery of the shard as a whole.
    Shard(Remedy, Finding),
    /// Repairs of replicas, which may run side by side.
    Replicas(Vec<Finding>),
}

/// So often in a row somebody else may have been faster.
pub const TIMES_GONE: u32 = 3;

/// What a recovery turns into whose finding was another one once the lock was held: the reparent that is due by what
/// was seen there of the same primary. A replica may answer its prober on an old connection and turn everybody else
/// away; what is found by probes would be gone under the lock each time.
///
/// Where that happens again and again, it turns into whatever is due by the look under the lock: that asked everybody
/// at one time, and probes of servers that go on writing may never agree with it.
pub fn turns_into(
    gone: &Finding,
    fresh: &ShardSnapshot,
    settings: &RecoverySettings,
    times_gone: u32,
) -> Option<Wanted> {
    let again_and_again = times_gone > 0 && times_gone.is_multiple_of(TIMES_GONE);
    let wanted = wanted(&analysis::detect(fresh, settings), fresh, settings);
    let turned = match &wanted {
        Wanted::Shard(remedy, found) => {
            let same_primary = found.tablet.is_some() && found.tablet == gone.tablet;
            again_and_again || (remedy.is_reparent() && same_primary)
        }
        Wanted::Replicas(_) => again_and_again,
        Wanted::Nothing => false,
    };
    (turned && !sabotage::has(Bug::KeepToTheFinding)).then_some(wanted)
}

/// Picks from the findings what to do now. A finding about the primary goes first; only where it has no
/// remedy of its own, or none stands, are tablets repaired. Tablets with errant GTIDs are only touched where
/// the settings want it.
pub fn wanted(
    findings: &[Finding],
    snapshot: &ShardSnapshot,
    settings: &RecoverySettings,
) -> Wanted {
    let first = findings.first().map(|finding| (remedy(finding.kind), finding));
    if let Some((chosen, finding)) = first {
        match chosen {
            Remedy::EmergencyReparent
            | Remedy::PlannedReparent
            | Remedy::FinishReparent
            | Remedy::ElectPrimary
            | Remedy::FixPrimary
            | Remedy::FixShardRecord
            | Remedy::RestartReceiver => return Wanted::Shard(chosen, finding.clone()),
            Remedy::FixReplica | Remedy::WatchOnly => {}
        }
    }
    let in_service = |alias: &TabletAlias| {
        snapshot.tablet(alias).is_some_and(|state| state.tablet.tablet_type.is_managed())
    };
    let drains = |finding: &Finding| {
        settings.drain_errant
            && finding.kind == FindingKind::ErrantGTIDDetected
            && finding.tablet.as_ref().is_some_and(in_service)
    };
    let repairs = findings
        .iter()
        .filter(|finding| remedy(finding.kind) == Remedy::FixReplica || drains(finding));
    let repairs: Vec<Finding> = repairs.cloned().collect();
    if repairs.is_empty() { Wanted::Nothing } else { Wanted::Replicas(repairs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;
    use crate::time::Timestamp;

    #[test]
    fn what_is_gone_again_and_again_turns_into_whatever_is_due_under_the_lock() {
        let alias = TabletAlias { cell: "zone1".into(), uid: 1 };
        let topology = testkit::shard(std::slice::from_ref(&alias));
        let fresh = ShardSnapshot::unprobed(&topology, Timestamp::default());
        let due = analysis::detect(&fresh, &testkit::settings()).remove(0);
        assert_eq!(due.kind, FindingKind::ClusterHasNoPrimary);
        let gone = Finding { tablet: Some(alias), ..due.clone() };
        let turned = |times| turns_into(&gone, &fresh, &testkit::settings(), times);
        for times in [0, 1, 2, 4] {
            assert_eq!(turned(times), None, "after {times} times");
        }
        for times in [TIMES_GONE, 2 * TIMES_GONE] {
            assert_eq!(turned(times), Some(Wanted::Shard(Remedy::ElectPrimary, due.clone())));
        }
    }
}
