//! `vtorc check`: tells before the bad day what would go wrong on it. Reads the topology, asks every server,
//! changes nothing; the exit status says how bad it is.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use vtorc_actors::preflight::examine;
use vtorc_clients::vttablet::Tablets;
use vtorc_core::admission::Switches;
use vtorc_core::controls::Controls;
use vtorc_core::ports::TopoPort;
use vtorc_core::preflight::{Concern, Severity};
use vtorc_core::topology::{self, Trouble};

use crate::cli::{CheckOptions, DaemonOptions};
use crate::print::say;
use crate::{Failure, daemon, wiring};

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
    let loaded = daemon::load(options)?;
    let settings = wiring::settings(&loaded.config, options)?;
    let store = wiring::topo_store(options, settings.recovery.default_durability)?;
    let vttablets = options.vitess.vttablet_access(&loaded.config)?;
    let tablets = Tablets::new(Arc::new(loaded.config.mysql_access()?), vttablets);
    let tablets = tablets.map_err(Failure)?;
    let read = store.read(&settings.watched).await?;
    let warned = loaded.warnings.into_iter();
    let mut report: Vec<Line> =
        warned.map(|what| whole(Severity::Warning, "Configuration", what)).collect();
    let unread = read.troubles().into_iter();
    report.extend(unread.map(|(place, Trouble { why, cure })| {
        let mut line = whole(Severity::Error, "Topology", format!("{place}: {why}"));
        line.concern.cure = cure;
        line
    }));
    let shards = topology::merge(&BTreeMap::new(), read);
    if shards.is_empty() {
        let what =
            "there is no shard to look after: check the topology flags and clusters_to_watch";
        report.push(whole(Severity::Warning, "Topology", what.to_owned()));
    }
    // What operators switched off is known to the daemon alone.
    let controls = Controls::default();
    for topology in shards.values() {
        let now = wiring::wall_clock();
        let concerns =
            examine(&tablets, topology, &settings.recovery, Switches::on(&controls), now).await;
        let shard = || Some(topology.shard.to_string());
        report.extend(concerns.into_iter().map(|concern| Line { shard: shard(), concern }));
    }
    if check.json {
        let views: Vec<_> = report.iter().map(view).collect();
        say(&serde_json::to_string_pretty(&views).unwrap_or_default());
    } else {
        tell(&report, shards.len());
    }
    Ok(match report.iter().map(|line| line.concern.severity).min() {
        None => ExitCode::SUCCESS,
        Some(Severity::Warning) => ExitCode::from(WARNINGS),
        Some(Severity::Error) => ExitCode::from(ERRORS),
    })
}

/// A concern of a shard, or of the whole.
struct Line {
    shard: Option<String>,
    concern: Concern,
}

fn whole(severity: Severity, code: &str, what: String) -> Line {
    let (code, cure) = (code.to_owned(), String::new());
    Line { shard: None, concern: Concern { severity, code, tablet: None, what, cure } }
}

fn view(Line { shard, concern }: &Line) -> serde_json::Value {
    let severity = concern.severity.to_string();
    match shard {
        None if concern.cure.is_empty() => {
            json!({"severity": severity, "code": concern.code, "what": concern.what})
        }
        None => json!({
            "severity": severity,
            "code": concern.code,
            "what": concern.what,
            "cure": concern.cure,
        }),
        Some(shard) => json!({
            "severity": severity,
            "shard": shard,
            "tablet": concern.tablet.as_ref().map(ToString::to_string),
            "code": concern.code,
            "what": concern.what,
            "cure": concern.cure,
        }),
    }
}

fn tell(report: &[Line], shards: usize) {
    for Line { shard, concern } in report {
        let Concern { severity, code, tablet, what, cure } = concern;
        let tablet = tablet.as_ref().map(ToString::to_string);
        let place: Vec<&str> = [shard, &tablet].into_iter().flatten().map(String::as_str).collect();
        // Padding needs the text itself.
        let severity = severity.to_string();
        say(&format!("{severity:<8} {}  {code}: {what}", place.join(" ")));
        if !cure.is_empty() {
            say(&format!("         -> {cure}"));
        }
    }
    let errors = report.iter().filter(|line| line.concern.severity == Severity::Error).count();
    say(&format!("{shards} shard(s): {errors} error(s), {} warning(s)", report.len() - errors));
}
