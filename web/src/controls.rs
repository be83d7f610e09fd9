//! What operators control: seeing it, setting it, lifting it.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use vtorc_actors::messages::{ChangeControl, ControlChange};
use vtorc_actors::services::Services;
use vtorc_core::controls::Control;
use vtorc_core::ports::HistoryError;

use crate::asker::{Operator, Reader};
use crate::error::ApiError;
use crate::views::time;

/// The history takes milliseconds; with a disk that hangs, an order is answered all the same.
const KEEPING_PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a control can be set for; for ever is without a time.
const SECONDS_MAX: u64 = 366 * 86_400;

#[derive(Serialize)]
pub(crate) struct ControlView {
    control: String,
    by: String,
    comment: String,
    since: String,
    until: Option<String>,
}

/// All that is in force.
pub(crate) fn views(services: &Services) -> Vec<ControlView> {
    let controls = services.controls();
    let view = |(control, entry): (&Control, &vtorc_core::controls::Entry)| ControlView {
        control: control.to_string(),
        by: entry.by.clone(),
        comment: entry.comment.clone(),
        since: time(entry.since),
        until: entry.until.map(time),
    };
    controls.in_force(services.clock.now()).map(view).collect()
}

pub(crate) async fn list(reader: Reader) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(views(&reader.services)))
}

/// `{"control": "downtime zone1-0000000101", "comment": "new disk", "seconds": 3600}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetBody {
    control: String,
    comment: String,
    seconds: Option<u64>,
}

pub(crate) async fn set(
    operator: Operator,
    body: web::Json<SetBody>,
) -> Result<HttpResponse, ApiError> {
    let SetBody { control, comment, seconds } = body.into_inner();
    if comment.trim().is_empty() {
        return Err(ApiError::bad_request("say in the comment why"));
    }
    if seconds.is_some_and(|seconds| seconds == 0 || seconds > SECONDS_MAX) {
        return Err(ApiError::bad_request(format!("seconds must be 1 to {SECONDS_MAX}")));
    }
    let change = ControlChange::Set(seconds.map(Duration::from_secs));
    order(operator, &control, change, comment).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiftBody {
    control: String,
    #[serde(default)]
    comment: String,
}

pub(crate) async fn lift(
    operator: Operator,
    body: web::Json<LiftBody>,
) -> Result<HttpResponse, ApiError> {
    let LiftBody { control, comment } = body.into_inner();
    order(operator, &control, ControlChange::Lift, comment).await
}

async fn order(
    operator: Operator,
    control: &str,
    change: ControlChange,
    comment: String,
) -> Result<HttpResponse, ApiError> {
    let control: Control =
        control.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    let text = control.to_string();
    let (kept, answer) = oneshot::channel();
    let by = operator.name.clone();
    operator.registry.do_send(ChangeControl { control, change, by, comment, kept });
    in_the_history(answer).await?;
    Ok(HttpResponse::Accepted().json(serde_json::json!({ "control": text })))
}

/// Waits until what was switched is in the history: what was answered must survive the death of the process.
pub(crate) async fn in_the_history(
    answer: oneshot::Receiver<Result<(), HistoryError>>,
) -> Result<(), ApiError> {
    let why = match tokio::time::timeout(KEEPING_PATIENCE, answer).await {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => "vtorc is ending".to_owned(),
        Err(_elapsed) => "the history store does not answer".to_owned(),
    };
    Err(ApiError::unavailable(format!("it holds now, but would not survive a restart: {why}")))
}
