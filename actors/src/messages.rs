//! All messages between actors: the map of the system. Facts are in the past tense, commands imperative.

use std::sync::Arc;

use actix::Message;
use tokio::sync::oneshot;
use vtorc_core::admission::Block;
use vtorc_core::audit::{AuditEntry, Outcome, RecoveryRecord};
use vtorc_core::controls::{Control, Controls};
use vtorc_core::ids::{KeyspaceShard, RecoveryId, TabletAlias};
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::knowledge::memory::LastHeard;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::ports::{FindingsChange, HistoryError, LockToken, TopoError};
use vtorc_core::remedy::Wanted;
use vtorc_core::shard::{Pace, ProbeTarget};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::TabletAddress;
use vtorc_core::time::Timestamp;
use vtorc_core::topology::{ShardTopology, TopologyRead};

// To the Registry ------------------------------------------------------------------------------------

/// The topology was read, or could not be.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TopologyWasRead(pub Result<TopologyRead, TopoError>);

/// Hand a request to the shard's recovery actor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RequestRecovery {
    /// Which shard.
    pub shard: KeyspaceShard,
    /// What is wanted.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Accepted, Rejected>>,
}

/// Lift a shard's block.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Acknowledge {
    /// Which shard.
    pub shard: KeyspaceShard,
    /// Who.
    pub by: String,
    /// Why.
    pub comment: String,
    /// Where the answer goes: the block that was lifted, if there was one.
    pub reply: oneshot::Sender<Result<Option<Block>, Rejected>>,
}

/// Switch automatic recoveries on or off.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SwitchRecoveries {
    /// On.
    pub enabled: bool,
    /// Who.
    pub by: String,
    /// Why.
    pub comment: String,
    /// Told when it is in the history.
    pub kept: Kept,
}

/// Who waits until something is in the history, where it survives the death of the process.
pub type Kept = oneshot::Sender<Result<(), HistoryError>>;

/// Set a control, or lift it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ChangeControl {
    /// Which.
    pub control: Control,
    /// Set it, until then or until it is lifted; or lift it.
    pub change: ControlChange,
    /// Who.
    pub by: String,
    /// Why.
    pub comment: String,
    /// Told when it is in the history.
    pub kept: Kept,
}

/// What is done with a control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlChange {
    /// Set, for so long; without it, until it is lifted.
    Set(Option<std::time::Duration>),
    /// Lifted.
    Lift,
}

// To a ShardActor ------------------------------------------------------------------------------------

/// The shard's records were read.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ShardTopologyWasRead(pub ShardTopology);

/// A probe ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ProbeCompleted {
    /// Which tablet was asked, and where.
    pub address: TabletAddress,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// Its answer.
    pub result: Result<ServerStatus, ProbeFailure>,
}

/// Reparent journals were read under the shard's lock: what those servers said.
#[derive(Message)]
#[rtype(result = "()")]
pub struct JournalsWereRead(pub Vec<(TabletAlias, ServerStatus)>);

/// What a recovery actor tells its shard: what runs, what blocks, why nothing is done.
#[derive(Clone, Debug, Default, Message, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct RecoveryReport {
    /// The recovery that runs.
    pub running: Option<RecoveryId>,
    /// The block in force.
    pub block: Option<Block>,
    /// Why what is wanted is not done.
    pub held_back: Option<String>,
    /// A recovery has just ended: what was seen before it counts no more.
    pub ended: Option<RecoveryId>,
    /// When an earlier process last heard the primary.
    pub heard_before: Option<LastHeard>,
    /// The history was read, or is not waited for any more.
    pub knows_history: bool,
}

// To a ProberActor -----------------------------------------------------------------------------------

/// Probe at this pace from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetPace(pub Pace);

/// Stop for good. Sent by whoever started the actor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

/// Probe this target from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Aim(pub ProbeTarget);

// To a RecoveryActor ---------------------------------------------------------------------------------

/// Something is to be repaired. Repeated as long as it stands.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Recover {
    /// What.
    pub wanted: Wanted,
    /// On what it was decided.
    pub snapshot: Arc<ShardSnapshot>,
}

/// What was refused may go now: forget the back-off.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CircumstancesChanged;

/// Somebody asks for something to be done.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StartRequested {
    /// What is wanted.
    pub request: Request,
    /// The shard as known.
    pub snapshot: Arc<ShardSnapshot>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Accepted, Rejected>>,
}

/// Lift the block.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LiftBlock {
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Option<Block>, Rejected>>,
}

/// The request is being carried out.
pub struct Accepted {
    /// The recovery's number.
    pub id: RecoveryId,
    /// How it ended, when it did.
    pub outcome: oneshot::Receiver<Outcome>,
}

pub use vtorc_core::admission::requested::Rejected;
pub use vtorc_core::recovery::request::{
    CureErrantRequest, ErrantCure, ForgetRequest, ReparentKind, ReparentRequest, Request,
};

// To the Auditor -------------------------------------------------------------------------------------

/// Keep something in the history, in this order.
#[derive(Message)]
#[rtype(result = "()")]
pub enum Audit {
    /// A recovery's story so far.
    Recovery(Box<RecoveryRecord>),
    /// A shard's block, or that it has none.
    Block(KeyspaceShard, Option<Block>),
    /// When a shard's primary was last heard.
    LastHeard(KeyspaceShard, LastHeard),
    /// That a shard's lock is held, or no more.
    Lock(KeyspaceShard, Option<LockToken>),
    /// The switch of automatic recoveries.
    RecoveriesEnabled(bool, Kept),
    /// What operators control.
    Controls(Controls, Kept),
    /// An operator's act.
    Act(AuditEntry),
    /// Findings that came and went.
    Findings(FindingsChange),
    /// Remove what ended before this.
    Purge(Timestamp),
}
