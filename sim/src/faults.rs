//! What can go wrong. Each fault is done at one moment and taken back at another.

use std::collections::BTreeMap;

use vtorc_core::topology::TabletType;

use crate::Millis;
use crate::foreign::FOREIGN;
use crate::ledger::Ledger;
use crate::network::Party;
use crate::schedule::POLICIES;
use crate::server::Receiver;
use crate::universe::Universe;

/// After a policy is changed it takes so long until servers are set by it, and what is acknowledged is promised.
const POLICY_SETTLES_MS: Millis = 12_000;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A server's process is killed; it starts again at the end.
    Crash,
    /// A server's machine is lost, and with it the end of its binary log.
    TailLost,
    /// A cell is lost: every machine in it, of all shards.
    ZoneLost,
    /// A server stops in its tracks.
    Freeze,
    /// A server's disk hangs.
    DiskStall,
    /// A server is overloaded: it answers now and then.
    Saturated,
    /// A server is cut off from everybody.
    Isolate,
    /// A vtorc cannot reach a server.
    ManagerCut,
    /// A vtorc reaches no server, or one only.
    ManagerAlone,
    /// A link is cut in one direction.
    OneWayCut,
    /// A server is cut off and comes back again and again.
    Flapping,
    /// Links are slow and lossy.
    SlowLinks,
    /// A replica applies nothing for a while.
    SlowApplier,
    /// Somebody stops a replica's threads.
    StoppedReplica,
    /// Somebody opens a replica for writes.
    WritableReplica,
    /// Somebody writes on a replica.
    ErrantWrite,
    /// Somebody makes the primary refuse writes.
    ReadOnlyPrimary,
    /// Somebody sets semi-sync wrongly.
    WrongSemiSync,
    /// Somebody points a replica at another replica.
    WrongSource,
    /// A tablet takes a backup.
    Backup,
    /// A replica is thrown away and made anew as a copy of the primary.
    Clone,
    /// Somebody deletes a tablet's record; it is made again at the end.
    DeletedRecord,
    /// The topology server is away.
    TopologyDown,
    /// A vtorc cannot reach the topology server.
    TopologyCut,
    /// A vtorc's session with the topology server is ended.
    SessionExpired,
    /// A cell's tablets cannot be listed.
    PartialRead,
    /// Watches tell late.
    LateWatches,
    /// Somebody else writes records at the same time.
    Conflicts,
    /// A vtorc is killed and started again at the end.
    ManagerKilled,
    /// Somebody asks for a planned reparent.
    PlannedReparent,
    /// Another tool does a planned reparent by itself; if it has not finished at the end, it is killed.
    ForeignReparent,
    /// Somebody sets another durability policy.
    PolicyChanged,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::Crash,
        Self::TailLost,
        Self::ZoneLost,
        Self::Freeze,
        Self::DiskStall,
        Self::Saturated,
        Self::Isolate,
        Self::ManagerCut,
        Self::ManagerAlone,
        Self::OneWayCut,
        Self::Flapping,
        Self::SlowLinks,
        Self::SlowApplier,
        Self::StoppedReplica,
        Self::WritableReplica,
        Self::ErrantWrite,
        Self::ReadOnlyPrimary,
        Self::WrongSemiSync,
        Self::WrongSource,
        Self::Backup,
        Self::Clone,
        Self::DeletedRecord,
        Self::TopologyDown,
        Self::TopologyCut,
        Self::SessionExpired,
        Self::PartialRead,
        Self::LateWatches,
        Self::Conflicts,
        Self::ManagerKilled,
        Self::PlannedReparent,
        Self::ForeignReparent,
        Self::PolicyChanged,
    ];

    /// Tells whether it concerns more than the shard of the server that it hits.
    fn concerns_all(self) -> bool {
        matches!(
            self,
            Self::ZoneLost
                | Self::ManagerCut
                | Self::ManagerAlone
                | Self::OneWayCut
                | Self::TopologyDown
                | Self::TopologyCut
                | Self::SessionExpired
                | Self::PartialRead
                | Self::LateWatches
                | Self::Conflicts
                | Self::ManagerKilled
        )
    }

    /// Tells whether it is somebody's single act, and nothing goes on after it.
    pub fn is_a_moment(self) -> bool {
        matches!(
            self,
            Self::StoppedReplica
                | Self::WritableReplica
                | Self::ReadOnlyPrimary
                | Self::WrongSemiSync
                | Self::WrongSource
                | Self::PolicyChanged
        )
    }
}

/// A fault, planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When it begins.
    pub at: Millis,
    /// How long it lasts.
    pub lasts: Millis,
    /// Which shard.
    pub shard: usize,
    /// Which server of it; none for whoever is primary then.
    pub server: Option<u8>,
    /// Which vtorc.
    pub manager: u8,
    /// Which other server of the shard; also a throw of the dice.
    pub other: u8,
}

impl Universe {
    /// Whom a fault hits when it begins now.
    pub fn target_of(&self, fault: &Fault) -> u8 {
        let reigning = self.books.get(fault.shard).and_then(Ledger::reigning);
        let first = self.members(fault.shard).next();
        fault.server.or(reigning).or(first).unwrap_or(0)
    }

    fn reigns(&self, server: u8) -> bool {
        self.ledger(server).reigning() == Some(server)
    }

    /// What happens from now on in the shards that a fault concerns has a cause.
    fn trouble(&mut self, fault: &Fault, server: u8) {
        if fault.kind.concerns_all() {
            self.books.iter_mut().for_each(Ledger::trouble);
        } else {
            self.ledger_mut(server).trouble();
        }
    }

    fn everybody(&self, managers: u8) -> Vec<Party> {
        let servers = (0..self.count()).map(Party::Server);
        let managers = (0..managers).chain([FOREIGN]).map(Party::Manager);
        servers.chain(managers).chain([Party::Clients, Party::Topology]).collect()
    }

    /// Begins a fault on `server`. What concerns a vtorc's process is done by the run.
    pub fn begin(&mut self, fault: &Fault, server: u8, managers: u8) {
        self.trouble(fault, server);
        self.disturb(fault, server, managers, true);
        let now = self.now;
        match fault.kind {
            // Half of the time the whole machine.
            Kind::Crash => self.crash(server, fault.other.is_multiple_of(2)),
            Kind::TailLost => {
                self.crash(server, true);
                self.lose_tail(server, usize::from(fault.other) + 1);
            }
            Kind::ZoneLost => {
                for one in self.zone_of(server) {
                    self.crash(one, true);
                }
            }
            Kind::PolicyChanged => self.change_policy(server, fault.other),
            Kind::SlowApplier => self.server_mut(server).applier_sleeps_until = now + fault.lasts,
            Kind::StoppedReplica => {
                let stops_applier = fault.other.is_multiple_of(2);
                let server = self.server_mut(server);
                server.applier_running &= !stops_applier;
                if !stops_applier && server.receiver != Receiver::Stopped {
                    server.stop_receiver();
                }
            }
            Kind::WritableReplica => self.open_by_mistake(server),
            Kind::ErrantWrite => {
                if !self.reigns(server) && self.server(server).is_awake() {
                    self.write_by_mistake(server);
                }
            }
            Kind::ReadOnlyPrimary => {
                if self.server(server).is_awake() && self.server(server).waiting.is_empty() {
                    self.server_mut(server).read_only = true;
                    self.server_mut(server).super_read_only = true;
                }
            }
            Kind::WrongSemiSync => self.server_mut(server).acks ^= true,
            Kind::WrongSource => self.point_wrongly(server, fault.other),
            Kind::DeletedRecord => self.delete_record(server),
            Kind::Clone => self.begin_clone(server),
            Kind::SessionExpired => {
                self.topology.end_sessions(|manager, _| manager == fault.manager);
            }
            Kind::Conflicts => self.topology.conflicts += 2,
            Kind::Freeze
            | Kind::DiskStall
            | Kind::Saturated
            | Kind::Isolate
            | Kind::ManagerCut
            | Kind::ManagerAlone
            | Kind::OneWayCut
            | Kind::Flapping
            | Kind::SlowLinks
            | Kind::Backup
            | Kind::TopologyDown
            | Kind::TopologyCut
            | Kind::PartialRead
            | Kind::LateWatches
            | Kind::ManagerKilled
            | Kind::PlannedReparent
            | Kind::ForeignReparent => {}
        }
    }

    /// Takes a fault back.
    pub fn end(&mut self, fault: &Fault, server: u8, managers: u8) {
        self.trouble(fault, server);
        self.disturb(fault, server, managers, false);
        let now = self.now;
        match fault.kind {
            Kind::Crash | Kind::TailLost if !self.server(server).running => {
                self.server_mut(server).restart(now);
            }
            Kind::ZoneLost => {
                for one in self.zone_of(server) {
                    if !self.server(one).running {
                        self.server_mut(one).restart(now);
                    }
                }
            }
            Kind::DeletedRecord => self.make_record_again(server),
            Kind::Clone => self.end_clone(server),
            Kind::Conflicts => self.topology.conflicts = 0,
            Kind::Crash
            | Kind::TailLost
            | Kind::Freeze
            | Kind::DiskStall
            | Kind::Saturated
            | Kind::Isolate
            | Kind::ManagerCut
            | Kind::ManagerAlone
            | Kind::OneWayCut
            | Kind::Flapping
            | Kind::SlowLinks
            | Kind::SlowApplier
            | Kind::StoppedReplica
            | Kind::WritableReplica
            | Kind::ErrantWrite
            | Kind::ReadOnlyPrimary
            | Kind::WrongSemiSync
            | Kind::WrongSource
            | Kind::Backup
            | Kind::TopologyDown
            | Kind::TopologyCut
            | Kind::SessionExpired
            | Kind::PartialRead
            | Kind::LateWatches
            | Kind::PolicyChanged
            | Kind::ManagerKilled
            | Kind::PlannedReparent
            | Kind::ForeignReparent => {}
        }
    }

    /// Does what is done and taken back alike.
    fn disturb(&mut self, fault: &Fault, server: u8, managers: u8, begins: bool) {
        let (manager, me) = (Party::Manager(fault.manager), Party::Server(server));
        match fault.kind {
            Kind::Freeze => self.server_mut(server).frozen = begins,
            Kind::DiskStall => self.server_mut(server).stalled = begins,
            Kind::Saturated => self.server_mut(server).saturated = begins,
            Kind::Isolate | Kind::Flapping => {
                for party in self.everybody(managers).into_iter().filter(|party| *party != me) {
                    self.network.switch(&[(me, party), (party, me)], begins);
                }
            }
            Kind::ManagerAlone => {
                let spared = fault.other.is_multiple_of(2).then_some(fault.other);
                for one in (0..self.count()).filter(|one| Some(*one) != spared) {
                    let them = Party::Server(one);
                    self.network.switch(&[(manager, them), (them, manager)], begins);
                }
            }
            Kind::ManagerCut => self.network.switch(&[(manager, me), (me, manager)], begins),
            Kind::OneWayCut => {
                let deaf = fault.other.is_multiple_of(2);
                let to = if deaf { manager } else { Party::Server(fault.other) };
                self.network.switch(&[(me, to)], begins);
            }
            Kind::SlowLinks => {
                let (delay, loss) = if begins { (300, 20) } else { (0, 0) };
                for party in self.everybody(managers) {
                    self.network.trouble(party, me, delay, loss);
                    self.network.trouble(me, party, delay, loss);
                }
            }
            Kind::Backup if begins => {
                self.change_type(server, TabletType::Replica, TabletType::Backup)
            }
            Kind::Backup => self.change_type(server, TabletType::Backup, TabletType::Replica),
            Kind::TopologyDown => self.topology.down = begins,
            Kind::TopologyCut => {
                let topology = Party::Topology;
                self.network.switch(&[(manager, topology), (topology, manager)], begins);
            }
            Kind::PartialRead => {
                let cell = self.server(server).alias.cell.clone();
                self.topology.unread_cells.clear();
                self.topology.unread_cells.extend(begins.then_some(cell));
                self.topology.version += 1;
            }
            Kind::LateWatches => self.topology.watch_delay_ms = if begins { 4_000 } else { 0 },
            Kind::Crash
            | Kind::TailLost
            | Kind::ZoneLost
            | Kind::PolicyChanged
            | Kind::SlowApplier
            | Kind::StoppedReplica
            | Kind::WritableReplica
            | Kind::ErrantWrite
            | Kind::ReadOnlyPrimary
            | Kind::WrongSemiSync
            | Kind::WrongSource
            | Kind::Clone
            | Kind::DeletedRecord
            | Kind::SessionExpired
            | Kind::Conflicts
            | Kind::ManagerKilled
            | Kind::PlannedReparent
            | Kind::ForeignReparent => {}
        }
    }

    fn crash(&mut self, server: u8, with_machine: bool) {
        let lost = self.server_mut(server).crash();
        let ledger = self.ledger_mut(server);
        ledger.weakened(&lost);
        ledger.serving_since.remove(&server);
        let vttablet = self.vttablets.get_mut(usize::from(server));
        if let Some(vttablet) = vttablet.filter(|_| with_machine) {
            vttablet.down = true;
        }
    }

    /// What a server committed last was not on its disk yet (`sync_binlog` is not 1). One failure is used up for
    /// that; what nobody else has is gone.
    fn lose_tail(&mut self, server: u8, most: usize) {
        let lost = self.server_mut(server).lose_tail(most);
        let rows = lost.iter().filter(|txn| self.journal_txns.contains(txn)).count();
        self.server_mut(server).journal -= rows as u64;
        let others: Vec<u8> = self.others(server).collect();
        let has = |txn| others.iter().any(|other| self.server(*other).has_received(txn));
        let (kept, gone): (Vec<_>, Vec<_>) = lost.into_iter().partition(|txn| has(*txn));
        let ledger = self.ledger_mut(server);
        ledger.weakened(&gone);
        ledger.worn.extend(kept);
    }

    /// Everybody in the cell of a server, in all shards.
    fn zone_of(&self, server: u8) -> Vec<u8> {
        let cell = &self.server(server).alias.cell;
        let of_cell = self.servers().iter().filter(|other| other.alias.cell == *cell);
        of_cell.map(|other| other.number).collect()
    }

    /// Somebody sets another policy. What was acknowledged by the old one is only promised where everybody has it.
    fn change_policy(&mut self, server: u8, dice: u8) {
        let members: Vec<u8> = self.members(self.server(server).shard).collect();
        let everybody_has =
            |txn: crate::gtids::Txn| members.iter().all(|one| self.server(*one).has_received(txn));
        let promised = self.ledger(server).promised.iter();
        let weak: Vec<_> = promised.copied().filter(|txn| !everybody_has(*txn)).collect();
        let (now, name) = (self.now, self.records_of(server).name.clone());
        let ledger = self.ledger_mut(server);
        ledger.weakened(&weak);
        ledger.promises_from = now + POLICY_SETTLES_MS;
        let Ok(records) = self.topology.shard(&name) else { return };
        let next = POLICIES.get(usize::from(dice) % POLICIES.len());
        records.policy = next.copied().unwrap_or(records.policy);
        self.topology.version += 1;
    }

    fn point_wrongly(&mut self, server: u8, at: u8) {
        let now = self.now;
        let other = self.topology.tablets.get(&self.server(at).alias);
        // Whoever gives a primary that was replaced its acknowledgements back makes two of them: no manager can
        // help that.
        let reigns = self.ledger(at).reigning().is_none_or(|reigning| reigning == at);
        let may = self.server(server).source.is_some()
            && at != server
            && (reigns || self.server(at).read_only)
            && other.is_some_and(|tablet| tablet.tablet_type.is_managed());
        if may && self.server(server).is_awake() {
            let replica = self.server_mut(server);
            replica.change_source(at);
            replica.start_receiver(now);
        }
    }

    fn open_by_mistake(&mut self, server: u8) {
        if self.reigns(server) || !self.server(server).is_awake() {
            return;
        }
        let replica = self.server_mut(server);
        replica.read_only = false;
        replica.super_read_only = false;
        replica.opened_by_mistake = true;
    }

    fn change_type(&mut self, server: u8, from: TabletType, to: TabletType) {
        let alias = self.server(server).alias.clone();
        let Some(tablet) = self.topology.tablets.get_mut(&alias) else { return };
        if tablet.tablet_type == from {
            tablet.tablet_type = to;
            self.topology.version += 1;
            if let Some(vttablet) = self.vttablets.get_mut(usize::from(server)) {
                vttablet.tablet_type = to;
            }
        }
    }

    /// An operator deletes the record of a server that is gone: what only it and the primary have is given up.
    fn delete_record(&mut self, server: u8) {
        let alias = self.server(server).alias.clone();
        // Two living tablets that nobody knows of could go on without the others: no manager can help that.
        let complete = self.everybody_has_a_record(server);
        if !complete || self.topology.tablets.remove(&alias).is_none() {
            return;
        }
        self.topology.version += 1;
        if let Some(vttablet) = self.vttablets.get_mut(usize::from(server)) {
            // One whose record is gone ends by itself.
            vttablet.down = true;
        }
        if !self.reigns(server) {
            // Who takes a replica away for good stops it first.
            let replica = self.server_mut(server);
            replica.stop_receiver();
            replica.acks = false;
        }
        self.give_up_what_only_few_hold(server);
    }

    /// What fewer than two others hold is not promised any more once `server` is thrown away.
    fn give_up_what_only_few_hold(&mut self, server: u8) {
        let mut holders: BTreeMap<crate::gtids::Txn, u32> = BTreeMap::new();
        let others: Vec<u8> = self.others(server).collect();
        for txn in &self.ledger(server).promised {
            let kept = others.iter().map(|other| self.server(*other)).filter(|other| {
                let known = self.topology.tablets.contains_key(&other.alias);
                known && other.has_received(*txn)
            });
            holders.insert(*txn, u32::try_from(kept.count()).unwrap_or(u32::MAX));
        }
        let weak: Vec<_> =
            holders.into_iter().filter(|(_, n)| *n < 2).map(|(txn, _)| txn).collect();
        self.ledger_mut(server).weakened(&weak);
    }

    fn everybody_has_a_record(&self, server: u8) -> bool {
        let mut members = self.members(self.server(server).shard);
        members.all(|one| self.topology.tablets.contains_key(&self.server(one).alias))
    }

    fn begin_clone(&mut self, server: u8) {
        let complete = self.everybody_has_a_record(server);
        let is_replica = !self.reigns(server) && self.server(server).running;
        if !complete || !is_replica {
            return;
        }
        self.change_type(server, TabletType::Replica, TabletType::Restore);
        if self.type_of(server) == Some(TabletType::Restore) {
            self.server_mut(server).crash();
            self.give_up_what_only_few_hold(server);
        }
    }

    /// The copy is whole if its donor is there, and has all that this server ever wrote: a server that is made
    /// anew writes under the same name here. Otherwise it comes back as it was.
    fn end_clone(&mut self, server: u8) {
        if self.type_of(server) != Some(TabletType::Restore) || self.server(server).running {
            return;
        }
        let now = self.now;
        let donor = self.ledger(server).reigning().filter(|donor| *donor != server);
        let donor = donor.map(|donor| self.server(donor)).filter(|donor| {
            donor.is_awake()
                && donor.executed.next_of(server) >= self.server(server).executed.next_of(server)
        });
        if let Some(donor) = donor {
            let (binlog, executed, journal) =
                (donor.binlog.clone(), donor.executed.clone(), donor.journal);
            let copy = self.server_mut(server);
            copy.forget_source();
            copy.purged = binlog.len();
            (copy.binlog, copy.executed, copy.journal) = (binlog, executed, journal);
        }
        self.server_mut(server).restart(now);
        self.change_type(server, TabletType::Restore, TabletType::Replica);
    }

    fn type_of(&self, server: u8) -> Option<TabletType> {
        let alias = &self.server(server).alias;
        self.topology.tablets.get(alias).map(|tablet| tablet.tablet_type)
    }

    fn make_record_again(&mut self, server: u8) {
        let alias = self.server(server).alias.clone();
        if !self.topology.tablets.contains_key(&alias) {
            let tablet = self.new_record(server);
            self.topology.tablets.insert(alias, tablet);
            self.topology.version += 1;
        }
    }
}
