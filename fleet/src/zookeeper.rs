//! One ZooKeeper server, as Debian packages it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::FleetError;
use crate::child::{Child, free_port};

const JAR: &str = "/usr/share/java/zookeeper.jar";
/// What TLS needs beyond the jars that the first one names.
const JARS_FOR_TLS: [&str; 3] = [
    "/usr/share/java/netty-codec.jar",
    "/usr/share/java/netty-resolver.jar",
    "/usr/share/java/netty-transport-native-unix-common.jar",
];

/// A running ZooKeeper.
#[derive(Debug)]
pub struct ZooKeeper {
    /// Its port.
    pub port: u16,
    directory: PathBuf,
    secure: bool,
    child: Child,
}

impl ZooKeeper {
    /// Starts one with its data below `directory`.
    pub fn start(directory: &Path) -> Result<Self, FleetError> {
        let port = free_port()?;
        Self::start_as(
            directory,
            port,
            &format!("clientPort={port}\nclientPortAddress=127.0.0.1\n"),
        )
    }

    /// Starts one that speaks TLS alone and wants a certificate of its clients: `certificates` has `ca.pem`, and
    /// `server.pem` with `server.key`.
    pub fn start_with_tls(directory: &Path, certificates: &Path) -> Result<Self, FleetError> {
        let read = |name: &str| {
            let file = certificates.join(name);
            std::fs::read_to_string(&file).map_err(|error| FleetError::doing(file.display(), error))
        };
        // A store in PEM is the key and the certificate in one file.
        let store = certificates.join("server-store.pem");
        std::fs::write(&store, read("server.key")? + &read("server.pem")?)
            .map_err(|error| FleetError::doing(store.display(), error))?;
        let port = free_port()?;
        let lines = format!(
            "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={}\nssl.keyStore.type=PEM\n\
             ssl.trustStore.location={}\nssl.trustStore.type=PEM\n\
             ssl.clientAuth=need\n",
            store.display(),
            certificates.join("ca.pem").display(),
        );
        Self::start_as(directory, port, &lines)
    }

    fn start_as(directory: &Path, port: u16, lines: &str) -> Result<Self, FleetError> {
        if !Path::new(JAR).exists() {
            return Err(FleetError(format!("{JAR} is missing; run scripts/servers.sh test")));
        }
        std::fs::create_dir_all(directory)
            .map_err(|error| FleetError::doing(directory.display(), error))?;
        let config = format!(
            "tickTime=500\ndataDir={}\n{lines}admin.enableServer=false\nmaxClientCnxns=0\n\
             minSessionTimeout=1000\n4lw.commands.whitelist=ruok\n",
            directory.join("data").display()
        );
        std::fs::write(directory.join("zoo.cfg"), config)
            .map_err(|error| FleetError::doing("write zoo.cfg", error))?;
        let child = launch(directory)?;
        let secure = lines.contains("secureClientPort");
        let mut zookeeper = Self { port, directory: directory.to_owned(), secure, child };
        zookeeper.wait_until_up()?;
        Ok(zookeeper)
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

    /// Starts it again on its data and port.
    pub fn restart(&mut self) -> Result<(), FleetError> {
        self.child.kill();
        self.child = launch(&self.directory)?;
        self.wait_until_up()
    }

    fn wait_until_up(&mut self) -> Result<(), FleetError> {
        let (port, secure) = (self.port, self.secure);
        let up = || if secure { listens(port) } else { is_ok(port) };
        self.child.wait_until_up("ZooKeeper", &self.directory.join("log"), up)
    }
}

/// Where TLS is spoken there is no `ruok` to ask.
fn listens(port: u16) -> bool {
    TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok()
}

fn is_ok(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let timeout = Duration::from_millis(500);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(b"ruok")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer == "imok")
}

fn launch(directory: &Path) -> Result<Child, FleetError> {
    let mut command = Command::new("java");
    let jars = [&[JAR], JARS_FOR_TLS.as_slice()].concat().join(":");
    command
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &jars])
        .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
        .arg(directory.join("zoo.cfg"));
    Child::start(&mut command, &directory.join("log"))
}
