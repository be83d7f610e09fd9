//! One MySQL or MariaDB server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use rustix::process::Signal;

use crate::child::{Child, free_port};
use crate::{Flavor, FleetError, ServerBinary, Template};

/// A server is up within this, or something is wrong.
const START_MAX: Duration = Duration::from_secs(60);

/// How a server is to run.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Its `server_id`; 0 takes the port.
    pub server_id: u32,
    /// The address it listens on; empty takes 127.0.0.1.
    pub bind_address: String,
    /// More options, as on its command line.
    pub extra: Vec<String>,
    /// Without its semi-sync plugins.
    pub no_semi_sync: bool,
    /// Run inside this network namespace.
    pub namespace: Option<String>,
    /// Has only the users that a fresh data directory has.
    pub fresh_users: bool,
}

/// So many ports are tried, one after the other.
const PORTS_TRIED: usize = 3;
/// So often a server is started again on its own port.
const RESTARTS_TRIED: usize = 10;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Its port.
    pub port: u16,
    /// The address it listens on.
    pub host: String,
    binary: ServerBinary,
    directory: PathBuf,
    options: ServerOptions,
    child: Child,
}

impl Server {
    /// Starts a server on a copy of the template.
    pub fn start(
        template: &Template,
        directory: &Path,
        options: ServerOptions,
    ) -> Result<Self, FleetError> {
        template.copy_to(directory)?;
        Self::start_in(template.binary.clone(), directory, options)
    }

    pub(crate) fn start_in(
        binary: ServerBinary,
        directory: &Path,
        options: ServerOptions,
    ) -> Result<Self, FleetError> {
        let host = match options.bind_address.as_str() {
            "" => "127.0.0.1".to_owned(),
            address => address.to_owned(),
        };
        let port = free_port()?;
        let child = launch(&binary, directory, &host, port, &options)?;
        let mut server =
            Self { port, host, binary, directory: directory.to_owned(), options, child };
        server.wait_until_it_has_a_port(PORTS_TRIED, |server| {
            server.port = free_port()?;
            server.restart_later()
        })?;
        Ok(server)
    }

    /// Its family.
    pub fn flavor(&self) -> Flavor {
        self.binary.flavor
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("s")
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Freezes it.
    pub fn freeze(&self) {
        self.child.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.child.thaw();
    }

    /// Keeps a copy of its data as they are; it must not run.
    pub fn keep_data(&self) -> Result<(), FleetError> {
        copy_data(&self.directory.join("data"), &self.directory.join("kept"))
    }

    /// Puts the copy in the place of its data: all that came after it is lost. It must not run.
    pub fn put_back_data(&self) -> Result<(), FleetError> {
        copy_data(&self.directory.join("kept"), &self.directory.join("data"))
    }

    /// Starts it again on its data and port.
    pub fn restart(&mut self) -> Result<(), FleetError> {
        self.restart_later()?;
        self.wait_until_it_has_a_port(RESTARTS_TRIED, Self::restart_later)
    }

    /// Starts it again without waiting until it is up.
    pub fn restart_later(&mut self) -> Result<(), FleetError> {
        self.child.kill();
        self.child = launch(&self.binary, &self.directory, &self.host, self.port, &self.options)?;
        Ok(())
    }

    /// Ends it in order.
    pub fn stop(&mut self, patience: Duration) -> Result<(), FleetError> {
        self.child.signal(Signal::TERM);
        match self.child.wait(patience) {
            Some(_) => Ok(()),
            None => Err(FleetError(format!("the server on port {} did not stop", self.port))),
        }
    }

    /// Tells whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.is_running()
    }

    /// A connection through its socket as this user, without a password: `admin`, `app` or `root`.
    pub fn connect(&self, user: &str) -> Result<mysql::Conn, FleetError> {
        self.connect_within(user, Duration::from_secs(10))
    }

    /// The same, where each statement takes at most so long.
    pub fn connect_within(&self, user: &str, timeout: Duration) -> Result<mysql::Conn, FleetError> {
        let opts = mysql::OptsBuilder::new()
            .user(Some(user))
            .socket(Some(self.directory.join("s").display().to_string()))
            .read_timeout(Some(timeout))
            .write_timeout(Some(timeout));
        let doing =
            |error| FleetError::doing(format!("connect to port {} as {user}", self.port), error);
        mysql::Conn::new(opts).map_err(doing)
    }

    /// Runs statements as `admin`.
    pub fn run(&self, statements: &[&str]) -> Result<(), FleetError> {
        let mut admin = self.connect("admin")?;
        for statement in statements {
            admin.query_drop(statement).map_err(|error| FleetError::doing(statement, error))?;
        }
        Ok(())
    }

    /// One value as `admin`.
    pub fn value(&self, query: &str) -> Result<String, FleetError> {
        let value: Option<mysql::Value> = self
            .connect("admin")?
            .query_first(query)
            .map_err(|error| FleetError::doing(query, error))?;
        Ok(match value {
            Some(mysql::Value::Bytes(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(mysql::Value::Int(number)) => number.to_string(),
            Some(mysql::Value::UInt(number)) => number.to_string(),
            Some(other) => other.as_sql(true),
            None => String::new(),
        })
    }

    /// An outgoing connection may have its port, most of all one of whoever looks for the server. Then it is started
    /// again.
    fn wait_until_it_has_a_port(
        &mut self,
        tries: usize,
        again: impl Fn(&mut Self) -> Result<(), FleetError>,
    ) -> Result<(), FleetError> {
        let mut up = self.wait_until_up();
        for _ in 1..tries {
            if !up.as_ref().is_err_and(|error| error.0.contains("already in use")) {
                break;
            }
            again(self)?;
            up = self.wait_until_up();
        }
        up
    }

    fn wait_until_up(&mut self) -> Result<(), FleetError> {
        let user = if self.options.fresh_users { "root" } else { "admin" };
        let deadline = Instant::now() + START_MAX;
        loop {
            let failure = match self.connect(user) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if !self.child.is_running() || Instant::now() >= deadline {
                let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(8).collect();
                return Err(FleetError(format!("{failure}; its log ends: {}", tail.join(" | "))));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn copy_data(from: &Path, to: &Path) -> Result<(), FleetError> {
    let failure = |error: std::io::Error| FleetError::doing(to.display(), error);
    if to.exists() {
        std::fs::remove_dir_all(to).map_err(failure)?;
    }
    let mut command = std::process::Command::new("cp");
    let status =
        command.args(["-r", "--reflink=auto"]).args([from, to]).status().map_err(failure)?;
    if status.success() { Ok(()) } else { Err(FleetError::doing(to.display(), status)) }
}

fn launch(
    binary: &ServerBinary,
    directory: &Path,
    host: &str,
    port: u16,
    options: &ServerOptions,
) -> Result<Child, FleetError> {
    let mut command = binary.command();
    if let Some(namespace) = &options.namespace {
        let inner = command;
        command = std::process::Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(inner.get_program()).args(inner.get_args());
    }
    let id = if options.server_id == 0 { u32::from(port) } else { options.server_id };
    command
        .arg(format!("--datadir={}", directory.join("data").display()))
        .arg(format!("--socket={}", directory.join("s").display()))
        .arg(format!("--pid-file={}", directory.join("pid").display()))
        .arg(format!("--tmpdir={}", directory.display()))
        .arg(format!("--bind-address={host}"))
        .arg(format!("--port={port}"))
        .arg(format!("--server-id={id}"))
        .arg(format!("--report-host={host}"))
        .arg(format!("--report-port={port}"))
        .args(["--log-bin=binlog", "--skip-name-resolve", "--innodb-buffer-pool-size=32M"])
        .args(["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1", "--max-connections=200"]);
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    match binary.flavor {
        Flavor::MySql => {
            command
                .args([
                    "--gtid-mode=ON",
                    "--enforce-gtid-consistency=ON",
                    "--log-replica-updates=ON",
                ])
                .args(["--mysqlx=OFF", "--innodb-redo-log-capacity=8M", "--relay-log-recovery=ON"]);
            if !options.no_semi_sync {
                command.arg("--plugin-load-add=semisync_source.so;semisync_replica.so");
            }
        }
        Flavor::MariaDb => {
            command.args([
                "--log-slave-updates=ON",
                "--innodb-log-file-size=8M",
                "--relay-log-recovery=ON",
            ]);
        }
    }
    command.args(&options.extra);
    Child::start(&mut command, &directory.join("log"))
}
