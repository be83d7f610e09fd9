//! One simulated MySQL server: what it has, what it is told, and what it answers.

use std::collections::VecDeque;
use std::time::Duration;

use vtorc_core::gtid::GtidSet;
use vtorc_core::gtid::MariaDbBinlogState;
use vtorc_core::ids::TabletAlias;
use vtorc_core::status::{
    BinlogFormat, Flavor, ReceiverError, ReceiverState, ReplicationStatus, SemiSyncStatus,
    ServerStatus,
};
use vtorc_core::tablet::{MysqlAddress, TabletType};

use crate::Millis;
use crate::gtids::{Txn, TxnSet, uuid};
use crate::ills::Ills;

/// As vtorc sets it: never falls back by itself.
const SEMI_SYNC_TIMEOUT_MS: u64 = 1_000_000_000_000;
/// What a server is set up with before vtorc sees it.
const HEARTBEAT_DEFAULT_MS: Millis = 30_000;
/// What vtorc sets with every `CHANGE REPLICATION SOURCE`.
pub const HEARTBEAT_MS: Millis = 250;

/// The receiver thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Stopped.
    Stopped,
    /// Trying to connect, next at this moment.
    Connecting {
        /// When.
        next_try: Millis,
    },
    /// Connected.
    Running {
        /// Read so far of the source's binary log.
        cursor: usize,
        /// The source's life to which it is connected.
        incarnation: u32,
        /// It acknowledges.
        acks: bool,
        /// Something last arrived.
        heard_at: Millis,
    },
}

/// A commit that waits for acknowledgements.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Of which transaction.
    pub txn: Txn,
    /// Whose; none for the manager's own.
    pub attempt: Option<u64>,
    /// Who acknowledged so far.
    pub ackers: Vec<u8>,
}

/// A server's process, as whoever connects meets it.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// It runs.
    pub running: bool,
    /// It is stopped in its tracks.
    pub frozen: bool,
    /// Counts its starts.
    pub incarnation: u32,
}

/// A simulated server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its number.
    pub number: u8,
    /// Its shard's place in the topology.
    pub shard: usize,
    /// Its tablet.
    pub alias: TabletAlias,
    /// What its tablet is for, as long as nothing happens.
    pub made_for: TabletType,
    /// The process runs.
    pub running: bool,
    /// Counts its starts.
    pub incarnation: u32,
    /// When its process began to run.
    pub started_at: Millis,
    /// Stopped in its tracks.
    pub frozen: bool,
    /// Writes to its disk hang.
    pub stalled: bool,
    /// It answers now and then.
    pub saturated: bool,
    /// `read_only`.
    pub read_only: bool,
    /// `super_read_only`.
    pub super_read_only: bool,
    /// An operator opened it by mistake; clients do not use it.
    pub opened_by_mistake: bool,
    /// In commit order.
    pub binlog: Vec<Txn>,
    /// Everything committed.
    pub executed: TxnSet,
    /// It is a MariaDB.
    pub mariadb: bool,
    /// The last transaction that its applier committed, or that it was told to go on from (`gtid_slave_pos`, MariaDB
    /// only).
    pub applied_to: Option<Txn>,
    /// Removed from the binary log: so many from its beginning.
    pub purged: usize,
    /// Received and not applied.
    pub relay: VecDeque<Txn>,
    /// Ever received from the present source.
    pub retrieved: TxnSet,
    /// Whom it follows.
    pub source: Option<u8>,
    /// The receiver.
    pub receiver: Receiver,
    /// Its last error.
    pub receiver_error: Option<ReceiverError>,
    /// The applier runs.
    pub applier_running: bool,
    /// Applies nothing before this moment: it lags.
    pub applier_sleeps_until: Millis,
    /// The source sends a heartbeat so often.
    pub heartbeat_ms: Millis,
    /// Probes can see heartbeats.
    pub heartbeats_seen: bool,
    /// Counts what arrives.
    pub heard: u64,
    /// Semi-sync as a source.
    pub waits_for_acks: bool,
    /// How many.
    pub wait_count: u32,
    /// Semi-sync as a replica, for the next connection.
    pub acks: bool,
    /// Commits that wait.
    pub waiting: Vec<Waiting>,
    /// Somebody is about to refuse writes; until then new ones are held back.
    pub fencing_until: Millis,
    /// Reparents that its journal tells of.
    pub journal: u64,
    /// What else is odd about it.
    pub ills: Ills,
}

impl Server {
    /// A new server without data.
    pub fn new(number: u8, shard: usize, alias: TabletAlias, made_for: TabletType) -> Self {
        Self {
            number,
            shard,
            alias,
            made_for,
            running: true,
            incarnation: 0,
            started_at: 0,
            frozen: false,
            stalled: false,
            saturated: false,
            read_only: true,
            super_read_only: true,
            opened_by_mistake: false,
            binlog: Vec::new(),
            executed: TxnSet::default(),
            mariadb: false,
            applied_to: None,
            purged: 0,
            relay: VecDeque::new(),
            retrieved: TxnSet::default(),
            source: None,
            receiver: Receiver::Stopped,
            receiver_error: None,
            applier_running: false,
            applier_sleeps_until: 0,
            heartbeat_ms: HEARTBEAT_DEFAULT_MS,
            heartbeats_seen: true,
            heard: 0,
            waits_for_acks: false,
            wait_count: 1,
            acks: false,
            waiting: Vec::new(),
            fencing_until: 0,
            journal: 0,
            ills: Ills::default(),
        }
    }

    /// Where it listens.
    pub fn address(number: u8) -> MysqlAddress {
        MysqlAddress { host: format!("s{number}"), port: 3306 }
    }

    /// `server_id`.
    pub fn id_of(number: u8) -> u32 {
        u32::from(number) + 1
    }

    /// The server behind an address.
    pub fn number_of(address: &MysqlAddress) -> u8 {
        address.host.trim_start_matches('s').parse().unwrap_or(u8::MAX)
    }

    /// What whoever connects meets.
    pub fn process(&self) -> Process {
        let Self { running, frozen, incarnation, .. } = *self;
        Process { running, frozen, incarnation }
    }

    /// It can do something now.
    pub fn is_awake(&self) -> bool {
        self.running && !self.frozen
    }

    /// A client's write would be taken.
    pub fn takes_writes(&self, now: Millis) -> bool {
        self.is_awake() && !self.read_only && self.fencing_until <= now
    }

    /// Everything committed or received.
    pub fn has_received(&self, txn: Txn) -> bool {
        self.executed.contains(txn) || self.relay.contains(&txn)
    }

    /// It is down and would come up again.
    pub fn is_only_down(&self) -> bool {
        !self.running && !self.ills.never_up
    }

    /// It has, or can still apply, what a transaction changed.
    pub fn has_data(&self, txn: Txn) -> bool {
        self.has_received(txn) && !self.ills.hollow.contains(&txn)
    }

    /// What a transaction changed can be read here.
    pub fn has_applied(&self, txn: Txn) -> bool {
        self.executed.contains(txn) && !self.ills.hollow.contains(&txn)
    }

    /// Its applier waits for a lock in the middle of a transaction, and cannot be stopped.
    pub fn applier_hangs(&self) -> bool {
        self.ills.locked && self.applier_running && !self.relay.is_empty()
    }

    /// It applies from now on, unless it stops at once with an error.
    pub fn start_applier(&mut self) {
        if self.throws_relay_log_away() {
            self.relay.clear();
        }
        self.applier_running = self.source.is_some() && !self.ills.applier_fails;
    }

    /// Its applier stops on an error, each time that it is started; whoever takes the cause away starts it.
    pub fn fail_applier(&mut self, begins: bool) {
        self.ills.applier_fails = begins;
        match begins {
            true => self.applier_running = false,
            false => self.start_applier(),
        }
    }

    /// Commits a transaction.
    pub fn commit(&mut self, txn: Txn, is_journal: bool) {
        self.binlog.push(txn);
        self.executed.insert(txn);
        self.journal += u64::from(is_journal);
    }

    /// Begins a transaction of its own.
    pub fn next_txn(&self) -> Txn {
        let number = match self.mariadb {
            true => self.executed.highest() + 1,
            false => self.executed.next_of(self.number),
        };
        Txn { source: self.number, number }
    }

    /// Stops the receiver.
    pub fn stop_receiver(&mut self) {
        self.receiver = Receiver::Stopped;
    }

    /// Its connection to its source breaks; it tries again.
    pub fn disconnect(&mut self, now: Millis) {
        if matches!(self.receiver, Receiver::Running { .. }) {
            self.receiver = Receiver::Connecting { next_try: now };
        }
    }

    /// Stops both threads.
    pub fn stop_replication(&mut self) {
        self.stop_receiver();
        self.applier_running = false;
    }

    /// Starts the receiver where it stands.
    pub fn start_receiver(&mut self, now: Millis) {
        if self.source.is_some() && self.receiver == Receiver::Stopped {
            if self.throws_relay_log_away() {
                self.relay.clear();
            }
            self.receiver_error = None;
            self.receiver = Receiver::Connecting { next_try: now };
        }
    }

    /// `CHANGE REPLICATION SOURCE`. With the applier running the relay log stays, else it is thrown away.
    pub fn change_source(&mut self, source: u8) {
        self.receiver = Receiver::Stopped;
        // What was retrieved is forgotten with the relay log, and with nothing else (seen on MySQL 9.7).
        if !self.applier_running {
            self.relay.clear();
            self.retrieved = TxnSet::default();
        }
        if self.mariadb {
            self.set_position();
        }
        self.source = Some(source);
        self.receiver_error = None;
        self.heartbeat_ms = HEARTBEAT_MS;
    }

    /// Applies so many seconds late from now on.
    pub fn delay(&mut self, seconds: u64, now: Millis) {
        self.ills.delay_seconds = seconds;
        self.ills.idle_since = now;
    }

    /// `RESET REPLICA ALL`.
    pub fn forget_source(&mut self) {
        self.receiver = Receiver::Stopped;
        self.applier_running = false;
        self.source = None;
        self.ills.delay_seconds = 0;
        self.relay.clear();
        self.retrieved = TxnSet::default();
    }

    /// The process is killed. What was received and not applied is fetched again after a restart
    /// (`relay_log_recovery`): until then it is lost. Answers what was lost.
    pub fn crash(&mut self) -> Vec<Txn> {
        self.running = false;
        self.frozen = false;
        self.waiting.clear();
        self.fencing_until = 0;
        if matches!(self.receiver, Receiver::Running { .. }) {
            self.receiver = Receiver::Connecting { next_try: 0 };
        }
        self.ills.locked = false;
        self.ills.open_transactions = 0;
        let lost: Vec<Txn> = self.relay.drain(..).collect();
        lost.iter().for_each(|txn| _ = self.ills.hollow.remove(txn));
        lost
    }

    /// The end of its binary log was not on its disk. Answers what was lost.
    pub fn lose_tail(&mut self, most: usize) -> Vec<Txn> {
        let kept = self.binlog.len().saturating_sub(most).max(self.purged);
        let lost = self.binlog.split_off(kept);
        self.executed.remove_all(&lost);
        // It is a table's row, and as durable as the data.
        self.applied_to = self.binlog.last().copied().filter(|_| self.applied_to.is_some());
        lost.iter().for_each(|txn| _ = self.ills.hollow.remove(txn));
        lost
    }

    /// It starts again, as its configuration file says: refusing writes, replication started.
    pub fn restart(&mut self, now: Millis) {
        self.running = true;
        self.incarnation += 1;
        self.started_at = now;
        self.read_only = true;
        self.super_read_only = true;
        self.opened_by_mistake = false;
        self.waits_for_acks = false;
        self.acks = self.ills.acks_by_file;
        self.retrieved = TxnSet::default();
        self.receiver = Receiver::Stopped;
        self.start_applier();
        self.start_receiver(now);
    }

    /// What others can see of what it executed: not what waits for an acknowledgement.
    fn seen(&self) -> GtidSet {
        if self.waiting.is_empty() {
            return self.executed.to_gtid_set();
        }
        let mut seen = self.executed.clone();
        let waiting: Vec<Txn> = self.waiting.iter().map(|commit| commit.txn).collect();
        seen.remove_all(&waiting);
        seen.to_gtid_set()
    }

    /// What a probe finds.
    pub fn status(&self, now: Millis) -> ServerStatus {
        let status = self.status_of_mysql(now);
        if self.mariadb { self.as_mariadb(status) } else { status }
    }

    fn status_of_mysql(&self, now: Millis) -> ServerStatus {
        let purged = self.not_logged().collect::<TxnSet>();
        ServerStatus {
            flavor: Flavor::MySql,
            version: "9.7.0".into(),
            server_id: Self::id_of(self.number),
            server_uuid: Some(uuid(self.number)),
            place: None,
            read_only: self.read_only,
            super_read_only: self.super_read_only,
            gtid_mode_on: true,
            log_bin: true,
            log_replica_updates: !self.ills.keeps_no_log,
            would_filter: self.ills.filtered,
            binlog_format: Some(BinlogFormat::Row),
            binlog_state: MariaDbBinlogState::default(),
            gtid_executed: self.seen(),
            gtid_purged: purged.to_gtid_set(),
            replication: self.source.map(|source| self.replication(source, now)),
            channels: Vec::new(),
            semi_sync: SemiSyncStatus {
                source_available: true,
                replica_available: true,
                source_enabled: self.waits_for_acks,
                replica_enabled: self.acks,
                source_active: self.waits_for_acks,
                replica_active: matches!(self.receiver, Receiver::Running { acks: true, .. }),
                clients: 0,
                wait_count: self.wait_count,
                timeout_ms: SEMI_SYNC_TIMEOUT_MS,
                falls_back_alone: false,
                waiting_sessions: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
                seen_is_acknowledged: true,
            },
            journal_length: Some(self.journal),
            uptime: Some(Duration::from_secs(now.saturating_sub(self.started_at) / 1000)),
            free_connections: None,
            writes_wait: false,
            backup_runs: false,
            offline: false,
            vttablet: None,
        }
    }

    fn replication(&self, source: u8, now: Millis) -> ReplicationStatus {
        let receiver = match self.receiver {
            Receiver::Stopped => ReceiverState::Stopped,
            Receiver::Connecting { .. } => ReceiverState::Connecting,
            Receiver::Running { .. } => ReceiverState::Running,
        };
        let mut lag = self.applier_sleeps_until.saturating_sub(now) / 1000;
        if self.ills.holds_applier() && !self.relay.is_empty() {
            lag = lag.max(now.saturating_sub(self.ills.idle_since) / 1000);
        }
        ReplicationStatus {
            channel: String::new(),
            source: Self::address(source),
            source_uuid: Some(uuid(source)),
            source_server_id: Some(Self::id_of(source)),
            receiver,
            receiver_error: self.receiver_error.clone(),
            applier_running: self.applier_running,
            applier_error: self.ills.applier_fails.then(|| "duplicate key".into()),
            retrieved: self.retrieved.to_gtid_set(),
            tls: None,
            auto_position: true,
            filtered: self.ills.filtered,
            lag_seconds: self.applier_running.then_some(lag),
            delay_seconds: self.ills.delay_seconds,
            gives_up_after_s: None,
            heartbeat_period_ms: Some(self.heartbeat_ms),
            received_marker: self.heard.to_string(),
            marker_sees_heartbeats: self.heartbeats_seen,
        }
    }
}
