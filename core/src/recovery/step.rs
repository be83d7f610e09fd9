//! The steps of recoveries, by the names that the story, the history, the page and failpoints give them.

use std::fmt;
use std::str::FromStr;

use super::hook::Hook;

/// What a step of a recovery does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The shard's lock is taken.
    TakeLock,
    /// Somebody else holds the lock, and is waited for.
    WaitForLock,
    /// The shard's records are read under the lock.
    ReadRecords,
    /// Every server is asked for its state under the lock.
    AskEverybody,
    /// The finding was gone once the lock was held.
    LookAgain,
    /// The topology server is asked whether the lock is still held.
    CheckLock,
    /// All others follow one server already.
    FindPrimary,
    /// Nobody receives from the old primary any more.
    StopAllReceivers,
    /// Whoever follows nobody may be taking writes, and is fenced.
    DemoteAlone,
    /// A reparent was refused: replicas follow whom they followed.
    StartReceivers,
    /// Who is promoted, and why nobody else.
    Elect,
    /// A candidate gets what it lacks from somebody who has it.
    FollowMostAdvanced,
    /// A candidate that applies late on purpose applies at once.
    LiftDelay,
    /// A candidate's applier stands, and is started.
    StartApplier,
    /// A candidate applies what it received.
    CatchUp,
    /// A delay that was lifted is set again.
    PutDelayBack,
    /// The candidate of a planned reparent catches up.
    CatchUpFirst,
    /// Somebody logs in at the candidate as replicas will.
    TryLogin,
    /// The old primary refuses writes.
    StopWrites,
    /// The candidate gets the old primary's last position.
    ReachLastPosition,
    /// The old primary serves as before.
    TakeWritesAgain,
    /// A primary that did not step down is replaced.
    ReplaceByForce,
    /// The winner takes writes.
    Promote,
    /// A promotion was not answered, and the server is looked at.
    SeeWhetherPromoted,
    /// The winner's vttablet makes the records say that it is primary.
    AwaitRecords,
    /// The winner's record says PRIMARY.
    RecordPrimaryType,
    /// The shard's record names the winner.
    RecordShardPrimary,
    /// The old primary's record says REPLICA.
    RecordOldPrimaryType,
    /// The first write of the new term.
    WriteJournal,
    /// A replica follows the winner.
    FollowNewPrimary,
    /// The primary's settings are brought in order.
    FixPrimary,
    /// The primary's record gets a term.
    RecordPrimaryTerm,
    /// A connection that is dead without knowing shows it.
    RestartReceiver,
    /// Those who follow a tablet out of sight stop before any is led away.
    StopFollowersOfLost,
    /// What the primary has, right before replicas are led to it.
    ReadPrimaryPosition,
    /// A server that is not the primary refuses writes.
    Fence,
    /// A replica follows the primary.
    FollowPrimary,
    /// A tablet's record gets the type that it should have.
    RecordType,
    /// A tablet's type becomes DRAINED.
    SetAside,
    /// A tablet that is set aside acknowledges no more.
    StopAcknowledging,
    /// Errant GTIDs are made up for on the primary.
    CommitEmpty,
    /// The record of a tablet that is gone for good is removed.
    RemoveRecord,
    /// Commits that nobody was asked to acknowledge are freed by another write.
    WriteNothing,
    /// The operator's own programs run.
    Hook(Hook),
}

impl StepKind {
    /// All of them but the hooks.
    pub const ALL: [Self; 43] = [
        Self::TakeLock,
        Self::WaitForLock,
        Self::ReadRecords,
        Self::AskEverybody,
        Self::LookAgain,
        Self::CheckLock,
        Self::FindPrimary,
        Self::StopAllReceivers,
        Self::DemoteAlone,
        Self::StartReceivers,
        Self::Elect,
        Self::FollowMostAdvanced,
        Self::LiftDelay,
        Self::StartApplier,
        Self::CatchUp,
        Self::PutDelayBack,
        Self::CatchUpFirst,
        Self::TryLogin,
        Self::StopWrites,
        Self::ReachLastPosition,
        Self::TakeWritesAgain,
        Self::ReplaceByForce,
        Self::Promote,
        Self::SeeWhetherPromoted,
        Self::AwaitRecords,
        Self::RecordPrimaryType,
        Self::RecordShardPrimary,
        Self::RecordOldPrimaryType,
        Self::WriteJournal,
        Self::FollowNewPrimary,
        Self::FixPrimary,
        Self::RecordPrimaryTerm,
        Self::RestartReceiver,
        Self::StopFollowersOfLost,
        Self::ReadPrimaryPosition,
        Self::Fence,
        Self::FollowPrimary,
        Self::RecordType,
        Self::SetAside,
        Self::StopAcknowledging,
        Self::CommitEmpty,
        Self::RemoveRecord,
        Self::WriteNothing,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TakeLock => "take the shard's lock",
            Self::WaitForLock => "wait for the shard's lock",
            Self::ReadRecords => "read the shard's records",
            Self::AskEverybody => "ask every server for its state",
            Self::LookAgain => "look for the finding again",
            Self::CheckLock => "make sure of the lock",
            Self::FindPrimary => "find the primary",
            Self::StopAllReceivers => "stop all receivers",
            Self::DemoteAlone => "demote those who may take writes",
            Self::StartReceivers => "start the receivers again",
            Self::Elect => "elect",
            Self::FollowMostAdvanced => "follow the most advanced",
            Self::LiftDelay => "lift its delay",
            Self::StartApplier => "start the applier",
            Self::CatchUp => "wait until everything is applied",
            Self::PutDelayBack => "put its delay back",
            Self::CatchUpFirst => "catch up before writes stop",
            Self::TryLogin => "try the replicas' login",
            Self::StopWrites => "stop writes",
            Self::ReachLastPosition => "wait for the last position",
            Self::TakeWritesAgain => "take writes again",
            Self::ReplaceByForce => "replace it by force",
            Self::Promote => "promote",
            Self::SeeWhetherPromoted => "see whether it was promoted",
            Self::AwaitRecords => "wait for its vttablet's records",
            Self::RecordPrimaryType => "record the primary's type",
            Self::RecordShardPrimary => "record the shard's primary",
            Self::RecordOldPrimaryType => "record the old primary's type",
            Self::WriteJournal => "write the reparent journal",
            Self::FollowNewPrimary => "follow the new primary",
            Self::FixPrimary => "fix the primary",
            Self::RecordPrimaryTerm => "record the primary's term",
            Self::RestartReceiver => "restart the receiver",
            Self::StopFollowersOfLost => "stop those who follow a lost tablet",
            Self::ReadPrimaryPosition => "read the primary's position",
            Self::Fence => "fence",
            Self::FollowPrimary => "follow the primary",
            Self::RecordType => "record its type",
            Self::SetAside => "take it out of service",
            Self::StopAcknowledging => "stop acknowledging",
            Self::CommitEmpty => "commit empty transactions",
            Self::RemoveRecord => "remove its record",
            Self::WriteNothing => "write nothing, so that an acknowledgement comes",
            Self::Hook(hook) => hook.key(),
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let hooks = Hook::ALL.into_iter().map(Self::Hook);
        Self::ALL.into_iter().chain(hooks).find(|kind| kind.name() == name)
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A moment of a recovery at which a test may end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// The lock is held, and everything was looked at anew.
    Locked,
    /// Before a step.
    Before(StepKind),
    /// After a step.
    After(StepKind),
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("locked"),
            Self::Before(step) => write!(f, "before {step}"),
            Self::After(step) => write!(f, "after {step}"),
        }
    }
}

impl FromStr for Failpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let step = |name| StepKind::from_name(name).ok_or_else(|| format!("no step {name:?}"));
        match text.split_once(' ') {
            Some(("before", name)) => step(name).map(Self::Before),
            Some(("after", name)) => step(name).map(Self::After),
            Some(_) | None if text == "locked" => Ok(Self::Locked),
            Some(_) | None => {
                Err(format!("{text:?} is neither locked, before STEP nor after STEP"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_two_steps_share_one() {
        for kind in StepKind::ALL {
            assert_eq!(StepKind::from_name(kind.name()), Some(kind));
            for point in [Failpoint::Before(kind), Failpoint::After(kind), Failpoint::Locked] {
                assert_eq!(point.to_string().parse(), Ok(point));
            }
        }
        assert_eq!(StepKind::from_name("of tomorrow"), None);
        assert!("before of tomorrow".parse::<Failpoint>().is_err());
    }
}
