//! One blocking connection for one command: statements with a deadline, and an ear for being called off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::ServerIdentity;
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::CommandError;
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::MysqlAddress;

use super::access::MysqlAccess;
use super::dialect::{Dialect, MAY_BE_MISSING, Row, SYNTAX_ERROR};
use super::text::quoted;
use super::{errors, status};

/// A fresh connection to one server.
pub(crate) struct Session<'a> {
    pub(crate) access: &'a MysqlAccess,
    pub(crate) address: &'a MysqlAddress,
    pub(crate) dialect: Dialect,
    /// What the shard's replication channel is called here.
    pub(crate) channel: String,
    conn: mysql::Conn,
    deadline: Instant,
    called_off: &'a AtomicBool,
}

/// Threads of a replication channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// Gets transactions from the source.
    Receiver,
    /// Applies them.
    Applier,
    /// Both.
    Both,
}

impl Thread {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Receiver => "the receiver",
            Self::Applier => "the applier",
            Self::Both => "replication",
        }
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Receiver => " IO_THREAD",
            Self::Applier => " SQL_THREAD",
            Self::Both => "",
        }
    }
}

impl<'a> Session<'a> {
    /// Connects and asks which words the server understands.
    pub(crate) fn open(
        access: &'a MysqlAccess,
        address: &'a MysqlAddress,
        deadline: Instant,
        called_off: &'a AtomicBool,
    ) -> Result<Self, CommandError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || called_off.load(Ordering::Acquire) {
            return Err(CommandError::Unreached(ProbeFailure::TimedOut));
        }
        let unreached = |error: mysql::Error| CommandError::Unreached(probe_failure(&error));
        let mut conn = connect_once_there_is_room(access, address, deadline).map_err(unreached)?;
        let dialect = detect(&mut conn).map_err(unreached)?;
        Ok(Self { access, address, dialect, channel: String::new(), conn, deadline, called_off })
    }

    /// All that is said of replication is said of this channel.
    pub(crate) fn use_channel(&mut self, channel: String) -> Result<(), CommandError> {
        if self.is_mariadb() && !channel.is_empty() {
            let name = format!("SET default_master_connection = {}", quoted(&channel));
            self.run("choose the replication connection", &name)?;
        }
        self.channel = channel;
        Ok(())
    }

    /// Added to a statement about replication: without it MySQL takes all channels, or refuses. MariaDB's session
    /// knows.
    pub(crate) fn for_channel(&self) -> String {
        match self.dialect {
            Dialect::MySql | Dialect::OldMySql => format!(" FOR CHANNEL {}", quoted(&self.channel)),
            Dialect::MariaDb => String::new(),
        }
    }

    /// Starts threads of the shard's channel.
    pub(crate) fn start(&mut self, thread: Thread) -> Result<(), CommandError> {
        self.threads("START", thread, &self.channel.clone(), &format!("start {}", thread.name()))
    }

    /// Starts or stops threads of a channel.
    pub(crate) fn threads(
        &mut self,
        verb: &str,
        thread: Thread,
        channel: &str,
        what: &str,
    ) -> Result<(), CommandError> {
        let (replica, name, words) = (self.dialect.replica(), quoted(channel), thread.words());
        let statement = match self.dialect {
            Dialect::MySql | Dialect::OldMySql => {
                format!("{verb} {replica}{words} FOR CHANNEL {name}")
            }
            Dialect::MariaDb => format!("{verb} {replica} {name}{words}"),
        };
        self.run(what, &statement)
    }

    /// Makes sure that this is the server that was meant: an address may have been given to another one since.
    pub(crate) fn check_identity(
        &mut self,
        meant: Option<&ServerIdentity>,
    ) -> Result<(), CommandError> {
        let Some(meant) = meant else { return Ok(()) };
        let asked = if self.is_mariadb() { "server_id" } else { "server_uuid" };
        let answer = self.value("ask which server answers", &format!("SELECT @@GLOBAL.{asked}"))?;
        let answer = answer.unwrap_or_default();
        let found = match self.is_mariadb() {
            true => ServerIdentity::Id(answer.parse().unwrap_or_default()),
            false => ServerIdentity::Uuid(answer.to_ascii_lowercase()),
        };
        CommandError::check_meant(meant, &found)
    }

    /// Time left until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The deadline itself.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Tells whether nobody waits for the outcome any more.
    pub(crate) fn called_off(&self) -> &'a AtomicBool {
        self.called_off
    }

    /// Runs a statement. `what` names it in errors: statements may hold passwords.
    pub(crate) fn run(&mut self, what: &str, statement: &str) -> Result<(), CommandError> {
        self.may_go_on(what)?;
        let outcome = self.conn.query_drop(statement);
        outcome.map_err(|error| self.failed(what, &error))
    }

    /// Runs a statement that older or newer servers may not know; then runs the other.
    pub(crate) fn run_either(
        &mut self,
        what: &str,
        first: &str,
        other: &str,
    ) -> Result<(), CommandError> {
        self.may_go_on(what)?;
        match self.conn.query_drop(first) {
            Err(mysql::Error::MySqlError(error)) if error.code == SYNTAX_ERROR => {
                self.run(what, other)
            }
            Err(error) => Err(self.failed(what, &error)),
            Ok(()) => Ok(()),
        }
    }

    /// Runs a statement that may be refused; answers the error's number then.
    pub(crate) fn refusal(
        &mut self,
        what: &str,
        statement: &str,
    ) -> Result<Option<u16>, CommandError> {
        self.may_go_on(what)?;
        match self.conn.query_drop(statement) {
            Ok(()) => Ok(None),
            Err(mysql::Error::MySqlError(error)) => Ok(Some(error.code)),
            Err(error) => Err(self.failed(what, &error)),
        }
    }

    /// Runs a statement with values.
    pub(crate) fn run_with(
        &mut self,
        what: &str,
        statement: &str,
        values: Vec<mysql::Value>,
    ) -> Result<(), CommandError> {
        self.may_go_on(what)?;
        let params = mysql::Params::Positional(values);
        let outcome = self.conn.exec_drop(statement, params);
        outcome.map_err(|error| self.failed(what, &error))
    }

    /// Asks for rows.
    pub(crate) fn rows(&mut self, what: &str, statement: &str) -> Result<Vec<Row>, CommandError> {
        self.may_go_on(what)?;
        let outcome: Result<Vec<mysql::Row>, _> = self.conn.query(statement);
        let rows = outcome.map_err(|error| self.failed(what, &error))?;
        Ok(rows.into_iter().map(text_row).collect())
    }

    /// Asks for a single value.
    pub(crate) fn value(
        &mut self,
        what: &str,
        statement: &str,
    ) -> Result<Option<String>, CommandError> {
        let rows = self.rows(what, statement)?;
        Ok(rows.into_iter().next().and_then(|row| row.into_values().next()).flatten())
    }

    /// Asks for a row whose columns are told by their order.
    pub(crate) fn ordered_row(
        &mut self,
        what: &str,
        statement: &str,
    ) -> Result<Vec<Option<String>>, CommandError> {
        self.may_go_on(what)?;
        let outcome: Result<Option<mysql::Row>, _> = self.conn.query_first(statement);
        let row = outcome.map_err(|error| self.failed(what, &error))?;
        Ok(row.map(|row| row.unwrap().into_iter().map(text_value).collect()).unwrap_or_default())
    }

    /// Reads the server's state.
    pub(crate) fn status(&mut self) -> Result<ServerStatus, CommandError> {
        let mut answers = Vec::new();
        for (at, statement) in self.dialect.probe_statements().iter().enumerate() {
            match self.rows("read the server's state", statement) {
                Ok(rows) => answers.push(rows),
                // Without a grant on performance_schema there are no heartbeats, global filters and workers' errors
                // to see.
                Err(CommandError::NotDone(_)) if at >= MAY_BE_MISSING => answers.push(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        status::read(self.dialect, &answers, &self.channel).map_err(CommandError::NotDone)
    }

    /// Waits until everything of `target` is applied; false if it was not within `patience`.
    pub(crate) fn wait_for(
        &mut self,
        target: &GtidSet,
        patience: Duration,
    ) -> Result<bool, CommandError> {
        if target.is_empty() {
            return Ok(true);
        }
        let seconds = patience.min(self.left()).as_secs_f64();
        let target = quoted(&target.to_string());
        let statement = match self.dialect {
            Dialect::MySql | Dialect::OldMySql => {
                format!("SELECT WAIT_FOR_EXECUTED_GTID_SET({target}, {seconds:.3})")
            }
            Dialect::MariaDb => format!("SELECT MASTER_GTID_WAIT({target}, {seconds:.3})"),
        };
        Ok(self.value("wait for a position", &statement)?.as_deref() == Some("0"))
    }

    /// What a statement's error means. One that is given up would run on at a server that is only slow, and do what it
    /// says when nobody reckons with it any more: so its thread is ended, where that can be done at once.
    fn failed(&self, what: &str, error: &mysql::Error) -> CommandError {
        if is_late(error) {
            // Nothing is known of the statement either way.
            let _ = self.end_own_thread();
        }
        command_error(what, error)
    }

    /// Thread numbers begin anew with the server, so it is looked whether this one is vtorc's own.
    fn end_own_thread(&self) -> Result<(), mysql::Error> {
        let mut conn = connect(self.access, self.address, END_PATIENCE)?;
        let id = self.conn.connection_id();
        let own = "SELECT USER FROM information_schema.PROCESSLIST WHERE ID = ? AND USER = ?";
        let found: Option<String> = conn.exec_first(own, (id, &self.access.user))?;
        match found {
            Some(_) => conn.query_drop(format!("KILL {id}")),
            None => Ok(()),
        }
    }

    fn may_go_on(&self, what: &str) -> Result<(), CommandError> {
        if self.called_off.load(Ordering::Acquire) {
            return Err(CommandError::NotDone(format!("{what}: called off")));
        }
        if self.left().is_zero() {
            return Err(CommandError::NotDone(format!("{what}: no time left")));
        }
        Ok(())
    }
}

/// A thread whose statement is given up is ended only if the server answers each question within this: the caller
/// waits.
const END_PATIENCE: Duration = Duration::from_millis(300);

/// A server whose connections are used up is tried again for so long: it keeps one for privileged users, and that of
/// the command before may only just be closing.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);
const ROOM_LOOK: Duration = Duration::from_millis(25);

/// Connects until the deadline; again where the server has no room.
fn connect_once_there_is_room(
    access: &MysqlAccess,
    address: &MysqlAddress,
    deadline: Instant,
) -> Result<mysql::Conn, mysql::Error> {
    let until = deadline.min(Instant::now() + ROOM_PATIENCE);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match connect(access, address, left) {
            Err(full) if code(&full).is_some_and(errors::is_full) => {
                if Instant::now() + ROOM_LOOK >= until {
                    return Err(full);
                }
                std::thread::sleep(ROOM_LOOK);
            }
            other => return other,
        }
    }
}

/// Connects within `left`, without TLS where mixed TLS is allowed and the server has none.
pub(crate) fn connect(
    access: &MysqlAccess,
    address: &MysqlAddress,
    left: Duration,
) -> Result<mysql::Conn, mysql::Error> {
    let opts = access.opts(address, left);
    let mixed = access.tls.as_ref().is_some_and(|tls| tls.mixed);
    match mysql::Conn::new(opts.clone()) {
        Err(mysql::Error::DriverError(mysql::DriverError::TlsNotSupported)) if mixed => {
            mysql::Conn::new(opts.ssl_opts(None::<mysql::SslOpts>))
        }
        other => other,
    }
}

fn detect(conn: &mut mysql::Conn) -> Result<Dialect, mysql::Error> {
    let version: Option<String> = conn.query_first("SELECT VERSION()")?;
    match Dialect::of_version(&version.unwrap_or_default()) {
        Some(dialect) => Ok(dialect),
        None => Dialect::of_trial(conn.query_drop(Dialect::TRIAL), code),
    }
}

fn code(error: &mysql::Error) -> Option<u16> {
    if let mysql::Error::MySqlError(error) = error { Some(error.code) } else { None }
}

/// What it says of a server that no connection could be made to it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours and may grow")]
fn probe_failure(error: &mysql::Error) -> ProbeFailure {
    match error {
        late if is_late(late) => ProbeFailure::TimedOut,
        mysql::Error::DriverError(mysql::DriverError::ConnectTimeout) => ProbeFailure::TimedOut,
        mysql::Error::MySqlError(refused) => errors::turned_away(refused.code, &refused.message),
        mysql::Error::DriverError(mysql::DriverError::CouldNotConnect(_))
        | mysql::Error::IoError(_)
        | mysql::Error::CodecError(_) => ProbeFailure::Refused(text_of(error)),
        _ => ProbeFailure::TurnedAway(text_of(error)),
    }
}

fn timed_out(io: &std::io::Error) -> bool {
    matches!(io.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// What the server refused did not happen; what broke off may have.
fn command_error(what: &str, error: &mysql::Error) -> CommandError {
    let text = format!("{what}: {}", text_of(error));
    match error {
        mysql::Error::MySqlError(_) => CommandError::NotDone(text),
        mysql::Error::IoError(_)
        | mysql::Error::DriverError(_)
        | mysql::Error::UrlError(_)
        | mysql::Error::TlsError(_)
        | mysql::Error::FromValueError(_)
        | mysql::Error::FromRowError(_)
        | mysql::Error::CodecError(_) => CommandError::Unknown(text),
    }
}

/// The error's text without what a server may repeat of a statement: it could hold a password.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours and may grow")]
pub(super) fn text_of(error: &mysql::Error) -> String {
    match error {
        mysql::Error::MySqlError(error) if error.code == SYNTAX_ERROR => {
            format!("syntax not known to the server ({})", error.code)
        }
        mysql::Error::MySqlError(error) => format!("{} ({})", error.message, error.code),
        mysql::Error::CodecError(error) if ran_out_of_time(error) => "no answer in time".to_owned(),
        mysql::Error::DriverError(error) => error.to_string(),
        mysql::Error::IoError(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// The server was asked and did not answer in time.
fn is_late(error: &mysql::Error) -> bool {
    match error {
        mysql::Error::IoError(io) => timed_out(io),
        mysql::Error::CodecError(codec) => ran_out_of_time(codec),
        mysql::Error::MySqlError(_)
        | mysql::Error::DriverError(_)
        | mysql::Error::UrlError(_)
        | mysql::Error::TlsError(_)
        | mysql::Error::FromValueError(_)
        | mysql::Error::FromRowError(_) => false,
    }
}

/// A socket whose deadline is over says `EAGAIN`.
fn ran_out_of_time(error: &dyn std::error::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(timed_out)
}

fn text_row(row: mysql::Row) -> Row {
    let names: Vec<String> =
        row.columns_ref().iter().map(|column| column.name_str().to_ascii_lowercase()).collect();
    names.into_iter().zip(row.unwrap().into_iter().map(text_value)).collect()
}

fn text_value(value: mysql::Value) -> Option<String> {
    match value {
        mysql::Value::NULL => None,
        mysql::Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        mysql::Value::Int(number) => Some(number.to_string()),
        mysql::Value::UInt(number) => Some(number.to_string()),
        mysql::Value::Float(number) => Some(number.to_string()),
        mysql::Value::Double(number) => Some(number.to_string()),
        mysql::Value::Date(..) | mysql::Value::Time(..) => Some(value.as_sql(false)),
    }
}
