//! Read locks on all tables, which backup tools hold: while one is held nobody writes, and appliers wait.
//!
//! MySQL tells of them in `performance_schema`. MariaDB does not; there a read that would lock rows is tried, which
//! fails at once (1205) where it would wait (seen on 10.11). A backup that goes by `BACKUP STAGE` stops writes only at
//! its end (`BLOCK_COMMIT`); as long as it runs, no other one begins.

use std::time::Duration;

use vtorc_core::ports::CommandError;
use vtorc_core::status::ServerStatus;

use super::dialect::Dialect;
use super::errors::unless_refused;
use super::session::Session;

/// Counts them.
pub(crate) const READ_LOCKS: &str = "SELECT COUNT(*) FROM performance_schema.metadata_locks \
     WHERE OBJECT_TYPE = 'GLOBAL' AND LOCK_TYPE = 'SHARED' AND LOCK_STATUS = 'GRANTED'";
/// Whether that count tells of any; not where it could not be read.
pub(crate) fn is_any(count: Option<String>) -> bool {
    count.is_some_and(|count| count != "0")
}

/// It locks no row.
const TRIAL: &str = "SELECT 1 FROM _vt.reparent_journal WHERE FALSE FOR UPDATE";
/// `ER_LOCK_WAIT_TIMEOUT`
const WOULD_WAIT: u16 = 1205;
const WHAT: &str = "look for a read lock on all tables";
/// What was in the way may be gone after this.
const LOOK_AGAIN: Duration = Duration::from_millis(30);

/// Whether writes wait there, or will at the end of a backup; nothing where that is not told.
pub(crate) fn look(
    session: &mut Session<'_>,
    status: &mut ServerStatus,
) -> Result<(), CommandError> {
    match session.dialect {
        Dialect::MySql | Dialect::OldMySql => {
            let count = unless_refused(session.value(WHAT, READ_LOCKS))?.flatten();
            status.writes_wait = is_any(count);
        }
        Dialect::MariaDb => {
            session.run(WHAT, "SET SESSION lock_wait_timeout = 0")?;
            status.writes_wait = session.refusal(WHAT, TRIAL)? == Some(WOULD_WAIT);
            // A primary that serves is not troubled by it.
            if status.replication.is_some() && !status.writes_wait {
                status.backup_runs = backup_runs(session)?;
            }
        }
    }
    Ok(())
}

/// A table that an applier waits for, and the session that holds a lock on it: one that lets nobody write (`LOCK
/// TABLES`) before any other, which is in the way of a DDL alone.
const IN_THE_WAY: &str = "SELECT CONCAT('session ', holder.PROCESSLIST_ID, ' of ', holder.PROCESSLIST_USER, '@', \
     COALESCE(holder.PROCESSLIST_HOST, ''), ' holds a lock on ', waits.OBJECT_SCHEMA, '.', waits.OBJECT_NAME, \
     '; KILL ', holder.PROCESSLIST_ID, ' there ends it') \
     FROM performance_schema.metadata_locks waits \
     JOIN performance_schema.threads applier ON applier.THREAD_ID = waits.OWNER_THREAD_ID \
     JOIN performance_schema.metadata_locks held \
       ON held.OBJECT_TYPE = waits.OBJECT_TYPE AND held.OBJECT_SCHEMA = waits.OBJECT_SCHEMA \
       AND held.OBJECT_NAME = waits.OBJECT_NAME AND held.LOCK_STATUS = 'GRANTED' \
       AND held.OWNER_THREAD_ID <> waits.OWNER_THREAD_ID \
     JOIN performance_schema.threads holder ON holder.THREAD_ID = held.OWNER_THREAD_ID \
     WHERE waits.LOCK_STATUS = 'PENDING' AND waits.OBJECT_TYPE = 'TABLE' \
     AND (applier.NAME LIKE 'thread/sql/slave%' OR applier.NAME LIKE 'thread/sql/replica%') \
     AND holder.PROCESSLIST_ID IS NOT NULL AND holder.NAME NOT LIKE 'thread/sql/slave%' \
     AND holder.NAME NOT LIKE 'thread/sql/replica%' \
     ORDER BY held.LOCK_TYPE IN ('SHARED_READ_ONLY', 'SHARED_NO_WRITE', 'SHARED_NO_READ_WRITE', 'EXCLUSIVE') DESC \
     LIMIT 1";

/// That an applier waits for a lock; MariaDB does not say whose.
const WAITS: &str = "SELECT CONCAT('its applier says: ', STATE) FROM information_schema.PROCESSLIST \
     WHERE USER = 'system user' AND STATE LIKE 'Waiting for%lock%' LIMIT 1";

/// Who holds a lock that an applier waits for, as far as the server tells.
pub(crate) fn in_the_way(session: &mut Session<'_>) -> Result<Option<String>, CommandError> {
    let question = match session.dialect {
        Dialect::MySql => IN_THE_WAY,
        Dialect::OldMySql | Dialect::MariaDb => WAITS,
    };
    Ok(unless_refused(session.value("look who holds a lock", question))?.flatten())
}

/// Begins a backup and ends it. Somebody's DDL stands in its way as well, but not for long.
fn backup_runs(session: &mut Session<'_>) -> Result<bool, CommandError> {
    // Where this machine dies in between, the server ends the session, and with it the backup.
    session.run(WHAT, "SET SESSION wait_timeout = 30")?;
    for _ in 0..2 {
        match session.refusal(WHAT, "BACKUP STAGE START")? {
            Some(WOULD_WAIT) => std::thread::sleep(LOOK_AGAIN),
            Some(_) => return Ok(false),
            None => {
                // At the latest it ends with the session.
                let _ = session.refusal(WHAT, "BACKUP STAGE END")?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}
