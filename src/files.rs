//! How many files this process may have open: each connection is one, and a recovery needs some at any moment.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More are never needed, and a table of so many costs nothing.
const ENOUGH: u64 = 65_536;

/// Takes as many as the system lets this process have; answers how many there are.
pub(crate) fn raise_limit() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let (soft, hard) = (now.current.unwrap_or(ENOUGH), now.maximum.unwrap_or(ENOUGH));
    let wanted = hard.min(ENOUGH);
    if soft >= wanted {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum }) {
        Ok(()) => wanted,
        Err(_refused) => soft,
    }
}

/// So many connections at most are HTTP's: whoever opens more waits, and whatever a recovery needs is there.
pub(crate) fn share_of_http(limit: u64) -> usize {
    usize::try_from(limit / 4).unwrap_or(usize::MAX).clamp(8, 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_files_are_left_to_recoveries() {
        for (limit, share) in [(16, 8), (256, 64), (1024, 256), (65_536, 1024), (u64::MAX, 1024)] {
            assert_eq!(share_of_http(limit), share);
        }
        assert!(raise_limit() > 0);
    }
}
