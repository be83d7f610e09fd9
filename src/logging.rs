//! Logs: to standard error for people or programs, and to files with rotation.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use slog::{Drain, Duplicate, Level, Logger, o};

use crate::Failure;
use crate::cli::LogFormat;

/// A log file is put away when it is so long; so many are kept.
const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
const FILES_MAX: usize = 5;
/// Lines that may wait to be written.
const QUEUE_MAX: usize = 8192;

/// A logger, and the guards that write its tail out when they are dropped.
pub(crate) struct Logging {
    pub(crate) log: Logger,
    _flush: slog_async::AsyncGuard,
    _global: slog_scope::GlobalLoggerGuard,
}

/// Sets logging up for the whole process, for crates that log by other means as well.
pub(crate) fn start(
    directory: Option<&Path>,
    format: Option<LogFormat>,
    to_stderr: bool,
    debug: bool,
) -> Result<Logging, Failure> {
    let level = if debug { Level::Debug } else { Level::Info };
    let file = match directory {
        Some(directory) => {
            let failure = |error| {
                Failure::while_doing(&format!("use log_dir {}", directory.display()), error)
            };
            std::fs::create_dir_all(directory).map_err(failure)?;
            Some(FileRotate::new(
                directory.join("vtorc.log"),
                AppendCount::new(FILES_MAX),
                ContentLimit::BytesSurpassed(FILE_BYTES_MAX),
                Compression::None,
                None,
            ))
        }
        None => None,
    };
    let file: Box<dyn Write + Send> = match file {
        Some(file) => Box::new(file),
        None => Box::new(io::sink()),
    };
    let stderr: Box<dyn Write + Send> = match to_stderr || directory.is_none() {
        true => Box::new(io::stderr()),
        false => Box::new(io::sink()),
    };
    let json = format == Some(LogFormat::Json);
    let both =
        Duplicate::new(drain(stderr, json, io::stderr().is_terminal()), drain(file, json, false));
    let filtered = both.filter_level(level).fuse();
    let (queue, flush) = slog_async::Async::new(filtered)
        .chan_size(QUEUE_MAX)
        .overflow_strategy(slog_async::OverflowStrategy::DropAndReport)
        .build_with_guard();
    let log = Logger::root(queue.fuse(), o!());
    let global = slog_scope::set_global_logger(log.new(o!("from" => "library")));
    // Fails only if some library set one before; then its lines are missing, no more.
    let _ = slog_stdlog::init_with_level(slog_stdlog_level());
    Ok(Logging { log, _flush: flush, _global: global })
}

/// Libraries log what they must; their debugging is not the operator's.
fn slog_stdlog_level() -> log::Level {
    log::Level::Warn
}

type Line = Box<dyn Drain<Ok = (), Err = slog::Never> + Send>;

fn drain(writer: Box<dyn Write + Send>, json: bool, terminal: bool) -> Line {
    if json {
        let drain = slog_json::Json::new(writer).add_default_keys().build();
        return Box::new(Mutex::new(drain).map(slog::Fuse));
    }
    if terminal {
        let decorator = slog_term::TermDecorator::new().stderr().build();
        let drain = slog_term::FullFormat::new(decorator).build();
        return Box::new(Mutex::new(drain).map(slog::Fuse));
    }
    let decorator = slog_term::PlainSyncDecorator::new(writer);
    let drain = slog_term::FullFormat::new(decorator).use_utc_timestamp().build();
    Box::new(drain.map(slog::Fuse))
}

/// A file with one line for each act, for people who grep.
#[derive(Clone, Default)]
pub(crate) struct AuditFile(Option<Arc<Mutex<std::fs::File>>>);

impl AuditFile {
    pub(crate) fn open(path: &str) -> Result<Self, Failure> {
        if path.is_empty() {
            return Ok(Self(None));
        }
        let opened = std::fs::File::options().append(true).create(true).open(path);
        let failure = |error| Failure::while_doing(&format!("open AuditLogFile {path}"), error);
        Ok(Self(Some(Arc::new(Mutex::new(opened.map_err(failure)?)))))
    }

    pub(crate) fn write(&self, line: &str) {
        if let Some(file) = &self.0 {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk must not stop a recovery.
            let _ = writeln!(file, "{line}");
        }
    }
}
