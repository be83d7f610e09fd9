//! `vtorc explain`: what vtorc finds in a snapshot of a shard, what it would do now, and what it would do if
//! the primary died this second. Decided by the same code as in the daemon; nothing is contacted.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use vtorc_core::admission::{self, Admission, AttemptMemory, Proposal, Switches};
use vtorc_core::analysis::{self, Finding};
use vtorc_core::controls::Controls;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::remedy::{self, Remedy, Wanted};
use vtorc_core::reparent::election::PassedOver;
use vtorc_core::reparent::prognosis::{Prognosis, if_primary_died};
use vtorc_core::settings::RecoverySettings;
use vtorc_web::SnapshotFile;

use crate::cli::ExplainOptions;
use crate::{Failure, config};

/// Reads a snapshot and explains it, with the settings of a configuration or the defaults.
pub(crate) fn run(options: &ExplainOptions, config: Option<&Path>) -> Result<(), Failure> {
    let name = options.snapshot.display().to_string();
    let failure = |error: &dyn std::fmt::Display| Failure(format!("read snapshot {name}: {error}"));
    let text = if name == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| failure(&error))?;
        text
    } else {
        std::fs::read_to_string(&options.snapshot).map_err(|error| failure(&error))?
    };
    let snapshot = SnapshotFile::parse(&text).map_err(|error| failure(&error))?;
    let settings = match config {
        Some(path) => config::load(Some(path))?.config.recovery_settings()?,
        None => config::Config::default().recovery_settings()?,
    };
    crate::print::say(&explain(&snapshot, &settings));
    Ok(())
}

fn explain(snapshot: &ShardSnapshot, settings: &RecoverySettings) -> String {
    let mut text = String::new();
    let policy = match &snapshot.durability {
        Ok(policy) => policy.name().to_owned(),
        Err(unknown) => unknown.to_string(),
    };
    let primary = snapshot.primary().map(|state| state.tablet.alias.to_string());
    let primary = primary.unwrap_or_else(|| "none".into());
    line(&mut text, 0, &format!("{}: primary {primary}, durability {policy}", snapshot.shard));
    let findings = analysis::detect(snapshot, settings);
    line(&mut text, 0, if findings.is_empty() { "Nothing found." } else { "Found:" });
    for finding in &findings {
        line(&mut text, 1, &format!("{finding}: {}", finding.why));
        finding.evidence.iter().for_each(|evidence| line(&mut text, 2, &evidence.to_string()));
    }
    now(&mut text, snapshot, settings, &remedy::wanted(&findings, snapshot, settings));
    let controls = Controls::default();
    died(&mut text, &if_primary_died(snapshot, settings, Switches::on(&controls)));
    text.truncate(text.trim_end().len());
    text
}

fn line(text: &mut String, depth: usize, what: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{:width$}{what}", "", width = depth * 2);
}

fn now(text: &mut String, snapshot: &ShardSnapshot, settings: &RecoverySettings, wanted: &Wanted) {
    line(text, 0, "Now:");
    let controls = Controls::default();
    let switches = Switches::on(&controls);
    let refusal = |remedy: Remedy, finding: &Finding| match admission::admit(
        &AttemptMemory::default(),
        Proposal::new(remedy, finding),
        snapshot,
        settings,
        switches,
    ) {
        Admission::Admitted => String::new(),
        Admission::Refused(refusal) => format!(", but {refusal}"),
    };
    match wanted {
        Wanted::Nothing => line(text, 1, "nothing to be done"),
        Wanted::Shard(remedy, finding) => {
            line(text, 1, &format!("{} for {finding}{}", remedy.name(), refusal(*remedy, finding)));
        }
        Wanted::Replicas(findings) => {
            for finding in findings {
                let refused = refusal(Remedy::FixReplica, finding);
                line(text, 1, &format!("FixReplica for {finding}{refused}"));
            }
        }
    }
}

fn died(text: &mut String, prognosis: &Prognosis) {
    line(text, 0, "If the primary died this second:");
    match prognosis {
        Prognosis::NoPrimary => line(text, 1, "there is no primary that could die"),
        Prognosis::Promotes { winner, catches_up_from, passed_over, may_lose } => {
            line(text, 1, &format!("{winner} would be promoted"));
            if let Some(from) = catches_up_from {
                line(text, 1, &format!("it would first catch up from {from}"));
            }
            let loss = may_lose.as_deref().unwrap_or("nothing that was acknowledged");
            line(text, 1, &format!("would be lost: {loss}"));
            others(text, passed_over);
        }
        Prognosis::Refuses { why, passed_over } => {
            line(text, 1, &format!("nothing would be done: {why}"));
            others(text, passed_over);
        }
    }
}

fn others(text: &mut String, passed_over: &[PassedOver]) {
    for one in passed_over {
        line(text, 1, &format!("not {}: {}", one.alias, one.reason));
    }
}
