//! Whom a server logs in as at its source, where the configuration does not say.

use vtorc_core::ports::CommandError;
use vtorc_core::secret::Secret;
use vtorc_core::source_access::{ChannelTls, Login};

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
        return Ok(user.map(|user| Login { user, password, tls: asked_tls(columns) }));
    }
    match session.dialect {
        Dialect::MariaDb => Ok(None),
        Dialect::MySql | Dialect::OldMySql => of_channel(session),
    }
}

/// Orchestrator's queries may also answer authorities, certificate and key: then the user comes by TLS.
fn asked_tls(mut columns: impl Iterator<Item = String>) -> Option<ChannelTls> {
    let mut next = || columns.next().unwrap_or_default();
    let tls = ChannelTls {
        required: true,
        ca_file: next(),
        certificate: next(),
        key: next(),
        ..ChannelTls::default()
    };
    (!tls.ca_file.is_empty() || !tls.certificate.is_empty()).then_some(tls)
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
        tls: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_answer_how_its_user_comes() {
        let asked = |columns: &[&str]| asked_tls(columns.iter().map(|text| (*text).to_owned()));
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&["", "", ""]), None);
        let tls = asked(&["/ca.pem", "/cert.pem", "/key.pem"]).unwrap();
        assert!(tls.required && tls.ca_file == "/ca.pem" && tls.key == "/key.pem");
        assert!(asked(&["/ca.pem"]).unwrap().certificate.is_empty());
    }
}
