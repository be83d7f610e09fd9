//! `vtorc ctl recovery` and what a planned reparent would do.

use serde_json::Value;

use super::answer::{list, number, text};
use super::table;
use crate::Failure;
use crate::print::say;

/// Prints one recovery with its steps.
pub(super) fn print(recovery: &Value) {
    let optional = |field: &str| recovery.get(field).and_then(Value::as_str);
    say(&format!(
        "recovery {}  {}/{}  {}  {}",
        number(recovery, "id"),
        text(recovery, "keyspace"),
        text(recovery, "shard"),
        text(recovery, "kind"),
        optional("outcome").unwrap_or("running"),
    ));
    let outage = recovery.get("write_outage_ms").and_then(Value::as_u64);
    let outage = outage.map(|ms| format!("{ms} ms"));
    let took = recovery.get("duration_ms").and_then(Value::as_u64).map(|ms| format!("{ms} ms"));
    let finding = optional("finding").map(|code| {
        let tablet = optional("finding_tablet").map(|alias| format!(" on {alias}"));
        format!("{code}{}", tablet.unwrap_or_default())
    });
    let facts = [
        ("began", optional("started_at").map(str::to_owned)),
        ("took", took),
        ("asked for by", optional("requested_by").map(str::to_owned)),
        ("reason", optional("reason").map(str::to_owned)),
        ("finding", finding),
        ("old primary", optional("old_primary").map(str::to_owned)),
        ("new primary", optional("new_primary").map(str::to_owned)),
        ("writes stood for", outage),
        ("outcome", optional("outcome_text").map(str::to_owned)),
    ];
    for (name, value) in facts {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            say(&format!("  {name}: {value}"));
        }
    }
    for seen in list(recovery.get("evidence")) {
        say(&format!("  seen: {}", seen.as_str().unwrap_or_default()));
    }
    let rows = list(recovery.get("steps")).iter().map(step).collect();
    table::print(&["AFTER", "TOOK", "STEP", "TABLET", "OUTCOME", "NOTE"], rows);
}

fn step(step: &Value) -> Vec<String> {
    let took = step.get("duration_ms").and_then(Value::as_u64);
    let optional = |field: &str, otherwise: &str| {
        step.get(field).and_then(Value::as_str).unwrap_or(otherwise).to_owned()
    };
    vec![
        format!("{} ms", number(step, "offset_ms")),
        took.map_or("-".into(), |ms| format!("{ms} ms")),
        optional("name", ""),
        optional("tablet", "-"),
        optional("outcome", "running"),
        table::plain(text(step, "text")),
    ]
}

/// Prints what a planned reparent would do; that nothing would be done is a failure.
pub(super) fn print_preview(preview: &Value) -> Result<(), Failure> {
    match text(preview, "outcome") {
        "moves" => {
            say(&format!(
                "{} would be primary instead of {}",
                text(preview, "new_primary"),
                text(preview, "from")
            ));
        }
        "not_needed" => say("nothing would be moved: it is as you ask already"),
        _ => return Err(Failure(format!("it would be refused: {}", text(preview, "why")))),
    }
    let then: Vec<&str> = list(preview.get("then")).iter().filter_map(Value::as_str).collect();
    if !then.is_empty() {
        say(&format!("  if replicas cannot log in there: {}", then.join(", ")));
    }
    for (alias, why) in preview.get("not").and_then(Value::as_object).into_iter().flatten() {
        say(&format!("  not {alias}: {}", why.as_str().unwrap_or_default()));
    }
    let outages: Vec<String> = list(preview.get("earlier_write_outages_ms"))
        .iter()
        .filter_map(Value::as_u64)
        .map(|ms| format!("{ms} ms"))
        .collect();
    if !outages.is_empty() {
        say(&format!("  writes stood for {} in the last moves of this shard", outages.join(", ")));
    }
    Ok(())
}
