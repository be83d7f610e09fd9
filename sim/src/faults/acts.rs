//! What is done to servers, records and links when faults strike.

use std::collections::BTreeMap;

use vtorc_core::tablet::TabletType;

use crate::Millis;
use crate::network::Party;
use crate::policies;
use crate::schedule::POLICIES;
use crate::server::{Receiver, Server};
use crate::universe::Universe;

/// After a policy is changed it takes so long until servers are set by it, and what is acknowledged is promised.
const POLICY_SETTLES_MS: Millis = 12_000;

impl Universe {
    /// Somebody stops one of a replica's threads.
    pub(super) fn stop_by_mistake(&mut self, server: u8, stops_applier: bool) {
        let server = self.server_mut(server);
        server.applier_running &= !stops_applier;
        if !stops_applier && server.receiver != Receiver::Stopped {
            server.stop_receiver();
        }
    }

    pub(super) fn write_on_a_replica(&mut self, server: u8) {
        if !self.reigns(server) && self.server(server).is_awake() {
            self.write_by_mistake(server);
        }
    }

    pub(super) fn close_by_mistake(&mut self, server: u8) {
        if self.server(server).is_awake() && self.server(server).waiting.is_empty() {
            self.server_mut(server).read_only = true;
            self.server_mut(server).super_read_only = true;
        }
    }

    /// A vtorc reaches no server, or one only.
    pub(super) fn cut_off(&mut self, manager: Party, spared: Option<u8>, begins: bool) {
        for one in (0..self.count()).filter(|one| Some(*one) != spared) {
            let them = Party::Server(one);
            self.network.switch(&[(manager, them), (them, manager)], begins);
        }
    }

    pub(super) fn slow_down(&mut self, me: Party, managers: u8, begins: bool) {
        let (delay, loss) = if begins { (300, 20) } else { (0, 0) };
        for party in self.everybody(managers) {
            self.network.trouble(party, me, delay, loss);
            self.network.trouble(me, party, delay, loss);
        }
    }

    /// What a vtorc sends to servers, and gets from them, is slow and lost at times.
    pub(super) fn slow_towards_servers(&mut self, manager: u8, begins: bool) {
        let (delay, loss) = if begins { (800, 0) } else { (0, 0) };
        let me = Party::Manager(manager);
        self.slow_managers.insert(manager, if begins { Millis::MAX } else { self.now });
        for one in (0..self.count()).map(Party::Server) {
            self.network.trouble(me, one, delay, loss);
            self.network.trouble(one, me, delay, loss);
        }
    }

    /// The cell of a server cannot be listed.
    pub(super) fn hide_cell(&mut self, server: u8, begins: bool) {
        let cell = self.server(server).alias.cell.clone();
        self.topology.unread_cells.clear();
        self.topology.unread_cells.extend(begins.then_some(cell));
        self.topology.version += 1;
    }

    pub(super) fn crash(&mut self, server: u8, with_machine: bool) {
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
    /// that. What nobody else has is gone; what another lost before has been through two failures, and one is
    /// promised to be survived.
    pub(super) fn lose_tail(&mut self, server: u8, most: usize) {
        let lost = self.server_mut(server).lose_tail(most);
        let rows = lost.iter().filter(|txn| self.journal_txns.contains(txn)).count();
        self.server_mut(server).journal -= rows as u64;
        let others: Vec<u8> = self.others(server).collect();
        let has = |txn| others.iter().any(|other| self.server(*other).has_data(txn));
        let worn = self.ledger(server).worn.clone();
        let (kept, gone): (Vec<_>, Vec<_>) =
            lost.into_iter().partition(|txn| has(*txn) && !worn.contains(txn));
        let ledger = self.ledger_mut(server);
        ledger.weakened(&gone);
        ledger.worn.extend(kept);
    }

    /// Everybody in the cell of a server, in all shards.
    pub(super) fn zone_of(&self, server: u8) -> Vec<u8> {
        let cell = &self.server(server).alias.cell;
        let of_cell = self.servers().iter().filter(|other| other.alias.cell == *cell);
        of_cell.map(|other| other.number).collect()
    }

    /// Somebody sets another policy. What was acknowledged by the old one is only promised where everybody has it.
    pub(super) fn change_policy(&mut self, server: u8, dice: u8) {
        let members: Vec<u8> = self.members(self.server(server).shard).collect();
        let everybody_has =
            |txn: crate::gtids::Txn| members.iter().all(|one| self.server(*one).has_data(txn));
        let promised = self.ledger(server).promised.iter();
        let weak: Vec<_> = promised.copied().filter(|txn| !everybody_has(*txn)).collect();
        let (now, name) = (self.now, self.records_of(server).name.clone());
        let ledger = self.ledger_mut(server);
        ledger.weakened(&weak);
        ledger.promises_from = now + POLICY_SETTLES_MS;
        let next = POLICIES.get(usize::from(dice) % POLICIES.len()).copied();
        // Nobody counts one that never ran: who may have what it acknowledged, nobody could say.
        let next =
            next.filter(|next| !(policies::counts_rdonly(*next) && self.has_absent_rdonly(server)));
        let Ok(records) = self.topology.shard(&name) else { return };
        records.policy = next.unwrap_or(records.policy);
        self.topology.version += 1;
    }

    fn has_absent_rdonly(&self, server: u8) -> bool {
        let is_rdonly = |one: &Server| one.made_for == TabletType::Rdonly && one.ills.never_up;
        self.members(self.server(server).shard).any(|one| is_rdonly(self.server(one)))
    }

    pub(super) fn point_wrongly(&mut self, server: u8, at: u8) {
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

    pub(super) fn open_by_mistake(&mut self, server: u8) {
        if self.reigns(server) || !self.server(server).is_awake() {
            return;
        }
        let replica = self.server_mut(server);
        replica.read_only = false;
        replica.super_read_only = false;
        replica.opened_by_mistake = true;
    }

    pub(super) fn change_type(&mut self, server: u8, from: TabletType, to: TabletType) {
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
    pub(super) fn delete_record(&mut self, server: u8) {
        let alias = self.server(server).alias.clone();
        // Two living tablets that nobody knows of could go on without the others: no manager can help that. Nor can any
        // know of one that was opened, and whom no record names.
        let named = self.records_of(server).record.primary_alias.as_ref() == Some(&alias);
        let known = self.everybody_has_a_record(server) && (named || !self.reigns(server));
        if !known || self.topology.tablets.remove(&alias).is_none() {
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
                known && other.has_data(*txn)
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

    pub(super) fn begin_clone(&mut self, server: u8) {
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
    pub(super) fn end_clone(&mut self, server: u8) {
        if self.type_of(server) != Some(TabletType::Restore) {
            return;
        }
        if self.server(server).running {
            // Its machine came back meanwhile, and the copy had not begun.
            self.change_type(server, TabletType::Restore, TabletType::Replica);
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
            let hollow = donor.ills.hollow.clone();
            let copy = self.server_mut(server);
            copy.forget_source();
            copy.purged = binlog.len();
            (copy.binlog, copy.executed, copy.journal) = (binlog, executed, journal);
            copy.ills.hollow = hollow;
            if copy.mariadb {
                // What it had applied before is gone with its data.
                copy.applied_to = None;
                copy.set_position();
            }
        }
        self.server_mut(server).restart(now);
        self.change_type(server, TabletType::Restore, TabletType::Replica);
    }

    fn type_of(&self, server: u8) -> Option<TabletType> {
        let alias = &self.server(server).alias;
        self.topology.tablets.get(alias).map(|tablet| tablet.tablet_type)
    }

    pub(super) fn make_record_again(&mut self, server: u8) {
        let alias = self.server(server).alias.clone();
        if !self.topology.tablets.contains_key(&alias) {
            let tablet = self.new_record(server);
            self.topology.tablets.insert(alias, tablet);
            self.topology.version += 1;
        }
    }
}
