//! When a server throws away what it received and has not applied, and how that is avoided.
//!
//! MySQL does by `CHANGE REPLICATION SOURCE` while both threads stand, whatever is changed, a delay alone included.
//! With one of them running it keeps everything, and a receiver that is trying to connect counts as running; starting
//! threads never throws anything away. (Manual, "CHANGE REPLICATION SOURCE TO": "Relay logs are preserved if at least
//! one of the replication applier thread and the replication I/O (receiver) thread is running"; seen on 9.7.)
//!
//! MariaDB does by `CHANGE MASTER`, which it takes only while both threads stand; and with GTIDs also by starting
//! any thread while both stand, be it the applier alone. While one runs, the other may stop and start. (`slave.cc`,
//! `start_slave_threads`: it purges the relay logs where a GTID position is used and no thread runs; seen on 10.11.)

use std::time::{Duration, Instant};

use vtorc_core::gtid::GtidSet;
use vtorc_core::ports::{CommandError, RelayLog};
use vtorc_core::status::{Flavor, ReceiverState, ReplicationStatus, ServerStatus};

use super::dialect::Dialect;
use super::session::{Session, Thread};
use super::stopping::{stop, waits_for_lock};

/// How long MariaDB, which throws its relay log away when it is repointed, may take to apply it first.
const DRAIN: Duration = Duration::from_secs(5);
/// While it does, it is looked so often whether its applier waits for a lock.
const LOCKED_LOOK: Duration = Duration::from_millis(300);
/// So often in a row, and it is not waited for: short locks come and go.
const LOCKED_LOOKS: u32 = 3;
/// An applier that stood may stop again at once, by the error for which it stood. It shows within this.
const STANDS_AGAIN: Duration = Duration::from_millis(200);

/// What would be lost, and why it cannot be kept.
pub(crate) fn refusal(status: &ServerStatus, why: &str) -> CommandError {
    let error = status.replication.as_ref().and_then(|one| one.applier_error.as_ref());
    let error = error.map(|error| format!("; its applier's error: {error}")).unwrap_or_default();
    CommandError::NotDone(format!(
        "it has received {} and not applied it, and {why}{error}",
        status.unapplied().shown()
    ))
}

/// Its applier may be started.
pub(crate) fn check_start(status: &ServerStatus) -> Result<(), CommandError> {
    let stands = |replication: &ReplicationStatus| {
        replication.receiver == ReceiverState::Stopped && !replication.applier_running
    };
    check_mariadb(
        status,
        stands,
        "starting its applier while its receiver stands would throw it away",
    )
}

/// Its receiver may be stopped and started.
pub(crate) fn check_restart(status: &ServerStatus) -> Result<(), CommandError> {
    let stands = |replication: &ReplicationStatus| !replication.applier_running;
    check_mariadb(
        status,
        stands,
        "starting its receiver while its applier stands would throw it away",
    )
}

fn check_mariadb(
    status: &ServerStatus,
    stands: impl Fn(&ReplicationStatus) -> bool,
    why: &str,
) -> Result<(), CommandError> {
    let purges =
        status.flavor == Flavor::MariaDb && status.replication.as_ref().is_some_and(stands);
    if purges && !status.unapplied().is_empty() { Err(refusal(status, why)) } else { Ok(()) }
}

/// Stops the receiver and makes sure that what was received survives a new source, where it must; otherwise refuses,
/// and replication is as it was. Answers whether the relay log is kept: then the applier runs, and must go on
/// running.
pub(crate) fn make_ready(
    session: &mut Session<'_>,
    status: &ServerStatus,
    relay_log: RelayLog,
) -> Result<bool, CommandError> {
    let Some(replication) = &status.replication else { return Ok(false) };
    match (session.dialect, relay_log) {
        (Dialect::MySql | Dialect::OldMySql, RelayLog::MayGo) => {
            stop_receiver(session, replication)?;
            keep_if_it_runs(session, replication)
        }
        (Dialect::MySql | Dialect::OldMySql, RelayLog::MustStay) => {
            stop_receiver(session, replication)?;
            let outcome = keep_mysql(session);
            restored(session, replication, outcome)
        }
        (Dialect::MariaDb, RelayLog::MayGo) => {
            stop(session, Thread::Receiver)?;
            // The sooner it is thrown away, the surer the source still has it. One that is late on purpose is not
            // waited for.
            if replication.applier_running && !is_late_on_purpose(replication) {
                drain(session, &replication.retrieved)?;
            }
            Ok(false)
        }
        (Dialect::MariaDb, RelayLog::MustStay) => {
            // One that is late on purpose does not apply it now: its receiver is not even stopped.
            if is_late_on_purpose(replication) && !status.unapplied().is_empty() {
                return Err(refusal(status, "would throw it away when it is repointed"));
            }
            start_mariadb_applier(session, status, replication)?;
            stop_receiver(session, replication)?;
            let outcome = drain_mariadb(session);
            restored(session, replication, outcome)
        }
    }
}

/// It does not apply what it received while it is waited for.
fn is_late_on_purpose(replication: &ReplicationStatus) -> bool {
    replication.delay_seconds >= DRAIN.as_secs()
}

/// A receiver that ran runs again after a refusal. In MariaDB only beside a running applier: alone, it would begin by
/// throwing away what was to be kept.
fn restored(
    session: &mut Session<'_>,
    before: &ReplicationStatus,
    outcome: Result<bool, CommandError>,
) -> Result<bool, CommandError> {
    if outcome.is_err() && before.receiver != ReceiverState::Stopped {
        let now = session.status()?;
        let applies = now.replication.is_some_and(|replication| replication.applier_running);
        if applies || !session.is_mariadb() {
            session.start(Thread::Receiver)?;
        }
    }
    outcome
}

fn stop_receiver(
    session: &mut Session<'_>,
    replication: &ReplicationStatus,
) -> Result<(), CommandError> {
    if replication.receiver == ReceiverState::Stopped {
        return Ok(());
    }
    stop(session, Thread::Receiver)
}

/// With the applier running, MySQL keeps its relay logs when only the source's address changes. So what was received is
/// not thrown away where that can be helped.
fn keep_if_it_runs(
    session: &mut Session<'_>,
    replication: &ReplicationStatus,
) -> Result<bool, CommandError> {
    let may_run = replication.applier_error.is_none() && !replication.retrieved.is_empty();
    if replication.auto_position && (replication.applier_running || may_run) {
        if !replication.applier_running {
            session.start(Thread::Applier)?;
        }
        return Ok(true);
    }
    stop(session, Thread::Both)?;
    Ok(false)
}

/// The receiver stands. An applier that stops by an error between the last look and the change is not seen: MySQL has
/// no statement that looks and changes in one.
fn keep_mysql(session: &mut Session<'_>) -> Result<bool, CommandError> {
    let mut status = session.status()?;
    let stands = |status: &ServerStatus| {
        status.replication.as_ref().is_none_or(|replication| !replication.applier_running)
    };
    let error = |status: &ServerStatus| {
        status.replication.as_ref().is_some_and(|replication| replication.applier_error.is_some())
    };
    if !status.unapplied().is_empty() && stands(&status) && !error(&status) {
        session.start(Thread::Applier)?;
        session.wait_for(&status.unapplied(), STANDS_AGAIN.min(session.left() / 2))?;
        status = session.status()?;
    }
    let by_gtid = status.replication.as_ref().is_some_and(|replication| replication.auto_position);
    match (status.unapplied().is_empty(), by_gtid, stands(&status)) {
        (_, true, false) => Ok(true),
        (true, _, _) => {
            stop(session, Thread::Both)?;
            Ok(false)
        }
        (false, true, true) => {
            Err(refusal(&status, "would throw it away, since its applier stands"))
        }
        (false, false, _) => {
            Err(refusal(&status, "would throw it away, since it does not replicate by GTIDs"))
        }
    }
}

/// While its receiver runs, an applier may be started without a loss, and must be: once both stand it is too late.
fn start_mariadb_applier(
    session: &mut Session<'_>,
    status: &ServerStatus,
    replication: &ReplicationStatus,
) -> Result<(), CommandError> {
    if replication.applier_running || status.unapplied().is_empty() {
        return Ok(());
    }
    check_start(status)?;
    session.start(Thread::Applier)?;
    session.wait_for(&replication.retrieved, STANDS_AGAIN.min(session.left() / 2))?;
    check_restart(&session.status()?)
}

/// The receiver stands.
fn drain_mariadb(session: &mut Session<'_>) -> Result<bool, CommandError> {
    let status = session.status()?;
    let received = status.unapplied();
    if !received.is_empty() && !drain(session, &received)? {
        let status = session.status()?;
        if !status.unapplied().is_empty() {
            return Err(refusal(&status, "would throw it away when it is repointed"));
        }
    }
    Ok(false)
}

/// What is left of the time must do for the rest. An applier that waits for a lock is not waited for.
fn drain(session: &mut Session<'_>, received: &GtidSet) -> Result<bool, CommandError> {
    let until = Instant::now() + DRAIN.min(session.left() / 2);
    let mut looks_locked = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if session.wait_for(received, left.min(LOCKED_LOOK))? {
            return Ok(true);
        }
        looks_locked = if waits_for_lock(session)? { looks_locked + 1 } else { 0 };
        if left <= LOCKED_LOOK || looks_locked >= LOCKED_LOOKS {
            return Ok(false);
        }
    }
}
