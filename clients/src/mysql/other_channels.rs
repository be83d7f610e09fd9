//! Channels that pull from elsewhere go on while the shard's is changed.
//!
//! Whether a server acknowledges is one switch for all its channels, and so is whether it does just now: when the receiver
//! of one channel stops, the receivers of the others no longer expect the marks that their sources still send, and break at
//! the next event (error 1595, "could not queue event from source"; seen on 9.7). So they log in anew.

use vtorc_core::ports::CommandError;
use vtorc_core::status::{ReceiverState, ReplicationStatus, ServerStatus};

use super::dialect::Dialect;
use super::session::Session;
use super::text::quoted;

/// `ER_SLAVE_RELAY_LOG_WRITE_FAILURE`.
const COULD_NOT_QUEUE: u32 = 1595;

/// Lets the receivers of the other channels log in anew, where they run, or ran until they broke by this. One that its owner
/// stopped stays so.
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
) -> Result<Vec<String>, CommandError> {
    let mut ran = Vec::new();
    for channel in &status.channels {
        let name = quoted(&channel.channel);
        if channel.receiver != ReceiverState::Stopped {
            ran.push(format!("{name} IO_THREAD"));
        }
        if channel.applier_running {
            ran.push(format!("{name} SQL_THREAD"));
        }
        let stop = format!("STOP SLAVE {name}");
        if let Err(error) = session.run("stop another connection for a moment", &stop) {
            start(session, &ran)?;
            return Err(error);
        }
    }
    Ok(ran)
}

/// Starts them again, the appliers first: MariaDB throws a relay log away where both threads stand, and what was in it is
/// asked for again.
pub(crate) fn start(session: &mut Session<'_>, ran: &[String]) -> Result<(), CommandError> {
    let mut outcome = Ok(());
    for thread in ran.iter().rev() {
        let start = format!("START SLAVE {thread}");
        outcome = outcome.and(session.run("start another connection again", &start));
    }
    outcome
}

fn broke(channel: &ReplicationStatus) -> bool {
    channel.receiver_error.as_ref().is_some_and(|error| error.number == COULD_NOT_QUEUE)
}

fn receiver(
    session: &mut Session<'_>,
    what: &str,
    channel: &ReplicationStatus,
) -> Result<(), CommandError> {
    let (replica, name) = (session.dialect.replica(), quoted(&channel.channel));
    let statement = match session.dialect {
        Dialect::MySql | Dialect::OldMySql => {
            format!("{what} {replica} IO_THREAD FOR CHANNEL {name}")
        }
        Dialect::MariaDb => format!("{what} SLAVE {name} IO_THREAD"),
    };
    session.run("let another channel log in anew", &statement)
}
