//! What a MariaDB does otherwise than a MySQL. It counts what all servers of a domain wrote, knows positions instead
//! of sets, and throws away what it received when its threads start while both stand.
//!
//! With one domain a position is the last transaction; a replica goes on from there, and whoever does not have that
//! transaction sends it nothing (manual, "Global Transaction ID"; seen on 10.11 and 11.4).

use vtorc_core::gtid::{GtidSet, MariaDbBinlogState, MariaDbGtidSet, MariaDbServer};
use vtorc_core::status::{
    Flavor, ReceiverErrorKind, ReplicationStatus, SemiSyncStatus, ServerPlace, ServerStatus,
};

use crate::gtids::{Txn, TxnSet};
use crate::server::{Receiver, Server};

/// Every server writes in this one.
const DOMAIN: u32 = 0;

/// Why a source sends a replica nothing.
pub type Refusal = (ReceiverErrorKind, &'static str);

impl Server {
    /// `gtid_slave_pos` and `gtid_binlog_pos`, whichever is later.
    fn position(&self) -> Option<Txn> {
        let written = self.binlog.last().copied();
        written.into_iter().chain(self.applied_to).max_by_key(|txn| txn.number)
    }

    /// `Gtid_IO_Pos`.
    fn received_to(&self) -> Option<Txn> {
        self.relay.back().copied().or(self.applied_to)
    }

    /// Threads that start while both stand begin by throwing the relay log away.
    pub fn throws_relay_log_away(&self) -> bool {
        self.mariadb && self.receiver == Receiver::Stopped && !self.applier_running
    }

    /// `SET GLOBAL gtid_slave_pos`, for a former primary: its own writes are not in it.
    pub fn set_position(&mut self) {
        self.applied_to = self.position();
    }

    /// Where in this server's binary log a replica goes on that has received everything up to there.
    pub fn place_after(&self, replica: &Server) -> Result<usize, Refusal> {
        let purged = "could not find GTID state requested by slave in any binlog files: purged";
        let place = match replica.received_to() {
            Some(last) => self.binlog.iter().rposition(|txn| *txn == last).map(|at| at + 1),
            None => Some(0),
        };
        match place {
            Some(place) if place < self.purged => Err((ReceiverErrorKind::Purged, purged)),
            Some(place) => Ok(place),
            None if self.binlog.is_empty() => Ok(0),
            None => Err((
                ReceiverErrorKind::Diverged,
                "connecting slave requested to start from a GTID which is not in the master's binlog",
            )),
        }
    }

    fn place(&self) -> ServerPlace {
        let hostname = format!("s{}", self.number);
        ServerPlace { hostname, port: 3306, datadir: "/var/lib/mysql/".into() }
    }

    /// What a probe finds, in MariaDB's words.
    pub fn as_mariadb(&self, status: ServerStatus) -> ServerStatus {
        let retrieved = GtidSet::MariaDb(position(self.received_to()).last_ones());
        let state = self.executed.to_binlog_state();
        let executed = MariaDbGtidSet::of_server(&MariaDbServer {
            server_id: Self::id_of(self.number),
            applied: &position(self.applied_to),
            written: &position(self.binlog.last().copied()),
            state: &state,
            logs_what_it_applies: status.log_replica_updates,
        });
        let purged = self.purged.checked_sub(1).and_then(|last| self.binlog.get(last)).copied();
        let channel = |channel| ReplicationStatus { source_uuid: None, retrieved, ..channel };
        ServerStatus {
            flavor: Flavor::MariaDb,
            version: "11.4.4-MariaDB".into(),
            server_uuid: None,
            place: Some(self.place()),
            super_read_only: self.read_only,
            binlog_state: state,
            // It moves before a commit is acknowledged.
            gtid_executed: GtidSet::MariaDb(executed),
            gtid_purged: GtidSet::MariaDb(position(purged)),
            replication: status.replication.map(channel),
            semi_sync: SemiSyncStatus { seen_is_acknowledged: false, ..status.semi_sync },
            ..status
        }
    }
}

impl TxnSet {
    /// The last transaction of each server, as in `gtid_binlog_state`.
    fn to_binlog_state(&self) -> MariaDbBinlogState {
        let last = self.last_of_each().map(written_as);
        last.collect::<Vec<_>>().join(",").parse().unwrap_or_default()
    }
}

fn position(last: Option<Txn>) -> MariaDbGtidSet {
    last.map(written_as).unwrap_or_default().parse().unwrap_or_default()
}

/// As MariaDB writes it: domain, server, number.
fn written_as(txn: Txn) -> String {
    format!("{DOMAIN}-{}-{}", Server::id_of(txn.source), txn.number)
}

#[cfg(test)]
mod tests {
    use vtorc_core::ids::TabletAlias;
    use vtorc_core::tablet::TabletType;

    use super::*;

    fn server(number: u8) -> Server {
        let alias = TabletAlias { cell: "zone1".into(), uid: 100 + u32::from(number) };
        Server { mariadb: true, ..Server::new(number, 0, alias, TabletType::Replica) }
    }

    #[test]
    fn a_replica_goes_on_after_its_last_transaction_or_not_at_all() {
        let (mut source, mut replica) = (server(0), server(1));
        for _ in 0..3 {
            source.commit(source.next_txn(), false);
        }
        assert_eq!(source.place_after(&replica), Ok(0));
        replica.commit(Txn { source: 0, number: 1 }, false);
        replica.applied_to = Some(Txn { source: 0, number: 1 });
        assert_eq!(source.place_after(&replica), Ok(1));
        source.purged = 2;
        assert_eq!(source.place_after(&replica).unwrap_err().0, ReceiverErrorKind::Purged);
        // Its own write has the next number of the domain, which nobody else has.
        let own = replica.next_txn();
        assert_eq!((own.source, own.number), (1, 2));
        replica.commit(own, false);
        source.purged = 0;
        assert_eq!(source.place_after(&replica), Ok(1), "local writes are not in gtid_slave_pos");
        replica.set_position();
        assert_eq!(source.place_after(&replica).unwrap_err().0, ReceiverErrorKind::Diverged);
    }

    #[test]
    fn a_status_has_positions() {
        let mut server = server(4);
        server.commit(Txn { source: 2, number: 7 }, false);
        server.commit(Txn { source: 4, number: 8 }, false);
        server.change_source(2);
        server.relay.push_back(Txn { source: 2, number: 9 });
        let status = server.status(0);
        assert_eq!(status.gtid_executed.to_string(), "0-5-8");
        assert_eq!(status.binlog_state.to_string(), "0-3-7,0-5-8");
        assert_eq!(status.replication.unwrap().retrieved.to_string(), "0-3-9");
    }
}
