//! The facts about one replica of a primary that is in order.

use std::time::Duration;

use super::ackers::is_to_acknowledge;
use crate::analysis::evidence::{Age, Evidence, Setting};
use crate::durability::DurabilityPolicy;
use crate::ids::TabletAlias;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;
use crate::status::{Flavor, ReceiverErrorKind, ReceiverState, ReplicationStatus, ServerStatus};
use crate::tablet::TabletType;

/// What the replica rules look at.
#[derive(Clone, Debug)]
pub struct ReplicaFacts {
    /// Which tablet.
    pub alias: TabletAlias,
    /// Its record says PRIMARY, with an older term than the primary's.
    pub stale_primary: bool,
    /// It takes writes.
    pub writable: bool,
    /// Nothing but its writability is vtorc's business: it is taken out of service or taking a backup.
    pub only_fenced: bool,
    /// It has a source.
    pub connected: bool,
    /// Its source is not the primary.
    pub wrong_source: bool,
    /// Its source is the primary, which is there, and does not let its receiver in.
    pub cannot_connect: bool,
    /// Its source is the primary, and its applier stopped on an error.
    pub cannot_apply: bool,
    /// Its receiver or applier does not run, and might.
    pub stopped: bool,
    /// It expects heartbeats too seldom.
    pub heartbeats_too_rare: bool,
    /// It gives up for good when its source is away for a while.
    pub gives_up_soon: bool,
    /// It acknowledges.
    pub semi_sync: bool,
    /// It was told to acknowledge, does not, and the primary has too few who do: its receiver was not
    /// started anew since.
    pub semi_sync_idle: bool,
    /// The policy wants it to acknowledge.
    pub semi_sync_wanted: bool,
    /// It can acknowledge at all.
    pub semi_sync_available: bool,
    /// The observations.
    pub evidence: Vec<Evidence>,
}

/// Draws the facts about one replica; none if its server did not answer the last probe.
pub fn replica_facts(
    replica: &TabletState,
    primary: &TabletState,
    policy: DurabilityPolicy,
    settings: &RecoverySettings,
    snapshot: &ShardSnapshot,
) -> Option<ReplicaFacts> {
    let status = replica.valid_status()?;
    let source = primary.valid_status()?;
    let replication = status.replication.as_ref();
    let wrong_source = replication.is_some_and(|replication| {
        let address = primary.tablet.mysql.as_ref();
        // Until it has connected, a receiver shows the uuid of the source before.
        let on_its_way = replication.receiver != ReceiverState::Running
            && address.is_some_and(|address| *address == replication.source);
        !on_its_way && !source.is_source_of(replication, address)
    });
    // Only of a tablet that is in service is more asked than that clients cannot write to it: what is done with one
    // that is taken out of service, by whom, is not vtorc's business.
    let in_service =
        replica.tablet.tablet_type.is_managed() || sabotage::has(Bug::FenceWhatIsFenced);
    let writable = status.is_writable()
        || (in_service
            && settings.use_super_read_only
            && status.flavor == Flavor::MySql
            && !status.super_read_only);
    Some(ReplicaFacts {
        alias: replica.tablet.alias.clone(),
        stale_primary: replica.tablet.tablet_type == TabletType::Primary,
        writable,
        only_fenced: !replica.tablet.tablet_type.is_managed(),
        connected: replication.is_some(),
        wrong_source,
        cannot_connect: !wrong_source && replication.is_some_and(is_turned_away),
        cannot_apply: !wrong_source
            && replication.is_some_and(|r| !r.applier_running && r.applier_error.is_some()),
        stopped: replication.is_some_and(|replication| {
            let receiver_stands = replication.receiver == ReceiverState::Stopped;
            let applier_stands =
                !replication.applier_running && replication.applier_error.is_none();
            (receiver_stands && status.needs_purged(source).is_none()) || applier_stands
        }),
        // A period that is not known, or off where that cannot be seen, is nobody's fault.
        heartbeats_too_rare: replication
            .is_some_and(|r| r.heartbeats_too_rare(settings.heartbeat_period) == Some(true)),
        // A vttablet sets this as it sees fit, whoever asks it to repoint.
        gives_up_soon: replication
            .filter(|_| replica.tablet.vttablet.is_none())
            .and_then(|replication| replication.gives_up_after_s)
            .is_some_and(|seconds| Duration::from_secs(seconds) < TRIES_FOR_MIN),
        semi_sync: status.semi_sync.replica_enabled,
        semi_sync_idle: status.semi_sync.replica_enabled
            && !status.semi_sync.replica_active
            && source.semi_sync.source_enabled
            && source.semi_sync.clients < source.semi_sync.wait_count
            && replication.is_some_and(|r| r.receiver == ReceiverState::Running),
        semi_sync_wanted: is_to_acknowledge(replica, primary, policy, snapshot),
        semi_sync_available: status.semi_sync.replica_available,
        evidence: replica_evidence(replica, status, snapshot),
    })
}

/// The source answers its receiver and does not let it in, or ends what it began. That histories differ, that logs
/// are purged and that nobody answers is told by other findings.
fn is_turned_away(replication: &ReplicationStatus) -> bool {
    let error = replication.receiver_error.as_ref();
    let error = error.filter(|_| replication.receiver != ReceiverState::Running);
    error.is_some_and(|error| match error.kind {
        ReceiverErrorKind::Denied
        | ReceiverErrorKind::DuplicateServerId
        | ReceiverErrorKind::PacketTooLarge
        | ReceiverErrorKind::Other => true,
        ReceiverErrorKind::Diverged
        | ReceiverErrorKind::Purged
        | ReceiverErrorKind::Unreachable => false,
    })
}

/// A source may be away for so long, and vtorc with it: then nobody but the replica itself goes back. (MySQL gives up
/// after ten tries since 8.4.)
const TRIES_FOR_MIN: Duration = Duration::from_secs(3600);

/// The transactions of a replica that did not come from its primary.
///
/// A replica that was probed a moment later than its primary may have more than that probe saw: its own word of before
/// counts, and the primary's own transactions never do.
pub fn errant_gtids(replica: &TabletState, primary: &TabletState) -> Option<crate::gtid::GtidSet> {
    if replica.tablet.alias == primary.tablet.alias {
        return None;
    }
    let (status, source) = (replica.valid_status()?, primary.valid_status()?);
    // What it said before it was promoted says nothing of what it has as the primary.
    if source.replication.is_some() && !source.is_writable() {
        return None;
    }
    match (status.flavor, &source.server_uuid) {
        (Flavor::MySql, Some(uuid)) => {
            let extra = status.gtid_executed.subtract(&source.gtid_executed).without_source(uuid);
            let extra = source.without_pulled(&extra, std::iter::once(status.identity()));
            if extra.is_empty() {
                return None;
            }
            let had = replica.word_before(primary.status_at)?;
            Some(extra.intersect(&had.gtid_executed)).filter(|extra| !extra.is_empty())
        }
        // MariaDB's positions do not tell which transactions lie below them: only what was seen to be written counts.
        // A server that cannot follow because of it says so itself (error 1236).
        (Flavor::MariaDb, _) => replica.own_writes.unknown_to(status, std::iter::once(source)),
        (Flavor::MySql, _) => None,
    }
}

fn replica_evidence(
    replica: &TabletState,
    status: &ServerStatus,
    snapshot: &ShardSnapshot,
) -> Vec<Evidence> {
    let settings = Setting::Replica {
        read_only: status.read_only,
        super_read_only: status.super_read_only,
        acknowledges: status.semi_sync.replica_enabled,
    };
    let answered = Age::Answered(replica.status_at.age(snapshot.now));
    let mut evidence = vec![settings.here().aged(answered)];
    let Some(channel) = &status.replication else {
        evidence.push(Setting::NoSource.here());
        return evidence;
    };
    let source = Setting::Source {
        address: channel.source.clone(),
        receiver: channel.receiver,
        applies: channel.applier_running,
    };
    evidence.push(source.here());
    let receiver = channel.receiver_error.clone().map(Setting::ReceiverFails);
    let applier = channel.applier_error.clone();
    let errors = receiver.into_iter().chain(applier.map(Setting::ApplierFails));
    evidence.extend(errors.map(Setting::here));
    evidence
}
