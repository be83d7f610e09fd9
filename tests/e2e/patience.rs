//! How long a story waits for anything, and with how little a program has to do.

use std::time::{Duration, Instant};

/// Nothing that is waited for may take longer; the figures are in the benchmark, not here.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer, or patience is at its end.
pub fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a program as under a small limit of open files.
pub fn under_few_files(program: &str) -> std::process::Command {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\"", program]);
    shell
}
