//! One program: its own process group, a time limit, and as much of what it prints as anybody reads.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vtorc_core::audit::StepOutcome;

/// So much of what a program prints is kept.
const OUTPUT_MAX: usize = 4096;
/// What was printed before the end is read within this; what it left running may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A program to be run.
pub(super) struct Program {
    pub(super) shell: String,
    pub(super) line: String,
    pub(super) environment: Vec<(String, String)>,
    pub(super) timeout: Duration,
}

impl Program {
    /// Runs it to its end, or until its time is over.
    pub(super) async fn run(self) -> StepOutcome {
        let spawned = Command::new(&self.shell)
            .arg("-c")
            .arg(&self.line)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return StepOutcome::NotDone(format!("start {}: {error}", self.shell)),
        };
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let output = Output::of(&mut child);
        let ended = timeout(self.timeout, child.wait()).await;
        if ended.is_err()
            && let Some(group) = group
        {
            // It may have ended in between.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let printed = output.finish().await;
        let after = if printed.is_empty() { String::new() } else { format!(": {printed}") };
        match ended {
            Ok(Ok(status)) if status.success() => StepOutcome::Done(printed),
            Ok(Ok(status)) => StepOutcome::NotDone(format!("{status}{after}")),
            Ok(Err(error)) => StepOutcome::Unknown(format!("wait for it: {error}{after}")),
            Err(_elapsed) => {
                let seconds = self.timeout.as_secs_f64();
                StepOutcome::NotDone(format!("ended after {seconds} s, its time limit{after}"))
            }
        }
    }
}

/// What a program prints, from both of its ends.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Output {
    fn of(child: &mut Child) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(tokio::spawn(read(stdout, kept.clone())));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(tokio::spawn(read(stderr, kept.clone())));
        }
        Self { kept, readers }
    }

    async fn finish(self) -> String {
        for mut reader in self.readers {
            if timeout(LAST_WORDS, &mut reader).await.is_err() {
                reader.abort();
            }
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let text: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        text.trim().to_owned()
    }
}

/// Reads to the end, so that the program is never held up, and keeps the beginning.
async fn read(mut from: impl AsyncRead + Unpin, kept: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; 1024];
    while let Ok(length) = from.read(&mut piece).await {
        if length == 0 {
            return;
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = OUTPUT_MAX.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(piece.get(..room).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(line: &str, value: &str) -> Program {
        Program {
            shell: "sh".into(),
            line: line.into(),
            environment: vec![("ORC_VALUE".into(), value.into())],
            timeout: Duration::from_millis(500),
        }
    }

    #[tokio::test]
    async fn output_and_exit_status_are_kept() {
        let said = program("echo out; echo err >&2", "").run().await;
        assert!(
            matches!(&said, StepOutcome::Done(text) if text.contains("out") && text.contains("err"))
        );
        let failed = program("echo no; exit 3", "").run().await;
        assert_eq!(failed, StepOutcome::NotDone("exit status: 3: no".into()));
        let long = program("yes | head -c 100000", "").run().await;
        assert!(long.is_done() && long.text().len() <= OUTPUT_MAX, "{}", long.text().len());
        let missing = Program { shell: "/no/such/shell".into(), ..program("", "") }.run().await;
        assert!(missing.text().contains("/no/such/shell"), "{missing}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let line = format!("sleep 60 & echo $! > {}; wait", file.display());
        let ended = program(&line, "").run().await;
        assert!(ended.text().contains("time limit"), "{ended}");
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let gone = |_: u32| {
            std::thread::sleep(Duration::from_millis(10));
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        assert!((0..500).any(gone), "what it started still runs");
    }

    #[tokio::test]
    async fn what_a_server_says_is_never_read_by_the_shell() {
        use vtorc_core::hooks::command_line;
        let names = [("value", "ORC_VALUE")];
        let evil = "$(echo pwned) `echo pwned` \"; echo pwned; ' | echo pwned";
        for template in ["printf %s {value}", "printf %s \"{value}\"", "printf %s '{value}'"] {
            let said = program(&command_line(template, &names), evil).run().await;
            assert_eq!(said, StepOutcome::Done(evil.into()), "{template}");
        }
    }
}
