//! Where Vitess keeps its records, relative to a cell's root.

use vtorc_core::ids::{KeyspaceShard, TabletAlias};

pub(crate) const CELLS: &str = "cells";
pub(crate) const KEYSPACES: &str = "keyspaces";
pub(crate) const TABLETS: &str = "tablets";

pub(crate) fn cell_info(cell: &str) -> String {
    format!("cells/{cell}/CellInfo")
}

pub(crate) fn keyspace(keyspace: &str) -> String {
    format!("keyspaces/{keyspace}/Keyspace")
}

pub(crate) fn shards(keyspace: &str) -> String {
    format!("keyspaces/{keyspace}/shards")
}

pub(crate) fn shard_dir(shard: &KeyspaceShard) -> String {
    format!("keyspaces/{}/shards/{}", shard.keyspace, shard.shard)
}

pub(crate) fn shard(shard: &KeyspaceShard) -> String {
    format!("{}/Shard", shard_dir(shard))
}

pub(crate) fn shard_replication(shard: &KeyspaceShard) -> String {
    format!("{}/ShardReplication", shard_dir(shard))
}

pub(crate) fn tablet(alias: &TabletAlias) -> String {
    format!("tablets/{alias}/Tablet")
}
