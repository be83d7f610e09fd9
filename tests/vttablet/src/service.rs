//! The calls, as they come in over gRPC.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::{Code, Request, Response, Status};
use vtorc_core::ids::TabletAlias;
use vtorc_core::tablet::TabletType;

use crate::Options;
use crate::interface::replicationdata::{
    PrimaryStatus, StopReplicationMode, StopReplicationStatus,
};
use crate::interface::tabletmanagerdata as m;
use crate::interface::tabletmanagerservice::tablet_manager_client::TabletManagerClient;
use crate::interface::tabletmanagerservice::tablet_manager_server::TabletManager;
use crate::mysqld::Fault;
use crate::tablet::Tablet;

/// The tablet as a service.
pub(crate) struct Service(pub(crate) Arc<Tablet>);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// Counts the call and checks who calls.
    async fn enter<T>(&self, call: &str, request: &Request<T>) -> Result<(), Status> {
        self.0.called(call).await;
        if let Some((user, password)) = &self.0.options.credentials {
            let sent = |key| request.metadata().get(key).and_then(|value| value.to_str().ok());
            match (sent("username"), sent("password")) {
                (Some(name), Some(word)) if name == user && word == password => {}
                (Some(name), Some(_)) => {
                    let text = format!("auth failure: caller {name} provided invalid credentials");
                    return Err(Status::permission_denied(text));
                }
                (_, _) => {
                    return Err(Status::unauthenticated("username and password must be provided"));
                }
            }
        }
        Ok(())
    }

    fn leave<T>(&self, call: &str, outcome: Result<T, Fault>) -> Answer<T> {
        let alias = self.0.options.alias.to_string();
        outcome.map(Response::new).map_err(|fault| fault.status(call, &alias))
    }
}

/// Makes its server the primary.
async fn promote(tablet: &Tablet, semi_sync: bool) -> Result<m::PromoteReplicaResponse, Fault> {
    let _action = tablet.action.lock().await;
    let refuses = tablet.refuses_promotion.load(Ordering::Acquire);
    let position = tablet.on_server(move |mysqld| {
        mysqld.run(&["STOP REPLICA", "RESET REPLICA ALL", "FLUSH BINARY LOGS"])?;
        if refuses {
            mysqld.run(&["SET GLOBAL a_variable_that_no_server_has = 1"])?;
        }
        let position = mysqld.position()?;
        mysqld.fix_semi_sync(true, semi_sync)?;
        Ok(position)
    });
    let position = position.await?;
    tablet.set_type(TabletType::Primary, true).await?;
    Ok(m::PromoteReplicaResponse { position })
}

/// Asks another tablet for its position.
pub(crate) async fn primary_status(
    address: &str,
    options: &Options,
) -> Result<PrimaryStatus, Fault> {
    let unavailable = |text: String| Fault(Code::Unavailable, text);
    let channel = async {
        tonic::transport::Endpoint::from_shared(format!("http://{address}"))?.connect().await
    };
    let channel = channel.await.map_err(|error| unavailable(error.to_string()))?;
    let mut client = TabletManagerClient::new(channel);
    let mut request = Request::new(m::PrimaryStatusRequest {});
    if let Some((user, password)) = &options.credentials {
        request.metadata_mut().insert("username", user.parse().unwrap());
        request.metadata_mut().insert("password", password.parse().unwrap());
    }
    let answer = client.primary_status(request).await;
    let answer = answer.map_err(|status| unavailable(status.message().to_owned()))?;
    answer.into_inner().status.ok_or_else(|| unavailable("no status".into()))
}

fn alias_of(alias: Option<crate::interface::topodata::TabletAlias>) -> Result<TabletAlias, Fault> {
    let alias = alias.ok_or_else(|| Fault::precondition("no parent"))?;
    Ok(TabletAlias { cell: alias.cell, uid: alias.uid })
}

/// What MySQL's client says of a server that replicates nothing.
const NOT_A_REPLICA: &str =
    "before status failed: no replication status (errno 100) (sqlstate HY000)";

const TYPES: [TabletType; 9] = [
    TabletType::Unknown,
    TabletType::Primary,
    TabletType::Replica,
    TabletType::Rdonly,
    TabletType::Spare,
    TabletType::Experimental,
    TabletType::Backup,
    TabletType::Restore,
    TabletType::Drained,
];

fn number(tablet_type: TabletType) -> i32 {
    let at = TYPES.iter().position(|known| *known == tablet_type).unwrap();
    i32::try_from(at).unwrap()
}

fn type_of(number: i32) -> Result<TabletType, Fault> {
    let known = usize::try_from(number).ok().and_then(|at| TYPES.get(at));
    known.copied().ok_or_else(|| Fault(Code::InvalidArgument, format!("no type {number}")))
}

#[tonic::async_trait]
impl TabletManager for Service {
    async fn ping(&self, request: Request<m::PingRequest>) -> Answer<m::PingResponse> {
        self.enter("Ping", &request).await?;
        let outcome = async {
            let message = request.into_inner();
            Ok(m::PingResponse { payload: message.payload })
        };
        let outcome = outcome.await;
        self.leave("Ping", outcome)
    }

    async fn full_status(
        &self,
        request: Request<m::FullStatusRequest>,
    ) -> Answer<m::FullStatusResponse> {
        self.enter("FullStatus", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            if tablet.options.old {
                return Err(Fault(Code::Unimplemented, "unknown method FullStatus".into()));
            }
            if tablet.disk_stalled.load(Ordering::Acquire) {
                let status = crate::interface::replicationdata::FullStatus {
                    disk_stalled: true,
                    ..Default::default()
                };
                return Ok(m::FullStatusResponse { status: Some(status) });
            }
            let mut status = tablet.on_server(|mysqld| mysqld.full_status()).await?;
            status.tablet_type = number(tablet.tablet_type());
            Ok(m::FullStatusResponse { status: Some(status) })
        };
        let outcome = outcome.await;
        self.leave("FullStatus", outcome)
    }

    async fn primary_status(
        &self,
        request: Request<m::PrimaryStatusRequest>,
    ) -> Answer<m::PrimaryStatusResponse> {
        self.enter("PrimaryStatus", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let status = tablet.on_server(|mysqld| mysqld.primary_status()).await?;
            Ok(m::PrimaryStatusResponse { status: Some(status) })
        };
        let outcome = outcome.await;
        self.leave("PrimaryStatus", outcome)
    }

    async fn wait_for_position(
        &self,
        request: Request<m::WaitForPositionRequest>,
    ) -> Answer<m::WaitForPositionResponse> {
        self.enter("WaitForPosition", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let position = request.into_inner().position;
            let set = position.split_once('/').unwrap_or(("", &position)).1.to_owned();
            // Whole seconds, and at least one; the caller's deadline ends it earlier.
            let statement = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', 30)");
            let rows = tablet.on_server(move |mysqld| mysqld.fetch(&statement, false)).await?;
            let reached = rows.iter().flat_map(|one| &one.rows).any(|row| row.values == b"0");
            match reached {
                true => Ok(m::WaitForPositionResponse {}),
                false => Err(Fault(Code::DeadlineExceeded, "timed out".into())),
            }
        };
        let outcome = outcome.await;
        self.leave("WaitForPosition", outcome)
    }

    async fn start_replication(
        &self,
        request: Request<m::StartReplicationRequest>,
    ) -> Answer<m::StartReplicationResponse> {
        self.enter("StartReplication", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let _action = tablet.action.lock().await;
            let semi_sync = request.into_inner().semi_sync;
            let primary = tablet.tablet_type() == TabletType::Primary;
            tablet
                .on_server(move |mysqld| {
                    mysqld.fix_semi_sync(primary, semi_sync)?;
                    mysqld.run(&["START REPLICA"])
                })
                .await?;
            Ok(m::StartReplicationResponse {})
        };
        let outcome = outcome.await;
        self.leave("StartReplication", outcome)
    }

    async fn reset_replication_parameters(
        &self,
        request: Request<m::ResetReplicationParametersRequest>,
    ) -> Answer<m::ResetReplicationParametersResponse> {
        self.enter("ResetReplicationParameters", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let _action = tablet.action.lock().await;
            tablet.on_server(|mysqld| mysqld.run(&["STOP REPLICA", "RESET REPLICA ALL"])).await?;
            Ok(m::ResetReplicationParametersResponse {})
        };
        let outcome = outcome.await;
        self.leave("ResetReplicationParameters", outcome)
    }

    async fn populate_reparent_journal(
        &self,
        request: Request<m::PopulateReparentJournalRequest>,
    ) -> Answer<m::PopulateReparentJournalResponse> {
        self.enter("PopulateReparentJournal", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let row = request.into_inner();
            let primary = alias_of(row.primary_alias)?;
            let statement = format!(
                "INSERT INTO _vt.reparent_journal (time_created_ns, action_name, primary_alias, \
                 replication_position) VALUES ({}, '{}', '{primary}', '{}')",
                row.time_created_ns, row.action_name, row.replication_position
            );
            tablet.on_server(move |mysqld| mysqld.run(&[&statement])).await?;
            Ok(m::PopulateReparentJournalResponse {})
        };
        let outcome = outcome.await;
        self.leave("PopulateReparentJournal", outcome)
    }

    async fn read_reparent_journal_info(
        &self,
        request: Request<m::ReadReparentJournalInfoRequest>,
    ) -> Answer<m::ReadReparentJournalInfoResponse> {
        self.enter("ReadReparentJournalInfo", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let count = "SELECT COUNT(*) FROM _vt.reparent_journal";
            let rows = tablet.on_server(move |mysqld| mysqld.fetch(count, false)).await?;
            let value = rows.iter().flat_map(|one| &one.rows).next();
            let value = value.map(|row| String::from_utf8_lossy(&row.values).into_owned());
            let length = value.and_then(|text| text.parse().ok()).unwrap_or(0);
            Ok(m::ReadReparentJournalInfoResponse { length })
        };
        let outcome = outcome.await;
        self.leave("ReadReparentJournalInfo", outcome)
    }

    async fn demote_primary(
        &self,
        request: Request<m::DemotePrimaryRequest>,
    ) -> Answer<m::DemotePrimaryResponse> {
        self.enter("DemotePrimary", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let _action = tablet.action.lock().await;
            tablet.demote(request.into_inner().force).await?;
            let status = tablet.on_server(|mysqld| mysqld.primary_status()).await?;
            Ok(m::DemotePrimaryResponse { primary_status: Some(status) })
        };
        let outcome = outcome.await;
        self.leave("DemotePrimary", outcome)
    }

    async fn undo_demote_primary(
        &self,
        request: Request<m::UndoDemotePrimaryRequest>,
    ) -> Answer<m::UndoDemotePrimaryResponse> {
        self.enter("UndoDemotePrimary", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let _action = tablet.action.lock().await;
            let semi_sync = request.into_inner().semi_sync;
            tablet
                .on_server(move |mysqld| {
                    mysqld.fix_semi_sync(true, semi_sync)?;
                    mysqld.run(&["SET GLOBAL read_only = OFF"])
                })
                .await?;
            Ok(m::UndoDemotePrimaryResponse {})
        };
        let outcome = outcome.await;
        self.leave("UndoDemotePrimary", outcome)
    }

    async fn set_replication_source(
        &self,
        request: Request<m::SetReplicationSourceRequest>,
    ) -> Answer<m::SetReplicationSourceResponse> {
        self.enter("SetReplicationSource", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let _action = tablet.action.lock().await;
            let m = request.into_inner();
            let parent = alias_of(m.parent)?;
            let (force, heartbeat) = (m.force_start_replication, m.heartbeat_interval);
            tablet.set_source(&parent, force, m.semi_sync, heartbeat).await?;
            Ok(m::SetReplicationSourceResponse {})
        };
        let outcome = outcome.await;
        self.leave("SetReplicationSource", outcome)
    }

    async fn stop_replication_and_get_status(
        &self,
        request: Request<m::StopReplicationAndGetStatusRequest>,
    ) -> Answer<m::StopReplicationAndGetStatusResponse> {
        self.enter("StopReplicationAndGetStatus", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let _action = tablet.action.lock().await;
            let mode = request.into_inner().stop_replication_mode;
            let receiver_only = mode == i32::from(StopReplicationMode::Iothreadonly);
            let status = tablet.on_server(move |mysqld| {
                let none = || Fault(Code::Unknown, NOT_A_REPLICA.into());
                let before = mysqld.replication()?.ok_or_else(none)?;
                let receives = match before.io_state {
                    3 => true,
                    2 => before.last_io_error.is_empty(),
                    _ => false,
                };
                let healthy = receives && (receiver_only || before.sql_state == 3);
                if healthy {
                    let stop =
                        if receiver_only { "STOP REPLICA IO_THREAD" } else { "STOP REPLICA" };
                    mysqld.run(&[stop])?;
                }
                let after = mysqld.replication()?;
                Ok(StopReplicationStatus { before: Some(before), after })
            });
            Ok(m::StopReplicationAndGetStatusResponse { status: Some(status.await?) })
        };
        let outcome = outcome.await;
        self.leave("StopReplicationAndGetStatus", outcome)
    }

    async fn promote_replica(
        &self,
        request: Request<m::PromoteReplicaRequest>,
    ) -> Answer<m::PromoteReplicaResponse> {
        self.enter("PromoteReplica", &request).await?;
        let tablet = self.0.clone();
        let semi_sync = request.into_inner().semi_sync;
        let unheard = tablet.promotes_unheard_after_ms.load(Ordering::Acquire);
        if unheard > 0 {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(unheard)).await;
                drop(promote(&tablet, semi_sync).await);
            });
            return Err(Status::unavailable("upstream connection was reset"));
        }
        let outcome = promote(&tablet, semi_sync).await;
        self.leave("PromoteReplica", outcome)
    }

    async fn change_type(
        &self,
        request: Request<m::ChangeTypeRequest>,
    ) -> Answer<m::ChangeTypeResponse> {
        self.enter("ChangeType", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let _action = tablet.action.lock().await;
            let m = request.into_inner();
            let wanted = type_of(m.tablet_type)?;
            if wanted == TabletType::Drained && tablet.tablet_type() == wanted {
                return Err(Fault::precondition("it is DRAINED already"));
            }
            tablet.set_type(wanted, false).await?;
            if wanted != TabletType::Primary {
                tablet.on_server(move |mysqld| mysqld.fix_semi_sync(false, m.semi_sync)).await?;
            }
            Ok(m::ChangeTypeResponse {})
        };
        let outcome = outcome.await;
        self.leave("ChangeType", outcome)
    }

    async fn execute_fetch_as_dba(
        &self,
        request: Request<m::ExecuteFetchAsDbaRequest>,
    ) -> Answer<m::ExecuteFetchAsDbaResponse> {
        self.enter("ExecuteFetchAsDba", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let statement = String::from_utf8_lossy(&request.into_inner().query).into_owned();
            let mut results =
                tablet.on_server(move |mysqld| mysqld.fetch(&statement, false)).await?;
            Ok(m::ExecuteFetchAsDbaResponse { result: results.pop() })
        };
        let outcome = outcome.await;
        self.leave("ExecuteFetchAsDba", outcome)
    }

    async fn execute_multi_fetch_as_dba(
        &self,
        request: Request<m::ExecuteMultiFetchAsDbaRequest>,
    ) -> Answer<m::ExecuteMultiFetchAsDbaResponse> {
        self.enter("ExecuteMultiFetchAsDba", &request).await?;
        let tablet = &self.0;
        let outcome = async {
            let statements = String::from_utf8_lossy(&request.into_inner().sql).into_owned();
            let results = tablet.on_server(move |mysqld| mysqld.fetch(&statements, true)).await?;
            Ok(m::ExecuteMultiFetchAsDbaResponse { results })
        };
        let outcome = outcome.await;
        self.leave("ExecuteMultiFetchAsDba", outcome)
    }
}
