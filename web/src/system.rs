//! The process itself: its actors, its health.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};
use vtorc_actors::services::Services;

use crate::asker::Reader;
use crate::context::WebContext;
use crate::controls;
use crate::error::ApiError;
use crate::views::ActorView;

pub(crate) async fn actors(reader: Reader) -> Result<HttpResponse, ApiError> {
    let views: Vec<ActorView> =
        reader.services.board.meters.actors().into_iter().map(ActorView::of).collect();
    Ok(HttpResponse::Ok().json(views))
}

pub(crate) fn system_json(services: &Services) -> Value {
    let isolated = services.board.isolated(services.clock.now());
    let system = services.board.system();
    let (probes, probe_failures) = services.board.counters.probe_counts();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "recoveries_enabled": services.recoveries_enabled(),
        "controls": controls::views(services),
        "isolated": isolated,
        "topology_read": system.topology_read,
        "topology_error": system.topology_error,
        "topology_warnings": system.topology_warnings,
        "block_period_s": services.settings().recovery.block_period.as_secs_f64(),
        "probes": probes,
        "probe_failures": probe_failures,
    })
}

pub(crate) async fn system(reader: Reader) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(system_json(&reader.services)))
}

/// Ready to work: the topology was read, and can still be.
pub(crate) async fn health(context: web::Data<WebContext>) -> HttpResponse {
    let system = context.services.board.system();
    let healthy = system.topology_read && system.topology_error.is_none();
    let body = json!({
        "healthy": healthy,
        "topology_error": system.topology_error,
        // As VTOrc spells it.
        "Healthy": healthy,
    });
    if healthy {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().json(body)
    }
}

/// The process answers.
pub(crate) async fn liveness() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "alive": true }))
}
