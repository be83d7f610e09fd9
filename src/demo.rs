//! `vtorc demo`: a keyspace of two shards on real servers on this machine, watched by a real daemon.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slog::{Drain, Logger, o};
use tokio::signal::unix::{SignalKind, signal};
use vtorc_actors::board::Board;
use vtorc_clients::topo::TopoStore;
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::tablet::{MysqlAddress, Tablet, TabletType};
use vtorc_fleet::{Server, ServerBinary, ServerOptions, Template};
use vtorc_web::{Access, Streams, WebContext};

use crate::cli::{Cli, DaemonOptions, DemoOptions};
use crate::config::{self, Config};
use crate::{Failure, files, wiring};

const KEYSPACE: &str = "commerce";
const SHARDS: [&str; 2] = ["-80", "80-"];
const SERVERS_A_SHARD: u32 = 3;
const CELL: &str = "zone1";
/// The shards are served within this, or something is wrong.
const READY_MAX: Duration = Duration::from_secs(60);
const INIT_DB: &str = include_str!("../init_db.sql");
const SAMPLE_CONFIG: &str = include_str!("../orc_config.json");

impl From<vtorc_fleet::FleetError> for Failure {
    fn from(error: vtorc_fleet::FleetError) -> Self {
        Self(error.0)
    }
}

/// Runs until Ctrl-C, and leaves nothing behind.
pub(crate) fn run(options: DemoOptions) -> Result<(), Failure> {
    let binary = match &options.mysqld {
        Some(program) => ServerBinary::at(program)?,
        None => ServerBinary::any()?,
    };
    let directory = tempfile::Builder::new().prefix("vtorc-demo-").tempdir();
    let directory = directory.map_err(|error| Failure::while_doing("make a directory", error))?;
    // Owned by the runtime's task, so that it ends the servers before the directory goes.
    let outcome = actix::System::new().block_on(show(options, binary, directory.path()));
    say("\nended; nothing is left behind");
    outcome
}

fn say(text: &str) {
    // A closed terminal is the reader's choice.
    let _ = writeln!(std::io::stdout(), "{text}");
    let _ = std::io::stdout().flush();
}

async fn show(options: DemoOptions, binary: ServerBinary, directory: &Path) -> Result<(), Failure> {
    let started = Instant::now();
    let progress = |text: &str| say(&format!("[{:5.1} s] {text}", started.elapsed().as_secs_f64()));
    progress(&format!("using {}", binary.version));
    let interrupted = told_to_end()?;
    tokio::pin!(interrupted);
    let preparing = prepare_servers(binary, directory.to_owned(), progress);
    let servers = tokio::select! {
        servers = preparing => servers?,
        _ = &mut interrupted => return Ok(()),
    };
    let daemon = daemon_options(directory)?;
    let store = wiring::topo_store(&daemon, DurabilityPolicy::None)?;
    register(&store, directory, &servers).await?;
    progress("registered two shards with durability policy semi_sync; no tablet is primary yet");
    let config = demo_config(&options)?;
    let log_file = directory.join("vtorc.log");
    let log = file_logger(&log_file)?;
    let listener = wiring::listen(&config, &daemon)?;
    let address = listener.local_addr().map_err(|error| Failure::while_doing("listen", error))?;
    let running = wiring::start(&config, &daemon, log).await?;
    let connections = files::share_of_http(files::raise_limit());
    let context = WebContext {
        services: running.services.clone(),
        registry: running.registry.clone(),
        access: Access::default(),
        config: serde_json::to_value(&config).unwrap_or_default(),
        started: Instant::now(),
        console_directory: None,
        streams: Streams::at_most(connections / 2),
    };
    let server = vtorc_web::serve(context, listener, None, connections);
    let server = server.map_err(|error| Failure::while_doing("serve HTTP", error))?;
    actix::spawn(server);
    progress("vtorc watches; it elects a primary for each shard");
    let primaries = tokio::select! {
        primaries = wait_for_primaries(&running.services.board) => primaries?,
        _ = &mut interrupted => return Ok(()),
    };
    for (shard, alias) in &primaries {
        progress(&format!("{shard}: {alias} is primary"));
    }
    invite(&format!("http://{address}"), &primaries, &servers, &log_file);
    let narrating = narrate(running.services.board.clone());
    tokio::select! {
        () = narrating => {}
        _ = &mut interrupted => {}
    }
    say("\nending the servers");
    Ok(())
}

/// Ctrl-C, or the terminal goes away, or somebody ends the process: in each case the servers go as well.
fn told_to_end() -> Result<impl Future<Output = ()>, Failure> {
    let failure = |error| Failure::while_doing("listen for signals", error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failure)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failure)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failure)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

struct DemoServer {
    alias: TabletAlias,
    shard: KeyspaceShard,
    server: Server,
}

async fn prepare_servers(
    binary: ServerBinary,
    directory: PathBuf,
    progress: impl Fn(&str),
) -> Result<Vec<DemoServer>, Failure> {
    progress("preparing a data directory");
    let place = directory.join("template");
    let work = move || Template::prepare(binary, &place, INIT_DB);
    let failure = |error| Failure::while_doing("prepare a data directory", error);
    let template = tokio::task::spawn_blocking(work).await.map_err(failure)??;
    let mut starting = Vec::new();
    for (at, shard) in (0..).zip(SHARDS) {
        for number in 1..=SERVERS_A_SHARD {
            let alias = TabletAlias { cell: CELL.to_owned(), uid: (at + 1) * 100 + number };
            let shard = KeyspaceShard { keyspace: KEYSPACE.to_owned(), shard: shard.to_owned() };
            let (template, place) = (template.clone(), directory.join(alias.to_string()));
            let start = move || Server::start(&template, &place, ServerOptions::default());
            starting.push((alias, shard, tokio::task::spawn_blocking(start)));
        }
    }
    let mut servers = Vec::new();
    for (alias, shard, start) in starting {
        let failure = |error| Failure::while_doing(&format!("start the server of {alias}"), error);
        let server = start.await.map_err(failure)??;
        progress(&format!(
            "{alias} of {shard} listens on {} (process {})",
            server.address(),
            server.pid()
        ));
        servers.push(DemoServer { alias, shard, server });
    }
    Ok(servers)
}

/// The daemon's own defaults, with a topology in the demo's directory.
fn daemon_options(directory: &Path) -> Result<DaemonOptions, Failure> {
    let root = directory.join("topo/global").display().to_string();
    let line = ["vtorc".to_owned(), format!("--topo-global-root={root}")];
    let cli = <Cli as clap::Parser>::try_parse_from(line);
    Ok(cli.map_err(|error| Failure::while_doing("set up the daemon", error))?.daemon)
}

fn demo_config(options: &DemoOptions) -> Result<Config, Failure> {
    let mut config = config::parse("the sample configuration", SAMPLE_CONFIG)?.config;
    config.recovery_period_block_seconds = Some(options.block_seconds);
    config.debug = false;
    config.listen_address = format!("127.0.0.1:{}", options.console_port);
    Ok(config)
}

fn file_logger(file: &Path) -> Result<Logger, Failure> {
    let failure = |error| Failure::while_doing("open the log", error);
    let file = std::fs::File::create(file).map_err(failure)?;
    let drain = slog_term::FullFormat::new(slog_term::PlainSyncDecorator::new(file)).build();
    Ok(Logger::root(drain.fuse(), o!()))
}

async fn register(
    store: &TopoStore,
    directory: &Path,
    servers: &[DemoServer],
) -> Result<(), Failure> {
    let root = directory.join("topo").join(CELL).display().to_string();
    store.add_cell(CELL, "", &root).await?;
    store.add_keyspace(KEYSPACE, DurabilityPolicy::SemiSync).await?;
    for shard in SHARDS {
        store
            .add_shard(&KeyspaceShard { keyspace: KEYSPACE.to_owned(), shard: shard.to_owned() })
            .await?;
    }
    for one in servers {
        let tablet = Tablet {
            alias: one.alias.clone(),
            shard: one.shard.clone(),
            tablet_type: TabletType::Replica,
            mysql: Some(MysqlAddress { host: one.server.host.clone(), port: one.server.port }),
            term_start: None,
            vttablet: None,
            promotion_rule: None,
        };
        store.add_tablet(&tablet).await?;
    }
    Ok(())
}

async fn wait_for_primaries(
    board: &Arc<Board>,
) -> Result<Vec<(KeyspaceShard, TabletAlias)>, Failure> {
    let deadline = Instant::now() + READY_MAX;
    loop {
        let mut primaries = Vec::new();
        for report in board.shards() {
            let Some(primary) = report.snapshot.primary() else { continue };
            if primary.valid_status().is_some_and(|status| status.is_writable()) {
                primaries.push((report.snapshot.shard.clone(), primary.tablet.alias.clone()));
            }
        }
        if primaries.len() == SHARDS.len() {
            return Ok(primaries);
        }
        if Instant::now() >= deadline {
            return Err(Failure("the shards got no primaries; this is a bug".into()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn invite(
    url: &str,
    primaries: &[(KeyspaceShard, TabletAlias)],
    servers: &[DemoServer],
    log_file: &Path,
) {
    let pid = |alias: &TabletAlias| {
        servers.iter().find(|one| one.alias == *alias).map(|one| one.server.pid()).unwrap_or(0)
    };
    let Some((first, first_primary)) = primaries.first() else { return };
    let Some((second, second_primary)) = primaries.last() else { return };
    say(&format!(
        "\n  The status page:  {url}\n  The log:          {}\n\n\
         Three things to try, in another terminal:\n\n\
         1. Kill the primary of {first} and watch it being replaced:\n\n     kill -9 {}\n\n\
         2. Move the primary of {second} elsewhere, in order:\n\n     \
         curl -X POST '{url}/api/v1/shards/{second}/planned-reparent?wait=true' \\\n       \
         -H 'Content-Type: application/json' -d '{{\"avoid_primary\": \"{second_primary}\"}}'\n\n\
         3. Freeze a primary (the page shows which), and let it go on later:\n\n     \
         kill -STOP {}        # then: kill -CONT {}\n\n\
         The processes: {}\n\n\
         Ctrl-C ends everything and leaves nothing behind.\n",
        log_file.display(),
        pid(first_primary),
        pid(second_primary),
        pid(second_primary),
        servers
            .iter()
            .map(|one| format!("{} {}", one.alias, one.server.pid()))
            .collect::<Vec<_>>()
            .join(", "),
    ));
}

/// Tells on the terminal what the page shows as well.
async fn narrate(board: Arc<Board>) {
    let Some(mut events) = board.subscribe() else { return std::future::pending().await };
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        };
        let vtorc_actors::board::Event::Recovery(record) = event else { continue };
        let (Some(outcome), Some(end)) = (&record.outcome, record.ended_at) else { continue };
        let finding = record.finding.map(|finding| finding.to_string());
        let finding = finding.as_deref().unwrap_or("asked for");
        let took = record.started_at.age(end).as_millis();
        let outage = record.write_outage_ms.map(|ms| format!(", no writes for {ms} ms"));
        say(&format!(
            "{}: {finding}: {} {outcome} (in {took} ms{})",
            record.shard,
            record.kind,
            outage.unwrap_or_default()
        ));
    }
}
