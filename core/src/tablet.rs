//! A tablet: what it is for, where it is reached, how willingly it is promoted.
//!
//! Below durability policies and the topology, which both speak of tablets.

use std::fmt;

use crate::ids::{KeyspaceShard, ServerIdentity, TabletAlias};
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
    /// Which server is meant: a command that changes something is refused to any other that answers there. None where
    /// it is not known, and where anybody may answer.
    pub server: Option<ServerIdentity>,
    /// What the shard's replication channel is called there; most have no name.
    pub channel: String,
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
        Some(TabletAddress {
            alias,
            mysql: self.mysql.clone()?,
            vttablet,
            server: None,
            channel: String::new(),
        })
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
