//! Shard locks in consul, exclusive with those of Vitess's own tools.
//!
//! Whoever's session holds the key `Lock` in the shard's directory holds the lock. A session that is not prolonged
//! ends, and its locks with it; consul then lets nobody in for a while, so that the old holder has time to notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};

use super::super::local::one_line;
use super::agent::{Agent, Pair};

/// The mark of keys that are locks; consul's own library, which Vitess uses, refuses keys without it.
const LOCK_FLAGS: &str = "3304740253564472344";
/// Looks again after this even if nothing was heard.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Consul keeps the locks of a session that ended by itself from others for as long as it was told to.
const DELAYED: &str =
    "nobody: the session of its last holder ended, and consul keeps it closed for the lock delay";

/// What sessions are like, by Vitess's `--topo-consul-lock-*` flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulLocks {
    /// Health checks of the agent's node that must pass as long as the session lives.
    pub checks: Vec<String>,
    /// A session that is not prolonged for so long ends, at twice this at the latest.
    pub ttl: Duration,
    /// Nobody gets a lock for so long after its holder's session ended by itself.
    pub delay: Duration,
}

/// A shard's lock, and how to get it.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) agent: Arc<Agent>,
    pub(super) key: String,
    pub(super) contents: String,
}

impl Door {
    /// Waits at most `patience` for whoever has it.
    pub(super) async fn take(
        self,
        locks: &ConsulLocks,
        shard: &KeyspaceShard,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError> {
        // With no patience, look before asking for a session.
        if patience.is_zero()
            && let Some(pair) = self.held_by_another().await?
        {
            return Err(TopoError::Locked { shard: shard.clone(), holder: holder(&pair) });
        }
        let session = Session::begin(self.clone(), locks).await?;
        let started = Instant::now();
        loop {
            let held = self.held_by_another().await?;
            if held.is_none() && self.acquire(&session.id).await? {
                return Ok(Box::new(HeldLock { session }));
            }
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() {
                // It may have been taken between the look and the attempt.
                let held = if held.is_some() { held } else { self.held_by_another().await? };
                let holder = held.as_ref().map_or_else(|| DELAYED.to_owned(), holder);
                session.end().await;
                return Err(TopoError::Locked { shard: shard.clone(), holder });
            }
            let pause = left.min(LOOK_AGAIN);
            match &held {
                Some(pair) => {
                    if self.agent.changed(pair, pause).await.is_err() {
                        tokio::time::sleep(pause).await;
                    }
                }
                None => tokio::time::sleep(pause).await,
            }
        }
    }

    async fn held_by_another(&self) -> Result<Option<Pair>, TopoError> {
        let Some(pair) = self.agent.pair(&self.key).await? else { return Ok(None) };
        if pair.flags.to_string() != LOCK_FLAGS {
            return Err(TopoError::Invalid(format!("{} in consul is there and no lock", self.key)));
        }
        Ok((!pair.session.is_empty()).then_some(pair))
    }

    async fn acquire(&self, session: &str) -> Result<bool, TopoError> {
        let query = [("acquire", session), ("flags", LOCK_FLAGS)];
        self.agent.put(&self.key, &query, self.contents.as_bytes()).await
    }

    /// Gives it back if this session has it, and ends the session. Vitess takes a key that is left for a lock that
    /// is held, so that is deleted, unless somebody else was faster. In this order: a session that ends with the
    /// lock would close it for the lock delay.
    pub(super) async fn leave(&self, session: &str) -> Result<(), TopoError> {
        let query = [("release", session), ("flags", LOCK_FLAGS)];
        if self.agent.pair(&self.key).await?.is_some_and(|pair| pair.session == session) {
            self.agent.put(&self.key, &query, self.contents.as_bytes()).await?;
        }
        self.agent.end_session(session).await?;
        if let Some(pair) = self.agent.pair(&self.key).await?.filter(|pair| pair.session.is_empty())
        {
            self.agent.delete(&pair).await?;
        }
        Ok(())
    }
}

/// What the lock says of who has it.
fn holder(pair: &Pair) -> String {
    one_line(&String::from_utf8_lossy(&pair.value().unwrap_or_default()))
}

/// A session that is kept alive, until it is ended or dropped.
struct Session {
    door: Door,
    id: String,
    ttl: Duration,
    keeping: JoinHandle<()>,
    ended: AtomicBool,
}

impl Session {
    async fn begin(door: Door, locks: &ConsulLocks) -> Result<Self, TopoError> {
        let text = |time: Duration| format!("{}ms", time.as_millis());
        let wanted = json!({
            "Name": "Consul API Lock",
            "TTL": text(locks.ttl),
            "LockDelay": text(locks.delay),
            "NodeChecks": locks.checks,
        });
        let id = door.agent.begin_session(&wanted).await?;
        let (agent, renewed, ttl) = (door.agent.clone(), id.clone(), locks.ttl);
        let keeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(ttl / 3).await;
                // One that cannot be prolonged is found out by whoever checks the lock.
                if agent.renew_session(&renewed).await == Ok(false) {
                    return;
                }
            }
        });
        Ok(Self { door, id, ttl, keeping, ended: false.into() })
    }

    async fn end(&self) {
        self.keeping.abort();
        // What cannot be given back now is given back later: see `Drop`.
        let left = self.door.leave(&self.id).await.is_ok();
        self.ended.store(left, Ordering::Release);
    }
}

impl Drop for Session {
    /// A lock that is not wanted any more must not block the shard until its session is over.
    fn drop(&mut self) {
        self.keeping.abort();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        let (door, id, over) = (self.door.clone(), self.id.clone(), Instant::now() + 2 * self.ttl);
        runtime.spawn(async move {
            while door.leave(&id).await.is_err() && Instant::now() < over {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
    }
}

/// The lock, held by our session.
struct HeldLock {
    session: Session,
}

#[async_trait]
impl ShardLock for HeldLock {
    fn token(&self) -> Option<LockToken> {
        Some(LockToken(self.session.id.clone()))
    }

    /// The session could be prolonged, and the leader says that it has the key: asked, not assumed. The reading is
    /// `consistent`: a leader that was deposed and does not know it says nothing.
    async fn check(&self) -> Result<(), TopoError> {
        let lost = |why: String| TopoError::LockLost(why);
        let Session { door, id, .. } = &self.session;
        match door.agent.renew_session(id).await {
            Ok(true) => {}
            Ok(false) => return Err(lost("our session in consul is over".into())),
            Err(error) => return Err(lost(error.to_string())),
        }
        match door.agent.pair(&door.key).await {
            Ok(Some(pair)) if pair.session == *id => Ok(()),
            Ok(_) => Err(lost("our session does not hold the key any more".into())),
            Err(error) => Err(lost(error.to_string())),
        }
    }

    async fn release(self: Box<Self>) {
        self.session.end().await;
    }
}
