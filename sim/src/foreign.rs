//! Another tool that reparents by itself, as Vitess's PlannedReparentShard does: under the shard's lock the primary
//! steps down, the candidate catches up, takes over and is recorded, and the rest follows. It may die anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use vtorc_actors::board::Board;
use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{
    CommandError, MysqlPort, PromotionGrounds, RelayLog, ServerCommand, Sessions, ShardLock,
    SourceChange, TopoError, TopoPort,
};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::{Tablet, TabletType};
use vtorc_core::time::{TermStart, Timestamp};
use vtorc_core::topology::ShardTopology;

use crate::manager::EPOCH_MS;
use crate::ports::Outside;
use crate::universe::Shared;

/// Its place on the network, and its name in the lock.
pub const FOREIGN: u8 = 3;
/// It waits so long for the lock, and for a position.
const PATIENCE: Duration = Duration::from_secs(5);
/// It waits so long for a call.
const CALL: Duration = Duration::from_secs(3);

/// The tool while it runs.
pub struct Foreign {
    alive: Arc<AtomicBool>,
    work: AbortHandle,
}

impl Foreign {
    /// Starts it on a shard; `wanted` is the server that is to take over.
    pub fn launch(universe: &Shared, shard: KeyspaceShard, wanted: u8) -> Self {
        let alive = Arc::new(AtomicBool::new(true));
        let life = universe.lock().topology.new_serial();
        let tool = Tool {
            outside: Outside {
                universe: universe.clone(),
                manager: FOREIGN,
                life,
                board: Arc::new(Board::new()),
                alive: alive.clone(),
                unwanted: Arc::default(),
            },
            shard,
        };
        let work = tokio::task::spawn_local(async move {
            let outcome = tool.reparent(wanted).await;
            tool.outside.universe.lock().note(|| format!("the other tool ends: {outcome:?}"));
        });
        Self { alive, work: work.abort_handle() }
    }

    /// It dies where it is; its lock goes with its session.
    pub fn kill(&self) {
        self.alive.store(false, Ordering::Release);
        self.work.abort();
    }
}

struct Tool {
    outside: Outside,
    shard: KeyspaceShard,
}

/// Why it gave up.
#[derive(Debug)]
#[expect(dead_code, reason = "told in the trace")]
enum GaveUp {
    Topology(TopoError),
    Call(CommandError),
    Unfit(&'static str),
}

impl From<TopoError> for GaveUp {
    fn from(error: TopoError) -> Self {
        Self::Topology(error)
    }
}

impl From<CommandError> for GaveUp {
    fn from(error: CommandError) -> Self {
        Self::Call(error)
    }
}

impl Tool {
    async fn reparent(&self, wanted: u8) -> Result<(), GaveUp> {
        let lock = self.outside.lock_shard(&self.shard, "PlannedReparentShard", PATIENCE).await?;
        let done = self.under_lock(wanted, lock.as_ref()).await;
        lock.release().await;
        done
    }

    async fn open_again(&self, primary: &Tablet, acks: u32) -> Result<(), GaveUp> {
        let found = self.call(primary, ServerCommand::ReadStatus).await?;
        let grounds = PromotionGrounds::of_primary(&found);
        self.call(primary, ServerCommand::FixPrimary { acks, grounds }).await?;
        Ok(())
    }

    async fn under_lock(&self, wanted: u8, lock: &dyn ShardLock) -> Result<(), GaveUp> {
        let mut read = self.outside.read_shard(&self.shard).await?;
        let missing = || TopoError::NoNode(self.shard.to_string());
        let topology = read.shards.remove(&self.shard).ok_or_else(missing)?;
        let (primary, candidate) = self.pair(&topology, wanted)?;
        let before = self.call(&candidate, ServerCommand::ReadStatus).await?;
        if before.replication.is_none() {
            return Err(GaveUp::Unfit("the candidate follows nobody"));
        }
        // Whoever asks for a reparent does not ask for one to a server that lacks data.
        if before.is_filtered() {
            return Err(GaveUp::Unfit("the candidate does not apply everything"));
        }
        lock.check().await?;
        let acks = topology.durability.clone().map_or(0, |policy| policy.acks_required());
        let handed_over = self.hand_over(&primary, &candidate, lock).await;
        if let Err(why) = handed_over {
            // As UndoDemotePrimary does; whether it works or not, the reparent has failed.
            let _ = self.open_again(&primary, acks).await;
            return Err(why);
        }
        // It does not look again.
        let blind = PromotionGrounds {
            position: GtidSet::empty_mysql(),
            own: None,
            source: before.replication.as_ref().map(|replication| replication.source.clone()),
            successor: None,
            receiver_stopped: false,
            journal_length: None,
        };
        let promote = ServerCommand::Promote { acks, grounds: blind };
        self.call(&candidate, promote).await?;
        self.record(&topology, &primary, &candidate).await?;
        for tablet in topology.tablets.values().filter(|one| one.alias != candidate.alias) {
            self.repoint(&topology, tablet, &candidate).await;
        }
        let write = ServerCommand::WriteJournal {
            action: "PlannedReparentShard".into(),
            primary: candidate.alias.clone(),
            position: before.gtid_executed,
            time_created_ns: 0,
        };
        self.call(&candidate, write).await?;
        Ok(())
    }

    fn pair(&self, topology: &ShardTopology, wanted: u8) -> Result<(Tablet, Tablet), GaveUp> {
        let wanted = self.outside.universe.lock().server(wanted).alias.clone();
        let named = topology.record.primary_alias.as_ref();
        let primary = named.and_then(|alias| topology.tablets.get(alias));
        let candidate = topology.tablets.get(&wanted);
        let candidate = candidate.filter(|one| one.tablet_type == TabletType::Replica);
        match (primary, candidate) {
            (Some(primary), Some(candidate)) if primary.tablet_type == TabletType::Primary => {
                Ok((primary.clone(), candidate.clone()))
            }
            _ => Err(GaveUp::Unfit("there is no primary, or no such candidate")),
        }
    }

    async fn hand_over(
        &self,
        primary: &Tablet,
        candidate: &Tablet,
        lock: &dyn ShardLock,
    ) -> Result<(), GaveUp> {
        let demote = ServerCommand::Demote { sessions: Sessions::EndAfter(500) };
        let target = self.call(primary, demote).await?.gtid_executed;
        let wait = ServerCommand::WaitForPosition { target, timeout: CALL };
        self.call(candidate, wait).await?;
        Ok(lock.check().await?)
    }

    /// A vttablet records itself.
    async fn record(
        &self,
        topology: &ShardTopology,
        primary: &Tablet,
        candidate: &Tablet,
    ) -> Result<(), GaveUp> {
        if candidate.vttablet.is_some() {
            return Ok(());
        }
        let now = Timestamp::from_millis(EPOCH_MS + self.outside.universe.lock().now);
        let term = TermStart::after(topology.record.term_start, now);
        let outside = &self.outside;
        outside.set_tablet_type(&candidate.alias, TabletType::Primary, Some(term)).await?;
        outside.set_shard_primary(&self.shard, &candidate.alias, term).await?;
        Ok(outside.set_tablet_type(&primary.alias, TabletType::Replica, None).await?)
    }

    async fn repoint(&self, topology: &ShardTopology, tablet: &Tablet, candidate: &Tablet) {
        let Some(source) = candidate.address() else { return };
        let managed = tablet.tablet_type.is_managed();
        let (Ok(policy), true) = (&topology.durability, managed) else { return };
        let semi_sync = policy.is_acker(candidate, &tablet.as_replica());
        let (change, relay_log) = (SourceChange::Repoint, RelayLog::MayGo);
        let follow = ServerCommand::follow(source, semi_sync, change, relay_log);
        // One that does not follow is left to others.
        let _ = self.call(tablet, follow).await;
    }

    async fn call(
        &self,
        tablet: &Tablet,
        command: ServerCommand,
    ) -> Result<ServerStatus, CommandError> {
        let missing = || CommandError::NotDone("no address".into());
        let address = tablet.address().ok_or_else(missing)?;
        self.outside.run(&address, command, CALL).await
    }
}
