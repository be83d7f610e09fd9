//! Recoveries: the story of each, and the switch of the automatic ones.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;
use vtorc_actors::messages::SwitchRecoveries;
use vtorc_core::ids::RecoveryId;
use vtorc_core::ports::RecoveryFilter;

use crate::asker::{Operator, Reader};
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
    reader: Reader,
    query: web::Query<ListQuery>,
) -> Result<HttpResponse, ApiError> {
    let records = reader.services.history.recoveries(query.into_inner().filter()).await?;
    let views: Vec<RecoveryView> = records.iter().map(RecoveryView::of).collect();
    Ok(HttpResponse::Ok().json(views))
}

/// Findings over time, newest first.
pub(crate) async fn findings(
    reader: Reader,
    query: web::Query<ListQuery>,
) -> Result<HttpResponse, ApiError> {
    let spans = reader.services.history.findings(query.into_inner().filter()).await?;
    let views: Vec<_> = spans
        .iter()
        .map(|span| {
            json!({
                "keyspace": span.shard.keyspace,
                "shard": span.shard.shard,
                "code": span.finding.to_string(),
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
    reader: Reader,
    query: web::Query<ListQuery>,
) -> Result<HttpResponse, ApiError> {
    let entries = reader.services.history.audit(query.into_inner().filter().limit).await?;
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

pub(crate) async fn one(reader: Reader, path: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let not_found = || ApiError::not_found(format!("there is no recovery {path}"));
    let id = RecoveryId(path.parse().map_err(|_| not_found())?);
    if let Some(record) = reader.services.board.recovery(id) {
        return Ok(HttpResponse::Ok().json(RecoveryView::of(&record)));
    }
    let record = reader.services.history.recovery(id).await?.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(RecoveryView::of(&record)))
}

/// The body of a switch. (With `serde(default)` even an empty list would be one.)
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchBody {
    comment: Option<String>,
}

pub(crate) async fn disable(
    operator: Operator,
    body: web::Json<SwitchBody>,
) -> Result<HttpResponse, ApiError> {
    switch(false, operator, body.into_inner()).await
}

pub(crate) async fn enable(
    operator: Operator,
    body: web::Json<SwitchBody>,
) -> Result<HttpResponse, ApiError> {
    switch(true, operator, body.into_inner()).await
}

async fn switch(
    enabled: bool,
    operator: Operator,
    body: SwitchBody,
) -> Result<HttpResponse, ApiError> {
    switch_recoveries(&operator, enabled, body.comment.unwrap_or_default()).await?;
    Ok(HttpResponse::Ok().json(json!({ "recoveries_enabled": enabled })))
}

/// Switches automatic recoveries, and waits until that is in the history.
pub(crate) async fn switch_recoveries(
    operator: &Operator,
    enabled: bool,
    comment: String,
) -> Result<(), ApiError> {
    let (kept, answer) = oneshot::channel();
    let by = operator.name.clone();
    operator.registry.do_send(SwitchRecoveries { enabled, by, comment, kept });
    in_the_history(answer).await
}
