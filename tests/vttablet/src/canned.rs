//! Very many vttablets that only say how they are: always the same, or nothing at all.

use std::net::SocketAddr;

use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};
use vtorc_core::tablet::MysqlAddress;

use crate::interface::replicationdata as data;
use crate::interface::tabletmanagerdata as m;
use crate::interface::tabletmanagerservice::tablet_manager_server::{
    TabletManager, TabletManagerServer,
};

/// What one says.
#[derive(Clone)]
pub struct Canned {
    /// Its number, from which its server's id and uuid are made.
    pub number: u32,
    /// Its source, and that one's number; none for a primary.
    pub source: Option<(MysqlAddress, u32)>,
    /// Takes calls and never answers.
    pub hangs: bool,
}

/// Serves each on its address, until the runtime ends.
pub fn serve(runtime: &Runtime, tablets: Vec<(SocketAddr, Canned)>) {
    for (address, canned) in tablets {
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let mut server = tonic::transport::Server::builder();
        let serving =
            server.add_service(TabletManagerServer::new(canned)).serve_with_incoming(incoming);
        runtime.spawn(async move {
            let _ = serving.await;
        });
    }
}

fn uuid(number: u32) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}

impl Canned {
    async fn may_hang(&self) {
        if self.hangs {
            std::future::pending::<()>().await;
        }
    }

    fn status(&self) -> data::FullStatus {
        let executed = |number| format!("MySQL56/{}:1-100", uuid(number));
        let first = self.source.as_ref().map_or(self.number, |(_, number)| *number);
        data::FullStatus {
            server_id: self.number,
            server_uuid: uuid(self.number),
            version: "8.0.36".into(),
            gtid_mode: "ON".into(),
            gtid_purged: "MySQL56/".into(),
            log_bin_enabled: true,
            log_replica_updates: true,
            read_only: self.source.is_some(),
            super_read_only: self.source.is_some(),
            semi_sync_primary_timeout: 1_000_000_000_000,
            semi_sync_wait_for_replica_count: 1,
            primary_status: Some(data::PrimaryStatus {
                position: executed(first),
                ..Default::default()
            }),
            replication_status: self.source.as_ref().map(|(source, number)| data::Status {
                position: executed(first),
                relay_log_position: executed(first),
                source_host: source.host.clone(),
                source_port: i32::from(source.port),
                source_uuid: uuid(*number),
                io_state: 3,
                sql_state: 3,
                auto_position: true,
                ..Default::default()
            }),
            replication_configuration: self
                .source
                .as_ref()
                .map(|_| data::Configuration { heartbeat_interval: 0.3, replica_net_timeout: 8 }),
            tablet_type: if self.source.is_some() { 2 } else { 1 },
            ..Default::default()
        }
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::failed_precondition("this one only says how it is"))
}

#[tonic::async_trait]
impl TabletManager for Canned {
    async fn ping(&self, _: Request<m::PingRequest>) -> Result<Response<m::PingResponse>, Status> {
        not_here()
    }

    async fn full_status(
        &self,
        _: Request<m::FullStatusRequest>,
    ) -> Result<Response<m::FullStatusResponse>, Status> {
        self.may_hang().await;
        Ok(Response::new(m::FullStatusResponse { status: Some(self.status()) }))
    }

    async fn primary_status(
        &self,
        _: Request<m::PrimaryStatusRequest>,
    ) -> Result<Response<m::PrimaryStatusResponse>, Status> {
        not_here()
    }

    async fn wait_for_position(
        &self,
        _: Request<m::WaitForPositionRequest>,
    ) -> Result<Response<m::WaitForPositionResponse>, Status> {
        not_here()
    }

    async fn start_replication(
        &self,
        _: Request<m::StartReplicationRequest>,
    ) -> Result<Response<m::StartReplicationResponse>, Status> {
        not_here()
    }

    async fn reset_replication_parameters(
        &self,
        _: Request<m::ResetReplicationParametersRequest>,
    ) -> Result<Response<m::ResetReplicationParametersResponse>, Status> {
        not_here()
    }

    async fn populate_reparent_journal(
        &self,
        _: Request<m::PopulateReparentJournalRequest>,
    ) -> Result<Response<m::PopulateReparentJournalResponse>, Status> {
        not_here()
    }

    async fn read_reparent_journal_info(
        &self,
        _: Request<m::ReadReparentJournalInfoRequest>,
    ) -> Result<Response<m::ReadReparentJournalInfoResponse>, Status> {
        not_here()
    }

    async fn demote_primary(
        &self,
        _: Request<m::DemotePrimaryRequest>,
    ) -> Result<Response<m::DemotePrimaryResponse>, Status> {
        not_here()
    }

    async fn undo_demote_primary(
        &self,
        _: Request<m::UndoDemotePrimaryRequest>,
    ) -> Result<Response<m::UndoDemotePrimaryResponse>, Status> {
        not_here()
    }

    async fn set_replication_source(
        &self,
        _: Request<m::SetReplicationSourceRequest>,
    ) -> Result<Response<m::SetReplicationSourceResponse>, Status> {
        not_here()
    }

    async fn stop_replication_and_get_status(
        &self,
        _: Request<m::StopReplicationAndGetStatusRequest>,
    ) -> Result<Response<m::StopReplicationAndGetStatusResponse>, Status> {
        not_here()
    }

    async fn promote_replica(
        &self,
        _: Request<m::PromoteReplicaRequest>,
    ) -> Result<Response<m::PromoteReplicaResponse>, Status> {
        not_here()
    }

    async fn change_type(
        &self,
        _: Request<m::ChangeTypeRequest>,
    ) -> Result<Response<m::ChangeTypeResponse>, Status> {
        not_here()
    }

    async fn execute_fetch_as_dba(
        &self,
        request: Request<m::ExecuteFetchAsDbaRequest>,
    ) -> Result<Response<m::ExecuteFetchAsDbaResponse>, Status> {
        self.may_hang().await;
        let query = String::from_utf8_lossy(&request.into_inner().query).into_owned();
        let pause = query.strip_prefix("DO SLEEP(").and_then(|rest| rest.strip_suffix(')'));
        if let Some(pause) = pause.and_then(|seconds| seconds.parse().ok()) {
            tokio::time::sleep(std::time::Duration::from_secs_f64(pause)).await;
        }
        Ok(Response::new(m::ExecuteFetchAsDbaResponse { result: None }))
    }

    async fn execute_multi_fetch_as_dba(
        &self,
        _: Request<m::ExecuteMultiFetchAsDbaRequest>,
    ) -> Result<Response<m::ExecuteMultiFetchAsDbaResponse>, Status> {
        not_here()
    }
}
