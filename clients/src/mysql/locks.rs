//! Read locks on all tables, which backup tools hold: while one is held nobody writes, and appliers wait.
//!
//! MySQL tells of them in `performance_schema`. MariaDB does not; there a read that would lock rows is tried, which
//! fails at once (1205) where it would wait (seen on 10.11). A backup that goes by `BACKUP STAGE` stops writes only at its
//! end (`BLOCK_COMMIT`); as long as it runs, no other one begins.

use vtorc_core::ports::CommandError;

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

/// Somebody holds one; false where that is not told.
pub(crate) fn writes_wait(session: &mut Session<'_>) -> Result<bool, CommandError> {
    match session.dialect {
        Dialect::MySql | Dialect::OldMySql => {
            Ok(is_any(unless_refused(session.value(WHAT, READ_LOCKS))?.flatten()))
        }
        Dialect::MariaDb => {
            session.run(WHAT, "SET SESSION lock_wait_timeout = 0")?;
            if session.refusal(WHAT, TRIAL)? == Some(WOULD_WAIT) {
                return Ok(true);
            }
            let begun = session.refusal(WHAT, "BACKUP STAGE START")?;
            if begun.is_none() {
                session.run(WHAT, "BACKUP STAGE END")?;
            }
            Ok(begun == Some(WOULD_WAIT))
        }
    }
}
