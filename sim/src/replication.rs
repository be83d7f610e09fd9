//! Replication between simulated servers: receivers connect, receive and acknowledge, appliers apply.

use vtorc_core::status::{ReceiverError, ReceiverErrorKind};

use crate::Millis;
use crate::gtids::Txn;
use crate::mariadb::Refusal;
use crate::network::Party;
use crate::server::{Receiver, Waiting};
use crate::universe::Universe;

/// A receiver that could not connect tries again after this (`SOURCE_CONNECT_RETRY = 1`).
const CONNECT_RETRY_MS: Millis = 1000;
/// A receiver gives a silent source up after this (`replica_net_timeout`).
const NET_TIMEOUT_MS: Millis = 60_000;
/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`.
const FATAL_READ: u32 = 1236;
/// Received and applied in one step at most.
const BATCH: usize = 50;

impl Universe {
    /// Lets replication go on for one step of time.
    pub fn replicate(&mut self) {
        for number in 0..self.count() {
            if !self.server(number).is_awake() {
                continue;
            }
            self.receive(number);
            self.apply(number);
            self.finish_commits(number);
        }
    }

    fn receive(&mut self, number: u8) {
        let now = self.now;
        let server = self.server(number);
        let Some(source) = server.source else { return };
        match server.receiver {
            Receiver::Stopped => {}
            Receiver::Connecting { next_try } if now < next_try => {}
            Receiver::Connecting { .. } => self.connect(number, source),
            Receiver::Running { cursor, incarnation, acks, heard_at } => {
                let (from, to) = (Party::Server(source), Party::Server(number));
                let open = self.network.is_open(from, to);
                let origin = self.server(source);
                let lives = origin.running && origin.incarnation == incarnation;
                if !lives && open || now.saturating_sub(heard_at) > NET_TIMEOUT_MS {
                    let next_try = now + CONNECT_RETRY_MS;
                    self.server_mut(number).receiver =
                        Receiver::Connecting { next_try: now.min(next_try) };
                } else if lives && open && origin.is_awake() && !self.server(number).stalled {
                    self.stream(number, source, cursor, acks, heard_at);
                }
            }
        }
    }

    /// A connection is made, unless the source no longer has what is needed, or lacks what it once sent.
    fn connect(&mut self, number: u8, source: u8) {
        let now = self.now;
        let (one, other) = (Party::Server(number), Party::Server(source));
        let reached = source != number
            && self.server(source).is_awake()
            // Another shard's server does not let the replication user in.
            && self.behind(source) == source
            && !self.server(source).ills.refuses_replicas
            && self.network.is_open_both_ways(one, other);
        if !reached {
            let next_try = now + CONNECT_RETRY_MS;
            self.server_mut(number).receiver = Receiver::Connecting { next_try };
            return;
        }
        let place = self.place_in_log(number, source);
        let incarnation = self.server(source).incarnation;
        let server = self.server_mut(number);
        match place {
            Ok(cursor) => {
                let acks = server.acks;
                server.heard += 1;
                server.receiver = Receiver::Running { cursor, incarnation, acks, heard_at: now };
            }
            Err((kind, text)) => {
                let text = text.to_owned();
                server.receiver_error = Some(ReceiverError { number: FATAL_READ, kind, text });
                server.receiver = Receiver::Stopped;
            }
        }
    }

    /// From where on a source sends its binary log, and leaves out what the replica has.
    fn place_in_log(&self, number: u8, source: u8) -> Result<usize, Refusal> {
        let (replica, origin) = (self.server(number), self.server(source));
        if replica.ills.gets_nothing {
            let text = "log event entry exceeded max_allowed_packet";
            return Err((ReceiverErrorKind::PacketTooLarge, text));
        }
        if origin.mariadb {
            return origin.place_after(replica);
        }
        if origin.not_logged().any(|txn| !replica.has_received(txn)) {
            let text = "the source purged binary logs that this server needs";
            return Err((ReceiverErrorKind::Purged, text));
        }
        if replica.executed.next_of(source) > origin.executed.next_of(source) {
            let text = "this server has more transactions of the source's uuid than the source";
            return Err((ReceiverErrorKind::Diverged, text));
        }
        Ok(0)
    }

    fn stream(&mut self, number: u8, source: u8, cursor: usize, acks: bool, heard_at: Millis) {
        let now = self.now;
        let end = self.server(source).binlog.len().min(cursor + BATCH);
        // What it has already is not sent again, so nobody acknowledges it either.
        let mut sent_to: Option<usize> = None;
        for at in cursor..end {
            let Some(txn) = self.server(source).binlog.get(at).copied() else { break };
            let sent = self.server(source).logs(at) && txn.source != number;
            if sent && !self.server(number).has_received(txn) {
                let hollow = self.server(source).ills.hollow.contains(&txn);
                let server = self.server_mut(number);
                server.relay.push_back(txn);
                server.retrieved.insert(txn);
                if hollow {
                    server.ills.hollow.insert(txn);
                }
                sent_to = Some(at);
            }
        }
        let heartbeat = self.server(number).heartbeat_ms;
        let heard = end > cursor || now.saturating_sub(heard_at) >= heartbeat;
        let server = self.server_mut(number);
        let Receiver::Running { incarnation, .. } = server.receiver else { return };
        let heard_at = if heard { now } else { heard_at };
        server.heard += u64::from(heard);
        server.receiver = Receiver::Running { cursor: end, incarnation, acks, heard_at };
        let back = self.network.is_open(Party::Server(number), Party::Server(source));
        if let Some(at) = sent_to.filter(|_| acks && back) {
            self.acknowledge_up_to(number, source, at);
        }
    }

    /// An acknowledgement is for a place in the source's binary log, and for all that lies before it.
    fn acknowledge_up_to(&mut self, number: u8, source: u8, at: usize) {
        let origin = self.server_mut(source);
        if origin.waiting.is_empty() {
            return;
        }
        let before: Vec<Txn> = origin.binlog.iter().take(at + 1).copied().collect();
        let waits = |waiting: &Waiting| before.contains(&waiting.txn);
        for waiting in origin.waiting.iter_mut().filter(|one| waits(one)) {
            if !waiting.ackers.contains(&number) {
                waiting.ackers.push(number);
            }
        }
    }

    fn apply(&mut self, number: u8) {
        let now = self.now;
        for _ in 0..BATCH {
            let server = self.server_mut(number);
            let holds = server.stalled || server.ills.holds_applier();
            if !server.applier_running || holds || server.applier_sleeps_until > now {
                return;
            }
            let Some(txn) = server.relay.pop_front() else { return };
            let is_journal = self.journal_txns.contains(&txn);
            let server = self.server_mut(number);
            server.applied_to = Some(txn).filter(|_| server.mariadb);
            if !server.executed.contains(txn) {
                server.commit(txn, is_journal);
                if !is_journal && server.ills.drops(txn) {
                    server.ills.hollow.insert(txn);
                }
            }
        }
    }

    /// Tells the clients whose commits have all acknowledgements.
    fn finish_commits(&mut self, number: u8) {
        let server = self.server_mut(number);
        if server.waiting.is_empty() || server.stalled {
            return;
        }
        let enough = server.wait_count as usize;
        let (done, waiting): (Vec<Waiting>, Vec<Waiting>) =
            server.waiting.drain(..).partition(|commit| commit.ackers.len() >= enough);
        server.waiting = waiting;
        for commit in done {
            self.committed(number, &commit);
        }
    }
}
