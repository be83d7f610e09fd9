//! Transactions that are open on a server from which writes are moved away. They cannot be committed any more. They can
//! be prepared (`XA PREPARE`, which `read_only` does not stop, seen on MariaDB 10.11), and what is prepared can be
//! committed in spite of MySQL's `super_read_only` (seen on 9.7). Each would be logged on this server alone. And their
//! locks would hold up what comes from the new primary.

use std::time::Duration;

use vtorc_core::ports::CommandError;

use super::errors::unless_refused;
use super::fence::{clients, column_text, end_session};
use super::session::Session;

/// `INNODB_TRX` is a copy that is not taken anew while somebody read it within the last 100 ms
/// (`cache_min_idle_time`).
const COPY_IS_OLD_AFTER: Duration = Duration::from_millis(110);

/// One that only reads, as a backup's, goes on; one that is rolled back is on its end.
const OPEN: &str = "SELECT trx_mysql_thread_id AS id FROM information_schema.INNODB_TRX \
     WHERE (trx_rows_modified > 0 OR trx_rows_locked > 0) AND trx_state <> 'ROLLING BACK'";

/// Ends the client sessions that have changed or locked rows and not committed, and all of them where something is
/// prepared that is no session's: anybody could commit that. (It is no session's since MySQL 8.0.29,
/// `xa_detach_on_prepare`, and once its session has ended.) Who may not look (`PROCESS`) sees none.
pub(crate) fn end_open_ones(session: &mut Session<'_>) -> Result<(), CommandError> {
    let open = open_ones(session)?;
    if open.is_empty() {
        return Ok(());
    }
    let prepared = is_anybodys(&open);
    let any_ended = end_sessions(session, |id| prepared || open.contains(id))?;
    if any_ended && !prepared {
        // What they had prepared is anybody's now.
        std::thread::sleep(COPY_IS_OLD_AFTER);
        if is_anybodys(&open_ones(session)?) {
            end_sessions(session, |_| true)?;
        }
    }
    Ok(())
}

/// Ends the client sessions that are meant; answers whether there were any.
fn end_sessions(
    session: &mut Session<'_>,
    is_meant: impl Fn(&String) -> bool,
) -> Result<bool, CommandError> {
    let mut meant = clients(session)?;
    meant.retain(|client| is_meant(&client.id));
    meant.iter().try_for_each(|client| end_session(session, &client.id))?;
    Ok(!meant.is_empty())
}

/// The sessions whose they are.
fn open_ones(session: &mut Session<'_>) -> Result<Vec<String>, CommandError> {
    let rows = unless_refused(session.rows("look for open transactions", OPEN))?;
    Ok(rows.unwrap_or_default().iter().map(|row| column_text(row, "id")).collect())
}

fn is_anybodys(open: &[String]) -> bool {
    open.iter().any(|id| id == "0")
}
