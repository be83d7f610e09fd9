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
    /// Who was to take over from it and did not: it may follow that one already, and has nothing from there.
    pub successor: Option<MysqlAddress>,
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
            successor: None,
            receiver_stopped: replication
                .is_some_and(|replication| replication.receiver == ReceiverState::Stopped),
            journal_length: status.journal_length,
        }
    }

    /// The grounds of a server that was chosen in the first state, and has caught up in the second. What it wrote in
    /// between is none of the shard's, unless it got that back from others: then it is part of the position.
    pub fn caught_up(chosen: &ServerStatus, now: &ServerStatus, position: GtidSet) -> Self {
        let back = position.of_writer(&chosen.identity());
        let own = chosen.written_by_itself().union(&back);
        Self { own: Some(own), ..Self::of(now, position) }
    }

    /// The grounds of a primary that is to take writes again, as it was found in this state.
    pub fn of_primary(status: &ServerStatus) -> Self {
        Self { receiver_stopped: false, ..Self::of(status, status.gtid_executed.empty_like()) }
    }

    /// The grounds of a primary that is to take writes again because its successor did not: it was found in this state,
    /// and refused writes in the last one.
    pub fn again(
        status: &ServerStatus,
        last: &ServerStatus,
        successor: Option<MysqlAddress>,
    ) -> Self {
        Self {
            position: last.gtid_executed.clone(),
            own: Some(last.written_by_itself()),
            successor,
            ..Self::of_primary(status)
        }
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
            if self.successor.as_ref() == Some(&replication.source) {
                let came = status.gtid_received().subtract(&self.position);
                if !came.is_empty() {
                    return differs(format!("it has {} from its successor", came.shown()));
                }
            } else if self.source.as_ref() != Some(&replication.source) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    fn address(host: &str) -> MysqlAddress {
        MysqlAddress { host: host.into(), port: 3306 }
    }

    #[test]
    fn what_somebody_writes_on_a_candidate_while_it_catches_up_is_seen() {
        let set = |text: &str| GtidSet::parse_mysql(text).unwrap();
        let mut chosen = testkit::status();
        chosen.read_only = true;
        chosen.replication = Some(testkit::replication(address("a")));
        chosen.server_uuid = Some("00000001-0000-0000-0000-000000000000".into());
        chosen.gtid_executed = set("00000001-0000-0000-0000-000000000000:1-5");
        // It lacks the end of what it wrote as a former primary, and gets that back from others.
        let position = set("00000001-0000-0000-0000-000000000000:1-7");
        for (has, is_own) in [("1-7", true), ("1-8", false)] {
            let mut now = chosen.clone();
            now.gtid_executed = set(&format!("00000001-0000-0000-0000-000000000000:{has}"));
            let grounds = PromotionGrounds::caught_up(&chosen, &now, position.clone());
            assert_eq!(grounds.check(&now).is_ok(), is_own, "{has}");
        }
    }

    #[test]
    fn a_primary_whose_successor_failed_may_follow_it_already_and_has_nothing_from_it() {
        let set = |text: &str| GtidSet::parse_mysql(text).unwrap();
        let mut found = testkit::status();
        found.server_uuid = Some("00000001-0000-0000-0000-000000000000".into());
        found.gtid_executed = set("00000001-0000-0000-0000-000000000000:1-5");
        // It went on writing until it was closed.
        let mut last = found.clone();
        last.read_only = true;
        last.gtid_executed = set("00000001-0000-0000-0000-000000000000:1-9");
        let mut now = last.clone();
        now.replication = Some(testkit::replication(address("b")));
        let again = |successor| PromotionGrounds::again(&found, &last, Some(address(successor)));
        assert_eq!(again("b").check(&now), Ok(()));
        assert!(again("c").check(&now).is_err(), "it follows somebody else");
        assert!(PromotionGrounds::of_primary(&found).check(&now).is_err());
        now.gtid_executed =
            set("00000001-0000-0000-0000-000000000000:1-9,00000002-0000-0000-0000-000000000000:1");
        assert!(again("b").check(&now).is_err(), "it applied what the successor wrote");
    }
}
