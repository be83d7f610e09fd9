//! Tablets' records in one cell, and the lists that name whose they are.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::ports::TopoError;
use vtorc_core::tablet::Tablet;

use super::conn::TopoConn;
use super::records::{self, decode};
use super::{paths, translate};

/// A record that could not be read or understood.
pub(super) struct Misread {
    pub(super) error: TopoError,
    /// The shard that it names all the same.
    pub(super) hint: Option<KeyspaceShard>,
}

impl From<TopoError> for Misread {
    fn from(error: TopoError) -> Self {
        Self { error, hint: None }
    }
}

/// Reads one tablet's record.
pub(super) async fn read(
    conn: &dyn TopoConn,
    alias: TabletAlias,
) -> (TabletAlias, Result<Tablet, Misread>) {
    let path = paths::tablet(&alias);
    let read = match conn.get(&path).await {
        Ok((bytes, _)) => understood(&alias, &path, &bytes),
        Err(error) => Err(error.into()),
    };
    (alias, read)
}

fn understood(alias: &TabletAlias, path: &str, bytes: &[u8]) -> Result<Tablet, Misread> {
    let record = decode::<records::Tablet>(path, bytes)?.message;
    translate::tablet(alias, &record).map_err(|why| Misread {
        error: TopoError::Damaged { path: path.to_owned(), why },
        hint: KeyspaceShard::new(&record.keyspace, &record.shard).ok(),
    })
}

/// For which shards these tablets are listed in their cell. Lists are not kept with care (a tablet that moved may be in
/// two): what more than one shard claims is nobody's.
pub(super) async fn listed(
    conn: &dyn TopoConn,
    wanted: &BTreeSet<TabletAlias>,
    reads_max: usize,
) -> BTreeMap<TabletAlias, KeyspaceShard> {
    let mut shards = Vec::new();
    for keyspace in conn.list(paths::KEYSPACES).await.unwrap_or_default() {
        let names = conn.list(&paths::shards(&keyspace)).await.unwrap_or_default();
        shards.extend(names.iter().filter_map(|name| KeyspaceShard::new(&keyspace, name).ok()));
    }
    let lists = stream::iter(shards).map(|shard| async move {
        let list = list_of(conn, &shard).await;
        (shard, list)
    });
    let mut claims: BTreeMap<TabletAlias, BTreeSet<KeyspaceShard>> = BTreeMap::new();
    let mut lists = lists.buffer_unordered(reads_max);
    while let Some((shard, list)) = lists.next().await {
        for alias in list.intersection(wanted) {
            claims.entry(alias.clone()).or_default().insert(shard.clone());
        }
    }
    let sole = |(alias, shards): (TabletAlias, BTreeSet<KeyspaceShard>)| {
        let first = shards.first().filter(|_| shards.len() == 1).cloned();
        first.map(|shard| (alias, shard))
    };
    claims.into_iter().filter_map(sole).collect()
}

/// Which of these are listed for this shard.
pub(super) async fn listed_for(
    conn: &dyn TopoConn,
    wanted: &BTreeSet<TabletAlias>,
    shard: &KeyspaceShard,
) -> BTreeMap<TabletAlias, KeyspaceShard> {
    let list = list_of(conn, shard).await;
    list.intersection(wanted).map(|alias| (alias.clone(), shard.clone())).collect()
}

/// The tablets that the cell lists for a shard; none where the list cannot be read.
async fn list_of(conn: &dyn TopoConn, shard: &KeyspaceShard) -> BTreeSet<TabletAlias> {
    let path = paths::shard_replication(shard);
    let Ok((bytes, _)) = conn.get(&path).await else { return BTreeSet::new() };
    let list = decode::<records::ShardReplication>(&path, &bytes);
    let nodes = list.map(|list| list.message.nodes).unwrap_or_default();
    let named = nodes.iter().filter_map(|node| node.tablet_alias.as_ref());
    named.filter_map(translate::alias_from_record).collect()
}
