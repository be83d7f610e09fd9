//! What the stories need: a shard of real servers, a topology, the daemon, and clients that remember.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::Value;
use tempfile::TempDir;
use vtorc_fleet::{Child, Flavor, Server, ServerBinary, ServerOptions, Template};
use vtorc_vttablet_double::Vttablet;

use crate::vitess::programs::{Program, with_programs};
use crate::vitess::{Way, with_vttablets};

use crate::patience::under_few_files;
pub use crate::patience::{PATIENCE, wait_for};

/// A shard of three tablets, as most stories have it.
pub const THREE: &[&str] = &["zone1-101", "zone1-102", "zone1-103"];

/// What a story's shard is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Plain servers.
    Plain(Flavor),
    /// MySQL servers with a vttablet's double before each.
    Vitess(Way),
    /// MySQL servers with Vitess's own vttablet before each, in etcd.
    Programs(Way),
}

impl Kind {
    pub fn flavor(self) -> Flavor {
        match self {
            Self::Plain(flavor) => flavor,
            Self::Vitess(_) | Self::Programs(_) => Flavor::MySql,
        }
    }
}

impl From<Flavor> for Kind {
    fn from(flavor: Flavor) -> Self {
        Self::Plain(flavor)
    }
}

impl From<Way> for Kind {
    fn from(way: Way) -> Self {
        Self::Vitess(way)
    }
}

/// Asks for a planned failover of `ks/0`, and waits for its end.
pub const PLANNED: &str = "/api/v1/shards/ks/0/planned-reparent?wait=true";

/// One tablet of a story: `zone1-101 replica`.
#[derive(Clone, Debug)]
pub struct Member {
    pub alias: String,
    pub kind: String,
}

impl Member {
    pub fn parse(text: &str) -> Self {
        let (alias, kind) = text.split_once(' ').unwrap_or((text, "replica"));
        Self { alias: alias.to_owned(), kind: kind.to_owned() }
    }
}

/// A shard of real servers with its topology, and perhaps a daemon.
pub struct Cluster {
    /// Its servers run since then at the latest.
    pub begun: Instant,
    pub directory: TempDir,
    pub servers: Vec<Server>,
    pub members: Vec<Member>,
    pub topo_flags: Vec<String>,
    pub config: PathBuf,
    pub daemons: Vec<Daemon>,
    pub environment: Vec<(String, String)>,
    /// By alias, for the members that have one.
    pub vttablets: BTreeMap<String, Vttablet>,
    /// Vitess's own, likewise.
    pub programs: BTreeMap<String, Program>,
    /// What keeps the topology, where it is to live as long as the shard.
    pub topo_server: Option<Box<dyn std::any::Any + Send + Sync>>,
    /// How vtorc reaches tablets that have a vttablet.
    pub way: Option<Way>,
    started: usize,
}

pub struct Daemon {
    pub child: Child,
    pub address: String,
    pub log: PathBuf,
}

pub fn template(flavor: Flavor) -> &'static Template {
    static MYSQL: OnceLock<Template> = OnceLock::new();
    static MARIADB: OnceLock<Template> = OnceLock::new();
    let prepare = |binary: ServerBinary| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates");
        let init =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/init_db.sql")).unwrap();
        Template::prepare(binary, &place, &init).unwrap()
    };
    match flavor {
        Flavor::MySql => MYSQL.get_or_init(|| prepare(ServerBinary::mysql().unwrap())),
        Flavor::MariaDb => MARIADB.get_or_init(|| prepare(ServerBinary::mariadb().unwrap())),
    }
}

/// Starts one server for each member, all at once.
fn start_servers(flavor: Flavor, members: &[&str], directory: &Path) -> Vec<Server> {
    let template = template(flavor);
    std::thread::scope(|scope| {
        let starts: Vec<_> = members
            .iter()
            .map(|member| {
                let place = directory.join(Member::parse(member).alias);
                scope.spawn(move || {
                    Server::start(template, &place, ServerOptions::default()).unwrap()
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    })
}

/// Runs the vtorc program to its end and answers what it printed.
pub fn vtorc(arguments: &[&str]) -> Result<String, String> {
    vtorc_in(&[], arguments)
}

/// The same with variables in its environment.
pub fn vtorc_in(environment: &[(String, String)], arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtorc"));
    let output = command.envs(environment.to_vec()).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

impl Cluster {
    /// Servers and a local topology with keyspace `ks`, shard `0`; members such as `zone1-101 replica`.
    pub fn new(kind: impl Into<Kind>, policy: &str, members: &[&str]) -> Self {
        let flavor = match kind.into() {
            Kind::Plain(flavor) => flavor,
            Kind::Vitess(way) => return with_vttablets(policy, members, way, |_| {}),
            Kind::Programs(way) => return with_programs(policy, members, way),
        };
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("topo/global");
        let flags = vec![format!("-topo_global_root={}", root.display())];
        Self::with_topology(flavor, policy, members, directory, flags)
    }

    pub fn with_topology(
        flavor: Flavor,
        policy: &str,
        members: &[&str],
        directory: TempDir,
        topo_flags: Vec<String>,
    ) -> Self {
        let servers = start_servers(flavor, members, directory.path());
        Self::with_servers(policy, members, servers, directory, topo_flags)
    }

    /// With servers that run already, one for each member.
    pub fn with_servers(
        policy: &str,
        members: &[&str],
        servers: Vec<Server>,
        directory: TempDir,
        topo_flags: Vec<String>,
    ) -> Self {
        let members = members.iter().map(|text| Member::parse(text)).collect();
        let config = directory.path().join("orc_config.json");
        let mut cluster = Self {
            begun: Instant::now(),
            config,
            directory,
            servers,
            members,
            topo_flags,
            daemons: Vec::new(),
            environment: Vec::new(),
            vttablets: BTreeMap::new(),
            programs: BTreeMap::new(),
            topo_server: None,
            way: None,
            started: 0,
        };
        cluster.configure(&[]);
        cluster.register(policy);
        cluster
    }

    /// Writes the configuration: the sample's, with these keys changed.
    pub fn configure(&self, changes: &[(&str, Value)]) {
        let sample =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/orc_config.json"))
                .unwrap();
        let mut config: Value = serde_json::from_str(&sample).unwrap();
        config["ListenAddress"] = "127.0.0.1:0".into();
        config["RecoveryPeriodBlockSeconds"] = 3600.into();
        if self.way == Some(Way::Vttablets) {
            config["MySQLTopologyUser"] = "".into();
        }
        for (key, value) in changes {
            config[*key] = value.clone();
        }
        std::fs::write(&self.config, config.to_string()).unwrap();
    }

    pub fn topo(&self, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["topo"];
        all.extend(self.topo_flags.iter().map(String::as_str));
        all.extend(arguments);
        vtorc_in(&self.environment, &all)
    }

    fn register(&mut self, policy: &str) {
        self.add_cells();
        self.topo(&["add-keyspace", "ks", "--durability-policy", policy]).unwrap();
        self.topo(&["add-shard", "ks/0"]).unwrap();
        self.register_members();
    }

    /// Adds every member to the topology.
    pub fn register_members(&self) {
        for (member, server) in self.members.iter().zip(&self.servers) {
            let address = server.address();
            let arguments = [
                "add-tablet",
                &member.alias,
                "--shard",
                "ks/0",
                "--mysql",
                &address,
                "--type",
                &member.kind,
            ];
            self.topo(&arguments).unwrap();
        }
    }

    fn add_cells(&self) {
        let mut cells: Vec<&str> =
            self.members.iter().map(|member| member.alias.rsplit_once('-').unwrap().0).collect();
        cells.sort();
        cells.dedup();
        for cell in cells {
            // It may be there, and elsewhere than by default.
            if self.topo(&["show", cell]).is_err() {
                self.topo(&["add-cell", cell]).unwrap();
            }
        }
    }

    /// Starts servers for more members, in cells of their own; whoever calls registers them.
    pub fn add_members(&mut self, flavor: Flavor, members: &[&str]) {
        let directory = self.directory.path().to_owned();
        self.servers.extend(start_servers(flavor, members, &directory));
        self.members.extend(members.iter().map(|text| Member::parse(text)));
        self.add_cells();
    }

    /// Starts a daemon and waits until it serves.
    pub fn start_daemon(&mut self, flags: &[&str]) {
        let number = self.started;
        self.started += 1;
        let logs = self.directory.path().join(format!("daemon-{number}"));
        let address_file = logs.join("address");
        std::fs::create_dir_all(&logs).unwrap();
        // A daemon that is started again keeps its history.
        let history = self.directory.path().join("history.sqlite3");
        if !flags.contains(&"own-history") {
            let text = std::fs::read_to_string(&self.config).unwrap();
            let mut config: Value = serde_json::from_str(&text).unwrap();
            config["SQLite3DataFile"] = history.display().to_string().into();
            std::fs::write(&self.config, config.to_string()).unwrap();
        }
        let program = env!("CARGO_BIN_EXE_vtorc");
        // With "few-files", as under a small limit of the system's.
        let mut command = match flags.contains(&"few-files") {
            false => Command::new(program),
            true => under_few_files(program),
        };
        command
            .envs(self.environment.clone())
            .args(&self.topo_flags)
            .arg(format!("-config={}", self.config.display()))
            .arg(format!("-log_dir={}", logs.display()))
            .arg("--address-file")
            .arg(&address_file)
            .args(flags.iter().filter(|flag| !matches!(**flag, "own-history" | "few-files")));
        let child = Child::start(&mut command, &logs.join("stderr")).unwrap();
        let log = logs.join("vtorc.log");
        let mut daemon = Daemon { child, address: String::new(), log };
        let deadline = Instant::now() + PATIENCE;
        while daemon.address.is_empty() {
            assert!(daemon.child.is_running(), "{}", daemon.log_text());
            assert!(Instant::now() < deadline, "the daemon did not start");
            daemon.address = std::fs::read_to_string(&address_file).unwrap_or_default();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.daemons.push(daemon);
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemons.last().unwrap()
    }

    pub fn server(&self, alias: &str) -> &Server {
        &self.servers[self.position(alias)]
    }

    pub fn server_mut(&mut self, alias: &str) -> &mut Server {
        let at = self.position(alias);
        &mut self.servers[at]
    }

    pub fn position(&self, alias: &str) -> usize {
        let wanted: String = alias.to_owned();
        let same = |member: &Member| padded(&member.alias) == padded(&wanted);
        self.members.iter().position(same).unwrap_or_else(|| panic!("no {alias}"))
    }

    /// Waits until the shown primary fits, then until the shard is as it should be. What is shown may lag
    /// behind a recovery's answer by a moment.
    pub fn settles(&self, fits: impl Fn(&str) -> bool) -> String {
        let shown =
            || self.daemon().shard()["primary"].as_str().filter(|alias| fits(alias)).map(|_| ());
        wait_for(shown)
            .unwrap_or_else(|| panic!("the primary did not change: {:#}", self.daemon().shard()));
        self.healthy(&[])
    }

    /// Waits until the shard is as it should be: one writable primary, every other reachable tablet that is
    /// not `except` follows it, no findings about them. Answers the primary's alias.
    pub fn healthy(&self, except: &[&str]) -> String {
        let mut last = Value::Null;
        let found = wait_for(|| {
            last = self.daemon().shard();
            let primary = last["primary"].as_str()?.to_owned();
            if except.iter().any(|alias| padded(alias) == primary) {
                return None;
            }
            let tablets = last["tablets"].as_array()?;
            let fine = tablets.iter().all(|tablet| {
                let alias = tablet["alias"].as_str().unwrap();
                let replication = &tablet["replication"];
                except.iter().any(|one| padded(one) == alias)
                    || tablet["type"] == "DRAINED"
                    || tablet["reachable"] == true
                        && if alias == primary {
                            tablet["read_only"] == false && replication.is_null()
                        } else {
                            tablet["read_only"] == true
                                && replication["receiver"] == "running"
                                && replication["applier"] == "running"
                        }
            });
            // With a tablet gone, these are what is left to say.
            let consequences = [
                "PrimarySingleReplicaDead",
                "AllPrimaryReplicasNotReplicatingOrDead",
                "NotEnoughSemiSyncReplicas",
                "LockedSemiSyncPrimaryHypothesis",
            ];
            let excused = |finding: &Value| {
                if !except.is_empty() && consequences.iter().any(|code| finding["code"] == *code) {
                    return true;
                }
                let tablet = finding["tablet"].as_str().unwrap_or_default();
                let aside =
                    tablets.iter().any(|one| one["alias"] == tablet && one["type"] == "DRAINED");
                aside || except.iter().any(|one| padded(one) == tablet)
            };
            let quiet = last["findings"].as_array()?.iter().all(excused);
            (fine && quiet && last["recovering"].is_null()).then_some(primary)
        });
        // A server tells in whole seconds for how long it has run: of a younger one nobody could say that it was not
        // started anew since the primary was last heard.
        std::thread::sleep(TOLD_APART.saturating_sub(self.begun.elapsed()));
        found.unwrap_or_else(|| panic!("not healthy: {last:#}\n{}", self.daemon().log_text()))
    }
}

/// So old are servers whose age is no matter of doubt.
const TOLD_APART: Duration = Duration::from_secs(4);

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for daemon in &self.daemons {
                eprintln!("--- {}\n{}", daemon.log.display(), daemon.log_text());
            }
        }
    }
}

impl Daemon {
    pub fn log_text(&self) -> String {
        let stderr = self.log.with_file_name("stderr");
        std::fs::read_to_string(&self.log)
            .ok()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| std::fs::read_to_string(stderr).unwrap_or_default())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Value {
        request("GET", &self.url(path), None, &[]).1
    }

    pub fn post(&self, path: &str, body: Value) -> (u16, Value) {
        request("POST", &self.url(path), Some(body.to_string()), &[])
    }

    pub fn shard(&self) -> Value {
        self.get("/api/v1/shards/ks/0")
    }

    pub fn recoveries(&self) -> Vec<Value> {
        self.get("/api/v1/recoveries").as_array().cloned().unwrap_or_default()
    }

    /// Waits for a recovery that ended and fits.
    pub fn recovery(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let found = wait_for(|| {
            self.recoveries().into_iter().find(|one| !one["outcome"].is_null() && fits(one))
        });
        found.unwrap_or_else(|| {
            panic!("no such recovery: {:#?}\n{}", self.recoveries(), self.log_text())
        })
    }

    /// Waits until nothing is done for a reason with these words, and answers the shard.
    pub fn held_back(&self, why: &str) -> Value {
        let mut last = Value::Null;
        let held = wait_for(|| {
            last = self.shard();
            last["held_back"].as_str()?.contains(why).then(|| last.clone())
        });
        held.unwrap_or_else(|| panic!("not held back for {why:?}: {last:#}\n{}", self.log_text()))
    }

    /// Waits for a finding of this kind, and answers the shard.
    pub fn finding(&self, kind: &str) -> Value {
        let mut last = Value::Null;
        let found = wait_for(|| {
            last = self.shard();
            let findings = last["findings"].as_array()?;
            findings.iter().any(|finding| finding["code"] == kind).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("{kind} was not found: {last:#}\n{}", self.log_text()))
    }
}

/// Sends a request; answers status and body.
pub fn request(
    method: &str,
    url: &str,
    body: Option<String>,
    headers: &[(&str, &str)],
) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut builder = ureq::http::Request::builder().method(method).uri(url);
    if body.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        builder = builder.header("Content-Type", "application/json");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let mut response = agent.run(builder.body(body.unwrap_or_default()).unwrap()).unwrap();
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().unwrap_or_default();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The other tablets of a shard of three.
pub fn others(not: &str) -> Vec<&'static str> {
    THREE.iter().copied().filter(|alias| padded(alias) != padded(not)).collect()
}

/// Leaves a server its newest binary log alone. Those that a replica just read are not purged at once.
pub fn purge_logs(server: &Server) {
    server.run(&["FLUSH BINARY LOGS"]).unwrap();
    let mut admin = server.connect("admin").unwrap();
    let mut logs = move || -> Vec<String> {
        admin.query_map("SHOW BINARY LOGS", |row: mysql::Row| row.get(0).unwrap()).unwrap()
    };
    let purged = || {
        let last = logs().pop()?;
        server.run(&[&format!("PURGE BINARY LOGS TO '{last}'")]).unwrap();
        (logs().len() == 1).then_some(())
    };
    wait_for(purged).expect("the logs are not purged");
}

pub fn padded(alias: &str) -> String {
    match alias.rsplit_once('-') {
        Some((cell, uid)) => format!("{cell}-{:010}", uid.parse::<u32>().unwrap()),
        None => alias.to_owned(),
    }
}
