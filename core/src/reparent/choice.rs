//! Safety first, then the election: the one order in which a primary is chosen without the old one's help, for the
//! forecast and under the lock alike.

use std::collections::BTreeSet;

use super::election::{self, Constraints, Contender, Election, NoCandidate};
use super::safety::{Reach, Unsafe, check_named};
use crate::durability::DurabilityPolicy;
use crate::ids::TabletAlias;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;

/// How those who take part were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By probes, each at a time of its own: that one lacks what another has says nothing yet.
    ByProbes,
    /// Under the lock, once every receiver was stopped.
    Stopped,
}

/// Whom somebody wants, and whom not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// Nobody else.
    pub wanted: Option<&'a TabletAlias>,
    /// Anybody else.
    pub avoid: Option<&'a TabletAlias>,
}

/// What an election goes by beside those who take part.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// The shard.
    pub snapshot: &'a ShardSnapshot,
    /// The keyspace's policy.
    pub policy: DurabilityPolicy,
    /// The configuration.
    pub settings: &'a RecoverySettings,
    /// Those who were to be promoted just now, and refused.
    pub refused: &'a BTreeSet<TabletAlias>,
}

/// Why nobody is chosen: who must come back, or what must be decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChosen {
    /// Something acknowledged could be lost.
    #[error(transparent)]
    Unsafe(#[from] Unsafe),
    /// Nobody can be primary.
    #[error(transparent)]
    NoCandidate(#[from] NoCandidate),
}

impl<'a> Basis<'a> {
    /// Chooses among those who answered, the old primary included where it did and may stay.
    pub fn choose(
        self,
        contenders: &[Contender],
        asked: Asked,
        wish: Wish<'_>,
    ) -> Result<Election, NotChosen> {
        let Self { snapshot, policy, .. } = self;
        let primary = snapshot.primary();
        let old_primary = primary.map(|state| &state.tablet.alias);
        let reached: BTreeSet<TabletAlias> =
            contenders.iter().map(|one| one.tablet.alias.clone()).collect();
        let reach = Reach::of(snapshot, policy, &reached);
        check_named(snapshot)?;
        if !sabotage::has(Bug::SkipSafety) {
            reach.check_reached(old_primary)?;
        }
        let forgot = |alias: &TabletAlias| {
            snapshot.has_lost_own(alias) || election::has_lost_own(alias, contenders)
        };
        if let Some(writer) = primary.filter(|state| forgot(&state.tablet.alias)) {
            reach.check_forgotten(&writer.tablet)?;
        }
        let stopped = asked == Asked::Stopped;
        let promised = election::promised(policy, primary.filter(|_| stopped));
        let constraints = Constraints {
            old_primary,
            wanted: wish.wanted,
            avoid: wish.avoid,
            complete: stopped && reach.is_complete(),
            last_known: primary.and_then(|state| state.status.as_deref()),
            promised: promised.as_ref(),
            refused: self.refused,
            ackers: election::possible_ackers(&reach, primary, contenders),
            ..Constraints::plain(policy, self.settings, &self.snapshot.unread_tablets)
        };
        Ok(election::elect(contenders, &constraints)?)
    }
}
