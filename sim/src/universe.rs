//! Everything that exists in one run, behind one lock: the servers of all shards, topology, network, who wrote
//! what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::sabotage::{self, Bug};
use vtorc_core::tablet::{Tablet, TabletType, VttabletAddress};

use crate::Millis;
use crate::claims::ECHO_MS;
use crate::faults::{Fault, Hostile, Kind};
use crate::gtids::Txn;
use crate::ledger::{Ledger, Plan};
use crate::network::Network;
use crate::schedule::ShardPlan;
use crate::server::Server;
use crate::statements::{Reply, Statement};
use crate::topology::{ShardRecords, Topology};
use crate::vttablet::Vttablet;

/// A statement that reached a frozen or overloaded server and waits in its socket. It is run when the server comes to
/// it, whether anybody still waits for the answer or not.
pub struct Queued {
    /// Which server.
    pub server: u8,
    /// Its life; a restart empties the sockets.
    pub incarnation: u32,
    /// What.
    pub statement: Statement,
    /// Which vtorc or tool asked; none for a client.
    pub asker: Option<u8>,
    /// Which question it answers.
    pub ticket: u64,
    /// Its asker gives it up then.
    pub until: Millis,
    /// The server does not come to it before.
    pub not_before: Millis,
}

/// Everything.
pub struct Universe {
    /// Virtual time.
    pub now: Millis,
    /// All chance.
    pub dice: fastrand::Rng,
    servers: Vec<Server>,
    /// By server; none in a shard of plain servers.
    pub vttablets: Vec<Vttablet>,
    /// The topology server.
    pub topology: Topology,
    /// Who reaches whom.
    pub network: Network,
    /// By shard: who wrote what, who was promoted.
    pub books: Vec<Ledger>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// Transactions that are rows of a reparent journal.
    pub journal_txns: BTreeSet<Txn>,
    /// What somebody wrote on a replica.
    pub mistakes: BTreeSet<Txn>,
    /// Of that, what some vtorc did not see: a MariaDB does not tell of it later.
    pub unwatched: BTreeSet<Txn>,
    /// Statements in the sockets of frozen servers.
    pub queued: Vec<Queued>,
    /// Answers to queued statements.
    pub answers: BTreeMap<u64, Reply>,
    tickets: u64,
    /// Steps of recoveries so far, of all vtorcs.
    pub points: u64,
    /// What goes wrong at which of them.
    pub strikes: Vec<(u64, Fault)>,
    /// Struck: the server, and when it is over.
    struck: Vec<(Millis, Fault, u8)>,
    /// From when until when strikes were at work.
    struck_times: Vec<(Millis, Millis)>,
    /// How many vtorcs there are.
    pub managers: u8,
    /// Those whose process stands still, and since when.
    pub paused: BTreeMap<u8, Millis>,
    /// Those whose own network is slow, or was, and until when.
    pub slow_managers: BTreeMap<u8, Millis>,
    /// How many packets of each vtorc are on their way.
    pub flying: BTreeMap<u8, u32>,
    /// At whose address another shard's server answers, and which.
    pub strangers: BTreeMap<u8, u8>,
    /// A statement that lets a server take writes does nothing once its asker has given it up.
    pub deadlines_carried: bool,
    /// What happened, in words; empty unless asked for.
    pub trace: Option<Vec<String>>,
    /// Stands for all that happened, to compare two runs.
    pub digest: u64,
}

/// A universe that everybody in a run shares.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Universe>>);

impl Shared {
    /// Shares it.
    pub fn new(universe: Universe) -> Self {
        Self(Arc::new(Mutex::new(universe)))
    }

    /// Never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Universe> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Universe {
    /// These shards, with empty servers.
    pub fn new(seed: u64, shards: &[ShardPlan]) -> Self {
        let mut universe = Self {
            now: 0,
            dice: fastrand::Rng::with_seed(seed),
            servers: Vec::new(),
            vttablets: Vec::new(),
            topology: Topology::default(),
            network: Network::default(),
            books: Vec::new(),
            violations: Vec::new(),
            journal_txns: BTreeSet::new(),
            mistakes: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            queued: Vec::new(),
            answers: BTreeMap::new(),
            tickets: 0,
            points: 0,
            strikes: Vec::new(),
            struck: Vec::new(),
            struck_times: Vec::new(),
            managers: 0,
            paused: BTreeMap::new(),
            slow_managers: BTreeMap::new(),
            flying: BTreeMap::new(),
            strangers: BTreeMap::new(),
            deadlines_carried: false,
            trace: None,
            digest: 0xcbf2_9ce4_8422_2325,
        };
        for (number, plan) in shards.iter().enumerate() {
            // Each in a keyspace of its own, since policies are the keyspaces'.
            let name = KeyspaceShard { keyspace: format!("ks{number}"), shard: "0".into() };
            universe.topology.shards.push(ShardRecords::new(name, plan.policy));
            universe.books.push(Ledger::default());
            let first = universe.count();
            for (cell, tablet_type) in &plan.tablets {
                universe.add_tablet(number, cell, *tablet_type, plan.mariadb);
            }
            for (at, habit) in &plan.habits {
                let all = plan.habits.iter().filter(|(_, other)| other == habit).count();
                universe.give_habit(first + *at, *habit, all == plan.tablets.len());
            }
        }
        universe.give_scripts();
        universe
    }

    fn add_tablet(&mut self, shard: usize, cell: &str, tablet_type: TabletType, mariadb: bool) {
        let number = u8::try_from(self.servers.len()).unwrap_or(u8::MAX);
        let alias = TabletAlias { cell: cell.to_owned(), uid: 100 + u32::from(number) };
        let server = Server::new(number, shard, alias.clone(), tablet_type);
        self.servers.push(Server { mariadb, ..server });
        let tablet = self.new_record(number);
        self.topology.tablets.insert(alias, tablet);
    }

    /// Puts a vttablet before every server.
    pub fn give_vttablets(&mut self) {
        self.vttablets = self.servers.iter().map(|one| Vttablet::new(one.made_for)).collect();
        for number in 0..self.count() {
            let tablet = self.new_record(number);
            self.topology.tablets.insert(tablet.alias.clone(), tablet);
        }
    }

    /// The record that an operator would make for a server.
    pub fn new_record(&self, number: u8) -> Tablet {
        Tablet {
            alias: self.server(number).alias.clone(),
            shard: self.records_of(number).name.clone(),
            tablet_type: self.server(number).made_for,
            mysql: Some(Server::address(number)),
            term_start: None,
            vttablet: self
                .vttablets
                .get(usize::from(number))
                .map(|_| VttabletAddress { host: format!("s{number}"), port: 15_999 }),
            promotion_rule: None,
        }
    }

    /// How many servers there are.
    pub fn count(&self) -> u8 {
        u8::try_from(self.servers.len()).unwrap_or(u8::MAX)
    }

    /// The servers of a shard.
    pub fn members(&self, shard: usize) -> impl DoubleEndedIterator<Item = u8> + use<> {
        let of_shard = self.servers.iter().filter(|server| server.shard == shard);
        of_shard.map(|server| server.number).collect::<Vec<u8>>().into_iter()
    }

    /// The other servers of a server's shard.
    pub fn others(&self, number: u8) -> impl DoubleEndedIterator<Item = u8> + use<> {
        self.members(self.server(number).shard).filter(move |other| *other != number)
    }

    /// What the topology says of a server's shard.
    #[expect(clippy::indexing_slicing, reason = "shards are made by new only")]
    pub fn records_of(&self, number: u8) -> &ShardRecords {
        &self.topology.shards[self.server(number).shard]
    }

    /// The books of a server's shard.
    #[expect(clippy::indexing_slicing, reason = "shards are made by new only")]
    pub fn ledger(&self, number: u8) -> &Ledger {
        &self.books[self.server(number).shard]
    }

    /// The books of a server's shard, to write into.
    #[expect(clippy::indexing_slicing, reason = "shards are made by new only")]
    pub fn ledger_mut(&mut self, number: u8) -> &mut Ledger {
        let shard = self.server(number).shard;
        &mut self.books[shard]
    }

    /// Notes what must never happen.
    pub fn violated(&mut self, what: String) {
        let now = self.now;
        self.violations.push(format!("at {now} ms: {what}"));
    }

    /// All servers.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// One server.
    #[expect(clippy::indexing_slicing, reason = "numbers are given out by add_tablet only")]
    pub fn server(&self, number: u8) -> &Server {
        &self.servers[usize::from(number)]
    }

    /// One server, to change it.
    #[expect(clippy::indexing_slicing, reason = "numbers are given out by add_tablet only")]
    pub fn server_mut(&mut self, number: u8) -> &mut Server {
        &mut self.servers[usize::from(number)]
    }

    /// The server of a tablet.
    pub fn server_of(&self, alias: &TabletAlias) -> Option<&Server> {
        self.servers.iter().find(|server| server.alias == *alias)
    }

    /// Notes what happened.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let line = format!("{:>8} {}", self.now, what());
        // FNV-1a: the same text gives the same number on every machine.
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    /// Puts a statement into a frozen server's socket.
    pub fn queue(
        &mut self,
        server: u8,
        statement: Statement,
        asker: Option<u8>,
        (not_before, until): (Millis, Millis),
    ) -> u64 {
        self.tickets += 1;
        let (incarnation, ticket) = (self.server(server).incarnation, self.tickets);
        let queued = Queued { server, incarnation, statement, asker, ticket, not_before, until };
        self.queued.push(queued);
        self.tickets
    }

    /// One step of time.
    pub fn tick(&mut self, now: Millis) {
        self.now = now;
        self.drain_sockets();
        self.replicate();
        self.run_vttablets();
        self.run_scripts();
        self.topology.expire(now);
        for (records, ledger) in self.topology.shards.iter().zip(&mut self.books) {
            if let Some(holder) = records.holder {
                ledger.held_at.insert(holder.manager, now);
            }
            let is_primary = |tablet: &Tablet| {
                tablet.shard == records.name && tablet.tablet_type == TabletType::Primary
            };
            if !self.topology.tablets.values().any(is_primary) {
                ledger.without_primary_at = now;
            }
            ledger.look(now);
        }
        self.end_strikes();
    }

    /// A recovery of a vtorc reaches a step: what is to strike there does.
    pub fn reach_point(&mut self, manager: u8) {
        self.points += 1;
        let point = self.points;
        let due: Vec<Fault> = self
            .strikes
            .iter()
            .filter(|(at, _)| *at == point)
            .map(|(_, fault)| fault.clone())
            .collect();
        for mut fault in due {
            if fault.kind == Kind::Hostile(Hostile::ManagerPaused) {
                fault.manager = manager;
            }
            let server = self.target_of(&fault);
            self.note(|| format!("STRIKE {:?} on s{server} m{}", fault.kind, fault.manager));
            self.begin(&fault, server, self.managers);
            let until = self.now + fault.lasts;
            self.struck_times.push((self.now, until + ECHO_MS));
            self.struck.push((until, fault, server));
        }
    }

    /// From when until when strikes were at work, or echoed.
    pub fn struck_times(&self) -> Vec<(Millis, Millis)> {
        self.struck_times.clone()
    }

    fn end_strikes(&mut self) {
        let now = self.now;
        let (over, going): (Vec<_>, Vec<_>) =
            self.struck.drain(..).partition(|(until, _, _)| *until <= now);
        self.struck = going;
        for (_, fault, server) in over {
            self.note(|| format!("MENDED {:?} on s{server} m{}", fault.kind, fault.manager));
            self.end(&fault, server, self.managers);
        }
    }

    /// Everything that struck is over.
    pub fn forget_strikes(&mut self) {
        self.strikes.clear();
        self.struck.clear();
    }

    fn drain_sockets(&mut self) {
        let due = |universe: &Self, queued: &Queued| {
            let frozen = universe.is_alive(queued) && universe.server(queued.server).frozen;
            !frozen && queued.not_before <= universe.now
        };
        while let Some(at) = self.queued.iter().position(|queued| due(self, queued)) {
            let queued = self.queued.remove(at);
            self.run_those_before(queued.server, &queued.statement, queued.ticket);
            self.run_queued(queued);
        }
    }

    /// Statements that change a server's channel wait for one another: an older one comes first.
    pub fn run_those_before(&mut self, server: u8, statement: &Statement, ticket: u64) {
        if !statement.changes_channel() {
            return;
        }
        let goes_first = |queued: &Queued| {
            queued.server == server && queued.ticket < ticket && queued.statement.changes_channel()
        };
        while let Some(at) = self.queued.iter().position(goes_first) {
            let queued = self.queued.remove(at);
            self.run_queued(queued);
        }
    }

    /// A restart empties the sockets.
    fn is_alive(&self, queued: &Queued) -> bool {
        let server = self.server(queued.server);
        server.running && server.incarnation == queued.incarnation
    }

    fn run_queued(&mut self, queued: Queued) {
        if !self.is_alive(&queued) {
            return;
        }
        let carried = self.deadlines_carried && !sabotage::has(Bug::OpenWithoutDeadline);
        let given_up = carried && queued.until < self.now;
        if given_up && queued.statement.ends_with_its_asker() {
            return;
        }
        let answer = self.execute(queued.server, &queued.statement);
        // Whoever asked may have given up: it was promoted all the same.
        if let Some(asker) = queued.asker.filter(|_| queued.statement.promotes(&answer)) {
            self.promoted(queued.server, asker, Plan::Other);
        }
        self.answers.insert(queued.ticket, answer);
    }
}
