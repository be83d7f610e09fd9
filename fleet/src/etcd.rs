//! etcd members, as Debian packages it.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::FleetError;
use crate::child::{Child, free_ports};

/// One running member of an etcd cluster.
#[derive(Debug)]
pub struct Etcd {
    /// Its port for clients.
    pub port: u16,
    name: String,
    peers: String,
    peer_port: u16,
    extra: Vec<String>,
    directory: PathBuf,
    child: Child,
}

impl Etcd {
    /// Starts a cluster of so many members with their data below `directory`. `extra` goes to each.
    pub fn start(
        directory: &Path,
        members: usize,
        extra: &[String],
    ) -> Result<Vec<Self>, FleetError> {
        let ports = free_ports(members * 2)?;
        let pairs: Vec<(u16, u16)> =
            ports.chunks(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect();
        let each = pairs.iter().enumerate();
        let peers: Vec<String> =
            each.map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}")).collect();
        let peers = peers.join(",");
        let mut started = Vec::new();
        for (at, (port, peer_port)) in pairs.iter().enumerate() {
            let (name, place) = (format!("m{at}"), directory.join(format!("m{at}")));
            std::fs::create_dir_all(&place)
                .map_err(|error| FleetError::doing(place.display(), error))?;
            let child = launch(&name, &place, *port, *peer_port, &peers, extra)?;
            started.push(Self {
                port: *port,
                name,
                peers: peers.clone(),
                peer_port: *peer_port,
                extra: extra.to_vec(),
                directory: place,
                child,
            });
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
        let (name, place) = (&self.name, &self.directory);
        self.child = launch(name, place, self.port, self.peer_port, &self.peers, &self.extra)?;
        self.wait_until_up()
    }

    fn wait_until_up(&mut self) -> Result<(), FleetError> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        // It takes clients only once the cluster has a leader.
        let is_up = || TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok();
        self.child.wait_until_up("etcd", &self.directory.join("log"), is_up)
    }
}

fn launch(
    name: &str,
    directory: &Path,
    port: u16,
    peer_port: u16,
    peers: &str,
    extra: &[String],
) -> Result<Child, FleetError> {
    let scheme =
        if extra.iter().any(|option| option.starts_with("--cert-file")) { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new("etcd");
    command
        .args(["--name", name, "--data-dir"])
        .arg(directory.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", peers, "--initial-cluster-token", "test"])
        .args(["--heartbeat-interval", "100", "--election-timeout", "1000"])
        .args(extra);
    Child::start(&mut command, &directory.join("log"))
}
