//! In which order those come who may be promoted.

use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::status::BinlogFormat;
use crate::tablet::PromotionRule;

use super::contender::{Constraints, Contender};

/// Lower is better. The order of the fields is the order of importance. GTID sets are only partially
/// ordered, so they are not here: the winner catches up with whoever has most.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// So many who could be promoted have more than it, and it cannot get what others have.
    pub(super) stays_behind: usize,
    /// It could not serve at once.
    pub(super) hindered: bool,
    pub(super) rule: PromotionRule,
    pub(super) crosses_cell: bool,
    pub(super) delayed: bool,
    pub(super) leaves_behind: usize,
    pub(super) rows_for_statements: bool,
    pub(super) newer_version: bool,
    pub(super) applier_stands: bool,
    pub(super) behind: bool,
    pub(super) was_replica: bool,
    pub(super) alias: TabletAlias,
}

/// How many who could be promoted have all of this and more.
pub(super) fn more_advanced(received: &GtidSet, trusted: &[&Contender]) -> usize {
    let others = trusted.iter().filter(|one| one.tablet.tablet_type.is_promotable());
    let all = others.map(|one| one.received());
    all.filter(|theirs| theirs.contains(received) && !received.contains(theirs)).count()
}

/// A server that logs statements cannot apply rows: it could not follow one that logs those.
pub(super) fn logs_statements(contender: &Contender) -> bool {
    contender.status.binlog_format == Some(BinlogFormat::Statement)
}

/// What those who may have to follow have in common.
pub(super) struct Followers {
    pub(super) count: usize,
    pub(super) oldest: Option<(u32, u32)>,
    pub(super) logs_statements: bool,
}

impl Followers {
    pub(super) fn of(trusted: &[&Contender]) -> Self {
        Self {
            count: trusted.len().saturating_sub(1),
            oldest: trusted.iter().map(|one| one.status.major_version()).min(),
            logs_statements: trusted.iter().any(|one| logs_statements(one)),
        }
    }
}

pub(super) fn rank(
    contender: &Contender,
    target: &GtidSet,
    followers: &Followers,
    leaves_behind: usize,
    constraints: &Constraints<'_>,
) -> Rank {
    let alias = &contender.tablet.alias;
    Rank {
        stays_behind: 0,
        hindered: contender.hindrance(followers.count).is_some(),
        rule: constraints.settings.promotion_rule(&contender.tablet),
        delayed: contender.delay_seconds() > 0,
        leaves_behind,
        rows_for_statements: followers.logs_statements && !logs_statements(contender),
        newer_version: followers
            .oldest
            .is_some_and(|oldest| contender.status.major_version() > oldest),
        crosses_cell: constraints.old_primary.is_some_and(|old| old.cell != alias.cell),
        applier_stands: contender.applier_stands(),
        behind: !contender.received().contains(target),
        was_replica: contender.was_replica,
        alias: alias.clone(),
    }
}
