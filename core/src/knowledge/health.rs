//! Whether a server can be reached: one bad probe is an observation, several are a verdict.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::ids::TabletAlias;
use crate::time::Timestamp;

/// Why a server is taken for somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// It is the server of this tablet, of another shard or of the same one.
    Belongs(TabletAlias),
    /// Nothing that it has was ever written by a server of this shard.
    SharesNothing,
    /// It follows a server that is no tablet of this shard, and has nothing of the shard's history.
    FollowsOutside,
    /// A command that was meant for the tablet's server found another one.
    NotMeant,
}

/// How a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The connection broke or was refused: nobody listens there now.
    Refused(String),
    /// No answer within the deadline.
    TimedOut,
    /// No answer within the deadline, yet the server's host, or its vttablet, answers a ping: it is too busy.
    Overloaded,
    /// The server answered and turned us away (wrong password, missing grant, locked account). It lives, so this never
    /// counts towards its death.
    TurnedAway(String),
    /// The server answered that its connections, or those of our user, are used up. It lives.
    Full(String),
    /// The server answered that it lets nobody in from our host any more: too many connections from there broke off. It
    /// lives.
    Blocked(String),
    /// The answer was not understood.
    Garbled(String),
    /// Its vttablet says that the server's disk is stalled, and nothing else.
    DiskStalled,
    /// Its vttablet does not know the call that asks for the server's state.
    TooOld(String),
    /// Somebody else's server answers at the tablet's address.
    Stranger(Stranger),
}

impl ProbeFailure {
    /// The kind's name, as it stands in snapshots.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::TimedOut => "timed_out",
            Self::Overloaded => "overloaded",
            Self::TurnedAway(_) => "turned_away",
            Self::Full(_) => "full",
            Self::Blocked(_) => "blocked",
            Self::Garbled(_) => "garbled",
            Self::DiskStalled => "disk_stalled",
            Self::TooOld(_) => "too_old",
            Self::Stranger(Stranger::Belongs(_)) => "stranger",
            Self::Stranger(Stranger::SharesNothing) => "stranger_without_history",
            Self::Stranger(Stranger::FollowsOutside) => "stranger_with_a_source",
            Self::Stranger(Stranger::NotMeant) => "another_server",
        }
    }

    /// The failure of a kind, with these details.
    pub fn of_kind(kind: &str, details: &str) -> Option<Self> {
        let details = details.to_owned();
        Some(match kind {
            "refused" => Self::Refused(details),
            "timed_out" => Self::TimedOut,
            "overloaded" => Self::Overloaded,
            "turned_away" => Self::TurnedAway(details),
            "full" => Self::Full(details),
            "blocked" => Self::Blocked(details),
            "garbled" => Self::Garbled(details),
            "disk_stalled" => Self::DiskStalled,
            "too_old" => Self::TooOld(details),
            "stranger" => Self::Stranger(Stranger::Belongs(details.parse().ok()?)),
            "stranger_without_history" => Self::Stranger(Stranger::SharesNothing),
            "stranger_with_a_source" => Self::Stranger(Stranger::FollowsOutside),
            "another_server" => Self::Stranger(Stranger::NotMeant),
            _ => return None,
        })
    }

    /// What there is to say beside the kind.
    pub fn details(&self) -> String {
        match self {
            Self::Refused(why)
            | Self::TurnedAway(why)
            | Self::Full(why)
            | Self::Blocked(why)
            | Self::Garbled(why)
            | Self::TooOld(why) => why.clone(),
            Self::Stranger(Stranger::Belongs(owner)) => owner.to_string(),
            Self::TimedOut
            | Self::Overloaded
            | Self::DiskStalled
            | Self::Stranger(
                Stranger::SharesNothing | Stranger::FollowsOutside | Stranger::NotMeant,
            ) => String::new(),
        }
    }

    /// Whoever fails like this answers: it lives.
    fn is_an_answer(&self) -> bool {
        match self {
            Self::TurnedAway(_)
            | Self::Full(_)
            | Self::Blocked(_)
            | Self::DiskStalled
            | Self::TooOld(_) => true,
            Self::Refused(_)
            | Self::TimedOut
            | Self::Overloaded
            | Self::Garbled(_)
            | Self::Stranger(_) => false,
        }
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "connection failed: {why}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Overloaded => f.write_str("no answer in time, and it answers a ping"),
            Self::TurnedAway(why) => write!(f, "server turned us away: {why}"),
            Self::Full(why) => write!(f, "server has no connection left: {why}"),
            Self::Blocked(why) => write!(f, "server blocks our host: {why}"),
            Self::Garbled(why) => write!(f, "answer not understood: {why}"),
            Self::DiskStalled => f.write_str("its vttablet says that its disk is stalled"),
            Self::TooOld(why) => f.write_str(why),
            Self::Stranger(Stranger::Belongs(owner)) => {
                write!(f, "the server of {owner} answers at its address")
            }
            Self::Stranger(Stranger::SharesNothing) => f.write_str(
                "a server answers at its address that has nothing of this shard's history",
            ),
            Self::Stranger(Stranger::FollowsOutside) => f.write_str(
                "it follows a server outside of this shard and has nothing of this shard's history",
            ),
            Self::Stranger(Stranger::NotMeant) => {
                f.write_str("another server answers at its address than before")
            }
        }
    }
}

/// What the probes of one tablet amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// Never reached since vtorc started, and not yet given up.
    Unseen,
    /// The last probe succeeded.
    Valid,
    /// The last probe failed; too early to say more.
    Suspect {
        /// First failure of the row.
        since: Timestamp,
        /// Last failure.
        why: ProbeFailure,
    },
    /// Failed often or long enough to be taken for gone.
    Unreachable {
        /// First failure of the row.
        since: Timestamp,
        /// Last failure.
        why: ProbeFailure,
    },
    /// Answers, but turns us away or cannot say more.
    TurnedAway {
        /// First failure of the row.
        since: Timestamp,
        /// Last failure.
        why: ProbeFailure,
    },
}

impl Reachability {
    /// Tells whether the last probe succeeded.
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid)
    }

    /// Tells whether the verdict is that the server is gone.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Tells whether something is wrong of which the verdict is still open.
    pub fn is_suspect(&self) -> bool {
        matches!(self, Self::Suspect { .. })
    }

    /// Since when the probes fail.
    pub fn failing_since(&self) -> Option<Timestamp> {
        match self {
            Self::Unseen | Self::Valid => None,
            Self::Suspect { since, .. }
            | Self::Unreachable { since, .. }
            | Self::TurnedAway { since, .. } => Some(*since),
        }
    }

    /// The last failure.
    pub fn failure(&self) -> Option<&ProbeFailure> {
        match self {
            Self::Unseen | Self::Valid => None,
            Self::Suspect { why, .. }
            | Self::Unreachable { why, .. }
            | Self::TurnedAway { why, .. } => Some(why),
        }
    }
}

/// A refused connection is believed after this many in a row: the first may be the listener's restart.
pub const REFUSALS_UNTIL_UNREACHABLE: u32 = 2;

/// A server that does not answer is given up after this long. Long enough for a stall of the server or of
/// this process, short enough that a frozen primary is replaced within four seconds.
pub const SILENCE_UNTIL_UNREACHABLE: Duration = Duration::from_millis(1500);

/// How far back a server's probes are counted to tell one that is overloaded from one that stumbled.
pub const WINDOW: Duration = Duration::from_secs(10);
/// So many failures within the window, and more than successes, are an incapacitated server.
pub const WINDOW_FAILURES_MIN: u32 = 3;

/// How many probes of the last [`WINDOW`] failed and succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentProbes {
    /// Without an answer in time.
    pub timed_out: u32,
    /// Of those, with a ping that was answered.
    pub pinged: u32,
    /// Answered.
    pub succeeded: u32,
}

impl RecentProbes {
    /// Tells whether a server that can be reached fails more often than it answers. Without the pings a cut that
    /// comes and goes would look the same.
    pub fn is_incapacitated(self) -> bool {
        self.pinged >= WINDOW_FAILURES_MIN && self.pinged > self.succeeded
    }
}

/// How a probe of the window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Answered,
    TimedOut,
    TimedOutButPinged,
}

/// The recent failures of one tablet's probes. What they amount to never becomes less by a further failure: once a
/// server is gone it is gone until it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeHistory {
    /// When the probes of the window ended, and how.
    window: VecDeque<(Timestamp, Ending)>,
    ever_reached: bool,
    row: Option<FailureRow>,
}

/// Failures in a row, since the last success.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FailureRow {
    since: Timestamp,
    /// Since when nothing at all is heard; none while it answers, if only to turn us away.
    silent_since: Option<Timestamp>,
    refusals: u32,
    /// It was taken for gone before the last failure.
    gone: bool,
    last: ProbeFailure,
    /// The last answer that was no success: it stands until the silence after it is a verdict.
    answer: Option<ProbeFailure>,
}

impl FailureRow {
    fn judge(&self, now: Timestamp) -> Reachability {
        let why = self.last.clone();
        let silent_too_long =
            self.silent_since.is_some_and(|since| since.age(now) >= SILENCE_UNTIL_UNREACHABLE);
        let refused = self.refusals >= REFUSALS_UNTIL_UNREACHABLE;
        if self.gone || silent_too_long || refused {
            // One that turned us away for an hour has been gone since it fell silent.
            let since = self.silent_since.unwrap_or(self.since);
            return Reachability::Unreachable { since, why };
        }
        let since = self.since;
        match &self.answer {
            Some(answer) => Reachability::TurnedAway { since, why: answer.clone() },
            None => Reachability::Suspect { since, why },
        }
    }
}

impl ProbeHistory {
    /// Takes in a success.
    pub fn succeeded(&mut self, now: Timestamp) {
        self.ever_reached = true;
        self.row = None;
        self.count(now, Ending::Answered);
    }

    fn count(&mut self, now: Timestamp, ending: Ending) {
        self.window.push_back((now, ending));
        while self.window.front().is_some_and(|(at, _)| at.age(now) > WINDOW) {
            self.window.pop_front();
        }
    }

    /// How the probes of the window went. A refused connection is no sign of overload.
    pub fn recent(&self, now: Timestamp) -> RecentProbes {
        let of_window = self.window.iter().filter(|(at, _)| at.age(now) <= WINDOW);
        let mut recent = RecentProbes::default();
        for (_, ending) in of_window {
            match ending {
                Ending::Answered => recent.succeeded += 1,
                Ending::TimedOut => recent.timed_out += 1,
                Ending::TimedOutButPinged => {
                    recent.timed_out += 1;
                    recent.pinged += 1;
                }
            }
        }
        recent
    }

    /// Takes in a failure. `since` is when the failed probe was sent.
    pub fn failed(&mut self, failure: ProbeFailure, since: Timestamp) {
        match failure {
            ProbeFailure::TimedOut => self.count(since, Ending::TimedOut),
            ProbeFailure::Overloaded => self.count(since, Ending::TimedOutButPinged),
            ProbeFailure::Refused(_)
            | ProbeFailure::TurnedAway(_)
            | ProbeFailure::Full(_)
            | ProbeFailure::Blocked(_)
            | ProbeFailure::Garbled(_)
            | ProbeFailure::DiskStalled
            | ProbeFailure::TooOld(_)
            | ProbeFailure::Stranger(_) => {}
        }
        let row = self.row.take().unwrap_or_else(|| FailureRow {
            since,
            silent_since: None,
            refusals: 0,
            gone: false,
            last: failure.clone(),
            answer: None,
        });
        let was_gone = row.judge(since).is_unreachable();
        let refusals = match failure {
            ProbeFailure::Refused(_) => row.refusals.saturating_add(1),
            ProbeFailure::TimedOut
            | ProbeFailure::Overloaded
            | ProbeFailure::TurnedAway(_)
            | ProbeFailure::Full(_)
            | ProbeFailure::Blocked(_)
            | ProbeFailure::Garbled(_)
            | ProbeFailure::DiskStalled
            | ProbeFailure::TooOld(_)
            | ProbeFailure::Stranger(_) => 0,
        };
        let is_stranger = matches!(failure, ProbeFailure::Stranger(_));
        self.row = Some(match failure.is_an_answer() {
            // It is not gone, however long it was silent.
            true => FailureRow {
                silent_since: None,
                refusals: 0,
                gone: false,
                answer: Some(failure.clone()),
                last: failure,
                ..row
            },
            false => FailureRow {
                silent_since: row.silent_since.or(Some(since)),
                refusals,
                // Its own server is not where it was: there is nothing to wait for.
                gone: was_gone || is_stranger,
                last: failure,
                ..row
            },
        });
    }
}

/// Says what the probes of a tablet amount to at `now`.
pub fn judge(history: &ProbeHistory, now: Timestamp) -> Reachability {
    match &history.row {
        Some(row) => row.judge(now),
        None if history.ever_reached => Reachability::Valid,
        None => Reachability::Unseen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn one_refusal_is_doubt_two_are_a_verdict() {
        let mut history = ProbeHistory::default();
        history.succeeded(at(0));
        assert!(judge(&history, at(0)).is_valid());
        history.failed(ProbeFailure::Refused("reset".into()), at(10));
        assert!(judge(&history, at(11)).is_suspect());
        history.failed(ProbeFailure::Refused("refused".into()), at(12));
        assert!(judge(&history, at(12)).is_unreachable());
        history.succeeded(at(0));
        assert!(judge(&history, at(13)).is_valid());
    }

    #[test]
    fn silence_becomes_a_verdict_with_time_only() {
        let mut history = ProbeHistory::default();
        history.succeeded(at(0));
        history.failed(ProbeFailure::TimedOut, at(1000));
        history.failed(ProbeFailure::TimedOut, at(1400));
        assert!(judge(&history, at(2499)).is_suspect());
        assert!(judge(&history, at(2500)).is_unreachable());
    }

    #[test]
    fn a_server_that_turns_us_away_is_never_dead() {
        let mut history = ProbeHistory::default();
        for second in 0..60 {
            history.failed(ProbeFailure::TurnedAway("1045".into()), at(second * 1000));
        }
        let verdict = judge(&history, at(60_000));
        assert!(!verdict.is_unreachable() && !verdict.is_valid());
        assert_eq!(judge(&ProbeHistory::default(), at(0)), Reachability::Unseen);
    }

    /// What the probes amounted to before, and a further failure: it never amounts to less.
    #[test]
    fn a_further_failure_never_makes_somebody_less_known() {
        let refused = || ProbeFailure::Refused("refused".into());
        let turned_away = || ProbeFailure::TurnedAway("1040".into());
        let mut gone = ProbeHistory::default();
        gone.succeeded(at(0));
        gone.failed(refused(), at(10));
        gone.failed(refused(), at(20));
        gone.failed(ProbeFailure::TimedOut, at(30));
        assert!(judge(&gone, at(31)).is_unreachable());
        let mut away = ProbeHistory::default();
        away.failed(turned_away(), at(0));
        away.failed(ProbeFailure::TimedOut, at(60_000));
        let verdict = judge(&away, at(60_100));
        assert_eq!(verdict, Reachability::TurnedAway { since: at(0), why: turned_away() });
        assert!(judge(&away, at(61_500)).is_unreachable());
        away.failed(turned_away(), at(62_000));
        assert!(!judge(&away, at(62_000)).is_unreachable());
    }
}
