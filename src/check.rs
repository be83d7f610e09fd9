//! `vtorc check`: tells before the bad day what would go wrong on it. Reads the topology, asks every server,
//! changes nothing; the exit status says how bad it is.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use vtorc_actors::preflight::examine;
use vtorc_clients::mysql::WorkerPool;
use vtorc_core::ports::TopoPort;
use vtorc_core::preflight::{Concern, Severity};
use vtorc_core::topology::TopologyRead;

use crate::cli::{CheckOptions, DaemonOptions};
use crate::topo::say;
use crate::{Failure, config, wiring};

/// There are warnings.
const WARNINGS: u8 = 3;
/// There are errors.
const ERRORS: u8 = 4;

/// Checks every shard that is watched.
pub(crate) fn run(options: &DaemonOptions, check: &CheckOptions) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::while_doing("start", error))?;
    runtime.block_on(check_all(options, check))
}

async fn check_all(options: &DaemonOptions, check: &CheckOptions) -> Result<ExitCode, Failure> {
    let loaded = config::load(options.config.as_deref())?;
    let settings = wiring::settings(&loaded.config, options)?;
    let store = wiring::topo_store(options, settings.recovery.default_durability)?;
    let mysql = WorkerPool::new(Arc::new(loaded.config.mysql_access()?));
    let read = store.read(&settings.watched).await?;
    let mut report = Vec::new();
    let mut worst = None;
    for warning in loaded.warnings {
        worst = worst.min_or(Severity::Warning);
        report.push(json!({"severity": "warning", "code": "Configuration", "what": warning}));
    }
    for (place, why) in unread(&read) {
        worst = worst.min_or(Severity::Error);
        report.push(
            json!({"severity": "error", "code": "Topology", "what": format!("{place}: {why}")}),
        );
    }
    for topology in read.shards.values() {
        let now = wiring::wall_clock();
        for concern in examine(&mysql, topology, &settings.recovery, now).await {
            worst = worst.min_or(concern.severity);
            report.push(view(&topology.shard.to_string(), &concern));
        }
    }
    if check.json {
        say(&serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        tell(&report, read.shards.len());
    }
    Ok(match worst {
        None => ExitCode::SUCCESS,
        Some(Severity::Warning) => ExitCode::from(WARNINGS),
        Some(Severity::Error) => ExitCode::from(ERRORS),
    })
}

/// What could not be read is what nobody would repair.
fn unread(read: &TopologyRead) -> Vec<(String, String)> {
    let cells = read.unread_cells.iter().map(|(cell, why)| (format!("cell {cell}"), why.clone()));
    let keyspaces = read.unread_keyspaces.iter();
    let keyspaces = keyspaces.map(|(name, why)| (format!("keyspace {name}"), why.clone()));
    let damaged = read.damaged.iter().map(|(path, why)| (path.clone(), why.clone()));
    cells.chain(keyspaces).chain(damaged).collect()
}

/// Keeps the worse of two.
trait Worse {
    fn min_or(self, other: Severity) -> Self;
}

impl Worse for Option<Severity> {
    fn min_or(self, other: Severity) -> Self {
        Some(self.map_or(other, |worst| worst.min(other)))
    }
}

fn view(shard: &str, concern: &Concern) -> serde_json::Value {
    json!({
        "severity": concern.severity.to_string(),
        "shard": shard,
        "tablet": concern.tablet.as_ref().map(ToString::to_string),
        "code": concern.code,
        "what": concern.what,
        "cure": concern.cure,
    })
}

fn tell(report: &[serde_json::Value], shards: usize) {
    let text = |one: &serde_json::Value, key: &str| {
        one.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    for one in report {
        let place: Vec<String> = ["shard", "tablet"]
            .iter()
            .map(|key| text(one, key))
            .filter(|part| !part.is_empty())
            .collect();
        let (severity, code) = (text(one, "severity"), text(one, "code"));
        say(&format!("{severity:<8} {}  {code}: {}", place.join(" "), text(one, "what")));
        let cure = text(one, "cure");
        if !cure.is_empty() {
            say(&format!("         -> {cure}"));
        }
    }
    let errors = report.iter().filter(|one| text(one, "severity") == "error").count();
    say(&format!("{shards} shard(s): {errors} error(s), {} warning(s)", report.len() - errors));
}
