//! What a server is opened on, and whether that still holds.

use super::error::CommandError;
use crate::gtid::GtidSet;
use crate::sabotage::{self, Bug};
use crate::status::{ReceiverState, ServerStatus};
use crate::tablet::MysqlAddress;

/// What a promotion was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionGrounds {
    /// Everything that the server was chosen for having committed.
    pub position: GtidSet,
    /// What it had written itself when it was chosen: a replica that wrote something since would make that everybody's.
    /// None where that does not matter.
    pub own: Option<GtidSet>,
    /// Whom it followed when it was chosen; none if it followed nobody.
    pub source: Option<MysqlAddress>,
    /// Its receiver was stopped and must still stand: whoever started it since had another plan.
    pub receiver_stopped: bool,
    /// The rows of its reparent journal; one more means that somebody reparented the shard since. None where it
    /// could not be read.
    pub journal_length: Option<u64>,
}

impl PromotionGrounds {
    /// The grounds of a server that was chosen in this state for having this.
    pub fn of(status: &ServerStatus, position: GtidSet) -> Self {
        let replication = status.replication.as_ref();
        Self {
            position,
            own: Some(status.written_by_itself()),
            source: replication.map(|replication| replication.source.clone()),
            receiver_stopped: replication
                .is_some_and(|replication| replication.receiver == ReceiverState::Stopped),
            journal_length: status.journal_length,
        }
    }

    /// The grounds of a primary that is to take writes again, as it was found in this state.
    pub fn of_primary(status: &ServerStatus) -> Self {
        Self { receiver_stopped: false, ..Self::of(status, status.gtid_executed.empty_like()) }
    }

    /// The grounds of a server, chosen in this state, that takes over from a primary which has written its last.
    /// Together with the rest the server receives the rows of the primary's reparent journal: there may be more than
    /// it had then.
    pub fn after(chosen: &ServerStatus, primary: &ServerStatus) -> Self {
        let grounds = Self::of(chosen, primary.gtid_executed.clone());
        Self { journal_length: primary.journal_length.max(grounds.journal_length), ..grounds }
    }

    /// Says why a server in this state is not the one that was chosen.
    ///
    /// Whoever follows nobody any more has been promoted already, by a first attempt: it is only made sure of.
    pub fn check(&self, status: &ServerStatus) -> Result<(), CommandError> {
        if sabotage::has(Bug::HalfPromotedIsNot) {
            return Ok(());
        }
        let differs = |why: String| Err(CommandError::NotDone(why));
        let missing = self.position.subtract(&status.gtid_executed);
        if !missing.is_empty() {
            return differs(format!("it does not have {} any more", missing.shown()));
        }
        if let Some(replication) = &status.replication {
            if self.source.as_ref() != Some(&replication.source) {
                return differs(format!("it follows {} since it was chosen", replication.source));
            }
            // What one writes that is open already, it writes as primary: a first attempt opened it.
            let own = self.own.as_ref().filter(|_| status.read_only);
            let written = own.map(|own| status.written_by_itself().subtract(own));
            if let Some(written) = written.filter(|written| !written.is_empty()) {
                return differs(format!("it wrote {} since it was chosen", written.shown()));
            }
            if self.receiver_stopped && replication.receiver != ReceiverState::Stopped {
                return differs("its receiver was started since it was chosen".into());
            }
        }
        match (self.journal_length, status.journal_length) {
            (Some(then), Some(now)) if now > then => {
                differs("the shard was reparented since".into())
            }
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }
}
