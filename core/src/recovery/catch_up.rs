//! Which candidate is promoted, while all of them catch up side by side: the best of those who are ready goes.
//!
//! One whose applier stands still, lags, or waits for a lock that a backup holds keeps nobody waiting.

use std::time::Duration;

use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::ports::CommandError;
use crate::reparent::election::{Candidate, Contender, Election, Reason};
use crate::sabotage::{self, Bug};
use crate::settings::{RecoverySettings, UnappliedPolicy};
use crate::status::ServerStatus;

/// Once a candidate is ready, those that rank before it get so much more time.
pub const BETTER_WITHIN: Duration = Duration::from_secs(1);
/// Where acknowledgements are demanded, what was never acknowledged is waited for so long.
const UNACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);

/// How far a candidate has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It does not have yet what it must have.
    Working,
    /// It has applied all that must not be lost, and all that it received itself.
    HasRequired,
    /// It has applied all that anybody has.
    HasAll {
        /// Since when, from the beginning.
        at: Duration,
    },
    /// It does not get there.
    Failed,
}

/// What is to be done with the candidates now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Promote this one, by its place.
    Promote(usize),
    /// Decide again when somebody has come further, at the latest then (from the beginning).
    WaitUntil(Duration),
    /// Nobody gets there.
    Nobody,
}

/// Which positions a candidate must reach: what it cannot do without, and all there is.
pub fn positions(candidate: &Candidate, election: &Election) -> (GtidSet, GtidSet) {
    let required = election.required.union(&candidate.received);
    let all = election.target.union(&candidate.received);
    (required, all)
}

/// How far a candidate gets by one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// To what it cannot do without.
    Required,
    /// To all there is.
    All,
}

/// From whom a candidate gets what it lacks, one after the other. A source that has applied everything gives it at
/// once. One that still must apply it may be locked or late: before that, what the candidate cannot do without comes
/// from another.
pub fn routes(
    candidate: &Candidate,
    election: &Election,
    everybody: &[Contender],
) -> Vec<(TabletAlias, Goal)> {
    let has_applied = |alias: &&TabletAlias| {
        let source = everybody.iter().find(|one| one.tablet.alias == **alias);
        source.is_some_and(|one| one.status.gtid_executed.contains(&election.target))
    };
    let (at_once, later): (Vec<_>, Vec<_>) = candidate.sources.iter().partition(has_applied);
    let all = |alias: &TabletAlias| (alias.clone(), Goal::All);
    let lesser = candidate.lesser_sources.iter().map(|alias| (alias.clone(), Goal::Required));
    at_once.into_iter().map(all).chain(lesser).chain(later.into_iter().map(all)).collect()
}

/// It has received all there is, or somebody can give it the rest.
pub fn can_have_all(candidate: &Candidate, election: &Election) -> bool {
    candidate.received.contains(&election.target) || !candidate.sources.is_empty()
}

/// What a candidate gets from a source is worth nothing where it does not apply all of it. Of one that had no source, a
/// vttablet only tells then that it has filters.
pub fn check_source_helps(follower: &ServerStatus) -> Result<(), CommandError> {
    match follower.is_filtered() && !sabotage::has(Bug::TrustFiltered) {
        true => Err(CommandError::NotDone(Reason::Filtered.to_string())),
        false => Ok(()),
    }
}

/// Whether a candidate is passed over because it has not applied everything that it received: the configuration may
/// want that.
pub fn check_applied(
    candidate: &Candidate,
    executed: &GtidSet,
    policy: UnappliedPolicy,
) -> Result<(), NotApplied> {
    match policy {
        UnappliedPolicy::Fail if !executed.contains(&candidate.received) => Err(NotApplied),
        UnappliedPolicy::Fail | UnappliedPolicy::Wait => Ok(()),
    }
}

/// It would have to apply something first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it has not applied everything it received, and FailMasterPromotionIfSQLThreadNotUpToDate is set"
)]
pub struct NotApplied;

/// How far a candidate had come that had committed this when its receiver was stopped.
pub fn begun(candidate: &Candidate, election: &Election, executed: &GtidSet) -> Progress {
    let (required, all) = positions(candidate, election);
    if executed.contains(&all) {
        Progress::HasAll { at: Duration::ZERO }
    } else if executed.contains(&required) {
        Progress::HasRequired
    } else {
        Progress::Working
    }
}

/// How long a candidate that has what is required is kept waiting for the rest. Not at all where nobody can get it; as
/// long as without any promise where clients may have been told of it.
pub fn patience_for_the_rest(election: &Election, settings: &RecoverySettings) -> Duration {
    let promised = !election.required.is_empty() && !election.rest_was_told;
    match election.candidates.iter().any(|one| can_have_all(one, election)) {
        false => Duration::ZERO,
        true if promised => UNACKNOWLEDGED_WITHIN,
        true => settings.wait_replicas_timeout,
    }
}

/// How long is waited for whom.
#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    /// For what was never acknowledged, from the beginning.
    pub rest_within: Duration,
    /// Which candidates could not serve at once.
    pub hindered: &'a [bool],
    /// For those who could, where another one is ready that could not.
    pub unhindered_within: Duration,
}

/// Chooses among candidates in the order of their rank, `elapsed` after the beginning.
pub fn choose(progress: &[Progress], elapsed: Duration, patience: Patience<'_>) -> Choice {
    let rest_within = patience.rest_within;
    let complete = |one: &Progress| matches!(one, Progress::HasAll { .. });
    let still_working = |one: &Progress| matches!(one, Progress::Working | Progress::HasRequired);
    if sabotage::has(Bug::WaitForTheFirst) && !progress.first().is_some_and(complete) {
        let works = progress.first().is_some_and(still_working);
        return if works { Choice::WaitUntil(Duration::MAX) } else { Choice::Nobody };
    }
    if let Some(first) = progress.iter().position(complete) {
        let mut better = progress.iter().take(first);
        let since = progress.iter().filter_map(|one| match one {
            Progress::HasAll { at } => Some(*at),
            Progress::Working | Progress::HasRequired | Progress::Failed => None,
        });
        let is_hindered = |at: usize| patience.hindered.get(at).copied().unwrap_or(false);
        let mut before = progress.iter().enumerate().take(first);
        let one_can_serve = before.any(|(at, one)| still_working(one) && !is_hindered(at));
        let better_within = match is_hindered(first) && one_can_serve {
            true => patience.unhindered_within,
            false => BETTER_WITHIN,
        };
        let until = since.min().unwrap_or_default() + better_within;
        return match better.any(still_working) && elapsed < until {
            true => Choice::WaitUntil(until),
            false => Choice::Promote(first),
        };
    }
    let enough = progress.iter().position(|one| *one == Progress::HasRequired);
    let others_work = progress.contains(&Progress::Working);
    match enough {
        Some(first) => {
            let better_works = progress.iter().take(first).any(|one| *one == Progress::Working);
            let until = if better_works { rest_within.max(BETTER_WITHIN) } else { rest_within };
            if elapsed >= until { Choice::Promote(first) } else { Choice::WaitUntil(until) }
        }
        None if others_work => Choice::WaitUntil(Duration::MAX),
        None => Choice::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn within(seconds: f64, hindered: &[bool]) -> Patience<'_> {
        Patience { rest_within: secs(seconds), hindered, unhindered_within: secs(30.0) }
    }

    /// `w` works, `r` has what is required, `a` has all since the beginning, `b` since 2 s, `f` failed.
    fn read(word: &str) -> Vec<Progress> {
        let one = |letter| match letter {
            'w' => Progress::Working,
            'r' => Progress::HasRequired,
            'a' => Progress::HasAll { at: Duration::ZERO },
            'b' => Progress::HasAll { at: secs(2.0) },
            'f' => Progress::Failed,
            other => panic!("{other}"),
        };
        word.chars().map(one).collect()
    }

    #[test]
    fn the_best_of_those_who_are_ready_goes() {
        use Choice::{Nobody, Promote, WaitUntil};
        for (progress, elapsed, expected) in [
            // The first is ready: nobody is waited for.
            ("aw", 0.0, Promote(0)),
            ("fa", 0.0, Promote(1)),
            // Another is ready: those before it get one second.
            ("wa", 0.0, WaitUntil(secs(1.0))),
            ("wa", 1.0, Promote(1)),
            ("rwb", 2.5, WaitUntil(secs(3.0))),
            ("rwb", 3.0, Promote(2)),
            // Nobody has all: whoever has what is required goes when the rest does not come.
            ("wr", 0.5, WaitUntil(secs(1.0))),
            ("wr", 1.0, Promote(1)),
            ("fr", 0.5, WaitUntil(secs(1.0))),
            // Somebody may still get there.
            ("fw", 9.0, WaitUntil(Duration::MAX)),
            ("ff", 9.0, Nobody),
            ("", 0.0, Nobody),
        ] {
            let choice = choose(&read(progress), secs(elapsed), within(1.0, &[]));
            assert_eq!(choice, expected, "{progress} after {elapsed} s");
        }
    }

    #[test]
    fn one_that_must_apply_something_first_is_passed_over_where_that_is_wanted() {
        let set = |text: &str| GtidSet::parse_mariadb(text).unwrap();
        let candidate = Candidate {
            alias: TabletAlias { cell: "zone1".into(), uid: 1 },
            sources: Vec::new(),
            lesser_sources: Vec::new(),
            received: set("0-1-9"),
            hindrance: None,
        };
        let check = |executed, policy| check_applied(&candidate, &set(executed), policy);
        assert_eq!(check("0-1-8", UnappliedPolicy::Fail), Err(NotApplied));
        assert_eq!(check("0-1-9", UnappliedPolicy::Fail), Ok(()));
        assert_eq!(check("0-1-8", UnappliedPolicy::Wait), Ok(()));
    }

    #[test]
    fn where_nobody_can_have_all_a_better_one_that_works_gets_a_second() {
        let at_once = |progress, elapsed| choose(&read(progress), secs(elapsed), within(0.0, &[]));
        assert_eq!(at_once("rr", 0.0), Choice::Promote(0));
        assert_eq!(at_once("wr", 0.0), Choice::WaitUntil(secs(1.0)));
        assert_eq!(at_once("wr", 1.0), Choice::Promote(1));
        assert_eq!(at_once("rw", 0.0), Choice::Promote(0));
    }

    /// The last one is ready and cannot serve at once.
    #[test]
    fn one_that_cannot_serve_at_once_waits_for_those_who_can() {
        let choice =
            |progress, elapsed| choose(&read(progress), secs(elapsed), within(1.0, &[false, true]));
        assert_eq!(choice("wa", 2.0), Choice::WaitUntil(secs(30.0)));
        assert_eq!(choice("wa", 30.0), Choice::Promote(1));
        assert_eq!(choice("fa", 0.0), Choice::Promote(1));
        assert_eq!(choice("ba", 2.0), Choice::Promote(0));
        let both = choose(&read("wa"), secs(1.0), within(1.0, &[true, true]));
        assert_eq!(both, Choice::Promote(1));
    }
}
