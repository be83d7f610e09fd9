//! Whether it is vtorc that is cut off rather than everybody else: most of most shards lost at one moment.

use std::time::Duration;

use crate::knowledge::snapshot::ShardSnapshot;
use crate::time::Timestamp;

/// What was lost within this was lost together.
const TOGETHER: Duration = Duration::from_secs(10);
/// With fewer shards than this, many failures at once are just that.
const SHARDS_MIN: usize = 3;

/// How much of a shard is out of sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfSight {
    /// Its tablets that take part, and were ever seen.
    tablets: usize,
    /// Since when each lost one is lost.
    lost: Vec<Timestamp>,
}

impl OutOfSight {
    /// Of this shard.
    pub fn of(snapshot: &ShardSnapshot) -> Self {
        let seen = snapshot
            .tablets
            .values()
            .filter(|state| state.tablet.tablet_type.is_managed() && state.status.is_some());
        let lost = seen.clone().filter(|state| !state.reachability.is_valid());
        Self {
            tablets: seen.count(),
            lost: lost.filter_map(|state| state.reachability.failing_since()).collect(),
        }
    }
}

/// Says why vtorc must doubt its own sight: more than half of the tablets of more than half of the shards
/// were lost in the same moments. Where the topology server is out of sight as well, half of them are enough.
///
/// Nothing is repaired then: those whom vtorc cannot see may be serving, and another vtorc may see them.
pub fn doubt(shards: &[OutOfSight], topology_lost: bool) -> Option<String> {
    let counted = shards.iter().filter(|shard| shard.tablets > 0).count();
    if counted < SHARDS_MIN {
        return None;
    }
    let together = largest_cluster(shards.iter().flat_map(|shard| &shard.lost).copied().collect());
    let (from, until) = together?;
    let mut lost_tablets = 0;
    let mut lost_shards = 0;
    for shard in shards {
        let lost = shard.lost.iter().filter(|since| (from..=until).contains(*since)).count();
        lost_tablets += lost;
        lost_shards += usize::from(lost * 2 > shard.tablets);
    }
    let most = if topology_lost { lost_shards * 2 >= counted } else { lost_shards * 2 > counted };
    let topology = if topology_lost { ", and so did the topology server" } else { "" };
    most.then(|| {
        format!(
            "{lost_tablets} tablets, most of {lost_shards} of {counted} shards, went out of sight together{topology}"
        )
    })
}

/// The [`TOGETHER`] in which most was lost.
fn largest_cluster(mut lost: Vec<Timestamp>) -> Option<(Timestamp, Timestamp)> {
    lost.sort_unstable();
    let mut best: Option<(usize, Timestamp)> = None;
    let mut first = 0;
    for (at, moment) in lost.iter().enumerate() {
        while lost.get(first).is_some_and(|begin| *begin + TOGETHER < *moment) {
            first += 1;
        }
        let count = at + 1 - first;
        if best.is_none_or(|(most, _)| count > most) {
            best = lost.get(first).map(|begin| (count, *begin));
        }
    }
    best.map(|(_, begin)| (begin, begin + TOGETHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(tablets: usize, lost: &[u64]) -> OutOfSight {
        OutOfSight {
            tablets,
            lost: lost.iter().map(|second| Timestamp::from_millis(second * 1000)).collect(),
        }
    }

    #[test]
    fn most_of_most_shards_at_once_is_a_doubt() {
        let fine = || shard(3, &[]);
        let gone = |second| shard(3, &[second, second + 1]);
        assert!(doubt(&[gone(5), gone(6), fine()], false).is_some());
        let why = doubt(&[gone(5), gone(6), gone(7)], true).unwrap();
        assert!(
            why.starts_with("6 tablets, most of 3 of 3 shards") && why.contains("topology"),
            "{why}"
        );
        // Half of the shards: only where the topology is gone too.
        assert!(doubt(&[gone(5), gone(6), fine(), fine()], false).is_none());
        assert!(doubt(&[gone(5), gone(6), fine(), fine()], true).is_some());
        // One tablet of each shard, such as all primaries of a cell, is a failure like any other.
        let one = || shard(3, &[5]);
        assert!(doubt(&[one(), one(), one()], true).is_none());
        // Long dead, or at different times.
        assert!(doubt(&[gone(5), gone(60), gone(120)], false).is_none());
        assert!(doubt(&[gone(5), gone(5), shard(3, &[500])], false).is_some());
        // Too few shards to tell.
        assert!(doubt(&[gone(5), gone(5)], true).is_none());
        assert!(doubt(&[gone(5), gone(5), shard(0, &[])], true).is_none());
    }
}
