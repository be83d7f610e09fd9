//! A command on its way to one tablet, and the ways there.

use std::time::Duration;

use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::{CommandError, MysqlPort, ServerCommand};
use vtorc_core::status::{ServerStatus, VttabletState};
use vtorc_core::tablet::TabletAddress;

use super::calls::{CallError, Caller};
use super::status;
use crate::interface::replicationdata::FullStatus;
use crate::interface::tabletmanagerdata as messages;
use crate::mysql::{READ_LOCKS, WorkerPool, is_any};

/// A vttablet beside a server that answers is waited for so long.
const WORD_PATIENCE: Duration = Duration::from_millis(300);

/// The sidecar database, or a table of it, is not there.
pub(super) const MISSING: &[u16] = &[1049, 1146];

/// A command for one tablet.
pub(crate) struct TabletCommand<'a> {
    pub(crate) caller: Caller<'a>,
    pub(crate) address: &'a TabletAddress,
    pub(crate) direct: Option<&'a WorkerPool>,
    pub(crate) heartbeat_period: Duration,
}

impl TabletCommand<'_> {
    /// Makes sure that the vttablet looks after the server that is meant: its address may have been given to another
    /// one since. With a direct connection the server is asked besides, by each command; so one whose vttablet hangs
    /// is not held up by that.
    pub(super) async fn check_identity(&self) -> Result<(), CommandError> {
        let Some(meant) = &self.address.server else { return Ok(()) };
        let patience = match self.direct {
            Some(_) => WORD_PATIENCE,
            None => self.caller.left() / 2,
        };
        match self.full_status_within(patience).await {
            // A disk that stalls lets it tell nothing else.
            Ok(full) if full.disk_stalled => Ok(()),
            Ok(full) => {
                let answer = status::server(&full, None).map_err(CommandError::NotDone)?;
                CommandError::check_meant(meant, &answer.identity())
            }
            Err(_) if self.direct.is_some() => Ok(()),
            // What was to be done was not sent.
            Err(error) => match error.into_command_error() {
                CommandError::Unknown(_) => Err(CommandError::Unreached(ProbeFailure::TimedOut)),
                known @ (CommandError::NotDone(_) | CommandError::Unreached(_)) => Err(known),
            },
        }
    }

    pub(super) async fn directly(
        &self,
        command: ServerCommand,
    ) -> Result<ServerStatus, CommandError> {
        match self.direct {
            Some(workers) => workers.run(self.address, command, self.caller.left()).await,
            None => Err(CommandError::NotDone("there is no direct connection".into())),
        }
    }

    /// Whoever is to be promoted needs a vttablet that answers, and the server cannot tell of that.
    pub(super) async fn directly_with_word(
        &self,
        command: ServerCommand,
    ) -> Result<ServerStatus, CommandError> {
        let (answer, word) = tokio::join!(self.directly(command), self.word());
        let mut status = answer?;
        status.vttablet = word;
        Ok(status)
    }

    async fn full_status_within(&self, patience: Duration) -> Result<FullStatus, CallError> {
        let answered = tokio::time::timeout(patience, self.caller.full_status()).await;
        answered.unwrap_or(Err(CallError::TimedOut))
    }

    /// What the vttablet says of itself.
    pub(super) async fn word(&self) -> Option<VttabletState> {
        match self.full_status_within(WORD_PATIENCE).await {
            Ok(full) => Some(status::vttablet(&full)),
            Err(error) => error.into_vttablet_state(),
        }
    }

    /// The server's state, directly where that is possible.
    pub(super) async fn status(&self) -> Result<ServerStatus, CommandError> {
        if self.direct.is_some() {
            return self.directly(ServerCommand::ReadStatus).await;
        }
        let answer = self.caller.full_status_and_besides().await;
        let (full, besides) = answer.map_err(CallError::into_command_error)?;
        if full.disk_stalled {
            return Err(CommandError::Unreached(ProbeFailure::DiskStalled));
        }
        status::server(&full, besides.as_deref()).map_err(CommandError::NotDone)
    }

    /// The server's state with the number of reparents that it knows of.
    pub(super) async fn status_with_journal(&self) -> Result<ServerStatus, CommandError> {
        if self.direct.is_some() {
            // It tells of its journal itself.
            return self.status().await;
        }
        let mut client = self.caller.client.clone();
        let request = self.caller.request(messages::ReadReparentJournalInfoRequest {});
        let sent = client.read_reparent_journal_info(request);
        let journal = self.caller.answer("ReadReparentJournalInfo", sent);
        let locks = self.caller.rows(READ_LOCKS);
        let (answer, journal, locks) = tokio::join!(self.status(), journal, locks);
        let mut status = answer?;
        // Unknown, where it cannot be read.
        status.journal_length = match journal {
            Ok(journal) => u64::try_from(journal.length).ok(),
            Err(error) if error.is_refusal(MISSING) => Some(0),
            Err(_) => None,
        };
        let locks = locks.ok().and_then(|rows| rows.into_iter().next()?.into_values().next()?);
        status.writes_wait = is_any(locks);
        Ok(status)
    }
}
