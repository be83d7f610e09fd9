//! What a vtorc is given instead of the real outside: the same ports, over the simulated network.

mod mysql;
mod probes;
mod topo;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use vtorc_actors::board::Board;
use vtorc_core::audit::Trigger;
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::CommandError;
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::tablet::MysqlAddress;

use crate::network::Party;
use crate::server::Server;
use crate::statements::{Reply, Statement};
use crate::universe::Shared;

/// A lock that was lost so lately may not be known to be lost.
const LOCK_GRACE_MS: crate::Millis = 15;
/// An overloaded server lets so many of a hundred statements wait ...
const SATURATED_PERCENT: u8 = 80;
/// ... up to so long.
pub const SATURATED_MS: crate::Millis = 8_000;
/// How often a waiting party looks again.
const LOOK: Duration = Duration::from_millis(10);

/// One vtorc's way to everything else.
#[derive(Clone)]
pub struct Outside {
    /// Everything.
    pub universe: Shared,
    /// Which vtorc.
    pub manager: u8,
    /// Which of its lives: each has a session of its own with the topology server.
    pub life: u64,
    /// What it shows: tells which recovery a statement belongs to.
    pub board: Arc<Board>,
    /// The process lives.
    pub alive: Arc<AtomicBool>,
    /// Locks that are not wanted any more and that the topology server has not been told of.
    pub unwanted: Arc<Mutex<Vec<u64>>>,
}

/// How a question came to nothing.
enum Lost {
    /// It never arrived.
    Unsent(String),
    /// It may have arrived.
    Unanswered(String),
}

impl From<Lost> for CommandError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unsent(why) => Self::Unreached(probe_failure(why)),
            Lost::Unanswered(why) => Self::Unknown(why),
        }
    }
}

fn probe_failure(why: String) -> ProbeFailure {
    if why == "no answer in time" { ProbeFailure::TimedOut } else { ProbeFailure::Refused(why) }
}

/// A connection to one server, in one of its lives.
struct Line {
    outside: Outside,
    server: u8,
    incarnation: u32,
    deadline: Instant,
}

impl Outside {
    fn me(&self) -> Party {
        Party::Manager(self.manager)
    }

    /// Connects: both directions must be open and somebody must listen.
    async fn connect(&self, address: &MysqlAddress, deadline: Instant) -> Result<Line, Lost> {
        let server = Server::number_of(address);
        let (me, them) = (self.me(), Party::Server(server));
        self.travel(me, them, deadline)
            .await
            .map_err(|()| Lost::Unsent("no answer in time".into()))?;
        let state = {
            let universe = self.universe.lock();
            let known = universe.server(server);
            (known.running, known.frozen, known.incarnation)
        };
        self.travel(them, me, deadline)
            .await
            .map_err(|()| Lost::Unsent("no answer in time".into()))?;
        match state {
            (false, _, _) => Err(Lost::Unsent("connection refused".into())),
            // The kernel accepts; the greeting never comes.
            (true, true, incarnation) => {
                self.wait_for_greeting(server, incarnation, deadline).await?;
                Ok(Line { outside: self.clone(), server, incarnation, deadline })
            }
            (true, false, incarnation) => {
                Ok(Line { outside: self.clone(), server, incarnation, deadline })
            }
        }
    }

    async fn wait_for_greeting(
        &self,
        server: u8,
        incarnation: u32,
        deadline: Instant,
    ) -> Result<(), Lost> {
        while Instant::now() < deadline {
            {
                let universe = self.universe.lock();
                let known = universe.server(server);
                if !known.running || known.incarnation != incarnation {
                    return Err(Lost::Unsent("connection reset".into()));
                }
                if !known.frozen {
                    return Ok(());
                }
            }
            sleep(LOOK).await;
        }
        Err(Lost::Unsent("no answer in time".into()))
    }

    /// A packet travels; it fails at the deadline, if it never arrives.
    async fn travel(&self, from: Party, to: Party, deadline: Instant) -> Result<(), ()> {
        let takes = {
            let mut universe = self.universe.lock();
            let universe = &mut *universe;
            universe.network.travel(from, to, &mut universe.dice)
        };
        match takes {
            Some(ms) if Instant::now() + Duration::from_millis(ms) <= deadline => {
                sleep(Duration::from_millis(ms)).await;
                Ok(())
            }
            Some(_) | None => {
                sleep_until(deadline).await;
                Err(())
            }
        }
    }

    /// Nothing that cannot be undone is begun without the lock.
    fn check_lock_held(&self, server: u8) {
        let mut universe = self.universe.lock();
        let now = universe.now;
        let held_at = universe.ledger(server).held_at.get(&self.manager).copied().unwrap_or(0);
        let grace = LOCK_GRACE_MS + universe.network.delay(Party::Topology, self.me());
        if now.saturating_sub(held_at) > grace {
            universe.violated(format!("m{} promotes s{server} without the lock", self.manager));
        }
    }

    /// Tells whether vtorc is replacing the primary of a server's shard by itself.
    fn replaces_a_primary(&self, server: u8) -> bool {
        let shard = self.universe.lock().records_of(server).name.clone();
        self.board.running().iter().any(|record| {
            record.shard == shard
                && record.kind == RecoveryKind::EmergencyReparent
                && record.trigger == Trigger::Automatic
        })
    }
}

impl Line {
    /// One statement, there and back.
    async fn ask(&self, statement: Statement) -> Result<Reply, Lost> {
        let unanswered = || Lost::Unanswered("no answer in time".into());
        let (me, them) = (self.outside.me(), Party::Server(self.server));
        self.outside.travel(me, them, self.deadline).await.map_err(|()| unanswered())?;
        let arrived = self.arrive(&statement)?;
        let reply = match arrived {
            Ok(reply) => reply,
            Err(ticket) => self.wait_for_answer(ticket).await?,
        };
        self.outside.travel(them, me, self.deadline).await.map_err(|()| unanswered())?;
        Ok(reply)
    }

    /// Runs it, or leaves it in a frozen server's socket.
    fn arrive(&self, statement: &Statement) -> Result<Result<Reply, u64>, Lost> {
        let replaces = self.outside.replaces_a_primary(self.server);
        let manager = self.outside.manager;
        let mut universe = self.outside.universe.lock();
        let known = universe.server(self.server);
        if !known.running || known.incarnation != self.incarnation {
            return Err(Lost::Unanswered("connection lost".into()));
        }
        if known.frozen {
            return Ok(Err(universe.queue(self.server, statement.clone(), Some(manager), 0)));
        }
        if known.saturated && universe.dice.u8(0..100) < SATURATED_PERCENT {
            let after = universe.now + universe.dice.u64(0..SATURATED_MS);
            return Ok(Err(universe.queue(self.server, statement.clone(), Some(manager), after)));
        }
        if *statement == Statement::StopReceiver && replaces {
            universe.receiver_stopped(self.server, manager);
        }
        let reply = universe.execute(self.server, statement);
        if statement.promotes(&reply) {
            universe.promoted(self.server, manager, replaces);
        }
        if *statement != Statement::Status {
            let server = self.server;
            universe.note(|| format!("m{manager} -> s{server} {statement:?}: {}", gist(&reply)));
        }
        Ok(Ok(reply))
    }

    /// The server was made to take writes.
    fn took_writes(&self) {
        let replaces = self.outside.replaces_a_primary(self.server);
        self.outside.universe.lock().promoted(self.server, self.outside.manager, replaces);
    }

    async fn wait_for_answer(&self, ticket: u64) -> Result<Reply, Lost> {
        while Instant::now() < self.deadline {
            if let Some(reply) = self.outside.universe.lock().answers.remove(&ticket) {
                return Ok(reply);
            }
            sleep(LOOK).await;
        }
        Err(Lost::Unanswered("no answer in time".into()))
    }
}

fn gist(reply: &Reply) -> &'static str {
    match reply {
        Reply::Status(_) => "status",
        Reply::Done => "done",
        Reply::Pending => "pending",
        Reply::Begun(_) => "begun",
        Reply::Refused(why) => why,
    }
}
