//! Channels that pull from elsewhere go on while the shard's is changed.
//!
//! Whether a server acknowledges is one switch for all its channels, and so is whether it does just now: when the
//! receiver of one channel stops, the receivers of the others no longer expect the marks that their sources still
//! send, and break at the next event (error 1595, "could not queue event from source"; seen on 9.7). So they log in
//! anew.

use vtorc_core::ports::CommandError;
use vtorc_core::status::{ReceiverState, ReplicationStatus, ServerStatus};

use super::session::{Session, Thread};

/// `ER_SLAVE_RELAY_LOG_WRITE_FAILURE`.
const COULD_NOT_QUEUE: u32 = 1595;

/// Lets the receivers of the other channels log in anew, where they run, or ran until they broke by this. One that
/// its owner stopped stays so.
pub(crate) fn log_in_anew(
    session: &mut Session<'_>,
    status: &ServerStatus,
) -> Result<(), CommandError> {
    if !status.semi_sync.replica_available {
        return Ok(());
    }
    for channel in &status.channels {
        match channel.receiver {
            ReceiverState::Running => {
                let stopped = receiver(session, "STOP", channel);
                // Whatever became of that: it is not left stopped.
                receiver(session, "START", channel)?;
                stopped?;
            }
            ReceiverState::Stopped if broke(channel) => receiver(session, "START", channel)?,
            // One that connects logs in anew anyway.
            ReceiverState::Connecting | ReceiverState::Stopped => {}
        }
    }
    Ok(())
}

/// Stops MariaDB's other connections; answers which threads ran.
pub(crate) fn stop(
    session: &mut Session<'_>,
    status: &ServerStatus,
) -> Result<Vec<(String, Thread)>, CommandError> {
    let mut ran = Vec::new();
    for channel in &status.channels {
        let name = &channel.channel;
        if channel.receiver != ReceiverState::Stopped {
            ran.push((name.clone(), Thread::Receiver));
        }
        if channel.applier_running {
            ran.push((name.clone(), Thread::Applier));
        }
        let what = "stop another connection for a moment";
        if let Err(error) = session.threads("STOP", Thread::Both, name, what) {
            start(session, &ran)?;
            return Err(error);
        }
    }
    Ok(ran)
}

/// Starts them again, the appliers first: MariaDB throws a relay log away where both threads stand, and what was in
/// it is asked for again.
pub(crate) fn start(
    session: &mut Session<'_>,
    ran: &[(String, Thread)],
) -> Result<(), CommandError> {
    let mut outcome = Ok(());
    for (name, thread) in ran.iter().rev() {
        let started = session.threads("START", *thread, name, "start another connection again");
        outcome = outcome.and(started);
    }
    outcome
}

fn broke(channel: &ReplicationStatus) -> bool {
    channel.receiver_error.as_ref().is_some_and(|error| error.number == COULD_NOT_QUEUE)
}

fn receiver(
    session: &mut Session<'_>,
    verb: &str,
    channel: &ReplicationStatus,
) -> Result<(), CommandError> {
    let what = "let another channel log in anew";
    session.threads(verb, Thread::Receiver, &channel.channel, what)
}
