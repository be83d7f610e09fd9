//! Shards: seeing them, reparenting them, lifting their block.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;
use vtorc_actors::board::ShardReport;
use vtorc_actors::messages::{
    Acknowledge, CureErrantRequest, ErrantCure, ForgetRequest, ReparentKind, ReparentRequest,
    Request, RequestRecovery,
};
use vtorc_actors::preflight::examine;
use vtorc_core::ids::{KeyspaceShard, TabletAlias};
use vtorc_core::ports::RecoveryFilter;
use vtorc_core::recovery::preview::preview;
use vtorc_core::topology::merge_shard;

use crate::asker::{NamedShard, Operator, Reader};
use crate::context::WebContext;
use crate::error::ApiError;
use crate::snapshot::SnapshotFile;
use crate::views::preview::PreviewView;
use crate::views::{BlockView, ConcernView, ShardView};

pub(crate) async fn list(reader: Reader) -> Result<HttpResponse, ApiError> {
    let shards: Vec<ShardView> =
        reader.services.board.shards().iter().map(|report| ShardView::of(report)).collect();
    Ok(HttpResponse::Ok().json(shards))
}

pub(crate) async fn one(reader: Reader, shard: NamedShard) -> Result<HttpResponse, ApiError> {
    let report = report(&reader, &shard)?;
    Ok(HttpResponse::Ok().json(ShardView::of(&report)))
}

/// The shard's state as a file for `vtorc explain`.
pub(crate) async fn snapshot(reader: Reader, shard: NamedShard) -> Result<HttpResponse, ApiError> {
    let report = report(&reader, &shard)?;
    Ok(HttpResponse::Ok().json(SnapshotFile::of(&report.snapshot)))
}

/// What would go wrong on the bad day: asks the topology and every server of the shard now.
pub(crate) async fn check(reader: Reader, shard: NamedShard) -> Result<HttpResponse, ApiError> {
    let report = report(&reader, &shard)?;
    let name = report.snapshot.shard.clone();
    let services = &reader.services;
    let read = services.topo.read_shard(&name).await;
    let read = read.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let gone = || ApiError::unavailable(format!("there is no record of {name} any more"));
    let topology = merge_shard(report.snapshot.topology(), read).ok_or_else(gone)?;
    let (settings, switches) = (services.recovery_settings(), services.switches());
    let concerns = examine(
        services.mysql.as_ref(),
        &topology,
        &settings,
        switches.get(),
        services.clock.now(),
    )
    .await;
    let views: Vec<ConcernView> = concerns.iter().map(ConcernView::of).collect();
    Ok(HttpResponse::Ok().json(views))
}

/// The shard that is asked for.
fn report(
    context: &WebContext,
    NamedShard(name): &NamedShard,
) -> Result<Arc<ShardReport>, ApiError> {
    let report = context.services.board.shard(name);
    report.ok_or_else(|| ApiError::not_found(format!("no shard {name} is watched here")))
}

/// The body of a reparent request.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReparentBody {
    new_primary: Option<String>,
    avoid_primary: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    ignore_block: bool,
}

/// What else is asked for is refused: nobody who means `dry_run` moves anything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waiting {
    #[serde(default)]
    wait: bool,
}

pub(crate) async fn planned_reparent(
    operator: Operator,
    shard: NamedShard,
    query: web::Query<Waiting>,
    body: web::Json<ReparentBody>,
) -> Result<HttpResponse, ApiError> {
    reparent(ReparentKind::Planned, &operator, shard, query.wait, body.into_inner()).await
}

pub(crate) async fn emergency_reparent(
    operator: Operator,
    shard: NamedShard,
    query: web::Query<Waiting>,
    body: web::Json<ReparentBody>,
) -> Result<HttpResponse, ApiError> {
    reparent(ReparentKind::Emergency, &operator, shard, query.wait, body.into_inner()).await
}

async fn reparent(
    kind: ReparentKind,
    operator: &Operator,
    NamedShard(shard): NamedShard,
    wait: bool,
    body: ReparentBody,
) -> Result<HttpResponse, ApiError> {
    let order = reparent_request(kind, operator, body)?;
    carry_out(shard, Request::Reparent(order), wait, operator).await
}

fn reparent_request(
    kind: ReparentKind,
    operator: &Operator,
    body: ReparentBody,
) -> Result<ReparentRequest, ApiError> {
    Ok(ReparentRequest {
        kind,
        new_primary: body.new_primary.as_deref().map(alias).transpose()?,
        avoid_primary: body.avoid_primary.as_deref().map(alias).transpose()?,
        reason: body.reason.unwrap_or_default(),
        by: operator.name.clone(),
        ignore_block: body.ignore_block,
        seen: vtorc_core::recovery::request::SeenPrimary::NotLooked,
    })
}

/// What a planned reparent would do, by the last probes, and for how long earlier ones stopped writes. It has a path of
/// its own: who does not know it moves nothing.
pub(crate) async fn preview_planned(
    operator: Operator,
    shard: NamedShard,
    body: web::Json<ReparentBody>,
) -> Result<HttpResponse, ApiError> {
    let request = reparent_request(ReparentKind::Planned, &operator, body.into_inner())?;
    let report = report(&operator, &shard)?;
    let services = &operator.services;
    let settings = services.recovery_settings();
    let preview = preview(&request, &report.snapshot, report.block.as_ref(), &settings);
    let KeyspaceShard { keyspace, shard } = report.snapshot.shard.clone();
    let (keyspace, shard) = (Some(keyspace), Some(shard));
    let filter = RecoveryFilter { keyspace, shard, limit: EARLIER_RECOVERIES };
    let recoveries = services.history.recoveries(filter).await?;
    Ok(HttpResponse::Ok().json(PreviewView::of(preview, &recoveries)))
}

/// Among so many of the shard's last recoveries earlier moves are looked for.
const EARLIER_RECOVERIES: u32 = 50;

/// Hands the request on, and answers with the recovery's number, or waits for its outcome.
async fn carry_out(
    shard: KeyspaceShard,
    request: Request,
    wait: bool,
    operator: &Operator,
) -> Result<HttpResponse, ApiError> {
    let (reply, answer) = oneshot::channel();
    operator.registry.do_send(RequestRecovery { shard: shard.clone(), request, reply });
    let busy = |_| ApiError::unavailable(format!("{shard} is too busy to take the request"));
    let accepted = answer.await.map_err(busy)??;
    let location = format!("/api/v1/recoveries/{}", accepted.id);
    if !wait {
        let body = json!({ "id": accepted.id.0, "url": location });
        return Ok(HttpResponse::Accepted().insert_header(("Location", location)).json(body));
    }
    let outcome = accepted.outcome.await.map_err(busy)?;
    let body = json!({
        "id": accepted.id.0,
        "url": location,
        "outcome": outcome.name(),
        "text": outcome.text(),
    });
    match outcome {
        vtorc_core::audit::Outcome::Succeeded(_) => Ok(HttpResponse::Ok().json(body)),
        vtorc_core::audit::Outcome::Refused(why) => Err(ApiError::conflict(why)),
        vtorc_core::audit::Outcome::AlreadyFixed
        | vtorc_core::audit::Outcome::Failed(_)
        | vtorc_core::audit::Outcome::Undone(_)
        | vtorc_core::audit::Outcome::Unclear(_)
        | vtorc_core::audit::Outcome::Preempted
        | vtorc_core::audit::Outcome::Interrupted => Ok(HttpResponse::Conflict().json(body)),
    }
}

fn alias(text: &str) -> Result<TabletAlias, ApiError> {
    text.parse::<TabletAlias>().map_err(|error| ApiError::bad_request(error.to_string()))
}

/// `{"tablet": "zone1-0000000101", "cure": "drain", "reason": "..."}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CureBody {
    tablet: String,
    cure: CureName,
    #[serde(default)]
    reason: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CureName {
    Drain,
    Inject,
}

/// Does something about a tablet's errant GTIDs.
pub(crate) async fn cure_errant(
    operator: Operator,
    shard: NamedShard,
    query: web::Query<Waiting>,
    body: web::Json<CureBody>,
) -> Result<HttpResponse, ApiError> {
    let NamedShard(shard) = shard;
    let CureBody { tablet, cure, reason } = body.into_inner();
    let order = CureErrantRequest {
        tablet: alias(&tablet)?,
        cure: match cure {
            CureName::Drain => ErrantCure::Drain,
            CureName::Inject => ErrantCure::Inject,
        },
        reason,
        by: operator.name.clone(),
    };
    carry_out(shard, Request::CureErrant(order), query.wait, &operator).await
}

/// `{"tablet": "zone1-0000000101", "reason": "..."}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgetBody {
    tablet: String,
    reason: String,
}

/// Removes the record of a tablet that is gone for good.
pub(crate) async fn forget(
    operator: Operator,
    shard: NamedShard,
    query: web::Query<Waiting>,
    body: web::Json<ForgetBody>,
) -> Result<HttpResponse, ApiError> {
    let NamedShard(shard) = shard;
    let ForgetBody { tablet, reason } = body.into_inner();
    let order = ForgetRequest { tablet: alias(&tablet)?, reason, by: operator.name.clone() };
    carry_out(shard, Request::Forget(order), query.wait, &operator).await
}

/// The body of an acknowledgement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcknowledgeBody {
    comment: String,
}

pub(crate) async fn acknowledge(
    operator: Operator,
    shard: NamedShard,
    body: web::Json<AcknowledgeBody>,
) -> Result<HttpResponse, ApiError> {
    let NamedShard(shard) = shard;
    let (reply, answer) = oneshot::channel();
    let comment = body.into_inner().comment;
    let by = operator.name.clone();
    operator.registry.do_send(Acknowledge { shard: shard.clone(), by, comment, reply });
    let busy = |_| ApiError::unavailable(format!("{shard} is too busy to take the request"));
    let lifted = answer.await.map_err(busy)??;
    Ok(HttpResponse::Ok()
        .json(json!({ "lifted": lifted.map(|block| BlockView::of(&block, &shard)) })))
}
