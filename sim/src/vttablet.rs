//! Simulated vttablets: each has a type and a term of its own, publishes them, makes the shard's record name it
//! while it takes itself for the primary, and steps down when that names another with a newer term.

use vtorc_core::ports::SourceChange;
use vtorc_core::tablet::TabletType;
use vtorc_core::time::TermStart;

use crate::Millis;
use crate::manager::EPOCH_MS;
use crate::network::Party;
use crate::server::Receiver;
use crate::statements::{Reply, Statement};
use crate::universe::Universe;

/// A primary compares its term with the shard's so often.
const SYNC_MS: Millis = 100;

/// One vttablet. It runs on its server's machine.
#[derive(Clone, Debug)]
pub struct Vttablet {
    /// What it takes itself for.
    pub tablet_type: TabletType,
    /// When its term began, while it takes itself for the primary.
    pub term: Option<TermStart>,
    /// It died with its machine, or its record was taken away, and has not come up since.
    pub down: bool,
    /// Its record does not say yet what it is.
    unpublished: bool,
    next_sync: Millis,
}

impl Vttablet {
    /// One that has just come up.
    pub fn new(tablet_type: TabletType) -> Self {
        Self { tablet_type, term: None, down: false, unpublished: false, next_sync: 0 }
    }
}

/// A call, and until when its caller waits: one that is read later is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What.
    pub what: What,
    /// Until when.
    pub until: Millis,
}

/// What is called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// PromoteReplica.
    Promote {
        /// Acknowledgements to wait for.
        acks: u32,
    },
    /// UndoDemotePrimary, after ResetReplicationParameters.
    UndoDemote {
        /// Acknowledgements to wait for.
        acks: u32,
    },
    /// SetReplicationSource.
    SetSource {
        /// Whom.
        source: u8,
        /// Acknowledge.
        semi_sync: bool,
        /// Also if it follows that one already.
        change: SourceChange,
    },
    /// StartReplication.
    Start {
        /// Acknowledge.
        semi_sync: bool,
    },
    /// ChangeType.
    ChangeType(TabletType),
}

impl Universe {
    /// Runs a call on the vttablet of a server that is awake.
    pub fn call(&mut self, number: u8, call: &Call) -> Reply {
        if self.now > call.until {
            return Reply::Refused("context deadline exceeded");
        }
        if self.server(number).applier_hangs() {
            return Reply::Pending;
        }
        match &call.what {
            What::Promote { acks } => self.promote_replica(number, *acks),
            What::UndoDemote { acks } => self.undo_demote_primary(number, *acks),
            What::SetSource { source, semi_sync, change } => {
                self.set_replication_source(number, *source, *semi_sync, *change)
            }
            What::Start { semi_sync } => {
                self.server_mut(number).acks = *semi_sync;
                self.execute(number, &Statement::StartReplication)
            }
            What::ChangeType(TabletType::Primary) => self.begin_term(number),
            What::ChangeType(to) => {
                self.become_type(number, *to);
                self.server_mut(number).acks = false;
                Reply::Done
            }
        }
    }

    fn vttablet(&mut self, number: u8) -> Option<&mut Vttablet> {
        self.vttablets.get_mut(usize::from(number))
    }

    /// Its own record is kept by its cell's topology server.
    fn reaches_its_record(&self, number: u8) -> bool {
        let alias = &self.server(number).alias;
        let kept = !self.topology.down_cells.contains(&alias.cell);
        kept && !self.topology.damaged.contains_key(alias) && self.reaches_topology(number)
    }

    fn reaches_topology(&self, number: u8) -> bool {
        let (me, them) = (Party::Server(number), Party::Topology);
        !self.topology.down && self.network.is_open_both_ways(me, them)
    }

    /// Replication ends first, then the record says PRIMARY with a new term, then the server takes writes. Where
    /// the record cannot be written, it stays half-way.
    fn promote_replica(&mut self, number: u8, acks: u32) -> Reply {
        self.server_mut(number).forget_source();
        self.wait_for_acks(number, acks);
        let begun = self.begin_term(number);
        match begun {
            Reply::Done => self.execute(number, &Statement::TakeWrites),
            refused @ (Reply::Refused(_) | Reply::Status(_) | Reply::Pending | Reply::Begun(_)) => {
                refused
            }
        }
    }

    /// Its record says PRIMARY with a new term, and so does it.
    fn begin_term(&mut self, number: u8) -> Reply {
        if !self.reaches_its_record(number) {
            return Reply::Refused("its record cannot be written");
        }
        let at = EPOCH_MS + self.now;
        let nanos = i32::try_from((at % 1000) * 1_000_000).unwrap_or(0);
        let term = TermStart { seconds: i64::try_from(at / 1000).unwrap_or(0), nanos };
        self.ledger_mut(number).won.insert(number);
        if !self.write_record(number, TabletType::Primary, Some(term)) {
            return Reply::Refused("it has no record");
        }
        let now = self.now;
        if let Some(vttablet) = self.vttablet(number) {
            (vttablet.tablet_type, vttablet.term) = (TabletType::Primary, Some(term));
            vttablet.next_sync = now;
        }
        Reply::Done
    }

    fn undo_demote_primary(&mut self, number: u8, acks: u32) -> Reply {
        self.server_mut(number).forget_source();
        self.wait_for_acks(number, acks);
        self.execute(number, &Statement::TakeWrites);
        let alias = self.server(number).alias.clone();
        let record = self.topology.tablets.get(&alias);
        let record = record.filter(|tablet| tablet.tablet_type == TabletType::Primary);
        let term = record.and_then(|tablet| tablet.term_start);
        if let Some(vttablet) = self.vttablet(number).filter(|_| term.is_some()) {
            (vttablet.tablet_type, vttablet.term) = (TabletType::Primary, term);
        }
        Reply::Done
    }

    fn wait_for_acks(&mut self, number: u8, acks: u32) {
        self.execute(number, &Statement::WaitForAcks(acks));
        self.server_mut(number).acks = acks > 0;
    }

    /// A primary becomes a replica by it, even if the rest fails. It follows nobody whom it cannot ask for a
    /// position, nor one that lacks what it has.
    fn set_replication_source(
        &mut self,
        number: u8,
        source: u8,
        semi_sync: bool,
        change: SourceChange,
    ) -> Reply {
        let base = self.server(number).made_for;
        let is_primary =
            self.vttablet(number).is_some_and(|one| one.tablet_type == TabletType::Primary);
        if is_primary {
            self.become_type(number, base);
        }
        let (me, them) = (Party::Server(number), Party::Server(source));
        let open = self.network.is_open_both_ways(me, them) && self.server(source).is_awake();
        let known = !self.topology.down_cells.contains(&self.server(source).alias.cell)
            && !self.topology.damaged.contains_key(&self.server(source).alias);
        if !open || !known || !self.reaches_topology(number) {
            return Reply::Refused("its parent cannot be asked");
        }
        let parent = self.server(source).executed.clone();
        let mine = self.server(number);
        let mut received = mine.binlog.iter().chain(&mine.relay);
        if received.any(|txn| txn.source != source && !parent.contains(*txn)) {
            return Reply::Refused("Errant GTID detected");
        }
        self.execute(number, &Statement::WaitForAcks(0));
        let now = self.now;
        let replica = self.server_mut(number);
        replica.acks = semi_sync;
        replica.receiver = Receiver::Stopped;
        if replica.source != Some(source) || change == SourceChange::Repoint {
            // Both threads stand: the relay log goes.
            replica.applier_running = false;
            replica.change_source(source);
        }
        replica.start_receiver(now);
        replica.start_applier();
        Reply::Done
    }

    /// Memory first, then the record, when it can be written.
    fn become_type(&mut self, number: u8, to: TabletType) {
        if let Some(vttablet) = self.vttablet(number) {
            (vttablet.tablet_type, vttablet.term) = (to, None);
            vttablet.unpublished = true;
        }
        self.publish(number);
    }

    fn publish(&mut self, number: u8) {
        let Some(to) =
            self.vttablet(number).filter(|one| one.unpublished).map(|one| one.tablet_type)
        else {
            return;
        };
        if self.reaches_its_record(number) {
            // A record that is gone is not made again by it.
            let _ = self.write_record(number, to, None);
            if let Some(vttablet) = self.vttablet(number) {
                vttablet.unpublished = false;
            }
        }
    }

    /// Tried until nobody else was faster; false if there is no record.
    fn write_record(&mut self, number: u8, to: TabletType, term: Option<TermStart>) -> bool {
        let alias = self.server(number).alias.clone();
        self.note(|| format!("{alias} publishes {to}"));
        loop {
            match self.set_tablet_type(&alias, to, term) {
                Ok(()) => return true,
                Err(vtorc_core::ports::TopoError::BadVersion(_)) => {}
                Err(_) => return false,
            }
        }
    }

    /// What vttablets do by themselves.
    pub fn run_vttablets(&mut self) {
        for number in 0..u8::try_from(self.vttablets.len()).unwrap_or(u8::MAX) {
            if !self.server(number).is_awake() {
                continue;
            }
            let now = self.now;
            let Some(vttablet) = self.vttablet(number).cloned() else { continue };
            if vttablet.down {
                self.come_up(number);
            } else {
                self.publish(number);
                if vttablet.tablet_type == TabletType::Primary && vttablet.next_sync <= now {
                    self.synchronise_shard(number, vttablet.term);
                }
            }
        }
    }

    /// Primary again if the shard's record names it, otherwise what it is meant for.
    fn come_up(&mut self, number: u8) {
        let alias = self.server(number).alias.clone();
        let Some(record) = self.topology.tablets.get(&alias).cloned() else { return };
        if !self.reaches_its_record(number) {
            return;
        }
        let base = self.server(number).made_for;
        let mut vttablet = Vttablet::new(base);
        let newer = record.tablet_type == TabletType::Primary
            && record.term_start > self.records_of(number).record.term_start;
        if self.records_of(number).record.primary_alias.as_ref() == Some(&alias) || newer {
            vttablet.tablet_type = TabletType::Primary;
            vttablet.term = record.term_start.or(self.records_of(number).record.term_start);
        } else {
            vttablet.unpublished = true;
        }
        self.note(|| format!("{alias} comes up as {}", vttablet.tablet_type));
        if let Some(place) = self.vttablet(number) {
            *place = vttablet;
        }
        self.publish(number);
    }

    fn synchronise_shard(&mut self, number: u8, own: Option<TermStart>) {
        let next = self.now + SYNC_MS;
        if let Some(vttablet) = self.vttablet(number) {
            vttablet.next_sync = next;
        }
        if !self.reaches_topology(number) {
            return;
        }
        let records = self.records_of(number);
        let (name, theirs) = (records.name.clone(), records.record.term_start);
        let Some(own) = own else { return };
        if theirs.is_none_or(|theirs| own > theirs) {
            let alias = self.server(number).alias.clone();
            self.note(|| format!("{alias} names itself since {own}"));
            // Tried again the next time round.
            let _ = self.set_shard_primary(&name, &alias, own);
        } else if theirs.is_some_and(|theirs| own < theirs) {
            // With --disable-active-reparents only its type changes.
            let base = self.server(number).made_for;
            self.become_type(number, base);
        }
    }
}
