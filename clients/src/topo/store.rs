//! The topology as records at paths, over one connection for the global cell and one for each other cell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Mutex;
use vtorc_core::durability::{DurabilityPolicy, UnknownPolicy};
use vtorc_core::ids::{KeyspaceShard, TabletAlias, WatchList};
use vtorc_core::ports::{LockToken, ShardLock, TopoError, TopoPort};
use vtorc_core::tablet::{Tablet, TabletType};
use vtorc_core::time::TermStart;
use vtorc_core::topology::{ShardTopology, TopologyRead, UnreadTablet};

use super::conn::TopoConn;
use super::records::{self, CellInfo, Record};
use super::{paths, translate};

/// A conditional update is tried again so often when somebody else was faster.
const UPDATE_ATTEMPTS_MAX: usize = 10;
/// Reads under way at once for one cell, where nobody said otherwise.
const READS_MAX: usize = 32;

/// Opens the connection to a cell, given its name and where its records are.
pub type Dialer = Arc<dyn Fn(&str, &CellInfo) -> Arc<dyn TopoConn> + Send + Sync>;

/// The topology of one Vitess installation.
pub struct TopoStore {
    pub(crate) global: Arc<dyn TopoConn>,
    dial: Dialer,
    cells: Mutex<BTreeMap<String, Cell>>,
    /// Which shard each tablet belonged to when it was last read: a shard is read without all the others.
    belongs: Mutex<BTreeMap<TabletAlias, KeyspaceShard>>,
    default_durability: DurabilityPolicy,
    reads_max: usize,
}

/// Where a cell is, and the connection to it.
type Cell = (CellInfo, Arc<dyn TopoConn>);

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
        Self {
            global,
            dial,
            cells: Mutex::default(),
            belongs: Mutex::default(),
            default_durability,
            reads_max: READS_MAX,
        }
    }

    /// Reads so many records of a cell at once.
    pub fn reading_at_once(self, reads_max: usize) -> Self {
        Self { reads_max: reads_max.max(1), ..self }
    }

    /// The connection to a cell. Its record is read anew each time: cells move.
    pub(crate) async fn cell(&self, cell: &str) -> Result<Arc<dyn TopoConn>, TopoError> {
        let path = paths::cell_info(cell);
        let read = self.global.get(&path).await;
        let mut cells = self.cells.lock().await;
        let info = match read {
            Ok((bytes, _)) => decode::<CellInfo>(&path, &bytes)?.message,
            // While the global cell is away, a cell is where it was.
            Err(TopoError::Unavailable(why)) => {
                let known = cells.get(cell).map(|(_, conn)| conn.clone());
                return known.ok_or(TopoError::Unavailable(why));
            }
            Err(error) => return Err(error),
        };
        match cells.get(cell) {
            Some((known, conn)) if *known == info => Ok(conn.clone()),
            Some(_) | None => {
                let conn = (self.dial)(cell, &info);
                cells.insert(cell.to_owned(), (info, conn.clone()));
                Ok(conn)
            }
        }
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

    async fn shard_topology(&self, shard: &KeyspaceShard) -> Result<ShardTopology, TopoError> {
        let path = paths::shard(shard);
        let (bytes, _) = self.global.get(&path).await?;
        let record = translate::shard(&decode::<records::Shard>(&path, &bytes)?.message);
        let keyspace = self.keyspace(&shard.keyspace).await?;
        Ok(ShardTopology {
            shard: shard.clone(),
            durability: keyspace.durability,
            emergency_reparent_disabled: keyspace.emergency_reparent_disabled
                || record.emergency_reparent_disabled,
            record,
            tablets: BTreeMap::new(),
            damaged: BTreeMap::new(),
            known_cells: BTreeSet::new(),
            unseen: BTreeMap::new(),
        })
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
                if watched.includes(&shard) {
                    self.read_one_shard(shard, read).await;
                }
            }
        }
        Ok(())
    }

    async fn read_one_shard(&self, shard: KeyspaceShard, read: &mut TopologyRead) {
        match self.shard_topology(&shard).await {
            Ok(topology) => {
                read.shards.insert(shard, topology);
            }
            Err(TopoError::NoNode(_)) => {}
            Err(error) => {
                read.unread_shards.insert(shard, error.to_string());
            }
        }
    }

    /// Reads the tablets of a cell that belong to watched shards into `read`.
    async fn read_cell(&self, cell: &str, watched: &WatchList, read: &mut TopologyRead) {
        if let Ok(conn) = self.cell(cell).await {
            conn.arm().await;
        }
        let tablets = match self.tablets_of_cell(cell, None).await {
            Ok(tablets) => tablets,
            Err(error) => {
                read.unread_cells.insert(cell.to_owned(), error.to_string());
                return;
            }
        };
        for (alias, tablet) in tablets {
            match tablet {
                Ok(tablet) if watched.includes(&tablet.shard) => {
                    if let Some(shard) = read.shards.get_mut(&tablet.shard) {
                        shard.tablets.insert(alias, tablet);
                    }
                }
                Ok(_) | Err(TopoError::NoNode(_)) => {}
                Err(error) => {
                    let unread = self.unread_tablet(&alias, &error).await;
                    read.unread_tablets.insert(alias, unread);
                }
            }
        }
        read.read_cells.insert(cell.to_owned());
    }

    async fn unread_tablet(&self, alias: &TabletAlias, error: &TopoError) -> UnreadTablet {
        let shard = self.belongs.lock().await.get(alias).cloned();
        UnreadTablet { path: paths::tablet(alias), why: error.to_string(), shard }
    }

    async fn knows_tablets_of(&self, cell: &str) -> bool {
        self.belongs.lock().await.keys().any(|alias| alias.cell == cell)
    }

    /// Reads the tablets of a cell; with `only`, those that are not known to belong to another shard.
    pub(crate) async fn tablets_of_cell(
        &self,
        cell: &str,
        only: Option<&KeyspaceShard>,
    ) -> Result<Vec<(TabletAlias, Result<Tablet, TopoError>)>, TopoError> {
        let conn = self.cell(cell).await?;
        let aliases = match conn.list(paths::TABLETS).await {
            // A cell is registered before its first tablet makes its root. One that had tablets has a root.
            Err(TopoError::Invalid(why)) => match self.knows_tablets_of(cell).await {
                true => return Err(TopoError::Invalid(why)),
                false => Vec::new(),
            },
            listed => listed?,
        };
        let mut aliases: Vec<TabletAlias> =
            aliases.into_iter().filter_map(|name| name.parse().ok()).collect();
        if let Some(shard) = only {
            let belongs = self.belongs.lock().await;
            aliases.retain(|alias| belongs.get(alias).is_none_or(|known| known == shard));
        }
        let mut aliases = aliases.into_iter();
        let mut reads = FuturesUnordered::new();
        let mut tablets = Vec::new();
        loop {
            while reads.len() < self.reads_max {
                let Some(alias) = aliases.next() else { break };
                reads.push(read_tablet(conn.clone(), alias));
            }
            match reads.next().await {
                Some((_, Err(TopoError::Unavailable(why)))) => {
                    return Err(TopoError::Unavailable(why));
                }
                Some(read) => tablets.push(read),
                None => break,
            }
        }
        let mut belongs = self.belongs.lock().await;
        for (alias, read) in &tablets {
            if let Ok(tablet) = read {
                belongs.insert(alias.clone(), tablet.shard.clone());
            }
        }
        Ok(tablets)
    }

    /// Reads a record, lets `change` change it, and writes it back if nobody else did meanwhile.
    pub(crate) async fn modify<M: records::Declared>(
        &self,
        conn: &dyn TopoConn,
        path: &str,
        change: impl Fn(&mut M) -> bool,
    ) -> Result<(), TopoError> {
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

async fn read_tablet(
    conn: Arc<dyn TopoConn>,
    alias: TabletAlias,
) -> (TabletAlias, Result<Tablet, TopoError>) {
    let path = paths::tablet(&alias);
    let read = async {
        let (bytes, _) = conn.get(&path).await?;
        let record = decode::<records::Tablet>(&path, &bytes)?;
        translate::tablet(&alias, &record.message)
            .map_err(|why| TopoError::Damaged { path: path.clone(), why })
    };
    let outcome = read.await;
    (alias, outcome)
}

pub(crate) fn decode<M: records::Declared>(
    path: &str,
    bytes: &[u8],
) -> Result<Record<M>, TopoError> {
    Record::decode(bytes).map_err(|why| TopoError::Damaged { path: path.to_owned(), why })
}

#[async_trait]
impl TopoPort for TopoStore {
    async fn read(&self, watched: &WatchList) -> Result<TopologyRead, TopoError> {
        let mut read = TopologyRead::default();
        self.global.arm().await;
        self.read_keyspaces(watched, &mut read).await?;
        for cell in self.global.list(paths::CELLS).await? {
            self.read_cell(&cell, watched, &mut read).await;
        }
        Ok(read)
    }

    async fn read_shard(&self, shard: &KeyspaceShard) -> Result<TopologyRead, TopoError> {
        let mut read = TopologyRead::default();
        let mut topology = self.shard_topology(shard).await?;
        for cell in self.global.list(paths::CELLS).await? {
            let tablets = match self.tablets_of_cell(&cell, Some(shard)).await {
                Ok(tablets) => tablets,
                Err(error) => {
                    read.unread_cells.insert(cell, error.to_string());
                    continue;
                }
            };
            for (alias, tablet) in tablets {
                match tablet {
                    Ok(tablet) if tablet.shard == *shard => {
                        topology.tablets.insert(alias, tablet);
                    }
                    Ok(_) | Err(TopoError::NoNode(_)) => {}
                    Err(error) => {
                        let unread = self.unread_tablet(&alias, &error).await;
                        read.unread_tablets.insert(alias, unread);
                    }
                }
            }
            read.read_cells.insert(cell);
        }
        read.shards.insert(shard.clone(), topology);
        Ok(read)
    }

    async fn changed(&self) {
        let cells: Vec<Arc<dyn TopoConn>> =
            self.cells.lock().await.values().map(|(_, conn)| conn.clone()).collect();
        let mut watches = FuturesUnordered::new();
        for conn in std::iter::once(self.global.clone()).chain(cells) {
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
