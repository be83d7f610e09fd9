//! A prepared data directory, copied for each server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mysql::prelude::Queryable;

use crate::binary::fingerprint;
use crate::server::{Server, ServerOptions};
use crate::{Flavor, FleetError, ServerBinary};

/// A data directory with the users of `init_db.sql` and a few for tests.
#[derive(Clone, Debug)]
pub struct Template {
    pub(crate) binary: ServerBinary,
    directory: PathBuf,
}

/// The user with which tests and the demo write, as an application would.
const APPLICATION: &str = "\
    SET sql_log_bin = 0; CREATE USER 'app'@'%' IDENTIFIED BY ''; GRANT ALL ON test.* TO 'app'@'%'; \
    CREATE USER 'admin'@'%' IDENTIFIED BY ''; GRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION";

impl Template {
    /// Prepares a directory below `place`, or takes the one that is there. Several processes may ask at once.
    pub fn prepare(binary: ServerBinary, place: &Path, init_sql: &str) -> Result<Self, FleetError> {
        fs::create_dir_all(place).map_err(|error| FleetError::doing(place.display(), error))?;
        let place =
            fs::canonicalize(place).map_err(|error| FleetError::doing(place.display(), error))?;
        let directory = place.join(format!("{}-{:08x}", binary.slug(), fingerprint(init_sql)));
        let lock_path = directory.with_extension("lock");
        let lock = fs::File::create(&lock_path);
        let lock = lock.map_err(|error| FleetError::doing(lock_path.display(), error))?;
        lock.lock().map_err(|error| FleetError::doing(lock_path.display(), error))?;
        let template = Self { binary, directory };
        if !template.directory.join("ready").exists() {
            template.make(init_sql)?;
        }
        Ok(template)
    }

    fn make(&self, init_sql: &str) -> Result<(), FleetError> {
        // What an interrupted attempt left.
        let _ = fs::remove_dir_all(&self.directory);
        let data = self.directory.join("data");
        fs::create_dir_all(&self.directory)
            .map_err(|error| FleetError::doing(self.directory.display(), error))?;
        self.initialise(&data)?;
        let options = ServerOptions { fresh_users: true, ..ServerOptions::default() };
        let mut server = Server::start_in(self.binary.clone(), &self.directory, options)?;
        let mut root = server.connect("root")?;
        let failure = |error| FleetError::doing("prepare the users", error);
        for statement in statements(init_sql).iter().chain(&statements(APPLICATION)) {
            root.query_drop(statement).map_err(|error| FleetError::doing(statement, error))?;
        }
        root.query_drop("SET GLOBAL innodb_fast_shutdown = 1").map_err(failure)?;
        drop(root);
        server.stop(Duration::from_secs(60))?;
        // The copies must not share a server_uuid. MariaDB has none.
        let _ = fs::remove_file(data.join("auto.cnf"));
        remove_logs(&data)?;
        fs::write(self.directory.join("ready"), "")
            .map_err(|error| FleetError::doing("finish", error))
    }

    fn initialise(&self, data: &Path) -> Result<(), FleetError> {
        let mut command = match self.binary.flavor {
            Flavor::MySql => {
                let mut command = self.binary.command();
                command.arg("--initialize-insecure").arg("--innodb-redo-log-capacity=8M");
                command
            }
            Flavor::MariaDb => {
                let mut command = Command::new("mariadb-install-db");
                command.args([
                    "--no-defaults",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                ]);
                command.arg("--innodb-log-file-size=8M");
                command
            }
        };
        command.arg(format!("--datadir={}", data.display()));
        // A server that starts clears the temporary tables of others away where they share a directory.
        command.arg(format!("--tmpdir={}", self.directory.display()));
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        let output = command.stdin(Stdio::null()).output();
        let output =
            output.map_err(|error| FleetError::doing("initialise a data directory", error))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let tail: String = text.lines().rev().take(5).collect::<Vec<_>>().join(" | ");
        Err(FleetError::doing("initialise a data directory", tail))
    }

    /// Copies the data directory for a server.
    pub(crate) fn copy_to(&self, directory: &Path) -> Result<(), FleetError> {
        fs::create_dir_all(directory)
            .map_err(|error| FleetError::doing(directory.display(), error))?;
        let status = Command::new("cp")
            .args(["-r", "--reflink=auto"])
            .arg(self.directory.join("data"))
            .arg(directory)
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(FleetError::doing("copy the data directory", status)),
            Err(error) => Err(FleetError::doing("copy the data directory", error)),
        }
    }
}

/// Binary logs of the preparation must not be part of any server's history.
fn remove_logs(data: &Path) -> Result<(), FleetError> {
    let entries = fs::read_dir(data).map_err(|error| FleetError::doing(data.display(), error))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("binlog.") || name.starts_with("master.info") {
            fs::remove_file(entry.path()).map_err(|error| FleetError::doing(name, error))?;
        }
    }
    Ok(())
}

/// Splits a script at its semicolons; comment lines go.
fn statements(script: &str) -> Vec<String> {
    let code: Vec<&str> =
        script.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let parts = code.join("\n");
    parts.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
