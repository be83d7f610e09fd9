//! What may be odd about a server beside being dead, slow or cut off; some of it from the beginning and for good.

use std::collections::BTreeSet;

use vtorc_core::tablet::TabletType;

use crate::Millis;
use crate::gtids::Txn;
use crate::server::Server;
use crate::universe::Universe;

/// Somebody's script looks after tablets that no vtorc manages this often.
const SCRIPT_MS: Millis = 1_000;
/// The number of a server that was there before anybody of the first shard, behind all numbers of servers; the other
/// shards' follow.
const FORMER: u8 = 30;
/// So many transactions of theirs are left, each with a gap behind it.
const FORMER_COUNT: u32 = 10;
/// ... or so many.
const MANY_GAPS: u32 = 1_000;
/// How late a delayed replica applies.
pub const DELAY_SECONDS: u64 = 3_600;

/// What is odd about a server.
#[derive(Clone, Debug, Default)]
pub struct Ills {
    /// The vtorcs whose logins it refuses, as bits.
    pub turns_away: u8,
    /// Counts how often everybody's sessions were ended.
    pub sessions_ended: u32,
    /// Applies so many seconds late (`SOURCE_DELAY`); never within one run.
    pub delay_seconds: u64,
    /// Applies nothing for this or another reason since then.
    pub idle_since: Millis,
    /// Its applier throws some data away (`replicate-ignore-table`).
    pub filtered: bool,
    /// Transactions of which it has the GTID and not the data.
    pub hollow: BTreeSet<Txn>,
    /// `FLUSH TABLES WITH READ LOCK`.
    pub locked: bool,
    /// Its configuration file lets it acknowledge, whatever the policy wants.
    pub acks_by_file: bool,
    /// It was down before the run began, and stays down.
    pub never_up: bool,
    /// A script, not vtorc, points it at the primary that the records name.
    pub led_by_script: bool,
    /// A script sets `super_read_only` off.
    pub open_to_administrators: bool,
    /// Its applier stops at once with an error.
    pub applier_fails: bool,
    /// Sources send it nothing, for another reason than their histories.
    pub gets_nothing: bool,
    /// Replicas cannot log in at it.
    pub refuses_replicas: bool,
    /// What it is told may run long after it was given up.
    pub late: bool,
    /// Everybody's sessions end at the moment at which it is opened for writes.
    pub drops_once_opened: bool,
    /// It refuses to be opened for writes.
    pub refuses_promotion: bool,
    /// It refuses to be told to refuse writes, or to wait for acknowledgements.
    pub ungoverned: bool,
    /// It logs what it writes itself, and nothing else.
    pub keeps_no_log: bool,
    /// An operator put it into downtime, then.
    pub downtime_since: Option<Millis>,
    /// Clients' transactions that were left open.
    pub open_transactions: u32,
    /// It alone has transactions of servers that are gone, once its shard has a primary.
    pub former_due: bool,
}

impl Ills {
    /// It refuses this vtorc's logins.
    pub fn turns_away(&self, manager: u8) -> bool {
        self.turns_away & bit(manager) != 0
    }

    /// Its applier would stand although it runs.
    pub fn holds_applier(&self) -> bool {
        self.locked || self.delay_seconds > 0
    }

    /// Takes back what a fault may have done; habits stay.
    pub fn mend(&mut self) {
        self.turns_away = 0;
        self.locked = false;
        self.late = false;
        self.drops_once_opened = false;
        self.refuses_promotion = false;
        self.ungoverned = false;
        self.applier_fails = false;
        self.gets_nothing = false;
        self.refuses_replicas = false;
        self.downtime_since = None;
        self.open_transactions = 0;
    }

    /// Gives it filters, or takes them away. Whoever does that makes it anew: what it lacks could not be seen any more.
    pub fn filter(&mut self, begins: bool) {
        self.filtered = begins;
        if !begins {
            self.hollow.clear();
        }
    }

    /// A filtered replica throws the data of every third transaction away.
    pub fn drops(&self, txn: Txn) -> bool {
        self.filtered && txn.number.is_multiple_of(3)
    }
}

/// A vtorc's bit.
pub fn bit(manager: u8) -> u8 {
    1_u8.checked_shl(u32::from(manager)).unwrap_or(0)
}

/// What is odd about a tablet from the beginning and for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// It applies an hour late.
    Delayed,
    /// It throws some data away.
    Filtered,
    /// It has transactions of servers that are gone for long, with many gaps.
    ForeignGtids,
    /// The same, with a thousand gaps; only hazards have it.
    ManyGaps,
    /// It acknowledges against the policy.
    AcksByFile,
    /// It is down and nobody here ever saw it.
    NeverUp,
    /// A script opens it for administrators again and again.
    NoSuperReadOnly,
    /// It does not log what it receives (`log_replica_updates = OFF`).
    KeepsNoLog,
}

impl Server {
    /// It waits for no acknowledgement, and is not to be told so; or it is again.
    pub fn be_ungoverned(&mut self, begins: bool) {
        self.ills.ungoverned = begins;
        self.waits_for_acks &= !begins;
    }

    /// Its binary logs hold what stands at this place of all that it has.
    pub fn logs(&self, at: usize) -> bool {
        let own = |txn: &Txn| txn.source == self.number;
        at >= self.purged && (!self.ills.keeps_no_log || self.binlog.get(at).is_some_and(own))
    }

    /// What it has and its binary logs do not hold.
    pub fn not_logged(&self) -> impl Iterator<Item = Txn> {
        let end = if self.ills.keeps_no_log { self.binlog.len() } else { self.purged };
        let all = self.binlog.iter().take(end).enumerate();
        all.filter(|(at, _)| !self.logs(*at)).map(|(_, txn)| *txn)
    }

    fn have_former(&mut self, count: u32) {
        let source = FORMER.saturating_add(u8::try_from(self.shard).unwrap_or(u8::MAX));
        for at in 0..count {
            self.commit(Txn { source, number: 2 * at + 1 }, false);
        }
    }
}

impl Universe {
    /// Gives a server a habit.
    pub fn give_habit(&mut self, number: u8, habit: Habit, shared_by_all: bool) {
        let server = self.server_mut(number);
        match habit {
            Habit::Delayed => server.ills.delay_seconds = DELAY_SECONDS,
            Habit::Filtered => server.ills.filtered = true,
            Habit::AcksByFile => {
                server.ills.acks_by_file = true;
                server.acks = true;
            }
            Habit::NeverUp => {
                server.ills.never_up = true;
                server.running = false;
            }
            Habit::KeepsNoLog => server.ills.keeps_no_log = true,
            Habit::ManyGaps => {
                server.have_former(MANY_GAPS);
                server.purged = server.binlog.len();
            }
            Habit::NoSuperReadOnly => server.ills.open_to_administrators = true,
            Habit::ForeignGtids => {
                // They came with the backup from which all were made; nobody has them in a log. One alone must not have
                // them before there is a primary: nobody could tell whether they were promised.
                server.ills.former_due = !shared_by_all;
                if shared_by_all {
                    server.have_former(FORMER_COUNT);
                    server.purged = server.binlog.len();
                }
            }
        }
    }

    /// Those who alone have something of former servers have it from the first primary on.
    fn show_former(&mut self) {
        for number in 0..self.count() {
            let reigning = self.ledger(number).reigning();
            if self.server(number).ills.former_due && reigning.is_some() {
                let server = self.server_mut(number);
                server.ills.former_due = false;
                if reigning != Some(number) {
                    server.have_former(FORMER_COUNT);
                }
            }
        }
    }

    /// Whoever put a tablet out of vtorc's hands lets it follow by a script.
    pub fn give_scripts(&mut self) {
        for number in 0..self.count() {
            let server = self.server_mut(number);
            let scripted = matches!(server.made_for, TabletType::Drained | TabletType::Backup);
            server.ills.led_by_script = scripted && !server.ills.never_up;
        }
    }

    /// The scripts do their work. None does while a reparent is under way.
    pub fn run_scripts(&mut self) {
        let now = self.now;
        if !now.is_multiple_of(SCRIPT_MS) {
            return;
        }
        self.show_former();
        for number in 0..self.count() {
            let server = self.server_mut(number);
            server.super_read_only &= !server.ills.open_to_administrators;
            if !server.ills.led_by_script || !server.is_awake() {
                continue;
            }
            let records = self.records_of(number);
            let named = records.record.primary_alias.as_ref().filter(|_| records.holder.is_none());
            let Some(primary) = named.and_then(|alias| self.server_of(alias)) else { continue };
            let primary = primary.number;
            // Whoever gives a primary that was replaced its acknowledgements back makes two of them: no manager can
            // help that.
            let reigns = self.ledger(number).reigning() == Some(primary);
            let server = self.server_mut(number);
            if primary == number || (server.acks && !reigns) {
                continue;
            }
            if server.source != Some(primary) {
                server.change_source(primary);
            }
            server.start_receiver(now);
            server.start_applier();
        }
    }

    /// Who answers at a server's address.
    pub fn behind(&self, address: u8) -> u8 {
        self.strangers.get(&address).copied().unwrap_or(address)
    }

    /// Tells whether a vtorc's process does nothing any more: what it sent last has arrived.
    pub fn is_stopped(&self, manager: usize) -> bool {
        let flying = u8::try_from(manager).ok().and_then(|manager| self.flying.get(&manager));
        self.is_paused(manager) && flying.is_none_or(|flying| *flying == 0)
    }

    /// Tells whether a vtorc's process stands still.
    pub fn is_paused(&self, manager: usize) -> bool {
        self.paused.keys().any(|one| usize::from(*one) == manager)
    }
}
