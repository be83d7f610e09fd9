//! The tablet's own memory: its type, its term, and what a change of type does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tonic::Code;
use vtorc_core::ports::TopoPort;
use vtorc_core::tablet::TabletType;
use vtorc_core::time::TermStart;
use vtorc_core::topology::ShardTopology;

use crate::Options;
use crate::mysqld::{Fault, Mysqld};

/// Vitess writes this for a source whose uuid is not known.
pub(crate) const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// How often each call was made.
pub type Calls = BTreeMap<String, u32>;

/// One tablet.
pub(crate) struct Tablet {
    pub(crate) options: Options,
    pub(crate) topo: Arc<dyn TopoPort>,
    pub(crate) mysqld: Mysqld,
    state: Mutex<(TabletType, Option<TermStart>)>,
    calls: Mutex<Calls>,
    /// One call that changes something at a time.
    pub(crate) action: AsyncMutex<()>,
    /// Its type changed.
    pub(crate) changed: Notify,
    pub(crate) hangs: AtomicBool,
    pub(crate) disk_stalled: AtomicBool,
    pub(crate) refuses_promotion: AtomicBool,
    /// The connection breaks before it answers a promotion, which it does so many milliseconds later.
    pub(crate) promotes_unheard_after_ms: AtomicU64,
}

impl Tablet {
    pub(crate) fn new(options: Options, topo: Arc<dyn TopoPort>) -> Self {
        let mysqld = Mysqld { socket: options.socket.clone() };
        let state = Mutex::new((options.base_type, None));
        Self {
            options,
            topo,
            mysqld,
            state,
            calls: Mutex::default(),
            action: AsyncMutex::new(()),
            changed: Notify::new(),
            hangs: AtomicBool::new(false),
            disk_stalled: AtomicBool::new(false),
            refuses_promotion: AtomicBool::new(false),
            promotes_unheard_after_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn tablet_type(&self) -> TabletType {
        self.state.lock().unwrap().0
    }

    pub(crate) fn term(&self) -> Option<TermStart> {
        self.state.lock().unwrap().1
    }

    pub(crate) fn calls(&self) -> Calls {
        self.calls.lock().unwrap().clone()
    }

    /// Counts a call, and lets it wait as long as the tablet hangs.
    pub(crate) async fn called(&self, name: &str) {
        *self.calls.lock().unwrap().entry(name.to_owned()).or_default() += 1;
        while self.hangs.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn read_shard(&self) -> Result<ShardTopology, Fault> {
        let read = self.topo.read_shard(&self.options.shard).await;
        let fault = |error: String| Fault(Code::Unavailable, error);
        let mut read = read.map_err(|error| fault(error.to_string()))?;
        let shard = read.shards.remove(&self.options.shard);
        shard.ok_or_else(|| fault(format!("there is no {}", self.options.shard)))
    }

    /// Does something on the server, on a thread of its own.
    pub(crate) async fn on_server<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mysqld) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let mysqld = self.mysqld.clone();
        tokio::task::spawn_blocking(move || work(&mysqld)).await.unwrap()
    }

    /// At start: primary again if the shard's record says so, otherwise what it is meant for.
    pub(crate) async fn come_up(&self) {
        let Ok(shard) = self.read_shard().await else { return };
        let named = shard.record.primary_alias.as_ref() == Some(&self.options.alias);
        let known = shard.tablets.get(&self.options.alias);
        let newer = known.is_some_and(|tablet| {
            tablet.tablet_type == TabletType::Primary && tablet.term_start > shard.record.term_start
        });
        if named || newer {
            let own = known.and_then(|tablet| tablet.term_start);
            let term = own.or(shard.record.term_start).or_else(|| Some(now()));
            *self.state.lock().unwrap() = (TabletType::Primary, term);
            return;
        }
        let base = self.options.base_type;
        let _ = self.topo.set_tablet_type(&self.options.alias, base, None).await;
        if let Some(primary) =
            shard.record.primary_alias.filter(|_| !self.options.disable_active_reparents)
        {
            let _ = self.set_source(&primary, true, false, 0.0).await;
        }
    }

    /// To PRIMARY: a new term, in the record first; then, if asked, the server takes writes.
    pub(crate) async fn set_type(&self, to: TabletType, writable: bool) -> Result<(), Fault> {
        let failed = |error: vtorc_core::ports::TopoError| Fault(Code::Unknown, error.to_string());
        let alias = &self.options.alias;
        if to == TabletType::Primary {
            let term = now();
            self.topo.set_tablet_type(alias, to, Some(term)).await.map_err(failed)?;
            if writable {
                self.on_server(|mysqld| mysqld.run(&["SET GLOBAL read_only = OFF"])).await?;
            }
            *self.state.lock().unwrap() = (to, Some(term));
            self.changed.notify_one();
            self.make_sidecar();
            return Ok(());
        }
        *self.state.lock().unwrap() = (to, None);
        self.changed.notify_one();
        self.topo.set_tablet_type(alias, to, None).await.map_err(failed)
    }

    /// A primary makes its own database, when it has time for it.
    fn make_sidecar(&self) {
        let mysqld = self.mysqld.clone();
        tokio::task::spawn_blocking(move || {
            let table = "CREATE TABLE IF NOT EXISTS _vt.reparent_journal (\
                time_created_ns BIGINT UNSIGNED NOT NULL PRIMARY KEY, \
                action_name VARBINARY(255) NOT NULL, primary_alias VARBINARY(255) NOT NULL, \
                replication_position VARBINARY(64000) DEFAULT NULL) ENGINE=InnoDB";
            // The server may be gone again.
            let _ = mysqld.run(&["CREATE DATABASE IF NOT EXISTS _vt", table]);
        });
    }

    /// Stops taking writes. Its type and its records stay as they are.
    pub(crate) async fn demote(&self, force: bool) -> Result<(), Fault> {
        let was_read_only = self.on_server(|mysqld| mysqld.is_read_only()).await?;
        let work = move |mysqld: &Mysqld| {
            if force {
                if mysqld.waiting_sessions()? > 0 {
                    // What waits is let go: its clients take that for an acknowledgement.
                    mysqld.run(&["SET GLOBAL rpl_semi_sync_source_enabled = 0"])?;
                }
            } else {
                for _ in 0..600 {
                    if mysqld.waiting_sessions()? == 0 {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            mysqld.run(&["SET GLOBAL super_read_only = ON"])?;
            if mysqld.full_status()?.semi_sync_primary_enabled {
                mysqld.fix_semi_sync(false, true)?;
            }
            Ok(())
        };
        let demoted = self.on_server(work).await;
        if demoted.is_err() && !was_read_only {
            let _ = self.on_server(|mysqld| mysqld.run(&["SET GLOBAL read_only = OFF"])).await;
        }
        demoted
    }

    /// Follows another tablet of the shard. A primary becomes a replica by it, even if the rest fails.
    pub(crate) async fn set_source(
        &self,
        parent: &vtorc_core::ids::TabletAlias,
        force_start: bool,
        semi_sync: bool,
        heartbeat: f64,
    ) -> Result<(), Fault> {
        if self.tablet_type() == TabletType::Primary {
            self.set_type(self.options.base_type, false).await?;
        }
        let shard = self.read_shard().await?;
        let parent =
            shard.tablets.get(parent).ok_or_else(|| Fault::precondition("no such parent"))?;
        let source = parent
            .mysql
            .clone()
            .ok_or_else(|| Fault::precondition("parent has no mysql_hostname"))?;
        self.refuse_errant(parent).await?;
        let (user, password) = self.options.replica_user.clone();
        let work = move |mysqld: &Mysqld| {
            let status = mysqld.replication()?;
            let was_running = status.as_ref().is_some_and(|s| s.io_state > 1 || s.sql_state == 3);
            let should_run = status.is_none() || was_running || force_start;
            mysqld.fix_semi_sync(false, semi_sync)?;
            let same = status.as_ref().is_some_and(|status| {
                status.source_host == source.host && status.source_port == i32::from(source.port)
            });
            if !same || heartbeat != 0.0 {
                if was_running {
                    mysqld.run(&["STOP REPLICA"])?;
                }
                let period = match heartbeat {
                    0.0 => String::new(),
                    seconds => format!(", SOURCE_HEARTBEAT_PERIOD = {seconds:.3}"),
                };
                mysqld.run(&[&format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{}', SOURCE_PORT = {}, SOURCE_USER = \
                     '{user}', SOURCE_PASSWORD = '{password}', SOURCE_CONNECT_RETRY = 10, \
                     GET_SOURCE_PUBLIC_KEY = 1{period}, SOURCE_AUTO_POSITION = 1",
                    source.host, source.port
                )])?;
            } else if should_run {
                mysqld.run(&["STOP REPLICA"])?;
            }
            if should_run { mysqld.run(&["START REPLICA"]) } else { Ok(()) }
        };
        self.on_server(work).await
    }

    /// The tablet itself asks its parent for its position, and does not follow one that lacks what it has.
    async fn refuse_errant(&self, parent: &vtorc_core::tablet::Tablet) -> Result<(), Fault> {
        let Some(address) = &parent.vttablet else {
            return Err(Fault::precondition("parent has no grpc port"));
        };
        let theirs = crate::service::primary_status(&address.to_string(), &self.options).await?;
        let errant = self.on_server(move |mysqld| {
            let mine = match mysqld.replication()? {
                Some(status) => status.relay_log_position,
                None => mysqld.position()?,
            };
            mysqld.beyond(&mine, &theirs.position, &theirs.server_uuid)
        });
        if errant.await? {
            return Err(Fault::precondition("Errant GTID detected"));
        }
        Ok(())
    }
}

pub(crate) fn now() -> TermStart {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    TermStart {
        seconds: i64::try_from(since.as_secs()).unwrap(),
        nanos: i32::try_from(since.subsec_nanos()).unwrap(),
    }
}
