//! The topology as records at paths, over one connection for the global cell and one for each other cell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use vtorc_core::durability::{DurabilityPolicy, UnknownPolicy};
use vtorc_core::ids::{KeyspaceShard, TabletAlias, WatchList};
use vtorc_core::ports::{LockToken, ShardLock, TopoError, TopoPort};
use vtorc_core::tablet::{Tablet, TabletType};
use vtorc_core::time::TermStart;
use vtorc_core::topology::{ShardRecord, ShardTopology, TopologyRead};

pub use super::cells::Dialer;
use super::cells::{Cells, READS_MAX, Which};
use super::conn::TopoConn;
use super::records::{self, decode};
use super::tablets::Misread;
use super::{paths, translate};

/// A conditional update is tried again so often when somebody else was faster.
const UPDATE_ATTEMPTS_MAX: usize = 10;

/// The topology of one Vitess installation.
pub struct TopoStore {
    pub(crate) global: Arc<dyn TopoConn>,
    cells: Arc<Cells>,
    default_durability: DurabilityPolicy,
}

struct KeyspaceInfo {
    durability: Result<DurabilityPolicy, UnknownPolicy>,
    emergency_reparent_disabled: bool,
}

impl TopoStore {
    /// A store over the global cell's connection; the others are dialled when they are needed.
    pub fn new(
        global: Arc<dyn TopoConn>,
        dial: Dialer,
        default_durability: DurabilityPolicy,
    ) -> Self {
        let cells = Arc::new(Cells::new(global.clone(), dial, READS_MAX));
        Self { global, cells, default_durability }
    }

    /// Reads so many records of a cell at once.
    pub fn reading_at_once(self, reads_max: usize) -> Self {
        let cells = Cells::new(self.global.clone(), self.cells.dial.clone(), reads_max.max(1));
        Self { cells: Arc::new(cells), ..self }
    }

    /// The connection to a cell.
    pub(crate) async fn cell(&self, cell: &str) -> Result<Arc<dyn TopoConn>, TopoError> {
        self.cells.conn(cell).await
    }

    async fn keyspace(&self, keyspace: &str) -> Result<KeyspaceInfo, TopoError> {
        let path = paths::keyspace(keyspace);
        let record = match self.global.get(&path).await {
            Ok((bytes, _)) => decode::<records::Keyspace>(&path, &bytes)?.message,
            // Vitess counts every child of `keyspaces`, also one without a record.
            Err(TopoError::NoNode(_)) => records::Keyspace::default(),
            Err(error) => return Err(error),
        };
        let durability = match record.durability_policy.as_str() {
            "" => Ok(self.default_durability),
            name => name.parse(),
        };
        let state = record.vtorc_state.unwrap_or_default();
        Ok(KeyspaceInfo {
            durability,
            emergency_reparent_disabled: state.disable_emergency_reparent,
        })
    }

    /// Reads a shard's records but for its tablets'. What cannot be read, for one of the reasons that `may_lack` names,
    /// is told of in `read`.
    async fn read_one_shard(
        &self,
        shard: &KeyspaceShard,
        may_lack: impl Fn(&TopoError) -> bool,
        read: &mut TopologyRead,
    ) -> Result<(), TopoError> {
        let record = match self.shard_record(shard).await {
            Ok(record) => record,
            Err(error) if may_lack(&error) => {
                read.unread_shards.insert(shard.clone(), error.to_string());
                ShardRecord::default()
            }
            Err(error) => return Err(error),
        };
        let keyspace = match self.keyspace(&shard.keyspace).await {
            Ok(keyspace) => keyspace,
            Err(error) if may_lack(&error) => {
                let why = error.to_string();
                read.unread_policies.insert(shard.keyspace.clone(), why.clone());
                let durability = Err(UnknownPolicy::Unread(why));
                KeyspaceInfo { durability, emergency_reparent_disabled: false }
            }
            Err(error) => return Err(error),
        };
        let topology = ShardTopology {
            shard: shard.clone(),
            durability: keyspace.durability,
            emergency_reparent_disabled: keyspace.emergency_reparent_disabled
                || record.emergency_reparent_disabled,
            record,
            tablets: BTreeMap::new(),
            damaged: BTreeMap::new(),
            known_cells: BTreeSet::new(),
            unseen: BTreeMap::new(),
            unread_tablets: BTreeSet::new(),
            unread_record: None,
        };
        read.shards.insert(shard.clone(), topology);
        Ok(())
    }

    async fn read_keyspaces(
        &self,
        watched: &WatchList,
        read: &mut TopologyRead,
    ) -> Result<(), TopoError> {
        for keyspace in self.global.list(paths::KEYSPACES).await? {
            if !watched.includes_keyspace(&keyspace) {
                continue;
            }
            let shards = match self.global.list(&paths::shards(&keyspace)).await {
                Ok(shards) => shards,
                Err(error) => {
                    read.unread_keyspaces.insert(keyspace, error.to_string());
                    continue;
                }
            };
            for name in shards {
                let Ok(shard) = KeyspaceShard::new(&keyspace, &name) else { continue };
                if !watched.includes(&shard) {
                    continue;
                }
                let is_there = |error: &TopoError| !matches!(error, TopoError::NoNode(_));
                match self.read_one_shard(&shard, is_there, read).await {
                    Ok(()) | Err(TopoError::NoNode(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Reads these cells into `read`, for the shards that are in it.
    async fn read_cells(&self, names: Vec<String>, which: &Which, read: &mut TopologyRead) {
        for (cell, answer) in self.cells.read(names, which).await {
            let tablets = match answer {
                Ok(tablets) => tablets,
                Err(unread) => {
                    read.unread_cells.insert(cell, unread);
                    continue;
                }
            };
            for (alias, tablet) in tablets {
                match tablet {
                    Ok(tablet) => {
                        if let Some(shard) = read.shards.get_mut(&tablet.shard) {
                            shard.tablets.insert(alias, tablet);
                        }
                    }
                    Err(unread) => {
                        read.unread_tablets.insert(alias, unread);
                    }
                }
            }
            read.read_cells.insert(cell);
        }
    }

    /// The tablets of a cell. A cell is registered before its first tablet makes its root: it has none then.
    pub(crate) async fn tablets_of_cell(
        &self,
        cell: &str,
    ) -> Result<Vec<(TabletAlias, Result<Tablet, TopoError>)>, TopoError> {
        let conn = self.cells.conn(cell).await?;
        let read = self.cells.records(conn.as_ref(), &Which::All, &Notify::new()).await;
        let entry = |(alias, one): (TabletAlias, Result<Tablet, Misread>)| {
            (alias, one.map_err(|misread| misread.error))
        };
        match read {
            Err(TopoError::NoRoot(_)) => Ok(Vec::new()),
            read => Ok(read?.into_iter().map(entry).collect()),
        }
    }

    /// Reads a record, lets `change` change it, and writes it back if nobody else did meanwhile.
    pub(crate) async fn modify<M: records::Declared>(
        &self,
        conn: &dyn TopoConn,
        path: &str,
        change: impl Fn(&mut M) -> bool,
    ) -> Result<(), TopoError> {
        // One that need not be changed, by what a server says that has not heard of a change yet, would be left as it
        // is.
        conn.catch_up().await?;
        for _ in 0..UPDATE_ATTEMPTS_MAX {
            let (bytes, version) = conn.get(path).await?;
            let mut record = decode::<M>(path, &bytes)?;
            if !change(&mut record.message) {
                return Ok(());
            }
            match conn.update(path, &record.encode(), version).await {
                Err(TopoError::BadVersion(_)) => {}
                other => return other,
            }
        }
        Err(TopoError::BadVersion(path.to_owned()))
    }
}

#[async_trait]
impl TopoPort for TopoStore {
    async fn read(&self, watched: &WatchList) -> Result<TopologyRead, TopoError> {
        let mut read = TopologyRead::default();
        self.global.arm().await;
        self.read_keyspaces(watched, &mut read).await?;
        let names = self.global.list(paths::CELLS).await?;
        self.cells.keep(&names);
        self.read_cells(names, &Which::All, &mut read).await;
        Ok(read)
    }

    async fn read_shard(&self, shard: &KeyspaceShard) -> Result<TopologyRead, TopoError> {
        let mut read = TopologyRead::default();
        // A recovery acts on this: what a server has not heard yet must not be told by it.
        self.global.catch_up().await?;
        let is_damaged = |error: &TopoError| matches!(error, TopoError::Damaged { .. });
        self.read_one_shard(shard, is_damaged, &mut read).await?;
        let names = self.global.list(paths::CELLS).await?;
        self.read_cells(names, &Which::Of(shard.clone()), &mut read).await;
        Ok(read)
    }

    async fn changed(&self) {
        let mut watches = FuturesUnordered::new();
        for conn in std::iter::once(self.global.clone()).chain(self.cells.conns()) {
            watches.push(async move { conn.changed().await });
        }
        watches.next().await;
    }

    async fn lock_shard(
        &self,
        shard: &KeyspaceShard,
        action: &str,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError> {
        let contents = lock_contents(action);
        self.global.lock(&paths::shard_dir(shard), shard, &contents, patience).await
    }

    async fn give_back(&self, shard: &KeyspaceShard, token: &LockToken) -> Result<(), TopoError> {
        self.global.give_back(&paths::shard_dir(shard), token).await
    }

    async fn set_tablet_type(
        &self,
        alias: &TabletAlias,
        tablet_type: TabletType,
        term_start: Option<TermStart>,
    ) -> Result<(), TopoError> {
        let conn = self.cell(&alias.cell).await?;
        let number = tablet_type.number();
        let term = term_start.map(translate::term_to_record);
        self.modify::<records::Tablet>(conn.as_ref(), &paths::tablet(alias), |tablet| {
            if tablet.tablet_type == number
                && (term.is_none() || tablet.primary_term_start_time == term)
            {
                return false;
            }
            tablet.tablet_type = number;
            if term.is_some() {
                tablet.primary_term_start_time.clone_from(&term);
            }
            true
        })
        .await
    }

    async fn forget_tablet(&self, alias: &TabletAlias) -> Result<(), TopoError> {
        self.delete_tablet(alias).await
    }

    async fn set_shard_primary(
        &self,
        shard: &KeyspaceShard,
        primary: &TabletAlias,
        term_start: TermStart,
    ) -> Result<(), TopoError> {
        let alias = translate::alias_to_record(primary);
        let term = translate::term_to_record(term_start);
        self.modify::<records::Shard>(self.global.as_ref(), &paths::shard(shard), |record| {
            let newer = translate::shard(record).term_start.is_some_and(|known| known > term_start);
            let same = record.primary_alias.as_ref() == Some(&alias)
                && record.primary_term_start_time.as_ref() == Some(&term);
            if newer || same {
                return false;
            }
            record.primary_alias = Some(alias.clone());
            record.primary_term_start_time = Some(term.clone());
            // Whether it serves is somebody else's: traffic may have been switched to other shards.
            true
        })
        .await
    }
}

/// The text that Vitess's tools write into and show of a lock.
fn lock_contents(action: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let user = std::env::var("USER").unwrap_or_else(|_| "vtorc".to_owned());
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "{{\n  \"Action\": {},\n  \"HostName\": {},\n  \"UserName\": {},\n  \"Time\": {},\n  \
         \"Options\": {{}},\n  \"Status\": \"Running\"\n}}",
        quote(action),
        quote(&host),
        quote(&user),
        quote(&time)
    )
}
