//! Time as a value: milliseconds since the Unix epoch, always handed in, never read here.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use crate::sabotage::{self, Bug};

/// A moment, in milliseconds since the Unix epoch.
///
/// Made by the actors from one reading of the wall clock plus a monotonic clock, so it never goes backwards
/// within a process and still means something after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Makes a timestamp from milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long before `now` this was; zero if it lies in the future.
    pub fn age(self, now: Timestamp) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, rhs: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    fn sub(self, rhs: Timestamp) -> Duration {
        rhs.age(self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// When a tablet's or a shard's term as primary began, as Vitess records it (seconds and nanoseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TermStart {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: i32,
}

impl TermStart {
    /// The term that starts `now`, or just after `newest` where the clock says otherwise.
    ///
    /// Terms decide who is primary, so a new one is later than every older one whatever the wall clock does.
    pub fn after(newest: Option<TermStart>, now: Timestamp) -> TermStart {
        let millis = now.as_millis();
        let term = TermStart {
            seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
            nanos: i32::try_from((millis % 1000) * 1_000_000).unwrap_or(0),
        };
        let newest = newest.filter(|_| !sabotage::has(Bug::TrustWallClock));
        match newest {
            Some(older) if older >= term => TermStart { seconds: older.seconds + 1, nanos: 0 },
            Some(_) | None => term,
        }
    }
}

impl fmt::Display for TermStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.seconds, self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_term_is_later_even_if_the_clock_went_back() {
        let older = TermStart { seconds: 5000, nanos: 7 };
        let now = Timestamp::from_millis(4_000_000);
        assert!(TermStart::after(Some(older), now) > older);
        assert_eq!(TermStart::after(None, now), TermStart { seconds: 4000, nanos: 0 });
    }

    #[test]
    fn ages_never_go_negative() {
        let early = Timestamp::from_millis(10);
        let late = Timestamp::from_millis(25);
        assert_eq!(early.age(late), Duration::from_millis(15));
        assert_eq!(late.age(early), Duration::ZERO);
    }
}
