//! Making a server a replica: only what is wrong is changed, and nothing received is thrown away that must stay.

use vtorc_core::gtid::GtidSet;
use vtorc_core::ports::{CommandError, RelayLog, Sessions, SourceChange};
use vtorc_core::status::{ReceiverState, ServerStatus};
use vtorc_core::tablet::MysqlAddress;

use super::dialect::Dialect;
use super::semi_sync::{set_replica_semi_sync, set_source_semi_sync};
use super::session::{Session, Thread};
use super::text::quoted;
use super::{fence, other_channels, relay_log};

/// Refuses writes, follows the source, acknowledges as told, runs both threads.
pub(crate) fn follow(
    session: &mut Session<'_>,
    source: &MysqlAddress,
    semi_sync: bool,
    change: SourceChange,
    relay_log: RelayLog,
) -> Result<(), CommandError> {
    let status = session.status()?;
    let wants_super = session.access.use_super_read_only && !session.is_mariadb();
    if status.is_writable() {
        fence::refuse_writes(session, Sessions::EndAll)?;
    } else if wants_super && !status.super_read_only {
        fence::refuse_writes(session, Sessions::EndAfter(1000))?;
    }
    match change {
        SourceChange::Repoint => {
            let keeps_relay_log = relay_log::make_ready(session, &status, relay_log)?;
            set_replica_semi_sync(session, &status, semi_sync)?;
            match session.dialect {
                Dialect::MySql | Dialect::OldMySql => {
                    repoint_mysql(session, source, keeps_relay_log)?;
                }
                Dialect::MariaDb => repoint_mariadb(session, source, &status)?,
            }
        }
        SourceChange::Keep => {
            let acks_changed = set_replica_semi_sync(session, &status, semi_sync)?;
            // Told to acknowledge, and connected since before that.
            let idle = semi_sync && !status.semi_sync.replica_active;
            resume(session, &status, acks_changed || idle, relay_log)?;
        }
    }
    // Last: a commit that still waits for an acknowledgement must not be let through by this.
    set_source_semi_sync(session, &status, 0)
}

/// A replica goes on trying to connect to its source for more than a hundred years, one try a second. MySQL's default is ten
/// tries since 8.4: a replica whose source is away for ten seconds would have to be started by somebody.
pub(crate) const RETRIES: u32 = u32::MAX;

/// Where the relay log is kept, the applier runs and only the source's address changes.
fn repoint_mysql(
    session: &mut Session<'_>,
    source: &MysqlAddress,
    keeps_relay_log: bool,
) -> Result<(), CommandError> {
    let access = session.access;
    let for_channel = session.for_channel();
    let settings = |word: &str| {
        let auto_position =
            if keeps_relay_log { String::new() } else { format!(", {word}_AUTO_POSITION = 1") };
        format!(
            "{word}_HOST = {}, {word}_PORT = {}, {word}_USER = {}, {word}_PASSWORD = {}, \
             {word}_CONNECT_RETRY = 1, {word}_RETRY_COUNT = {RETRIES}, {word}_HEARTBEAT_PERIOD = {:.3}, \
             GET_{word}_PUBLIC_KEY = 1{auto_position}{for_channel}",
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
    session.start(Thread::Both)
}

fn repoint_mariadb(
    session: &mut Session<'_>,
    source: &MysqlAddress,
    status: &ServerStatus,
) -> Result<(), CommandError> {
    if status.replication.is_some() {
        session.stop(Thread::Both)?;
    }
    set_position(session)?;
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
    session.start(Thread::Both)
}

/// A former primary's own writes are not in `gtid_slave_pos`, from which it will be asked to go on. MariaDB sets that only
/// while no connection runs: others stand for the moment.
fn set_position(session: &mut Session<'_>) -> Result<(), CommandError> {
    let applied = session.value("read the position", "SELECT @@GLOBAL.gtid_slave_pos")?;
    let applied = GtidSet::parse_mariadb(&applied.unwrap_or_default());
    let before = session.status()?;
    if applied.is_ok_and(|applied| applied.contains(&before.gtid_executed)) {
        return Ok(());
    }
    let stopped = other_channels::stop(session, &before)?;
    let executed = quoted(&session.status()?.gtid_executed.to_string());
    let set = session.run("set the position", &format!("SET GLOBAL gtid_slave_pos = {executed}"));
    other_channels::start(session, &stopped)?;
    set
}

/// It follows the right source: start what stands, and let the receiver log in anew if it is to
/// acknowledge from now on.
fn resume(
    session: &mut Session<'_>,
    status: &ServerStatus,
    anew: bool,
    relay_log: RelayLog,
) -> Result<(), CommandError> {
    let Some(replication) = &status.replication else {
        return Err(CommandError::NotDone("it has no source to keep".into()));
    };
    let receives = replication.receiver != ReceiverState::Stopped;
    if relay_log == RelayLog::MustStay {
        relay_log::check_start(status)?;
    }
    if receives && !replication.applier_running {
        // Before the receiver stops: in MariaDB nothing may be started once both stand.
        session.start(Thread::Applier)?;
    }
    if anew && receives {
        if relay_log == RelayLog::MustStay && session.is_mariadb() {
            relay_log::check_restart(&session.status()?)?;
        }
        session.stop(Thread::Receiver)?;
        session.start(Thread::Receiver)?;
    }
    if !receives {
        session.start(Thread::Both)?;
    }
    Ok(())
}
