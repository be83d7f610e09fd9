//! Deliberate bugs, to prove that the simulator would see them. Without the `sabotage` feature, which only
//! the simulator asks for, there are none and [`has`] is always false.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Promote the one that ranks last, without letting it catch up.
    PromoteSecondBest,
    /// Do not ask whether those out of sight could acknowledge.
    SkipSafety,
    /// Do not make sure of the lock before what cannot be undone.
    ForgetLock,
    /// Take every connected replica for one that hears nothing.
    IdleIsDead,
    /// Start the block period also where the lock was lost to somebody else.
    BlockOnLostLock,
    /// Date a new term by the wall clock alone.
    TrustWallClock,
    /// Take a partial reading of the topology for all there is.
    PartialReadIsWhole,
    /// Leave those who may take writes alone before an election.
    LeaveWritable,
    /// Let the primary that the records name take writes again without a question.
    FixBlindly,
    /// Believe every position.
    TrustErrant,
    /// Promote in a planned reparent without waiting for any position.
    SkipWaiting,
    /// Name the new primary before it takes writes.
    RecordFirst,
    /// Repair replicas by what was seen before the last repair ended, and before the lock was held.
    RepairOldNews,
    /// Do not say why nothing is done.
    KeepSilent,
    /// Take a server that comes back for one that has all that it wrote.
    TrustSurvivors,
    /// Act although most of everything went out of sight at once.
    TrustOwnSight,
    /// Take those for ackers whom the policy names, whatever the servers say.
    CountPolicyAckersOnly,
    /// Take those for connected ackers whose receivers stand.
    CountStoppedAckers,
    /// Wait for every tablet that was never heard, whether it can have acknowledged anything or not.
    WaitForUnseen,
    /// Throw away what a replica received and has not applied, whoever else has it.
    ThrowRelayLogsAway,
    /// Take what a replica with filters has for data.
    TrustFiltered,
    /// Let a replica with errant transactions acknowledge beside enough others.
    LetErrantAcknowledge,
    /// Wait also for what was never acknowledged.
    WaitForUnacknowledged,
    /// Promote a replica with errant transactions when somebody asks for another primary.
    PlanForErrant,
    /// Refuse because of errors that a replica had while the primary lived.
    RefuseForOldErrors,
    /// Give a recovery up with the first candidate that refuses to be promoted.
    TryOneOnly,
    /// Open the old primary again without asking whether the lock is still held.
    UndoWithoutLock,
    /// Change servers, as long as none is opened, without asking whether the lock is still held.
    ActWithoutLock,
    /// Take a server that was opened, and has something left to be done, for one that was not promoted, and open
    /// another on any grounds.
    HalfPromotedIsNot,
    /// Recover nothing where the history could not be read at the start.
    NeedHistory,
    /// Fence a tablet that is out of service and refuses writes already, again and again.
    FenceWhatIsFenced,
    /// Take the primary for busy where everybody answers late.
    BlameThePrimary,
    /// Judge an answer under the lock by another rule than while watching: whoever fails then is in doubt.
    SecondLookForgets,
    /// Read a shard only where every cell can be read.
    NeedAllCells,
    /// Recover a shard only where its own record can be read.
    NeedShardRecord,
    /// Elect only where every record can be read.
    NeedAllRecords,
    /// Take a tablet whose record cannot be read under the lock for gone.
    ForgetUnreadRecords,
    /// Wait for the candidate that ranks first, and for no other.
    WaitForTheFirst,
    /// Believe that the lock is held, however old the answer is.
    BelieveOldAnswers,
    /// Take whoever answers at a tablet's address for the tablet's server.
    TrustAddresses,
    /// Send statements that open a server without a deadline: they run whenever the server has time.
    OpenWithoutDeadline,
    /// Take whatever a source refuses a replica for as a sign that their histories differ.
    AnyRefusalIsDivergence,
    /// Compare every interval of a set of GTIDs with every one of another.
    CompareAllIntervals,
    /// Replace a primary that an operator has put into downtime.
    ForgetDowntime,
    /// Look for the finding that a recovery was begun for, and see no other once the lock is held.
    KeepToTheFinding,
    /// Promote somebody although the old primary answers, and could not be told to refuse writes.
    PromoteBesideAWriter,
    /// Promote somebody at whom replicas cannot log in, where others could be promoted.
    ForgetReplicaUser,
    /// Wait for the word of a tablet whose record has no address.
    WaitForNoAddress,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 48] = [
        Self::PromoteSecondBest,
        Self::SkipSafety,
        Self::ForgetLock,
        Self::IdleIsDead,
        Self::BlockOnLostLock,
        Self::TrustWallClock,
        Self::PartialReadIsWhole,
        Self::LeaveWritable,
        Self::FixBlindly,
        Self::TrustErrant,
        Self::SkipWaiting,
        Self::RecordFirst,
        Self::RepairOldNews,
        Self::KeepSilent,
        Self::TrustSurvivors,
        Self::TrustOwnSight,
        Self::CountPolicyAckersOnly,
        Self::CountStoppedAckers,
        Self::WaitForUnseen,
        Self::ThrowRelayLogsAway,
        Self::TrustFiltered,
        Self::LetErrantAcknowledge,
        Self::WaitForUnacknowledged,
        Self::PlanForErrant,
        Self::RefuseForOldErrors,
        Self::TryOneOnly,
        Self::UndoWithoutLock,
        Self::ActWithoutLock,
        Self::HalfPromotedIsNot,
        Self::NeedHistory,
        Self::FenceWhatIsFenced,
        Self::BlameThePrimary,
        Self::SecondLookForgets,
        Self::NeedAllCells,
        Self::NeedShardRecord,
        Self::NeedAllRecords,
        Self::ForgetUnreadRecords,
        Self::WaitForTheFirst,
        Self::BelieveOldAnswers,
        Self::TrustAddresses,
        Self::OpenWithoutDeadline,
        Self::AnyRefusalIsDivergence,
        Self::CompareAllIntervals,
        Self::ForgetDowntime,
        Self::KeepToTheFinding,
        Self::PromoteBesideAWriter,
        Self::ForgetReplicaUser,
        Self::WaitForNoAddress,
    ];
}

/// What comparing two sets of GTIDs costs: a decision must not hold a thread for long.
#[cfg(feature = "sabotage")]
pub mod cost {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<u64> = const { Cell::new(0) };
        static WORST: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
    }

    /// An interval is looked at.
    pub fn step() {
        STEPS.with(|steps| steps.set(steps.get() + 1));
    }

    /// Counts the steps of what is done with two sets of so many intervals together.
    pub fn measured<T>(intervals: usize, work: impl FnOnce() -> T) -> T {
        STEPS.with(|steps| steps.set(0));
        let done = work();
        let (intervals, steps) = (intervals as u64, STEPS.with(Cell::get));
        if steps > 4 * intervals + 64 {
            WORST.with(|worst| worst.set(worst.get().max(Some((steps, intervals)))));
        }
        done
    }

    /// The steps and the intervals of the comparison that took most, if any took more than a walk over both sets does.
    pub fn take_worst() -> Option<(u64, u64)> {
        WORST.with(Cell::take)
    }
}

/// Nothing is counted.
#[cfg(not(feature = "sabotage"))]
pub mod cost {
    /// An interval is looked at.
    #[inline(always)]
    pub fn step() {}

    /// Does it.
    #[inline(always)]
    pub fn measured<T>(_: usize, work: impl FnOnce() -> T) -> T {
        work()
    }
}

#[cfg(feature = "sabotage")]
thread_local! {
    static PRESENT: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Puts a bug into this thread, or takes it out.
#[cfg(feature = "sabotage")]
pub fn plant(bug: Option<Bug>) {
    PRESENT.with(|present| present.set(bug));
}

/// Tells whether this thread has the bug.
#[cfg(feature = "sabotage")]
pub fn has(bug: Bug) -> bool {
    PRESENT.with(|present| present.get() == Some(bug))
}

/// Tells whether this thread has the bug: it never has.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub fn has(_: Bug) -> bool {
    false
}
