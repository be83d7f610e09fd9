//! Where the statements of a command are others on MariaDB, in the order in which the real client sends them.

use std::time::Duration;

use tokio::time::Instant;
use vtorc_core::ports::{CommandError, RelayLog};
use vtorc_core::status::{Flavor, ReceiverState, ReplicationStatus, ServerStatus};

use super::Line;
use crate::statements::Statement;

/// How long what was received may take to be applied, before it is thrown away by `CHANGE MASTER`.
const DRAIN: Duration = Duration::from_secs(5);
/// An applier that stood may stop again at once.
const STANDS_AGAIN: Duration = Duration::from_millis(200);

impl Line {
    /// `CHANGE MASTER` is taken only while both threads stand.
    pub(super) async fn repoint_mariadb(
        &self,
        source: u8,
        status: &ServerStatus,
        relay_log: RelayLog,
    ) -> Result<(), CommandError> {
        if let Some(replication) = &status.replication {
            match relay_log {
                RelayLog::MustStay => self.apply_received(status, replication).await?,
                RelayLog::MayGo => {
                    self.tell(Statement::StopReceiver).await?;
                    if replication.applier_running && replication.delay_seconds < DRAIN.as_secs() {
                        // What is left of it may go.
                        let _ = self.wait(&replication.retrieved, self.share_of(DRAIN)).await;
                    }
                }
            }
            self.tell(Statement::StopReplication).await?;
        }
        self.tell(Statement::ChangeSource(source)).await?;
        self.tell(Statement::StartReplication).await
    }

    /// While its receiver runs, an applier may be started without a loss; once both stand it is too late.
    async fn apply_received(
        &self,
        status: &ServerStatus,
        replication: &ReplicationStatus,
    ) -> Result<(), CommandError> {
        if replication.delay_seconds >= DRAIN.as_secs() && !status.unapplied().is_empty() {
            return Err(refusal("would throw it away when it is repointed"));
        }
        if !replication.applier_running && !status.unapplied().is_empty() {
            check_start(status)?;
            self.tell(Statement::StartApplier).await?;
            let _ = self.wait(&replication.retrieved, self.share_of(STANDS_AGAIN)).await;
            check_restart(&self.status().await?)?;
        }
        if replication.receiver != ReceiverState::Stopped {
            self.tell(Statement::StopReceiver).await?;
        }
        let received = self.status().await?.unapplied();
        if received.is_empty() || self.wait(&received, self.share_of(DRAIN)).await.is_ok() {
            return Ok(());
        }
        let now = self.status().await?;
        if now.unapplied().is_empty() {
            return Ok(());
        }
        let applies = now.replication.is_some_and(|channel| channel.applier_running);
        if applies && replication.receiver != ReceiverState::Stopped {
            self.tell(Statement::StartReplication).await?;
        }
        Err(refusal("would throw it away when it is repointed"))
    }

    /// What stands is started, the applier first: nothing may be started once both stand.
    pub(super) async fn resume_mariadb(
        &self,
        status: &ServerStatus,
        anew: bool,
        relay_log: RelayLog,
    ) -> Result<(), CommandError> {
        let channel = status.replication.as_ref();
        let receives = channel.is_some_and(|channel| channel.receiver != ReceiverState::Stopped);
        if relay_log == RelayLog::MustStay {
            check_start(status)?;
        }
        if receives && channel.is_some_and(|channel| !channel.applier_running) {
            self.tell(Statement::StartApplier).await?;
        }
        if anew && receives {
            if relay_log == RelayLog::MustStay {
                check_restart(&self.status().await?)?;
            }
            self.tell(Statement::StopReceiver).await?;
        }
        self.tell(Statement::StartReplication).await
    }

    fn share_of(&self, most: Duration) -> Duration {
        most.min(self.deadline.saturating_duration_since(Instant::now()) / 2)
    }
}

/// Its applier may be started.
pub(super) fn check_start(status: &ServerStatus) -> Result<(), CommandError> {
    let stands = |channel: &ReplicationStatus| {
        channel.receiver == ReceiverState::Stopped && !channel.applier_running
    };
    check(status, stands, "starting its applier while its receiver stands would throw it away")
}

/// Its receiver may be stopped and started.
pub(super) fn check_restart(status: &ServerStatus) -> Result<(), CommandError> {
    let stands = |channel: &ReplicationStatus| !channel.applier_running;
    check(status, stands, "starting its receiver while its applier stands would throw it away")
}

fn check(
    status: &ServerStatus,
    stands: impl Fn(&ReplicationStatus) -> bool,
    why: &str,
) -> Result<(), CommandError> {
    let would = status.flavor == Flavor::MariaDb && status.replication.as_ref().is_some_and(stands);
    if would && !status.unapplied().is_empty() { Err(refusal(why)) } else { Ok(()) }
}

fn refusal(why: &str) -> CommandError {
    CommandError::NotDone(format!("it has received something and not applied it, and {why}"))
}
