//! How a command fails: whether it happened decides what may be done next.

use crate::ids::ServerIdentity;
use crate::knowledge::health::ProbeFailure;
use crate::knowledge::identity::Stranger;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// It certainly did not happen: the server could not be asked.
    Unreached(ProbeFailure),
    /// It certainly did not happen: the server refused.
    NotDone(String),
    /// It may have happened: no answer came.
    Unknown(String),
}

impl CommandError {
    /// Nothing was sent: somebody else's server answers there.
    pub fn of_stranger(stranger: Stranger) -> Self {
        Self::Unreached(ProbeFailure::Stranger(stranger))
    }

    /// Refuses what was meant for one server where another one is found.
    pub fn check_meant(meant: &ServerIdentity, found: &ServerIdentity) -> Result<(), Self> {
        if meant == found { Ok(()) } else { Err(Self::of_stranger(Stranger::NotMeant)) }
    }

    /// What it says of a server that was only to tell its state.
    pub fn into_probe_failure(self) -> ProbeFailure {
        match self {
            Self::Unreached(failure) => failure,
            // It answered.
            Self::NotDone(why) => ProbeFailure::TurnedAway(why),
            Self::Unknown(_) => ProbeFailure::TimedOut,
        }
    }
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreached(failure) => write!(f, "{failure}"),
            Self::NotDone(why) => f.write_str(why),
            Self::Unknown(why) => write!(f, "outcome unknown: {why}"),
        }
    }
}
