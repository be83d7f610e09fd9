//! The one place where adapters meet actors. No failover decisions.

mod topology;

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::Addr;
use slog::{Logger, warn};
use tokio::sync::watch;
use vtorc_actors::auditor::Auditor;
use vtorc_actors::board::Board;
use vtorc_actors::clock::Clock;
use vtorc_actors::guardian::start_guarded;
use vtorc_actors::messages::Audit;
use vtorc_actors::meters::Who;
use vtorc_actors::registry::Registry;
use vtorc_actors::services::{Services, Settings};
use vtorc_clients::history::SqliteHistory;
use vtorc_clients::hooks::Hooks;
use vtorc_clients::vttablet::Tablets;
use vtorc_core::ids::WatchList;
use vtorc_core::ports::HistoryPort;
use vtorc_core::time::Timestamp;

use crate::Failure;
use crate::cli::{DaemonOptions, Stop, seconds};
use crate::config::Config;
use crate::logging::AuditFile;

pub(crate) use topology::topo_store;

/// The actors' settings.
pub(crate) fn settings(config: &Config, options: &DaemonOptions) -> Result<Settings, Failure> {
    let watched = WatchList::parse(options.clusters_to_watch.iter().map(String::as_str))
        .map_err(|error| Failure::while_doing("clusters_to_watch", error))?;
    Ok(Settings {
        recovery: config.recovery_settings()?,
        poll_interval: seconds(config.instance_poll_seconds),
        probe_timeout: seconds(config.discovery_read_timeout_seconds),
        topo_refresh: seconds(config.topo_refresh_seconds),
        watched,
    })
}

/// Everything that runs.
pub(crate) struct Running {
    pub(crate) services: Services,
    pub(crate) registry: Addr<Registry>,
    pub(crate) settings: watch::Sender<Arc<Settings>>,
    pub(crate) hooks: Arc<Hooks>,
}

/// Starts the actors over the real adapters.
pub(crate) async fn start(
    config: &Config,
    options: &DaemonOptions,
    log: Logger,
) -> Result<Running, Failure> {
    let settings = settings(config, options)?;
    let topo = topo_store(options, settings.recovery.default_durability)?;
    let access = Arc::new(config.mysql_access()?);
    let vttablets = options.vitess.vttablet_access(config)?;
    let tablets = Arc::new(Tablets::new(access, vttablets).map_err(Failure)?);
    let history = Arc::new(open_history(config, options, &log)?);
    let enabled = history.recoveries_enabled().await;
    let enabled = enabled.map_err(|error| Failure::while_doing("read the switches", error))?
        && options.vitess.allow_recovery != Some(false);
    let controls = history.controls().await;
    let controls = controls.map_err(|error| Failure::while_doing("read the controls", error))?;
    let board = Arc::new(Board::new());
    let meter = board.meters.register(Who::Auditor);
    let kept: Arc<dyn HistoryPort> = history;
    let auditor = Auditor::new(kept.clone(), meter.clone(), log.clone());
    let auditor = start_guarded(auditor, 4096, meter).recipient();
    audit_lines(config, &board)?;
    let listener_log = log.clone();
    let complain = Arc::new(move |why: &str| warn!(listener_log, "webhook"; "error" => why));
    let hooks = Arc::new(Hooks::new(config.hooks.settings()?, complain));
    let (sender, receiver) = watch::channel(Arc::new(settings));
    let services = Services {
        probes: tablets.clone(),
        mysql: tablets,
        topo: Arc::new(topo),
        hooks: hooks.clone(),
        history: kept,
        auditor,
        board,
        clock: Clock::starting_at(wall_clock()),
        settings: receiver,
        numbers: Arc::default(),
        servers: Arc::default(),
        recoveries_enabled: Arc::new(AtomicBool::new(enabled)),
        controls: Arc::new(RwLock::new(controls)),
        ending: Arc::new(AtomicBool::new(false)),
        topology_wanted: Arc::default(),
        log,
        failpoint: at_point(options.failpoint.clone()),
    };
    purge_daily(&services, config.audit_purge_days);
    let registry = Registry::launch(services.clone());
    Ok(Running { services, registry, settings: sender, hooks })
}

/// Removes from the history what is old, now and every few hours.
fn purge_daily(services: &Services, days: u32) {
    const EVERY: Duration = Duration::from_secs(6 * 3600);
    const DAY_MS: u64 = 86_400_000;
    if days == 0 {
        return;
    }
    let services = services.clone();
    actix::spawn(async move {
        loop {
            let kept = u64::from(days) * DAY_MS;
            let before = services.clock.now().as_millis().saturating_sub(kept);
            services.auditor.do_send(Audit::Purge(Timestamp::from_millis(before)));
            tokio::time::sleep(EVERY).await;
        }
    });
}

/// Ends the process at a point of a recovery, or makes a file there and waits until it is gone.
fn at_point(wanted: Option<Stop>) -> vtorc_actors::services::AtPoint {
    let Some(Stop { at, gate }) = wanted else { return Arc::new(|_| {}) };
    Arc::new(move |point| match &gate {
        _ if point != at => {}
        None => std::process::abort(),
        Some(gate) => {
            // For tests only: where the file cannot be made there is nothing to wait for.
            let made = std::fs::write(gate, "").is_ok();
            while made && gate.exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    })
}

pub(crate) fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(0))
}

fn open_history(
    config: &Config,
    options: &DaemonOptions,
    log: &Logger,
) -> Result<SqliteHistory, Failure> {
    let file = match (config.sqlite3_data_file.as_str(), &options.log_dir) {
        (":memory:", _) | ("", None) => None,
        ("", Some(directory)) => Some(directory.join("vtorc.sqlite3")),
        (file, _) => Some(PathBuf::from(file)),
    };
    if file.is_none() {
        warn!(
            log,
            "the history is kept in memory only: block periods do not survive a restart; set \
            SQLite3DataFile or log_dir"
        );
    }
    let opened = SqliteHistory::open(file.as_deref());
    let opened = opened.map_err(|error| Failure::while_doing("open SQLite3DataFile", error))?;
    if let Some(aside) = &opened.moved_aside {
        slog::error!(log, "the history store was damaged and was moved aside; a new one was begun";
            "file" => %aside.display());
    }
    Ok(opened.history)
}

/// Follows the board and writes a line for each recovery that ended, where that is configured.
fn audit_lines(config: &Config, board: &Arc<Board>) -> Result<(), Failure> {
    let file = AuditFile::open(&config.audit_log_file)?;
    let to_syslog = config.audit_to_syslog;
    if config.audit_log_file.is_empty() && !to_syslog {
        return Ok(());
    }
    let Some(mut events) = board.subscribe() else { return Ok(()) };
    actix::spawn(async move {
        while let Ok(event) = events.recv().await {
            let vtorc_actors::board::Event::Recovery(record) = event else { continue };
            let (Some(outcome), Some(at)) = (&record.outcome, record.ended_at) else { continue };
            let at = jiff::Timestamp::from_millisecond(i64::try_from(at.as_millis()).unwrap_or(0));
            let at = at.unwrap_or_default();
            let line =
                format!("{at} {} recovery {} {}: {outcome}", record.shard, record.id, record.kind);
            file.write(&line);
            if to_syslog {
                syslog(&line);
            }
        }
    });
    Ok(())
}

/// Syslog's oldest door: a datagram to /dev/log. Without it the line is lost, as with any syslog.
fn syslog(line: &str) {
    const USER_NOTICE: u8 = 8 + 5;
    if let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() {
        let text = format!("<{USER_NOTICE}>vtorc[{}]: {line}", std::process::id());
        let _ = socket.send_to(text.as_bytes(), "/dev/log");
    }
}

/// Binds the HTTP server's socket: `-port` wins over the port of ListenAddress.
pub(crate) fn listen(config: &Config, options: &DaemonOptions) -> Result<TcpListener, Failure> {
    let text = config.listen_address.trim();
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "3000"));
    let host = options.vitess.bind_address.as_deref().unwrap_or(host);
    let host = if host.is_empty() { "0.0.0.0" } else { host.trim_matches(['[', ']']) };
    let bad = || Failure(format!("ListenAddress {text:?} is not host:port"));
    let port = match options.port {
        Some(port) => port,
        None => port.parse().map_err(|_| bad())?,
    };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|_| bad())?.collect();
    let failure = |error| Failure::while_doing(&format!("listen on {host}:{port}"), error);
    TcpListener::bind(addresses.as_slice()).map_err(failure)
}
