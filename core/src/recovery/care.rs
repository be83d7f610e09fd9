//! Which replicas are repaired under the lock, which care each gets, and what stands in the way of all of them.

use std::collections::BTreeMap;

use crate::analysis::{self, Finding, FindingKind};
use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::ports::CommandError;
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;
use crate::status::ServerStatus;
use crate::tablet::Tablet;

/// Of what was found by probes, what is there under the lock as well.
pub fn due<'a>(
    findings: &'a [Finding],
    fresh: &ShardSnapshot,
    settings: &RecoverySettings,
) -> Vec<&'a Finding> {
    let now = analysis::detect(fresh, settings);
    let present = |finding: &&Finding| {
        let believed = sabotage::has(Bug::RepairOldNews);
        believed
            || now.iter().any(|seen| seen.tablet == finding.tablet && seen.kind == finding.kind)
    };
    findings.iter().filter(present).collect()
}

/// Of the tablets of these findings, those that follow a tablet out of sight, which may have been promoted without the
/// records knowing. Taking its followers away one by one would leave what they acknowledged to chance: they are all
/// stopped first.
pub fn followers_of_lost(due: &[&Finding], fresh: &ShardSnapshot) -> Vec<Tablet> {
    let states = due.iter().filter_map(|finding| fresh.tablet(finding.tablet.as_ref()?));
    let followers = states.filter(|state| fresh.follows_lost_tablet(state));
    followers.map(|state| state.tablet.clone()).collect()
}

/// Of those who were stopped, those who may have what the tablet out of sight wrote: nobody goes on before that comes
/// back.
pub fn may_be_ahead(
    stopped: &BTreeMap<TabletAlias, Result<ServerStatus, CommandError>>,
    primary: &Result<ServerStatus, CommandError>,
) -> Vec<TabletAlias> {
    let ahead = stopped.iter().filter(|(_, answer)| match (answer, primary) {
        (Ok(status), Ok(source)) => !status.received_beyond(source).is_empty(),
        (Err(_), _) | (Ok(_), Err(_)) => true,
    });
    ahead.map(|(alias, _)| alias.clone()).collect()
}

/// Commits went out before their replicas acknowledged, and a replica is about to acknowledge again: a write of ours
/// frees them.
pub fn commits_wait(due: &[&Finding], fresh: &ShardSnapshot) -> bool {
    let acknowledges_again =
        due.iter().any(|one| one.kind == FindingKind::ReplicaSemiSyncMustBeSet);
    let waits = |state: &TabletState| {
        state.status.as_ref().is_some_and(|status| status.semi_sync.waiting_sessions > 0)
    };
    acknowledges_again && fresh.primary().is_some_and(waits)
}

/// What is done with a tablet once it refuses writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Care {
    /// Nothing more: vtorc leaves tablets of its type alone.
    NothingMore,
    /// It is taken out of service for these errant GTIDs.
    Drain(GtidSet),
    /// It has no errant GTIDs any more.
    Gone,
    /// It is made to follow the primary.
    Cure,
}

/// Says which.
pub fn care(finding: FindingKind, tablet: &Tablet, fresh: &ShardSnapshot) -> Care {
    if !tablet.tablet_type.is_managed() {
        return Care::NothingMore;
    }
    if finding != FindingKind::ErrantGTIDDetected {
        return Care::Cure;
    }
    let state = fresh.tablet(&tablet.alias);
    let errant = state.and_then(|state| analysis::errant_gtids(state, fresh.primary_in_sight()?));
    errant.map_or(Care::Gone, Care::Drain)
}
