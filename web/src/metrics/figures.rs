//! What is counted. Names and labels are VTOrc's where it has them, so that its dashboards go on working.

use std::collections::BTreeMap;

use vtorc_actors::board::Board;
use vtorc_actors::world::World;
use vtorc_core::analysis::errant_gtids;

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
pub(super) fn families(world: &World) -> Vec<Family> {
    let mut families = of_process(world);
    families.extend(of_shards(&world.board));
    families.extend(of_recoveries(&world.board));
    families
}

fn of_process(world: &World) -> Vec<Family> {
    let board = &world.board;
    let (probes, failures) = board.probe_counts();
    let topology_readable = u64::from(board.system().topology_error.is_none());
    let isolated = u64::from(board.isolated(world.clock.now()).is_some());
    let running = board.running().len() as u64;
    let actors = board.actors();
    let restarts = actors.iter().map(|actor| actor.restarts).sum();
    let dropped = actors.iter().map(|actor| actor.dropped).sum();
    let late = board.late_probes();
    let enabled = u64::from(world.recoveries_enabled());
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

fn of_shards(board: &Board) -> Vec<Family> {
    let (mut problems, mut writable) = (Vec::new(), Vec::new());
    let mut tablets: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut standing: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut by_cell: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut by_shard: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut errant = 0;
    for report in board.shards() {
        let snapshot = &report.snapshot;
        let name = &snapshot.shard;
        let shard = || vec![name.keyspace.clone(), name.shard.clone()];
        for decision in report.decisions.standing() {
            let why = decision.held.inaction.name().to_owned();
            *standing.entry([vec![why], shard()].concat()).or_default() += 1;
        }
        for finding in &report.findings {
            let tablet = finding.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
            problems.push(([vec![finding.kind.to_string(), tablet], shard()].concat(), 1));
        }
        let primary = snapshot.primary();
        let serves = primary
            .and_then(|state| state.valid_status())
            .is_some_and(|status| status.is_writable());
        writable.push((shard(), u64::from(serves)));
        for state in snapshot.tablets.values() {
            let kind = state.tablet.tablet_type.name().to_owned();
            *tablets.entry(vec![kind, state.reachability.is_valid().to_string()]).or_default() += 1;
            *by_cell.entry(vec![state.tablet.alias.cell.clone()]).or_default() += 1;
            *by_shard.entry(shard()).or_default() += 1;
            errant += u64::from(primary.and_then(|primary| errant_gtids(state, primary)).is_some());
        }
    }
    const SHARD: &[&str] = &["Keyspace", "Shard"];
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
        Family::of("Tablets", "Tablets watched.", &["type", "reachable"], tablets),
        Family::of("TabletsWatchedByCell", "Tablets watched.", &["Cell"], by_cell),
        Family::of("TabletsWatchedByShard", "Tablets watched.", SHARD, by_shard),
        Family::single("ErrantGtidTabletCount", "Tablets with errant GTIDs.", errant),
    ]
}

/// What VTOrc calls a recovery of this kind.
fn vtorc_name(kind: &str) -> &str {
    match kind {
        "EmergencyReparent" => "RecoverDeadPrimary",
        "ElectPrimary" => "ElectNewPrimary",
        "RestartReceiver" => "RestartArbitraryDirectReplica",
        other => other,
    }
}

fn of_recoveries(board: &Board) -> Vec<Family> {
    let (mut successful, mut failed, mut all) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut emergency, mut planned) = (BTreeMap::new(), BTreeMap::new());
    for ((kind, shard, outcome), count) in board.recovery_counts() {
        let labels = of_shard(vtorc_name(&kind), &shard);
        *all.entry(labels.clone()).or_insert(0) += count;
        let succeeded = match outcome.as_str() {
            "succeeded" => true,
            "already_fixed" | "preempted" => continue,
            _ => false,
        };
        let counted = if succeeded { &mut successful } else { &mut failed };
        *counted.entry(labels).or_insert(0) += count;
        let reparents = match kind.as_str() {
            "EmergencyReparent" => &mut emergency,
            "PlannedReparent" => &mut planned,
            _ => continue,
        };
        let result = if succeeded { "success" } else { "failure" };
        let (keyspace, shard) = shard.split_once('/').unwrap_or((&shard, ""));
        let labels = vec![keyspace.to_owned(), shard.to_owned(), result.to_owned()];
        *reparents.entry(labels).or_insert(0) += count;
    }
    const RECOVERY: &[&str] = &["RecoveryType", "Keyspace", "Shard"];
    const REPARENT: &[&str] = &["Keyspace", "Shard", "Result"];
    let held = board.held_counts().into_iter();
    let held = held.map(|((remedy, why, shard), count)| {
        let recovery = vtorc_name(remedy.name()).to_owned();
        (vec![recovery, shard.keyspace, shard.shard, why.name().to_owned()], count)
    });
    let detected = board.detected_counts().into_iter();
    let detected = detected.map(|((finding, shard), count)| (of_shard(&finding, &shard), count));
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
fn of_shard(what: &str, shard: &str) -> Vec<String> {
    let (keyspace, shard) = shard.split_once('/').unwrap_or((shard, ""));
    vec![what.to_owned(), keyspace.to_owned(), shard.to_owned()]
}
