//! The one place where actors learn the time: a base reading plus tokio's clock, which never goes back and
//! which tests can pause.

use tokio::time::Instant;
use vtorc_core::time::Timestamp;

/// A clock that starts at a given wall-clock reading.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that reads `base` now.
    pub fn starting_at(base: Timestamp) -> Self {
        Self { base, started: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }
}
