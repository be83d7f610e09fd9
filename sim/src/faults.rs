//! What can go wrong. Each fault is done at one moment and taken back at another.

mod acts;
mod hostile;

pub use hostile::Hostile;

use vtorc_core::tablet::TabletType;

use crate::Millis;
use crate::foreign::FOREIGN;
use crate::ledger::Ledger;
use crate::network::Party;
use crate::universe::Universe;

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
    /// The topology server's links are slow and lossy.
    SlowTopology,
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
    /// One of the second generation.
    Hostile(Hostile),
}

impl Kind {
    /// The first generation.
    pub const ALL: [Self; 33] = [
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
        Self::SlowTopology,
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
        if let Self::Hostile(kind) = self {
            return kind.concerns_all();
        }
        matches!(
            self,
            Self::ZoneLost
                | Self::ManagerCut
                | Self::ManagerAlone
                | Self::OneWayCut
                | Self::TopologyDown
                | Self::TopologyCut
                | Self::SlowTopology
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
        let now = self.now;
        if fault.kind.concerns_all() {
            self.books.iter_mut().for_each(|books| books.trouble(now));
        } else {
            self.ledger_mut(server).trouble(now);
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
                self.stop_by_mistake(server, fault.other.is_multiple_of(2));
            }
            Kind::WritableReplica => self.open_by_mistake(server),
            Kind::ErrantWrite => self.write_on_a_replica(server),
            Kind::ReadOnlyPrimary => self.close_by_mistake(server),
            Kind::WrongSemiSync => self.server_mut(server).acks ^= true,
            Kind::WrongSource => self.point_wrongly(server, fault.other),
            Kind::DeletedRecord => self.delete_record(server),
            Kind::Clone => self.begin_clone(server),
            Kind::SessionExpired => {
                self.topology.end_sessions(|manager, _| manager == fault.manager);
            }
            Kind::Conflicts => self.topology.conflicts += 2,
            Kind::Hostile(kind) => self.be_hostile(kind, fault, server, true),
            Kind::Freeze
            | Kind::DiskStall
            | Kind::Saturated
            | Kind::Isolate
            | Kind::ManagerCut
            | Kind::ManagerAlone
            | Kind::OneWayCut
            | Kind::Flapping
            | Kind::SlowLinks
            | Kind::SlowTopology
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
            Kind::Crash | Kind::TailLost if self.server(server).is_only_down() => {
                self.server_mut(server).restart(now);
            }
            Kind::ZoneLost => {
                for one in self.zone_of(server) {
                    if self.server(one).is_only_down() {
                        self.server_mut(one).restart(now);
                    }
                }
            }
            Kind::DeletedRecord => self.make_record_again(server),
            Kind::Clone => self.end_clone(server),
            Kind::Conflicts => self.topology.conflicts = 0,
            Kind::Hostile(kind) => self.be_hostile(kind, fault, server, false),
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
            | Kind::SlowTopology
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
                self.cut_off(manager, spared, begins);
            }
            Kind::ManagerCut => self.network.switch(&[(manager, me), (me, manager)], begins),
            Kind::OneWayCut => {
                let link = match fault.other % 3 {
                    0 => (me, manager),
                    1 => (me, Party::Server(fault.other)),
                    // What a vtorc asks for is done, and it never learns.
                    _ => (Party::Topology, manager),
                };
                self.network.switch(&[link], begins);
            }
            Kind::SlowLinks => self.slow_down(me, managers, begins),
            Kind::SlowTopology => self.slow_down(Party::Topology, managers, begins),
            Kind::Backup if begins => {
                self.change_type(server, TabletType::Replica, TabletType::Backup)
            }
            Kind::Backup => self.change_type(server, TabletType::Backup, TabletType::Replica),
            Kind::TopologyDown => self.topology.down = begins,
            Kind::TopologyCut => {
                let topology = Party::Topology;
                self.network.switch(&[(manager, topology), (topology, manager)], begins);
            }
            Kind::PartialRead => self.hide_cell(server, begins),
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
            | Kind::ForeignReparent
            | Kind::Hostile(_) => {}
        }
    }
}
