//! What else the real world does: faults of the second generation. Only hostile schedules have them.
//!
//! | fault | what it stands for |
//! |---|---|
//! | [`Hostile::TurnsAway`] | `max_connections` is used up, or a password was changed on some hosts first |
//! | [`Hostile::CellTopologyDown`] | a cell's own etcd or ZooKeeper is down, the global one is not |
//! | [`Hostile::DamagedRecord`] | a record was cut short by a full disk, or written by a newer version |
//! | [`Hostile::DamagedShardRecord`] | the same of the shard's own |
//! | [`Hostile::Delayed`] | a replica that is kept an hour behind on purpose (`SOURCE_DELAY`) |
//! | [`Hostile::Filtered`] | a replica with `replicate-ignore-table` in its `my.cnf` |
//! | [`Hostile::Locked`] | a backup tool that holds `FLUSH TABLES WITH READ LOCK` |
//! | [`Hostile::StrayAcker`] | a `my.cnf` for REPLICA tablets on a host whose tablet is RDONLY or DRAINED |
//! | [`Hostile::ManagerPaused`] | `SIGSTOP`, a frozen virtual machine, a host that swaps |
//! | [`Hostile::HistoryFails`] | the disk of the history is full, or its file locked |
//! | [`Hostile::Stranger`] | a pod died, and its address was given to another shard's pod |
//! | [`Hostile::Twin`] | the same of another pod of the shard, whose own record is right |
//! | [`Hostile::OpenTransaction`] | a client that began a transaction and went for lunch |
//! | [`Hostile::LateCommands`] | a statement that waits for a metadata lock after its caller has gone |
//! | [`Hostile::LyingRecord`] | an operator's `topo put`, or a restored backup of the topology |
//! | [`Hostile::ApplierFails`] | a row that somebody wrote on a replica, and the primary writes as well |
//! | [`Hostile::GetsNothing`] | an event larger than `max_allowed_packet`, a `server_id` that is there twice |
//! | [`Hostile::Downtime`] | somebody exchanges the disks of a server, and told vtorc before |
//! | [`Hostile::DropsOnceOpened`] | a proxy in between that cuts all connections when it sees a new primary |
//! | [`Hostile::RefusesPromotion`] | a privilege is missing on one host, or its connections are used up |
//! | [`Hostile::Ungoverned`] | a privilege is missing on the primary, where semi-sync is off |
//! | [`Hostile::EmergencyAsked`] | an operator who knows no other way |
//! | [`Hostile::LacksReplicaUser`] | the user was made on each server by hand, and not on this one |
//! | [`Hostile::ShutDown`] | a vttablet that was stopped in order, or has not said its port yet |
//! | [`Hostile::ManagerSlow`] | a network card, switch or tunnel before vtorc that loses packets |
//!
//! What is so from the beginning and for good is a [`crate::ills::Habit`], a tablet's type, or a cell that nobody can
//! read ([`crate::schedule::Schedule::mistyped_cell`]): foreign GTIDs with gaps, replicas that log nothing they
//! receive, DRAINED, BACKUP, RESTORE, SPARE and EXPERIMENTAL tablets seen and unseen, ackers against the policy.

use vtorc_core::tablet::TabletType;
use vtorc_core::time::{TermStart, Timestamp};

use super::Fault;
use crate::ills::{DELAY_SECONDS, bit};
use crate::manager::EPOCH_MS;
use crate::server::Server;
use crate::universe::Universe;

/// A kind of fault of the second generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hostile {
    /// A server refuses the logins of one vtorc, or of all.
    TurnsAway,
    /// A cell's topology server is away; the global one works.
    CellTopologyDown,
    /// A tablet's record cannot be understood.
    DamagedRecord,
    /// A shard's own record cannot be understood; from a later seed on.
    DamagedShardRecord,
    /// A replica applies an hour late.
    Delayed,
    /// A replica throws some data away.
    Filtered,
    /// A replica's tables are locked: it receives and does not apply.
    Locked,
    /// A replica acknowledges against the policy, after each start again.
    StrayAcker,
    /// A vtorc's process stands still, and goes on.
    ManagerPaused,
    /// A vtorc's history answers errors.
    HistoryFails,
    /// Another shard's server answers at a tablet's address.
    Stranger,
    /// A dead tablet's address is another one's of its shard as well; from a later seed on.
    Twin,
    /// A client leaves a transaction open.
    OpenTransaction,
    /// What a server is told runs long after it was given up.
    LateCommands,
    /// A replica's record says PRIMARY, since later than the primary's; from a later seed on.
    LyingRecord,
    /// A vtorc's own network is slow and lossy; only hazards have it.
    ManagerSlow,
    /// A replica cannot apply what it received; only hazards have it.
    ApplierFails,
    /// Sources send a replica nothing, and say why (error 1236); only MariaDB's schedules and hazards have it.
    GetsNothing,
    /// Replicas cannot log in at a server: it lacks their user; only hazards have it.
    LacksReplicaUser,
    /// An operator puts a server into downtime at every vtorc; only hazards have it.
    Downtime,
    /// A server ends everybody's sessions when it is opened for writes; only hazards have it.
    DropsOnceOpened,
    /// A server refuses to be opened for writes; only hazards have it.
    RefusesPromotion,
    /// A server waits for no acknowledgement, and refuses to be told that or to refuse writes; only hazards have it.
    Ungoverned,
    /// Somebody asks for an emergency reparent; only hazards have it.
    EmergencyAsked,
    /// A tablet's record has no address; only hazards have it.
    ShutDown,
}

impl Hostile {
    /// Those that hostile schedules have, all from the first one on.
    pub const DRAWN: [Self; 12] = [
        Self::TurnsAway,
        Self::CellTopologyDown,
        Self::DamagedRecord,
        Self::Delayed,
        Self::Filtered,
        Self::Locked,
        Self::StrayAcker,
        Self::ManagerPaused,
        Self::HistoryFails,
        Self::Stranger,
        Self::OpenTransaction,
        Self::LateCommands,
    ];

    /// Tells whether it concerns more than the shard of the server that it hits.
    pub(super) fn concerns_all(self) -> bool {
        match self {
            Self::CellTopologyDown
            | Self::ManagerPaused
            | Self::HistoryFails
            | Self::ManagerSlow => true,
            Self::TurnsAway
            | Self::DamagedRecord
            | Self::DamagedShardRecord
            | Self::Delayed
            | Self::Filtered
            | Self::Locked
            | Self::StrayAcker
            | Self::Stranger
            | Self::Twin
            | Self::OpenTransaction
            | Self::LateCommands
            | Self::LyingRecord
            | Self::ApplierFails
            | Self::GetsNothing
            | Self::LacksReplicaUser
            | Self::Downtime
            | Self::DropsOnceOpened
            | Self::RefusesPromotion
            | Self::Ungoverned
            | Self::EmergencyAsked
            | Self::ShutDown => false,
        }
    }
}

impl Universe {
    /// Does a fault, or takes it back. What concerns a vtorc's history, or is asked of it, is
    /// done by the run.
    pub(super) fn be_hostile(&mut self, kind: Hostile, fault: &Fault, server: u8, begins: bool) {
        let now = self.now;
        let alias = self.server(server).alias.clone();
        let reigns = self.reigns(server);
        let ills = &mut self.server_mut(server).ills;
        match kind {
            Hostile::TurnsAway => {
                let all = fault.other.is_multiple_of(2);
                let whom = if all { u8::MAX } else { bit(fault.manager) };
                ills.turns_away = if begins { whom } else { 0 };
                // Somebody who changes a password may end the sessions as well.
                ills.sessions_ended += u32::from(begins && fault.other.is_multiple_of(3));
            }
            Hostile::CellTopologyDown => {
                self.topology.down_cells.clear();
                self.topology.down_cells.extend(begins.then_some(alias.cell));
                self.topology.version += 1;
            }
            Hostile::DamagedRecord => {
                let names_shard = fault.other.is_multiple_of(2);
                self.topology.damage_record(alias, begins.then_some(names_shard));
            }
            Hostile::DamagedShardRecord => self.damage_shard_record(server, begins),
            // The primary applies nothing, so there is nothing to set.
            Hostile::Delayed if begins && reigns => {}
            Hostile::Delayed => {
                ills.delay_seconds = if begins { DELAY_SECONDS } else { 0 };
                ills.idle_since = now;
            }
            Hostile::Filtered => ills.filter(begins),
            Hostile::Locked if begins && reigns => {}
            Hostile::Locked => {
                ills.locked = begins;
                ills.idle_since = now;
            }
            Hostile::StrayAcker => {
                ills.acks_by_file = begins;
                self.server_mut(server).acks |= begins && !reigns;
            }
            Hostile::ManagerPaused if begins => drop(self.paused.insert(fault.manager, now)),
            Hostile::ManagerPaused => drop(self.paused.remove(&fault.manager)),
            Hostile::HistoryFails | Hostile::EmergencyAsked => {}
            Hostile::Stranger | Hostile::Twin if begins => {
                self.take_address_away(server, fault.other, kind == Hostile::Twin);
            }
            Hostile::Stranger | Hostile::Twin => self.give_address_back(server),
            Hostile::OpenTransaction => ills.open_transactions = u32::from(begins),
            Hostile::LateCommands => ills.late = begins,
            Hostile::DropsOnceOpened => ills.drops_once_opened = begins,
            Hostile::RefusesPromotion => ills.refuses_promotion = begins,
            Hostile::Ungoverned => self.server_mut(server).be_ungoverned(begins),
            Hostile::GetsNothing => {
                ills.gets_nothing = begins;
                // It shows when it connects anew.
                self.server_mut(server).disconnect(now);
            }
            Hostile::LacksReplicaUser => ills.refuses_replicas = begins,
            Hostile::Downtime => ills.downtime_since = begins.then_some(now),
            Hostile::ApplierFails => self.server_mut(server).fail_applier(begins),
            Hostile::ShutDown => self.be_without_address(server, begins),
            Hostile::LyingRecord if reigns => {}
            Hostile::LyingRecord => self.lie_of(server, begins),
            Hostile::ManagerSlow => self.slow_towards_servers(fault.manager, begins),
        }
    }

    fn be_without_address(&mut self, server: u8, begins: bool) {
        let alias = self.server(server).alias.clone();
        self.topology.set_address(&alias, (!begins).then(|| Server::address(server)));
    }

    /// Half of the time the server is dead, otherwise only nobody can connect to it; the primary is always dead. A
    /// shard has one stranger at most: who is who where several addresses were exchanged, nobody could tell from
    /// inside.
    fn take_address_away(&mut self, server: u8, dice: u8, twin: bool) {
        let shard = self.server(server).shard;
        if self.strangers.keys().any(|other| self.server(*other).shard == shard) {
            return;
        }
        let taken: Vec<u8> = self.strangers.values().copied().collect();
        let fits = |other: &&Server| {
            other.number != server && (other.shard == shard) == twin && other.is_awake()
        };
        let others = self.servers().iter().filter(fits);
        let free: Vec<u8> =
            others.map(|other| other.number).filter(|one| !taken.contains(one)).collect();
        let at = usize::from(dice) % free.len().max(1);
        let Some(stranger) = free.get(at).copied() else { return };
        self.strangers.insert(server, stranger);
        if self.server(server).running && (self.reigns(server) || dice.is_multiple_of(2)) {
            self.crash(server, true);
        }
        self.server_mut(server).ills.sessions_ended += 1;
    }

    /// Somebody writes by hand that a replica is the primary, and takes it back. A vttablet would record itself.
    fn lie_of(&mut self, server: u8, begins: bool) {
        let (now, known) = (self.now, self.records_of(server).record.term_start);
        let alias = self.server(server).alias.clone();
        let no_vttablets = self.vttablets.is_empty();
        let record = self.topology.tablets.get_mut(&alias);
        let Some(record) = record.filter(|_| no_vttablets) else { return };
        match (begins, record.tablet_type) {
            (true, TabletType::Replica) => {
                let term = TermStart::after(known, Timestamp::from_millis(EPOCH_MS + now));
                (record.tablet_type, record.term_start) = (TabletType::Primary, Some(term));
            }
            (false, TabletType::Primary) => {
                (record.tablet_type, record.term_start) = (TabletType::Replica, None);
            }
            (_, _as_it_is) => return,
        }
        self.topology.version += 1;
    }

    fn give_address_back(&mut self, server: u8) {
        let now = self.now;
        if self.strangers.remove(&server).is_some() && self.server(server).is_only_down() {
            self.server_mut(server).restart(now);
        }
    }
}
