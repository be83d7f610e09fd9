//! Setting how late a replica applies what it receives, without losing any of it.

use vtorc_core::ports::CommandError;
use vtorc_core::status::{ReceiverState, ReplicationStatus, ServerStatus};

use super::dialect::Row;
use super::relay_log::refusal;
use super::session::{Session, Thread};
use super::stopping::stop;
use super::text::quoted;

/// Whom a receiver logs in as that is to receive nothing. The source denies it, and it goes on trying.
const NOBODY: &str = "vtorc-nobody";
/// A receiver that is only there so that one thread runs must go on trying to connect for so many seconds.
const TRIES_FOR_S: u64 = 5;

/// Applies what is received so many seconds late.
pub(crate) fn set_delay(session: &mut Session<'_>, seconds: u64) -> Result<(), CommandError> {
    let status = session.status()?;
    let Some(replication) = &status.replication else {
        return Err(CommandError::NotDone("it follows nobody".into()));
    };
    let runs = replication.applier_running;
    if replication.delay_seconds == seconds && runs {
        return Ok(());
    }
    if session.is_mariadb() {
        return set_mariadb(session, &status, replication, seconds);
    }
    if replication.receiver != ReceiverState::Stopped || status.unapplied().is_empty() {
        return change(session, seconds);
    }
    beside_a_receiver(session, &status, seconds)
}

/// A receiver that runs, or has nothing to lose.
fn change(session: &mut Session<'_>, seconds: u64) -> Result<(), CommandError> {
    stop(session, Thread::Applier)?;
    let status = session.status()?;
    let receiver = status.replication.as_ref().map(|replication| replication.receiver);
    let safe = receiver != Some(ReceiverState::Stopped) || status.unapplied().is_empty();
    let for_channel = session.for_channel();
    let changed = match safe {
        true => session.run_either(
            "set the delay",
            &format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY = {seconds}{for_channel}"),
            &format!("CHANGE MASTER TO MASTER_DELAY = {seconds}{for_channel}"),
        ),
        false => Err(refusal(&status, "would throw it away, since its receiver stopped meanwhile")),
    };
    session.start(Thread::Applier)?;
    changed
}

/// The receiver was stopped so that nothing more is received, and MySQL keeps its relay log only while a thread runs.
/// So one runs that is not let in: it tries to connect, as nobody, until this is done.
fn beside_a_receiver(
    session: &mut Session<'_>,
    before: &ServerStatus,
    seconds: u64,
) -> Result<(), CommandError> {
    let replica = session.dialect.replica();
    let rows = session.rows("read the receiver's settings", &format!("SHOW {replica} STATUS"))?;
    if !rows.iter().any(|row| goes_on_trying(row, &session.channel)) {
        let why = "its receiver, which must run meanwhile, would give up too soon";
        return Err(refusal(before, why));
    }
    let nobody = start_as_nobody(replica, &session.for_channel());
    session.run("let a receiver run that receives nothing", &nobody)?;
    let done = match receiver(session)? {
        Some(ReceiverState::Connecting) => change(session, seconds),
        Some(ReceiverState::Running | ReceiverState::Stopped) | None => {
            Err(refusal(before, "its receiver would receive more"))
        }
    };
    stop(session, Thread::Receiver)?;
    done
}

fn receiver(session: &mut Session<'_>) -> Result<Option<ReceiverState>, CommandError> {
    Ok(session.status()?.replication.map(|replication| replication.receiver))
}

/// Starts a receiver that no source lets in; whom replication logs in as stays as it is.
pub(crate) fn start_as_nobody(replica: &str, for_channel: &str) -> String {
    // An account of this name with this password is nobody's.
    let password = format!("{:016x}", fresh_number());
    let (user, password) = (quoted(NOBODY), quoted(&password));
    format!("START {replica} IO_THREAD USER = {user} PASSWORD = {password}{for_channel}")
}

fn fresh_number() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(NOBODY)
}

/// Whether a receiver with these settings goes on trying long enough. (A count of 0 is no try at all or no end of
/// them, by version.)
pub(crate) fn goes_on_trying(row: &Row, channel: &str) -> bool {
    let number = |new: &str, old: &str| -> u64 {
        let text = row.get(new).or_else(|| row.get(old)).cloned().flatten();
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let is_own = row.get("channel_name").cloned().flatten().unwrap_or_default() == channel;
    let pause = number("connect_retry", "connect_retry");
    let tries = number("source_retry_count", "master_retry_count");
    is_own && pause.saturating_mul(tries.saturating_sub(1)) >= TRIES_FOR_S
}

/// MariaDB changes a delay only while both threads stand, and then throws away what it received.
fn set_mariadb(
    session: &mut Session<'_>,
    before: &ServerStatus,
    replication: &ReplicationStatus,
    seconds: u64,
) -> Result<(), CommandError> {
    let received = replication.receiver != ReceiverState::Stopped;
    let why = "MariaDB would throw it away when its delay is changed";
    if !before.unapplied().is_empty() {
        return Err(refusal(before, why));
    }
    stop(session, Thread::Receiver)?;
    let status = session.status()?;
    if status.unapplied().is_empty() {
        stop(session, Thread::Applier)?;
        session.run("set the delay", &format!("CHANGE MASTER TO MASTER_DELAY = {seconds}"))?;
        return session.start(if received { Thread::Both } else { Thread::Applier });
    }
    // It received something more at the last moment. Beside a running applier the receiver starts without a loss.
    if received && replication.applier_running {
        session.start(Thread::Receiver)?;
    }
    Err(refusal(&status, why))
}
