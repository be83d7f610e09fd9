//! The receiver (I/O) thread of a replica, and why it cannot receive.

use std::fmt;

/// The receiver (I/O) thread of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverState {
    /// Connected to the source.
    Running,
    /// Trying to connect.
    Connecting,
    /// Stopped, by somebody or by an error.
    Stopped,
}

impl fmt::Display for ReceiverState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Connecting => "connecting",
            Self::Stopped => "stopped",
        })
    }
}

/// Why a receiver cannot receive, as its server tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverError {
    /// The server's error number.
    pub number: u32,
    /// What that means.
    pub kind: ReceiverErrorKind,
    /// The server's words.
    pub text: String,
}

impl fmt::Display for ReceiverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ReceiverErrorKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Diverged,
        Self::Purged,
        Self::Denied,
        Self::DuplicateServerId,
        Self::PacketTooLarge,
        Self::Unreachable,
        Self::Other,
    ];

    /// The name in answers and snapshots.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diverged => "diverged",
            Self::Purged => "purged",
            Self::Denied => "denied",
            Self::DuplicateServerId => "duplicate_server_id",
            Self::PacketTooLarge => "packet_too_large",
            Self::Unreachable => "unreachable",
            Self::Other => "other",
        }
    }
}

/// What a receiver's error means for the replica. Servers use one number for many things (1236), so clients tell
/// them apart by what is said, and nobody else reads the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverErrorKind {
    /// The replica has transactions that the source lacks: their histories differ.
    Diverged,
    /// The source's binary logs no longer hold what the replica needs.
    Purged,
    /// The source does not let the replication user in.
    Denied,
    /// Another replica of the source has the same `server_id` or `server_uuid`.
    DuplicateServerId,
    /// A packet is larger than one side allows.
    PacketTooLarge,
    /// The source, or its network, is away.
    Unreachable,
    /// Anything else.
    Other,
}
