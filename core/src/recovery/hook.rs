//! The moments at which the operator's own programs run, by their names.

/// When programs are run; the names are Orchestrator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// A failure of the primary was found, whatever comes of it.
    OnFailureDetection,
    /// Before a planned reparent takes the old primary's writes away.
    PreGracefulTakeover,
    /// Before any reparent changes anything.
    PreFailover,
    /// After a reparent that gave the shard a new primary.
    PostMasterFailover,
    /// After any reparent that went well.
    PostFailover,
    /// After one that did not.
    PostUnsuccessfulFailover,
    /// After a planned reparent.
    PostGracefulTakeover,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::OnFailureDetection,
        Self::PreGracefulTakeover,
        Self::PreFailover,
        Self::PostMasterFailover,
        Self::PostFailover,
        Self::PostUnsuccessfulFailover,
        Self::PostGracefulTakeover,
    ];

    /// The configuration's key, which is also the name in the audit.
    pub fn key(self) -> &'static str {
        match self {
            Self::OnFailureDetection => "OnFailureDetectionProcesses",
            Self::PreGracefulTakeover => "PreGracefulTakeoverProcesses",
            Self::PreFailover => "PreFailoverProcesses",
            Self::PostMasterFailover => "PostMasterFailoverProcesses",
            Self::PostFailover => "PostFailoverProcesses",
            Self::PostUnsuccessfulFailover => "PostUnsuccessfulFailoverProcesses",
            Self::PostGracefulTakeover => "PostGracefulTakeoverProcesses",
        }
    }
}
