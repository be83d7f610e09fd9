//! Making a server refuse writes, also while its clients hold that up.
//!
//! `SET GLOBAL super_read_only` waits for commits in flight; under semi-sync a commit may wait for ever for
//! an acknowledgement that will not come. Switching semi-sync off would let it through *acknowledged*, so
//! the sessions are ended instead: their clients are told nothing, and nothing was promised to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use vtorc_core::ports::{CommandError, Sessions};

use super::access::MysqlAccess;
use super::dialect::Row;
use super::session::{Session, connect};
use vtorc_core::topology::MysqlAddress;

/// How often sessions are looked for while the server is being fenced.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Makes the server refuse writes, and ends client sessions as asked.
pub(crate) fn refuse_writes(
    session: &mut Session<'_>,
    sessions: Sessions,
) -> Result<(), CommandError> {
    let statement = if session.access.use_super_read_only && !session.is_mariadb() {
        "SET GLOBAL super_read_only = ON"
    } else {
        "SET GLOBAL read_only = ON"
    };
    let patience = match sessions {
        Sessions::EndAll => Duration::ZERO,
        Sessions::EndAfter(millis) => Duration::from_millis(millis),
    };
    let started = Instant::now();
    let done = AtomicBool::new(false);
    let (access, address) = (session.access, session.address);
    let (deadline, called_off) = (session.deadline(), session.called_off());
    let outcome = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if started.elapsed() >= patience {
                    end_sessions_over(access, address, deadline, called_off);
                }
                thread::sleep(LOOK_AGAIN.min(patience.max(Duration::from_millis(1))));
            }
        });
        let outcome = session.run("refuse writes", statement);
        done.store(true, Ordering::Release);
        // It only loops and never panics; should it, the outcome above still stands.
        let _ = killer.join();
        outcome
    });
    outcome?;
    if sessions == Sessions::EndAll {
        end_sessions(session)?;
    }
    Ok(())
}

/// One look over a connection of its own, while the session's own waits for its statement.
fn end_sessions_over(
    access: &MysqlAccess,
    address: &MysqlAddress,
    deadline: Instant,
    called_off: &AtomicBool,
) {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() || called_off.load(Ordering::Acquire) {
        return;
    }
    let Ok(mut conn) = connect(access, address, left) else { return };
    let rows: Vec<(u64, String, String)> = match conn.query(SESSIONS) {
        Ok(rows) => rows,
        Err(_) => return,
    };
    for (id, user, command) in rows {
        if is_client(access, &user, &command) {
            // It may have ended by itself in between.
            let _ = conn.query_drop(format!("KILL {id}"));
        }
    }
}

/// Ends the client sessions that are there now.
fn end_sessions(session: &mut Session<'_>) -> Result<(), CommandError> {
    for row in session.rows("list client sessions", SESSIONS)? {
        let text = |column: &str| -> String { column_text(&row, column) };
        if is_client(session.access, &text("user"), &text("command")) {
            let gone = session.run("end a client session", &format!("KILL {}", text("id")));
            match gone {
                Ok(()) | Err(CommandError::NotDone(_)) => {}
                Err(unknown @ CommandError::Unknown(_)) => return Err(unknown),
            }
        }
    }
    Ok(())
}

const SESSIONS: &str = "SELECT ID AS id, USER AS user, COMMAND AS command FROM information_schema.PROCESSLIST \
     WHERE ID <> CONNECTION_ID()";

fn column_text(row: &Row, column: &str) -> String {
    row.get(column).cloned().flatten().unwrap_or_default()
}

/// Replication, the server's own threads and vtorc's sessions stay.
fn is_client(access: &MysqlAccess, user: &str, command: &str) -> bool {
    let own = user == access.user || user == access.replica_user;
    let server = matches!(user, "system user" | "event_scheduler" | "unauthenticated user" | "");
    let replication = command.starts_with("Binlog Dump") || command == "Daemon";
    !(own || server || replication)
}
