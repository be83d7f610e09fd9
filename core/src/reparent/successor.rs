//! Who takes over from a primary that serves and helps.

use std::collections::BTreeSet;

use super::contender::passed;
use super::election::{Candidate, Constraints, Contender, Election, unfit};
use super::rank::logs_statements;
use super::reason::{NoCandidate, Reason};
use super::trust::of_the_shard;
use crate::ids::TabletAlias;
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;
use crate::status::Flavor;
use crate::tablet::PromotionRule;

/// Chooses who takes over from a primary that serves: it follows the primary, is not far behind, and ranks
/// best. The outcome's `target` is empty: the position to reach is only known once writes have stopped.
pub fn choose_successor(
    primary: &Contender,
    replicas: &[Contender],
    constraints: &Constraints<'_>,
) -> Result<Election, NoCandidate> {
    let mut everybody: Vec<Contender> = replicas.to_vec();
    everybody.push(primary.clone());
    let reached: BTreeSet<&TabletAlias> =
        everybody.iter().filter(|one| !one.filters()).map(|one| &one.tablet.alias).collect();
    let mut passed_over = Vec::new();
    let statements = everybody.iter().any(logs_statements);
    let mut ranked: Vec<(PromotionRule, bool, bool, u64, TabletAlias)> = Vec::new();
    for contender in replicas {
        let reason = unfit(contender, &everybody, &reached, constraints)
            .or_else(|| errant_beside(contender, primary, &everybody))
            .or_else(|| not_following(contender, primary, constraints.settings))
            .or_else(|| leaves_behind(contender, primary, &everybody))
            .or_else(|| contender.hindrance(replicas.len()));
        match reason {
            Some(reason) => passed_over.push(passed(contender, reason)),
            None => {
                let alias = contender.tablet.alias.clone();
                let lag = contender.status.replication.as_ref().and_then(|r| r.lag_seconds);
                ranked.push((
                    constraints.settings.promotion_rule(&contender.tablet),
                    statements && !logs_statements(contender),
                    alias.cell != primary.tablet.alias.cell,
                    lag.unwrap_or(u64::MAX),
                    alias,
                ));
            }
        }
    }
    ranked.sort();
    if ranked.is_empty() {
        return Err(NoCandidate::AllPassedOver(passed_over));
    }
    let nothing = primary.status.gtid_executed.empty_like();
    let candidate = |(_, _, _, _, alias): (_, _, _, _, TabletAlias)| Candidate {
        alias,
        sources: Vec::new(),
        lesser_sources: Vec::new(),
        received: nothing.clone(),
        hindrance: None,
    };
    Ok(Election {
        candidates: ranked.into_iter().map(candidate).collect(),
        target: nothing.clone(),
        required: nothing.clone(),
        rest_was_told: false,
        passed_over,
    })
}

/// What it has beside what its primary wrote or has: an error is not made everybody's on purpose.
fn errant_beside(
    contender: &Contender,
    primary: &Contender,
    everybody: &[Contender],
) -> Option<Reason> {
    if sabotage::has(Bug::PlanForErrant) {
        return None;
    }
    let beyond = contender.status.received_beyond(&primary.status);
    let mut errant = of_the_shard(&beyond, &primary.status, everybody);
    if primary.status.flavor == Flavor::MariaDb {
        // Its logs may tell of servers that are long gone, and the primary's do not.
        errant = errant.of_writer(&contender.status.identity());
    }
    (!errant.is_empty()).then_some(Reason::Errant(errant))
}

/// Nothing presses: a planned reparent waits until everybody can follow who can follow the primary.
fn leaves_behind(
    contender: &Contender,
    primary: &Contender,
    everybody: &[Contender],
) -> Option<Reason> {
    let managed = everybody.iter().filter(|one| one.tablet.tablet_type.is_managed());
    let mut left = managed.filter(|one| one.can_follow(primary) && !one.can_follow(contender));
    left.next().map(|one| Reason::LeavesBehind(one.tablet.alias.clone()))
}

fn not_following(
    contender: &Contender,
    primary: &Contender,
    settings: &RecoverySettings,
) -> Option<Reason> {
    let Some(replication) = &contender.status.replication else {
        return Some(Reason::NotFollowing);
    };
    if !primary.status.is_source_of(replication, primary.tablet.mysql.as_ref()) {
        return Some(Reason::NotFollowing);
    }
    if !replication.is_healthy() || replication.delay_seconds > 0 {
        return Some(Reason::ReplicationStopped);
    }
    let tolerable =
        replication.lag_seconds.is_some_and(|lag| lag <= settings.tolerable_lag.as_secs());
    (!tolerable).then_some(Reason::LagsBehind(replication.lag_seconds))
}
