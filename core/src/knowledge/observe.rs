//! What is known of one tablet, and how an answer becomes knowledge.

use std::sync::Arc;
use std::time::Duration;

use super::health::{self, ProbeFailure, ProbeHistory, Reachability, RecentProbes};
use super::memory::{Arrivals, Journal, Losses, OwnWrites};
use crate::gtid::GtidSet;
use crate::ids::{ServerIdentity, TabletAlias};
use crate::sabotage::{self, Bug};
use crate::source_access::ChannelTls;
use crate::status::{ReceiverState, ReplicationStatus, ServerStatus, VttabletState};
use crate::tablet::{Tablet, TabletType};
use crate::time::Timestamp;

/// Without a word from the source for so many heartbeat periods, a replica does not receive any more.
pub const HEARTBEATS_MISSED_MAX: u32 = 3;
/// What was received so long ago says nothing about now.
const HEARD_LATELY: Duration = Duration::from_secs(1);

/// One tablet: its record and what is known of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TabletState {
    /// The record.
    pub tablet: Tablet,
    /// Which server is known to be the tablet's; none until that is known.
    pub identity: Option<ServerIdentity>,
    /// That server was seen with the shard's history, or following its primary: it is the tablet's, whatever becomes of
    /// it.
    pub proven: bool,
    /// What somebody else's server said that answers at its address; none once its own answers there.
    pub stranger: Option<Arc<ServerStatus>>,
    /// Whether its server can be reached.
    pub reachability: Reachability,
    /// The last successful probe's answer.
    pub status: Option<Arc<ServerStatus>>,
    /// When that probe was sent.
    pub status_at: Timestamp,
    /// When the last probe was sent of which it is known how it ended.
    pub asked_at: Timestamp,
    /// When it was answered.
    pub answered_at: Timestamp,
    /// Some answers before, and when they came: only what somebody said before another was asked can be held
    /// against the other.
    pub earlier: Vec<(Arc<ServerStatus>, Timestamp)>,
    /// When something last arrived from the source, as far as probes could see.
    pub received_at: Option<Timestamp>,
    /// When its source certainly sent it something.
    pub arrivals: Arrivals,
    /// Since when commits wait for acknowledgements and none gets through, as far as probes could see.
    pub stuck_since: Option<Timestamp>,
    /// Its reparent journal, if it was read in this term.
    pub journal: Option<Journal>,
    /// What it last said in this term while it took writes and followed nobody.
    pub as_primary: Option<Arc<ServerStatus>>,
    /// It was primary before the present one.
    pub led_before: bool,
    /// Its record led to another address before, as this process saw.
    pub moved: bool,
    /// Since when its answers say that it acknowledges nothing.
    pub quiet_since: Option<Timestamp>,
    /// How its channel protected the connection to its source, when it last had one.
    pub channel_tls: Option<ChannelTls>,
    /// What it was seen to have lost of what it wrote.
    pub losses: Losses,
    /// What it wrote itself while it followed somebody, and was not the primary; of a MariaDB.
    pub own_writes: OwnWrites,
    /// What it said in this term that it has, and did not have any more in its last answer; none if nothing.
    pub forgotten: Option<GtidSet>,
    /// Probes failed and succeeded in the last [`super::health::WINDOW`].
    pub recent: RecentProbes,
    /// What became of its probes.
    pub history: ProbeHistory,
}

/// How a probe of one server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was sent.
    pub sent_at: Timestamp,
    /// The server's state, or why there is none.
    pub result: Result<Arc<ServerStatus>, ProbeFailure>,
    /// The tablet of another shard whose server gave this answer.
    pub claimed_by: Option<TabletAlias>,
}

/// So many earlier answers of a server are kept, ...
const EARLIER_MAX: usize = 6;
/// ... every second of them so far apart at least: together they reach back to before anybody else was last asked.
const EARLIER_APART: Duration = Duration::from_millis(300);

/// What a replica says about receiving from the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiving {
    /// It is connected and hears from its source.
    Yes,
    /// It is not connected, or has not heard from its source for three heartbeats.
    No,
    /// Not asked since the question arose, or it cannot tell.
    Unknown,
}

impl TabletState {
    /// A tablet whose server was never asked.
    pub fn unprobed(tablet: Tablet) -> Self {
        Self {
            tablet,
            identity: None,
            proven: false,
            stranger: None,
            reachability: Reachability::Unseen,
            status: None,
            status_at: Timestamp::default(),
            asked_at: Timestamp::default(),
            answered_at: Timestamp::default(),
            earlier: Vec::new(),
            received_at: None,
            arrivals: Arrivals::default(),
            stuck_since: None,
            journal: None,
            as_primary: None,
            led_before: false,
            moved: false,
            channel_tls: None,
            quiet_since: None,
            losses: Losses::default(),
            own_writes: OwnWrites::default(),
            forgotten: None,
            recent: RecentProbes::default(),
            history: ProbeHistory::default(),
        }
    }

    /// Takes in an answer. This is the only place where an answer becomes knowledge, for probes and for the second look
    /// under the shard's lock alike: where the two differ, the shard has changed between them.
    pub fn observe(&mut self, answer: Answer, now: Timestamp) {
        let Answer { sent_at, result, claimed_by: _ } = answer;
        self.asked_at = sent_at;
        match result {
            Ok(status) => {
                self.history.succeeded(now);
                let before = self.status.as_deref();
                if marker(&status) != before.and_then(marker) {
                    self.received_at = Some(now);
                }
                if let Some(before) = before {
                    self.arrivals.hear(before, &status, now);
                }
                self.stuck_since = stuck_since(&status, before, self.stuck_since, sent_at);
                let same = before.is_some_and(|before| before.identity() == status.identity());
                let cloned = !self.reachability.is_valid()
                    && self.losses.certain().is_some_and(|lost| status.gtid_purged.contains(lost));
                self.forgotten = self.forgotten_by(&status);
                if !same {
                    self.journal = None;
                    self.as_primary = None;
                }
                if status.is_writable() && status.replication.is_none() {
                    self.as_primary = Some(status.clone());
                }
                if !same || cloned {
                    self.losses = Losses::default();
                }
                match before.filter(|_| same && self.tablet.tablet_type != TabletType::Primary) {
                    Some(before) => self.own_writes.hear(before, &status),
                    None if same => {}
                    None => self.own_writes = OwnWrites::default(),
                }
                // One that was told to stop acknowledges until its receiver is restarted.
                let quiet = !status.semi_sync.replica_enabled && !status.semi_sync.replica_active;
                self.quiet_since = quiet.then(|| self.quiet_since.unwrap_or(now));
                let channel = status.replication.as_ref();
                if let Some(tls) = channel.and_then(|channel| channel.tls.clone()) {
                    self.channel_tls = Some(tls);
                }
                self.remember();
                self.status = Some(status);
                self.status_at = sent_at;
                self.answered_at = now;
            }
            Err(failure) => self.history.failed(failure, sent_at),
        }
        self.judge(now);
    }

    /// What the same server said in this term that it has, and does not have any more in this answer.
    pub fn forgotten_by(&self, answer: &ServerStatus) -> Option<GtidSet> {
        let before = self.status.as_deref()?;
        if before.identity() != answer.identity() {
            return None;
        }
        let (had, has) = (before.gtid_received(), answer.gtid_received());
        // Nearly always it has all that it had.
        let had = match &self.forgotten {
            None if has.contains(&had) => return None,
            None => had,
            Some(forgotten) => forgotten.union(&had),
        };
        Some(had.subtract(&has)).filter(|left| !left.is_empty())
    }

    /// Keeps the last answer beside the next one.
    fn remember(&mut self) {
        self.earlier.extend(self.status.clone().map(|status| (status, self.answered_at)));
    }

    /// Forgets those that came shortly before a later one, and the oldest of too many, but never the last that came
    /// before the primary was asked: as long as the primary is silent, no later one says what the server had by then.
    pub(super) fn forget(&mut self, primary_asked_at: Option<Timestamp>) {
        let needed = self.earlier.iter().rposition(|(_, answered_at)| {
            primary_asked_at.is_some_and(|asked_at| *answered_at <= asked_at)
        });
        if let [.., before, _, after] = self.earlier.as_slice() {
            let middle = self.earlier.len() - 2;
            if before.1.age(after.1) < EARLIER_APART && needed != Some(middle) {
                self.earlier.remove(middle);
            }
        }
        if self.earlier.len() > EARLIER_MAX {
            self.earlier.remove(usize::from(needed == Some(0)));
        }
    }

    /// Says what its probes amount to at this moment.
    pub fn judge(&mut self, now: Timestamp) {
        self.reachability = health::judge(&self.history, now);
        self.recent = self.history.recent(now);
    }

    /// The last answer, if the last probe succeeded.
    pub fn valid_status(&self) -> Option<&ServerStatus> {
        self.status.as_deref().filter(|_| self.reachability.is_valid())
    }

    /// What it said last before somebody else was asked.
    pub fn word_before(&self, asked_at: Timestamp) -> Option<&ServerStatus> {
        let before = self.words().filter(|(_, answered_at)| *answered_at <= asked_at);
        before.last().map(|(status, _)| status)
    }

    /// The same; the first that is known of it where nothing of before is.
    pub fn word_at(&self, asked_at: Timestamp) -> Option<&ServerStatus> {
        self.word_before(asked_at).or_else(|| self.words().next().map(|(status, _)| status))
    }

    /// What is known of what it said, and when it answered so, in order of time.
    pub fn words(&self) -> impl Iterator<Item = (&ServerStatus, Timestamp)> {
        let earlier = self.earlier.iter().map(|(status, at)| (status.as_ref(), *at));
        earlier.chain(self.status.as_deref().map(|status| (status, self.answered_at)))
    }

    /// It acknowledged by anything that is known of what it said.
    pub fn acknowledged_lately(&self) -> bool {
        self.words().any(|(status, _)| status.acknowledges())
    }

    /// What this server wrote itself, lost, and `other` has: by what that answered before this one was asked, as far as
    /// it did not lose it too since. Somebody who cannot be reached any more has not forgotten it by that.
    pub fn lost_to(&self, other: &TabletState) -> Option<GtidSet> {
        let known = || {
            self.valid_status()?;
            self.losses.kept_in(&other.status.as_deref()?.gtid_received())
        };
        self.lacks_of_its_own(other).or_else(known)
    }

    /// The same by its last answer alone.
    pub(super) fn lacks_of_its_own(&self, other: &TabletState) -> Option<GtidSet> {
        let (mine, theirs) = (self.valid_status()?, other.status.as_deref()?);
        let timely = other.words().filter(|(_, answered_at)| *answered_at <= self.status_at);
        let lost = timely.filter_map(|(theirs, _)| mine.lost_to(theirs));
        let mut still_there = lost.map(|lost| lost.intersect(&theirs.gtid_received()));
        still_there.find(|lost| !lost.is_empty())
    }

    /// Its vttablet says that it cannot write to its disk. That is not over because it is slow to say so again: until
    /// its silence is a verdict, its last word stands.
    pub fn disk_stalled(&self) -> bool {
        let word = match &self.reachability {
            Reachability::Valid | Reachability::Suspect { .. } => self.status.as_ref(),
            Reachability::Unseen
            | Reachability::Unreachable { .. }
            | Reachability::TurnedAway { .. } => None,
        };
        let said = word.and_then(|status| status.vttablet.as_ref());
        matches!(said, Some(VttabletState::Answers { disk_stalled: true, .. }))
            || self.reachability.failure() == Some(&ProbeFailure::DiskStalled)
    }

    /// The shard's channel as the last answer told of it, if the last probe succeeded and there is one.
    pub fn channel(&self) -> Option<&ReplicationStatus> {
        self.valid_status()?.replication.as_ref()
    }

    /// What the stranger at its address said, if it is certain that this is not the tablet's server: another one is
    /// known.
    pub fn certain_stranger(&self) -> Option<&ServerStatus> {
        let another =
            |one: &&ServerStatus| self.identity.as_ref().is_some_and(|own| *own != one.identity());
        self.stranger.as_deref().filter(another)
    }

    /// Tells whether a channel leads to the stranger at its address.
    pub fn leads_to_stranger(&self, channel: &ReplicationStatus) -> bool {
        let stranger = self.certain_stranger();
        stranger.is_some_and(|one| channel.knows_source() && one.is_source_of(channel, None))
    }

    /// Tells whether a channel leads here, by the record's address or by who was connected to.
    pub fn is_source_of(&self, channel: &ReplicationStatus) -> bool {
        if self.leads_to_stranger(channel) {
            return false;
        }
        let address = self.tablet.mysql.as_ref();
        address == Some(&channel.source)
            || self.status.as_ref().is_some_and(|known| known.is_source_of(channel, address))
    }

    /// Whether this replica receives from its source, judged only by answers younger than `asked_at`, and by what was
    /// so when it answered: a vtorc that stood still meanwhile must not take its own silence for the source's.
    ///
    /// A receiver that is merely idle proves nothing: without heartbeats that can be seen, a running
    /// receiver counts as receiving until the server itself notices.
    pub fn receiving(&self, asked_at: Timestamp) -> Receiving {
        let Some(status) = self.valid_status() else { return Receiving::Unknown };
        if self.status_at < asked_at {
            return Receiving::Unknown;
        }
        let Some(replication) = &status.replication else { return Receiving::No };
        match replication.receiver {
            ReceiverState::Stopped | ReceiverState::Connecting => return Receiving::No,
            ReceiverState::Running if sabotage::has(Bug::IdleIsDead) => return Receiving::No,
            ReceiverState::Running => {}
        }
        let Some(period) = replication.heartbeat_period_ms else { return Receiving::Yes };
        if !replication.marker_sees_heartbeats {
            return Receiving::Yes;
        }
        let silence_max = Duration::from_millis(period) * HEARTBEATS_MISSED_MAX;
        match self.received_at {
            Some(received_at) if received_at.age(self.answered_at) >= silence_max => Receiving::No,
            Some(_) | None => Receiving::Yes,
        }
    }

    /// Whether it was seen to get something from its source since `asked_at`, and lately. A server whose heartbeats are
    /// not vtorc's to set can only speak for its source: its silence is no sign of anything.
    pub fn has_heard(&self, asked_at: Timestamp, now: Timestamp) -> bool {
        let lately = |at: Timestamp| at >= asked_at && at.age(now) <= HEARD_LATELY;
        self.receiving(asked_at) == Receiving::Yes && self.received_at.is_some_and(lately)
    }
}

/// Since when commits wait and nothing gets through: from the first probe that saw somebody wait, as long as
/// no transaction was committed since.
fn stuck_since(
    status: &ServerStatus,
    before: Option<&ServerStatus>,
    since: Option<Timestamp>,
    sent_at: Timestamp,
) -> Option<Timestamp> {
    if status.semi_sync.waiting_sessions == 0 {
        return None;
    }
    let progressed = before.is_some_and(|before| before.gtid_executed != status.gtid_executed);
    since.filter(|_| !progressed).or(Some(sent_at))
}

fn marker(status: &ServerStatus) -> Option<&String> {
    status.replication.as_ref().map(|replication| &replication.received_marker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    #[test]
    fn the_last_word_before_a_silent_primary_was_asked_stays_known() {
        let aliases = ["zone1-1".parse().unwrap()];
        let tablet = testkit::shard(&aliases).tablets.into_values().next().unwrap();
        // When it answered, of which how many there are shortly after each other, and when the primary was asked.
        for (shortly, primary_asked) in [(2_u32, 100), (2, 1_050), (5, 100), (5, 1_050)] {
            let mut state = TabletState::unprobed(tablet.clone());
            let spell = |start: u64| (0..shortly).map(move |n| start + u64::from(n) * 20);
            let answers = spell(0).chain((1..60).map(|n| n * 1_000)).chain(spell(60_000));
            for at in answers {
                let mut status = testkit::status();
                status.semi_sync.clients = u32::try_from(at).unwrap();
                let at = Timestamp::from_millis(at);
                let answer = Answer { sent_at: at, result: Ok(Arc::new(status)), claimed_by: None };
                state.observe(answer, at);
                let asked_at = Timestamp::from_millis(primary_asked).min(at);
                state.forget(Some(asked_at));
                let word = state.word_at(asked_at).map(|status| status.semi_sync.clients);
                let last_of_spell = (shortly - 1) * 20;
                let expected = if asked_at.as_millis() < 1_000 { last_of_spell } else { 1_000 };
                let expected = expected.min(u32::try_from(at.as_millis()).unwrap());
                assert_eq!(word, Some(expected), "{shortly} {primary_asked} at {at:?}");
                assert!(state.earlier.len() <= EARLIER_MAX);
            }
        }
    }

    #[test]
    fn what_it_threw_away_when_it_was_restarted_stays_known_until_it_has_it_again() {
        let aliases = ["zone1-1".parse().unwrap()];
        let tablet = testkit::shard(&aliases).tablets.into_values().next().unwrap();
        let mut state = TabletState::unprobed(tablet);
        let set = |through: u64| {
            let text = format!("0000000d-0000-0000-0000-000000000000:1-{through}");
            GtidSet::parse_mysql(&text).unwrap()
        };
        let mut says = |at: u64, through: u64| {
            let status = ServerStatus { gtid_executed: set(through), ..testkit::status() };
            let at = Timestamp::from_millis(at);
            let answer = Answer { sent_at: at, result: Ok(Arc::new(status)), claimed_by: None };
            state.observe(answer, at);
            state.forget(None);
            state.forgotten.clone()
        };
        assert_eq!(says(0, 5), None);
        assert_eq!(says(1_000, 9), None);
        for at in 30..60 {
            assert_eq!(says(at * 1_000, 5), Some(set(9).subtract(&set(5))));
        }
        assert_eq!(says(60_000, 8), Some(set(9).subtract(&set(8))));
        assert_eq!(says(61_000, 9), None);
    }
}
