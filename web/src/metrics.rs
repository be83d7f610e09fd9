//! The same figures for Prometheus. Names follow VTOrc's where it has them.

use actix_web::{HttpRequest, HttpResponse, web};
use prometheus::{Encoder, IntGaugeVec, Opts, Registry, TextEncoder};
use std::collections::BTreeMap;
use vtorc_actors::board::Board;
use vtorc_actors::world::World;

use crate::error::ApiError;
use crate::server::WebContext;

pub(crate) async fn metrics(
    request: HttpRequest,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    context.access.may_read(&request)?;
    let text = render(&context.world).map_err(|error| ApiError::unavailable(error.to_string()))?;
    Ok(HttpResponse::Ok().insert_header(("Content-Type", "text/plain; version=0.0.4")).body(text))
}

/// Builds the page anew from the board at each scrape: nothing is counted twice.
fn render(world: &World) -> prometheus::Result<Vec<u8>> {
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let board = &world.board;
    shards(&registry, board)?;
    counts(&registry, board)?;
    let (probes, failures) = board.probe_counts();
    let system = board.system();
    let singles = [
        ("vtorc_probes", "Probes sent.", probes),
        ("vtorc_probe_failures", "Probes that failed.", failures),
        (
            "vtorc_recoveries_enabled",
            "Automatic recoveries are on.",
            u64::from(world.recoveries_enabled()),
        ),
        (
            "vtorc_topology_readable",
            "The topology can be read.",
            u64::from(system.topology_error.is_none()),
        ),
        (
            "vtorc_isolated",
            "vtorc doubts its own sight.",
            u64::from(board.isolated(world.clock.now()).is_some()),
        ),
        ("vtorc_pending_recoveries", "Recoveries that run now.", board.running().len() as u64),
    ];
    for (name, help, value) in singles {
        family(&registry, name, help, &[], [(Vec::new(), value)])?;
    }
    let actors = board.actors();
    let restarts: u64 = actors.iter().map(|actor| actor.restarts).sum();
    let dropped: u64 = actors.iter().map(|actor| actor.dropped).sum();
    family(
        &registry,
        "vtorc_actor_restarts",
        "Restarts of actors.",
        &[],
        [(Vec::new(), restarts)],
    )?;
    family(
        &registry,
        "vtorc_messages_dropped",
        "Messages that found a mailbox full.",
        &[],
        [(Vec::new(), dropped)],
    )?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

fn shards(registry: &Registry, board: &Board) -> prometheus::Result<()> {
    let mut problems = Vec::new();
    let mut writable = Vec::new();
    let mut tablets: BTreeMap<(&'static str, bool), u64> = BTreeMap::new();
    let mut standing: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for report in board.shards() {
        let snapshot = &report.snapshot;
        let name = &snapshot.shard;
        for decision in report.decisions.standing() {
            let why = decision.held.inaction.name().to_owned();
            *standing.entry(vec![why, name.keyspace.clone(), name.shard.clone()]).or_default() += 1;
        }
        for finding in &report.findings {
            let tablet = finding.tablet.as_ref().map(ToString::to_string).unwrap_or_default();
            let labels =
                [finding.kind.to_string(), tablet, name.keyspace.clone(), name.shard.clone()];
            problems.push((labels.to_vec(), 1));
        }
        let serves = snapshot
            .primary()
            .and_then(|state| state.valid_status())
            .is_some_and(|s| s.is_writable());
        writable.push((vec![name.keyspace.clone(), name.shard.clone()], u64::from(serves)));
        for state in snapshot.tablets.values() {
            let key = (state.tablet.tablet_type.name(), state.reachability.is_valid());
            *tablets.entry(key).or_default() += 1;
        }
    }
    let tablets = tablets
        .into_iter()
        .map(|((kind, up), count)| (vec![kind.to_owned(), up.to_string()], count));
    let labels = ["Analysis", "TabletAlias", "Keyspace", "Shard"];
    family(registry, "vtorc_detected_problems", "Findings that stand now.", &labels, problems)?;
    let labels = ["Reason", "Keyspace", "Shard"];
    family(registry, "vtorc_not_recovering", "Findings that are not acted on.", &labels, standing)?;
    let help = "The shard has a reachable, writable primary.";
    family(registry, "vtorc_shard_writable", help, &["Keyspace", "Shard"], writable)?;
    family(registry, "vtorc_tablets", "Tablets watched.", &["type", "reachable"], tablets)
}

fn counts(registry: &Registry, board: &Board) -> prometheus::Result<()> {
    let (mut successful, mut failed, mut all) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for ((kind, shard, outcome), count) in board.recovery_counts() {
        let labels = of_shard(kind, &shard);
        *all.entry(labels.clone()).or_insert(0) += count;
        match outcome.as_str() {
            "succeeded" => *successful.entry(labels).or_insert(0) += count,
            "already_fixed" | "preempted" => {}
            _ => *failed.entry(labels).or_insert(0) += count,
        }
    }
    let labels = ["RecoveryType", "Keyspace", "Shard"];
    family(registry, "vtorc_recoveries_count", "Recoveries that ended.", &labels, all)?;
    family(
        registry,
        "vtorc_successful_recoveries",
        "Recoveries that succeeded.",
        &labels,
        successful,
    )?;
    family(registry, "vtorc_failed_recoveries", "Recoveries that did not.", &labels, failed)?;
    let held = board.held_counts().into_iter();
    let held = held.map(|((why, shard), count)| (of_shard(why.to_owned(), &shard), count));
    let reasons = ["Reason", "Keyspace", "Shard"];
    family(registry, "vtorc_skipped_recoveries", "Decisions not to act.", &reasons, held)?;
    let detected = board.detected_counts().into_iter();
    let detected = detected.map(|((finding, shard), count)| (of_shard(finding, &shard), count));
    let labels = ["Analysis", "Keyspace", "Shard"];
    family(registry, "vtorc_findings_detected", "Findings that appeared.", &labels, detected)
}

/// The labels of what is counted for a shard: what, keyspace, shard.
fn of_shard(what: String, shard: &str) -> Vec<String> {
    let (keyspace, shard) = shard.split_once('/').unwrap_or((shard, ""));
    vec![what, keyspace.to_owned(), shard.to_owned()]
}

fn family(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    values: impl IntoIterator<Item = (Vec<String>, u64)>,
) -> prometheus::Result<()> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
    for (labels, value) in values {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        gauges.get_metric_with_label_values(&labels)?.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    registry.register(Box::new(gauges))
}
