//! Finding a server to run: an installed one, or the tree that `scripts/servers.sh` prepares.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::FleetError;

/// Which family a server belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavor {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// A server that can be run.
#[derive(Clone, Debug)]
pub struct ServerBinary {
    /// Its family.
    pub flavor: Flavor,
    /// As `--version` prints it.
    pub version: String,
    program: PathBuf,
    /// A Debian tree of its own, run through its own loader.
    tree: Option<PathBuf>,
}

const MARIADB_PLACES: &[&str] =
    &["/usr/sbin/mariadbd", "/usr/libexec/mariadbd", "/usr/bin/mariadbd"];
const MYSQL_PLACES: &[&str] =
    &["/usr/sbin/mysqld", "/usr/bin/mysqld", "/usr/local/mysql/bin/mysqld"];

impl ServerBinary {
    /// The MySQL of the tests: `VTORC_TEST_MYSQLD`, else the prepared tree, else an installed one.
    pub fn mysql() -> Result<Self, FleetError> {
        if let Some(program) = std::env::var_os("VTORC_TEST_MYSQLD") {
            return Self::at(Path::new(&program));
        }
        let tree = cache_directory().join("mysql-9");
        if tree.join(".complete").exists() {
            return Self::examine(tree.join("usr/sbin/mysqld"), Some(tree));
        }
        let installed = MYSQL_PLACES.iter().map(Path::new).find_map(|program| {
            Self::at(program).ok().filter(|binary| binary.flavor == Flavor::MySql)
        });
        installed.ok_or_else(|| {
            FleetError(
                "no MySQL server was found; run scripts/servers.sh test, or set VTORC_TEST_MYSQLD"
                    .into(),
            )
        })
    }

    /// An installed MariaDB.
    pub fn mariadb() -> Result<Self, FleetError> {
        let found = MARIADB_PLACES.iter().map(Path::new).find(|program| program.exists());
        let missing =
            || FleetError("no MariaDB server was found; run scripts/servers.sh test".into());
        Self::at(found.ok_or_else(missing)?)
    }

    /// Whatever there is, MySQL first.
    pub fn any() -> Result<Self, FleetError> {
        Self::mysql().or_else(|_| Self::mariadb()).map_err(|_| {
            FleetError(
                "neither mysqld nor mariadbd was found; install one, for example with \
                 `apt-get install mariadb-server-core`, or name one with --mysqld"
                    .into(),
            )
        })
    }

    /// The server at this path.
    pub fn at(program: &Path) -> Result<Self, FleetError> {
        Self::examine(program.to_owned(), None)
    }

    fn examine(program: PathBuf, tree: Option<PathBuf>) -> Result<Self, FleetError> {
        let unknown = Self { flavor: Flavor::MySql, version: String::new(), program, tree };
        let output = unknown.command().arg("--version").output();
        let output = output.map_err(|error| FleetError::doing(unknown.program.display(), error))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || version.is_empty() {
            return Err(FleetError(format!("{} --version failed", unknown.program.display())));
        }
        let flavor = if version.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql };
        let family = if flavor == Flavor::MariaDb { "MariaDB" } else { "MySQL" };
        let number =
            version.split_once("Ver ").map_or(version.as_str(), |(_, number)| number.trim());
        let version = format!("{family} {number}");
        Ok(Self { flavor, version, ..unknown })
    }

    /// The server with what it needs to find its own files.
    pub fn command(&self) -> Command {
        let Some(tree) = &self.tree else {
            let mut command = Command::new(&self.program);
            command.arg("--no-defaults");
            return command;
        };
        let path = |part: &str| tree.join(part).display().to_string();
        let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(format!("{}:{}", path("usr/lib/x86_64-linux-gnu"), path("usr/lib/mysql")))
            .args(["--argv0", "mysqld"])
            .arg(&self.program)
            .arg("--no-defaults")
            .arg(format!("--basedir={}", path("usr")))
            .arg(format!("--lc-messages-dir={}", path("usr/share/mysql")))
            .arg(format!("--plugin-dir={}", path("usr/lib/mysql/plugin")))
            .arg(format!("--character-sets-dir={}", path("usr/share/mysql/charsets")))
            .arg("--secure-file-priv=NULL");
        command
    }

    /// A short name that differs from every other server's, for directories: a socket's path is limited.
    pub(crate) fn slug(&self) -> String {
        let family = match self.flavor {
            Flavor::MySql => "mysql",
            Flavor::MariaDb => "mariadb",
        };
        format!("{family}-{:08x}", fingerprint(&self.version))
    }
}

/// A short number for a text (FNV-1a).
pub(crate) fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}

/// Where `scripts/servers.sh` puts what it prepares.
pub(crate) fn cache_directory() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    from("VTORC_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("vtorc")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/vtorc")))
        .unwrap_or_else(|| PathBuf::from("/tmp/vtorc-cache"))
}
