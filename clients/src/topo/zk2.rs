//! The topology in ZooKeeper, as Vitess's `zk2` keeps it.
//!
//! Over `zookeeper-client`: it notices a hung server, keeps watches over reconnects, tells of an expired session, can
//! ask a follower to catch up and can make the nodes of Vitess's lock queue, none of which the older `zookeeper`
//! crate does (ARCHITECTURE.md has the comparison; the end-to-end stories use that one beside this).

mod lock;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::timeout;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};
use zookeeper_client as zk;

use super::conn::{TopoConn, Version};
use crate::mysql::Secret;

/// One request takes at most this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a lost watch is set again.
const WATCH_RETRY: Duration = Duration::from_millis(500);
/// A full reading now and then, whatever the watches say.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Records: everybody may read, write and administer; nobody may create children or delete here.
fn file_acl() -> [zk::Acl; 1] {
    let permission = zk::Permission::READ | zk::Permission::WRITE | zk::Permission::ADMIN;
    [zk::Acl::new(permission, zk::AuthId::anyone())]
}

/// How ZooKeeper is reached.
#[derive(Clone, Debug)]
pub struct Zk2Options {
    /// The session to ask for; the server may shorten it.
    pub session_timeout: Duration,
    /// Scheme and credentials.
    pub auth: Option<(String, Secret)>,
    /// TLS, where the servers want it.
    pub tls: Option<Zk2Tls>,
}

/// TLS to ZooKeeper, as Vitess's `topo_zk_tls_*` flags have it: both sides show a certificate.
#[derive(Clone, Debug)]
pub struct Zk2Tls {
    /// The authorities to trust (PEM); revocation lists in the same file are honoured.
    pub ca: PathBuf,
    /// Our certificate (PEM).
    pub cert: PathBuf,
    /// Our key (PEM).
    pub key: PathBuf,
}

impl Zk2Tls {
    /// Reads the files anew for each session, so that renewed ones are taken up; the error says which is wrong.
    fn read(&self) -> Result<zk::TlsOptions, String> {
        let text = |file: &PathBuf| {
            std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
        };
        let failure = |error: zk::Error| format!("TLS with {}: {error}", self.cert.display());
        zk::TlsOptions::new()
            .with_pem_ca(&text(&self.ca)?)
            .map_err(|error| format!("{}: {error}", self.ca.display()))?
            .with_pem_identity(&text(&self.cert)?, &text(&self.key)?)
            .map_err(failure)
    }
}

/// Refuses a server that no certificate can name: the client would panic at it.
fn certifiable(server: &str) -> Result<(), TopoError> {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_matches(['[', ']']).to_owned();
    match rustls::pki_types::ServerName::try_from(host) {
        Ok(_) => Ok(()),
        Err(error) => Err(TopoError::Invalid(format!("ZooKeeper at {server:?}, by TLS: {error}"))),
    }
}

/// Refuses what is no `host:port`: nobody will ever answer there.
fn addressable(server: &str) -> Result<(), TopoError> {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
    let written = host.chars().all(|sign| sign.is_ascii_graphic() && sign != '/');
    match !host.is_empty() && written && port.parse::<u16>().is_ok() {
        true => Ok(()),
        false => Err(TopoError::Invalid(format!("ZooKeeper at {server:?}: expected host:port"))),
    }
}

/// A ZooKeeper ensemble and the root of one cell in it.
pub struct Zk2Conn {
    servers: String,
    root: String,
    options: Zk2Options,
    session: Arc<Mutex<Option<zk::Client>>>,
    watcher: Mutex<Option<zk::PersistentWatcher>>,
}

impl Zk2Conn {
    /// Names the servers (comma separated, default port 2181) and the root. Connects when it is used.
    pub fn new(servers: &str, root: &str, options: Zk2Options) -> Result<Self, TopoError> {
        let with_port = |server: &str| {
            if server.contains(':') { server.to_owned() } else { format!("{server}:2181") }
        };
        // What follows a `|` are observers, which only serve reads.
        let voters = servers.split('|').next().unwrap_or_default();
        let servers: Vec<String> = voters.split(',').map(str::trim).map(with_port).collect();
        servers.iter().try_for_each(|server| addressable(server))?;
        if options.tls.is_some() {
            servers.iter().try_for_each(|server| certifiable(server))?;
        }
        Ok(Self {
            servers: servers.join(","),
            root: format!("/{}", root.trim_matches('/')),
            options,
            session: Arc::default(),
            watcher: Mutex::default(),
        })
    }

    fn path(&self, relative: &str) -> String {
        let root = self.root.trim_end_matches('/');
        if relative.is_empty() { root.to_owned() } else { format!("{root}/{relative}") }
    }

    /// The session, a new one if the last one is over.
    async fn client(&self) -> Result<zk::Client, TopoError> {
        let mut session = self.session.lock().await;
        if let Some(client) = session.as_ref().filter(|client| !client.state().is_terminated()) {
            return Ok(client.clone());
        }
        *session = None;
        let mut connector = zk::Client::connector()
            .with_session_timeout(self.options.session_timeout)
            .with_connection_timeout(REQUEST_TIMEOUT);
        if let Some((scheme, auth)) = &self.options.auth {
            connector = connector.with_auth(scheme, auth.reveal().as_bytes());
        }
        let connected = match &self.options.tls {
            Some(tls) => {
                let tls = tls.read().map_err(|why| self.unavailable(&why))?;
                let connector = connector.with_tls(tls);
                timeout(REQUEST_TIMEOUT, connector.secure_connect(&self.servers)).await
            }
            None => timeout(REQUEST_TIMEOUT, connector.connect(&self.servers)).await,
        };
        let client = connected
            .map_err(|_elapsed| self.unavailable("no connection in time"))?
            .map_err(|error| self.unavailable(&error.to_string()))?;
        *session = Some(client.clone());
        Ok(client)
    }

    fn unavailable(&self, why: &str) -> TopoError {
        TopoError::Unavailable(format!("ZooKeeper at {}: {why}", self.servers))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours and may grow")]
    fn error(&self, path: &str, error: zk::Error) -> TopoError {
        match error {
            zk::Error::NoNode => TopoError::NoNode(path.to_owned()),
            zk::Error::NodeExists => TopoError::NodeExists(path.to_owned()),
            zk::Error::BadVersion => TopoError::BadVersion(path.to_owned()),
            other => self.unavailable(&format!("{path}: {other}")),
        }
    }

    /// Runs one request with a deadline.
    async fn ask<T>(
        &self,
        path: &str,
        request: impl Future<Output = Result<T, zk::Error>>,
    ) -> Result<T, TopoError> {
        match timeout(REQUEST_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|error| self.error(path, error)),
            Err(_elapsed) => Err(self.unavailable(&format!("{path}: no answer in time"))),
        }
    }

    /// Creates the directories above a path, as Vitess does: persistent, empty, open to all.
    async fn make_parents(&self, client: &zk::Client, path: &str) -> Result<(), TopoError> {
        let directory = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
        let mut so_far = String::new();
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            so_far = format!("{so_far}/{part}");
            match self.ask(&so_far, client.create(&so_far, b"", &directory)).await {
                Ok(_) | Err(TopoError::NodeExists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets the watch over everything below the root, if it does not stand.
    async fn watch(&self) -> Result<(), TopoError> {
        let mut watcher = self.watcher.lock().await;
        if watcher.is_some() {
            return Ok(());
        }
        let client = self.client().await?;
        let root = self.path("");
        let mode = zk::AddWatchMode::PersistentRecursive;
        *watcher = Some(self.ask(&root, client.watch(&root, mode)).await?);
        Ok(())
    }
}

#[async_trait]
impl TopoConn for Zk2Conn {
    async fn get(&self, path: &str) -> Result<(Vec<u8>, Version), TopoError> {
        let client = self.client().await?;
        let full = self.path(path);
        let (data, stat) = self.ask(path, client.get_data(&full)).await?;
        Ok((data, Version(i64::from(stat.version))))
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, TopoError> {
        let client = self.client().await?;
        let full = self.path(path);
        match self.ask(path, client.list_children(&full)).await {
            Ok(mut names) => {
                names.retain(|name| name != "locks");
                names.sort();
                Ok(names)
            }
            Err(TopoError::NoNode(_)) => {
                // A root that is not there is a wrong root, not an empty topology.
                let root = self.ask(&self.root, client.get_data(&self.root)).await;
                if let Err(TopoError::NoNode(_)) = root {
                    return Err(TopoError::NoRoot(format!(
                        "there is no {} in ZooKeeper at {}; check the topology root",
                        self.root, self.servers
                    )));
                }
                root?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn create(&self, path: &str, data: &[u8]) -> Result<(), TopoError> {
        let client = self.client().await?;
        let full = self.path(path);
        let acl = file_acl();
        let file = zk::CreateMode::Persistent.with_acls(zk::Acls::new(&acl));
        self.make_parents(&client, &full).await?;
        self.ask(path, client.create(&full, data, &file)).await.map(|_| ())
    }

    async fn update(&self, path: &str, data: &[u8], version: Version) -> Result<(), TopoError> {
        let client = self.client().await?;
        let full = self.path(path);
        let expected = i32::try_from(version.0).ok();
        self.ask(path, client.set_data(&full, data, expected)).await.map(|_| ())
    }

    async fn delete(&self, path: &str) -> Result<(), TopoError> {
        let client = self.client().await?;
        let mut full = self.path(path);
        self.ask(path, client.delete(&full, None)).await?;
        while let Some((parent, _)) = full.rsplit_once('/') {
            if parent.len() <= self.root.len() {
                break;
            }
            full = parent.to_owned();
            // Not empty, or somebody else was faster: done.
            if self.ask(&full, client.delete(&full, None)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn catch_up(&self) -> Result<(), TopoError> {
        // A follower answers by itself, from what it has heard of so far. After a `sync` it has heard of everything
        // that the leader had done by then.
        let client = self.client().await?;
        self.ask(&self.root, client.sync(&self.root)).await
    }

    async fn arm(&self) {
        // Where it cannot be set, the reading that follows fails as well and is tried again.
        let _ = self.watch().await;
    }

    async fn changed(&self) {
        let mut watcher = self.watcher.lock().await;
        let Some(live) = watcher.as_mut() else {
            tokio::time::sleep(WATCH_RETRY).await;
            return;
        };
        let look_again = tokio::time::sleep(LOOK_AGAIN);
        tokio::pin!(look_again);
        loop {
            let event = tokio::select! {
                event = live.changed() => event,
                () = &mut look_again => return,
            };
            if event.event_type != zk::EventType::Session {
                // A lock that comes and goes changes no record.
                if event.path.contains("/locks") {
                    continue;
                }
                return;
            }
            // The session is over, or whatever happened while the connection was away was not told: the
            // watch is set anew before the next reading.
            if event.session_state != zk::SessionState::Disconnected {
                *watcher = None;
                return;
            }
        }
    }

    async fn lock(
        &self,
        path: &str,
        shard: &KeyspaceShard,
        contents: &str,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError> {
        let client = self.client().await?;
        self.ask(path, client.get_data(&self.path(path))).await?;
        // In a task of its own: a caller that goes away between asking for a place in the queue and
        // getting it would leave the place behind, for as long as the session lives.
        let conn = Self {
            servers: self.servers.clone(),
            root: self.root.clone(),
            options: self.options.clone(),
            session: self.session.clone(),
            watcher: Mutex::default(),
        };
        let (path, shard, contents) = (path.to_owned(), shard.clone(), contents.to_owned());
        let taking = tokio::spawn(async move {
            lock::take(&conn, client, &path, &shard, &contents, patience).await
        });
        let gone = |_| self.unavailable("taking the lock was broken off");
        taking.await.map_err(gone)?
    }

    async fn give_back(&self, path: &str, token: &LockToken) -> Result<(), TopoError> {
        lock::give_back(self, &self.client().await?, path, token).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_at_which_nobody_can_answer_is_refused() {
        for (address, good) in [
            ("zk1", true),
            ("zk1:2181,zk2.example:2182|observer:1", true),
            ("[::1]:2181", true),
            ("127.0.0.1:", false),
            ("127.0.0.1:70000", false),
            ("zk1:2181/vitess", false),
            ("http://zk.example:2181", false),
            ("no host:2181", false),
            (":2181", false),
            ("", false),
        ] {
            let timeout = Duration::from_secs(1);
            let options = Zk2Options { session_timeout: timeout, auth: None, tls: None };
            assert_eq!(Zk2Conn::new(address, "/", options).is_ok(), good, "{address:?}");
        }
    }
}
