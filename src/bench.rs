//! `vtorc bench`: failovers on real servers, measured by a client, beside the bare SQL done by hand.
//!
//! What is measured is what a client sees: from the moment of the kill until some server of the shard takes
//! a write again. The floor is the least that anybody could need: notice the broken connection, then send
//! three statements to a replica.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use vtorc_fleet::{Child, Flavor, Server, ServerBinary, ServerOptions, Template};

use crate::Failure;
use crate::cli::BenchOptions;

/// Nothing that is measured may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
const INIT_DB: &str = include_str!("../init_db.sql");

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: BenchOptions) -> Result<(), Failure> {
    let binary = match (&options.mysqld, options.mariadb) {
        (Some(program), _) => ServerBinary::at(program)?,
        (None, true) => ServerBinary::mariadb()?,
        (None, false) => ServerBinary::any()?,
    };
    let directory = tempfile::Builder::new().prefix("vtorc-bench-").tempdir();
    let directory = directory.map_err(|error| Failure::while_doing("make a directory", error))?;
    say(&format!(
        "servers: {}; {} rounds of each kind; medians in milliseconds",
        binary.version, options.rounds
    ));
    let template = Template::prepare(binary, &directory.path().join("template"), INIT_DB)?;
    let mut bench = Bench::start(&template, directory.path(), options.shards)?;
    let mut results = Vec::new();
    results.push(bench.bring_up()?);
    let (mut floor, mut killed) =
        (Figures::new("bare SQL by hand, killed primary"), Figures::new("killed primary"));
    let (mut frozen, mut planned) =
        (Figures::new("frozen primary"), Figures::new("planned, writes refused"));
    for round in 0..options.rounds {
        say(&format!("round {} of {}", round + 1, options.rounds));
        floor.add(bench.by_hand()?);
        killed.add(bench.killed(0)?);
        planned.add(bench.planned()?);
        if round < options.rounds.div_ceil(3) {
            frozen.add(bench.frozen()?);
        }
    }
    let ratio = killed.median() / floor.median();
    results.extend([floor, killed, planned, frozen]);
    if options.shards > 1 {
        results.push(bench.all_at_once()?);
    }
    for figures in &results {
        say(&figures.line());
    }
    say(&format!("killed primary / floor: {ratio:.1}"));
    say(&format!("daemon's memory: {} MB with {} shard(s)", bench.memory_mb(), options.shards));
    Ok(())
}

fn say(text: &str) {
    // A closed terminal is the reader's choice.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Several measurements of one thing.
struct Figures {
    name: &'static str,
    millis: Vec<f64>,
}

impl Figures {
    fn new(name: &'static str) -> Self {
        Self { name, millis: Vec::new() }
    }

    fn add(&mut self, took: Duration) {
        self.millis.push(took.as_secs_f64() * 1000.0);
        self.millis.sort_by(f64::total_cmp);
    }

    fn median(&self) -> f64 {
        self.millis.get(self.millis.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn line(&self) -> String {
        let edge = |at: Option<&f64>| at.copied().unwrap_or(f64::NAN);
        format!(
            "{:<36} n={:<3} min {:>7.1}  median {:>7.1}  max {:>7.1}",
            self.name,
            self.millis.len(),
            edge(self.millis.first()),
            self.median(),
            edge(self.millis.last())
        )
    }
}

struct Shard {
    name: String,
    servers: Vec<Server>,
}

struct Bench {
    directory: PathBuf,
    shards: Vec<Shard>,
    daemon: Option<Child>,
    address: String,
    next_row: u64,
}

impl Bench {
    fn start(template: &Template, directory: &Path, shards: usize) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for at in 0..shards {
            let mut servers = Vec::new();
            for number in 0..3 {
                let place = directory.join(format!("s{at}-{number}"));
                servers.push(Server::start(template, &place, ServerOptions::default())?);
            }
            all.push(Shard { name: format!("s{at}"), servers });
        }
        let bench = Self {
            directory: directory.to_owned(),
            shards: all,
            daemon: None,
            address: String::new(),
            next_row: 0,
        };
        bench.register()?;
        Ok(bench)
    }

    fn topo_root(&self) -> String {
        format!("--topo-global-root={}", self.directory.join("topo/global").display())
    }

    fn vtorc(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let program = std::env::current_exe();
        let mut command =
            Command::new(program.map_err(|error| Failure::while_doing("find vtorc", error))?);
        command.args(arguments).arg(self.topo_root());
        Ok(command)
    }

    fn topo(&self, arguments: &[&str]) -> Result<(), Failure> {
        let output = self.vtorc(&["topo"])?.args(arguments).output();
        let output = output.map_err(|error| Failure::while_doing("run vtorc topo", error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn register(&self) -> Result<(), Failure> {
        self.topo(&["add-cell", "zone1"])?;
        self.topo(&["add-keyspace", "bench", "--durability-policy", "semi_sync"])?;
        let mut uid = 100;
        for shard in &self.shards {
            let name = format!("bench/{}", shard.name);
            self.topo(&["add-shard", &name])?;
            for server in &shard.servers {
                uid += 1;
                let alias = format!("zone1-{uid}");
                self.topo(&["add-tablet", &alias, "--shard", &name, "--mysql", &server.address()])?;
            }
        }
        let config = r#"{"MySQLTopologyPassword": "orc_client_user_password",
            "ListenAddress": "127.0.0.1:0", "RecoveryPeriodBlockSeconds": 0}"#;
        let written = std::fs::write(self.directory.join("orc.json"), config);
        written.map_err(|error| Failure::while_doing("write the configuration", error))
    }

    fn start_daemon(&mut self) -> Result<(), Failure> {
        let file = self.directory.join("address");
        // Of the daemon before.
        let _ = std::fs::remove_file(&file);
        let mut command = self.vtorc(&[])?;
        command
            .arg(format!("--config={}", self.directory.join("orc.json").display()))
            .arg(format!("--address-file={}", file.display()))
            .arg(format!("--log-dir={}", self.directory.join("logs").display()))
            .arg("--alsologtostderr=false");
        self.daemon = Some(Child::start(&mut command, &self.directory.join("stderr"))?);
        self.address = wait("the daemon", || {
            std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty())
        })?;
        Ok(())
    }

    /// From the daemon's start, with its first probe a few milliseconds later, to the first write.
    fn bring_up(&mut self) -> Result<Figures, Failure> {
        let mut figures = Figures::new("bring-up of a new shard");
        let started = Instant::now();
        self.start_daemon()?;
        wait("the first primary", || (self.primary(0).is_some()).then_some(()))?;
        figures.add(started.elapsed());
        for at in 0..self.shards.len() {
            self.settle(at)?;
            let primary = self.primary(at).ok_or_else(|| Failure("no primary".into()))?;
            let server = self.server(at, primary)?;
            server.run(&[
                "CREATE DATABASE IF NOT EXISTS test",
                "CREATE TABLE IF NOT EXISTS test.bench (id BIGINT PRIMARY KEY) ENGINE=InnoDB",
            ])?;
        }
        Ok(figures)
    }

    fn server(&self, shard: usize, at: usize) -> Result<&Server, Failure> {
        let found = self.shards.get(shard).and_then(|shard| shard.servers.get(at));
        found.ok_or_else(|| Failure("no such server".into()))
    }

    fn server_mut(&mut self, shard: usize, at: usize) -> Result<&mut Server, Failure> {
        let found = self.shards.get_mut(shard).and_then(|shard| shard.servers.get_mut(at));
        found.ok_or_else(|| Failure("no such server".into()))
    }

    /// Which server of a shard takes writes, if exactly one does.
    fn primary(&self, shard: usize) -> Option<usize> {
        let servers = &self.shards.get(shard)?.servers;
        let writable = servers.iter().enumerate().filter(|(_, server)| {
            server.value("SELECT @@read_only").is_ok_and(|value| value == "0")
        });
        let all: Vec<usize> = writable.map(|(at, _)| at).collect();
        match all.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// Waits until one server takes writes and both others follow it and acknowledge.
    fn settle(&self, shard: usize) -> Result<usize, Failure> {
        let primary = wait("the shard to settle", || {
            let primary = self.primary(shard)?;
            let server = self.server(shard, primary).ok()?;
            let count = count_ackers(server)?;
            (count == 2).then_some(primary)
        })?;
        Ok(primary)
    }

    /// A connection to each of these servers, opened before anything happens.
    fn clients(&self, shard: usize, except: usize) -> Result<Vec<mysql::Conn>, Failure> {
        let servers =
            self.shards.get(shard).map(|shard| shard.servers.as_slice()).unwrap_or_default();
        let others = servers.iter().enumerate().filter(|(at, _)| *at != except);
        others.map(|(_, server)| Ok(server.connect("app")?)).collect()
    }

    /// Tries to write until a server takes it.
    fn until_written(
        &mut self,
        clients: &mut [mysql::Conn],
        since: Instant,
    ) -> Result<Duration, Failure> {
        while since.elapsed() < PATIENCE {
            for client in clients.iter_mut() {
                self.next_row += 1;
                let insert = format!("INSERT INTO test.bench VALUES ({})", self.next_row);
                if client.query_drop(insert).is_ok() {
                    return Ok(since.elapsed());
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Failure("no server took writes in time".into()))
    }

    fn killed(&mut self, shard: usize) -> Result<Duration, Failure> {
        let primary = self.settle(shard)?;
        let mut clients = self.clients(shard, primary)?;
        let started = Instant::now();
        self.server_mut(shard, primary)?.kill();
        let took = self.until_written(&mut clients, started)?;
        self.server_mut(shard, primary)?.restart()?;
        self.settle(shard)?;
        Ok(took)
    }

    fn frozen(&mut self) -> Result<Duration, Failure> {
        let primary = self.settle(0)?;
        let mut clients = self.clients(0, primary)?;
        let started = Instant::now();
        self.server(0, primary)?.freeze();
        let took = self.until_written(&mut clients, started)?;
        self.server(0, primary)?.thaw();
        self.settle(0)?;
        Ok(took)
    }

    /// How long writes are refused: from the last that the old primary took to the first that the new one
    /// does, one after the other as fast as they go.
    fn planned(&mut self) -> Result<Duration, Failure> {
        let primary = self.settle(0)?;
        let mut all = self.clients(0, usize::MAX)?;
        let url = format!(
            "http://{}/api/v1/shards/bench/{}/planned-reparent?wait=true",
            self.address, "s0"
        );
        let body = format!("{{\"avoid_primary\": \"zone1-{}\"}}", 101 + primary);
        let request = std::thread::spawn(move || {
            let json = ["-H", "Content-Type: application/json", "-d", &body];
            Command::new("curl").args(["-sS", "-X", "POST", &url]).args(json).output()
        });
        let started = Instant::now();
        let (mut last, mut longest, mut writer) = (Instant::now(), Duration::ZERO, primary);
        while started.elapsed() < PATIENCE {
            let at = (0..all.len()).find(|at| {
                let candidate = (writer + at) % all.len();
                self.next_row += 1;
                let insert = format!("INSERT INTO test.bench VALUES ({})", self.next_row);
                all.get_mut(candidate).is_some_and(|client| client.query_drop(insert).is_ok())
            });
            if let Some(at) = at {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                if at != 0 {
                    writer = (writer + at) % all.len();
                }
                if writer != primary && request.is_finished() {
                    break;
                }
            }
        }
        // Its outcome shows in who takes writes.
        let _ = request.join();
        self.settle(0)?;
        Ok(longest)
    }

    /// What a person could do at best: notice the broken connection, stop replication, take writes.
    fn by_hand(&mut self) -> Result<Duration, Failure> {
        let primary = self.settle(0)?;
        drop(self.daemon.take());
        let replica = (primary + 1) % 3;
        let words = match self.server(0, replica)?.flavor() {
            Flavor::MySql => ["STOP REPLICA", "RESET REPLICA ALL"],
            Flavor::MariaDb => ["STOP SLAVE", "RESET SLAVE ALL"],
        };
        let mut watching = self.server(0, primary)?.connect_within("admin", PATIENCE)?;
        let mut hand = self.server(0, replica)?.connect("admin")?;
        let mut client = [self.server(0, replica)?.connect("app")?];
        let started = Instant::now();
        self.server_mut(0, primary)?.kill();
        // The connection breaks when the kernel has taken the process down.
        let broke = watching.query_drop("DO SLEEP(10)").is_err();
        for statement in [words[0], "SET GLOBAL read_only = OFF", words[1]] {
            hand.query_drop(statement).map_err(|error| Failure::while_doing(statement, error))?;
        }
        let took = self.until_written(&mut client, started)?;
        debug_assert!(broke);
        self.start_daemon()?;
        self.server_mut(0, primary)?.restart()?;
        self.settle(0)?;
        Ok(took)
    }

    /// All shards lose their primaries in the same moment.
    fn all_at_once(&mut self) -> Result<Figures, Failure> {
        let mut figures = Figures::new("all shards at once, each");
        let mut primaries = Vec::new();
        let mut clients = Vec::new();
        for shard in 0..self.shards.len() {
            let primary = self.settle(shard)?;
            clients.push(self.clients(shard, primary)?);
            primaries.push(primary);
        }
        let started = Instant::now();
        for (shard, primary) in primaries.iter().enumerate() {
            let pid = self.server(shard, *primary)?.pid().to_string();
            let killed = Command::new("kill").args(["-9", &pid]).status();
            killed.map_err(|error| Failure::while_doing("kill", error))?;
        }
        let mut open: Vec<usize> = (0..clients.len()).collect();
        while !open.is_empty() && started.elapsed() < PATIENCE {
            self.next_row += 1;
            let insert = format!("INSERT INTO test.bench VALUES ({})", self.next_row);
            open.retain(|shard| {
                let conns = clients.get_mut(*shard).map(Vec::as_mut_slice).unwrap_or_default();
                let written = conns.iter_mut().any(|client| client.query_drop(&insert).is_ok());
                if written {
                    figures.add(started.elapsed());
                }
                !written
            });
        }
        Ok(figures)
    }

    fn memory_mb(&self) -> u64 {
        let pid = self.daemon.as_ref().map(Child::id).unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) / 1024
    }
}

/// Replicas that acknowledge, as the primary counts them.
fn count_ackers(server: &Server) -> Option<u64> {
    let mut admin = server.connect("admin").ok()?;
    let rows: Vec<(String, u64)> = admin
        .query("SHOW GLOBAL STATUS WHERE Variable_name LIKE 'Rpl_semi_sync_source_clients' OR Variable_name LIKE 'Rpl_semi_sync_master_clients'")
        .ok()?;
    rows.first().map(|(_, count)| *count)
}

fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure(format!("waited in vain for {what}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
