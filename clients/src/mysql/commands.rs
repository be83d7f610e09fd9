//! The commands of recoveries as statements. Each is safe to repeat.

use std::time::{Duration, Instant};

use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::TabletAlias;
use vtorc_core::ports::{CommandError, PromotionGrounds, ServerCommand, Sessions};
use vtorc_core::status::{ReceiverState, ServerStatus};

use super::dialect::Dialect;
use super::errors::unless_refused;
use super::follow::Source;
use super::semi_sync::{set_replica_semi_sync, set_source_semi_sync};
use super::session::{Session, Thread};
use super::stopping::stop;
use super::text::quoted;
use super::{
    delay, fence, follow, locks, oldest_log, opening, other_channels, relay_log, status,
    transactions,
};

pub(crate) const CREATE_DATABASE: &str = "CREATE DATABASE IF NOT EXISTS _vt";
const CREATE_JOURNAL: &str = "CREATE TABLE IF NOT EXISTS _vt.reparent_journal (\
     time_created_ns BIGINT UNSIGNED NOT NULL PRIMARY KEY, action_name VARBINARY(255) NOT NULL, \
     primary_alias VARBINARY(255) NOT NULL, replication_position VARBINARY(64000) DEFAULT NULL\
     ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4";
/// Reading the journal waits no longer than this many seconds for a change of the table that is under way:
/// one that waits for an acknowledgement may never end.
const JOURNAL_LOCK_WAIT: u32 = 1;

/// Runs a command and answers with the server's state afterwards.
pub(crate) fn run(
    session: &mut Session<'_>,
    command: ServerCommand,
) -> Result<ServerStatus, CommandError> {
    let changes_receiver = matches!(
        command,
        ServerCommand::RestartReceiver
            | ServerCommand::Follow { .. }
            | ServerCommand::Promote { .. }
            | ServerCommand::FixPrimary { .. }
    );
    let status = run_for_shard(session, command)?;
    if changes_receiver && !status.channels.is_empty() {
        // What was asked for is done, whatever becomes of these.
        let _ = other_channels::log_in_anew(session, &status);
    }
    Ok(status)
}

fn run_for_shard(
    session: &mut Session<'_>,
    command: ServerCommand,
) -> Result<ServerStatus, CommandError> {
    match command {
        ServerCommand::ReadStatus => return with_everything(session),
        ServerCommand::StopReceiver => {
            stop_receiver(session)?;
            return with_everything(session);
        }
        ServerCommand::Demote { sessions } => {
            fence::refuse_writes(session, sessions)?;
            match sessions {
                Sessions::EndAll => {}
                Sessions::EndAfter(_) => transactions::end_open_ones(session)?,
            }
            return with_everything(session);
        }
        ServerCommand::WaitForPosition { target, timeout } => wait(session, &target, timeout)?,
        ServerCommand::StartApplier => {
            if session.is_mariadb() {
                relay_log::check_start(&session.status()?)?;
            }
            session.start(Thread::Applier)?;
        }
        ServerCommand::Promote { acks, grounds } => return promote(session, acks, &grounds),
        ServerCommand::FixPrimary { acks, grounds } => {
            return fix_primary(session, acks, &grounds);
        }
        ServerCommand::Follow { source, semi_sync, change, relay_log, access } => {
            let source = Source { address: &source.mysql, access: &access };
            follow::follow(session, source, semi_sync, change, relay_log)?;
        }
        ServerCommand::SetDelay { seconds } => delay::set_delay(session, seconds)?,
        ServerCommand::RestartReceiver => {
            if session.is_mariadb() {
                relay_log::check_restart(&session.status()?)?;
            }
            stop(session, Thread::Receiver)?;
            session.start(Thread::Receiver)?;
        }
        ServerCommand::ChangeType { .. } => {
            return Err(CommandError::NotDone("it has no vttablet whose type could change".into()));
        }
        // It is logged, and thereby acknowledged, also where the database exists.
        ServerCommand::WriteNothing => session.run("write nothing", CREATE_DATABASE)?,
        ServerCommand::CommitEmpty { gtids } => commit_empty(session, &gtids)?,
        ServerCommand::WriteJournal { action, primary, position, time_created_ns } => {
            write_journal(session, &action, &primary, &position, time_created_ns)?;
        }
    }
    session.status()
}

/// The server's state with what no probe asks for: the number of reparents that it knows of, for how long it has been
/// running, whether clients could connect and write, and on MariaDB what its binary logs no longer hold.
fn with_everything(session: &mut Session<'_>) -> Result<ServerStatus, CommandError> {
    let mut status = with_journal(session)?;
    status.uptime = counter(session, "Uptime")?.map(Duration::from_secs);
    status.free_connections = free_connections(session)?;
    locks::look(session, &mut status)?;
    if session.is_mariadb() {
        status.gtid_purged = oldest_log::purged(session, &status)?;
    }
    Ok(status)
}

/// The server's state with the number of reparents that it knows of.
fn with_journal(session: &mut Session<'_>) -> Result<ServerStatus, CommandError> {
    let mut status = session.status()?;
    let wait = format!("SET SESSION lock_wait_timeout = {JOURNAL_LOCK_WAIT}");
    session.run("wait for no lock", &wait)?;
    // It may answer while somebody is changing the table: how long the journal is stays unknown then.
    status.journal_length = unless_refused(journal_length(session))?.flatten();
    Ok(status)
}

/// How many clients it would still let in.
fn free_connections(session: &mut Session<'_>) -> Result<Option<u32>, CommandError> {
    let limit = "SELECT @@GLOBAL.max_connections";
    let limit = session.value("ask for its limit of connections", limit)?;
    let connected = counter(session, "Threads_connected")?;
    Ok(status::free_connections(limit.as_deref(), connected))
}

/// What one of its counters says.
fn counter(session: &mut Session<'_>, name: &str) -> Result<Option<u64>, CommandError> {
    let show = format!("SHOW GLOBAL STATUS LIKE '{name}'");
    let row = session.ordered_row("read one of its counters", &show);
    Ok(unless_refused(row)?.and_then(|row| row.get(1)?.as_ref()?.parse().ok()))
}

fn journal_length(session: &mut Session<'_>) -> Result<Option<u64>, CommandError> {
    if !has_journal(session)? {
        return Ok(Some(0));
    }
    let rows = "SELECT COUNT(*) FROM _vt.reparent_journal";
    let count = session.value("read the reparent journal", rows)?;
    Ok(count.and_then(|count| count.parse().ok()))
}

fn has_journal(session: &mut Session<'_>) -> Result<bool, CommandError> {
    let tables = session.value(
        "look for the reparent journal",
        "SELECT COUNT(*) FROM information_schema.tables \
         WHERE table_schema = '_vt' AND table_name = 'reparent_journal'",
    )?;
    Ok(tables.as_deref() == Some("1"))
}

fn stop_receiver(session: &mut Session<'_>) -> Result<(), CommandError> {
    let status = session.status()?;
    let running = |receiver| receiver != ReceiverState::Stopped;
    if status.replication.is_some_and(|replication| running(replication.receiver)) {
        stop(session, Thread::Receiver)?;
    }
    Ok(())
}

fn wait(
    session: &mut Session<'_>,
    target: &GtidSet,
    timeout: Duration,
) -> Result<(), CommandError> {
    let started = Instant::now();
    // MariaDB compares numbers alone: a server that wrote side by side with another may have the number and not the
    // transaction.
    if session.wait_for(target, timeout)? && !session.is_mariadb() {
        return Ok(());
    }
    // A server that does not replicate is never done waiting, though it may have everything.
    if session.status()?.gtid_executed.contains(target) {
        return Ok(());
    }
    let waited = started.elapsed().as_millis();
    // It is told where it can be, and never instead of what happened.
    let holder = locks::in_the_way(session).ok().flatten();
    let holder = holder.map(|holder| format!(": {holder}")).unwrap_or_default();
    Err(CommandError::NotDone(format!(
        "it did not apply everything of {} within {waited} ms{holder}",
        target.shown()
    )))
}

/// What takes time comes first; then it is looked again whether the server is still the one that was chosen, as the
/// last thing before it is opened.
fn promote(
    session: &mut Session<'_>,
    acks: u32,
    grounds: &PromotionGrounds,
) -> Result<ServerStatus, CommandError> {
    let status = found_as_decided(session, grounds)?;
    if status.replication.is_some() {
        stop(session, Thread::Both)?;
    }
    set_source_semi_sync(session, &status, acks)?;
    set_replica_semi_sync(session, &status, false)?;
    let stopped = PromotionGrounds { receiver_stopped: true, ..grounds.clone() };
    let status = found_as_decided(session, &stopped)?;
    if status.read_only {
        opening::take_writes(session, Some(&grounds.position))?;
    }
    opening::once_open(forget_source(session, &status).and_then(|()| session.status()))
}

/// The server's state, if it still is what opening it was decided on.
fn found_as_decided(
    session: &mut Session<'_>,
    grounds: &PromotionGrounds,
) -> Result<ServerStatus, CommandError> {
    let status = with_journal(session)?;
    grounds.check(&status)?;
    Ok(status)
}

fn forget_source(session: &mut Session<'_>, status: &ServerStatus) -> Result<(), CommandError> {
    if status.replication.is_none() {
        return Ok(());
    }
    let (replica, for_channel) = (session.dialect.replica(), session.for_channel());
    session.run("forget the source", &format!("RESET {replica} ALL{for_channel}"))
}

fn fix_primary(
    session: &mut Session<'_>,
    acks: u32,
    grounds: &PromotionGrounds,
) -> Result<ServerStatus, CommandError> {
    let status = found_as_decided(session, grounds)?;
    if status.replication.is_some() {
        stop(session, Thread::Both)?;
        forget_source(session, &status)?;
    }
    set_source_semi_sync(session, &status, acks)?;
    set_replica_semi_sync(session, &status, false)?;
    if !status.read_only {
        return session.status();
    }
    found_as_decided(session, grounds)?;
    opening::take_writes(session, None)?;
    opening::once_open(session.status())
}

/// Each commit waits for its acknowledgement like any other. One that is there already is skipped by the server.
fn commit_empty(session: &mut Session<'_>, gtids: &[String]) -> Result<(), CommandError> {
    for gtid in gtids {
        session.run("take the GTID", &format!("SET SESSION gtid_next = {}", quoted(gtid)))?;
        session.run("begin an empty transaction", "BEGIN")?;
        session.run("commit an empty transaction", "COMMIT")?;
    }
    session.run("take GTIDs by itself again", "SET SESSION gtid_next = 'AUTOMATIC'")
}

/// Vitess's table, so that its tools can read it: one row for every reparent.
fn write_journal(
    session: &mut Session<'_>,
    action: &str,
    primary: &TabletAlias,
    position: &GtidSet,
    time_created_ns: u64,
) -> Result<(), CommandError> {
    // Each statement waits for an acknowledgement, so none is sent that is not needed.
    if !has_journal(session)? {
        session.run("create the _vt database", CREATE_DATABASE)?;
        session.run("create the reparent journal", CREATE_JOURNAL)?;
    }
    let position: String = position.to_vitess_position().chars().take(64000).collect();
    session.run_with(
        "write the reparent journal",
        "INSERT IGNORE INTO _vt.reparent_journal \
         (time_created_ns, action_name, primary_alias, replication_position) VALUES (?, ?, ?, ?)",
        vec![time_created_ns.into(), action.into(), primary.to_string().into(), position.into()],
    )
}

impl Session<'_> {
    /// Tells whether the server is MariaDB.
    pub(crate) fn is_mariadb(&self) -> bool {
        self.dialect == Dialect::MariaDb
    }
}
