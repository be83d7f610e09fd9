//! Which positions are believed: errant transactions, missed reparents, writes that nobody acknowledged.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::contender::{Constraints, Contender, Promised, lost_own, passed};
use super::reason::{NoCandidate, PassedOver, Reason};
use crate::durability::DurabilityPolicy;
use crate::gtid::GtidSet;
use crate::ids::{ServerIdentity, TabletAlias};
use crate::sabotage::{self, Bug};
use crate::status::{Flavor, ServerStatus};

/// Whose position must not be believed: errant transactions are discarded before positions are compared,
/// or an old primary wins because it has "more".
pub(super) fn mistrust(
    contender: &Contender,
    everybody: &[Contender],
    last_known: Option<&ServerStatus>,
) -> Option<Reason> {
    if sabotage::has(Bug::TrustErrant) {
        return None;
    }
    let received = contender.received();
    let witnesses = witnesses_beside(contender, everybody);
    // Where everybody who could be primary took something from a stranger, one of them must do.
    let is_clean =
        |one: &&Contender| one.foreign.is_empty() && one.tablet.tablet_type.is_promotable();
    if !contender.foreign.is_empty() && witnesses.iter().any(is_clean) {
        return Some(Reason::Errant(contender.foreign.clone()));
    }
    let longest = witnesses.iter().map(|one| one.journal()).max().unwrap_or(0);
    if has_missed_a_reparent(contender, everybody, longest) {
        let leaders = witnesses.iter().filter(|one| one.journal() == longest);
        let known = leaders.fold(received.empty_like(), |all, one| all.union(&one.received()));
        let extra = known_to_lack(&received, &known, contender);
        let extra = without_what_was_lost(extra, contender, &witnesses);
        return (!extra.is_empty()).then_some(Reason::MissedReparents);
    }
    let union = witnesses.iter().fold(received.empty_like(), |all, one| all.union(&one.received()));
    let mut extra = received.subtract(&union);
    // The others missed a reparent: what they lack may be of a term that they know nothing of. What a replica wrote
    // itself, and had while the primary was asked and lacked it, is of none.
    if contender.journal() > longest {
        let own = contender.status.written_by_itself();
        extra = extra.intersect(&contender.had_before).intersect(&own);
    }
    if extra.is_empty() {
        return None;
    }
    if contender.status.flavor == Flavor::MariaDb {
        extra = surely_an_error(&extra, contender, &witnesses, last_known);
    }
    if let Some(primary) = last_known {
        extra = extra.subtract(&primary.gtid_executed).without_writer(&primary.identity());
        extra = of_the_shard(&extra, primary, everybody);
    }
    // What came from the primary that anybody followed is its advance over the others, not an error.
    for source in everybody.iter().filter_map(followed) {
        let mut replicas = everybody.iter().filter(|one| one.was_replica);
        let own_source = followed(contender).as_ref() == Some(&source);
        if own_source || !replicas.any(|one| one.status.identity() == source) {
            extra = extra.without_writer(&source);
        }
    }
    extra = without_what_was_lost(extra, contender, &witnesses);
    let led_before = contender.led_before && !shows_the_term(&witnesses, last_known);
    if led_before || was_primary(contender, everybody) {
        extra = extra.without_writer(&contender.status.identity());
    }
    (!extra.is_empty()).then_some(Reason::Errant(extra))
}

/// Tells of a tablet that it knows of fewer reparents than the one that knows of most. What it received and did not
/// apply may be rows of the journal too: but not where another one has applied all of that, and knows of fewer as well.
fn has_missed_a_reparent(contender: &Contender, everybody: &[Contender], longest: u64) -> bool {
    // Where its journal was not read in this term, it is believed.
    let is_shorter =
        |one: &Contender| one.status.journal_length.is_some() && one.journal() < longest;
    let applied_all = |one: &Contender| {
        known_to_lack(&contender.received(), &one.status.gtid_executed, contender).is_empty()
    };
    // One that is out of service can say that much.
    let shorter = || everybody.iter().filter(|one| is_shorter(one) && is_whole(one, everybody));
    is_shorter(contender) && (is_whole(contender, everybody) || shorter().any(applied_all))
}

/// Its journal has all rows that it received: it has applied everything, and lost nothing of its own.
fn is_whole(contender: &Contender, everybody: &[Contender]) -> bool {
    contender.status.gtid_executed.contains(&contender.received())
        && lost_own(contender, everybody).is_none()
}

/// What is left without what the primary pulls from elsewhere.
pub(super) fn of_the_shard(
    extra: &GtidSet,
    primary: &ServerStatus,
    everybody: &[Contender],
) -> GtidSet {
    primary.without_pulled(extra, everybody.iter().map(|one| one.status.identity()))
}

/// The others, whose word counts.
fn witnesses_beside<'a>(contender: &Contender, everybody: &'a [Contender]) -> Vec<&'a Contender> {
    let others = everybody.iter().filter(|one| one.tablet.alias != contender.tablet.alias);
    others.filter(|one| one.is_witness()).collect()
}

/// What a MariaDB wrote itself while it followed somebody, and nobody else has logged. Its position is believed: others
/// get from it what it received. It is not promoted, unless somebody asks for it.
pub(super) fn written_by_mistake(
    contender: &Contender,
    everybody: &[Contender],
    constraints: &Constraints<'_>,
) -> Option<GtidSet> {
    if constraints.wanted == Some(&contender.tablet.alias) {
        return None;
    }
    let last_known = constraints.last_known;
    let witnesses = witnesses_beside(contender, everybody);
    let knows_less =
        |one: &&Contender| one.journal() < contender.journal() && is_whole(one, everybody);
    let knows_more = witnesses.iter().all(knows_less);
    let led_before = contender.led_before && !shows_the_term(&witnesses, last_known);
    if knows_more || led_before || was_primary(contender, everybody) {
        return None;
    }
    let others = witnesses.iter().map(|one| &one.status).chain(last_known);
    contender.own_writes.unknown_to(&contender.status, others)
}

/// MariaDB's logs may tell of servers that are long gone: only what it wrote itself is surely an error.
fn surely_an_error(
    extra: &GtidSet,
    contender: &Contender,
    witnesses: &[&Contender],
    last_known: Option<&ServerStatus>,
) -> GtidSet {
    let own = extra.of_writer(&contender.status.identity());
    if !witnesses.is_empty() {
        return own;
    }
    // Where nobody else tells, neither is what it logged while it was set up.
    let received = contender.received();
    own.ahead_of(last_known.map_or(&received, |primary| &primary.gtid_executed))
}

/// Somebody has what the primary wrote in its term, and so everything that it had when that began.
fn shows_the_term(witnesses: &[&Contender], primary: Option<&ServerStatus>) -> bool {
    let Some(primary) = primary else { return false };
    let written = |one: &&Contender| one.received().of_writer(&primary.identity());
    witnesses.iter().any(|one| !written(one).subtract(&primary.gtid_executed).is_empty())
}

/// What others lack of what this one has. A MariaDB's logs may tell of servers that are long gone, and others' do
/// not: there only what is beyond their positions counts, and what it or its source wrote.
fn known_to_lack(received: &GtidSet, known: &GtidSet, contender: &Contender) -> GtidSet {
    let extra = received.subtract(known);
    match contender.status.flavor {
        Flavor::MySql => extra,
        Flavor::MariaDb => {
            let writers = [Some(contender.status.identity()), followed(contender)];
            let written = writers.into_iter().flatten().map(|writer| extra.of_writer(&writer));
            written.fold(received.ahead_of(known), |all, part| all.union(&part))
        }
    }
}

/// A server that follows nobody was a primary: its own writes are its advance. So are those of one whose promotion
/// was cut short: others follow it already, and it was told to wait for acknowledgements, or takes writes.
fn was_primary(contender: &Contender, everybody: &[Contender]) -> bool {
    let status = &contender.status;
    let opened = status.semi_sync.source_enabled || status.is_writable();
    let is_followed = || {
        let own = Some(status.identity());
        everybody.iter().any(|one| followed(one) == own)
    };
    !contender.was_replica || (opened && is_followed())
}

/// What somebody else wrote and lost is no error of who still has it.
fn without_what_was_lost(
    mut extra: GtidSet,
    contender: &Contender,
    witnesses: &[&Contender],
) -> GtidSet {
    for writer in witnesses.iter().filter(|one| one.lost_to(contender).is_some()) {
        extra = extra.without_writer(&writer.status.identity());
    }
    extra
}

/// Whom a replica follows, or followed until it was stopped.
pub(super) fn followed(contender: &Contender) -> Option<ServerIdentity> {
    contender.status.replication.as_ref()?.source_identity()
}

/// A tablet with errant transactions acknowledges where too few others do: what else it has must not be lost, unless it
/// certainly acknowledged nothing of it.
pub(super) fn check_held_by_errant(
    everybody: &[Contender],
    passed_over: &[PassedOver],
    target: &GtidSet,
    constraints: &Constraints<'_>,
) -> Result<(), NoCandidate> {
    if constraints.policy.acks_required() == 0 {
        return Ok(());
    }
    for one in passed_over {
        let Reason::Errant(errant) = &one.reason else { continue };
        let Some(holder) = everybody.iter().find(|other| other.tablet.alias == one.alias) else {
            continue;
        };
        // Only what it wrote itself is surely an error: what a server wrote that has no record any more is not.
        let own = errant.of_writer(&holder.status.identity());
        let mut only = holder.received().subtract(&own).subtract(target);
        if !sabotage::has(Bug::RefuseForOldErrors) {
            // What it got from somebody else may have been acknowledged to that one.
            if holder.follows_primary {
                only = only.subtract(&holder.had_before);
            }
            if let Some(most) = &holder.acknowledged_at_most {
                only = only.intersect(most);
            }
        }
        if !only.is_empty() {
            return Err(NoCandidate::HeldByErrant {
                alias: one.alias.clone(),
                errant: Box::new(errant.clone()),
                only: Box::new(only),
            });
        }
    }
    Ok(())
}

/// A filtered replica acknowledges a transaction without having its data. What only such a one has may have been
/// acknowledged, and is nowhere.
pub(super) fn check_held_by_filtered(
    everybody: &[Contender],
    target: &GtidSet,
    constraints: &Constraints<'_>,
) -> Result<(), NoCandidate> {
    let may_acknowledge = |one: &&Contender| one.may_have_acknowledged;
    if constraints.policy.acks_required() == 0 {
        return Ok(());
    }
    for one in everybody.iter().filter(|one| one.is_filtered()).filter(may_acknowledge) {
        let only = one.received().subtract(target).without_writer(&one.status.identity());
        let only = only.subtract(&one.had_before);
        if !only.is_empty() {
            let (alias, only) = (one.tablet.alias.clone(), Box::new(only));
            return Err(NoCandidate::HeldByFiltered { alias, only });
        }
    }
    Ok(())
}

/// A crash takes along what a replica had received and not applied (`relay_log_recovery`). What the primary was seen
/// to have had acknowledged, and no longer anybody has, is on the primary alone. Whoever asks for a certain tablet
/// knows that.
pub(super) fn check_promised(
    trusted: &[&Contender],
    promised: Option<&Promised>,
    constraints: &Constraints<'_>,
) -> Result<(), NoCandidate> {
    let Some(promised) = promised.filter(|_| constraints.wanted.is_none()) else {
        return Ok(());
    };
    let left =
        trusted.iter().fold(promised.gtids.clone(), |left, one| left.subtract(&one.received()));
    match left.is_empty() {
        true => Ok(()),
        false => {
            Err(NoCandidate::OnlyOldPrimaryHas { by: promised.by.clone(), only: Box::new(left) })
        }
    }
}

/// An acker that was restarted may have thrown away what it had received and not applied. What it said that it has, and
/// nobody has any more who was reached, may have been acknowledged, and is on the primary alone. Where all ackers were
/// restarted in the primary's silence, as after a power failure, nobody can say what they had acknowledged. Whoever
/// asks for a certain tablet knows that.
pub(super) fn check_remembered(
    trusted: &[&Contender],
    everybody: &[Contender],
    constraints: &Constraints<'_>,
) -> Result<(), NoCandidate> {
    let Some(old) = constraints.old_primary else { return Ok(()) };
    let reached = everybody.iter().any(|one| one.tablet.alias == *old);
    let promised = constraints.policy.acks_required() > 0 && constraints.wanted.is_none();
    if reached || !promised || sabotage::has(Bug::TrustSurvivors) {
        return Ok(());
    }
    let acks = |one: &&Contender| {
        constraints.ackers.as_ref().is_none_or(|ackers| ackers.contains(&one.tablet.alias))
    };
    let certain = |one: &&Contender| match &constraints.ackers {
        Some(_) => true,
        // Whoever else may have acknowledged says nothing of those who did.
        None => {
            let replica = one.tablet.as_replica();
            let quiet = one.acknowledged_at_most.is_some();
            (constraints.policy.is_acker_of(old, &replica) && !quiet) || one.may_have_acknowledged
        }
    };
    let ackers: Vec<&Contender> = everybody.iter().filter(acks).collect();
    let mut likely = ackers.iter().filter(|one| certain(one)).peekable();
    for one in &ackers {
        let left = |left: GtidSet, other: &&Contender| left.subtract(&other.received());
        let only = trusted.iter().fold(one.forgotten.clone(), left);
        if !only.is_empty() {
            let (by, primary) = (one.tablet.alias.clone(), old.clone());
            return Err(NoCandidate::Forgotten { by, primary, only: Box::new(only) });
        }
    }
    if likely.peek().is_some() && likely.all(|one| one.restarted) {
        return Err(NoCandidate::AllRestarted { primary: old.clone() });
    }
    Ok(())
}

/// Where histories differ and the policy demands acknowledgements: what a server wrote and no acker of its
/// ever received was written in vain. No client was told that it is done, so whoever has it does not stand
/// in the way, provided that everybody who could have acknowledged it was reached, and nobody is known to have lost
/// what it had: an acker could have lost it as well.
pub(super) fn drop_unacknowledged(
    trusted: &mut Vec<&Contender>,
    passed_over: &mut Vec<PassedOver>,
    everybody: &[Contender],
    constraints: &Constraints<'_>,
) {
    let forgotten = somebody_forgot(everybody);
    if !constraints.complete || forgotten || constraints.policy.acks_required() == 0 {
        return;
    }
    let in_vain = |one: &Contender| {
        unacknowledged(one, everybody, constraints.policy, constraints.ackers.as_ref())
    };
    let (kept, mut dropped): (Vec<&Contender>, Vec<&Contender>) =
        trusted.iter().partition(|one| in_vain(one).is_empty());
    let Ok(best) = most_advanced(&kept) else { return };
    let loses = |one: &&Contender| {
        let acknowledged = one.received().subtract(&in_vain(one));
        !best.received().contains(&acknowledged)
    };
    if dropped.iter().any(loses) {
        return;
    }
    *trusted = kept;
    // Whoever does not contradict the others with what was written in vain stays: it can be primary, and acknowledge.
    // Of two who contradict each other it is the one that knows of more reparents, and may be promoted.
    dropped.sort_by_key(|one| (Reverse(one.journal()), !one.tablet.tablet_type.is_promotable()));
    for one in dropped {
        trusted.push(one);
        if most_advanced(trusted).is_err() {
            trusted.pop();
            passed_over.push(passed(one, Reason::Unacknowledged(in_vain(one))));
        }
    }
}

/// Somebody lost what it wrote: what it or another acknowledged may be gone from who acknowledged it.
pub(super) fn somebody_forgot(everybody: &[Contender]) -> bool {
    everybody.iter().any(|one| lost_own(one, everybody).is_some())
}

/// What this one has and no acker of the server that wrote it ever received. `besides` are ackers that the policy
/// does not name.
pub(super) fn unacknowledged(
    contender: &Contender,
    everybody: &[Contender],
    policy: DurabilityPolicy,
    besides: Option<&BTreeSet<TabletAlias>>,
) -> GtidSet {
    let received = contender.received();
    let mut in_vain = received.empty_like();
    for writer in everybody {
        let written = received.of_writer(&writer.status.identity());
        let ackers = everybody.iter().filter(|one| {
            let other = one.tablet.alias != writer.tablet.alias;
            let besides = besides.is_some_and(|aliases| aliases.contains(&one.tablet.alias));
            policy.is_acker(&writer.tablet, &one.tablet) || (other && besides)
        });
        let left = ackers.fold(written, |left, acker| left.subtract(&acker.received()));
        in_vain = in_vain.union(&left);
    }
    in_vain
}

/// The one who has everything that anybody has. Each is asked about all the others: a running "best so
/// far" would depend on the order where two diverge and a third holds both.
pub(super) fn most_advanced<'a>(trusted: &[&'a Contender]) -> Result<&'a Contender, NoCandidate> {
    let first = trusted.first().ok_or(NoCandidate::Nobody)?;
    let has_all =
        |one: &&&Contender| trusted.iter().all(|other| one.received().contains(&other.received()));
    if let Some(best) = trusted.iter().find(has_all) {
        return Ok(best);
    }
    for one in trusted {
        for other in trusted {
            let (mine, theirs) = (one.received(), other.received());
            if !mine.contains(&theirs) && !theirs.contains(&mine) {
                return Err(NoCandidate::Diverged {
                    one: one.tablet.alias.clone(),
                    other: other.tablet.alias.clone(),
                    only_one: Box::new(mine.subtract(&theirs)),
                    only_other: Box::new(theirs.subtract(&mine)),
                });
            }
        }
    }
    Ok(first)
}
