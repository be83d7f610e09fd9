//! Making a server a replica: only what is wrong is changed, and nothing received is thrown away that must stay.

use vtorc_core::gtid::GtidSet;
use vtorc_core::ports::{CommandError, RelayLog, Sessions, SourceChange};
use vtorc_core::recovery::login::UNKNOWN;
use vtorc_core::source_access::{ChannelTls, Login, SourceAccess};
use vtorc_core::status::{ReceiverState, ServerStatus};
use vtorc_core::tablet::MysqlAddress;

use super::dialect::Dialect;
use super::semi_sync::{set_replica_semi_sync, set_source_semi_sync};
use super::session::{Session, Thread};
use super::stopping::stop;
use super::text::quoted;
use super::{fence, other_channels, relay_log};

/// Whom to follow, and how to get in there.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) address: &'a MysqlAddress,
    /// Where the configuration does not say.
    pub(crate) access: &'a SourceAccess,
}

/// Refuses writes, follows the source, acknowledges as told, runs both threads.
pub(crate) fn follow(
    session: &mut Session<'_>,
    source: Source<'_>,
    semi_sync: bool,
    change: SourceChange,
    relay_log: RelayLog,
) -> Result<(), CommandError> {
    let status = session.status()?;
    let login = session.access.replica.as_ref().or(source.access.login.as_ref()).cloned();
    let tls = session.access.replica_tls.as_ref().or(source.access.tls.as_ref()).cloned();
    let to = Target { address: source.address, login, tls };
    if to.login.is_none() && status.replication.is_none() {
        return Err(CommandError::NotDone(UNKNOWN.into()));
    }
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
                    repoint_mysql(session, &to, keeps_relay_log)?;
                }
                Dialect::MariaDb => repoint_mariadb(session, &to, &status)?,
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

/// A replica goes on trying to connect to its source for more than a hundred years, one try a second. MySQL's default
/// is ten tries since 8.4: a replica whose source is away for ten seconds would have to be started by somebody.
pub(crate) const RETRIES: u32 = u32::MAX;

/// Whom to follow, as it is written down: what is not given the channel keeps.
struct Target<'a> {
    address: &'a MysqlAddress,
    login: Option<Login>,
    tls: Option<ChannelTls>,
}

impl Target<'_> {
    fn login(&self, word: &str) -> String {
        let Some(login) = &self.login else { return String::new() };
        let (user, password) = (quoted(&login.user), quoted(login.password.reveal()));
        format!("{word}_USER = {user}, {word}_PASSWORD = {password}, ")
    }

    fn tls(&self, word: &str) -> String {
        let Some(tls) = &self.tls else { return String::new() };
        let mut options = format!("{word}_SSL = {}, ", u8::from(tls.required));
        let files = [
            ("CA", &tls.ca_file),
            ("CAPATH", &tls.ca_path),
            ("CERT", &tls.certificate),
            ("KEY", &tls.key),
        ];
        for (option, file) in files.into_iter().filter(|(_, file)| !file.is_empty()) {
            options += &format!("{word}_SSL_{option} = {}, ", quoted(file));
        }
        if let Some(verifies) = tls.verifies_host {
            options += &format!("{word}_SSL_VERIFY_SERVER_CERT = {}, ", u8::from(verifies));
        }
        options
    }
}

/// Where the relay log is kept, the applier runs and only the source's address changes.
fn repoint_mysql(
    session: &mut Session<'_>,
    to: &Target<'_>,
    keeps_relay_log: bool,
) -> Result<(), CommandError> {
    let access = session.access;
    let for_channel = session.for_channel();
    let settings = |word: &str| {
        let auto_position =
            if keeps_relay_log { String::new() } else { format!(", {word}_AUTO_POSITION = 1") };
        format!(
            "{word}_HOST = {}, {word}_PORT = {}, {}{}\
             {word}_CONNECT_RETRY = 1, {word}_RETRY_COUNT = {RETRIES}, {word}_HEARTBEAT_PERIOD = {:.3}, \
             GET_{word}_PUBLIC_KEY = 1{auto_position}{for_channel}",
            quoted(&to.address.host),
            to.address.port,
            to.login(word),
            to.tls(word),
            access.heartbeat_period.as_secs_f64(),
        )
    };
    session.run_either(
        &format!("follow {}", to.address),
        &format!("CHANGE REPLICATION SOURCE TO {}", settings("SOURCE")),
        &format!("CHANGE MASTER TO {}", settings("MASTER")),
    )?;
    session.start(Thread::Both)
}

fn repoint_mariadb(
    session: &mut Session<'_>,
    to: &Target<'_>,
    status: &ServerStatus,
) -> Result<(), CommandError> {
    if status.replication.is_some() {
        stop(session, Thread::Both)?;
    }
    set_position(session)?;
    let access = session.access;
    let statement = format!(
        "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, {}{}\
         MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = {:.3}, MASTER_USE_GTID = slave_pos",
        quoted(&to.address.host),
        to.address.port,
        to.login("MASTER"),
        to.tls("MASTER"),
        access.heartbeat_period.as_secs_f64(),
    );
    session.run(&format!("follow {}", to.address), &statement)?;
    session.start(Thread::Both)
}

/// A former primary's own writes are not in `gtid_slave_pos`, from which it will be asked to go on. MariaDB sets that
/// only while no connection runs: others stand for the moment.
fn set_position(session: &mut Session<'_>) -> Result<(), CommandError> {
    let applied = session.value("read the position", "SELECT @@GLOBAL.gtid_slave_pos")?;
    let parsed =
        |text: &Option<String>| GtidSet::parse_mariadb(text.as_deref().unwrap_or_default());
    let (applied, current) = (parsed(&applied), parsed(&current_position(session)?));
    if let (Ok(applied), Ok(current)) = (applied, current)
        && applied.contains(&current)
    {
        return Ok(());
    }
    let before = session.status()?;
    let stopped = other_channels::stop(session, &before)?;
    let set = current_position(session).and_then(|current| {
        let current = quoted(&current.unwrap_or_default());
        session.run("set the position", &format!("SET GLOBAL gtid_slave_pos = {current}"))
    });
    other_channels::start(session, &stopped)?;
    set
}

/// What it applied last, or wrote itself after that.
fn current_position(session: &mut Session<'_>) -> Result<Option<String>, CommandError> {
    session.value("read the position", "SELECT @@GLOBAL.gtid_current_pos")
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
        stop(session, Thread::Receiver)?;
        session.start(Thread::Receiver)?;
    }
    if !receives {
        session.start(Thread::Both)?;
    }
    Ok(())
}
