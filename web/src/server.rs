//! The HTTP server: routes, limits, TLS.

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::error::JsonPayloadError;
use actix_web::middleware::Compress;
use actix_web::{App, HttpServer, web};
use slog::{info, warn};

use crate::asker::Reader;
use crate::context::WebContext;
use crate::error::ApiError;
use crate::{console, controls, events, metrics, recoveries, shards, system, vtorc};

/// A request's body is at most this long.
const BODY_MAX: usize = 64 * 1024;
/// Open requests get so many seconds when the process ends.
const SHUTDOWN_S: u64 = 1;

/// A ready TLS configuration.
pub type Tls = Arc<rustls::ServerConfig>;

/// Starts serving on a socket that is bound already, at most so many connections at once; others wait until one ends.
/// The server runs until it is stopped.
pub fn serve(
    context: WebContext,
    listener: TcpListener,
    tls: Option<Tls>,
    connections: usize,
) -> std::io::Result<Server> {
    let log = context.services.log.clone();
    if let Some(directory) = &context.console_directory {
        let missing = console::missing_from(directory);
        if !missing.is_empty() {
            warn!(log, "the console's directory lacks files"; "directory" => %directory.display(),
                "missing" => missing.join(", "));
        }
    }
    let address = listener.local_addr()?;
    let data = web::Data::new(context);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(json_limits())
            .app_data(
                web::QueryConfig::default()
                    .error_handler(|error, _| ApiError::bad_request(error.to_string()).into()),
            )
            .wrap(Compress::default())
            .configure(routes)
    })
    // Whoever hangs up while a request waits does not want it any more.
    .h1_allow_half_closed(false)
    .workers(1)
    .max_connections(connections)
    .shutdown_timeout(SHUTDOWN_S)
    .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, (*tls).clone())?,
        None => server.listen(listener)?,
    };
    info!(log, "serving"; "address" => %address);
    Ok(server.run())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours and may grow")]
fn json_limits() -> web::JsonConfig {
    web::JsonConfig::default().limit(BODY_MAX).error_handler(|error, _| {
        let error = match error {
            JsonPayloadError::OverflowKnownLength { .. } | JsonPayloadError::Overflow { .. } => {
                ApiError::too_large(format!("a body is at most {BODY_MAX} bytes"))
            }
            JsonPayloadError::ContentType => {
                ApiError::bad_request("send a JSON body with Content-Type: application/json")
            }
            other => ApiError::bad_request(format!("the body is not what is expected: {other}")),
        };
        error.into()
    })
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/api/v1/shards", web::get().to(shards::list))
        .route("/api/v1/shards/{keyspace}/{shard}", web::get().to(shards::one))
        .route("/api/v1/shards/{keyspace}/{shard}/snapshot", web::get().to(shards::snapshot))
        .route("/api/v1/shards/{keyspace}/{shard}/check", web::get().to(shards::check))
        .route(
            "/api/v1/shards/{keyspace}/{shard}/planned-reparent",
            web::post().to(shards::planned_reparent),
        )
        .route(
            "/api/v1/shards/{keyspace}/{shard}/planned-reparent/preview",
            web::post().to(shards::preview_planned),
        )
        .route(
            "/api/v1/shards/{keyspace}/{shard}/emergency-reparent",
            web::post().to(shards::emergency_reparent),
        )
        .route(
            "/api/v1/shards/{keyspace}/{shard}/errant-gtids",
            web::post().to(shards::cure_errant),
        )
        .route("/api/v1/shards/{keyspace}/{shard}/forget", web::post().to(shards::forget))
        .route("/api/v1/shards/{keyspace}/{shard}/acknowledge", web::post().to(shards::acknowledge))
        .route("/api/v1/recoveries", web::get().to(recoveries::list))
        .route("/api/v1/recoveries/disable", web::post().to(recoveries::disable))
        .route("/api/v1/recoveries/enable", web::post().to(recoveries::enable))
        .route("/api/v1/recoveries/{id}", web::get().to(recoveries::one))
        .route("/api/v1/findings", web::get().to(recoveries::findings))
        .route("/api/v1/audit", web::get().to(recoveries::audit))
        .route("/api/v1/controls", web::get().to(controls::list))
        .route("/api/v1/controls/set", web::post().to(controls::set))
        .route("/api/v1/controls/lift", web::post().to(controls::lift))
        .route("/api/v1/actors", web::get().to(system::actors))
        .route("/api/v1/system", web::get().to(system::system))
        .route("/api/v1/events", web::get().to(events::events))
        .route("/debug/health", web::get().to(system::health))
        .route("/debug/liveness", web::get().to(system::liveness))
        .route("/metrics", web::get().to(metrics::metrics))
        .configure(vtorc::routes)
        .default_service(web::route().to(fallback));
}

/// The console's files; anything else that is not there says so as JSON.
async fn fallback(
    reader: Reader,
    request: actix_web::HttpRequest,
) -> Result<actix_web::HttpResponse, ApiError> {
    if request.method() != actix_web::http::Method::GET {
        return Err(ApiError::not_found(format!(
            "nothing takes {} {}",
            request.method(),
            request.path()
        )));
    }
    console::file(reader, request).await
}
