//! Findings over time, the audit, and what is removed when it is old.

use rusqlite::{Connection, params};
use vtorc_core::analysis::FindingKind;
use vtorc_core::audit::{AuditEntry, FindingSpan};
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{FindingsChange, RecoveryFilter};
use vtorc_core::time::Timestamp;

use super::{millis, timestamp};

pub(crate) fn save(db: &mut Connection, change: &FindingsChange) -> rusqlite::Result<()> {
    let KeyspaceShard { keyspace, shard } = &change.shard;
    let transaction = db.transaction()?;
    for (finding, tablet) in &change.gone {
        let tablet = tablet.as_ref().map(ToString::to_string).unwrap_or_default();
        transaction.execute(
            "UPDATE findings SET until_ms = ?5 WHERE keyspace = ?1 AND shard = ?2 AND finding = ?3 \
             AND tablet = ?4 AND until_ms IS NULL",
            params![keyspace, shard, finding.to_string(), tablet, millis(change.at)],
        )?;
    }
    for (finding, tablet) in &change.appeared {
        let tablet = tablet.as_ref().map(ToString::to_string).unwrap_or_default();
        transaction.execute(
            "INSERT INTO findings (keyspace, shard, finding, tablet, since_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![keyspace, shard, finding.to_string(), tablet, millis(change.at)],
        )?;
    }
    transaction.commit()
}

pub(crate) fn list(
    db: &mut Connection,
    filter: &RecoveryFilter,
) -> rusqlite::Result<Vec<FindingSpan>> {
    let mut statement = db.prepare(
        "SELECT keyspace, shard, finding, tablet, since_ms, until_ms FROM findings \
         WHERE (?1 IS NULL OR keyspace = ?1) AND (?2 IS NULL OR shard = ?2) ORDER BY id DESC LIMIT ?3",
    )?;
    let rows =
        statement.query_map(params![filter.keyspace, filter.shard, filter.limit], |row| {
            // One that this version does not know is left out.
            let finding = FindingKind::from_name(&row.get::<_, String>(2)?);
            let shard = KeyspaceShard { keyspace: row.get(0)?, shard: row.get(1)? };
            let tablet = row.get::<_, String>(3)?.parse().ok();
            let since = timestamp(row.get(4)?);
            let until = row.get::<_, Option<i64>>(5)?.map(timestamp);
            Ok(finding.map(|finding| FindingSpan { shard, finding, tablet, since, until }))
        })?;
    rows.filter_map(Result::transpose).collect()
}

pub(crate) fn audit(db: &mut Connection, limit: u32) -> rusqlite::Result<Vec<AuditEntry>> {
    let mut statement = db
        .prepare("SELECT at_ms, shard, action, by, comment FROM audit ORDER BY id DESC LIMIT ?1")?;
    let rows = statement.query_map(params![limit], |row| {
        let shard: Option<String> = row.get(1)?;
        Ok(AuditEntry {
            at: timestamp(row.get(0)?),
            shard: shard.and_then(|shard| shard.parse().ok()),
            action: row.get(2)?,
            by: row.get(3)?,
            comment: row.get(4)?,
        })
    })?;
    rows.collect()
}

pub(crate) fn purge(db: &mut Connection, before: Timestamp) -> rusqlite::Result<()> {
    let before = millis(before);
    let transaction = db.transaction()?;
    for statement in [
        "DELETE FROM recoveries WHERE ended_ms < ?1",
        "DELETE FROM findings WHERE until_ms < ?1",
        "DELETE FROM audit WHERE at_ms < ?1",
        "DELETE FROM blocks WHERE until_ms < ?1",
    ] {
        transaction.execute(statement, params![before])?;
    }
    transaction.commit()
}
