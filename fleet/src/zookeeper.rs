//! One ZooKeeper server, as Debian packages it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::FleetError;
use crate::child::{Child, free_port};

const JAR: &str = "/usr/share/java/zookeeper.jar";

/// A running ZooKeeper.
#[derive(Debug)]
pub struct ZooKeeper {
    /// Its port.
    pub port: u16,
    directory: PathBuf,
    child: Child,
}

impl ZooKeeper {
    /// Starts one with its data below `directory`.
    pub fn start(directory: &Path) -> Result<Self, FleetError> {
        if !Path::new(JAR).exists() {
            return Err(FleetError(format!("{JAR} is missing; run scripts/servers.sh test")));
        }
        let port = free_port()?;
        std::fs::create_dir_all(directory)
            .map_err(|error| FleetError::doing(directory.display(), error))?;
        let config = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\nmaxClientCnxns=0\nminSessionTimeout=1000\n4lw.commands.whitelist=ruok\n",
            directory.join("data").display()
        );
        std::fs::write(directory.join("zoo.cfg"), config)
            .map_err(|error| FleetError::doing("write zoo.cfg", error))?;
        let child = launch(directory)?;
        let mut zookeeper = Self { port, directory: directory.to_owned(), child };
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
        let port = self.port;
        self.child.wait_until_up("ZooKeeper", &self.directory.join("log"), || is_ok(port))
    }
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
    command
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", JAR])
        .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
        .arg(directory.join("zoo.cfg"));
    Child::start(&mut command, &directory.join("log"))
}
