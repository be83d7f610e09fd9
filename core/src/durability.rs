//! Durability policies: how many acknowledgements a primary needs, and from whom.
//!
//! The table is Vitess's; the names are those of its keyspace records.

use std::fmt;
use std::str::FromStr;

use crate::ids::TabletAlias;
use crate::sabotage::{self, Bug};
use crate::status::ServerStatus;
use crate::tablet::{Tablet, TabletType};

/// What a keyspace demands before a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityPolicy {
    /// No acknowledgement: a failover may lose writes.
    None,
    /// One acknowledgement from a PRIMARY or REPLICA tablet.
    SemiSync,
    /// One acknowledgement, RDONLY tablets count too.
    SemiSyncWithRdonlyAck,
    /// One acknowledgement from a PRIMARY or REPLICA tablet of another cell.
    CrossCell,
    /// One acknowledgement from another cell, RDONLY tablets count too.
    CrossCellWithRdonlyAck,
}

/// Why a keyspace's policy is not known here. Such a keyspace is watched but not acted on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPolicy {
    /// Its name is none of the known ones.
    #[error(
        "unknown durability policy {0:?}; known are none, semi_sync, cross_cell, semi_sync_with_rdonly_ack, cross_cell_with_rdonly_ack"
    )]
    Named(String),
    /// The keyspace's record was never read here, and this is why.
    #[error("the durability policy is not known: {0}")]
    Unread(String),
}

/// The name that a record gives, known or not.
pub fn name_of(policy: &Result<DurabilityPolicy, UnknownPolicy>) -> &str {
    match policy {
        Ok(policy) => policy.name(),
        Err(UnknownPolicy::Named(name)) => name,
        Err(UnknownPolicy::Unread(_)) => "(unread)",
    }
}

impl DurabilityPolicy {
    /// All policies, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::SemiSync,
        Self::SemiSyncWithRdonlyAck,
        Self::CrossCell,
        Self::CrossCellWithRdonlyAck,
    ];

    /// The name in keyspace records.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SemiSync => "semi_sync",
            Self::SemiSyncWithRdonlyAck => "semi_sync_with_rdonly_ack",
            Self::CrossCell => "cross_cell",
            Self::CrossCellWithRdonlyAck => "cross_cell_with_rdonly_ack",
        }
    }

    /// How many acknowledgements a primary waits for.
    pub fn acks_required(self) -> u32 {
        match self {
            Self::None => 0,
            Self::SemiSync
            | Self::SemiSyncWithRdonlyAck
            | Self::CrossCell
            | Self::CrossCellWithRdonlyAck => 1,
        }
    }

    /// Tells whether `acker` acknowledges the writes of `primary`.
    pub fn is_acker(self, primary: &Tablet, acker: &Tablet) -> bool {
        self.is_acker_of(&primary.alias, acker)
    }

    /// The same of a primary of which nothing but the alias is known.
    pub fn is_acker_of(self, primary: &TabletAlias, acker: &Tablet) -> bool {
        if *primary == acker.alias {
            return false;
        }
        let other_cell = primary.cell != acker.alias.cell;
        let replica = acker.tablet_type.is_promotable();
        let rdonly = acker.tablet_type == TabletType::Rdonly;
        match self {
            Self::None => false,
            Self::SemiSync => replica,
            Self::SemiSyncWithRdonlyAck => replica || rdonly,
            Self::CrossCell => replica && other_cell,
            Self::CrossCellWithRdonlyAck => (replica || rdonly) && other_cell,
        }
    }

    /// Whether a tablet is to acknowledge what this primary writes, as a replica of it. One that does not apply
    /// everything would acknowledge data that it does not have.
    ///
    /// `status` is what it last said, as far as it was heard.
    pub fn wants_ack_of(
        self,
        primary: &Tablet,
        tablet: &Tablet,
        status: Option<&ServerStatus>,
    ) -> bool {
        let filtered =
            status.is_some_and(ServerStatus::is_filtered) && !sabotage::has(Bug::TrustFiltered);
        self.is_acker(primary, &tablet.as_replica()) && !filtered
    }
}

impl fmt::Display for DurabilityPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DurabilityPolicy {
    type Err = UnknownPolicy;
    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let known = Self::ALL.into_iter().find(|policy| policy.name() == name);
        known.ok_or_else(|| UnknownPolicy::Named(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tablet(alias: &str, tablet_type: TabletType) -> Tablet {
        crate::testkit::tablet(alias.parse().unwrap(), tablet_type)
    }

    /// policy: who of (near replica, near rdonly, far replica, far rdonly, far drained) acknowledges.
    #[test]
    fn who_acknowledges() {
        let primary = tablet("zone1-1", TabletType::Primary);
        let others = [
            tablet("zone1-2", TabletType::Replica),
            tablet("zone1-3", TabletType::Rdonly),
            tablet("zone2-4", TabletType::Replica),
            tablet("zone2-5", TabletType::Rdonly),
            tablet("zone2-6", TabletType::Drained),
        ];
        let table = [
            ("none", "-----"),
            ("semi_sync", "y-y--"),
            ("semi_sync_with_rdonly_ack", "yyyy-"),
            ("cross_cell", "--y--"),
            ("cross_cell_with_rdonly_ack", "--yy-"),
        ];
        for (name, expected) in table {
            let policy: DurabilityPolicy = name.parse().unwrap();
            let mark = |acker| if policy.is_acker(&primary, acker) { 'y' } else { '-' };
            assert_eq!(others.iter().map(mark).collect::<String>(), expected, "{name}");
            assert!(!policy.is_acker(&primary, &primary));
            assert_eq!(policy.acks_required() > 0, name != "none");
        }
        assert!("semisync".parse::<DurabilityPolicy>().is_err());
    }
}
