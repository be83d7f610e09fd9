//! Electing a first primary, and replacing one that is gone: whom it concerns, and who follows the one that is chosen.

use std::collections::BTreeSet;

use crate::durability::DurabilityPolicy;
use crate::ids::TabletAlias;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::ports::PromotionGrounds;
use crate::recovery::promotion::following;
use crate::recovery::request::ReparentRequest;
use crate::reparent::choice::{Asked, Basis, NotChosen, Wish};
use crate::reparent::election::{
    self, Candidate, Contender, NOBODY, NoCandidate, PassedOver, Reason,
};
use crate::reparent::safety;
use crate::sabotage::{self, Bug};
use crate::status::{Flavor, ServerStatus};
use crate::tablet::Tablet;

/// The tablets that vtorc manages.
pub fn managed(snapshot: &ShardSnapshot) -> Vec<Tablet> {
    let tablets = snapshot.tablets.values().map(|state| &state.tablet);
    tablets.filter(|tablet| tablet.tablet_type.is_managed()).cloned().collect()
}

/// Whose receivers are stopped: the managed tablets', and those of tablets that are left alone and follow somebody.
/// What these received may be all that is left of a write, and they might go on acknowledging.
pub fn to_be_stopped(snapshot: &ShardSnapshot) -> Vec<Tablet> {
    let concerned = snapshot.tablets.values().filter(|state| {
        let follows = state.status.as_ref().is_some_and(|status| status.replication.is_some());
        state.tablet.tablet_type.is_managed() || follows
    });
    concerned.map(|state| state.tablet.clone()).collect()
}

/// What is done with a tablet that was asked to stop its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// Its receiver stands: it takes part.
    TakesPart,
    /// It follows nobody, or was opened all the same, and may be taking writes: it takes part once it refuses them.
    MustRefuseWrites,
    /// It follows nobody, and vtorc leaves it alone.
    LeftAlone,
}

/// By what it answered.
pub fn halted(tablet: &Tablet, status: &ServerStatus) -> Halted {
    let follows = status.replication.is_some();
    match tablet.tablet_type.is_managed() {
        true if follows && !status.is_writable() => Halted::TakesPart,
        true => Halted::MustRefuseWrites,
        false if follows => Halted::TakesPart,
        false => Halted::LeftAlone,
    }
}

/// Those that refuse writes by now. (One that is restored takes them, and is left alone.)
pub fn closed(contenders: &[Contender]) -> BTreeSet<TabletAlias> {
    let managed = contenders.iter().filter(|one| one.tablet.tablet_type.is_managed());
    let closed = managed.filter(|one| !one.status.is_writable());
    closed.map(|one| one.tablet.alias.clone()).collect()
}

/// Nobody writes there: it refuses everybody's writes, or nobody ever was primary, and so nothing was promised.
pub fn is_shut(snapshot: &ShardSnapshot, status: &ServerStatus) -> bool {
    let everybodys = status.super_read_only && status.flavor == Flavor::MySql;
    status.read_only && (everybodys || !snapshot.had_primary())
}

/// It takes writes, was not demoted, and would go on acknowledging them alone: nobody is promoted beside it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{writer} took writes a moment ago, would acknowledge them without any replica, and could not be told to stop ({why}): give vtorc's user what that takes, or stop the server"
)]
pub struct StillWrites {
    writer: TabletAlias,
    why: String,
}

/// Asked of somebody who answered, as `before` says, and was not demoted afterwards. One that waits for
/// acknowledgements is stopped by taking its ackers away. Who follows somebody, or is followed by nobody while the
/// records name another, is no clients' primary.
pub fn check_demoted(
    basis: Basis<'_>,
    tablet: &Tablet,
    before: &ServerStatus,
    why: &dyn std::fmt::Display,
) -> Result<(), StillWrites> {
    let is_primary =
        basis.snapshot.primary().is_some_and(|primary| primary.tablet.alias == tablet.alias);
    let is_followed = || {
        let states = basis.snapshot.tablets.values();
        let mut channels = states.filter_map(|one| one.status.as_ref()?.replication.as_ref());
        channels.any(|channel| before.is_source_of(channel, tablet.mysql.as_ref()))
    };
    let leads =
        before.replication.is_none() && (basis.snapshot.primary().is_none() || is_followed());
    let serves = before.is_writable() && (is_primary || leads);
    let harmless = safety::cannot_acknowledge_alone(basis.policy, Some(before));
    match serves && !harmless && !sabotage::has(Bug::PromoteBesideAWriter) {
        true => Err(StillWrites { writer: tablet.alias.clone(), why: why.to_string() }),
        false => Ok(()),
    }
}

/// Whom a request wants. Whoever asks for an emergency reparent and names nobody wants another primary than this one.
pub fn wish<'a>(snapshot: &'a ShardSnapshot, request: Option<&'a ReparentRequest>) -> Wish<'a> {
    let Some(request) = request else { return Wish::default() };
    let wanted = request.new_primary.as_ref();
    let primary = snapshot.primary().map(|state| &state.tablet.alias);
    let away = primary.filter(|_| wanted.is_none());
    Wish { wanted, avoid: request.avoid_primary.as_ref().or(away) }
}

/// A primary that takes writes, or somebody who does where no record names one, is not stopped where nobody could take
/// its place, by what all said just now: an outage would be all that comes of it.
pub fn check_worthwhile(basis: Basis<'_>, wish: Wish<'_>) -> Result<(), NotChosen> {
    let writable =
        |state: &TabletState| state.valid_status().is_some_and(ServerStatus::is_writable);
    let serves = match basis.snapshot.primary() {
        Some(primary) => writable(primary),
        None => {
            let mut tablets = basis.snapshot.tablets.values();
            tablets.any(|state| state.tablet.tablet_type.is_managed() && writable(state))
        }
    };
    if !serves {
        return Ok(());
    }
    match basis.choose(&Contender::of(basis.snapshot), Asked::ByProbes, wish) {
        Err(none @ NotChosen::NoCandidate(NoCandidate::AllPassedOver(_))) => Err(none),
        // Where everybody answers it may be told what nobody acknowledged.
        Err(none @ NotChosen::NoCandidate(NoCandidate::Diverged { .. }))
            if basis.snapshot.primary().is_some()
                && basis.snapshot.tablets.values().any(|one| one.valid_status().is_none()) =>
        {
            Err(none)
        }
        // Whoever is not there to be asked would not be there afterwards.
        Err(lost @ NotChosen::Unsafe(_)) if basis.snapshot.primary().is_none() => Err(lost),
        // Writes would only wait elsewhere.
        Ok(election)
            if wish.wanted.is_none() && election.candidates.iter().all(Candidate::is_locked) =>
        {
            let locked = election.candidates.into_iter();
            let locked = locked.map(|one| PassedOver { alias: one.alias, reason: Reason::Locked });
            let all = locked.chain(election.passed_over).collect();
            Err(NoCandidate::AllPassedOver(all).into())
        }
        // Those who are stopped may say more.
        Err(NotChosen::NoCandidate(_) | NotChosen::Unsafe(_)) | Ok(_) => Ok(()),
    }
}

/// Who is to follow the winner: the managed tablets that answered, and those left alone that followed somebody.
pub fn followers(contenders: &[Contender], winner: &TabletAlias) -> Vec<Tablet> {
    let others = contenders.iter().filter(|one| one.tablet.alias != *winner);
    let follow = others.filter(|one| one.tablet.tablet_type.is_managed() || one.was_replica);
    follow.map(|one| one.tablet.clone()).collect()
}

/// A replication tree that works, whose records name no primary yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Whom all others follow.
    pub primary: Tablet,
    /// Its position when it was looked at: all others follow it from there.
    pub grounds: PromotionGrounds,
    /// All others.
    pub followers: Vec<Tablet>,
    /// It takes writes already.
    pub serves: bool,
}

/// The primary of a tree would not have the acknowledgements that the policy demands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{primary} would need {required} acker(s) for durability policy {policy}, {found} reached")]
pub struct TooFewAckers {
    primary: TabletAlias,
    policy: DurabilityPolicy,
    required: u32,
    found: usize,
}

/// The tree to be taken over as it is, if there is one: nobody is stopped.
pub fn adoption(
    snapshot: &ShardSnapshot,
    policy: DurabilityPolicy,
) -> Result<Option<Adoption>, TooFewAckers> {
    let reigning = election::reigning(snapshot).and_then(|alias| snapshot.tablet(alias));
    let Some((state, status)) = reigning.and_then(|state| Some((state, state.status.as_deref()?)))
    else {
        return Ok(None);
    };
    let primary = &state.tablet;
    let mut followers = managed(snapshot);
    followers.retain(|tablet| tablet.alias != primary.alias);
    let acknowledges =
        |tablet: &&Tablet| following(snapshot, policy, (tablet, primary), &NOBODY).semi_sync;
    let found = followers.iter().filter(acknowledges).count();
    let required = policy.acks_required();
    if found < required as usize {
        let primary = primary.alias.clone();
        return Err(TooFewAckers { primary, policy, required, found });
    }
    let grounds = PromotionGrounds::of(status, status.gtid_executed.clone());
    let serves = status.is_writable();
    Ok(Some(Adoption { primary: primary.clone(), grounds, followers, serves }))
}
