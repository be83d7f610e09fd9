//! What a server is asked once, before the bad day. What it will not tell is left open: it is no error.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mysql::prelude::Queryable;

use vtorc_core::ports::CommandError;
use vtorc_core::preflight::{Inspection, may_replicate};
use vtorc_core::source_access::{Login, LoginTrial, LoginTrouble};
use vtorc_core::tablet::MysqlAddress;

use super::access::{MysqlAccess, TlsFiles};
use super::dialect::name_value;
use super::errors::{is_full, unless_refused};
use super::fence::{Client, column_text};
use super::session::{Session, connect, text_of};
use super::{fence, grants, login};

/// Looks at a server's grants and settings.
pub(crate) fn inspect(session: &mut Session<'_>) -> Result<Inspection, CommandError> {
    let rows = session.rows("show the grants", "SHOW GRANTS")?;
    let lines = rows.into_iter().filter_map(|row| row.into_values().next().flatten());
    let variables = session.rows("read the settings", SETTINGS)?;
    let variables = name_value(&variables);
    let number = |name: &str| variables.get(name).and_then(|value| value.parse::<u64>().ok());
    let durable = number("sync_binlog").zip(number("innodb_flush_log_at_trx_commit"));
    let wait_point = variables
        .get("rpl_semi_sync_source_wait_point")
        .or_else(|| variables.get("rpl_semi_sync_master_wait_point"));
    Ok(Inspection {
        grants: grants::grants(lines),
        read_only_at_start: read_only_at_start(session)?,
        net_timeout_s: number("replica_net_timeout").or_else(|| number("slave_net_timeout")),
        commits_are_durable: durable.map(|(binlog, engine)| binlog == 1 && engine == 1),
        readers_see_unacknowledged: wait_point.map(|point| point == "AFTER_COMMIT"),
        clock_ahead_ms: clock_ahead_ms(session)?,
        connected: users(fence::clients(session)?),
        past_read_only: users(fence::clients_past_read_only(session)?),
        // What cannot be tried says nothing of the rest.
        login_trial: login_trial(session).unwrap_or(None),
    })
}

fn users(clients: Vec<Client>) -> BTreeSet<String> {
    clients.into_iter().map(|client| client.user).collect()
}

/// Logs in as replicas do: at the server itself where the configuration says as whom, else where its channel leads.
fn login_trial(session: &mut Session<'_>) -> Result<Option<LoginTrial>, CommandError> {
    let source = match session.access.replica {
        Some(_) => None,
        None => session.status()?.replication.map(|replication| replication.source),
    };
    let at = source.unwrap_or_else(|| session.address.clone());
    trial_at(session, at)
}

/// Logs in at the server itself as its replicas would.
pub(crate) fn try_login(session: &mut Session<'_>) -> Result<Option<LoginTrial>, CommandError> {
    let at = session.address.clone();
    trial_at(session, at)
}

fn trial_at(
    session: &mut Session<'_>,
    at: MysqlAddress,
) -> Result<Option<LoginTrial>, CommandError> {
    let login = match session.access.replica.clone() {
        Some(login) => Some(login),
        None => login::login(session)?,
    };
    let Some(Login { user, password, tls: asked }) = login else { return Ok(None) };
    let channel = session.status()?.replication.and_then(|channel| channel.tls);
    let tls = session.access.replica_tls.clone().or(asked).or(channel);
    let plain = MysqlAccess { user: user.clone(), password, tls: None, ..session.access.clone() };
    let by_tls = session.access.tls.clone().unwrap_or_else(any_certificate);
    let by_tls = MysqlAccess { tls: Some(TlsFiles { mixed: false, ..by_tls }), ..plain.clone() };
    let patience = session.left() / 4;
    let tried = |access: &MysqlAccess| trial(access, &at, patience);
    let trouble = match tls.as_ref().map(|tls| tls.required) {
        // Its certificate is not here to be shown.
        Some(true) if tls.is_some_and(|tls| !tls.certificate.is_empty()) => return Ok(None),
        Some(true) => tried(&by_tls),
        told @ (Some(false) | None) => match tried(&plain) {
            Some(Some(LoginTrouble::Refused(words))) if tried(&by_tls) == Some(None) => {
                Some(told.is_some().then_some(LoginTrouble::TlsOnly(words)))
            }
            tried => tried,
        },
    };
    Ok(trouble.map(|trouble| LoginTrial { user, at, trouble }))
}

fn any_certificate() -> TlsFiles {
    TlsFiles { skip_verify: true, ..TlsFiles::default() }
}

/// What is wrong with this login there, if anything; none where that could not be tried.
fn trial(
    access: &MysqlAccess,
    at: &MysqlAddress,
    patience: Duration,
) -> Option<Option<LoginTrouble>> {
    match connect(access, at, patience) {
        Ok(mut conn) => {
            let lacks = lacks_grant(&mut conn).ok()?;
            Some(lacks.then_some(LoginTrouble::LacksGrant))
        }
        Err(error) if is_away(&error) => None,
        Err(error) => Some(Some(LoginTrouble::Refused(text_of(&error)))),
    }
}

/// `ER_USER_LIMIT_REACHED`
const USER_LIMIT_REACHED: u16 = 1226;

/// `ER_HOST_NOT_PRIVILEGED`: nobody may come from this machine.
const OTHER_HOSTS_ONLY: u16 = 1130;

/// It is away, or full: that says nothing of the user. (How one is turned away whom the server does not know differs by
/// version and plugin, down to a connection that is closed within the handshake.)
fn is_away(error: &mysql::Error) -> bool {
    use mysql::DriverError::{ConnectTimeout, CouldNotConnect, Timeout};
    match error {
        mysql::Error::MySqlError(error) => {
            is_full(error.code)
                || error.code == USER_LIMIT_REACHED
                || error.code == OTHER_HOSTS_ONLY
        }
        mysql::Error::DriverError(error) => {
            matches!(error, ConnectTimeout | CouldNotConnect(_) | Timeout)
        }
        mysql::Error::IoError(error) => {
            let closed =
                [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            !closed.contains(&error.kind())
        }
        mysql::Error::CodecError(_) => false,
        mysql::Error::UrlError(_)
        | mysql::Error::TlsError(_)
        | mysql::Error::FromValueError(_)
        | mysql::Error::FromRowError(_) => true,
    }
}

fn lacks_grant(conn: &mut mysql::Conn) -> Result<bool, mysql::Error> {
    let lines: Vec<String> = conn.query("SHOW GRANTS")?;
    Ok(!may_replicate(&grants::grants(lines)))
}

const SETTINGS: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('replica_net_timeout', \
     'slave_net_timeout', 'sync_binlog', 'innodb_flush_log_at_trx_commit', \
     'rpl_semi_sync_source_wait_point', 'rpl_semi_sync_master_wait_point')";

/// Where `read_only` has its value from tells what it will be after a restart. One that was set at run time
/// hides what the option file says.
fn read_only_at_start(session: &mut Session<'_>) -> Result<Option<bool>, CommandError> {
    let (what, statement) = if session.is_mariadb() {
        ("origin of read_only", READ_ONLY_MARIADB)
    } else {
        ("origin of read_only", READ_ONLY_MYSQL)
    };
    let rows = unless_refused(session.rows(what, statement))?.unwrap_or_default();
    let Some(row) = rows.first() else { return Ok(None) };
    let text = |column: &str| column_text(row, column);
    let is_on = !matches!(text("value").to_ascii_uppercase().as_str(), "" | "0" | "OFF");
    let persisted = text("persisted").to_ascii_uppercase();
    Ok(match text("origin").to_ascii_uppercase().as_str() {
        _ if !persisted.is_empty() => Some(matches!(persisted.as_str(), "1" | "ON")),
        "DYNAMIC" | "SQL" | "" => None,
        _ => Some(is_on),
    })
}

const READ_ONLY_MYSQL: &str = "SELECT v.VARIABLE_VALUE AS value, i.VARIABLE_SOURCE AS origin, \
     p.VARIABLE_VALUE AS persisted FROM performance_schema.global_variables v \
     JOIN performance_schema.variables_info i USING (VARIABLE_NAME) \
     LEFT JOIN performance_schema.persisted_variables p USING (VARIABLE_NAME) \
     WHERE v.VARIABLE_NAME = 'read_only'";
const READ_ONLY_MARIADB: &str = "SELECT GLOBAL_VALUE AS value, GLOBAL_VALUE_ORIGIN AS origin, \
     NULL AS persisted FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'READ_ONLY'";

/// Compared with the middle of the question's time on the way.
fn clock_ahead_ms(session: &mut Session<'_>) -> Result<Option<i64>, CommandError> {
    let before = since_epoch_ms();
    let there = session.value("read the clock", "SELECT FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000)")?;
    let here = before.midpoint(since_epoch_ms());
    Ok(there.and_then(|text| text.parse::<i64>().ok()).map(|there| there - here))
}

fn since_epoch_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
