//! What a server does when it is told something. Each statement is one round trip, so a command can be cut
//! off between any two of them.

use vtorc_core::status::{ServerStatus, VttabletState};

use crate::Millis;
use crate::gtids::Txn;
use crate::server::{Receiver, Server, Waiting};
use crate::universe::Universe;
use crate::vttablet::{Call, What};

/// How long a pending `SET GLOBAL read_only` holds new writes back without being asked for again.
const FENCE_HOLDS_MS: Millis = 60;

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// What a probe asks.
    Status,
    /// `STOP REPLICA IO_THREAD`.
    StopReceiver,
    /// `STOP REPLICA`.
    StopReplication,
    /// `START REPLICA`.
    StartReplication,
    /// `START REPLICA SQL_THREAD`.
    StartApplier,
    /// `CHANGE REPLICATION SOURCE TO`.
    ChangeSource(u8),
    /// `RESET REPLICA ALL`.
    ForgetSource,
    /// Waits for so many acknowledgements as a source; 0 switches it off and lets waiting commits go.
    WaitForAcks(u32),
    /// Acknowledges as a replica.
    Acknowledge(bool),
    /// `SET GLOBAL super_read_only = ON`: waits for commits in flight.
    RefuseWrites,
    /// `SET GLOBAL read_only = OFF`.
    TakeWrites,
    /// `KILL` for every client session.
    EndSessions,
    /// A write of vtorc's own: a row of the reparent journal, or one that changes nothing.
    OwnWrite {
        /// Which of the two.
        is_journal: bool,
    },
    /// Whether a commit of ours was acknowledged.
    IsCommitted(Txn),
    /// A client's insert.
    Insert(u64),
    /// `CHANGE REPLICATION SOURCE TO SOURCE_DELAY`, with the applier stopped for it.
    Delay(u64),
    /// A call to the server's vttablet.
    Call(Call),
}

impl Statement {
    /// Tells whether it does nothing once its asker has given it up: it names its deadline, or is killed by who sent
    /// it.
    pub fn ends_with_its_asker(&self) -> bool {
        matches!(self, Self::TakeWrites | Self::RefuseWrites)
    }

    /// Tells whether it changes a replica's channel: these have the channel's lock one after the other, also those
    /// whose askers are gone.
    pub fn changes_channel(&self) -> bool {
        matches!(
            self,
            Self::StopReceiver
                | Self::StopReplication
                | Self::StartReplication
                | Self::StartApplier
                | Self::ChangeSource(_)
                | Self::ForgetSource
                | Self::Delay(_)
        )
    }

    /// Tells whether the applier must stop for it.
    fn stops_applier(&self) -> bool {
        matches!(self, Self::StopReplication | Self::Delay(_))
    }

    /// Tells whether it changes nothing.
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::Status | Self::IsCommitted(_))
    }

    /// Tells whether a server takes writes because of it.
    pub fn promotes(&self, reply: &Reply) -> bool {
        let promotes =
            matches!(self, Self::TakeWrites | Self::Call(Call { what: What::Promote { .. }, .. }));
        promotes && matches!(reply, Reply::Done)
    }
}

/// What it answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Its state.
    Status(Box<ServerStatus>),
    /// Done.
    Done,
    /// Begun; ask again.
    Pending,
    /// A commit has begun.
    Begun(Txn),
    /// Refused.
    Refused(&'static str),
}

impl Universe {
    /// Runs a statement on a server that is awake.
    pub fn execute(&mut self, number: u8, statement: &Statement) -> Reply {
        let now = self.now;
        if statement.stops_applier() && self.server(number).applier_hangs() {
            return Reply::Pending;
        }
        match statement {
            Statement::RefuseWrites => return self.refuse_writes(number),
            Statement::TakeWrites => return self.take_writes(number),
            Statement::EndSessions => {
                self.end_sessions(number);
                return Reply::Done;
            }
            Statement::OwnWrite { is_journal } => return self.begin_own_write(number, *is_journal),
            Statement::Insert(attempt) => {
                self.insert(number, *attempt);
                return Reply::Done;
            }
            Statement::WaitForAcks(acks) => return self.told_to_wait(number, *acks),
            Statement::Call(call) => return self.call(number, call),
            Statement::ChangeSource(source) => return self.point_at(number, *source),
            Statement::Status => return Reply::Status(Box::new(self.status_of(number))),
            Statement::StopReceiver
            | Statement::StopReplication
            | Statement::StartReplication
            | Statement::StartApplier
            | Statement::ForgetSource
            | Statement::Acknowledge(_)
            | Statement::Delay(_)
            | Statement::IsCommitted(_) => {}
        }
        let server = self.server_mut(number);
        match statement {
            Statement::StopReceiver => server.stop_receiver(),
            Statement::StopReplication => server.stop_replication(),
            Statement::StartReplication => {
                server.start_receiver(now);
                server.start_applier();
            }
            Statement::StartApplier => server.start_applier(),
            Statement::ForgetSource => server.forget_source(),
            Statement::Acknowledge(acks) => server.acks = *acks,
            Statement::Delay(seconds) => server.delay(*seconds, now),
            Statement::IsCommitted(txn) => {
                let waits = server.waiting.iter().any(|waiting| waiting.txn == *txn);
                return if waits { Reply::Pending } else { Reply::Done };
            }
            Statement::Status
            | Statement::RefuseWrites
            | Statement::TakeWrites
            | Statement::EndSessions
            | Statement::OwnWrite { .. }
            | Statement::Insert(_)
            | Statement::Call(_)
            | Statement::ChangeSource(_)
            | Statement::WaitForAcks(_) => {}
        }
        Reply::Done
    }

    fn point_at(&mut self, number: u8, source: u8) -> Reply {
        self.check_relay_log_is_kept(number, source);
        self.server_mut(number).change_source(source);
        Reply::Done
    }

    /// What a replica received and has not applied is thrown away where its applier stands: nobody does that before the
    /// new source is known to send it again.
    fn check_relay_log_is_kept(&mut self, number: u8, source: u8) {
        let (server, source) = (self.server(number), self.server(source));
        let all = || source.binlog.iter().enumerate();
        let sent_again = |txn: &&Txn| all().any(|(at, one)| one == *txn && source.logs(at));
        let gone = server.relay.iter().find(|txn| !server.applier_running && !sent_again(txn));
        if let Some(txn) = gone.copied() {
            let source = source.number;
            self.violated(format!(
                "s{number} was pointed at s{source}, which does not send {txn:?}, and threw it away"
            ));
        }
    }

    fn take_writes(&mut self, number: u8) -> Reply {
        let server = self.server_mut(number);
        if server.ills.refuses_promotion {
            return Reply::Refused("access denied");
        }
        (server.read_only, server.super_read_only) = (false, false);
        server.opened_by_mistake = false;
        server.ills.sessions_ended += u32::from(server.ills.drops_once_opened);
        Reply::Done
    }

    /// What a probe finds, with those who acknowledge to it.
    fn status_of(&self, number: u8) -> ServerStatus {
        let ackers = (0..self.count()).filter(|other| {
            let replica = self.server(*other);
            let acks = matches!(replica.receiver, Receiver::Running { acks: true, .. });
            acks && replica.source == Some(number) && self.is_connected(*other)
        });
        let ackers = ackers.count();
        let mut status = self.server(number).status(self.now);
        status.semi_sync.clients = u32::try_from(ackers).unwrap_or(u32::MAX);
        status.vttablet =
            self.vttablets.get(usize::from(number)).map(|vttablet| VttabletState::Answers {
                tablet_type: vttablet.tablet_type,
                disk_stalled: self.server(number).stalled,
                semi_sync_blocked: false,
            });
        status
    }

    fn refuse_writes(&mut self, number: u8) -> Reply {
        let now = self.now;
        let server = self.server_mut(number);
        if server.ills.ungoverned {
            return Reply::Refused("access denied");
        }
        if server.stalled {
            return Reply::Pending;
        }
        server.fencing_until = now + FENCE_HOLDS_MS;
        if !server.waiting.is_empty() || server.ills.open_transactions > 0 {
            return Reply::Pending;
        }
        server.read_only = true;
        server.super_read_only = true;
        server.opened_by_mistake = false;
        server.fencing_until = 0;
        self.ledger_mut(number).stopped_taking_writes(number);
        Reply::Done
    }

    /// Clients are cut off; what they had begun stays in the log, unacknowledged.
    fn end_sessions(&mut self, number: u8) {
        self.server_mut(number).ills.open_transactions = 0;
        let waiting = std::mem::take(&mut self.server_mut(number).waiting);
        for commit in waiting {
            if let Some(attempt) = commit.attempt {
                self.ledger_mut(number).failed(attempt);
            }
        }
    }

    fn told_to_wait(&mut self, number: u8, acks: u32) -> Reply {
        if self.server(number).ills.ungoverned {
            return Reply::Refused("access denied");
        }
        self.set_wait_for_acks(number, acks);
        Reply::Done
    }

    /// Switching semi-sync off lets waiting commits go, as if they had been acknowledged.
    fn set_wait_for_acks(&mut self, number: u8, acks: u32) {
        let server = self.server_mut(number);
        server.waits_for_acks = acks > 0;
        if acks > 0 {
            server.wait_count = acks;
            return;
        }
        let waiting = std::mem::take(&mut server.waiting);
        for commit in waiting {
            self.committed(number, &commit);
        }
    }

    fn begin_own_write(&mut self, number: u8, is_journal: bool) -> Reply {
        let server = self.server_mut(number);
        if server.super_read_only {
            return Reply::Refused("super_read_only is ON");
        }
        if server.ills.locked {
            return Reply::Pending;
        }
        let txn = server.next_txn();
        server.commit(txn, is_journal);
        if server.waits_for_acks {
            server.waiting.push(Waiting { txn, attempt: None, ackers: Vec::new() });
        }
        if is_journal {
            self.journal_txns.insert(txn);
        }
        Reply::Begun(txn)
    }

    /// A client's insert arrives.
    fn insert(&mut self, number: u8, attempt: u64) {
        let now = self.now;
        let server = self.server_mut(number);
        if !server.takes_writes(now) || server.opened_by_mistake {
            self.ledger_mut(number).failed(attempt);
            return;
        }
        if server.stalled || server.ills.locked {
            return;
        }
        let txn = server.next_txn();
        server.commit(txn, false);
        self.ledger_mut(number).began(attempt, txn);
        let commit = Waiting { txn, attempt: Some(attempt), ackers: Vec::new() };
        if self.server(number).waits_for_acks {
            self.server_mut(number).waiting.push(commit);
        } else {
            self.committed(number, &commit);
        }
    }

    /// The server tells the client that its write is done.
    pub fn committed(&mut self, number: u8, commit: &Waiting) {
        let Some(attempt) = commit.attempt else { return };
        self.acknowledge(number, attempt, commit.txn, &commit.ackers);
    }

    /// An operator writes on a replica by mistake.
    pub fn write_by_mistake(&mut self, number: u8) {
        let server = self.server_mut(number);
        let txn = server.next_txn();
        server.commit(txn, false);
        let is_mariadb = server.mariadb;
        self.mistakes.insert(txn);
        let sees = |manager| self.answers(manager, number) && !self.is_paused(manager.into());
        if is_mariadb && !(0..self.managers).all(sees) {
            self.unwatched.insert(txn);
        }
    }

    /// A vtorc that is started has seen nothing of what was written before.
    pub fn vtorc_starts(&mut self) {
        let mistakes = self.mistakes.iter().filter(|txn| self.server(txn.source).mariadb);
        let unwatched: Vec<Txn> = mistakes.copied().collect();
        self.unwatched.extend(unwatched);
    }

    /// Tells whether a receiver is connected to the life that its source lives now.
    pub fn is_connected(&self, number: u8) -> bool {
        let server = self.server(number);
        match (server.receiver, server.source) {
            (Receiver::Running { incarnation, .. }, Some(source)) => {
                let source: &Server = self.server(source);
                source.running && source.incarnation == incarnation
            }
            (Receiver::Running { .. } | Receiver::Stopped | Receiver::Connecting { .. }, _) => {
                false
            }
        }
    }
}
