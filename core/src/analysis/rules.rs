//! The rules: name, reason, predicate. The documentation's table is made from these rows.

use crate::analysis::FindingKind;
use crate::analysis::facts::{Facts, ReplicaFacts};

/// A rule about the shard's primary. The first that holds is the shard's finding.
pub struct Rule {
    /// The finding.
    pub kind: FindingKind,
    /// The reason, in words.
    pub why: &'static str,
    /// When it holds.
    pub holds: fn(&Facts) -> bool,
    /// Replicas may be repaired while it stands.
    pub lets_replicas_be_repaired: bool,
}

/// A rule about one replica of a primary in order. The first that holds is the replica's finding.
pub struct ReplicaRule {
    /// The finding.
    pub kind: FindingKind,
    /// The reason, in words.
    pub why: &'static str,
    /// When it holds.
    pub holds: fn(&ReplicaFacts) -> bool,
}

/// Nobody follows the primary any more, as far as everybody who can be asked says.
fn nobody_receives(facts: &Facts) -> bool {
    facts.primary_unreachable
        && facts.replicas_receiving == 0
        && facts.replicas_not_asked == 0
        && facts.others_hearing == 0
}

/// The primary is to wait for acknowledgements now: enough ackers are ready, or enough are known who are away. Those
/// that are connected and were not told to acknowledge are told first, so that no write waits for them.
fn is_to_wait(facts: &Facts) -> bool {
    let Facts { acks_required, ackers_ready, ackers_coming, ackers_possible, .. } = facts;
    let nobody_to_tell = ackers_ready + ackers_coming < *acks_required;
    ackers_ready >= acks_required || (nobody_to_tell && ackers_possible >= acks_required)
}

/// The rules about the primary, most important first.
pub const RULES: &[Rule] = &[
    Rule {
        kind: FindingKind::UnknownDurabilityPolicy,
        why: "the keyspace's durability policy is not known, so nothing can be proven safe",
        holds: |f| !f.policy_known,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::ClusterHasNoPrimary,
        why: "no tablet is PRIMARY and the shard never had a primary",
        holds: |f| f.primary.is_none() && !f.had_primary && f.has_tablets,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::PrimaryTabletDeleted,
        why: "no tablet is PRIMARY, but the shard had a primary before",
        holds: |f| {
            f.primary.is_none() && f.had_primary && f.has_tablets && !f.primary_may_be_unseen
        },
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::PrimaryDiskStalled,
        why: "the primary's vttablet says that it cannot write to its disk",
        holds: |f| f.primary_disk_stalled,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::DeadPrimaryWithoutReplicas,
        why: "the primary cannot be reached and there is no other tablet",
        holds: |f| f.primary_unreachable && f.replicas_total == 0,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::DeadPrimaryAndReplicas,
        why: "neither the primary nor any replica can be reached",
        holds: |f| nobody_receives(f) && f.replicas_valid == 0,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::DeadPrimaryAndSomeReplicas,
        why: "the primary and some replicas cannot be reached; no other replica receives from the primary",
        holds: |f| nobody_receives(f) && f.replicas_valid < f.replicas_total,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::DeadPrimary,
        why: "the primary cannot be reached and no replica receives from it",
        holds: nobody_receives,
        lets_replicas_be_repaired: false,
    },
    // What must not be handed over as it is goes before a primary that is merely too busy.
    Rule {
        kind: FindingKind::PrimaryLostTransactions,
        why: "the primary came back without the end of its binary log, which replicas have",
        holds: |f| f.primary_valid && f.primary_lost,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::UnfinishedPromotion,
        why: "another server was promoted and the records do not say so: a reparent stopped half-way",
        holds: |f| {
            f.primary_valid && (f.others_ahead || (f.primary_read_only && f.promoted_elsewhere))
        },
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::SplitBrain,
        why: "another tablet takes writes as well, and replicas follow it",
        holds: |f| f.primary_valid && f.rival_followed,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::IncapacitatedPrimary,
        why: "the primary can be reached, fails more often than it answers, other tablets answer, and replicas receive from it",
        holds: |f| f.primary_overloaded && f.replicas_receiving > 0 && !f.others_time_out,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::UnreachablePrimaryWithLaggingReplicas,
        why: "the primary cannot be reached from here; all replicas receive from it and are far behind",
        holds: |f| {
            f.primary_unreachable && f.all_receiving_lag && f.replicas_receiving == f.replicas_valid
        },
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::UnreachablePrimaryWithBrokenReplicas,
        why: "the primary cannot be reached from here; some replicas receive from it, others do not",
        holds: |f| {
            f.primary_unreachable
                && f.replicas_receiving > 0
                && f.replicas_receiving < f.replicas_valid
        },
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::UnreachablePrimary,
        why: "the primary cannot be reached from here, but replicas receive from it, or are turned away by it",
        holds: |f| f.primary_unreachable && f.replicas_receiving + f.others_hearing > 0,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::InvalidPrimary,
        why: "the primary was not reached since start, or turns us away",
        holds: |f| {
            f.primary.is_some() && !f.primary_valid && !f.primary_unreachable && f.primary_unseen
        },
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::PrimarySemiSyncBlocked,
        why: "commits wait for acknowledgements that do not come, though enough ackers are connected",
        holds: |f| {
            f.primary_valid
                && f.primary_stuck
                && f.acks_required > 0
                && f.ackers_connected >= f.acks_required
                && f.ackers_ready >= f.acks_required
        },
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::PrimaryHasPrimary,
        why: "the primary replicates from something",
        holds: |f| f.primary_valid && f.primary_has_source,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::PrimarySemiSyncMustNotBeSet,
        why: "the primary waits for acknowledgements though the policy wants none",
        holds: |f| f.primary_valid && f.acks_required == 0 && f.primary_semi_sync,
        lets_replicas_be_repaired: false,
    },
    Rule {
        kind: FindingKind::PrimarySemiSyncMustBeSet,
        why: "the policy wants acknowledgements, and the primary does not wait for them: what it acknowledges may be on \
              it alone",
        holds: |f| {
            f.primary_valid
                && f.acks_required > 0
                && f.primary_semi_sync_available
                && !f.primary_semi_sync_right
                && is_to_wait(f)
        },
        lets_replicas_be_repaired: true,
    },
    Rule {
        kind: FindingKind::PrimaryIsReadOnly,
        why: "the primary refuses writes",
        holds: |f| f.primary_valid && f.primary_read_only,
        lets_replicas_be_repaired: true,
    },
    Rule {
        kind: FindingKind::PrimaryCurrentTypeMismatch,
        why: "the primary's vttablet takes itself for something else than its record says",
        holds: |f| f.primary_valid && f.primary_type_mismatch,
        lets_replicas_be_repaired: true,
    },
    Rule {
        kind: FindingKind::ShardRecordMismatch,
        why: "the record of the shard and that of its primary do not agree",
        holds: |f| f.primary_valid && !f.record_names_primary && !f.primary_records_itself,
        lets_replicas_be_repaired: true,
    },
];

/// The rules about one replica, most important first.
pub const REPLICA_RULES: &[ReplicaRule] = &[
    ReplicaRule {
        kind: FindingKind::StaleTopoPrimary,
        why: "its record says PRIMARY with an older term than the primary's",
        holds: |r| r.stale_primary,
    },
    ReplicaRule {
        kind: FindingKind::ReplicaIsWritable,
        why: "it takes writes and is not the primary",
        holds: |r| r.writable,
    },
    ReplicaRule {
        kind: FindingKind::NotConnectedToPrimary,
        why: "it has no source",
        holds: |r| !r.only_fenced && !r.connected,
    },
    ReplicaRule {
        kind: FindingKind::ConnectedToWrongPrimary,
        why: "its source is not the primary",
        holds: |r| !r.only_fenced && r.wrong_source,
    },
    ReplicaRule {
        kind: FindingKind::ReplicaCannotConnect,
        why: "it does not get what the primary sends: its receiver says why",
        holds: |r| !r.only_fenced && r.cannot_connect,
    },
    ReplicaRule {
        kind: FindingKind::ReplicationStopped,
        why: "its receiver or applier does not run",
        holds: |r| !r.only_fenced && r.stopped,
    },
    ReplicaRule {
        kind: FindingKind::ReplicaMisconfigured,
        why: "it expects heartbeats so seldom that a silent source would show late, or gives up for good when its source is \
              away for less than an hour",
        holds: |r| !r.only_fenced && (r.heartbeats_too_rare || r.gives_up_soon),
    },
    ReplicaRule {
        kind: FindingKind::ReplicaSemiSyncMustBeSet,
        why: "the policy wants it to acknowledge and it does not",
        holds: |r| {
            let acks = r.semi_sync && !r.semi_sync_idle;
            !r.only_fenced && r.semi_sync_wanted && !acks && r.semi_sync_available
        },
    },
    ReplicaRule {
        kind: FindingKind::ReplicaSemiSyncMustNotBeSet,
        why: "it acknowledges and is not to: the policy does not want it to, or it has errant GTIDs and enough others \
              acknowledge",
        holds: |r| !r.only_fenced && !r.semi_sync_wanted && r.semi_sync,
    },
    ReplicaRule {
        kind: FindingKind::ReplicaCannotApply,
        why: "its applier stopped on an error: the server says which",
        holds: |r| !r.only_fenced && r.cannot_apply,
    },
];
