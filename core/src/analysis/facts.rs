//! The facts that the rules are written in, drawn from a snapshot. Facts count; rules judge.

mod ackers;
mod replicas;

use std::time::Duration;

pub use ackers::is_to_acknowledge;
pub use replicas::{ReplicaFacts, errant_gtids, replica_facts};

use super::evidence::{Age, Evidence, Setting, Sight};
use crate::durability::DurabilityPolicy;
use crate::ids::TabletAlias;
use crate::knowledge::health::Reachability;
use crate::knowledge::observe::{Receiving, TabletState};
use crate::knowledge::snapshot::ShardSnapshot;
use crate::reparent::election::{self, Contender, PrimaryPosition, Witnesses};
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;
use crate::status::{Flavor, ReceiverState, ReplicationStatus, ServerStatus, VttabletState};
use crate::tablet::{Tablet, TabletType};
use crate::time::Timestamp;

/// What the shard rules look at.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The keyspace's policy has a known name.
    pub policy_known: bool,
    /// The shard's primary.
    pub primary: Option<TabletAlias>,
    /// There was a primary once, or there may have been one.
    pub had_primary: bool,
    /// There are tablets to choose from.
    pub has_tablets: bool,
    /// The primary's record may be where nobody here could ever read.
    pub primary_may_be_unseen: bool,
    /// The primary's last probe succeeded.
    pub primary_valid: bool,
    /// The primary is taken for gone.
    pub primary_unreachable: bool,
    /// The primary can be reached and fails more often than it answers.
    pub primary_overloaded: bool,
    /// Most of the other tablets time out as well: it is vtorc's own network, or the machine that it runs on.
    pub others_time_out: bool,
    /// The primary was never reached.
    pub primary_unseen: bool,
    /// Managed tablets other than the primary.
    pub replicas_total: usize,
    /// Of those, reached by the last probe.
    pub replicas_valid: usize,
    /// Of those, receiving from the primary since it fails.
    pub replicas_receiving: usize,
    /// Of those, not asked again since the primary fails.
    pub replicas_not_asked: usize,
    /// Tablets that vtorc does not manage, as drained ones, which got something from the primary since it fails, and
    /// lately.
    pub others_hearing: usize,
    /// Of those that receive, none is less far behind than is reasonable.
    pub all_receiving_lag: bool,
    /// Commits wait on the primary for longer than any acknowledgement takes.
    pub primary_stuck: bool,
    /// Ackers connected to the primary.
    pub ackers_connected: u32,
    /// The primary refuses writes.
    pub primary_read_only: bool,
    /// The primary replicates from something.
    pub primary_has_source: bool,
    /// Another tablet takes writes, follows nobody and has all that the primary has; or the primary follows
    /// one that takes writes.
    pub promoted_elsewhere: bool,
    /// The primary takes writes, and so does another tablet that replicas follow.
    pub rival_followed: bool,
    /// It lost transactions that it wrote itself; replicas have them, and nothing that counts of any other term.
    pub primary_lost: bool,
    /// Those reached have transactions that the primary lacks and that are no errors of their own: they
    /// were written in a later term.
    pub others_ahead: bool,
    /// The primary waits for acknowledgements.
    pub primary_semi_sync: bool,
    /// The primary waits for as many as the policy wants, without ever falling back.
    pub primary_semi_sync_right: bool,
    /// Acknowledgements that the policy wants.
    pub acks_required: u32,
    /// Ackers that are enabled and follow the primary.
    pub ackers_ready: u32,
    /// Tablets that are connected to it, could acknowledge, and were not told to yet.
    pub ackers_coming: u32,
    /// Tablets that were heard once, and could acknowledge if they were there.
    pub ackers_possible: u32,
    /// The primary can wait for acknowledgements at all.
    pub primary_semi_sync_available: bool,
    /// The shard's record names the primary and its term.
    pub record_names_primary: bool,
    /// The primary's vttablet publishes the records, and has done so since it is primary.
    pub primary_records_itself: bool,
    /// The primary's vttablet says that it cannot write to its disk.
    pub primary_disk_stalled: bool,
    /// The primary's vttablet does not take itself for one, and its term is not new.
    pub primary_type_mismatch: bool,
    /// What the replica rules look at.
    pub replicas: Vec<ReplicaFacts>,
    /// The observations about the primary.
    pub evidence: Vec<Evidence>,
}

/// Draws the facts from a snapshot.
pub fn facts(snapshot: &ShardSnapshot, settings: &RecoverySettings) -> Facts {
    let policy = snapshot.durability.as_ref().ok().copied();
    let mut facts = Facts {
        policy_known: policy.is_some(),
        had_primary: snapshot.had_primary(),
        has_tablets: has_tablets(snapshot),
        primary_may_be_unseen: primary_may_be_unseen(snapshot),
        ..Facts::default()
    };
    let Some(primary) = snapshot.primary() else {
        facts.evidence = no_primary_evidence(snapshot);
        return facts;
    };
    let alias = &primary.tablet.alias;
    facts.primary = Some(alias.clone());
    // A vttablet's record says PRIMARY before its server is one: what that said before its term was known is no sign of
    // trouble.
    facts.primary_valid = primary.reachability.is_valid() && !snapshot.asked_before_term(primary);
    facts.primary_unreachable = primary.reachability.is_unreachable();
    facts.primary_overloaded = primary.recent.is_incapacitated();
    facts.others_time_out = others_time_out(snapshot, primary);
    facts.primary_unseen = primary.status.is_none();
    vttablet_of_primary(&mut facts, snapshot, primary);
    let named = snapshot.record.primary_alias.as_ref() == Some(alias)
        && snapshot.record.term_start == primary.tablet.term_start;
    // What cannot be read cannot be written either: it is repaired once it can be.
    facts.record_names_primary = named || snapshot.unread_record.is_some();
    facts.evidence.push(reach_evidence(primary, snapshot));
    if facts.primary_overloaded {
        let (pinged, succeeded) = (primary.recent.pinged, primary.recent.succeeded);
        facts.evidence.push(Sight::TimesOut { pinged, succeeded }.here());
    }
    facts.primary_stuck =
        primary.stuck_since.is_some_and(|since| since.age(snapshot.now) >= STUCK_AFTER);
    if let Some(since) = primary.stuck_since {
        let lasts = Age::Lasts(since.age(snapshot.now));
        facts.evidence.push(Sight::CommitsWait.here().aged(lasts));
    }
    count_replicas(&mut facts, snapshot, primary, settings);
    let status = primary.valid_status().filter(|_| facts.primary_valid);
    if let (Some(status), Some(policy)) = (status, policy) {
        primary_settings(&mut facts, snapshot, primary, status, policy, settings);
        facts.replicas = snapshot
            .tablets
            .values()
            .filter(|state| state.tablet.alias != *alias)
            .filter(|state| {
                state.tablet.tablet_type.is_managed()
                    || state.tablet.tablet_type.must_refuse_writes()
            })
            .filter_map(|replica| replica_facts(replica, primary, policy, settings, snapshot))
            .collect();
    }
    facts
}

fn has_tablets(snapshot: &ShardSnapshot) -> bool {
    if sabotage::has(Bug::NeedAllRecords) && !snapshot.unseen.is_empty() {
        return false;
    }
    snapshot.tablets.values().any(|state| state.tablet.tablet_type.is_managed())
}

/// Tells whether the primary's record may be in a cell, or be a record, that could never be read.
fn primary_may_be_unseen(snapshot: &ShardSnapshot) -> bool {
    if snapshot.unread_record.is_some() {
        return true;
    }
    match &snapshot.record.primary_alias {
        Some(alias) => snapshot.is_unseen(alias),
        None => snapshot.record.term_start.is_some() && !snapshot.unseen.is_empty(),
    }
}

fn no_primary_evidence(snapshot: &ShardSnapshot) -> Vec<Evidence> {
    let of_record = match (&snapshot.record.primary_alias, &snapshot.record.term_start) {
        (None, None) if snapshot.had_primary() => Sight::RecordNeverRead,
        (Some(alias), Some(term)) => Sight::RecordNames(alias.clone(), *term),
        (None, Some(term)) => Sight::RecordNamesNobody(*term),
        (Some(_) | None, None) => Sight::NeverHadPrimary,
    };
    let of_tablets = Sight::NoneIsPrimary(snapshot.tablets.len());
    let unread = snapshot.unseen.iter();
    let unread = unread.map(|(place, why)| Sight::Unread(place.clone(), why.clone()));
    [of_tablets, of_record].into_iter().chain(unread).map(Sight::here).collect()
}

fn reach_evidence(state: &TabletState, snapshot: &ShardSnapshot) -> Evidence {
    let alias = &state.tablet.alias;
    match &state.reachability {
        Reachability::Unseen => Sight::NeverReached.of(alias),
        Reachability::Valid => {
            let ago = state.status_at.age(snapshot.now);
            Sight::Answers.of(alias).aged(Age::Answered(ago))
        }
        Reachability::Suspect { since, why }
        | Reachability::Unreachable { since, why }
        | Reachability::TurnedAway { since, why } => {
            let lasts = Age::Lasts(since.age(snapshot.now));
            Sight::Fails(why.clone()).of(alias).aged(lasts)
        }
    }
}

/// Most of the other tablets have timed out in the same window as the primary, if only once: a network that is slow
/// for all hits one of them more often than the others.
fn others_time_out(snapshot: &ShardSnapshot, primary: &TabletState) -> bool {
    let others = snapshot.tablets.values();
    let others =
        others.filter(|other| other.tablet.alias != primary.tablet.alias && other.status.is_some());
    let alike = |other: &&TabletState| other.recent.timed_out > 0;
    let slow = others.clone().filter(alike);
    slow.count() * 2 > others.count() && !sabotage::has(Bug::BlameThePrimary)
}

/// A vttablet that was promoted a moment ago may have been asked before it was.
const TYPE_SETTLES_AFTER: Duration = Duration::from_secs(5);

fn vttablet_of_primary(facts: &mut Facts, snapshot: &ShardSnapshot, primary: &TabletState) {
    // One whose record was written anew by somebody else does not look at it.
    facts.primary_records_itself =
        primary.tablet.vttablet.is_some() && primary.tablet.term_start.is_some();
    facts.primary_disk_stalled = primary.disk_stalled();
    let known = primary.valid_status().and_then(|status| status.vttablet.as_ref());
    let Some(known) = known else { return };
    match known {
        VttabletState::Answers { tablet_type, disk_stalled, .. } => {
            let since = snapshot.term_known_since;
            let settled = since.is_none_or(|since| since.age(snapshot.now) >= TYPE_SETTLES_AFTER);
            facts.primary_type_mismatch =
                *tablet_type != TabletType::Primary && settled && !disk_stalled;
            facts.evidence.push(Sight::VttabletIs(*tablet_type).here());
        }
        VttabletState::Silent(why) | VttabletState::TooOld(why) => {
            facts.evidence.push(Sight::VttabletFails(why.clone()).here());
        }
    }
}

/// Only answers younger than the primary's first failure are evidence of its death.
fn count_replicas(
    facts: &mut Facts,
    snapshot: &ShardSnapshot,
    primary: &TabletState,
    settings: &RecoverySettings,
) {
    let (mut timely, mut lost, mut turned_away) = (0, 0, 0);
    let asked_at = primary.reachability.failing_since().unwrap_or_default();
    for replica in snapshot.replicas_of(&primary.tablet.alias) {
        facts.replicas_total += 1;
        if replica.reachability.is_valid() {
            facts.replicas_valid += 1;
        }
        let from_another = snapshot.follows_another(replica, primary);
        let receiving = match replica.receiving(asked_at) {
            Receiving::Yes if from_another => Receiving::No,
            given @ (Receiving::Yes | Receiving::No | Receiving::Unknown) => given,
        };
        match receiving {
            Receiving::Yes => {
                facts.replicas_receiving += 1;
                timely += usize::from(!lags(replica, settings));
            }
            Receiving::No => {
                let by_primary = replica.channel().filter(|one| primary.is_source_of(one));
                match by_primary.is_some_and(ReplicationStatus::is_turned_away) {
                    true => turned_away += 1,
                    false => lost += 1,
                }
            }
            Receiving::Unknown => {
                // One that is itself gone, turns us away, or has no address will not be asked again with success. (A
                // vttablet that is stopped in order takes its address away.)
                let nowhere =
                    replica.tablet.mysql.is_none() && !sabotage::has(Bug::WaitForNoAddress);
                let hopeless = nowhere
                    || replica.reachability.is_unreachable()
                    || matches!(replica.reachability, Reachability::TurnedAway { .. });
                if !hopeless {
                    facts.replicas_not_asked += 1;
                }
            }
        }
        if !facts.primary_valid {
            facts.evidence.push(receiving_evidence(replica, primary, receiving, snapshot));
        }
    }
    // Whoever was turned away got an answer when it last tried. Where nobody says anything else, that is no sign of
    // death.
    if lost == 0 && !sabotage::has(Bug::IdleIsDead) {
        facts.others_hearing += turned_away;
    }
    facts.all_receiving_lag = facts.replicas_receiving > 0 && timely == 0;
    count_others(facts, snapshot, primary, asked_at);
}

/// Whoever is not managed may speak for the primary's life, and never for its death.
fn count_others(
    facts: &mut Facts,
    snapshot: &ShardSnapshot,
    primary: &TabletState,
    asked_at: Timestamp,
) {
    let others = snapshot.tablets.values().filter(|other| {
        let managed = other.tablet.tablet_type.is_managed();
        let follows = other.channel().is_some_and(|channel| primary.is_source_of(channel));
        !managed && follows && other.has_heard(asked_at, snapshot.now)
    });
    for other in others {
        facts.others_hearing += 1;
        if !facts.primary_valid {
            facts.evidence.push(receiving_evidence(other, primary, Receiving::Yes, snapshot));
        }
    }
}

/// Tells whether a replica is further behind than is reasonable; unknown is far.
fn lags(replica: &TabletState, settings: &RecoverySettings) -> bool {
    let replication = replica.channel();
    replication.is_none_or(|replication| {
        let reasonable =
            settings.reasonable_lag.as_secs().saturating_add(replication.delay_seconds);
        replication.lag_seconds.is_none_or(|lag| lag > reasonable)
    })
}

fn receiving_evidence(
    replica: &TabletState,
    primary: &TabletState,
    receiving: Receiving,
    snapshot: &ShardSnapshot,
) -> Evidence {
    let alias = &replica.tablet.alias;
    let asked = Age::Asked(replica.status_at.age(snapshot.now));
    match (receiving, replica.channel()) {
        (Receiving::Yes, _) => Sight::Receives.of(alias).aged(asked),
        (Receiving::No, Some(channel)) => match channel.receiver {
            ReceiverState::Running if snapshot.follows_another(replica, primary) => {
                Sight::FollowsAnother(channel.source.clone()).of(alias)
            }
            ReceiverState::Running => {
                let silent = replica.received_at.unwrap_or_default().age(replica.answered_at);
                Sight::HearsNothing.of(alias).aged(Age::Lasts(silent))
            }
            receiver @ (ReceiverState::Connecting | ReceiverState::Stopped) => {
                Sight::DoesNotReceive(receiver).of(alias).aged(asked)
            }
        },
        (Receiving::No, None) => Sight::FollowsNobody.of(alias).aged(asked),
        (Receiving::Unknown, _) => reach_evidence(replica, snapshot),
    }
}

fn primary_settings(
    facts: &mut Facts,
    snapshot: &ShardSnapshot,
    primary: &TabletState,
    status: &ServerStatus,
    policy: DurabilityPolicy,
    settings: &RecoverySettings,
) {
    let alias = &primary.tablet.alias;
    facts.primary_read_only = status.read_only;
    facts.primary_has_source = status.replication.is_some();
    facts.promoted_elsewhere = writable_others(snapshot, alias).any(|(other, theirs)| {
        let follows = status
            .replication
            .as_ref()
            .is_some_and(|mine| theirs.is_source_of(mine, other.mysql.as_ref()));
        let has_all = theirs.gtid_executed.contains(&status.gtid_executed);
        follows || (theirs.replication.is_none() && has_all)
    });
    // Without acknowledgements nothing tells whose writes count: the records' primary stays, others are fenced.
    let promised = policy.acks_required() > 0;
    facts.rival_followed = status.is_writable()
        && promised
        && writable_others(snapshot, alias).any(|(rival, theirs)| {
            // One that has nothing of its own, and cannot get anything acknowledged, is simply fenced.
            let harmless = status.gtid_executed.contains(&theirs.gtid_executed);
            is_followed(snapshot, rival, theirs, harmless)
        });
    facts.acks_required = policy.acks_required();
    facts.primary_semi_sync_available = status.semi_sync.source_available;
    facts.primary_semi_sync = status.semi_sync.source_enabled;
    facts.ackers_connected = status.semi_sync.clients;
    facts.primary_semi_sync_right = status.semi_sync.source_enabled
        && status.semi_sync.wait_count == facts.acks_required
        && !status.semi_sync.falls_back_alone
        && status.semi_sync.timeout_ms >= SEMI_SYNC_TIMEOUT_MIN_MS;
    ackers::count(facts, snapshot, primary, status, policy);
    facts.others_ahead = others_ahead(facts, snapshot, alias, policy);
    primary_lost(facts, snapshot, primary, status);
    let settings_of_primary = Setting::Primary {
        read_only: status.read_only,
        waits: status.semi_sync.source_enabled,
        wait_count: status.semi_sync.wait_count,
        ready: facts.ackers_ready,
        required: facts.acks_required,
    };
    facts.evidence.push(settings_of_primary.here());
    if settings.use_super_read_only && status.flavor == Flavor::MySql && status.read_only {
        facts.evidence.push(Setting::SuperReadOnly(status.super_read_only).here());
    }
}

/// Tells whether somebody has what counts and the primary lacks. A primary that nobody acknowledges to may
/// have been replaced, and those who acknowledge to its successor may be out of sight.
fn others_ahead(
    facts: &Facts,
    snapshot: &ShardSnapshot,
    primary: &TabletAlias,
    policy: DurabilityPolicy,
) -> bool {
    let Some(status) = snapshot.tablet(primary).and_then(TabletState::valid_status) else {
        return false;
    };
    // Asked with every probe, and nearly always no: nobody has received anything that it lacks.
    let has_more = |theirs: &ServerStatus| match status.is_writable() {
        true => !theirs.received_beyond(status).is_empty(),
        false => !status.gtid_executed.contains(&theirs.gtid_received()),
    };
    // A tablet that takes a backup is not repaired, and what it has counts all the same.
    let mut others = snapshot.tablets.values().filter(|other| other.tablet.alias != *primary);
    let ahead = |other: &TabletState| {
        other
            .valid_status()
            .is_some_and(|theirs| election::is_witness(&other.tablet, theirs) && has_more(theirs))
    };
    if !others.any(ahead) {
        return false;
    }
    let all_answered = facts.replicas_valid == facts.replicas_total;
    let witnesses = if all_answered || facts.ackers_ready >= facts.acks_required {
        Witnesses::All
    } else {
        Witnesses::SomeOutOfSight
    };
    let everybody = Contender::of(snapshot);
    let position = election::position_of_primary(primary, &everybody, policy, witnesses);
    position == PrimaryPosition::Behind && !sabotage::has(Bug::FixBlindly)
}

/// A crash may take the end of a binary log along (`sync_binlog` is not 1): what replicas acknowledged is gone from
/// the primary, which must not serve without it.
fn primary_lost(
    facts: &mut Facts,
    snapshot: &ShardSnapshot,
    primary: &TabletState,
    status: &ServerStatus,
) {
    if sabotage::has(Bug::TrustSurvivors) {
        return;
    }
    let alias = &primary.tablet.alias;
    let of_another_term = |replica: &TabletState| {
        let theirs = replica.valid_status();
        theirs.is_some_and(|theirs| !theirs.received_beyond(status).is_empty())
    };
    let lost: Vec<Evidence> = snapshot
        .replicas_of(alias)
        .filter_map(|replica| Some((replica, primary.lost_to(replica)?)))
        .map(|(replica, lost)| Sight::Lost(lost, Some(replica.tablet.alias.clone())).of(alias))
        .collect();
    // What was written in another term than the records tell of goes before, unless it is somebody's error.
    let of_this_term = !facts.others_ahead || !snapshot.replicas_of(alias).any(of_another_term);
    facts.primary_lost = !lost.is_empty() && of_this_term;
    facts.evidence.extend(lost);
}

/// Promotable tablets other than the primary that take writes. What one said before the primary's term was known here
/// may be from before it was demoted.
fn writable_others<'a>(
    snapshot: &'a ShardSnapshot,
    primary: &'a TabletAlias,
) -> impl Iterator<Item = (&'a Tablet, &'a ServerStatus)> {
    let others =
        snapshot.replicas_of(primary).filter(|other| other.tablet.tablet_type.is_promotable());
    let others = others.filter(|other| !snapshot.asked_before_term(other));
    others
        .filter_map(|other| Some((&other.tablet, other.valid_status()?)))
        .filter(|(_, status)| status.is_writable())
}

/// Tells whether any replica receives from this server; with `acks`, whether any acknowledges as well.
fn is_followed(
    snapshot: &ShardSnapshot,
    source: &Tablet,
    status: &ServerStatus,
    acks: bool,
) -> bool {
    let replicas = snapshot.tablets.values().filter(|other| other.tablet.alias != source.alias);
    replicas
        .filter_map(|other| other.valid_status())
        .filter(|status| !acks || status.semi_sync.replica_enabled)
        .filter_map(|status| status.replication.as_ref())
        .filter(|replication| replication.receiver == ReceiverState::Running)
        .any(|replication| status.is_source_of(replication, source.mysql.as_ref()))
}

/// A source that waits less than this would fall back to asynchronous by itself and lose what it promised.
pub(crate) const SEMI_SYNC_TIMEOUT_MIN_MS: u64 = 24 * 3600 * 1000;

/// A commit that waits for so long is not going to be acknowledged by itself.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(10);
