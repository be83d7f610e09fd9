//! An applier that has only a part of a transaction, behind a vttablet: as over a direct connection, in
//! `mysql/stopping.rs`, which says why.

use std::time::Instant;

use vtorc_core::ports::CommandError;
use vtorc_core::status::{ReceiverState, ReplicationStatus};

use super::tablet_command::TabletCommand;
use crate::mysql::{ENDS_WITHIN, LOOK_AGAIN, Thread, end_of, question};

/// Ends the server's applier where it would wait for the rest of a transaction; where that cannot be done, it goes on.
pub(super) async fn end_applier(job: &TabletCommand<'_>) {
    let question = question("");
    let Ok(found) = job.caller.rows(&question).await else { return };
    let Some(applier) = found.first() else { return };
    if job.caller.rows(&end_of(applier)).await.is_err() {
        return;
    }
    let until = Instant::now() + ENDS_WITHIN.min(job.caller.left() / 2);
    while Instant::now() < until {
        match job.caller.rows(&question).await {
            Ok(left) if !left.is_empty() => tokio::time::sleep(LOOK_AGAIN).await,
            Ok(_) | Err(_) => return,
        }
    }
}

/// Before a vttablet stops replication itself: nothing more is received. Answers whether something was.
pub(super) async fn stop_receiver(
    job: &TabletCommand<'_>,
    replication: &ReplicationStatus,
) -> Result<bool, CommandError> {
    let received = replication.receiver != ReceiverState::Stopped;
    if received {
        job.stop(Thread::Receiver).await?;
    }
    end_applier(job).await;
    Ok(received)
}
