//! Whom a server logs in as at its source, where the configuration does not say.

use vtorc_core::ports::CommandError;
use vtorc_core::secret::{Login, Secret};

use super::dialect::Dialect;
use super::errors::unless_refused;
use super::fence::column_text;
use super::session::Session;
use super::text::quoted;

/// Asks the server: by the operator's own query, else (MySQL) where it keeps what its channel uses.
pub(crate) fn login(session: &mut Session<'_>) -> Result<Option<Login>, CommandError> {
    if let Some(query) = session.access.replica_query.clone() {
        let row = session.ordered_row("ask for the replication credentials", query.reveal())?;
        let mut columns = row.into_iter().map(Option::unwrap_or_default);
        let user = columns.next().filter(|user| !user.is_empty());
        let password = Secret::new(columns.next().unwrap_or_default());
        return Ok(user.map(|user| Login { user, password }));
    }
    match session.dialect {
        Dialect::MariaDb => Ok(None),
        Dialect::MySql | Dialect::OldMySql => of_channel(session),
    }
}

fn of_channel(session: &mut Session<'_>) -> Result<Option<Login>, CommandError> {
    let kept = format!(
        "SELECT User_name AS user, User_password AS password FROM mysql.slave_master_info \
         WHERE Channel_name = {} AND User_name <> ''",
        quoted(&session.channel)
    );
    // There may be no grant.
    let rows = unless_refused(session.rows("read what its channel logs in as", &kept))?;
    let row = rows.and_then(|rows| rows.into_iter().next());
    Ok(row.map(|row| Login {
        user: column_text(&row, "user"),
        password: Secret::new(column_text(&row, "password")),
    }))
}
