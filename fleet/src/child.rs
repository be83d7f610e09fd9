//! A child process that is ended with the value, and ports that nobody else uses.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::FleetError;

/// The kernel stops all threads of a process within this.
const FREEZE_MAX: Duration = Duration::from_secs(10);

/// A server of a topology serves within this.
const START_MAX: Duration = Duration::from_secs(60);

/// A process of ours.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
}

fn send(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // Gone already: nothing to be told.
        let _ = kill_process(pid, signal);
    }
}

/// Stops a process in its tracks. Returns when none of its threads runs any more: until then they may still take and
/// answer requests, although the signal was sent.
pub fn freeze(process: u32) {
    send(process, Signal::STOP);
    let deadline = Instant::now() + FREEZE_MAX;
    while !all_threads_stopped(process) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn all_threads_stopped(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.flatten().all(|thread| {
        // After the name in parentheses comes the state; T is stopped. One that ended counts as well.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    })
}

impl Child {
    /// Starts a command with its output in a file.
    pub fn start(command: &mut Command, output: &Path) -> Result<Self, FleetError> {
        let name = format!("start {:?}", command.get_program());
        let file = std::fs::File::options().create(true).append(true).open(output);
        let file = file.map_err(|error| FleetError::doing(output.display(), error))?;
        let second =
            file.try_clone().map_err(|error| FleetError::doing(output.display(), error))?;
        let spawned = command.stdin(Stdio::null()).stdout(file).stderr(second).spawn();
        Ok(Self { process: spawned.map_err(|error| FleetError::doing(name, error))? })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal; it may be gone already.
    pub fn signal(&self, signal: Signal) {
        send(self.id(), signal);
    }

    /// Stops it in its tracks.
    pub fn freeze(&self) {
        freeze(self.id());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        // Not running any more: that is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Tells whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Waits until `is_up` says that it serves; the end of its log says why it does not.
    pub fn wait_until_up(
        &mut self,
        what: &str,
        log: &Path,
        is_up: impl Fn() -> bool,
    ) -> Result<(), FleetError> {
        let deadline = Instant::now() + START_MAX;
        while !is_up() {
            if !self.is_running() || Instant::now() >= deadline {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(FleetError(format!("{what} did not start: {}", tail.join(" | "))));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until it has ended; its exit code, or none if it did not end in time.
    pub fn wait(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status.code().unwrap_or(-1));
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A frozen process cannot be waited for otherwise; SIGKILL works on it as well.
        self.kill();
    }
}

/// A loopback port that was free a moment ago and that this process has not given out before.
pub fn free_port() -> Result<u16, FleetError> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0));
        let port = listener.and_then(|listener| listener.local_addr());
        let port = port.map_err(|error| FleetError::doing("find a free port", error))?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
}

/// Several of them.
pub fn free_ports(count: usize) -> Result<Vec<u16>, FleetError> {
    (0..count).map(|_| free_port()).collect()
}
