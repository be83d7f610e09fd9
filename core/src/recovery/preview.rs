//! What a planned reparent would do if somebody asked for it now, by what is known without the shard's lock.

use super::planned::{self, Move, NotMoved};
use super::request::{ReparentRequest, Request};
use super::task::Task;
use crate::admission::Block;
use crate::admission::requested::{Rejected, may_start};
use crate::durability::UnknownPolicy;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::reparent::choice::Basis;
use crate::reparent::election::NOBODY;
use crate::settings::RecoverySettings;

/// Why it would not be begun, or would move nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WouldNot {
    /// The request would not be accepted.
    #[error(transparent)]
    BeAccepted(#[from] Rejected),
    /// The keyspace's policy is not known.
    #[error("nobody is promoted: {0}")]
    KnowThePolicy(#[from] UnknownPolicy),
    /// Nothing would be moved.
    #[error(transparent)]
    Move(#[from] NotMoved),
}

/// Goes through what is decided before anything is changed, in the same order.
pub fn preview(
    request: &ReparentRequest,
    snapshot: &ShardSnapshot,
    block: Option<&Block>,
    settings: &RecoverySettings,
) -> Result<Move, WouldNot> {
    let task = Task::from(Request::Reparent(request.clone()));
    may_start(&task.named(), task.block_rule(), block, snapshot)?;
    let policy = *snapshot.durability.as_ref().map_err(Clone::clone)?;
    let basis = Basis { snapshot, policy, settings, refused: &NOBODY };
    Ok(planned::plan(basis, request)?)
}
