//! What is counted. Names and labels are VTOrc's where it has them, so that its dashboards go on working.

use std::collections::BTreeMap;
use std::time::Duration;

use vtorc_actors::board::Board;
use vtorc_actors::counters::EndedKey;
use vtorc_actors::services::Services;
use vtorc_core::analysis::FindingKind;
use vtorc_core::analysis::errant_gtids;
use vtorc_core::audit::OutcomeKind;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::remedy::remedy;

/// What a figure is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up, from the process's start.
    Counter,
}

/// One figure, by its labels.
pub(super) struct Family {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) values: Vec<(Vec<String>, u64)>,
}

impl Family {
    fn single(name: &'static str, help: &'static str, value: u64) -> Self {
        let (kind, values) = (Kind::Gauge, vec![(Vec::new(), value)]);
        Self { kind, name, help, labels: &[], values }
    }

    fn of(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        values: impl IntoIterator<Item = (Vec<String>, u64)>,
    ) -> Self {
        let kind = Kind::Gauge;
        Self { kind, name, help, labels, values: values.into_iter().collect() }
    }

    /// It only goes up.
    fn counted(self) -> Self {
        Self { kind: Kind::Counter, ..self }
    }
}

/// All figures, as they are now.
pub(super) fn families(services: &Services, up: Duration) -> Vec<Family> {
    let mut families = of_process(services);
    let up = u64::try_from(up.as_nanos()).unwrap_or(u64::MAX);
    families.push(Family::single("Uptime", "Nanoseconds since the process began.", up));
    families.extend(of_shards(&services.board));
    families.extend(of_tablets(&services.board));
    families.extend(of_recoveries(&services.board));
    families
}

fn of_process(services: &Services) -> Vec<Family> {
    let board = &services.board;
    let (probes, failures) = board.counters.probe_counts();
    let topology_readable = u64::from(board.system().topology_error.is_none());
    let isolated = u64::from(board.isolated(services.clock.now()).is_some());
    let running = board.running().len() as u64;
    let actors = board.meters.actors();
    let restarts = actors.iter().map(|actor| actor.restarts).sum();
    let dropped = actors.iter().map(|actor| actor.dropped).sum();
    let late = board.counters.late_probes();
    let enabled = u64::from(services.recoveries_enabled());
    vec![
        Family::single("Probes", "Probes sent.", probes).counted(),
        Family::single("ProbeFailures", "Probes that failed.", failures).counted(),
        Family::single("DiscoveriesAttempt", "Probes sent.", probes).counted(),
        Family::single("DiscoveriesFail", "Probes that failed.", failures).counted(),
        Family::single("InstancePollSecondsExceeded", "Probes without an answer in time.", late)
            .counted(),
        Family::single(
            "DiscoveriesInstancePollSecondsExceeded",
            "Probes without an answer in time.",
            late,
        )
        .counted(),
        Family::single("RecoveriesEnabled", "Automatic recoveries are on.", enabled),
        Family::single("TopologyReadable", "The topology can be read.", topology_readable),
        Family::single("Isolated", "vtorc doubts its own sight.", isolated),
        Family::single("PendingRecoveries", "Recoveries that run now.", running),
        Family::single(
            "ShardLocksActive",
            "Recoveries that have, or wait for, a shard's lock.",
            running,
        ),
        Family::single("ActorRestarts", "Restarts of actors.", restarts).counted(),
        Family::single("MessagesDropped", "Messages that found a mailbox full.", dropped).counted(),
    ]
}

const SHARD: &[&str] = &["Keyspace", "Shard"];

fn of_shards(board: &Board) -> Vec<Family> {
    let (mut problems, mut writable, mut no_emergency) = (Vec::new(), Vec::new(), Vec::new());
    let mut standing: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for report in board.shards() {
        let snapshot = &report.snapshot;
        let shard = || vec![snapshot.shard.keyspace.clone(), snapshot.shard.shard.clone()];
        for decision in report.decisions.standing() {
            let why = decision.held.inaction.name().to_owned();
            *standing.entry([vec![why], shard()].concat()).or_default() += 1;
        }
        for finding in &report.findings {
            let tablet = finding.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
            problems.push(([vec![finding.kind.to_string(), tablet], shard()].concat(), 1));
        }
        let serves = snapshot
            .primary()
            .and_then(|state| state.valid_status())
            .is_some_and(|status| status.is_writable());
        writable.push((shard(), u64::from(serves)));
        no_emergency.push((shard(), u64::from(snapshot.emergency_reparent_disabled)));
    }
    vec![
        Family::of(
            "DetectedProblems",
            "Findings that stand now.",
            &["Analysis", "TabletAlias", "Keyspace", "Shard"],
            problems,
        ),
        Family::of(
            "NotRecovering",
            "Findings that are not acted on.",
            &["Reason", "Keyspace", "Shard"],
            standing,
        ),
        Family::of(
            "ShardWritable",
            "The shard has a reachable, writable primary.",
            SHARD,
            writable,
        ),
        Family::of(
            "EmergencyReparentShardDisabled",
            "The shard's or keyspace's record forbids emergency reparents.",
            SHARD,
            no_emergency,
        ),
    ]
}

fn of_tablets(board: &Board) -> Vec<Family> {
    let mut tablets: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut by_cell: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut by_shard: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut errant = BTreeMap::new();
    for report in board.shards() {
        let snapshot = &report.snapshot;
        let (shard, primary) = (&snapshot.shard, snapshot.primary());
        for (alias, state) in &snapshot.tablets {
            let kind = state.tablet.tablet_type.name().to_owned();
            *tablets.entry(vec![kind, state.reachability.is_valid().to_string()]).or_default() += 1;
            *by_cell.entry(vec![alias.cell.clone()]).or_default() += 1;
            let shard = vec![shard.keyspace.clone(), shard.shard.clone()];
            *by_shard.entry(shard).or_default() += 1;
            if let Some(set) = primary.and_then(|primary| errant_gtids(state, primary)) {
                errant.insert(vec![alias.to_string()], set.count());
            }
        }
    }
    let with_errant = errant.len() as u64;
    vec![
        Family::of("Tablets", "Tablets watched.", &["type", "reachable"], tablets),
        Family::of("TabletsWatchedByCell", "Tablets watched.", &["Cell"], by_cell),
        Family::of("TabletsWatchedByShard", "Tablets watched.", SHARD, by_shard),
        Family::single("ErrantGtidTabletCount", "Tablets with errant GTIDs.", with_errant),
        Family::of(
            "CurrentErrantGTIDCount",
            "Errant GTIDs of each tablet that has some.",
            &["TabletAlias"],
            errant,
        ),
    ]
}

/// What VTOrc calls a recovery, by what is done for which finding.
fn vtorc_name(kind: RecoveryKind, finding: Option<FindingKind>) -> &'static str {
    use FindingKind as Found;
    match (kind, finding) {
        (
            RecoveryKind::EmergencyReparent | RecoveryKind::PlannedReparent,
            Some(Found::IncapacitatedPrimary),
        ) => "RecoverIncapacitatedPrimary",
        (RecoveryKind::EmergencyReparent, Some(Found::PrimaryTabletDeleted)) => {
            "RecoverPrimaryTabletDeleted"
        }
        (RecoveryKind::EmergencyReparent, _) => "RecoverDeadPrimary",
        (RecoveryKind::ElectPrimary, _) => "ElectNewPrimary",
        (RecoveryKind::FixPrimary, Some(Found::PrimaryHasPrimary)) => "RecoverPrimaryHasPrimary",
        (RecoveryKind::FixReplica, Some(Found::StaleTopoPrimary)) => "ReconcileStaleTopoPrimary",
        (RecoveryKind::RestartReceiver, Some(Found::UnreachablePrimaryWithBrokenReplicas)) => {
            "RestartAllDirectReplicas"
        }
        (RecoveryKind::RestartReceiver, _) => "RestartArbitraryDirectReplica",
        (RecoveryKind::DrainErrant, _) => "RecoverErrantGTIDDetected",
        (other, _) => other.name(),
    }
}

/// The two reparents that VTOrc counts.
enum Reparent {
    Emergency,
    Planned,
}

fn vtorc_reparent(kind: RecoveryKind) -> Option<Reparent> {
    match kind {
        RecoveryKind::EmergencyReparent => Some(Reparent::Emergency),
        RecoveryKind::PlannedReparent => Some(Reparent::Planned),
        RecoveryKind::FinishReparent
        | RecoveryKind::ElectPrimary
        | RecoveryKind::FixPrimary
        | RecoveryKind::FixReplica
        | RecoveryKind::RestartReceiver
        | RecoveryKind::FixShardRecord
        | RecoveryKind::DrainErrant
        | RecoveryKind::InjectErrant
        | RecoveryKind::Forget => None,
    }
}

/// Nothing where there was nothing to be done.
fn succeeded(outcome: OutcomeKind) -> Option<bool> {
    match outcome {
        OutcomeKind::Succeeded => Some(true),
        OutcomeKind::AlreadyFixed | OutcomeKind::Preempted => None,
        OutcomeKind::Refused
        | OutcomeKind::Failed
        | OutcomeKind::Undone
        | OutcomeKind::Unclear
        | OutcomeKind::Interrupted => Some(false),
    }
}

fn of_recoveries(board: &Board) -> Vec<Family> {
    let (mut successful, mut failed, mut all) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut emergency, mut planned) = (BTreeMap::new(), BTreeMap::new());
    for (EndedKey { kind, finding, shard, outcome }, count) in board.counters.recovery_counts() {
        let labels = of_shard(vtorc_name(kind, finding), &shard);
        *all.entry(labels.clone()).or_insert(0) += count;
        let Some(succeeded) = succeeded(outcome) else { continue };
        let counted = if succeeded { &mut successful } else { &mut failed };
        *counted.entry(labels).or_insert(0) += count;
        let reparents = match vtorc_reparent(kind) {
            Some(Reparent::Emergency) => &mut emergency,
            Some(Reparent::Planned) => &mut planned,
            None => continue,
        };
        let result = if succeeded { "success" } else { "failure" };
        let labels = vec![shard.keyspace, shard.shard, result.to_owned()];
        *reparents.entry(labels).or_insert(0) += count;
    }
    const RECOVERY: &[&str] = &["RecoveryType", "Keyspace", "Shard"];
    const REPARENT: &[&str] = &["Keyspace", "Shard", "Result"];
    let held = board.counters.held_counts().into_iter();
    let held = held.map(|((finding, why, shard), count)| {
        let remedy = remedy(finding);
        let recovery = match remedy.recovery() {
            Some(kind) => vtorc_name(kind, Some(finding)),
            None => remedy.name(),
        };
        ([of_shard(recovery, &shard), vec![why.name().to_owned()]].concat(), count)
    });
    let detected = board.counters.detected_counts().into_iter();
    let detected =
        detected.map(|((finding, shard), count)| (of_shard(&finding.to_string(), &shard), count));
    vec![
        Family::of("RecoveriesCount", "Recoveries that ended.", RECOVERY, all).counted(),
        Family::of("SuccessfulRecoveries", "Recoveries that succeeded.", RECOVERY, successful)
            .counted(),
        Family::of("FailedRecoveries", "Recoveries that did not.", RECOVERY, failed).counted(),
        Family::of(
            "SkippedRecoveries",
            "Decisions not to act.",
            &["RecoveryType", "Keyspace", "Shard", "Reason"],
            held,
        )
        .counted(),
        Family::of("EmergencyReparentCounts", "Emergency reparents.", REPARENT, emergency)
            .counted(),
        Family::of("PlannedReparentCounts", "Planned reparents.", REPARENT, planned).counted(),
        Family::of(
            "FindingsDetected",
            "Findings that appeared.",
            &["Analysis", "Keyspace", "Shard"],
            detected,
        )
        .counted(),
    ]
}

/// The labels of what is counted for a shard: what, keyspace, shard.
fn of_shard(what: &str, shard: &KeyspaceShard) -> Vec<String> {
    vec![what.to_owned(), shard.keyspace.clone(), shard.shard.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recoveries_have_the_names_of_vtorcs() {
        for (kind, finding, name) in [
            ("EmergencyReparent", "DeadPrimary", "RecoverDeadPrimary"),
            ("EmergencyReparent", "PrimaryTabletDeleted", "RecoverPrimaryTabletDeleted"),
            ("PlannedReparent", "IncapacitatedPrimary", "RecoverIncapacitatedPrimary"),
            ("PlannedReparent", "", "PlannedReparent"),
            ("FixPrimary", "PrimaryIsReadOnly", "FixPrimary"),
            ("FixPrimary", "PrimaryHasPrimary", "RecoverPrimaryHasPrimary"),
            ("FixReplica", "StaleTopoPrimary", "ReconcileStaleTopoPrimary"),
            ("RestartReceiver", "UnreachablePrimary", "RestartArbitraryDirectReplica"),
            ("RestartReceiver", "UnreachablePrimaryWithBrokenReplicas", "RestartAllDirectReplicas"),
        ] {
            let kind = RecoveryKind::from_name(kind).unwrap();
            assert_eq!(vtorc_name(kind, FindingKind::from_name(finding)), name);
        }
    }
}
