//! The kinds of recovery, by the names that the history, the page and the metrics give them.

use std::fmt;

/// A kind of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecoveryKind {
    /// The primary is replaced without its help.
    EmergencyReparent,
    /// Writes are moved away from a primary that helps.
    PlannedReparent,
    /// A reparent that stopped half-way is completed.
    FinishReparent,
    /// A first primary is chosen.
    ElectPrimary,
    /// The primary's settings are brought in order.
    FixPrimary,
    /// Tablets are made proper replicas.
    FixReplica,
    /// Receivers are restarted, so that a dead connection shows.
    RestartReceiver,
    /// The shard's record is made to name the primary.
    FixShardRecord,
    /// A tablet with errant GTIDs is taken out of service.
    DrainErrant,
    /// Errant GTIDs are made up for by empty transactions.
    InjectErrant,
    /// The record of a tablet that is gone for good is removed.
    Forget,
}

impl RecoveryKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::EmergencyReparent,
        Self::PlannedReparent,
        Self::FinishReparent,
        Self::ElectPrimary,
        Self::FixPrimary,
        Self::FixReplica,
        Self::RestartReceiver,
        Self::FixShardRecord,
        Self::DrainErrant,
        Self::InjectErrant,
        Self::Forget,
    ];

    /// Tells whether it changes who the primary is.
    pub fn is_reparent(self) -> bool {
        match self {
            Self::EmergencyReparent
            | Self::PlannedReparent
            | Self::FinishReparent
            | Self::ElectPrimary => true,
            Self::FixPrimary
            | Self::FixReplica
            | Self::RestartReceiver
            | Self::FixShardRecord
            | Self::DrainErrant
            | Self::InjectErrant
            | Self::Forget => false,
        }
    }

    /// Tells whether it takes the place of a primary, so that the shard is then left alone for the block period.
    pub fn replaces_a_primary(self) -> bool {
        self.is_reparent() && self != Self::ElectPrimary
    }

    /// The name in the history, on the page and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::EmergencyReparent => "EmergencyReparent",
            Self::PlannedReparent => "PlannedReparent",
            Self::FinishReparent => "FinishReparent",
            Self::ElectPrimary => "ElectPrimary",
            Self::FixPrimary => "FixPrimary",
            Self::FixReplica => "FixReplica",
            Self::RestartReceiver => "RestartReceiver",
            Self::FixShardRecord => "FixShardRecord",
            Self::DrainErrant => "DrainErrant",
            Self::InjectErrant => "InjectErrant",
            Self::Forget => "Forget",
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for RecoveryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
