//! Making a server refuse writes through its vttablet, also while its clients hold that up.
//!
//! Told to demote by force, a vttablet switches semi-sync off while commits wait: their clients would take
//! that for an acknowledgement. So their sessions are ended first, as over a direct connection.

use std::time::Duration;

use vtorc_core::ports::CommandError;

use super::calls::Caller;
use crate::mysql::{Row, SETTINGS, SemiSyncNames, column_text, is_of_server, name_value};

/// How often sessions are looked for while the server is being fenced.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Everybody's sessions, and whether they are the administrator's as whom the vttablet asks.
const SESSIONS: &str = "SELECT ID AS id, USER AS user, COMMAND AS command, STATE AS state, INFO AS info, \
     USER = SUBSTRING_INDEX(USER(), '@', 1) AS own \
     FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()";

const REFUSE: &str = "SET GLOBAL super_read_only = ON";

/// Refuses writes and ends every client's session.
pub(crate) async fn refuse_writes(caller: &Caller<'_>) -> Result<(), CommandError> {
    let refusing = caller.run("refuse writes", REFUSE);
    ending_sessions_after(caller, LOOK_AGAIN, refusing).await?;
    // Those that came while the others were ended could only read; they write no more.
    end_sessions(caller, false).await?;
    Ok(())
}

/// Waits until the server refuses writes; from `patience` on, ends the sessions that may hold that up.
pub(crate) async fn ending_sessions_after<T>(
    caller: &Caller<'_>,
    patience: Duration,
    refusing: impl Future<Output = T>,
) -> T {
    tokio::pin!(refusing);
    let (mut pause, mut all_were_ended) = (patience, false);
    loop {
        tokio::select! {
            outcome = &mut refusing => return outcome,
            () = tokio::time::sleep(pause) => {
                pause = LOOK_AGAIN;
                all_were_ended = end_sessions(caller, all_were_ended).await.unwrap_or(false);
            }
        }
    }
}

/// Ends every client's session. Answers whether, when it did, the server was already holding new writes
/// back: then everybody who could still be told of a commit has been ended, and a commit that waits for an
/// acknowledgement in a session that was ended may be let go.
async fn end_sessions(caller: &Caller<'_>, all_were_ended: bool) -> Result<bool, CommandError> {
    let sessions = caller.rows(SESSIONS).await.map_err(|error| error.into_command_error())?;
    let holding =
        sessions.iter().any(|row| is_ours(row) && column_text(row, "state").contains("lock"));
    let (mut somebody_waits, mut somebody_would_be_told) = (false, false);
    for row in sessions.iter().filter(|row| is_client(row)) {
        let waits = column_text(row, "state").to_lowercase().contains("semi-sync ack");
        somebody_waits |= waits;
        if column_text(row, "command") != "Killed" {
            somebody_would_be_told |= waits;
            // It may have ended by itself.
            let _ = caller
                .run("end a client's session", &format!("KILL {}", column_text(row, "id")))
                .await;
        }
    }
    // SAFETY-OF-DATA: only sessions that were killed wait: no client takes this for an acknowledgement.
    if all_were_ended && somebody_waits && !somebody_would_be_told {
        let variables = caller.rows(SETTINGS).await;
        let variables = variables.map_err(|error| error.into_command_error())?;
        if let Some(source) = SemiSyncNames::of(&name_value(&variables)).source {
            let release = format!("SET GLOBAL rpl_semi_sync_{source}_enabled = OFF");
            caller.run("let go what waits", &release).await?;
        }
    }
    Ok(holding)
}

/// The session in which writes are being refused, by us or by the vttablet.
fn is_ours(row: &Row) -> bool {
    column_text(row, "info").to_lowercase().contains("super_read_only")
}

/// Replication, the server's own threads, and everything that the vttablet itself does stay: its administrator is
/// still at work when writes are refused.
fn is_client(row: &Row) -> bool {
    let is_of_vttablet = column_text(row, "own") == "1";
    !is_of_vttablet && !is_of_server(&column_text(row, "user"), &column_text(row, "command"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vttablet_that_demotes_its_server_is_not_ended_whatever_it_says() {
        let session = |user: &str, own: &str, info: &str| -> Row {
            let columns = [("user", user), ("own", own), ("command", "Query"), ("info", info)];
            columns.map(|(name, text)| (name.to_owned(), Some(text.to_owned()))).into()
        };
        let switch = "SET GLOBAL rpl_semi_sync_source_enabled = 0";
        assert!(!is_client(&session("vt_dba", "1", switch)));
        assert!(!is_client(&session("vt_dba", "1", REFUSE)));
        assert!(is_client(&session("vt_app", "0", switch)));
        assert!(!is_client(&session("system user", "0", "")));
    }
}
