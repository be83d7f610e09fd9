//! Shards: seeing them, reparenting them, lifting their block.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
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
use vtorc_core::topology::merge_shard;

use crate::context::WebContext;
use crate::error::ApiError;
use crate::snapshot::SnapshotFile;
use crate::views::{BlockView, ConcernView, ShardView};

pub(crate) async fn list(
    request: HttpRequest,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    context.access.may_read(&request)?;
    let shards: Vec<ShardView> =
        context.services.board.shards().iter().map(|report| ShardView::of(report)).collect();
    Ok(HttpResponse::Ok().json(shards))
}

pub(crate) async fn one(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    let report = report(&request, &path, &context)?;
    Ok(HttpResponse::Ok().json(ShardView::of(&report)))
}

/// The shard's state as a file for `vtorc explain`.
pub(crate) async fn snapshot(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    let report = report(&request, &path, &context)?;
    Ok(HttpResponse::Ok().json(SnapshotFile::of(&report.snapshot)))
}

/// What would go wrong on the bad day: asks the topology and every server of the shard now.
pub(crate) async fn check(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    let report = report(&request, &path, &context)?;
    let name = report.snapshot.shard.clone();
    let services = &context.services;
    let read = services.topo.read_shard(&name).await;
    let read = read.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let gone = || ApiError::unavailable(format!("there is no record of {name} any more"));
    let topology = merge_shard(report.snapshot.topology(), read).ok_or_else(gone)?;
    let settings = services.recovery_settings();
    let concerns =
        examine(services.mysql.as_ref(), &topology, &settings, services.clock.now()).await;
    let views: Vec<ConcernView> = concerns.iter().map(ConcernView::of).collect();
    Ok(HttpResponse::Ok().json(views))
}

/// The shard that is asked for, if the caller may read.
fn report(
    request: &HttpRequest,
    path: &(String, String),
    context: &WebContext,
) -> Result<Arc<ShardReport>, ApiError> {
    context.access.may_read(request)?;
    let name = shard_name(path)?;
    let report = context.services.board.shard(&name);
    report.ok_or_else(|| ApiError::not_found(format!("no shard {name} is watched here")))
}

fn shard_name(path: &(String, String)) -> Result<KeyspaceShard, ApiError> {
    KeyspaceShard::new(&path.0, &path.1).map_err(|error| ApiError::bad_request(error.to_string()))
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

#[derive(Deserialize)]
pub(crate) struct Waiting {
    #[serde(default)]
    wait: bool,
}

pub(crate) async fn planned_reparent(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    query: web::Query<Waiting>,
    body: web::Json<ReparentBody>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    reparent(ReparentKind::Planned, &request, &path, query.wait, body.into_inner(), &context).await
}

pub(crate) async fn emergency_reparent(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    query: web::Query<Waiting>,
    body: web::Json<ReparentBody>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    reparent(ReparentKind::Emergency, &request, &path, query.wait, body.into_inner(), &context)
        .await
}

async fn reparent(
    kind: ReparentKind,
    request: &HttpRequest,
    path: &(String, String),
    wait: bool,
    body: ReparentBody,
    context: &WebContext,
) -> Result<HttpResponse, ApiError> {
    let caller = context.access.may_change(request)?;
    let shard = shard_name(path)?;
    let order = ReparentRequest {
        kind,
        new_primary: body.new_primary.as_deref().map(alias).transpose()?,
        avoid_primary: body.avoid_primary.as_deref().map(alias).transpose()?,
        reason: body.reason.unwrap_or_default(),
        by: caller.name,
        ignore_block: body.ignore_block,
    };
    carry_out(shard, Request::Reparent(order), wait, context).await
}

/// Hands the request on, and answers with the recovery's number, or waits for its outcome.
async fn carry_out(
    shard: KeyspaceShard,
    request: Request,
    wait: bool,
    context: &WebContext,
) -> Result<HttpResponse, ApiError> {
    let (reply, answer) = oneshot::channel();
    context.registry.do_send(RequestRecovery { shard: shard.clone(), request, reply });
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
    request: HttpRequest,
    path: web::Path<(String, String)>,
    query: web::Query<Waiting>,
    body: web::Json<CureBody>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    let caller = context.access.may_change(&request)?;
    let shard = shard_name(&path)?;
    let CureBody { tablet, cure, reason } = body.into_inner();
    let order = CureErrantRequest {
        tablet: alias(&tablet)?,
        cure: match cure {
            CureName::Drain => ErrantCure::Drain,
            CureName::Inject => ErrantCure::Inject,
        },
        reason,
        by: caller.name,
    };
    carry_out(shard, Request::CureErrant(order), query.wait, &context).await
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
    request: HttpRequest,
    path: web::Path<(String, String)>,
    query: web::Query<Waiting>,
    body: web::Json<ForgetBody>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    let caller = context.access.may_change(&request)?;
    let shard = shard_name(&path)?;
    let ForgetBody { tablet, reason } = body.into_inner();
    let order = ForgetRequest { tablet: alias(&tablet)?, reason, by: caller.name };
    carry_out(shard, Request::Forget(order), query.wait, &context).await
}

/// The body of an acknowledgement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcknowledgeBody {
    comment: String,
}

pub(crate) async fn acknowledge(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Json<AcknowledgeBody>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    let caller = context.access.may_change(&request)?;
    let shard = shard_name(&path)?;
    let (reply, answer) = oneshot::channel();
    let comment = body.into_inner().comment;
    context.registry.do_send(Acknowledge { shard: shard.clone(), by: caller.name, comment, reply });
    let busy = |_| ApiError::unavailable(format!("{shard} is too busy to take the request"));
    let lifted = answer.await.map_err(busy)??;
    Ok(HttpResponse::Ok()
        .json(json!({ "lifted": lifted.map(|block| BlockView::of(&block, &shard)) })))
}
