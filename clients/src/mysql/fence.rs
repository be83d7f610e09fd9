//! Making a server refuse writes, also while its clients hold that up.
//!
//! `SET GLOBAL super_read_only` waits for commits in flight; under semi-sync a commit may wait for ever for
//! an acknowledgement that will not come. Switching semi-sync off would let it through *acknowledged*, so
//! the sessions are ended instead: their clients are told nothing, and nothing was promised to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use vtorc_core::ports::{CommandError, Sessions};

use super::access::MysqlAccess;
use super::dialect::Row;
use super::errors::unless_refused;
use super::semi_sync::semi_sync_names;
use super::session::{Session, connect};
use vtorc_core::tablet::MysqlAddress;

/// `ER_NO_SUCH_THREAD`.
const NO_SUCH_THREAD: u16 = 1094;

/// How often sessions are looked for while the server is being fenced.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Makes the server refuse writes, and ends client sessions as asked.
pub(crate) fn refuse_writes(
    session: &mut Session<'_>,
    sessions: Sessions,
) -> Result<(), CommandError> {
    let statement = if stops_everybody(session) {
        "SET GLOBAL super_read_only = ON"
    } else {
        "SET GLOBAL read_only = ON"
    };
    let patience = match sessions {
        Sessions::EndAll => Duration::ZERO,
        Sessions::EndAfter(millis) => Duration::from_millis(millis),
    };
    let helper = Helper {
        access: session.access,
        address: session.address,
        deadline: session.deadline(),
        called_off: session.called_off(),
        release: release_statement(session)?,
        stays: Mutex::new(None),
    };
    let started = Instant::now();
    let done = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let helping = scope.spawn(|| {
            let mut all_were_ended = false;
            while !done.load(Ordering::Acquire) {
                if started.elapsed() >= patience {
                    all_were_ended = helper.help(all_were_ended).unwrap_or(false);
                }
                thread::park_timeout(LOOK_AGAIN);
            }
        });
        let outcome = session.run("refuse writes", statement);
        done.store(true, Ordering::Release);
        helping.thread().unpark();
        // It only loops and never panics; should it, the outcome above still stands.
        let _ = helping.join();
        outcome
    });
    if let (Err(CommandError::Unknown(why)), Some(stays)) = (&outcome, helper.stays()) {
        return Err(CommandError::Unknown(format!("{why}; {stays}")));
    }
    outcome?;
    let ended = match sessions {
        Sessions::EndAll => clients(session)?,
        Sessions::EndAfter(_) => clients_past_read_only(session)?,
    };
    ended.iter().try_for_each(|client| end_session(session, &client.id))
}

/// Nobody but replication writes to a server that refuses writes.
fn stops_everybody(session: &Session<'_>) -> bool {
    session.access.use_super_read_only && !session.is_mariadb()
}

/// A client's session.
pub(crate) struct Client {
    pub(crate) id: String,
    /// As whom it is logged in.
    pub(crate) user: String,
}

/// The client sessions that are there now.
pub(crate) fn clients(session: &mut Session<'_>) -> Result<Vec<Client>, CommandError> {
    list_clients(session, SESSIONS)
}

/// Of the client sessions those of users whom `read_only` does not stop; none where `super_read_only` is used. Who may
/// not read other users' privileges (`SELECT` on the schema `mysql`) is told of none.
pub(crate) fn clients_past_read_only(
    session: &mut Session<'_>,
) -> Result<Vec<Client>, CommandError> {
    match stops_everybody(session) {
        true => Ok(Vec::new()),
        false => list_clients(session, SESSIONS_PAST_READ_ONLY),
    }
}

fn list_clients(session: &mut Session<'_>, statement: &str) -> Result<Vec<Client>, CommandError> {
    let rows = session.rows("list client sessions", statement)?;
    let clients = rows.iter().filter(|row| {
        is_client(session.access, &column_text(row, "user"), &column_text(row, "command"))
    });
    let client = |row: &Row| Client { id: column_text(row, "id"), user: column_text(row, "user") };
    Ok(clients.map(client).collect())
}

pub(crate) fn end_session(session: &mut Session<'_>, id: &str) -> Result<(), CommandError> {
    // It may have ended by itself.
    unless_refused(session.run("end a client session", &format!("KILL {id}"))).map(|_| ())
}

/// How to let commits go that wait for an acknowledgement; none where the server does not wait.
fn release_statement(session: &mut Session<'_>) -> Result<Option<String>, CommandError> {
    let names = semi_sync_names(session)?;
    Ok(names.source.map(|source| format!("SET GLOBAL rpl_semi_sync_{source}_enabled = OFF")))
}

/// A session's number, user, command, state and statement.
type SessionRow = (u64, String, String, Option<String>, Option<String>);

/// Helps a server to refuse writes over connections of its own, while the main one waits.
struct Helper<'a> {
    access: &'a MysqlAccess,
    address: &'a MysqlAddress,
    deadline: Instant,
    called_off: &'a AtomicBool,
    release: Option<String>,
    /// A session that waits in a commit and could not be ended, and why.
    stays: Mutex<Option<String>>,
}

impl Helper<'_> {
    fn stays(&self) -> Option<String> {
        self.stays.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The session may have ended by itself in between. One that may not be ended is remembered: a user with
    /// `SYSTEM_USER` is only ended by another one.
    fn end(&self, conn: &mut mysql::Conn, id: u64, user: &str) {
        if let Err(mysql::Error::MySqlError(error)) = conn.query_drop(format!("KILL {id}"))
            && error.code != NO_SUCH_THREAD
        {
            let why = format!(
                "session {id} of {user} holds it up and cannot be ended: {}",
                error.message
            );
            *self.stays.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    }

    /// Ends every client session. Answers whether, when it did, the server was already holding new writes
    /// back: then everybody who could still be told of a commit has been ended.
    ///
    /// MySQL does not end a commit's wait for an acknowledgement when its session is killed, so the wait is
    /// let go by switching semi-sync off, once nobody is left who could take that for an acknowledgement.
    fn help(&self, all_were_ended: bool) -> Option<bool> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || self.called_off.load(Ordering::Acquire) {
            return None;
        }
        let mut conn = connect(self.access, self.address, left).ok()?;
        let sessions: Vec<SessionRow> = conn.query(SESSIONS).ok()?;
        let waits_for_ack = |state: &Option<String>| {
            state.as_ref().is_some_and(|state| state.to_lowercase().contains("semi-sync ack"))
        };
        let holding = sessions.iter().any(|(_, _, _, state, statement)| {
            let ours = statement.as_ref().is_some_and(|text| text.contains("read_only = ON"));
            ours && state.as_ref().is_some_and(|state| state.contains("lock"))
        });
        let mut somebody_waits = false;
        let mut somebody_would_be_told = false;
        for (id, user, command, state, _) in &sessions {
            // A write of vtorc's own, such as the reparent journal's, promised nothing to anybody.
            let own_in_vain = *user == self.access.user && waits_for_ack(state);
            if !is_client(self.access, user, command) && !own_in_vain {
                continue;
            }
            somebody_waits |= waits_for_ack(state);
            if command != "Killed" {
                somebody_would_be_told |= waits_for_ack(state);
                self.end(&mut conn, *id, user);
            }
        }
        // SAFETY-OF-DATA: only sessions that were killed wait: no client takes this for an acknowledgement.
        if all_were_ended
            && somebody_waits
            && !somebody_would_be_told
            && let Some(release) = &self.release
        {
            conn.query_drop(release).ok()?;
        }
        Some(holding)
    }
}

const SESSIONS: &str = "SELECT ID AS id, USER AS user, COMMAND AS command, STATE AS state, INFO AS info \
     FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()";

/// With one of these privileges a user writes in spite of `read_only` (manuals of MySQL, "read_only", and MariaDB,
/// "READ_ONLY ADMIN", which was part of SUPER before 10.11).
const SESSIONS_PAST_READ_ONLY: &str = "SELECT p.ID AS id, p.USER AS user, p.COMMAND AS command \
     FROM information_schema.PROCESSLIST p WHERE p.ID <> CONNECTION_ID() AND EXISTS \
     (SELECT 1 FROM information_schema.USER_PRIVILEGES g WHERE g.PRIVILEGE_TYPE IN \
     ('SUPER', 'READ_ONLY ADMIN', 'READ ONLY ADMIN', 'CONNECTION_ADMIN') \
     AND LEFT(g.GRANTEE, CHAR_LENGTH(p.USER) + 3) = CONCAT('''', p.USER, '''@'))";

pub(crate) fn column_text(row: &Row, column: &str) -> String {
    row.get(column).cloned().flatten().unwrap_or_default()
}

/// Replication, the server's own threads and vtorc's sessions stay.
fn is_client(access: &MysqlAccess, user: &str, command: &str) -> bool {
    let replica = access.replica.as_ref().is_some_and(|login| login.user == user);
    let own = user == access.user || replica;
    !own && !is_of_server(user, command)
}

/// Replication, and the server's own threads.
pub(crate) fn is_of_server(user: &str, command: &str) -> bool {
    let server = matches!(user, "system user" | "event_scheduler" | "unauthenticated user" | "");
    server || command.starts_with("Binlog Dump") || command == "Daemon"
}
