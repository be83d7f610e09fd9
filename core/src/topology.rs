//! What should be: the records of keyspaces, shards and tablets as vtorc understands them.
//!
//! Clients translate these from and to Vitess's protobuf records; only the fields vtorc uses are here.

use std::collections::{BTreeMap, BTreeSet};

use crate::durability::{DurabilityPolicy, UnknownPolicy};
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::sabotage::{self, Bug};
use crate::tablet::{Tablet, TabletType};
use crate::time::TermStart;

/// A shard's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardRecord {
    /// Who the topology says is primary.
    pub primary_alias: Option<TabletAlias>,
    /// When that term began; none in a shard that never had a primary.
    pub term_start: Option<TermStart>,
    /// An operator forbade emergency reparents of this shard.
    pub emergency_reparent_disabled: bool,
}

/// A keyspace's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceRecord {
    /// The policy's name as stored; empty where none was set.
    pub durability_policy: String,
    /// An operator forbade emergency reparents of this keyspace.
    pub emergency_reparent_disabled: bool,
}

/// All that the topology says about one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardTopology {
    /// Which shard.
    pub shard: KeyspaceShard,
    /// The keyspace's policy, or the name that nobody knows.
    pub durability: Result<DurabilityPolicy, UnknownPolicy>,
    /// The shard's record.
    pub record: ShardRecord,
    /// The keyspace or the shard forbids emergency reparents.
    pub emergency_reparent_disabled: bool,
    /// Its tablets.
    pub tablets: BTreeMap<TabletAlias, Tablet>,
    /// Records of this shard that could not be read or understood, by path, and why.
    pub damaged: BTreeMap<String, String>,
    /// Some tablets' records could not be read: what is not seen is not known to be gone.
    pub incomplete: bool,
}

impl ShardTopology {
    /// The tablet of type PRIMARY with the newest term, and that term.
    pub fn primary_term(&self) -> Option<(Option<TermStart>, &TabletAlias)> {
        let primaries =
            self.tablets.values().filter(|tablet| tablet.tablet_type == TabletType::Primary);
        primaries.map(|tablet| (tablet.term_start, &tablet.alias)).max()
    }
}

/// One reading of the topology, possibly incomplete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyRead {
    /// The shards that were found.
    pub shards: BTreeMap<KeyspaceShard, ShardTopology>,
    /// Cells whose tablets could not be listed this time, and why.
    pub unread_cells: BTreeMap<String, String>,
    /// Keyspaces whose shards could not be listed this time, and why.
    pub unread_keyspaces: BTreeMap<String, String>,
    /// Tablets whose record could not be read or understood this time.
    pub unread_tablets: BTreeSet<TabletAlias>,
    /// Records that could not be understood, by path, and why.
    pub damaged: BTreeMap<String, String>,
}

/// Completes a reading with what was known before, where the reading could not see.
///
/// A tablet vanishes only if its cell was read and it was not there: a partial reading must never look like
/// a deletion.
pub fn merge(
    before: &BTreeMap<KeyspaceShard, ShardTopology>,
    read: TopologyRead,
) -> BTreeMap<KeyspaceShard, ShardTopology> {
    let mut merged = read.shards;
    if sabotage::has(Bug::PartialReadIsWhole) {
        return merged;
    }
    for (name, old) in before {
        if read.unread_keyspaces.contains_key(&name.keyspace) {
            merged.entry(name.clone()).or_insert_with(|| old.clone());
        }
        let Some(new) = merged.get_mut(name) else { continue };
        for (alias, tablet) in &old.tablets {
            let unseen =
                read.unread_cells.contains_key(&alias.cell) || read.unread_tablets.contains(alias);
            if unseen {
                new.tablets.entry(alias.clone()).or_insert_with(|| tablet.clone());
            }
        }
    }
    let partial = !read.unread_cells.is_empty() || !read.unread_tablets.is_empty();
    for (name, shard) in &mut merged {
        shard.incomplete = partial || read.unread_keyspaces.contains_key(&name.keyspace);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    fn shard(tablets: &[&str]) -> (KeyspaceShard, ShardTopology) {
        let replicas: Vec<TabletAlias> = tablets.iter().map(|one| one.parse().unwrap()).collect();
        let topology = testkit::shard(&replicas);
        (topology.shard.clone(), topology)
    }

    fn aliases(merged: &BTreeMap<KeyspaceShard, ShardTopology>) -> Vec<String> {
        merged.values().flat_map(|shard| shard.tablets.keys().map(ToString::to_string)).collect()
    }

    #[test]
    fn a_tablet_is_gone_only_if_its_cell_was_read() {
        let before = BTreeMap::from([shard(&["zone1-1", "zone2-2"])]);
        let mut read = TopologyRead { shards: BTreeMap::from([shard(&[])]), ..Default::default() };
        read.unread_cells.insert("zone2".into(), "no answer".into());
        assert_eq!(aliases(&merge(&before, read)), ["zone2-0000000002"]);
    }

    #[test]
    fn a_damaged_record_does_not_make_its_tablet_vanish() {
        let before = BTreeMap::from([shard(&["zone1-1", "zone1-2"])]);
        let mut read =
            TopologyRead { shards: BTreeMap::from([shard(&["zone1-2"])]), ..Default::default() };
        read.unread_tablets.insert("zone1-1".parse().unwrap());
        assert_eq!(aliases(&merge(&before, read)), ["zone1-0000000001", "zone1-0000000002"]);
    }

    #[test]
    fn an_unread_keyspace_keeps_its_shards() {
        let before = BTreeMap::from([shard(&["zone1-1"])]);
        let mut read = TopologyRead::default();
        assert!(merge(&before, read.clone()).is_empty());
        read.unread_keyspaces.insert("ks".into(), "no answer".into());
        assert_eq!(aliases(&merge(&before, read)), ["zone1-0000000001"]);
    }
}
