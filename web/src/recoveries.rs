//! Recoveries: the story of each, and the switch of the automatic ones.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;
use vtorc_actors::messages::SwitchRecoveries;
use vtorc_core::ids::RecoveryId;
use vtorc_core::ports::RecoveryFilter;

use crate::context::WebContext;
use crate::controls::in_the_history;
use crate::error::ApiError;
use crate::views::{RecoveryView, time};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 1000;

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    keyspace: Option<String>,
    shard: Option<String>,
    limit: Option<u32>,
}

impl ListQuery {
    fn filter(self) -> RecoveryFilter {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
        RecoveryFilter { keyspace: self.keyspace, shard: self.shard, limit }
    }
}

pub(crate) async fn list(
    request: HttpRequest,
    query: web::Query<ListQuery>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    context.access.may_read(&request)?;
    let records = context.services.history.recoveries(query.into_inner().filter()).await?;
    let views: Vec<RecoveryView> = records.iter().map(RecoveryView::of).collect();
    Ok(HttpResponse::Ok().json(views))
}

/// Findings over time, newest first.
pub(crate) async fn findings(
    request: HttpRequest,
    query: web::Query<ListQuery>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    context.access.may_read(&request)?;
    let spans = context.services.history.findings(query.into_inner().filter()).await?;
    let views: Vec<_> = spans
        .iter()
        .map(|span| {
            json!({
                "keyspace": span.shard.keyspace,
                "shard": span.shard.shard,
                "code": span.finding,
                "tablet": span.tablet.as_ref().map(ToString::to_string),
                "since": time(span.since),
                "until": span.until.map(time),
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(views))
}

/// What operators and their programs did, newest first.
pub(crate) async fn audit(
    request: HttpRequest,
    query: web::Query<ListQuery>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    context.access.may_read(&request)?;
    let entries = context.services.history.audit(query.into_inner().filter().limit).await?;
    let views: Vec<_> = entries
        .iter()
        .map(|entry| {
            json!({
                "at": time(entry.at),
                "shard": entry.shard.as_ref().map(ToString::to_string),
                "action": entry.action,
                "by": entry.by,
                "comment": entry.comment,
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(views))
}

pub(crate) async fn one(
    request: HttpRequest,
    path: web::Path<String>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    context.access.may_read(&request)?;
    let not_found = || ApiError::not_found(format!("there is no recovery {path}"));
    let id = RecoveryId(path.parse().map_err(|_| not_found())?);
    if let Some(record) = context.services.board.recovery(id) {
        return Ok(HttpResponse::Ok().json(RecoveryView::of(&record)));
    }
    let record = context.services.history.recovery(id).await?.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(RecoveryView::of(&record)))
}

/// The body of a switch. (With `serde(default)` even an empty list would be one.)
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchBody {
    comment: Option<String>,
}

pub(crate) async fn disable(
    request: HttpRequest,
    body: web::Json<SwitchBody>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    switch(false, &request, body.into_inner(), &context).await
}

pub(crate) async fn enable(
    request: HttpRequest,
    body: web::Json<SwitchBody>,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    switch(true, &request, body.into_inner(), &context).await
}

async fn switch(
    enabled: bool,
    request: &HttpRequest,
    body: SwitchBody,
    context: &WebContext,
) -> Result<HttpResponse, ApiError> {
    let caller = context.access.may_change(request)?;
    let comment = body.comment.unwrap_or_default();
    let (kept, answer) = oneshot::channel();
    context.registry.do_send(SwitchRecoveries { enabled, by: caller.name, comment, kept });
    in_the_history(answer).await?;
    Ok(HttpResponse::Ok().json(json!({ "recoveries_enabled": enabled })))
}
