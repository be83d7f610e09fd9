//! What the outside must supply: probes, statements on servers, the topology, the history.
//!
//! Declared here, implemented by the clients crate (and by simulations), used by the actors only.

mod error;
mod grounds;

use std::time::Duration;

pub use error::CommandError;
pub use grounds::PromotionGrounds;

use async_trait::async_trait;

use crate::admission::Block;
use crate::analysis::FindingKind;
use crate::audit::{AuditEntry, FindingSpan, RecoveryRecord, StepOutcome};
use crate::controls::Controls;
use crate::gtid::GtidSet;
use crate::hooks::{Hook, Occasion};
use crate::ids::{KeyspaceShard, RecoveryId, TabletAlias, WatchList};
use crate::knowledge::health::ProbeFailure;
use crate::knowledge::memory::LastHeard;
use crate::preflight::Inspection;
use crate::source_access::{Login, LoginTrial, SourceAccess};
use crate::status::ServerStatus;
use crate::tablet::{TabletAddress, TabletType};
use crate::time::{TermStart, Timestamp};
use crate::topology::TopologyRead;

/// Opens the one persistent connection with which a tablet is probed.
#[async_trait]
pub trait ProbePort: Send + Sync {
    /// Connects within `deadline`.
    async fn connect(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Box<dyn ProbeConnection>, ProbeFailure>;
}

/// A tablet's probe connection. After any failure it is not used again.
#[async_trait]
pub trait ProbeConnection: Send {
    /// Asks for the server's state.
    async fn probe(&mut self, deadline: Duration) -> Result<ServerStatus, ProbeFailure>;

    /// Holds a question open for `pause`, so that a server that dies meanwhile shows at once.
    async fn listen(&mut self, pause: Duration, grace: Duration) -> Result<(), ProbeFailure>;
}

/// Something to be done on one server. Each is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerCommand {
    /// Read the state, with the reparent journal's length.
    ReadStatus,
    /// Stop receiving; keep applying what was received.
    StopReceiver,
    /// Refuse all writes, and end client sessions that could finish one.
    Demote {
        /// End sessions at once, or only those that hold the demotion up.
        sessions: Sessions,
    },
    /// Wait until everything of this set is applied.
    WaitForPosition {
        /// What to wait for.
        target: GtidSet,
        /// For how long.
        timeout: Duration,
    },
    /// Start the applier if it stands.
    StartApplier,
    /// Become primary: stop replication, set semi-sync, take writes, forget the source.
    Promote {
        /// Acknowledgements to wait for; 0 turns the source's side of semi-sync off.
        acks: u32,
        /// What it was decided on: a server that is found otherwise is not promoted.
        grounds: PromotionGrounds,
    },
    /// Apply what is received so many seconds late, from now on; 0 lifts a delay. Nothing that was received is
    /// thrown away: where the server could not keep it, the command is refused.
    SetDelay {
        /// How late.
        seconds: u64,
    },
    /// Bring semi-sync and writability of a primary in order.
    FixPrimary {
        /// Acknowledgements to wait for.
        acks: u32,
        /// What it was decided on: a server that follows somebody since, or saw a reparent, is not opened.
        grounds: PromotionGrounds,
    },
    /// Become a replica: refuse writes, follow the source, set semi-sync, run both threads.
    Follow {
        /// Whom.
        source: TabletAddress,
        /// Acknowledge what is received.
        semi_sync: bool,
        /// A source that is followed for the first time, or the one it follows already.
        change: SourceChange,
        /// What becomes of what was received and is not applied.
        relay_log: RelayLog,
        /// How it gets in there.
        access: SourceAccess,
    },
    /// Stop and start the receiver.
    RestartReceiver,
    /// Be of another type from now on. Only for tablets with a vttablet, which publish their type themselves.
    ChangeType {
        /// Which.
        tablet_type: TabletType,
    },
    /// A write that changes nothing. A commit that went out to the replicas before they acknowledged is never
    /// acknowledged by itself; the acknowledgement of a later one frees it (MySQL and MariaDB compare
    /// positions, not transactions).
    WriteNothing,
    /// Commit an empty transaction under each of these GTIDs (MySQL): they are no longer somebody else's own.
    CommitEmpty {
        /// As `uuid:number`.
        gtids: Vec<String>,
    },
    /// Write a row of the reparent journal, creating the table where it is missing.
    WriteJournal {
        /// Vitess's name of the action.
        action: String,
        /// The new primary.
        primary: TabletAlias,
        /// Its position when it was promoted.
        position: GtidSet,
        /// When, in nanoseconds since the epoch.
        time_created_ns: u64,
    },
}

impl ServerCommand {
    /// Follow, getting in as the configuration or the channel says, until somebody knows better.
    pub fn follow(
        source: TabletAddress,
        semi_sync: bool,
        change: SourceChange,
        relay_log: RelayLog,
    ) -> Self {
        Self::Follow { source, semi_sync, change, relay_log, access: SourceAccess::default() }
    }

    /// Tells whether it changes nothing on the server.
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::ReadStatus | Self::WaitForPosition { .. })
    }
}

/// Which client sessions a demotion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// All of them at once: they must not get their writes acknowledged.
    EndAll,
    /// Only if they hold it up for this many milliseconds.
    EndAfter(u64),
}

/// Whether a replica must be pointed at its source anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChange {
    /// Point it at the source.
    Repoint,
    /// It follows the right source; only set what else is wrong.
    Keep,
}

/// What becomes of what a replica received and has not applied when it is pointed at another source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayLog {
    /// It stays and is applied. A server that cannot keep it while it is repointed is not repointed.
    MustStay,
    /// The new source has all of it and still holds it in its binary logs: it may be thrown away.
    MayGo,
}

/// Changes servers. Only recoveries use it.
#[async_trait]
pub trait MysqlPort: Send + Sync {
    /// Runs a command over a fresh connection and answers with the server's state afterwards. If the
    /// answer is not awaited to its end, no further statement of the command is sent.
    async fn run(
        &self,
        address: &TabletAddress,
        command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError>;

    /// Whom the server logs in as at its source, or is to: none where nothing tells.
    async fn login(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Option<Login>, CommandError>;

    /// Logs in at this server, from this machine, as its replicas would. None where it is not known as whom, or where
    /// that cannot be tried.
    async fn try_login(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Option<LoginTrial>, CommandError>;

    /// Looks at what matters on the bad day and does not change by itself: grants, settings at start.
    async fn inspect(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Inspection, CommandError>;
}

/// Why the topology did not answer as wished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopoError {
    /// Somebody else holds the lock.
    #[error("the lock of {shard} is held by {holder}")]
    Locked {
        /// Which shard.
        shard: KeyspaceShard,
        /// What the lock says about its holder.
        holder: String,
    },
    /// The lock that was held is held no longer.
    #[error("the shard's lock was lost: {0}")]
    LockLost(String),
    /// The server cannot be reached or does not answer.
    #[error("the topology server does not answer: {0}")]
    Unavailable(String),
    /// The server answers, and has nothing where the cell's records should be.
    #[error("{0}")]
    NoRoot(String),
    /// There is no such record.
    #[error("there is no record {0}")]
    NoNode(String),
    /// There is such a record already.
    #[error("there is a record {0} already")]
    NodeExists(String),
    /// The record was changed by somebody else in between.
    #[error("record {0} was changed by somebody else meanwhile")]
    BadVersion(String),
    /// The record cannot be understood.
    #[error("record {path} cannot be understood: {why}")]
    Damaged {
        /// Which record.
        path: String,
        /// Why.
        why: String,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// The topology: what should be, and the lock of each shard.
#[async_trait]
pub trait TopoPort: Send + Sync {
    /// Reads everything that is watched.
    async fn read(&self, watched: &WatchList) -> Result<TopologyRead, TopoError>;

    /// Reads one shard anew, as far as it can be read: cells and records that do not answer are named in the
    /// reading, and [`crate::topology::merge`] keeps what was known of them.
    async fn read_shard(&self, shard: &KeyspaceShard) -> Result<TopologyRead, TopoError>;

    /// Waits until something changed since the last `read`. May also return without a change.
    async fn changed(&self);

    /// Takes the shard's lock, waiting at most `patience` for its holder.
    async fn lock_shard(
        &self,
        shard: &KeyspaceShard,
        action: &str,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError>;

    /// Gives back the lock that this token names, whose process has ended. Whoever has the lock otherwise keeps it.
    async fn give_back(&self, shard: &KeyspaceShard, token: &LockToken) -> Result<(), TopoError>;

    /// Sets a tablet's type and, for a primary, its term.
    async fn set_tablet_type(
        &self,
        alias: &TabletAlias,
        tablet_type: TabletType,
        term_start: Option<TermStart>,
    ) -> Result<(), TopoError>;

    /// Removes a tablet's record.
    async fn forget_tablet(&self, alias: &TabletAlias) -> Result<(), TopoError>;

    /// Makes the shard's record name its primary. Never replaces a newer term by an older one.
    async fn set_shard_primary(
        &self,
        shard: &KeyspaceShard,
        primary: &TabletAlias,
        term_start: TermStart,
    ) -> Result<(), TopoError>;
}

/// What a held lock is called at its topology server, in that server's own words. Kept while the lock is held, so
/// that a process that is started again after a crash need not wait until the server notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockToken(pub String);

/// A shard's lock while it is held. Dropping it gives it back as well, later.
#[async_trait]
pub trait ShardLock: Send + Sync {
    /// What it is called; none where it ends with the process anyway.
    fn token(&self) -> Option<LockToken>;

    /// Makes sure that it is still held. Asked before every step that cannot be undone.
    async fn check(&self) -> Result<(), TopoError>;

    /// Gives it back.
    async fn release(self: Box<Self>);
}

/// Why the history did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("history store: {0}")]
pub struct HistoryError(pub String);

/// Recoveries, blocks and switches, kept across restarts.
#[async_trait]
pub trait HistoryPort: Send + Sync {
    /// The next recovery's number.
    async fn next_recovery_id(&self) -> Result<RecoveryId, HistoryError>;

    /// Keeps a recovery's story, replacing what was kept of it.
    async fn save_recovery(&self, record: RecoveryRecord) -> Result<(), HistoryError>;

    /// One recovery.
    async fn recovery(&self, id: RecoveryId) -> Result<Option<RecoveryRecord>, HistoryError>;

    /// The last recoveries, newest first.
    async fn recoveries(&self, filter: RecoveryFilter)
    -> Result<Vec<RecoveryRecord>, HistoryError>;

    /// Keeps, or lifts, a shard's block.
    async fn save_block(
        &self,
        shard: &KeyspaceShard,
        block: Option<Block>,
    ) -> Result<(), HistoryError>;

    /// A shard's block.
    async fn block(&self, shard: &KeyspaceShard) -> Result<Option<Block>, HistoryError>;

    /// Keeps when a shard's primary was last heard.
    async fn save_last_heard(
        &self,
        shard: &KeyspaceShard,
        heard: LastHeard,
    ) -> Result<(), HistoryError>;

    /// When a shard's primary was last heard, as it was kept last.
    async fn last_heard(&self, shard: &KeyspaceShard) -> Result<Option<LastHeard>, HistoryError>;

    /// Keeps that a shard's lock is held, or no more.
    async fn save_lock(
        &self,
        shard: &KeyspaceShard,
        token: Option<LockToken>,
    ) -> Result<(), HistoryError>;

    /// The lock of a shard that an earlier process held when it ended; none that this process took.
    async fn lock_left_behind(
        &self,
        shard: &KeyspaceShard,
    ) -> Result<Option<LockToken>, HistoryError>;

    /// Switches automatic recoveries on or off.
    async fn save_recoveries_enabled(&self, enabled: bool) -> Result<(), HistoryError>;

    /// Whether automatic recoveries are on.
    async fn recoveries_enabled(&self) -> Result<bool, HistoryError>;

    /// Keeps what operators control, all of it.
    async fn save_controls(&self, controls: Controls) -> Result<(), HistoryError>;

    /// What operators control.
    async fn controls(&self) -> Result<Controls, HistoryError>;

    /// Keeps an operator's act.
    async fn save_audit(&self, entry: AuditEntry) -> Result<(), HistoryError>;

    /// The last acts, newest first.
    async fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>, HistoryError>;

    /// Keeps which findings of a shard came and went at that moment.
    async fn save_findings(&self, change: FindingsChange) -> Result<(), HistoryError>;

    /// The last findings, newest first.
    async fn findings(&self, filter: RecoveryFilter) -> Result<Vec<FindingSpan>, HistoryError>;

    /// Removes what ended before this.
    async fn purge(&self, before: Timestamp) -> Result<(), HistoryError>;
}

/// Runs the operator's own programs, and tells webhooks.
#[async_trait]
pub trait HookPort: Send + Sync {
    /// Tells whether anything is configured for this hook.
    fn wants(&self, hook: Hook) -> bool;

    /// Runs what is configured, one after another, and answers what came of each. Where a program may veto,
    /// the first that fails is the last that is run.
    async fn run(&self, hook: Hook, occasion: &Occasion) -> Vec<HookRun>;

    /// How many hooks are being run now: the process does not end in the middle of one.
    fn running(&self) -> usize;
}

/// One program that was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRun {
    /// The command as configured.
    pub command: String,
    /// How it ended, with what it printed.
    pub outcome: StepOutcome,
}

/// Findings of one shard that came and went at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingsChange {
    /// The shard.
    pub shard: KeyspaceShard,
    /// When.
    pub at: Timestamp,
    /// New ones, and the tablets that they are about.
    pub appeared: Vec<(FindingKind, Option<TabletAlias>)>,
    /// Those that are gone.
    pub gone: Vec<(FindingKind, Option<TabletAlias>)>,
}

/// Which recoveries, or findings, to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryFilter {
    /// Only of this keyspace.
    pub keyspace: Option<String>,
    /// Only of this shard.
    pub shard: Option<String>,
    /// At most so many.
    pub limit: u32,
}
