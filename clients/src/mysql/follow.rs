//! Making a server a replica: only what is wrong is changed, and nothing received is thrown away.

use std::time::Duration;

use vtorc_core::ports::{CommandError, RelayLog, Sessions, SourceChange};
use vtorc_core::status::{ReceiverState, ReplicationStatus, ServerStatus};
use vtorc_core::tablet::MysqlAddress;

use super::dialect::Dialect;
use super::fence;
use super::semi_sync::{set_replica_semi_sync, set_source_semi_sync};
use super::session::Session;

/// How long MariaDB, which throws its relay log away when it is repointed, may take to apply it first.
const DRAIN_RELAY_LOG: Duration = Duration::from_secs(5);

/// Refuses writes, follows the source, acknowledges as told, runs both threads.
pub(crate) fn follow(
    session: &mut Session<'_>,
    source: &MysqlAddress,
    semi_sync: bool,
    change: SourceChange,
    _relay_log: RelayLog,
) -> Result<(), CommandError> {
    let status = session.status()?;
    let wants_super = session.access.use_super_read_only && !session.is_mariadb();
    if status.is_writable() {
        fence::refuse_writes(session, Sessions::EndAll)?;
    } else if wants_super && !status.super_read_only {
        fence::refuse_writes(session, Sessions::EndAfter(1000))?;
    }
    let acks_changed = set_replica_semi_sync(session, &status, semi_sync)?;
    match change {
        SourceChange::Repoint => repoint(session, source, &status)?,
        SourceChange::Keep => {
            // Told to acknowledge, and connected since before that.
            let idle = semi_sync && !status.semi_sync.replica_active;
            resume(session, &status, acks_changed || idle)?;
        }
    }
    // Last: a commit that still waits for an acknowledgement must not be let through by this.
    set_source_semi_sync(session, &status, 0)
}

/// Applies what is received so many seconds late.
pub(crate) fn set_delay(session: &mut Session<'_>, seconds: u64) -> Result<(), CommandError> {
    let replica = session.dialect.replica();
    session.run("stop the applier", &format!("STOP {replica} SQL_THREAD"))?;
    session.run_either(
        "set the delay",
        &format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY = {seconds}"),
        &format!("CHANGE MASTER TO MASTER_DELAY = {seconds}"),
    )?;
    session.run("start the applier", &format!("START {replica} SQL_THREAD"))
}

fn repoint(
    session: &mut Session<'_>,
    source: &MysqlAddress,
    status: &ServerStatus,
) -> Result<(), CommandError> {
    match session.dialect {
        Dialect::MySql | Dialect::OldMySql => repoint_mysql(session, source, status),
        Dialect::MariaDb => repoint_mariadb(session, source, status),
    }
}

/// With the applier running, MySQL keeps its relay logs when only the source's address changes. So what
/// was received and not applied is never thrown away where that can be helped.
fn repoint_mysql(
    session: &mut Session<'_>,
    source: &MysqlAddress,
    status: &ServerStatus,
) -> Result<(), CommandError> {
    let replica = session.dialect.replica();
    let keeps_relay_log = match &status.replication {
        Some(replication) if replication.auto_position => {
            if replication.receiver != ReceiverState::Stopped {
                session.run("stop the receiver", &format!("STOP {replica} IO_THREAD"))?;
            }
            replication.applier_running || start_applier(session, replication)?
        }
        Some(_) => {
            session.run("stop replication", &format!("STOP {replica}"))?;
            false
        }
        None => false,
    };
    let access = session.access;
    let settings = |word: &str| {
        let auto_position =
            if keeps_relay_log { String::new() } else { format!(", {word}_AUTO_POSITION = 1") };
        format!(
            "{word}_HOST = {}, {word}_PORT = {}, {word}_USER = {}, {word}_PASSWORD = {}, \
             {word}_CONNECT_RETRY = 1, {word}_HEARTBEAT_PERIOD = {:.3}, GET_{word}_PUBLIC_KEY = 1{auto_position}",
            quoted(&source.host),
            source.port,
            quoted(&access.replica_user),
            quoted(access.replica_password.reveal()),
            access.heartbeat_period.as_secs_f64(),
        )
    };
    session.run_either(
        &format!("follow {source}"),
        &format!("CHANGE REPLICATION SOURCE TO {}", settings("SOURCE")),
        &format!("CHANGE MASTER TO {}", settings("MASTER")),
    )?;
    session.run("start replication", &format!("START {replica}"))
}

/// Starts an applier that stands still with something received; answers whether it runs now.
fn start_applier(
    session: &mut Session<'_>,
    replication: &ReplicationStatus,
) -> Result<bool, CommandError> {
    if !replication.applier_error.is_empty() || replication.retrieved.is_empty() {
        let replica = session.dialect.replica();
        session.run("stop replication", &format!("STOP {replica}"))?;
        return Ok(false);
    }
    let replica = session.dialect.replica();
    session.run("start the applier", &format!("START {replica} SQL_THREAD"))?;
    Ok(true)
}

fn repoint_mariadb(
    session: &mut Session<'_>,
    source: &MysqlAddress,
    status: &ServerStatus,
) -> Result<(), CommandError> {
    if let Some(replication) = &status.replication {
        session.run("stop the receiver", "STOP SLAVE IO_THREAD")?;
        if replication.applier_running {
            session.wait_for(&replication.retrieved, DRAIN_RELAY_LOG)?;
        }
        session.run("stop replication", "STOP SLAVE")?;
    }
    // A former primary's own writes are not in gtid_slave_pos, from which it will be asked to go on.
    let executed = session.status()?.gtid_executed;
    session.run("set the position", &format!("SET GLOBAL gtid_slave_pos = '{executed}'"))?;
    let access = session.access;
    let statement = format!(
        "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USER = {}, MASTER_PASSWORD = {}, \
         MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = {:.3}, MASTER_USE_GTID = slave_pos",
        quoted(&source.host),
        source.port,
        quoted(&access.replica_user),
        quoted(access.replica_password.reveal()),
        access.heartbeat_period.as_secs_f64(),
    );
    session.run(&format!("follow {source}"), &statement)?;
    session.run("start replication", "START SLAVE")
}

/// It follows the right source: start what stands, and let the receiver log in anew if it is to
/// acknowledge from now on.
fn resume(
    session: &mut Session<'_>,
    status: &ServerStatus,
    acks_changed: bool,
) -> Result<(), CommandError> {
    let replica = session.dialect.replica();
    let Some(replication) = &status.replication else {
        return Err(CommandError::NotDone("it has no source to keep".into()));
    };
    if acks_changed && replication.receiver != ReceiverState::Stopped {
        session.run("stop the receiver", &format!("STOP {replica} IO_THREAD"))?;
        session.run("start the receiver", &format!("START {replica} IO_THREAD"))?;
    }
    if replication.receiver == ReceiverState::Stopped || !replication.applier_running {
        session.run("start replication", &format!("START {replica}"))?;
    }
    Ok(())
}

/// A string literal that means the same under every sql_mode: quotes doubled, and where a backslash is in
/// it, written in hexadecimal is not possible in these statements, so the backslash is doubled as well.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
