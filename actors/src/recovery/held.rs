//! The shard's lock while a recovery holds it. Nothing is changed on a server, and no record written, unless the
//! topology server said a moment ago that it is still held: a process that was stopped in the middle goes on as if no
//! time had passed, and somebody else may hold the lock by then.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use vtorc_core::ids::TabletAlias;
use vtorc_core::ports::{ShardLock, TopoError};
use vtorc_core::recovery::step::StepKind;
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::tablet::Tablet;

use super::job::{Job, Locked, Stopped};

/// An answer that the lock is held is believed if it took no longer than this: locks end with sessions that were silent
/// for longer.
const LOCK_ANSWER_MAX: Duration = Duration::from_secs(5);
/// Opening a server is begun with so much of that left.
const OPENING_MIN: Duration = Duration::from_secs(4);

impl Job {
    /// Makes sure that the lock is still ours; asked before every step that cannot be undone.
    pub(super) async fn check_lock(&self) -> Result<(), Stopped> {
        self.ask_whether_held(self.held.lock.lock().await.as_deref()).await
    }

    /// Asks again only where the last answer is too old to be believed, as after the process was stopped.
    pub(super) async fn still_locked(&self) -> Result<(), Stopped> {
        let believed = || !self.trust_left().is_zero() || sabotage::has(Bug::BelieveOldAnswers);
        if believed() {
            return Ok(());
        }
        // Of several commands that go out side by side one asks.
        let lock = self.held.lock.lock().await;
        if believed() { Ok(()) } else { self.ask_whether_held(lock.as_deref()).await }
    }

    async fn ask_whether_held(&self, lock: Option<&dyn ShardLock>) -> Result<(), Stopped> {
        if sabotage::has(Bug::ForgetLock) {
            return Ok(());
        }
        let lock = lock.ok_or_else(|| Stopped::Failed("the shard's lock is not held".into()))?;
        loop {
            let asked = Instant::now();
            self.topo_step(StepKind::CheckLock, None, lock.check()).await?;
            *self.held.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
            // A process that was stopped meanwhile goes on with an answer that is as old as its sleep.
            if !self.trust_left().is_zero() || sabotage::has(Bug::BelieveOldAnswers) {
                return Ok(());
            }
        }
    }

    /// How long it is still believed that the lock is held.
    pub(super) fn trust_left(&self) -> Duration {
        let asked_at = *self.held.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        asked_at.map_or(Duration::ZERO, |at| LOCK_ANSWER_MAX.saturating_sub(at.elapsed()))
    }
}

impl Locked<'_> {
    /// Makes sure that the lock is still ours; asked before every step that cannot be undone.
    pub(crate) async fn check_lock(&self) -> Result<(), Stopped> {
        self.job.check_lock().await
    }

    /// How long a command may take that opens this server: no longer than the lock is believed to be held. A vttablet's
    /// call is cancelled where its caller gives up, and may take its time.
    pub(super) async fn opening_patience(&self, tablet: &Tablet) -> Result<Duration, Stopped> {
        let job = self.job;
        if job.trust_left() < OPENING_MIN && !sabotage::has(Bug::BelieveOldAnswers) {
            job.check_lock().await?;
        }
        let patience = job.settings.command_timeout;
        let left = job.trust_left();
        if tablet.vttablet.is_some() || sabotage::has(Bug::BelieveOldAnswers) {
            return Ok(patience);
        }
        match left < OPENING_MIN / 2 {
            true => Err(Stopped::Failed(
                "the topology server is too slow in saying that the lock is held".into(),
            )),
            false => Ok(patience.min(left)),
        }
    }

    /// Writes a record as a step of the story, if the lock is still ours.
    pub(super) async fn write_record(
        &self,
        kind: StepKind,
        tablet: &TabletAlias,
        write: impl Future<Output = Result<(), TopoError>>,
    ) -> Result<(), Stopped> {
        self.job.still_locked().await?;
        self.job.topo_step(kind, Some(tablet), write).await
    }
}
