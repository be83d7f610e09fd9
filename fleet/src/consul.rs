//! Consul servers, as Debian packaged them last.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

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
    name: String,
    directory: PathBuf,
    child: Child,
}

impl Consul {
    /// Starts one with its data below `directory`.
    pub fn start(directory: &Path, options: &ConsulOptions) -> Result<Self, FleetError> {
        let mut one = Self::start_several(directory, 1, options)?;
        one.pop().ok_or_else(|| FleetError("one server was asked for".into()))
    }

    /// Starts so many that elect a leader among them.
    pub fn start_several(
        directory: &Path,
        members: usize,
        options: &ConsulOptions,
    ) -> Result<Vec<Self>, FleetError> {
        let ports = free_ports(members * 4)?;
        let gossip: Vec<String> =
            ports.iter().skip(3).step_by(4).map(|port| format!("127.0.0.1:{port}")).collect();
        let mut started = Vec::new();
        for (at, ports) in ports.chunks(4).enumerate() {
            let &[port, tls_port, ..] = ports else { continue };
            let (name, place) = (format!("m{at}"), directory.join(format!("m{at}")));
            std::fs::create_dir_all(&place)
                .map_err(|error| FleetError::doing(place.display(), error))?;
            std::fs::write(
                place.join("consul.json"),
                config(&name, &place, ports, &gossip, options),
            )
            .map_err(|error| FleetError::doing("write consul.json", error))?;
            let child = launch(&place)?;
            started.push(Self { port, tls_port, name, directory: place, child });
        }
        for member in &mut started {
            member.wait_until_up()?;
        }
        Ok(started)
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
        let (port, health) = (self.port, format!("/v1/health/node/{}", self.name));
        let up = || {
            let leads = ask(port, "/v1/status/leader").is_some_and(|text| text.contains("127.0"));
            leads && ask(port, &health).is_some_and(|text| text.contains("serfHealth"))
        };
        self.child.wait_until_up("consul", &self.directory.join("log"), up)
    }
}

/// The configuration of the member that has these ports: for clients, for TLS, for servers, for gossip.
fn config(
    name: &str,
    directory: &Path,
    ports: &[u16],
    gossip: &[String],
    options: &ConsulOptions,
) -> String {
    let &[http, https, server, serf] = ports else { return String::new() };
    let certificates = options.certificates.as_deref();
    let file = |name: &str| {
        certificates.map_or_else(String::new, |place| place.join(name).display().to_string())
    };
    let acl = match options.tokens {
        true => json!({
            "enabled": true, "default_policy": "deny",
            "tokens": {"master": CONSUL_MASTER_TOKEN, "agent": CONSUL_MASTER_TOKEN},
        }),
        false => json!({}),
    };
    let config = json!({
        "server": true, "bootstrap_expect": gossip.len(), "retry_join": gossip, "node_name": name,
        "data_dir": directory.join("data"), "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
        "ports": {
            "http": http, "https": certificates.map_or(-1, |_| i32::from(https)),
            "dns": -1, "grpc": -1, "server": server, "serf_lan": serf, "serf_wan": -1,
        },
        "performance": {"raft_multiplier": 1}, "session_ttl_min": "1s",
        "disable_update_check": true, "log_level": "WARN", "acl": acl,
        "ca_file": file("ca.pem"), "cert_file": file("server.pem"), "key_file": file("server.key"),
        "verify_incoming_https": certificates.is_some(),
    });
    config.to_string()
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
