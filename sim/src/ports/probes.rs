//! Probes over the simulated network.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use vtorc_core::gtid::GtidSet;
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::{ProbeConnection, ProbePort};
use vtorc_core::status::{Flavor, ServerStatus};
use vtorc_core::tablet::TabletAddress;

use super::{Line, Lost, Outside};
use crate::network::Party;
use crate::statements::{Reply, Statement};

/// A broken connection shows within this.
const NOTICE: Duration = Duration::from_millis(40);

#[async_trait]
impl ProbePort for Outside {
    async fn connect(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Box<dyn ProbeConnection>, ProbeFailure> {
        let line = Outside::connect(self, &address.mysql, Instant::now() + deadline).await?;
        Ok(Box::new(line))
    }
}

impl From<Lost> for ProbeFailure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unsent(failure) | Lost::Unanswered(failure) => failure,
            Lost::TurnedAway(why) => Self::TurnedAway(why),
        }
    }
}

impl Line {
    fn answers_a_ping(&self) -> bool {
        let universe = self.outside.universe.lock();
        let (me, them) = (self.outside.me(), Party::Server(self.server));
        universe.server(self.server).is_awake() && universe.network.is_open_both_ways(me, them)
    }
}

#[async_trait]
impl ProbeConnection for Line {
    async fn probe(&mut self, deadline: Duration) -> Result<ServerStatus, ProbeFailure> {
        self.deadline = Instant::now() + deadline;
        match self.ask(Statement::Status).await.map_err(ProbeFailure::from) {
            Ok(Reply::Status(status)) => Ok(without_what_no_probe_asks(*status)),
            Ok(Reply::Done | Reply::Pending | Reply::Begun(_) | Reply::Refused(_)) => {
                Err(ProbeFailure::Garbled("no status".into()))
            }
            Err(ProbeFailure::TimedOut) if self.answers_a_ping() => Err(ProbeFailure::Overloaded),
            Err(failure) => Err(failure),
        }
    }

    /// A connection that breaks shows at once, one that falls silent when the answer is due.
    async fn listen(&mut self, pause: Duration, grace: Duration) -> Result<(), ProbeFailure> {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            sleep(NOTICE.min(pause)).await;
            let universe = self.outside.universe.lock();
            let (me, them) = (self.outside.me(), Party::Server(self.server));
            if !self.is_open(&universe) && universe.network.is_open(them, me) {
                return Err(ProbeFailure::Refused("connection lost".into()));
            }
        }
        let given_up = Instant::now() + grace;
        while !self.answers_a_ping() {
            if Instant::now() >= given_up {
                return Err(ProbeFailure::TimedOut);
            }
            sleep(NOTICE).await;
        }
        Ok(())
    }
}

/// Only recoveries ask for the journal, the uptime, and what a MariaDB purged.
fn without_what_no_probe_asks(status: ServerStatus) -> ServerStatus {
    let gtid_purged = match status.flavor {
        Flavor::MySql => status.gtid_purged,
        Flavor::MariaDb => GtidSet::empty_mariadb(),
    };
    ServerStatus { journal_length: None, uptime: None, gtid_purged, ..status }
}
