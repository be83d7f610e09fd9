//! What would happen if the primary died this second: the same safety rule and the same election, on what is
//! known now. Shown for every shard, always, so that the bad day holds no surprise.

use super::choice::{Asked, Basis, NotChosen, Wish};
use crate::admission::{self, Proposal, Refusal, Switches};
use crate::analysis::FindingKind;
use crate::ids::TabletAlias;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::remedy::Remedy;
use crate::reparent::election::{Contender, Election, NOBODY, NoCandidate, PassedOver};
use crate::reparent::safety;
use crate::settings::RecoverySettings;

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prognosis {
    /// There is no primary that could die.
    NoPrimary,
    /// Another tablet would take over.
    Promotes {
        /// Who.
        winner: TabletAlias,
        /// From whom it would first catch up; none if it has everything.
        catches_up_from: Option<TabletAlias>,
        /// Everybody else, and why not.
        passed_over: Vec<PassedOver>,
        /// Why acknowledged writes could be lost; none if they could not.
        may_lose: Option<String>,
    },
    /// Nothing would be done, and why.
    Refuses {
        /// Why.
        why: String,
        /// Everybody who cannot take over, and why not.
        passed_over: Vec<PassedOver>,
    },
}

/// Why this primary would not be replaced whoever else there is.
pub fn forbidden(
    primary: &TabletAlias,
    snapshot: &ShardSnapshot,
    settings: &RecoverySettings,
    switches: Switches<'_>,
) -> Option<Refusal> {
    let failover = Proposal {
        remedy: Remedy::EmergencyReparent,
        finding: FindingKind::DeadPrimary,
        tablet: Some(primary),
    };
    admission::forbidden(failover, snapshot, settings, switches)
}

/// Says what would happen.
pub fn if_primary_died(
    snapshot: &ShardSnapshot,
    settings: &RecoverySettings,
    switches: Switches<'_>,
) -> Prognosis {
    let refuses = |why: String| Prognosis::Refuses { why, passed_over: Vec::new() };
    let Some(primary) = snapshot.primary() else {
        return match safety::check_named(snapshot) {
            Err(unsure) => refuses(unsure.to_string()),
            Ok(()) => Prognosis::NoPrimary,
        };
    };
    let policy = match &snapshot.durability {
        Ok(policy) => *policy,
        Err(unknown) => return refuses(unknown.to_string()),
    };
    let old = &primary.tablet.alias;
    if let Some(refusal) = forbidden(old, snapshot, settings, switches) {
        return refuses(refusal.to_string());
    }
    let mut everybody = Contender::of(snapshot);
    everybody.retain(|one| one.tablet.alias != *old);
    let basis = Basis { snapshot, policy, settings, refused: &NOBODY };
    match basis.choose(&everybody, Asked::ByProbes, Wish::default()) {
        Ok(election) => promotes(&election, snapshot),
        Err(NotChosen::NoCandidate(NoCandidate::AllPassedOver(passed_over))) => {
            Prognosis::Refuses { why: "no tablet can be promoted".into(), passed_over }
        }
        Err(none) => refuses(none.to_string()),
    }
}

fn promotes(election: &Election, snapshot: &ShardSnapshot) -> Prognosis {
    let Some(first) = election.first() else { return Prognosis::NoPrimary };
    Prognosis::Promotes {
        winner: first.alias.clone(),
        catches_up_from: first.sources.first().cloned(),
        passed_over: election.others(&first.alias),
        may_lose: may_lose(snapshot),
    }
}

/// Why writes that the primary acknowledges now could be on the primary alone.
fn may_lose(snapshot: &ShardSnapshot) -> Option<String> {
    let policy = snapshot.durability.as_ref().ok()?;
    let required = policy.acks_required();
    if required == 0 {
        return Some("durability policy none: what no replica has received yet is lost".into());
    }
    let status = snapshot.primary()?.valid_status()?;
    let semi_sync = &status.semi_sync;
    if !semi_sync.source_enabled || semi_sync.wait_count < required {
        return Some("the primary does not wait for acknowledgements, against the policy".into());
    }
    None
}
