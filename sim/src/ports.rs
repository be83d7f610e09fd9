//! What a vtorc is given instead of the real outside: the same ports, over the simulated network.

mod mariadb;
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

use crate::foreign::FOREIGN;
use crate::ledger::Plan;
use crate::network::Party;
use crate::server::Server;
use crate::statements::{Reply, Statement};
use crate::universe::{Shared, Universe};

/// A lock that was lost so lately may not be known to be lost.
const LOCK_GRACE_MS: crate::Millis = 15;
/// An answer that the lock is held is believed for so long.
const LOCK_BELIEVED_MS: crate::Millis = 5_000;
/// An overloaded server lets so many of a hundred statements wait ...
const SATURATED_PERCENT: u8 = 80;
/// ... up to so long.
pub const SATURATED_MS: crate::Millis = 8_000;
/// Where statements are late, so many of a hundred are, up to so long.
const LATE_PERCENT: u8 = 40;
/// A statement may run so long after it was given up.
pub const LATE_MS: crate::Millis = 30_000;
/// So many transactions come from setting a server up.
const SET_UP_MAX: usize = 100;
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
    Unsent(ProbeFailure),
    /// It may have arrived.
    Unanswered(ProbeFailure),
    /// Its sender was not let in.
    TurnedAway(String),
}

impl From<Lost> for CommandError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unsent(failure) => Self::Unreached(failure),
            Lost::Unanswered(failure) => Self::Unknown(failure.to_string()),
            Lost::TurnedAway(why) => Self::Unreached(ProbeFailure::TurnedAway(why)),
        }
    }
}

/// A connection to one server, in one of its lives.
struct Line {
    outside: Outside,
    /// Whose address was called ...
    address: u8,
    /// ... and who answered there.
    server: u8,
    incarnation: u32,
    sessions: u32,
    deadline: Instant,
}

impl Outside {
    fn me(&self) -> Party {
        Party::Manager(self.manager)
    }

    /// Connects: both directions must be open and somebody must listen.
    async fn connect(&self, address: &MysqlAddress, deadline: Instant) -> Result<Line, Lost> {
        let address = Server::number_of(address);
        let server = self.universe.lock().behind(address);
        let (me, them) = (self.me(), Party::Server(server));
        self.travel(me, them, deadline).await.map_err(|()| Lost::Unsent(ProbeFailure::TimedOut))?;
        let known = self.universe.lock().server(server).process();
        self.travel(them, me, deadline).await.map_err(|()| Lost::Unsent(ProbeFailure::TimedOut))?;
        if !known.running {
            return Err(Lost::Unsent(ProbeFailure::Refused("connection refused".into())));
        }
        let incarnation = known.incarnation;
        if known.frozen {
            // The kernel accepts; the greeting never comes.
            self.wait_for_greeting(server, incarnation, deadline).await?;
        }
        let (turned_away, sessions) = {
            let universe = self.universe.lock();
            let ills = &universe.server(server).ills;
            (ills.turns_away(self.manager), ills.sessions_ended)
        };
        if turned_away {
            return Err(Lost::TurnedAway("Too many connections".into()));
        }
        let outside = self.clone();
        Ok(Line { outside, address, server, incarnation, sessions, deadline })
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
                    return Err(Lost::Unsent(ProbeFailure::Refused("connection reset".into())));
                }
                if !known.frozen {
                    return Ok(());
                }
            }
            sleep(LOOK).await;
        }
        Err(Lost::Unsent(ProbeFailure::TimedOut))
    }

    /// What a vtorc has sent is on its way without it: its process is not stopped before that has arrived.
    fn fly(&self, from: Party) -> Option<Flight> {
        (from == self.me()).then(|| {
            *self.universe.lock().flying.entry(self.manager).or_default() += 1;
            Flight { universe: self.universe.clone(), manager: self.manager }
        })
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
                let _flight = self.fly(from);
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
            universe.violated(format!("m{} opens s{server} without the lock", self.manager));
        }
    }

    /// Nothing is changed that was decided on under a lock which is lost for long.
    fn check_lock_held_lately(&self, universe: &mut Universe, address: u8, what: &Statement) {
        let held_at = universe.ledger(address).held_at.get(&self.manager).copied().unwrap_or(0);
        let grace = LOCK_GRACE_MS + universe.network.delay(Party::Topology, self.me());
        if universe.now.saturating_sub(held_at) > LOCK_BELIEVED_MS + grace {
            let manager = self.manager;
            universe.violated(format!("m{manager} tells s{address} without the lock: {what:?}"));
        }
    }

    /// What a vtorc is doing with a server's shard when it lets that take writes.
    fn plan(&self, server: u8) -> Plan {
        let shard = self.universe.lock().records_of(server).name.clone();
        let running = self.board.running();
        let here = || running.iter().filter(|record| record.shard == shard);
        let is = |kind, trigger| here().any(|one| one.kind == kind && one.trigger == trigger);
        if is(RecoveryKind::EmergencyReparent, Trigger::Automatic) {
            Plan::Replace
        } else if is(RecoveryKind::PlannedReparent, Trigger::Automatic) {
            Plan::MoveAway
        } else if here().any(|one| one.kind == RecoveryKind::PlannedReparent) {
            Plan::Move
        } else {
            Plan::Other
        }
    }
}

/// A statement that waits at the server is asked for again and again here: it was sent once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    First,
    Waits,
}

/// A packet of a vtorc's while it is on its way.
struct Flight {
    universe: Shared,
    manager: u8,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(flying) = self.universe.lock().flying.get_mut(&self.manager) {
            *flying = flying.saturating_sub(1);
        }
    }
}

impl Line {
    /// One statement, there and back.
    async fn ask(&self, statement: Statement) -> Result<Reply, Lost> {
        self.send(statement, Sent::First).await
    }

    async fn send(&self, statement: Statement, sent: Sent) -> Result<Reply, Lost> {
        let unanswered = || Lost::Unanswered(ProbeFailure::TimedOut);
        let (me, them) = (self.outside.me(), Party::Server(self.server));
        self.outside.travel(me, them, self.deadline).await.map_err(|()| unanswered())?;
        let arrived = self.arrive(&statement, sent)?;
        let reply = match arrived {
            Ok(reply) => reply,
            Err(ticket) => self.wait_for_answer(ticket).await?,
        };
        self.outside.travel(them, me, self.deadline).await.map_err(|()| unanswered())?;
        Ok(reply)
    }

    /// Runs it, or leaves it in a frozen server's socket.
    fn arrive(&self, statement: &Statement, sent: Sent) -> Result<Result<Reply, u64>, Lost> {
        let plan = self.outside.plan(self.server);
        let (manager, until) = (self.outside.manager, self.until());
        let mut universe = self.outside.universe.lock();
        if !self.is_open(&universe) {
            return Err(Lost::Unanswered(ProbeFailure::Refused("connection lost".into())));
        }
        if manager != FOREIGN && !statement.only_reads() && sent == Sent::First {
            self.outside.check_lock_held_lately(&mut universe, self.address, statement);
        }
        if self.address != self.server && !statement.only_reads() {
            universe.strangers_are_told(manager, self.address, self.server, statement);
            return Ok(Ok(Reply::Refused("nobody of another shard is let in")));
        }
        if let Some(not_before) = universe.waits_in_socket(self.server, statement) {
            let when = (not_before, until);
            return Ok(Err(universe.queue(self.server, statement.clone(), Some(manager), when)));
        }
        universe.run_those_before(self.server, statement, u64::MAX);
        if *statement == Statement::StopReceiver && plan == Plan::Replace {
            universe.receiver_stopped(self.server, manager);
        }
        let reply = universe.execute(self.server, statement);
        if statement.promotes(&reply) {
            universe.promoted(self.server, manager, plan);
        }
        if *statement != Statement::Status {
            let server = self.server;
            universe.note(|| format!("m{manager} -> s{server} {statement:?}: {}", gist(&reply)));
        }
        Ok(Ok(reply))
    }

    /// The process and the session that were connected to are still there.
    fn is_open(&self, universe: &Universe) -> bool {
        let known = universe.server(self.server);
        known.running
            && known.incarnation == self.incarnation
            && known.ills.sessions_ended == self.sessions
            && universe.behind(self.address) == self.server
    }

    /// When its asker gives up.
    fn until(&self) -> crate::Millis {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
        self.outside.universe.lock().now + u64::try_from(left).unwrap_or(0)
    }

    /// The server was made to take writes: just now, or a vtorc learns of it after a sleep.
    fn took_writes(&self, just_now: bool) {
        let plan = self.outside.plan(self.server);
        let mut universe = self.outside.universe.lock();
        match just_now {
            true => universe.promoted(self.server, self.outside.manager, plan),
            false => universe.has_won(self.server),
        }
    }

    async fn wait_for_answer(&self, ticket: u64) -> Result<Reply, Lost> {
        while Instant::now() < self.deadline {
            if let Some(reply) = self.outside.universe.lock().answers.remove(&ticket) {
                return Ok(reply);
            }
            sleep(LOOK).await;
        }
        Err(Lost::Unanswered(ProbeFailure::TimedOut))
    }
}

impl Universe {
    /// A statement waits in the socket of a server that is frozen, overloaded or late, and is not run before this.
    fn waits_in_socket(&mut self, server: u8, statement: &Statement) -> Option<crate::Millis> {
        let known = self.server(server);
        let (frozen, saturated, late) = (known.frozen, known.saturated, known.ills.late);
        if frozen {
            return Some(0);
        }
        if saturated && self.dice.u8(0..100) < SATURATED_PERCENT {
            return Some(self.now + self.dice.u64(0..SATURATED_MS));
        }
        if late && !statement.only_reads() && self.dice.u8(0..100) < LATE_PERCENT {
            return Some(self.now + self.dice.u64(0..LATE_MS));
        }
        None
    }

    /// It wrote hardly anything: by its data it could be anybody.
    fn has_no_history(&self, server: u8) -> bool {
        self.server(server).executed.iter().count() <= SET_UP_MAX
    }

    /// It answers at its own address and at another one, and nothing tells which of the two records is its own.
    pub fn is_behind_two_records(&self, server: u8) -> bool {
        let elsewhere = self.strangers.values().any(|stranger| *stranger == server);
        elsewhere && self.behind(server) == server && self.has_no_history(server)
    }

    /// A server is told something that was meant for a tablet of another shard. Nobody can tell one that wrote hardly
    /// anything from one that was only set up. The other tool knows no identities.
    fn strangers_are_told(&mut self, manager: u8, address: u8, server: u8, what: &Statement) {
        // Whose of two records of one shard it is, a vtorc that was started later cannot tell. What it does to the
        // server, the rest of the judge sees.
        let twins = self.server(server).shard == self.server(address).shard;
        if twins || self.has_no_history(server) || manager == FOREIGN {
            return;
        }
        self.violated(format!(
            "m{manager} told s{server} of another shard, which answers at the address of s{address}: {what:?}"
        ));
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
