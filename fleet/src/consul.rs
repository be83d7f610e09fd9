//! One consul server, as Debian packaged it last.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::FleetError;
use crate::binary::cache_directory;
use crate::child::{Child, free_ports};

/// A token that may do everything, where tokens are asked for.
pub const CONSUL_MASTER_TOKEN: &str = "5f0ab8a2-2b5e-4b0e-8a55-0d0a4c1d9e11";

/// What a consul server wants of those who come.
#[derive(Clone, Debug, Default)]
pub struct ConsulOptions {
    /// Nobody may do anything without a token.
    pub tokens: bool,
    /// A directory with `ca.pem`, `server.pem` and `server.key`: TLS, beside the plain port, for those who show a
    /// certificate.
    pub certificates: Option<PathBuf>,
}

/// One running consul server.
#[derive(Debug)]
pub struct Consul {
    /// Its port for clients.
    pub port: u16,
    /// The same with TLS.
    pub tls_port: u16,
    directory: PathBuf,
    child: Child,
}

impl Consul {
    /// Starts one with its data below `directory`.
    pub fn start(directory: &Path, options: &ConsulOptions) -> Result<Self, FleetError> {
        let ports = free_ports(4)?;
        let [port, https, server, gossip] = ports[..] else {
            return Err(FleetError("four ports were asked for".into()));
        };
        std::fs::create_dir_all(directory)
            .map_err(|error| FleetError::doing(directory.display(), error))?;
        let tls_port = options.certificates.as_ref().map_or(-1, |_| i32::from(https));
        let mut config = format!(
            "{{\"server\": true, \"bootstrap_expect\": 1, \"node_name\": \"m0\", \"data_dir\": {:?},\n\
             \"bind_addr\": \"127.0.0.1\", \"client_addr\": \"127.0.0.1\", \"ports\": {{\"http\": {port},\n\
             \"https\": {tls_port}, \"dns\": -1, \"grpc\": -1, \"server\": {server}, \"serf_lan\": {gossip},\n\
             \"serf_wan\": -1}}, \"performance\": {{\"raft_multiplier\": 1}}, \"session_ttl_min\": \"1s\",\n\
             \"disable_update_check\": true, \"log_level\": \"WARN\"",
            directory.join("data").display().to_string(),
        );
        if options.tokens {
            config += &format!(
                ",\n\"acl\": {{\"enabled\": true, \"default_policy\": \"deny\",\n\
                 \"tokens\": {{\"master\": \"{CONSUL_MASTER_TOKEN}\", \"agent\": \"{CONSUL_MASTER_TOKEN}\"}}}}"
            );
        }
        if let Some(place) = &options.certificates {
            let file = |name: &str| place.join(name).display().to_string();
            config += &format!(
                ",\n\"ca_file\": {:?}, \"cert_file\": {:?}, \"key_file\": {:?},\n\
                 \"verify_incoming_https\": true",
                file("ca.pem"),
                file("server.pem"),
                file("server.key"),
            );
        }
        config += "}\n";
        std::fs::write(directory.join("consul.json"), config)
            .map_err(|error| FleetError::doing("write consul.json", error))?;
        let child = launch(directory)?;
        let mut consul = Self { port, tls_port: https, directory: directory.to_owned(), child };
        consul.wait_until_up()?;
        Ok(consul)
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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

    /// Starts it again on its data and ports.
    pub fn restart(&mut self) -> Result<(), FleetError> {
        self.child.kill();
        self.child = launch(&self.directory)?;
        self.wait_until_up()
    }

    /// It serves once it leads and knows itself: sessions are bound to the health of its node.
    fn wait_until_up(&mut self) -> Result<(), FleetError> {
        let port = self.port;
        let up = || {
            let leads = ask(port, "/v1/status/leader").is_some_and(|text| text.contains("127.0"));
            leads && ask(port, "/v1/health/node/m0").is_some_and(|text| text.contains("serfHealth"))
        };
        self.child.wait_until_up("consul", &self.directory.join("log"), up)
    }
}

fn launch(directory: &Path) -> Result<Child, FleetError> {
    let prepared = cache_directory().join("consul/usr/bin/consul");
    let mut command = match prepared.exists() {
        true => Command::new(prepared),
        false => Command::new("consul"),
    };
    command.arg("agent").arg("-config-file").arg(directory.join("consul.json"));
    Child::start(&mut command, &directory.join("log"))
        .map_err(|error| FleetError(format!("{error}; run scripts/servers.sh test")))
}

/// What it answers to this, headers and all.
fn ask(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nX-Consul-Token: {CONSUL_MASTER_TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains(" 200 ").then_some(answer)
}
