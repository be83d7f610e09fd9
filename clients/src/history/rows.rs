//! Recoveries as rows.

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};
use vtorc_core::analysis::FindingKind;
use vtorc_core::audit::{Outcome, RecoveryRecord, StepOutcome, StepRecord, Trigger};
use vtorc_core::ids::{KeyspaceShard, RecoveryId, TabletAlias};
use vtorc_core::ports::RecoveryFilter;
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::recovery::step::StepKind;

use super::{millis, number, timestamp};

/// A step as JSON.
#[derive(Serialize, Deserialize)]
struct StepRow {
    name: String,
    tablet: Option<String>,
    started_ms: u64,
    duration_ms: Option<u64>,
    outcome: Option<String>,
    #[serde(default)]
    text: String,
}

impl StepRow {
    fn of(step: &StepRecord) -> Self {
        Self {
            name: step.kind.name().to_owned(),
            tablet: step.tablet.as_ref().map(ToString::to_string),
            started_ms: step.started_at.as_millis(),
            duration_ms: step.duration_ms,
            outcome: step.outcome.as_ref().map(|outcome| outcome.name().to_owned()),
            text: step
                .outcome
                .as_ref()
                .map(|outcome| outcome.text().to_owned())
                .unwrap_or_default(),
        }
    }

    /// A step; none where it is one that another version of vtorc knew.
    fn into_step(self) -> Option<StepRecord> {
        let text = self.text;
        Some(StepRecord {
            kind: StepKind::from_name(&self.name)?,
            tablet: alias(self.tablet),
            started_at: vtorc_core::time::Timestamp::from_millis(self.started_ms),
            duration_ms: self.duration_ms,
            outcome: self.outcome.map(|name| match name.as_str() {
                "done" => StepOutcome::Done(text),
                "not_done" => StepOutcome::NotDone(text),
                _ => StepOutcome::Unknown(text),
            }),
        })
    }
}

fn alias(text: Option<String>) -> Option<TabletAlias> {
    text.and_then(|text| text.parse().ok())
}

fn json<T: Serialize>(value: &T) -> String {
    // Strings and numbers only: this cannot fail.
    serde_json::to_string(value).unwrap_or_else(|_| "[]".to_owned())
}

/// The number under which a recovery is kept: its own, but where that is another's in this file. A process whose
/// history did not answer at its start numbers its recoveries from memory, from 1.
fn number_in_history(db: &Connection, record: &RecoveryRecord) -> rusqlite::Result<i64> {
    let (shard, id) = (&record.shard, number(record.id));
    let known = db.query_row(
        "SELECT id FROM recoveries WHERE keyspace = ?1 AND shard = ?2 AND started_ms = ?3 AND kind = ?4 \
         ORDER BY id = ?5 DESC LIMIT 1",
        params![shard.keyspace, shard.shard, millis(record.started_at), record.kind.name(), id],
        |row| row.get(0),
    );
    if let Some(known) = known.optional()? {
        return Ok(known);
    }
    let is_taken = db.prepare("SELECT 1 FROM recoveries WHERE id = ?1")?.exists(params![id])?;
    db.query_row(
        "UPDATE counters SET value = max(value + ?1, ?2) WHERE name = 'recovery' RETURNING value",
        params![i64::from(is_taken), id],
        |row| row.get::<_, i64>(0),
    )
    .map(|last| if is_taken { last } else { id })
}

pub(crate) fn save(
    db: &mut Connection,
    record: &RecoveryRecord,
    keep: u32,
) -> rusqlite::Result<()> {
    let (by, reason) = match &record.trigger {
        Trigger::Automatic => (None, None),
        Trigger::Requested { by, reason } => (Some(by), Some(reason)),
    };
    let steps: Vec<StepRow> = record.steps.iter().map(StepRow::of).collect();
    let id = number_in_history(db, record)?;
    db.execute(
        "INSERT OR REPLACE INTO recoveries VALUES \
         (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        params![
            id,
            record.shard.keyspace,
            record.shard.shard,
            record.kind.name(),
            by,
            reason,
            record.finding.map(|finding| finding.to_string()),
            record.finding_tablet.as_ref().map(ToString::to_string),
            json(&record.evidence),
            millis(record.started_at),
            record.ended_at.map(millis),
            record.outcome.as_ref().map(Outcome::name),
            record.outcome.as_ref().map(Outcome::text),
            record.old_primary.as_ref().map(ToString::to_string),
            record.new_primary.as_ref().map(ToString::to_string),
            record.write_outage_ms.and_then(|ms| i64::try_from(ms).ok()),
            json(&steps),
        ],
    )?;
    db.execute("DELETE FROM recoveries WHERE id <= ?1", params![id - i64::from(keep)])?;
    Ok(())
}

const COLUMNS: &str = "id, keyspace, shard, kind, requested_by, reason, finding, finding_tablet, evidence, \
     started_ms, ended_ms, outcome, outcome_text, old_primary, new_primary, write_outage_ms, steps";

pub(crate) fn one(db: &mut Connection, id: RecoveryId) -> rusqlite::Result<Option<RecoveryRecord>> {
    let sql = format!("SELECT {COLUMNS} FROM recoveries WHERE id = ?1");
    Ok(db.query_row(&sql, params![number(id)], read).optional()?.flatten())
}

pub(crate) fn list(
    db: &mut Connection,
    filter: &RecoveryFilter,
) -> rusqlite::Result<Vec<RecoveryRecord>> {
    let mut conditions = vec!["1"];
    let mut values: Vec<String> = Vec::new();
    for (condition, value) in [("keyspace = ?", &filter.keyspace), ("shard = ?", &filter.shard)] {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value.clone());
        }
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM recoveries WHERE {} ORDER BY id DESC LIMIT {}",
        conditions.join(" AND "),
        filter.limit
    );
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), read)?;
    rows.filter_map(Result::transpose).collect()
}

/// A recovery; none where it is of a kind that another version of vtorc knew. It must not hide all the others.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<RecoveryRecord>> {
    let requested_by: Option<String> = row.get(4)?;
    let reason: Option<String> = row.get(5)?;
    let outcome: Option<String> = row.get(11)?;
    let outcome_text: Option<String> = row.get(12)?;
    let evidence: String = row.get(8)?;
    let steps: String = row.get(16)?;
    let steps: Vec<StepRow> = serde_json::from_str(&steps).unwrap_or_default();
    let kind: String = row.get(3)?;
    let finding: Option<String> = row.get(6)?;
    let Some(kind) = RecoveryKind::from_name(&kind) else { return Ok(None) };
    Ok(Some(RecoveryRecord {
        id: RecoveryId(row.get::<_, i64>(0)?.unsigned_abs()),
        shard: KeyspaceShard { keyspace: row.get(1)?, shard: row.get(2)? },
        kind,
        trigger: match requested_by {
            Some(by) => Trigger::Requested { by, reason: reason.unwrap_or_default() },
            None => Trigger::Automatic,
        },
        finding: finding.as_deref().and_then(FindingKind::from_name),
        finding_tablet: alias(row.get(7)?),
        evidence: serde_json::from_str(&evidence).unwrap_or_default(),
        started_at: timestamp(row.get(9)?),
        ended_at: row.get::<_, Option<i64>>(10)?.map(timestamp),
        outcome: outcome
            .and_then(|name| Outcome::from_parts(&name, &outcome_text.unwrap_or_default())),
        old_primary: alias(row.get(13)?),
        new_primary: alias(row.get(14)?),
        write_outage_ms: row.get::<_, Option<i64>>(15)?.map(i64::unsigned_abs),
        steps: steps.into_iter().filter_map(StepRow::into_step).collect(),
    }))
}
