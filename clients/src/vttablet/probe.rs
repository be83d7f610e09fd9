//! Probing a tablet that has a vttablet: through it alone, or the server directly with the vttablet asked beside.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::ProbeConnection;
use vtorc_core::status::{ServerStatus, VttabletState};
use vtorc_core::tablet::VttabletAddress;

use super::access::Connections;
use super::calls::{CallError, Caller};
use super::status;
use crate::interface::tabletmanagerdata::PingRequest;

/// Where the server is probed directly, its vttablet is asked so often.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A vttablet that does not answer within this is silent.
const ASK_PATIENCE: Duration = Duration::from_secs(2);
/// One that fails so often in a row is silent; a call may be lost.
const FAILURES_UNTIL_SILENT: u32 = 2;
/// A vttablet is asked so long whether it lives when its server's connection broke.
const PING_PATIENCE: Duration = Duration::from_millis(100);
/// ... and when its server does not answer.
const SILENCE_PATIENCE: Duration = Duration::from_millis(200);

/// Probes through the vttablet alone.
pub(crate) struct ByVttablet {
    connections: Arc<Connections>,
    address: VttabletAddress,
}

impl ByVttablet {
    pub(crate) fn new(connections: Arc<Connections>, address: VttabletAddress) -> Self {
        Self { connections, address }
    }
}

impl Drop for ByVttablet {
    /// A connection that failed, or whose tablet is watched no longer, is not used again.
    fn drop(&mut self) {
        self.connections.drop_connection(&self.address);
    }
}

#[async_trait]
impl ProbeConnection for ByVttablet {
    async fn probe(&mut self, deadline: Duration) -> Result<ServerStatus, ProbeFailure> {
        let caller = Caller::new(&self.connections, &self.address, deadline);
        let caller = caller.map_err(CallError::into_probe_failure)?;
        let (full, besides) = match caller.full_status_and_besides().await {
            Ok(answer) => answer,
            Err(error) => {
                let failure = error.into_probe_failure();
                return Err(pinged(&self.connections, &self.address, failure).await);
            }
        };
        if full.disk_stalled {
            return Err(ProbeFailure::DiskStalled);
        }
        status::server(&full, besides.as_deref()).map_err(ProbeFailure::Garbled)
    }

    /// A statement that the vttablet holds open on its server: when either dies, it ends at once.
    async fn listen(&mut self, pause: Duration, grace: Duration) -> Result<(), ProbeFailure> {
        let caller = Caller::new(&self.connections, &self.address, pause + grace);
        let caller = caller.map_err(CallError::into_probe_failure)?;
        let question = format!("DO SLEEP({:.3})", pause.as_secs_f64());
        caller.rows(&question).await.map(|_| ()).map_err(CallError::into_probe_failure)
    }
}

/// Tells of a server that is down whether its vttablet lives, and of one that is silent whether it is too busy: where
/// its vttablet still gets answers from it, it is not.
pub(crate) async fn with_vttablets_word(
    connections: &Connections,
    address: &VttabletAddress,
    failure: ProbeFailure,
) -> ProbeFailure {
    match failure {
        ProbeFailure::Refused(why) => {
            ProbeFailure::Refused(match answers_ping(connections, address, PING_PATIENCE).await {
                true => format!("mysqld is down, its vttablet answers: {why}"),
                false => format!("neither mysqld nor its vttablet answers: {why}"),
            })
        }
        silent @ (ProbeFailure::TimedOut | ProbeFailure::Overloaded) => {
            let asked =
                async { Caller::new(connections, address, SILENCE_PATIENCE)?.full_status().await };
            if asked.await.is_ok() {
                return ProbeFailure::TimedOut;
            }
            pinged(connections, address, silent).await
        }
        other @ (ProbeFailure::TurnedAway(_)
        | ProbeFailure::Full(_)
        | ProbeFailure::Blocked(_)
        | ProbeFailure::Garbled(_)
        | ProbeFailure::DiskStalled
        | ProbeFailure::TooOld(_)
        | ProbeFailure::Stranger(_)) => other,
    }
}

/// Whether a server whose vttablet got no answer from it is too busy, or its vttablet is gone as well.
async fn pinged(
    connections: &Connections,
    address: &VttabletAddress,
    failure: ProbeFailure,
) -> ProbeFailure {
    let silent = matches!(failure, ProbeFailure::TimedOut | ProbeFailure::Overloaded);
    if !silent {
        return failure;
    }
    match answers_ping(connections, address, SILENCE_PATIENCE).await {
        true => ProbeFailure::Overloaded,
        false => ProbeFailure::TimedOut,
    }
}

async fn answers_ping(
    connections: &Connections,
    address: &VttabletAddress,
    patience: Duration,
) -> bool {
    let ping = async {
        let caller = Caller::new(connections, address, patience)?;
        let mut client = caller.client.clone();
        let message = PingRequest { payload: "vtorc".into() };
        caller.answer("Ping", client.ping(caller.request(message))).await
    };
    ping.await.is_ok()
}

/// Probes the server directly; a task asks the vttablet meanwhile.
pub(crate) struct Both {
    server: Box<dyn ProbeConnection>,
    known: Arc<Mutex<Option<VttabletState>>>,
    asking: JoinHandle<()>,
    connections: Arc<Connections>,
    address: VttabletAddress,
}

impl Both {
    pub(crate) fn new(
        server: Box<dyn ProbeConnection>,
        connections: Arc<Connections>,
        address: VttabletAddress,
    ) -> Self {
        let known = Arc::default();
        let asking =
            tokio::spawn(keep_asking(connections.clone(), address.clone(), Arc::clone(&known)));
        Self { server, known, asking, connections, address }
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        self.asking.abort();
        self.connections.drop_connection(&self.address);
    }
}

#[async_trait]
impl ProbeConnection for Both {
    async fn probe(&mut self, deadline: Duration) -> Result<ServerStatus, ProbeFailure> {
        match self.server.probe(deadline).await {
            Ok(mut status) => {
                let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                status.vttablet.clone_from(&known);
                Ok(status)
            }
            Err(failure) => {
                Err(with_vttablets_word(&self.connections, &self.address, failure).await)
            }
        }
    }

    async fn listen(&mut self, pause: Duration, grace: Duration) -> Result<(), ProbeFailure> {
        self.server.listen(pause, grace).await
    }
}

async fn keep_asking(
    connections: Arc<Connections>,
    address: VttabletAddress,
    known: Arc<Mutex<Option<VttabletState>>>,
) {
    let mut failures = 0;
    loop {
        let asked =
            async { Caller::new(&connections, &address, ASK_PATIENCE)?.full_status().await };
        let found = match asked.await {
            Ok(full) => Some(status::vttablet(&full)),
            Err(error) => error.into_vttablet_state(),
        };
        let silent = matches!(found, Some(VttabletState::Silent(_)));
        failures = if silent { failures + 1 } else { 0 };
        if silent {
            connections.drop_connection(&address);
        }
        if found.is_some() && (!silent || failures >= FAILURES_UNTIL_SILENT) {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
