//! Who takes part in an election, and what the winner must satisfy.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::durability::DurabilityPolicy;
use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::knowledge::memory::{Losses, OwnWrites};
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;
use crate::status::{Flavor, ServerStatus};
use crate::tablet::Tablet;
use crate::time::Timestamp;

use super::reason::{PassedOver, Reason};
use super::safety::cannot_acknowledge_alone;

/// A tablet that answered while everything stood still: its record and its server's state.
#[derive(Clone, Debug)]
pub struct Contender {
    /// The record.
    pub tablet: Tablet,
    /// Its server, read after its receiver was stopped.
    pub status: ServerStatus,
    /// It was replicating from something before its receiver was stopped.
    pub was_replica: bool,
    /// It follows the records' primary, or a replica of that one.
    pub follows_primary: bool,
    /// What it had while the primary was asked and lacked it: whatever that is, the primary never acknowledged it.
    pub had_before: GtidSet,
    /// It led before the present primary, of which nothing was heard in its own term: what it wrote may be what that
    /// one has.
    pub led_before: bool,
    /// What it took from a stranger at a tablet's address: transactions of somebody else's.
    pub foreign: GtidSet,
    /// What somebody committed on replicas and no server of the shard wrote.
    pub of_nobody: GtidSet,
    /// What it wrote itself while it followed somebody; of a MariaDB.
    pub own_writes: OwnWrites,
    /// What it was seen to have lost of what it wrote, though it may have written under the same GTIDs since.
    pub losses: Losses,
    /// What it acknowledged may be gone (`relay_log_recovery`, `sync_binlog` is not 1): its process began to run after
    /// the primary was last heard.
    pub restarted: bool,
    /// What it said that it has, and does not have any more.
    pub forgotten: GtidSet,
    /// It acknowledged nothing beyond this, having acknowledged nothing since before the primary was last asked; none
    /// where it may have.
    pub acknowledged_at_most: Option<GtidSet>,
    /// It acknowledges, or may have done so before it answered, whatever it is now.
    pub may_have_acknowledged: bool,
    /// Replicas could not log in there, as somebody found who tried.
    pub refuses_replicas: bool,
    /// So long at least is its reparent journal, by what was read before.
    pub journal_at_least: u64,
}

impl Contender {
    /// A tablet as it answered, and what is known of it from before.
    pub fn new(tablet: &Tablet, status: ServerStatus, snapshot: &ShardSnapshot) -> Self {
        let state = snapshot.tablet(&tablet.alias);
        Self {
            tablet: tablet.clone(),
            was_replica: status.replication.is_some(),
            follows_primary: follows_primary(&status, snapshot),
            had_before: had_before(&tablet.alias, snapshot)
                .unwrap_or_else(|| status.gtid_executed.empty_like()),
            led_before: led_before(&tablet.alias, snapshot),
            foreign: snapshot.foreign(&status),
            of_nobody: snapshot.of_nobody(&tablet.alias, &status),
            losses: state.map(|state| state.losses.clone()).unwrap_or_default(),
            own_writes: state.map(|state| state.own_writes.clone()).unwrap_or_default(),
            restarted: false,
            forgotten: status.gtid_executed.empty_like(),
            acknowledged_at_most: acknowledged_at_most(&tablet.alias, snapshot),
            may_have_acknowledged: status.acknowledges()
                || state.is_some_and(|state| snapshot.may_have_acknowledged(state)),
            refuses_replicas: false,
            journal_at_least: 0,
            status,
        }
    }

    /// The same of one that answered under the lock, at this moment at the latest: whether it may have forgotten what
    /// it acknowledged. (No probe asks for the uptime.)
    pub fn by_its_memory(self, snapshot: &ShardSnapshot, answered_by: Timestamp) -> Self {
        let state = snapshot.tablet(&self.tablet.alias);
        let restarted = started_since_primary_was_heard(&self.status, snapshot, answered_by)
            && !state
                .is_some_and(|state| received_since(state, snapshot, &self.status, answered_by));
        let forgotten = state.and_then(|state| state.forgotten_by(&self.status));
        // Neither what the primary never had nor its own writes came to it from the primary.
        let forgotten = forgotten
            .map(|all| all.subtract(&self.had_before).without_writer(&self.status.identity()));
        let forgotten = forgotten.unwrap_or_else(|| self.forgotten.clone());
        Self { restarted, forgotten, ..self }
    }

    /// Everybody of a snapshot who answered the last probe. No probe reads the reparent journal: what was read of it
    /// before in this term stands in.
    pub fn of(snapshot: &ShardSnapshot) -> Vec<Self> {
        let mut all = Self::by(snapshot, TabletState::valid_status);
        for one in &mut all {
            let state = snapshot.tablet(&one.tablet.alias);
            if let Some(known) = state.and_then(|state| state.journal.as_ref()) {
                one.journal_at_least = known.length;
                let same = known.executed == one.status.gtid_executed;
                let length = Some(known.length).filter(|_| same);
                one.status.journal_length = one.status.journal_length.or(length);
            }
        }
        all
    }

    /// Everybody of a snapshot who ever answered, by the last word of each: nobody loses what it had by being out of
    /// sight.
    pub fn heard(snapshot: &ShardSnapshot) -> Vec<Self> {
        Self::by(snapshot, |state| state.status.as_deref())
    }

    fn by(
        snapshot: &ShardSnapshot,
        word: impl Fn(&TabletState) -> Option<&ServerStatus>,
    ) -> Vec<Self> {
        let states = snapshot.tablets.values();
        let words = states.filter_map(|state| Some((&state.tablet, word(state)?.clone())));
        words.map(|(tablet, status)| Self::new(tablet, status, snapshot)).collect()
    }

    /// Its GTIDs stand for data that it does not have: others cannot get it from here.
    pub fn is_filtered(&self) -> bool {
        self.was_replica && self.filters()
    }

    /// It would not apply all that it gets from others: it cannot catch up, and its acknowledgement is worth nothing.
    pub(super) fn filters(&self) -> bool {
        self.status.is_filtered() && !sabotage::has(Bug::TrustFiltered)
    }

    /// What it has counts: by its type, or because it acknowledges, or did, whatever its type is.
    pub(super) fn is_witness(&self) -> bool {
        let stray = self.may_have_acknowledged && !sabotage::has(Bug::CountPolicyAckersOnly);
        self.tablet.tablet_type.is_witness() || stray
    }

    /// Others can get what it has from its binary logs.
    pub(super) fn is_source(&self) -> bool {
        let logs = self.status.log_bin && self.status.log_replica_updates;
        logs && self.status.gtid_mode_on && !self.is_filtered()
    }

    /// Applies late on purpose.
    pub(super) fn delay_seconds(&self) -> u64 {
        self.status.replication.as_ref().map_or(0, |replication| replication.delay_seconds)
    }

    /// Everything of the shard's that it committed or received.
    pub fn received(&self) -> GtidSet {
        let received = self.status.gtid_received();
        if self.foreign.is_empty() { received } else { received.subtract(&self.foreign) }
    }

    /// Others could not log in there: it can neither send them what they lack nor have its writes acknowledged.
    pub(super) fn turns_replicas_away(&self) -> bool {
        self.refuses_replicas || self.status.offline
    }

    /// What it wrote itself, lost, and the other has.
    pub(super) fn lost_to(&self, other: &Contender) -> Option<GtidSet> {
        self.losses.lost(&self.status, &other.status)
    }

    pub(super) fn journal(&self) -> u64 {
        self.status.journal_length.unwrap_or(0).max(self.journal_at_least)
    }

    /// The other's binary logs still hold all that this one lacks. (A clone's begin where it was made.)
    pub(super) fn can_follow(&self, source: &Contender) -> bool {
        let needed = &source.status.gtid_purged;
        needed.is_empty() || needed.ahead_of(&self.received()).is_empty()
    }

    /// Why it could not serve at once as a primary that so many others follow.
    pub(super) fn hindrance(&self, followers: usize) -> Option<Reason> {
        if sabotage::has(Bug::TryOneOnly) {
            return None;
        }
        let free = self.status.free_connections;
        let is_full = free.is_some_and(|free| (free as usize) < followers);
        if self.refuses_replicas && !sabotage::has(Bug::ForgetReplicaUser) {
            return Some(Reason::NoLogin);
        }
        match (self.status.writes_wait, self.status.backup_runs, is_full) {
            (true, _, _) => Some(Reason::Locked),
            (false, true, _) => Some(Reason::BackedUp),
            (false, false, true) => Some(Reason::NoConnections),
            (false, false, false) => None,
        }
    }

    /// It has something received that nobody is applying.
    pub(super) fn applier_stands(&self) -> bool {
        let stopped = self
            .status
            .replication
            .as_ref()
            .is_some_and(|replication| !replication.applier_running);
        stopped && !self.status.gtid_executed.contains(&self.received())
    }
}

/// Nobody was tried before.
pub static NOBODY: BTreeSet<TabletAlias> = BTreeSet::new();

/// What the winner must satisfy beside its position.
#[derive(Clone, Debug)]
pub struct Constraints<'a> {
    /// The keyspace's policy.
    pub policy: DurabilityPolicy,
    /// The configuration.
    pub settings: &'a RecoverySettings,
    /// The primary that is replaced.
    pub old_primary: Option<&'a TabletAlias>,
    /// The tablet that an operator asked for.
    pub wanted: Option<&'a TabletAlias>,
    /// The tablet that an operator wants to avoid.
    pub avoid: Option<&'a TabletAlias>,
    /// Everybody who could hold a write of this shard was reached.
    pub complete: bool,
    /// What the old primary last answered: what it had is no error of anybody else.
    pub last_known: Option<&'a ServerStatus>,
    /// What the old primary, which was not reached, was seen to have had acknowledged: nobody is promoted without it.
    pub promised: Option<&'a Promised>,
    /// Those who may have acknowledged what the old primary wrote; none where any of them may have.
    pub ackers: Option<BTreeSet<TabletAlias>>,
    /// Those whose records cannot be read now: that they are primary could not be written there.
    pub unread: &'a BTreeSet<TabletAlias>,
    /// Those who were to be promoted just now, and refused.
    pub refused: &'a BTreeSet<TabletAlias>,
}

impl<'a> Constraints<'a> {
    /// Nobody is replaced, wanted or avoided, and nothing is known of what was acknowledged.
    pub fn plain(
        policy: DurabilityPolicy,
        settings: &'a RecoverySettings,
        unread: &'a BTreeSet<TabletAlias>,
    ) -> Self {
        Self {
            policy,
            settings,
            unread,
            refused: &NOBODY,
            old_primary: None,
            wanted: None,
            avoid: None,
            complete: false,
            last_known: None,
            promised: None,
            ackers: None,
        }
    }

    /// What the old primary was seen to have had acknowledged, where it was not reached. One that was reached is
    /// judged by what it has.
    pub(super) fn promised_by_absent(&self, everybody: &[Contender]) -> Option<&'a Promised> {
        let reached =
            |promised: &&Promised| everybody.iter().any(|one| one.tablet.alias == promised.by);
        self.promised.filter(|promised| !reached(promised))
    }
}

/// A commit that was acknowledged is answered within this, or the primary stands still.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

fn acknowledged_at_most(alias: &TabletAlias, snapshot: &ShardSnapshot) -> Option<GtidSet> {
    let primary = snapshot.primary()?;
    let quiet_since = snapshot.tablet(alias)?.quiet_since?;
    let before =
        quiet_since <= primary.status_at && quiet_since.age(primary.status_at) >= ANSWERED_WITHIN;
    primary.status.as_ref().filter(|_| before).map(|status| status.gtid_executed.clone())
}

/// A candidate of an earlier attempt follows the one from whom it was to get what it lacks, a replica itself.
fn follows_primary(status: &ServerStatus, snapshot: &ShardSnapshot) -> bool {
    let (Some(channel), Some(primary)) = (&status.replication, snapshot.primary()) else {
        return false;
    };
    let is_replica = |other: &TabletState| {
        let said = other.status.as_ref().filter(|said| !said.is_writable());
        let source = said.and_then(|said| said.replication.as_ref());
        source.is_some_and(|source| primary.is_source_of(source))
    };
    let mut replicas = snapshot.replicas_of(&primary.tablet.alias).filter(|one| is_replica(one));
    primary.is_source_of(channel) || replicas.any(|replica| replica.is_source_of(channel))
}

/// Whoever was promoted may have all that the one before had written, and not have said so yet.
fn led_before(alias: &TabletAlias, snapshot: &ShardSnapshot) -> bool {
    let unheard = snapshot.primary().is_none_or(|primary| snapshot.asked_before_term(primary));
    unheard && snapshot.tablet(alias).is_some_and(|state| state.led_before)
}

/// What such a tablet has counts: by its type, or because it acknowledges whatever its type is.
pub fn is_witness(tablet: &Tablet, status: &ServerStatus) -> bool {
    let stray = status.acknowledges() && !sabotage::has(Bug::CountPolicyAckersOnly);
    tablet.tablet_type.is_witness() || stray
}

/// What a primary was seen to have had acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promised {
    /// Which primary.
    pub by: TabletAlias,
    /// What it wrote.
    pub gtids: GtidSet,
}

/// What the primary that is replaced was last seen to have written, where all that can be seen was acknowledged by the
/// policy's measure.
pub fn promised(policy: DurabilityPolicy, old_primary: Option<&TabletState>) -> Option<Promised> {
    let old = old_primary?;
    let last = old.status.as_deref()?;
    let acknowledged = cannot_acknowledge_alone(policy, Some(last))
        && last.semi_sync.seen_is_acknowledged
        && last.semi_sync.source_active;
    acknowledged.then(|| Promised { by: old.tablet.alias.clone(), gtids: last.written_by_itself() })
}

pub(super) fn passed(contender: &Contender, reason: Reason) -> PassedOver {
    PassedOver { alias: contender.tablet.alias.clone(), reason }
}

/// What it wrote, somebody else has, and it has no more.
pub(super) fn lost_own(contender: &Contender, everybody: &[Contender]) -> Option<GtidSet> {
    if sabotage::has(Bug::TrustSurvivors) {
        return None;
    }
    let others = everybody.iter().filter(|other| other.tablet.alias != contender.tablet.alias);
    let mut lost = others.filter_map(|other| contender.lost_to(other));
    lost.next()
}

/// Whether a server began to run after the primary was last heard. Servers count whole seconds: one that began within a
/// second after that may count as one that ran on.
fn started_since_primary_was_heard(
    status: &ServerStatus,
    snapshot: &ShardSnapshot,
    answered_by: Timestamp,
) -> bool {
    let silence = snapshot.last_heard().map(|heard| heard.age(answered_by));
    status.uptime.zip(silence).is_some_and(|(uptime, silence)| uptime < silence)
}

/// A primary sends whoever connects what it lacks, in order: this long after a start nothing is missing of what was
/// thrown away by it.
const SENT_AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// Whether it received something from the primary long after its process began to run: that lived then, though it was
/// not heard here. Something else arrived since the start, or what was seen was the start itself.
fn received_since(
    state: &TabletState,
    snapshot: &ShardSnapshot,
    status: &ServerStatus,
    answered_by: Timestamp,
) -> bool {
    let channel = state.status.as_ref().and_then(|said| said.replication.as_ref());
    let from_primary = channel.zip(snapshot.primary());
    if !from_primary.is_some_and(|(channel, primary)| primary.is_source_of(channel)) {
        return false;
    }
    let later_by = |at: Option<Timestamp>| status.uptime?.checked_sub(at?.age(answered_by));
    later_by(state.arrivals.before).is_some()
        && later_by(state.arrivals.last).is_some_and(|later| later >= SENT_AGAIN_WITHIN)
}

/// What a tablet had when it answered before the primary was last asked, and the primary lacked: it cannot be what the
/// primary acknowledged later. None where that cannot be told: MariaDB's positions do not say.
pub(super) fn had_before(alias: &TabletAlias, snapshot: &ShardSnapshot) -> Option<GtidSet> {
    let primary = snapshot.primary().filter(|primary| primary.tablet.alias != *alias)?;
    let (state, source) = (snapshot.tablet(alias)?, primary.status.as_deref()?);
    let uuid = source.server_uuid.as_ref().filter(|_| source.flavor == Flavor::MySql)?;
    let timely = state.words().filter(|(_, answered_at)| *answered_at <= primary.status_at);
    let had =
        timely.fold(GtidSet::empty_mysql(), |all, (status, _)| all.union(&status.gtid_received()));
    Some(had.subtract(&source.gtid_executed).without_source(uuid))
}
