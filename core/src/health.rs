//! Whether a server can be reached: one bad probe is an observation, several are a verdict.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::time::Timestamp;

/// How a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The connection broke or was refused: nobody listens there now.
    Refused(String),
    /// No answer within the deadline.
    TimedOut,
    /// No answer within the deadline, yet the server's host, or its vttablet, answers a ping: it is too busy.
    Overloaded,
    /// The server answered and turned us away (wrong password, missing grant, too many connections). It
    /// lives, so this never counts towards its death.
    TurnedAway(String),
    /// The answer was not understood.
    Garbled(String),
    /// Its vttablet says that the server's disk is stalled, and nothing else.
    DiskStalled,
    /// Its vttablet does not know the call that asks for the server's state.
    TooOld(String),
}

/// How clients begin what they say of a vttablet that is too old.
pub const TOO_OLD: &str = "its vttablet is too old";

impl ProbeFailure {
    /// Reads what `Display` writes; any other text is a failed connection's.
    pub fn from_text(text: &str) -> Self {
        if text == Self::TimedOut.to_string() {
            return Self::TimedOut;
        }
        if text == Self::Overloaded.to_string() {
            return Self::Overloaded;
        }
        if text == Self::DiskStalled.to_string() {
            return Self::DiskStalled;
        }
        if text.starts_with(TOO_OLD) {
            return Self::TooOld(text.into());
        }
        if let Some(why) = text.strip_prefix("server turned us away: ") {
            return Self::TurnedAway(why.into());
        }
        if let Some(why) = text.strip_prefix("answer not understood: ") {
            return Self::Garbled(why.into());
        }
        Self::Refused(text.strip_prefix("connection failed: ").unwrap_or(text).into())
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "connection failed: {why}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Overloaded => f.write_str("no answer in time, and it answers a ping"),
            Self::TurnedAway(why) => write!(f, "server turned us away: {why}"),
            Self::Garbled(why) => write!(f, "answer not understood: {why}"),
            Self::DiskStalled => f.write_str("its vttablet says that its disk is stalled"),
            Self::TooOld(why) => f.write_str(why),
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

/// The recent failures of one tablet's probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeHistory {
    /// When the probes of the window ended, and how.
    window: VecDeque<(Timestamp, Ending)>,
    ever_reached: bool,
    failing_since: Option<Timestamp>,
    refusals: u32,
    last_failure: Option<ProbeFailure>,
}

impl ProbeHistory {
    /// Takes in a success.
    pub fn succeeded(&mut self, now: Timestamp) {
        let window = std::mem::take(&mut self.window);
        *self = Self { ever_reached: true, window, ..Self::default() };
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
        self.failing_since.get_or_insert(since);
        match failure {
            ProbeFailure::TimedOut => self.count(since, Ending::TimedOut),
            ProbeFailure::Overloaded => self.count(since, Ending::TimedOutButPinged),
            ProbeFailure::Refused(_)
            | ProbeFailure::TurnedAway(_)
            | ProbeFailure::Garbled(_)
            | ProbeFailure::DiskStalled
            | ProbeFailure::TooOld(_) => {}
        }
        self.refusals = match failure {
            ProbeFailure::Refused(_) => self.refusals.saturating_add(1),
            ProbeFailure::TimedOut
            | ProbeFailure::Overloaded
            | ProbeFailure::TurnedAway(_)
            | ProbeFailure::Garbled(_)
            | ProbeFailure::DiskStalled
            | ProbeFailure::TooOld(_) => 0,
        };
        self.last_failure = Some(failure);
    }

    /// Tells whether any probe ever succeeded.
    pub fn ever_reached(&self) -> bool {
        self.ever_reached
    }
}

/// Says what the probes of a tablet amount to at `now`.
pub fn judge(history: &ProbeHistory, now: Timestamp) -> Reachability {
    let (Some(since), Some(why)) = (history.failing_since, history.last_failure.clone()) else {
        return if history.ever_reached { Reachability::Valid } else { Reachability::Unseen };
    };
    let silent_too_long = since.age(now) >= SILENCE_UNTIL_UNREACHABLE;
    match &why {
        ProbeFailure::TurnedAway(_) | ProbeFailure::DiskStalled | ProbeFailure::TooOld(_) => {
            Reachability::TurnedAway { since, why }
        }
        ProbeFailure::Refused(_) if history.refusals >= REFUSALS_UNTIL_UNREACHABLE => {
            Reachability::Unreachable { since, why }
        }
        ProbeFailure::Refused(_)
        | ProbeFailure::TimedOut
        | ProbeFailure::Overloaded
        | ProbeFailure::Garbled(_) => {
            if silent_too_long {
                Reachability::Unreachable { since, why }
            } else {
                Reachability::Suspect { since, why }
            }
        }
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
}
