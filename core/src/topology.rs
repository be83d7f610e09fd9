//! What should be: the records of keyspaces, shards and tablets as vtorc understands them.
//!
//! Clients translate these from and to Vitess's protobuf records; only the fields vtorc uses are here.

mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::durability::{DurabilityPolicy, UnknownPolicy};
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::tablet::{Tablet, TabletType};
use crate::time::TermStart;

pub use reading::{TopologyRead, Trouble, UnreadCell, UnreadTablet, merge, merge_shard};

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
    /// Records of this shard that could not be read or understood, by path, and why. What they said when they were
    /// last read stands.
    pub damaged: BTreeMap<String, String>,
    /// Cells that were read at least once: what this shard has there is known.
    pub known_cells: BTreeSet<String>,
    /// Where this shard may have tablets that nobody here has ever read, and why.
    pub unseen: BTreeMap<Place, String>,
    /// Those of its tablets whose record cannot be read or understood now: what it said before stands, and nothing can
    /// be written there.
    pub unread_tablets: BTreeSet<TabletAlias>,
    /// The shard's own record cannot be read or understood now.
    pub unread_record: Option<UnreadRecord>,
}

/// What is known of a shard's own record that cannot be read or understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadRecord {
    /// It is what it was. A reparent since then would show in the tablets' records, and all of these were read.
    AsBefore,
    /// It is what it was, but a tablet whose record cannot be read either may have become primary since.
    Doubtful,
    /// Nobody here has ever read it: neither whom it names is known, nor what it forbids.
    Never,
}

impl UnreadRecord {
    /// Its name in a snapshot's file.
    pub fn name(self) -> &'static str {
        match self {
            Self::AsBefore => "as_before",
            Self::Doubtful => "doubtful",
            Self::Never => "never_read",
        }
    }

    /// What has that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::AsBefore, Self::Doubtful, Self::Never].into_iter().find(|one| one.name() == name)
    }
}

/// Where a tablet's record may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A cell whose tablets could not be listed.
    Cell(String),
    /// A record that cannot be understood.
    Record(TabletAlias),
}

impl Place {
    /// The cell that it is in.
    pub fn cell(&self) -> &str {
        match self {
            Self::Cell(cell) => cell,
            Self::Record(alias) => &alias.cell,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cell(cell) => write!(f, "cell {cell}"),
            Self::Record(alias) => write!(f, "the record of tablet {alias}"),
        }
    }
}

impl ShardTopology {
    /// The tablet of type PRIMARY with the newest term, and that term.
    pub fn primary_term(&self) -> Option<(Option<TermStart>, &TabletAlias)> {
        let primaries =
            self.tablets.values().filter(|tablet| tablet.tablet_type == TabletType::Primary);
        primaries.map(|tablet| (tablet.term_start, &tablet.alias)).max()
    }

    /// Tells whether both say the same of the shard, whatever could not be read besides.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.durability == other.durability
            && self.record == other.record
            && self.emergency_reparent_disabled == other.emergency_reparent_disabled
            && self.tablets == other.tablets
    }
}
