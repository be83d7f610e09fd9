//! Who should become primary, and why the others should not.
//!
//! Wanted: the winner ends with every transaction that any eligible tablet has received; it can gather the
//! acknowledgements that the policy demands; nothing else decides before these two.

use std::collections::BTreeSet;

use crate::gtid::GtidSet;
use crate::ids::{ServerIdentity, TabletAlias};
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::sabotage::{self, Bug};
use crate::status::{ReplicationStatus, ServerStatus, VttabletState};
use crate::tablet::{PromotionRule, Tablet};

pub use super::contender::{Constraints, Contender, NOBODY, Promised, is_witness, promised};
use super::contender::{lost_own, passed};
pub use super::position::{PrimaryPosition, Witnesses, position_of_primary};
use super::rank::{Followers, Rank, more_advanced, rank};
pub use super::reason::{NoCandidate, PassedOver, Reason};
use super::safety::{Reach, cannot_acknowledge_alone};
use super::trust::{
    check_held_by_errant, check_held_by_filtered, check_promised, check_remembered,
    drop_unacknowledged, mistrust, most_advanced, written_by_mistake,
};

/// The outcome of an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// Who may be primary, the best first; at least one.
    pub candidates: Vec<Candidate>,
    /// All that anybody has whose word is believed. It is better to have it.
    pub target: GtidSet,
    /// What may have been acknowledged: nobody is promoted without it.
    pub required: GtidSet,
    /// The old primary took writes and was not seen to wait for acknowledgements: clients may have been told of the
    /// rest as well.
    pub rest_was_told: bool,
    /// Everybody else, and why not.
    pub passed_over: Vec<PassedOver>,
}

/// Who may be primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub alias: TabletAlias,
    /// From whom it can get all that it lacks, the best first; nobody where it has received everything.
    pub sources: Vec<TabletAlias>,
    /// From whom it can get what may have been acknowledged, though not everything, the best first; nobody where it has
    /// received that.
    pub lesser_sources: Vec<TabletAlias>,
    /// What it received itself: it is applied in any case.
    pub received: GtidSet,
    /// Why it could not serve at once.
    pub hindrance: Option<Reason>,
}

impl Candidate {
    /// Somebody holds a read lock on all its tables.
    pub fn is_locked(&self) -> bool {
        self.hindrance == Some(Reason::Locked)
    }
}

impl Election {
    /// Who would be primary if everybody were equally fast.
    pub fn first(&self) -> Option<&Candidate> {
        self.candidates.first()
    }

    /// Everybody but the one that was chosen in the end, and why they were not.
    pub fn others(&self, chosen: &TabletAlias) -> Vec<PassedOver> {
        let mut chosen_yet = false;
        let mut others = Vec::new();
        for candidate in &self.candidates {
            if candidate.alias == *chosen {
                chosen_yet = true;
                continue;
            }
            let reason = match (chosen_yet, &candidate.hindrance) {
                (true, Some(hindrance)) => hindrance.clone(),
                (true, None) => Reason::RanksLower,
                (false, _) => Reason::DidNotCatchUp,
            };
            others.push(PassedOver { alias: candidate.alias.clone(), reason });
        }
        others.extend(self.passed_over.iter().cloned());
        others
    }
}

/// Those who may have acknowledged what the old primary wrote, where that can be said. It cannot where somebody else
/// may have been primary meanwhile: who follows another server, follows nobody and wrote something, or lost what it
/// wrote itself.
pub fn possible_ackers(
    reach: &Reach<'_>,
    old_primary: Option<&TabletState>,
    everybody: &[Contender],
) -> Option<BTreeSet<TabletAlias>> {
    let old = old_primary?;
    let follows_old = |one: &Contender| {
        let address = old.tablet.mysql.as_ref();
        one.status.replication.as_ref().is_some_and(|replication| match &old.status {
            Some(status) => status.is_source_of(replication, address),
            None => address == Some(&replication.source),
        })
    };
    // A candidate of an earlier attempt follows the one from whom it was to get what it lacks, a replica itself.
    let follows_replica = |one: &Contender| {
        let replicas = everybody.iter().filter(|other| follows_old(other));
        let channel = one.status.replication.as_ref();
        channel.is_some_and(|channel| {
            replicas.into_iter().any(|replica| {
                replica.status.is_source_of(channel, replica.tablet.mysql.as_ref())
                    && !replica.status.is_writable()
            })
        })
    };
    let was_never_primary = |one: &Contender| {
        one.status.replication.is_none() && one.status.written_by_itself().is_empty()
    };
    let of_this_term = |one: &Contender| {
        let is_old = one.tablet.alias == old.tablet.alias;
        is_old || follows_old(one) || follows_replica(one) || was_never_primary(one)
    };
    let mut counted = everybody.iter().filter(|one| one.is_witness());
    let certain = counted.all(|one| of_this_term(one) && lost_own(one, everybody).is_none());
    certain.then(|| reach.ackers_of(&old.tablet))
}

/// Elects a new primary among the tablets that answered.
///
/// `everybody` are the shard's tablets that were reached, the old primary included if it was.
pub fn elect(
    everybody: &[Contender],
    constraints: &Constraints<'_>,
) -> Result<Election, NoCandidate> {
    let mut passed_over = Vec::new();
    let trusted = trusted(everybody, constraints, &mut passed_over)?;
    if trusted.is_empty() && !passed_over.is_empty() {
        return Err(NoCandidate::AllPassedOver(passed_over));
    }
    let target = most_advanced(&trusted)?.received();
    check_held_by_errant(everybody, &passed_over, &target, constraints)?;
    check_held_by_filtered(everybody, &target, constraints)?;
    let promised = constraints.promised_by_absent(everybody);
    check_promised(&trusted, promised, constraints)?;
    check_remembered(&trusted, everybody, constraints)?;
    let required = required(everybody, &trusted, &target, constraints);
    // One with errant transactions is never promoted; it follows, and acknowledges where too few others do.
    let is_errant =
        |alias: &TabletAlias| passed_over.iter().any(|one| one.alias == *alias && one.is_errant());
    let reached: BTreeSet<&TabletAlias> = everybody
        .iter()
        .filter(|one| !one.filters())
        .map(|one| &one.tablet.alias)
        .filter(|alias| trusted.iter().any(|one| one.tablet.alias == **alias) || is_errant(alias))
        .collect();
    let followers = Followers::of(&trusted);
    let mut ranked: Vec<(Rank, Candidate)> = Vec::new();
    for contender in &trusted {
        let sources = sources_for(contender, &trusted, &target);
        let mut lesser_sources = match required == target {
            true => Vec::new(),
            false => sources_for(contender, &trusted, &required),
        };
        lesser_sources.retain(|one| !sources.contains(one));
        let received = contender.received();
        let helped = !sources.is_empty() || !lesser_sources.is_empty();
        let lost = !helped && !received.contains(&required);
        let reason = unfit(contender, everybody, &reached, constraints);
        let why_lost = || cannot_catch_up(contender, &trusted, &required);
        match reason.or_else(|| lost.then(why_lost)) {
            Some(reason) => passed_over.push(passed(contender, reason)),
            None => {
                let left = everybody.iter().filter(|one| !one.can_follow(contender)).count();
                let stuck = sources.is_empty() && !received.contains(&target);
                let stays_behind = if stuck { more_advanced(&received, &trusted) } else { 0 };
                let rank = rank(contender, &target, &followers, left, constraints);
                let rank = Rank { stays_behind, ..rank };
                let alias = contender.tablet.alias.clone();
                let hindrance = contender.hindrance(followers.count);
                let candidate = Candidate { alias, sources, lesser_sources, received, hindrance };
                ranked.push((rank, candidate));
            }
        }
    }
    ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
    if ranked.is_empty() {
        return Err(NoCandidate::AllPassedOver(passed_over));
    }
    if sabotage::has(Bug::PromoteSecondBest) {
        ranked.sort_by_key(|(rank, _)| !rank.behind);
    }
    let candidates: Vec<Candidate> = ranked.into_iter().map(|(_, candidate)| candidate).collect();
    let rest_was_told = answered_alone(constraints);
    Ok(sabotaged(Election { candidates, target, required, rest_was_told, passed_over }))
}

/// The second best is promoted as it is.
fn sabotaged(mut election: Election) -> Election {
    if sabotage::has(Bug::PromoteSecondBest)
        && let Some(first) = election.candidates.first_mut()
    {
        first.sources.clear();
        first.lesser_sources.clear();
        election.target = first.received.clone();
        election.required = first.received.clone();
    }
    election
}

/// Those whose position is believed.
fn trusted<'a>(
    everybody: &'a [Contender],
    constraints: &Constraints<'_>,
    passed_over: &mut Vec<PassedOver>,
) -> Result<Vec<&'a Contender>, NoCandidate> {
    let mut trusted: Vec<&Contender> = Vec::new();
    let unwitnessed = unwitnessed(everybody, constraints);
    let holds_promised = |one: &Contender| {
        let left = unwitnessed.as_ref().filter(|left| !left.is_empty());
        left.is_some_and(|left| !left.intersect(&one.received()).is_empty())
    };
    let counts = |one: &&Contender| one.is_witness() || holds_promised(one);
    for contender in everybody.iter().filter(counts) {
        if contender.is_filtered() {
            passed_over.push(passed(contender, Reason::Filtered));
            continue;
        }
        match mistrust(contender, everybody, constraints.last_known) {
            // Asked for by name, with its errant transactions known.
            Some(Reason::Errant(_)) if constraints.wanted == Some(&contender.tablet.alias) => {
                trusted.push(contender);
            }
            Some(reason) => passed_over.push(passed(contender, reason)),
            None => trusted.push(contender),
        }
    }
    if most_advanced(&trusted).is_err() {
        drop_unacknowledged(&mut trusted, passed_over, everybody, constraints);
    }
    Ok(trusted)
}

/// The old primary answered, and somebody who may have acknowledged what it wrote did not: of all that it has, nobody
/// can say that it was never acknowledged.
fn speaks_for_absent(everybody: &[Contender], constraints: &Constraints<'_>) -> bool {
    let answered = |alias: &TabletAlias| everybody.iter().any(|one| one.tablet.alias == *alias);
    let mut ackers = constraints.ackers.iter().flatten();
    constraints.old_primary.is_some_and(answered) && ackers.any(|acker| !answered(acker))
}

/// Somebody who may have acknowledged what the old primary wrote was started since that was last heard: what nobody has
/// who could have acknowledged it may have been acknowledged all the same. Whoever asks for a certain tablet knows
/// that.
fn acker_may_have_forgotten(everybody: &[Contender], constraints: &Constraints<'_>) -> bool {
    let ackers = constraints.ackers.iter().flatten();
    let mut answered =
        ackers.filter_map(|acker| everybody.iter().find(|one| one.tablet.alias == *acker));
    let asked_for = constraints.wanted.is_some();
    let forgot = |one: &Contender| one.restarted || !one.forgotten.is_empty();
    answered.any(forgot) && !asked_for && !sabotage::has(Bug::TrustSurvivors)
}

/// What may have been acknowledged. Where no acknowledgement is demanded nothing was promised; where one is, what the
/// old primary wrote and nobody has who could have acknowledged it to that was never acknowledged, and does not stop
/// anybody. What others wrote may have been acknowledged to them, in an earlier term.
fn required(
    everybody: &[Contender],
    trusted: &[&Contender],
    target: &GtidSet,
    constraints: &Constraints<'_>,
) -> GtidSet {
    if sabotage::has(Bug::WaitForUnacknowledged) {
        return target.clone();
    }
    if constraints.policy.acks_required() == 0 {
        return target.empty_like();
    }
    if speaks_for_absent(everybody, constraints) || acker_may_have_forgotten(everybody, constraints)
    {
        return target.clone();
    }
    let old = constraints.last_known.map(ServerStatus::identity);
    let (Some(ackers), Some(old)) = (&constraints.ackers, old.or_else(|| followed(trusted))) else {
        return target.clone();
    };
    let may_be_acknowledged = |one: &Contender| match ackers.contains(&one.tablet.alias) {
        true => one.received(),
        false => one.status.not_written_by(&old).subtract(&one.foreign),
    };
    // Whoever has it, what the old primary was seen to have had acknowledged was acknowledged; also in an earlier
    // term, by one that is out of service now.
    let promised = constraints.promised.map(|promised| promised.gtids.intersect(target));
    let promised = promised.unwrap_or_else(|| target.empty_like());
    trusted.iter().fold(promised, |all, one| all.union(&may_be_acknowledged(one)))
}

/// The old primary took writes when it was last heard, and waited for fewer acknowledgements than the policy demands.
fn answered_alone(constraints: &Constraints<'_>) -> bool {
    let serving = constraints.last_known.filter(|last| last.is_writable());
    serving.is_some_and(|last| !cannot_acknowledge_alone(constraints.policy, Some(last)))
}

/// The server that replicas were connected to, and that is none of those who answered: a primary that nobody here
/// heard.
fn followed(trusted: &[&Contender]) -> Option<ServerIdentity> {
    let channels = trusted.iter().filter_map(|one| one.status.replication.as_ref());
    let mut sources = channels.filter_map(ReplicationStatus::source_identity);
    sources.find(|source| trusted.iter().all(|one| one.status.identity() != *source))
}

/// Of what the old primary was seen to have had acknowledged, what nobody has whose word counts by his type: whoever
/// has it acknowledged that before it was taken out of service.
fn unwitnessed(everybody: &[Contender], constraints: &Constraints<'_>) -> Option<GtidSet> {
    let promised = constraints.promised_by_absent(everybody)?;
    let witnesses = everybody.iter().filter(|other| other.is_witness());
    Some(witnesses.fold(promised.gtids.clone(), |left, other| left.subtract(&other.received())))
}

/// From whom it can get what it lacks of this: those who received it all and log it, and still hold what this one
/// lacks. Who has applied it comes first, then who applies without a delay.
fn sources_for(
    contender: &Contender,
    trusted: &[&Contender],
    wanted: &GtidSet,
) -> Vec<TabletAlias> {
    if contender.received().contains(wanted) || contender.filters() {
        return Vec::new();
    }
    let has_all = |one: &&&Contender| {
        one.is_source() && !one.turns_replicas_away() && one.received().contains(wanted)
    };
    let mut sources: Vec<&Contender> =
        trusted.iter().filter(has_all).filter(|one| contender.can_follow(one)).copied().collect();
    sources.sort_by_key(|one| {
        let applied = one.status.gtid_executed.contains(wanted);
        (!applied, one.delay_seconds() > 0, one.applier_stands(), one.tablet.alias.clone())
    });
    sources.into_iter().map(|one| one.tablet.alias.clone()).collect()
}

/// Why it gets from nobody what it must have.
fn cannot_catch_up(contender: &Contender, trusted: &[&Contender], required: &GtidSet) -> Reason {
    if contender.filters() {
        return Reason::Filtered;
    }
    let mut holders = trusted.iter().filter(|one| {
        one.is_source() && one.received().contains(required) && contender.can_follow(one)
    });
    let holder = holders.find(|one| one.turns_replicas_away());
    holder.map_or(Reason::CannotCatchUp, |one| Reason::TurnedAway(one.tablet.alias.clone()))
}

/// Why such a server would be no primary for anybody.
fn cannot_serve(status: &ServerStatus) -> Option<Reason> {
    // Whoever set the mode has to end it. The old primary serves again if it comes back before that.
    if status.offline {
        return Some(Reason::Offline);
    }
    if !status.gtid_mode_on || !status.log_bin {
        return Some(Reason::NoGtids);
    }
    if !status.log_replica_updates {
        return Some(Reason::NoLogReplicaUpdates);
    }
    match &status.vttablet {
        Some(VttabletState::Silent(_) | VttabletState::TooOld(_)) => Some(Reason::NoVttablet),
        Some(VttabletState::Answers { .. }) | None => None,
    }
}

/// Why a tablet whose position is believed still cannot be primary.
pub(super) fn unfit(
    contender: &Contender,
    everybody: &[Contender],
    reached: &BTreeSet<&TabletAlias>,
    constraints: &Constraints<'_>,
) -> Option<Reason> {
    let tablet = &contender.tablet;
    if !tablet.tablet_type.is_promotable() {
        return Some(Reason::WrongType(tablet.tablet_type));
    }
    if contender.is_filtered() {
        return Some(Reason::Filtered);
    }
    if constraints.unread.contains(&tablet.alias) {
        return Some(Reason::RecordUnread);
    }
    if constraints.refused.contains(&tablet.alias) {
        return Some(Reason::NotPromoted);
    }
    if let Some(lost) = lost_own(contender, everybody) {
        return Some(Reason::LostOwn(lost));
    }
    if let Some(errant) = written_by_mistake(contender, everybody, constraints) {
        return Some(Reason::Errant(errant));
    }
    if constraints.avoid == Some(&tablet.alias) {
        return Some(Reason::Avoided);
    }
    if constraints.wanted.is_some_and(|wanted| *wanted != tablet.alias) {
        return Some(Reason::NotAskedFor);
    }
    if let Some(reason) = cannot_serve(&contender.status) {
        return Some(reason);
    }
    if constraints.settings.promotion_rule(tablet) == PromotionRule::MustNot {
        return Some(Reason::MustNot);
    }
    let ignored = &constraints.settings.promotion_ignore_hosts;
    let is_ignored = |address| ignored.iter().any(|filter| filter.means(address));
    if tablet.mysql.as_ref().is_some_and(is_ignored) {
        return Some(Reason::IgnoredHost);
    }
    let other_cell = constraints.old_primary.is_some_and(|old| old.cell != tablet.alias.cell);
    if constraints.settings.prevent_cross_cell_failover && other_cell {
        return Some(Reason::OtherCell);
    }
    let required = constraints.policy.acks_required();
    let ackers = everybody.iter().filter(|one| reached.contains(&one.tablet.alias));
    let found = ackers
        .filter(|one| {
            constraints.policy.wants_ack_of(tablet, &one.tablet, Some(&one.status))
                && one.can_follow(contender)
        })
        .count();
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    (found < required).then_some(Reason::TooFewAckers { found, required })
}

/// Whether this one lost what it wrote, by what the others have.
pub fn has_lost_own(alias: &TabletAlias, everybody: &[Contender]) -> bool {
    let own = everybody.iter().find(|one| one.tablet.alias == *alias);
    own.is_some_and(|own| lost_own(own, everybody).is_some())
}

/// The server that is primary already, as far as replication goes: every tablet in service answered, it follows nobody
/// and all others follow it. A shard whose records name no primary yet is then taken over as it is. Not where it lost
/// the end of what it wrote: those who still have that could not follow it.
pub fn reigning(snapshot: &ShardSnapshot) -> Option<&TabletAlias> {
    let in_service = snapshot.tablets.values();
    let in_service = in_service.filter(|state| state.tablet.tablet_type.is_managed());
    let answers: Option<Vec<(&Tablet, &ServerStatus)>> =
        in_service.map(|state| Some((&state.tablet, state.valid_status()?))).collect();
    let answers = answers?;
    let mut sources = answers.iter().filter(|(_, status)| status.replication.is_none());
    let (tablet, source) = sources.next()?;
    let alone = sources.next().is_none() && answers.len() > 1;
    let all_follow = answers
        .iter()
        .filter_map(|(_, status)| status.replication.as_ref())
        .all(|replication| source.is_source_of(replication, tablet.mysql.as_ref()));
    let fit = tablet.tablet_type.is_promotable() && !snapshot.has_lost_own(&tablet.alias);
    (alone && all_follow && fit).then_some(&tablet.alias)
}
