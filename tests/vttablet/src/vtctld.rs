//! What a vtctld does to tablets: a planned reparent, under the shard's lock, by the calls that Vitess makes.

use std::time::Duration;

use tonic::Request;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::TopoPort;

use crate::Vttablet;
use crate::interface::tabletmanagerdata as m;
use crate::interface::tabletmanagerservice::tablet_manager_client::TabletManagerClient;
use crate::interface::topodata;

/// How long it waits for the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(45);

/// Moves the primary from one tablet to another; `others` follow it.
pub async fn planned_reparent(
    topo: &dyn TopoPort,
    shard: &KeyspaceShard,
    from: &Vttablet,
    to: &Vttablet,
    others: &[&Vttablet],
) {
    let action = format!("PlannedReparentShard({}, AvoidPrimary = <nil>)", to.tablet.options.alias);
    let lock = topo.lock_shard(shard, &action, LOCK_TIMEOUT).await.unwrap();
    let mut reigning = connect(from).await;
    let demoted = reigning.demote_primary(Request::new(m::DemotePrimaryRequest { force: false }));
    let position = demoted.await.unwrap().into_inner().primary_status.unwrap().position;
    let mut winner = connect(to).await;
    winner.wait_for_position(Request::new(m::WaitForPositionRequest { position })).await.unwrap();
    let promoted =
        winner.promote_replica(Request::new(m::PromoteReplicaRequest { semi_sync: true }));
    promoted.await.unwrap();
    let alias = &to.tablet.options.alias;
    let parent = topodata::TabletAlias { cell: alias.cell.clone(), uid: alias.uid };
    for other in others.iter().copied().chain([from]) {
        let message = m::SetReplicationSourceRequest {
            parent: Some(parent.clone()),
            force_start_replication: true,
            semi_sync: true,
            ..Default::default()
        };
        connect(other).await.set_replication_source(Request::new(message)).await.unwrap();
    }
    lock.release().await;
}

async fn connect(tablet: &Vttablet) -> TabletManagerClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", tablet.address()));
    TabletManagerClient::new(endpoint.unwrap().connect().await.unwrap())
}
