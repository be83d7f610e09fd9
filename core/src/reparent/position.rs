//! How the position of the records' primary stands to those of the others: whether anybody was promoted in its place.

use std::collections::BTreeSet;

use super::contender::Contender;
use super::reason::Reason;
use super::trust::{followed, mistrust, of_the_shard, somebody_forgot, unacknowledged};
use crate::durability::DurabilityPolicy;
use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::sabotage::{self, Bug};
use crate::status::Flavor;

/// How a primary's position stands to those of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryPosition {
    /// Nobody has anything that it lacks and that counts.
    Leads,
    /// Somebody has all that it has and more, and does not follow it, or takes writes. Or somebody has what it lacks
    /// and what was acknowledged. Either was written in a term that the records do not tell of.
    Behind,
}

/// Whether everybody answered who could have acknowledged a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witnesses {
    /// Everybody who matters.
    All,
    /// Some did not: what they acknowledged is not known.
    SomeOutOfSight,
}

/// How the primary stands to those whose position is believed.
pub fn position_of_primary(
    primary: &TabletAlias,
    everybody: &[Contender],
    policy: DurabilityPolicy,
    witnesses: Witnesses,
) -> PrimaryPosition {
    let incumbent = everybody.iter().find(|one| one.tablet.alias == *primary);
    let Some(incumbent) = incumbent else { return PrimaryPosition::Leads };
    let incumbent = Incumbent { incumbent, everybody, policy, witnesses };
    let mine = incumbent.position();
    // One that is out of service counts only as who may have written what the others have. From one with filters
    // nothing is to be had.
    let others = everybody.iter().filter(|one| one.tablet.alias != *primary);
    let mut others = others.filter(|one| one.is_witness() && !one.is_filtered());
    match others.any(|one| incumbent.is_behind(one, &mine)) {
        true => PrimaryPosition::Behind,
        false => PrimaryPosition::Leads,
    }
}

/// The records' primary among the others.
struct Incumbent<'a> {
    incumbent: &'a Contender,
    everybody: &'a [Contender],
    policy: DurabilityPolicy,
    witnesses: Witnesses,
}

impl Incumbent<'_> {
    fn position(&self) -> GtidSet {
        let mine = self.incumbent.received();
        if !self.incumbent.status.is_writable() {
            return mine;
        }
        // A replica that was asked a moment later has more of what a primary writes meanwhile.
        let own = self.incumbent.status.identity();
        let newer = self.everybody.iter().map(|one| one.received().of_writer(&own));
        newer.fold(mine, |all, part| all.union(&part))
    }

    fn follows(&self, one: &Contender) -> bool {
        let (status, address) = (&self.incumbent.status, self.incumbent.tablet.mysql.as_ref());
        let channel = one.status.replication.as_ref();
        channel.is_some_and(|channel| status.is_source_of(channel, address))
    }

    /// Whether somebody was promoted in its place, by what this one has.
    fn is_behind(&self, one: &Contender, mine: &GtidSet) -> bool {
        let doubt = mistrust(one, self.everybody, Some(&self.incumbent.status));
        let extra = self.extra(one, doubt.as_ref(), mine);
        if extra.is_empty() {
            return false;
        }
        let has_all = one.received().contains(mine);
        if self.policy.acks_required() == 0 {
            // Nothing was promised. Where the primary cannot get it, as from a clone whose logs begin later, or from
            // one that errs, a reparent would leave it primary without it. (Probes do not know what a MariaDB purged;
            // what is found by them must be there under the lock as well.)
            let is_mariadb = one.status.flavor == Flavor::MariaDb;
            return doubt.is_none() && has_all && (is_mariadb || self.incumbent.can_follow(one));
        }
        // Whoever follows the primary has all of it by that. With what it has beside, nobody was promoted.
        let may_lead = !self.follows(one) || one.status.is_writable();
        (may_lead && has_all) || !self.acknowledged(one, &extra).is_empty()
    }

    /// What this one has beside the primary, and what is no error.
    fn extra(&self, one: &Contender, doubt: Option<&Reason>, mine: &GtidSet) -> GtidSet {
        let extra = one.received().subtract(mine).subtract(&one.of_nobody);
        let mut extra = of_the_shard(&extra, &self.incumbent.status, self.everybody);
        if self.incumbent.status.flavor == Flavor::MariaDb {
            extra = self.written_beside(&extra);
        }
        match doubt {
            None => extra,
            Some(Reason::Errant(errant)) if !sabotage::has(Bug::TrustSurvivors) => {
                // Whatever else it has counts as anybody's, but for what it had in this term before the primary was
                // asked: an election does not wait for that either.
                extra = extra.subtract(errant);
                let of_this_term = one.follows_primary && !sabotage::has(Bug::RefuseForOldErrors);
                if of_this_term { extra.subtract(&one.had_before) } else { extra }
            }
            Some(_) => extra.empty_like(),
        }
    }

    /// Of what a MariaDB that is primary seems to lack: what is beyond its position, and what somebody wrote who is
    /// followed beside it. What else others' binary logs tell of is of servers long gone, and came to it before its
    /// logs began.
    fn written_beside(&self, extra: &GtidSet) -> GtidSet {
        let beyond = match self.incumbent.status.is_writable() {
            // It goes on writing.
            true => extra.empty_like(),
            false => extra.ahead_of(&self.incumbent.received()),
        };
        let own = self.incumbent.status.identity();
        let sources = self.everybody.iter().filter_map(followed);
        let rivals = sources.filter(|source| *source != own);
        rivals.fold(beyond, |all, rival| all.union(&extra.of_writer(&rival)))
    }

    /// What of that may have been acknowledged.
    fn acknowledged(&self, one: &Contender, extra: &GtidSet) -> GtidSet {
        match self.witnesses {
            Witnesses::All if !somebody_forgot(self.everybody) => {
                let strays = self.ackers_against_the_policy();
                let in_vain = unacknowledged(one, self.everybody, self.policy, Some(&strays));
                extra.subtract(&in_vain)
            }
            Witnesses::All | Witnesses::SomeOutOfSight => extra.clone(),
        }
    }

    /// Who acknowledges though the policy does not name it. Who acknowledges to the primary as the policy wants it need
    /// not have done so to anybody before.
    fn ackers_against_the_policy(&self) -> BTreeSet<TabletAlias> {
        let is_stray = |one: &&Contender| {
            let wanted =
                self.follows(one) && self.policy.is_acker(&self.incumbent.tablet, &one.tablet);
            one.may_have_acknowledged && !wanted
        };
        let strays = self.everybody.iter().filter(is_stray);
        strays.map(|one| one.tablet.alias.clone()).collect()
    }
}
