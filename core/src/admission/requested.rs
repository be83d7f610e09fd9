//! Whether something that somebody asks for is done.

use super::Block;
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::knowledge::snapshot::ShardSnapshot;

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not a shard that is watched.
    #[error("no shard {0} is watched here")]
    UnknownShard(KeyspaceShard),
    /// Not a tablet of the shard.
    #[error("{0} is not a tablet of this shard")]
    UnknownTablet(TabletAlias),
    /// It conflicts with the shard's state.
    #[error("{0}")]
    Conflict(String),
    /// The process cannot do it now.
    #[error("{0}")]
    Unavailable(String),
}

/// Whether a block stands in a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockRule {
    /// It is honoured.
    Honoured,
    /// Whoever asks knows of it, or what is asked for is no flapping.
    Ignored,
}

/// Says whether a request may start: it names tablets of the shard, and no block that counts is in force.
pub fn may_start(
    named: &[&TabletAlias],
    rule: BlockRule,
    block: Option<&Block>,
    snapshot: &ShardSnapshot,
) -> Result<(), Rejected> {
    if let Some(unknown) = named.iter().find(|alias| snapshot.tablet(alias).is_none()) {
        return Err(Rejected::UnknownTablet((*unknown).clone()));
    }
    match (block, rule) {
        (Some(block), BlockRule::Honoured) => Err(Rejected::Conflict(format!(
            "blocked by recovery {}; acknowledge it, or ask with ignore_block",
            block.recovery
        ))),
        (Some(_) | None, BlockRule::Honoured | BlockRule::Ignored) => Ok(()),
    }
}
