//! Setting how late a replica applies what it receives, through its vttablet: as over a direct connection, in
//! `mysql/delay.rs`, which says why.

use vtorc_core::ports::CommandError;
use vtorc_core::status::{ReceiverState, ServerStatus};

use super::calls::CallError;
use super::tablet_command::TabletCommand;
use crate::mysql::{Thread, goes_on_trying, refusal, start_as_nobody};

/// Applies what is received so many seconds late.
pub(super) async fn set_delay(job: &TabletCommand<'_>, seconds: u64) -> Result<(), CommandError> {
    let status = job.status().await?;
    let Some(replication) = &status.replication else {
        return Err(CommandError::NotDone("it follows nobody".into()));
    };
    if replication.delay_seconds == seconds && replication.applier_running {
        return Ok(());
    }
    if replication.receiver != ReceiverState::Stopped || status.unapplied().is_empty() {
        return change(job, seconds).await;
    }
    let rows = job.caller.rows("SHOW REPLICA STATUS").await;
    let rows = rows.map_err(CallError::into_command_error)?;
    if !rows.iter().any(|row| goes_on_trying(row, "")) {
        let why = "its receiver, which must run meanwhile, would give up too soon";
        return Err(refusal(&status, why));
    }
    let nobody = start_as_nobody("REPLICA", "");
    job.caller.run("let a receiver run that receives nothing", &nobody).await?;
    let done = match receiver(&job.status().await?) {
        Some(ReceiverState::Connecting) => change(job, seconds).await,
        Some(ReceiverState::Running | ReceiverState::Stopped) | None => {
            Err(refusal(&status, "its receiver would receive more"))
        }
    };
    job.stop(Thread::Receiver).await?;
    done
}

/// A receiver that runs, or has nothing to lose.
async fn change(job: &TabletCommand<'_>, seconds: u64) -> Result<(), CommandError> {
    job.stop(Thread::Applier).await?;
    let status = job.status().await?;
    let safe = receiver(&status) != Some(ReceiverState::Stopped) || status.unapplied().is_empty();
    let changed = if safe {
        let new = format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY = {seconds}");
        let old = format!("CHANGE MASTER TO MASTER_DELAY = {seconds}");
        job.caller.run_either("set the delay", &new, &old).await
    } else {
        Err(refusal(&status, "would throw it away, since its receiver stopped meanwhile"))
    };
    job.start(Thread::Applier).await?;
    changed
}

fn receiver(status: &ServerStatus) -> Option<ReceiverState> {
    status.replication.as_ref().map(|replication| replication.receiver)
}
