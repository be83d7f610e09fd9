//! Which of an operator's programs are run when, and which of them may stop a reparent.

mod command_line;
mod occasion;

use crate::audit::Outcome;
pub use crate::recovery::hook::Hook;
pub use command_line::command_line;
pub use occasion::{Cause, FailureNames, Occasion, Party};

impl Hook {
    /// A program that fails stops the reparent.
    pub fn may_veto(self) -> bool {
        match self {
            Self::PreGracefulTakeover | Self::PreFailover => true,
            Self::OnFailureDetection
            | Self::PostMasterFailover
            | Self::PostFailover
            | Self::PostUnsuccessfulFailover
            | Self::PostGracefulTakeover => false,
        }
    }

    /// What is run before a reparent, in order.
    pub fn before(is_planned: bool) -> &'static [Self] {
        if is_planned {
            &[Self::PreGracefulTakeover, Self::PreFailover]
        } else {
            &[Self::PreFailover]
        }
    }

    /// What is run after a reparent that ended so, in order.
    pub fn after(is_planned: bool, outcome: &Outcome) -> &'static [Self] {
        match outcome {
            Outcome::Succeeded(_) if is_planned => {
                &[Self::PostMasterFailover, Self::PostFailover, Self::PostGracefulTakeover]
            }
            Outcome::Succeeded(_) => &[Self::PostMasterFailover, Self::PostFailover],
            Outcome::Refused(_) | Outcome::Failed(_) | Outcome::Undone(_) | Outcome::Unclear(_) => {
                &[Self::PostUnsuccessfulFailover]
            }
            // Nothing was done, or nobody is there any more to tell of it.
            Outcome::AlreadyFixed | Outcome::Preempted | Outcome::Interrupted => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_follows_from_how_it_ended() {
        use Hook::*;
        let done = Outcome::Succeeded(String::new());
        assert_eq!(Hook::after(false, &done), [PostMasterFailover, PostFailover]);
        assert_eq!(Hook::after(true, &done).last(), Some(&PostGracefulTakeover));
        let refused = Outcome::Refused(String::new());
        assert_eq!(Hook::after(true, &refused), [PostUnsuccessfulFailover]);
        assert!(Hook::after(false, &Outcome::AlreadyFixed).is_empty());
        assert!(Hook::ALL.iter().filter(|hook| hook.may_veto()).count() == 2);
    }
}
