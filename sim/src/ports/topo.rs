//! The topology over the simulated network.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use vtorc_core::ids::{KeyspaceShard, TabletAlias, WatchList};
use vtorc_core::ports::{LockToken, ShardLock, TopoError, TopoPort};
use vtorc_core::tablet::TabletType;
use vtorc_core::time::TermStart;
use vtorc_core::topology::TopologyRead;

use super::{LOOK, Outside};
use crate::network::Party;
use crate::topology::Holder;
use crate::universe::Universe;

/// The client gives a request up after this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The client keeps its session alive so often.
const HEARTBEAT: Duration = Duration::from_secs(2);

fn unavailable() -> TopoError {
    TopoError::Unavailable("no answer in time".into())
}

impl Outside {
    /// One request, there and back; keeps the session alive as well.
    async fn request<T>(
        &self,
        work: impl FnOnce(&mut Universe, u64) -> Result<T, TopoError> + Send,
    ) -> Result<T, TopoError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let (me, them) = (self.me(), Party::Topology);
        self.travel(me, them, deadline).await.map_err(|()| unavailable())?;
        let answer = {
            let mut universe = self.universe.lock();
            if universe.topology.down {
                None
            } else {
                let session = universe.keep_session(self.manager, self.life);
                let unwanted = std::mem::take(&mut *self.unwanted());
                universe.topology.give_back(&unwanted);
                Some(work(&mut universe, session))
            }
        };
        let Some(answer) = answer else {
            sleep(Duration::from_millis(500)).await;
            return Err(TopoError::Unavailable("connection refused".into()));
        };
        self.travel(them, me, deadline).await.map_err(|()| unavailable())?;
        answer
    }

    fn unwanted(&self) -> MutexGuard<'_, Vec<u64>> {
        self.unwanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the session alive for as long as the process lives.
    pub async fn keep_alive(self) {
        loop {
            sleep(HEARTBEAT).await;
            // What became of the session shows when it is needed.
            let _ = self.request(|_, _| Ok(())).await;
        }
    }
}

impl Universe {
    /// A vtorc that takes a shard's lock has asked nobody yet.
    fn begins_to_ask(&mut self, shard: &KeyspaceShard, manager: u8) {
        let names = self.topology.shards.iter().map(|records| &records.name);
        for (_, ledger) in names.zip(&mut self.books).filter(|(name, _)| *name == shard) {
            ledger.asked.remove(&manager);
        }
    }

    /// The session of a vtorc that was just heard; a new one where the old one has ended.
    fn keep_session(&mut self, manager: u8, life: u64) -> u64 {
        let now = self.now;
        let new = self.topology.new_serial();
        let session = self.topology.sessions.entry((manager, life)).or_insert((new, now));
        session.1 = now;
        session.0
    }
}

#[async_trait]
impl TopoPort for Outside {
    async fn read(&self, _: &WatchList) -> Result<TopologyRead, TopoError> {
        self.request(|universe, _| Ok(universe.topology.read())).await
    }

    async fn read_shard(&self, shard: &KeyspaceShard) -> Result<TopologyRead, TopoError> {
        let (shard, manager) = (shard.clone(), self.manager);
        self.request(move |universe, _| {
            let mut read = universe.topology.read();
            read.shards.retain(|name, _| *name == shard);
            let missing = || TopoError::NoNode(shard.to_string());
            let found = read.shards.get(&shard).ok_or_else(missing)?;
            universe.records_were_read(manager, found);
            Ok(read)
        })
        .await
    }

    async fn changed(&self) {
        let seen = self.universe.lock().topology.version;
        loop {
            sleep(LOOK * 5).await;
            let (version, delay) = {
                let universe = self.universe.lock();
                (universe.topology.version, universe.topology.watch_delay_ms)
            };
            if version != seen {
                sleep(Duration::from_millis(delay)).await;
                return;
            }
        }
    }

    async fn lock_shard(
        &self,
        shard: &KeyspaceShard,
        _: &str,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError> {
        let started = Instant::now();
        loop {
            let manager = self.manager;
            let serial = self.universe.lock().topology.new_serial();
            // Called off, or without an answer: it may be ours without our knowing.
            let unsure = Unsure { outside: self, serial: Some(serial) };
            let wanted = shard.clone();
            let taken = self
                .request(move |universe, session| {
                    let records = universe.topology.shard(&wanted)?;
                    if let Some(holder) = records.holder {
                        return Ok(Err(holder));
                    }
                    let holder = Holder { manager, session, serial };
                    records.holder = Some(holder);
                    universe.begins_to_ask(&wanted, manager);
                    universe.note(|| format!("m{manager} took the lock of {wanted}"));
                    Ok(Ok(holder))
                })
                .await?;
            unsure.answered();
            match taken {
                Ok(holder) => {
                    let (outside, shard) = (self.clone(), shard.clone());
                    return Ok(Box::new(HeldLock { outside, shard, holder }));
                }
                Err(holder) if started.elapsed() >= patience => {
                    let (shard, holder) = (shard.clone(), format!("m{}", holder.manager));
                    return Err(TopoError::Locked { shard, holder });
                }
                Err(_) => sleep(LOOK * 5).await,
            }
        }
    }

    async fn give_back(&self, _: &KeyspaceShard, token: &LockToken) -> Result<(), TopoError> {
        let serial = token.0.parse().map_err(|_| TopoError::Invalid(token.0.clone()))?;
        let manager = self.manager;
        self.request(move |universe, _| {
            universe.topology.give_back(&[serial]);
            universe.note(|| format!("m{manager} gave back what it held before: {serial}"));
            Ok(())
        })
        .await
    }

    async fn set_tablet_type(
        &self,
        alias: &TabletAlias,
        tablet_type: TabletType,
        term_start: Option<TermStart>,
    ) -> Result<(), TopoError> {
        let (alias, manager) = (alias.clone(), self.manager);
        self.request(move |universe, _| {
            if let Some(term) = term_start {
                universe.check_new_term(manager, &alias, term);
            }
            universe.check_set_aside(manager, &alias, tablet_type);
            let done = universe.set_tablet_type(&alias, tablet_type, term_start);
            universe.note(|| format!("m{manager} records {alias} {tablet_type}: {}", done.is_ok()));
            done
        })
        .await
    }

    async fn forget_tablet(&self, _: &TabletAlias) -> Result<(), TopoError> {
        Err(TopoError::Invalid("nobody asks for it in a simulation".into()))
    }

    async fn set_shard_primary(
        &self,
        shard: &KeyspaceShard,
        primary: &TabletAlias,
        term_start: TermStart,
    ) -> Result<(), TopoError> {
        let (shard, primary, manager) = (shard.clone(), primary.clone(), self.manager);
        self.request(move |universe, _| {
            universe.note(|| format!("m{manager} names {primary} since {term_start}"));
            universe.set_shard_primary(&shard, &primary, term_start)
        })
        .await
    }
}

/// The lock while it is held. A vtorc that is killed gives it back with its session.
struct HeldLock {
    outside: Outside,
    shard: KeyspaceShard,
    holder: Holder,
}

#[async_trait]
impl ShardLock for HeldLock {
    fn token(&self) -> Option<LockToken> {
        Some(LockToken(self.holder.serial.to_string()))
    }

    async fn check(&self) -> Result<(), TopoError> {
        let (mine, shard) = (self.holder, self.shard.clone());
        self.outside
            .request(move |universe, _| {
                if universe.topology.shard(&shard)?.holder == Some(mine) {
                    Ok(())
                } else {
                    Err(TopoError::LockLost("the session has ended".into()))
                }
            })
            .await
    }

    async fn release(self: Box<Self>) {
        self.outside.unwanted().push(self.holder.serial);
        // If it does not arrive, the next request brings it.
        let _ = self.outside.request(|_, _| Ok(())).await;
    }
}

impl Drop for HeldLock {
    /// A recovery that is called off gives its lock back as well, as the real clients do.
    fn drop(&mut self) {
        if self.outside.alive.load(Ordering::Acquire) {
            self.outside.unwanted().push(self.holder.serial);
            let outside = self.outside.clone();
            tokio::task::spawn_local(async move {
                // If it does not arrive, the next request brings it.
                let _ = outside.request(|_, _| Ok(())).await;
            });
        }
    }
}

/// A lock that was asked for, until the answer is there.
struct Unsure<'a> {
    outside: &'a Outside,
    serial: Option<u64>,
}

impl Unsure<'_> {
    fn answered(mut self) {
        self.serial = None;
    }
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        self.outside.unwanted().extend(self.serial);
    }
}
