//! What can go wrong. Each fault is done at one moment and taken back at another.

use std::collections::BTreeMap;

use vtorc_core::topology::TabletType;

use crate::Millis;
use crate::network::Party;
use crate::server::Receiver;
use crate::universe::Universe;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A server's process is killed; it starts again at the end.
    Crash,
    /// A server stops in its tracks.
    Freeze,
    /// A server's disk hangs.
    DiskStall,
    /// A server is cut off from everybody.
    Isolate,
    /// A vtorc cannot reach a server.
    ManagerCut,
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
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::Crash,
        Self::Freeze,
        Self::DiskStall,
        Self::Isolate,
        Self::ManagerCut,
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
        Self::DeletedRecord,
        Self::TopologyDown,
        Self::TopologyCut,
        Self::SessionExpired,
        Self::PartialRead,
        Self::LateWatches,
        Self::Conflicts,
        Self::ManagerKilled,
        Self::PlannedReparent,
    ];
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
    /// Which server; none for whoever is primary then.
    pub server: Option<u8>,
    /// Which vtorc.
    pub manager: u8,
    /// Which other server.
    pub other: u8,
}

impl Universe {
    /// Whoever takes writes, or else the first server.
    pub fn primary_now(&self) -> u8 {
        let reigning = self.ledger.reigning();
        reigning.unwrap_or(0)
    }

    fn everybody(&self, managers: u8) -> Vec<Party> {
        let servers = (0..self.count()).map(Party::Server);
        let managers = (0..managers).map(Party::Manager);
        servers.chain(managers).chain([Party::Clients, Party::Topology]).collect()
    }

    /// Begins a fault on `server`. What concerns a vtorc's process is done by the run.
    pub fn begin(&mut self, fault: &Fault, server: u8, managers: u8) {
        let now = self.now;
        self.ledger.trouble();
        match fault.kind {
            Kind::Crash => {
                let lost = self.server_mut(server).crash();
                self.ledger.weakened(&lost);
                self.ledger.serving_since.remove(&server);
            }
            Kind::Freeze => self.server_mut(server).frozen = true,
            Kind::DiskStall => self.server_mut(server).stalled = true,
            Kind::Isolate | Kind::Flapping => self.cut_off(server, managers, true),
            Kind::ManagerCut => {
                let (one, other) = (Party::Manager(fault.manager), Party::Server(server));
                self.network.cut(one, other);
                self.network.cut(other, one);
            }
            Kind::OneWayCut => {
                let to = if fault.other % 2 == 0 {
                    Party::Manager(fault.manager)
                } else {
                    Party::Server(fault.other)
                };
                self.network.cut(Party::Server(server), to);
            }
            Kind::SlowLinks => {
                for party in self.everybody(managers) {
                    self.network.trouble(party, Party::Server(server), 300, 20);
                    self.network.trouble(Party::Server(server), party, 300, 20);
                }
            }
            Kind::SlowApplier => self.server_mut(server).applier_sleeps_until = now + fault.lasts,
            Kind::StoppedReplica => {
                let stops_applier = fault.other % 2 == 0;
                let server = self.server_mut(server);
                server.applier_running &= !stops_applier;
                if !stops_applier && server.receiver != Receiver::Stopped {
                    server.stop_receiver();
                }
            }
            Kind::WritableReplica => self.open_by_mistake(server),
            Kind::ErrantWrite => {
                if Some(server) != self.ledger.reigning() && self.server(server).is_awake() {
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
            Kind::WrongSource => {
                let other = &self.server(fault.other).alias;
                let serves = self.topology.tablets.get(other);
                let may = self.server(server).source.is_some()
                    && fault.other != server
                    && serves.is_some_and(|tablet| tablet.tablet_type.is_managed());
                if may && self.server(server).is_awake() {
                    let replica = self.server_mut(server);
                    replica.change_source(fault.other);
                    replica.start_receiver(now);
                }
            }
            Kind::Backup => self.change_type(server, TabletType::Replica, TabletType::Backup),
            Kind::DeletedRecord => self.delete_record(server),
            Kind::TopologyDown => self.topology.down = true,
            Kind::TopologyCut => {
                self.network.cut(Party::Manager(fault.manager), Party::Topology);
                self.network.cut(Party::Topology, Party::Manager(fault.manager));
            }
            Kind::SessionExpired => {
                self.topology.end_sessions(|manager, _| manager == fault.manager)
            }
            Kind::PartialRead => {
                let cell = self.server(server).alias.cell.clone();
                self.topology.unread_cells.insert(cell);
                self.topology.version += 1;
            }
            Kind::LateWatches => self.topology.watch_delay_ms = 4_000,
            Kind::Conflicts => self.topology.conflicts += 2,
            Kind::ManagerKilled | Kind::PlannedReparent => {}
        }
    }

    /// Takes a fault back.
    pub fn end(&mut self, fault: &Fault, server: u8, managers: u8) {
        let now = self.now;
        self.ledger.trouble();
        match fault.kind {
            Kind::Crash => {
                if !self.server(server).running {
                    self.server_mut(server).restart(now);
                }
            }
            Kind::Freeze => self.server_mut(server).frozen = false,
            Kind::DiskStall => self.server_mut(server).stalled = false,
            Kind::Isolate | Kind::Flapping => self.cut_off(server, managers, false),
            Kind::ManagerCut => {
                let (one, other) = (Party::Manager(fault.manager), Party::Server(server));
                self.network.mend(one, other);
                self.network.mend(other, one);
            }
            Kind::OneWayCut => {
                let to = if fault.other % 2 == 0 {
                    Party::Manager(fault.manager)
                } else {
                    Party::Server(fault.other)
                };
                self.network.mend(Party::Server(server), to);
            }
            Kind::SlowLinks => {
                for party in self.everybody(managers) {
                    self.network.trouble(party, Party::Server(server), 0, 0);
                    self.network.trouble(Party::Server(server), party, 0, 0);
                }
            }
            Kind::Backup => self.change_type(server, TabletType::Backup, TabletType::Replica),
            Kind::DeletedRecord => self.make_record_again(server),
            Kind::TopologyDown => self.topology.down = false,
            Kind::TopologyCut => {
                self.network.mend(Party::Manager(fault.manager), Party::Topology);
                self.network.mend(Party::Topology, Party::Manager(fault.manager));
            }
            Kind::PartialRead => {
                self.topology.unread_cells.clear();
                self.topology.version += 1;
            }
            Kind::LateWatches => self.topology.watch_delay_ms = 0,
            Kind::Conflicts => self.topology.conflicts = 0,
            Kind::SlowApplier
            | Kind::StoppedReplica
            | Kind::WritableReplica
            | Kind::ErrantWrite
            | Kind::ReadOnlyPrimary
            | Kind::WrongSemiSync
            | Kind::WrongSource
            | Kind::SessionExpired
            | Kind::ManagerKilled
            | Kind::PlannedReparent => {}
        }
    }

    fn cut_off(&mut self, server: u8, managers: u8, cut: bool) {
        let me = Party::Server(server);
        for party in self.everybody(managers).into_iter().filter(|party| *party != me) {
            for (from, to) in [(me, party), (party, me)] {
                if cut {
                    self.network.cut(from, to);
                } else {
                    self.network.mend(from, to);
                }
            }
        }
    }

    fn open_by_mistake(&mut self, server: u8) {
        if Some(server) == self.ledger.reigning() || !self.server(server).is_awake() {
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
        }
    }

    /// An operator deletes the record of a server that is gone: what only it and the primary have is given up.
    fn delete_record(&mut self, server: u8) {
        let alias = self.server(server).alias.clone();
        // Two living tablets that nobody knows of could go on without the others: no manager can help that.
        let complete = self.topology.tablets.len() == usize::from(self.count());
        if !complete || self.topology.tablets.remove(&alias).is_none() {
            return;
        }
        self.topology.version += 1;
        if Some(server) != self.ledger.reigning() {
            // Who takes a replica away for good stops it first.
            let replica = self.server_mut(server);
            replica.stop_receiver();
            replica.acks = false;
        }
        let mut holders: BTreeMap<crate::gtids::Txn, u32> = BTreeMap::new();
        for txn in &self.ledger.promised {
            let kept = self.servers().iter().filter(|other| {
                self.topology.tablets.contains_key(&other.alias) && other.has_received(*txn)
            });
            holders.insert(*txn, u32::try_from(kept.count()).unwrap_or(u32::MAX));
        }
        let weak: Vec<_> =
            holders.into_iter().filter(|(_, n)| *n < 2).map(|(txn, _)| txn).collect();
        self.ledger.weakened(&weak);
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
