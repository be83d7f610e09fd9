//! Stopping the threads of a channel: also an applier that has only a part of a transaction, because its source died
//! or its receiver was stopped in between.
//!
//! With several workers, MySQL's default, `STOP REPLICA` then waits a minute for the rest, though nobody sends it.
//! (8.4, `rpl_replica.cc`, `sql_slave_killed`: `SLAVE_WAIT_GROUP_DONE`; seen on 9.7.) `KILL` ends such an applier at
//! once, and the part is rolled back. After a `STOP REPLICA`, `KILL` no longer helps: so it comes first. It takes
//! `SYSTEM_USER`.
//!
//! MariaDB's `STOP SLAVE` waits for an applier that waits for somebody's lock, and cannot be ended itself: every later
//! statement of replication waits for it. There, too, `KILL` of the applier comes first; what it was applying is rolled
//! back. (Seen on 10.11 under `FLUSH TABLES WITH READ LOCK`, with workers and without.)
//!
//! MariaDB stops an applier with a part of a transaction at once (seen on 10.11, with workers and without). Only a
//! transaction of which all was received is in the received set: a part is never waited for and never counted.

use std::time::{Duration, Instant};

use vtorc_core::ports::CommandError;

use super::dialect::Row;
use super::fence::column_text;
use super::session::{Session, Thread};
use super::text::quoted;

/// An applier that was ended is gone within this, or is not waited for.
pub(crate) const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// It is looked again after this.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Asks for the connection of a channel's applier that has applied every whole transaction, has a part of another, and
/// does not receive the rest. MySQL before 8.0 does not tell.
pub(crate) fn question(channel: &str) -> String {
    format!(
        "SELECT thread.PROCESSLIST_ID AS id \
         FROM performance_schema.replication_applier_status_by_coordinator AS applier \
         JOIN performance_schema.replication_connection_status AS receiver \
           ON receiver.CHANNEL_NAME = applier.CHANNEL_NAME \
         JOIN performance_schema.threads AS thread ON thread.THREAD_ID = applier.THREAD_ID \
         WHERE applier.CHANNEL_NAME = {} AND receiver.SERVICE_STATE <> 'ON' \
           AND CASE WHEN applier.PROCESSING_TRANSACTION LIKE '%-%:%' \
             THEN NOT GTID_SUBSET(applier.PROCESSING_TRANSACTION, receiver.RECEIVED_TRANSACTION_SET) \
               AND GTID_SUBSET(receiver.RECEIVED_TRANSACTION_SET, @@GLOBAL.gtid_executed) \
             ELSE FALSE END",
        quoted(channel)
    )
}

/// The statement that ends the applier that was found.
pub(crate) fn end_of(found: &Row) -> String {
    format!("KILL {}", column_text(found, "id"))
}

const WHAT: &str = "look for a part of a transaction";

/// Stops threads of the shard's channel.
pub(crate) fn stop(session: &mut Session<'_>, thread: Thread) -> Result<(), CommandError> {
    let (channel, name) = (session.channel.clone(), thread.name());
    if thread == Thread::Both {
        let what = format!("stop {name}: the receiver first");
        session.threads("STOP", Thread::Receiver, &channel, &what)?;
    }
    if thread != Thread::Receiver {
        end_applier(session, &channel);
    }
    session.threads("STOP", thread, &channel, &format!("stop {name}"))
}

/// Ends the channel's applier where it would wait for the rest of a transaction, or, on MariaDB, for a lock.
///
/// Without the grants to see and to end it, it goes on: then `STOP REPLICA` takes its minute.
fn end_applier(session: &mut Session<'_>, channel: &str) {
    if session.is_mariadb() {
        let _ = end_locked(session);
        return;
    }
    let question = question(channel);
    let Ok(found) = session.rows(WHAT, &question) else { return };
    let Some(applier) = found.first() else { return };
    if session.run("end an applier that waits for the rest", &end_of(applier)).is_err() {
        return;
    }
    let until = Instant::now() + ENDS_WITHIN.min(session.left() / 2);
    while Instant::now() < until {
        match session.rows(WHAT, &question) {
            Ok(left) if !left.is_empty() => std::thread::sleep(LOOK_AGAIN),
            Ok(_) | Err(_) => return,
        }
    }
}

/// The threads of MariaDB's appliers that wait for a lock. It does not tell of which connection they are.
const LOCKED: &str = "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE USER = 'system user' \
     AND COMMAND IN ('Slave_SQL', 'Slave_worker', 'Connect') AND STATE LIKE 'Waiting for %lock%'";

/// Threads of the channel's applier that wait for somebody's lock; none where others pull from elsewhere.
fn locked(session: &mut Session<'_>) -> Result<Vec<Row>, CommandError> {
    let found = session.rows("look whether its applier waits for a lock", LOCKED)?;
    match found.is_empty() || !session.status()?.channels.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(found),
    }
}

/// The applier of a MariaDB waits for a lock that somebody else holds.
pub(crate) fn waits_for_lock(session: &mut Session<'_>) -> Result<bool, CommandError> {
    Ok(session.is_mariadb() && !locked(session)?.is_empty())
}

fn end_locked(session: &mut Session<'_>) -> Result<(), CommandError> {
    for thread in locked(session)? {
        // Its last worker may have ended it.
        let _ = session.refusal("end an applier that waits for a lock", &end_of(&thread))?;
    }
    let until = Instant::now() + ENDS_WITHIN.min(session.left() / 2);
    while Instant::now() < until && !locked(session)?.is_empty() {
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
