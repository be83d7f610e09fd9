//! What should be: the records of keyspaces, shards and tablets as vtorc understands them.
//!
//! Clients translate these from and to Vitess's protobuf records; only the fields vtorc uses are here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::durability::{DurabilityPolicy, UnknownPolicy};
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::sabotage::{self, Bug};
use crate::time::TermStart;

/// What a tablet is for, as its record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TabletType {
    /// Not set.
    Unknown,
    /// Takes the shard's writes.
    Primary,
    /// Serves reads and may be promoted.
    Replica,
    /// Serves batch reads, is never promoted.
    Rdonly,
    /// Kept ready without serving.
    Spare,
    /// For experiments.
    Experimental,
    /// Taking a backup.
    Backup,
    /// Being restored.
    Restore,
    /// Taken out of service by an operator, or for errant transactions.
    Drained,
}

impl TabletType {
    /// All of them, in the order of their numbers.
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Primary,
        Self::Replica,
        Self::Rdonly,
        Self::Spare,
        Self::Experimental,
        Self::Backup,
        Self::Restore,
        Self::Drained,
    ];

    /// Its number in Vitess's records and answers (`topodata.TabletType`).
    pub fn number(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Primary => 1,
            Self::Replica => 2,
            Self::Rdonly => 3,
            Self::Spare => 4,
            Self::Experimental => 5,
            Self::Backup => 6,
            Self::Restore => 7,
            Self::Drained => 8,
        }
    }

    /// The type of this number; one that is not known is `UNKNOWN`.
    pub fn from_number(number: i32) -> Self {
        Self::ALL.into_iter().find(|kind| kind.number() == number).unwrap_or(Self::Unknown)
    }

    /// The name that Vitess prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Primary => "PRIMARY",
            Self::Replica => "REPLICA",
            Self::Rdonly => "RDONLY",
            Self::Spare => "SPARE",
            Self::Experimental => "EXPERIMENTAL",
            Self::Backup => "BACKUP",
            Self::Restore => "RESTORE",
            Self::Drained => "DRAINED",
        }
    }

    /// Reads a name as Vitess and its tools write it, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Tells whether vtorc keeps such a tablet replicating; the others are only looked at.
    pub fn is_managed(self) -> bool {
        match self {
            Self::Primary | Self::Replica | Self::Rdonly | Self::Spare | Self::Experimental => true,
            Self::Unknown | Self::Backup | Self::Restore | Self::Drained => false,
        }
    }

    /// Tells whether such a tablet must refuse writes. One that is being restored is written by whoever
    /// restores it.
    pub fn must_refuse_writes(self) -> bool {
        match self {
            Self::Replica
            | Self::Rdonly
            | Self::Spare
            | Self::Experimental
            | Self::Backup
            | Self::Drained => true,
            Self::Unknown | Self::Primary | Self::Restore => false,
        }
    }

    /// Tells whether what such a tablet has received counts in an election, as it does for whoever was
    /// acknowledging until a moment ago.
    pub fn is_witness(self) -> bool {
        self.is_managed() || self == Self::Backup
    }

    /// Tells whether such a tablet may become primary (every known policy says PRIMARY and REPLICA).
    pub fn is_promotable(self) -> bool {
        matches!(self, Self::Primary | Self::Replica)
    }
}

impl fmt::Display for TabletType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a MySQL server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MysqlAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for MysqlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_address(f, &self.host, self.port)
    }
}

/// An address of IPv6 stands in brackets.
fn write_address(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}

/// Where a vttablet takes calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VttabletAddress {
    /// Host name or address.
    pub host: String,
    /// The port of its gRPC service.
    pub port: u16,
}

impl fmt::Display for VttabletAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_address(f, &self.host, self.port)
    }
}

/// How a tablet is reached: its server, and the vttablet that looks after it, if there is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TabletAddress {
    /// Which tablet.
    pub alias: TabletAlias,
    /// Its MySQL server.
    pub mysql: MysqlAddress,
    /// Its vttablet.
    pub vttablet: Option<VttabletAddress>,
}

/// A tablet as its record describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablet {
    /// Its name.
    pub alias: TabletAlias,
    /// The shard it belongs to.
    pub shard: KeyspaceShard,
    /// What it is for.
    pub tablet_type: TabletType,
    /// Where its MySQL listens; none if the record has no address (a tablet that was shut down).
    pub mysql: Option<MysqlAddress>,
    /// When its term as primary began, if it ever was.
    pub term_start: Option<TermStart>,
    /// Where its vttablet takes calls; none where no vttablet publishes the record.
    pub vttablet: Option<VttabletAddress>,
    /// How its record's `promotion_rule` tag ranks it; none where it has no such tag.
    pub promotion_rule: Option<PromotionRule>,
}

/// How willingly a tablet is promoted, as Orchestrator calls it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PromotionRule {
    /// Before all others.
    Prefer,
    /// Like any other.
    #[default]
    Neutral,
    /// Only where there is nobody else.
    PreferNot,
    /// Never.
    MustNot,
}

impl Tablet {
    /// How it is reached; none if the record has no MySQL address.
    pub fn address(&self) -> Option<TabletAddress> {
        let (alias, vttablet) = (self.alias.clone(), self.vttablet.clone());
        Some(TabletAddress { alias, mysql: self.mysql.clone()?, vttablet })
    }

    /// The tablet as it would be under another primary: a former primary whose record still says PRIMARY
    /// acknowledges like a replica.
    pub fn as_replica(&self) -> Self {
        let was_primary = self.tablet_type == TabletType::Primary;
        let tablet_type = if was_primary { TabletType::Replica } else { self.tablet_type };
        Self { tablet_type, ..self.clone() }
    }
}

impl PromotionRule {
    /// All of them, from the most to the least wanted.
    pub const ALL: [Self; 4] = [Self::Prefer, Self::Neutral, Self::PreferNot, Self::MustNot];

    /// The name in tags, in the configuration and on the page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefer => "prefer",
            Self::Neutral => "neutral",
            Self::PreferNot => "prefer_not",
            Self::MustNot => "must_not",
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

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
