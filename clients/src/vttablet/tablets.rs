//! Tablets of both kinds behind core's ports: with a vttablet, and plain servers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::{CommandError, MysqlPort, ProbeConnection, ProbePort, ServerCommand};
use vtorc_core::preflight::Inspection;
use vtorc_core::source_access::{Login, LoginTrial};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::TabletAddress;

use super::access::{Connections, VttabletAccess};
use super::calls::{CallError, Caller};
use super::commands;
use super::probe::{Both, ByVttablet, with_vttablets_word};
use super::tablet_command::TabletCommand;
use crate::mysql::{AsyncProber, MysqlAccess, WorkerPool};

/// Reaches every tablet by the way that its record tells.
pub struct Tablets {
    probes: AsyncProber,
    workers: WorkerPool,
    vttablets: Arc<Connections>,
}

impl Tablets {
    /// Reads the certificates for vttablets; the error says which file is wrong.
    pub fn new(mysql: Arc<MysqlAccess>, vttablets: VttabletAccess) -> Result<Self, String> {
        Ok(Self {
            probes: AsyncProber::new(mysql.clone()),
            workers: WorkerPool::new(mysql),
            vttablets: Arc::new(Connections::new(vttablets)?),
        })
    }

    fn direct(&self) -> Option<&WorkerPool> {
        self.vttablets.access().direct.then_some(&self.workers)
    }

    /// Its server may be reached through its vttablet alone.
    fn is_out_of_reach(&self, address: &TabletAddress) -> bool {
        address.vttablet.is_some() && self.direct().is_none()
    }
}

#[async_trait]
impl ProbePort for Tablets {
    async fn connect(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Box<dyn ProbeConnection>, ProbeFailure> {
        let Some(vttablet) = &address.vttablet else {
            return self.probes.connect(address, deadline).await;
        };
        let connections = self.vttablets.clone();
        if self.direct().is_none() {
            return Ok(Box::new(ByVttablet::new(connections, vttablet.clone())));
        }
        match self.probes.connect(address, deadline).await {
            Ok(server) => Ok(Box::new(Both::new(server, connections, vttablet.clone()))),
            Err(failure) => Err(with_vttablets_word(&connections, vttablet, failure).await),
        }
    }
}

#[async_trait]
impl MysqlPort for Tablets {
    async fn run(
        &self,
        address: &TabletAddress,
        command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError> {
        let Some(vttablet) = &address.vttablet else {
            return self.workers.run(address, command, deadline).await;
        };
        let caller = Caller::new(&self.vttablets, vttablet, deadline);
        let caller = caller.map_err(CallError::into_command_error)?;
        let heartbeat_period = self.vttablets.access().heartbeat_period;
        let job = TabletCommand { caller, address, direct: self.direct(), heartbeat_period };
        commands::run(&job, command).await
    }

    async fn login(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Option<Login>, CommandError> {
        if self.is_out_of_reach(address) {
            return Ok(None);
        }
        self.workers.login(address, deadline).await
    }

    async fn try_login(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Option<LoginTrial>, CommandError> {
        if self.is_out_of_reach(address) {
            return Ok(None);
        }
        self.workers.try_login(address, deadline).await
    }

    async fn inspect(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Inspection, CommandError> {
        if self.is_out_of_reach(address) {
            return Err(CommandError::NotDone(
                "what its vttablet does not tell can be looked at with MySQLTopologyUser only"
                    .into(),
            ));
        }
        self.workers.inspect(address, deadline).await
    }
}
