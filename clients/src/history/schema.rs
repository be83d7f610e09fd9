//! The store's tables, by version. A newer daemon brings an older file up to date.

use rusqlite::Connection;

/// Each entry brings the file from the version before to the next one.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO counters VALUES ('recovery', 0), ('recoveries_enabled', 1);
    CREATE TABLE recoveries (
        id INTEGER PRIMARY KEY, keyspace TEXT NOT NULL, shard TEXT NOT NULL, kind TEXT NOT NULL,
        requested_by TEXT, reason TEXT, finding TEXT, finding_tablet TEXT, evidence TEXT NOT NULL,
        started_ms INTEGER NOT NULL, ended_ms INTEGER, outcome TEXT, outcome_text TEXT,
        old_primary TEXT, new_primary TEXT, write_outage_ms INTEGER, steps TEXT NOT NULL);
    CREATE INDEX recoveries_by_shard ON recoveries (keyspace, shard, id);
    CREATE TABLE blocks (
        keyspace TEXT NOT NULL, shard TEXT NOT NULL, recovery INTEGER NOT NULL,
        since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY (keyspace, shard)) WITHOUT ROWID;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, shard TEXT, action TEXT NOT NULL,
        by TEXT NOT NULL, comment TEXT NOT NULL);
", "
    CREATE TABLE controls (
        control TEXT PRIMARY KEY, by TEXT NOT NULL, comment TEXT NOT NULL, since_ms INTEGER NOT NULL,
        until_ms INTEGER) WITHOUT ROWID;
", "
    CREATE TABLE findings (
        id INTEGER PRIMARY KEY, keyspace TEXT NOT NULL, shard TEXT NOT NULL, finding TEXT NOT NULL,
        tablet TEXT NOT NULL, since_ms INTEGER NOT NULL, until_ms INTEGER);
    CREATE INDEX findings_by_shard ON findings (keyspace, shard, id);
    CREATE INDEX findings_that_stand ON findings (keyspace, shard, finding, tablet) WHERE until_ms IS NULL;
    CREATE INDEX audit_by_time ON audit (at_ms);
    ALTER TABLE blocks ADD COLUMN unfinished TEXT;
", "
    CREATE TABLE locks (
        keyspace TEXT NOT NULL, shard TEXT NOT NULL, token TEXT NOT NULL, left_behind INTEGER NOT NULL,
        PRIMARY KEY (keyspace, shard)) WITHOUT ROWID;
", "
    CREATE TABLE last_heard (
        keyspace TEXT NOT NULL, shard TEXT NOT NULL, primary_alias TEXT NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (keyspace, shard)) WITHOUT ROWID;
", "
    ALTER TABLE last_heard ADD COLUMN ackers TEXT NOT NULL DEFAULT '';
"];

/// Makes the file usable: checks it, sets how it is written, brings its tables up to date.
pub(crate) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // With a write-ahead log, what is committed survives the death of the process at any moment; only the last
    // moments before the machine's own crash may be missing, and nobody waits for the disk meanwhile.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    let health: String = db.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    if health != "ok" {
        let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(damage, Some(health)));
    }
    let version: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        db.execute_batch(&format!(
            "BEGIN; {migration}; PRAGMA user_version = {}; COMMIT;",
            at + 1
        ))?;
    }
    // What still ran when the last process ended will not end any more. It does not block anything either.
    db.execute(
        "UPDATE recoveries SET outcome = 'interrupted', outcome_text = '', ended_ms = started_ms \
         WHERE ended_ms IS NULL",
        [],
    )?;
    // Whoever took these locks has ended.
    db.execute("UPDATE locks SET left_behind = 1", [])?;
    // Whether a finding stands is found out anew; until when it stood is not known better than this.
    db.execute("UPDATE findings SET until_ms = since_ms WHERE until_ms IS NULL", [])?;
    Ok(())
}
