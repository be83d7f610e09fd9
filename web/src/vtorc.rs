//! VTOrc's own interface, for the scripts, probes and dashboards that know it. Names and forms are VTOrc's.

mod views;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vtorc_actors::board::ShardReport;
use vtorc_core::analysis::errant_gtids;

use crate::asker::{Operator, Reader};
use crate::error::ApiError;
use crate::metrics;
use crate::recoveries::switch_recoveries;
use views::{Instance, analyses, database_state};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/api/problems", web::get().to(problems))
        .route("/api/errant-gtids", web::get().to(with_errant_gtids))
        .route("/api/detection-analysis", web::get().to(detection_analysis))
        .route("/api/replication-analysis", web::get().to(detection_analysis))
        .route("/api/database-state", web::get().to(state))
        .route("/api/config", web::get().to(config_in_force))
        .route("/debug/vars", web::get().to(metrics::vars))
        .route("/debug/status", web::get().to(status));
    // VTOrc takes any method for these.
    for method in [web::get, web::post] {
        config
            .route("/api/disable-global-recoveries", method().to(disable))
            .route("/api/enable-global-recoveries", method().to(enable));
    }
}

/// Which shards are asked about.
#[derive(Deserialize)]
struct Filter {
    keyspace: Option<String>,
    shard: Option<String>,
}

impl Filter {
    fn check(&self) -> Result<(), ApiError> {
        let given = |part: &Option<String>| part.as_ref().is_some_and(|text| !text.is_empty());
        if given(&self.shard) && !given(&self.keyspace) {
            let why = "Filtering by shard without keyspace isn't supported";
            return Err(ApiError::bad_request(why));
        }
        Ok(())
    }

    fn fits(&self, report: &ShardReport) -> bool {
        let fits = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.is_empty() || wanted == name)
        };
        let name = &report.snapshot.shard;
        fits(&self.keyspace, &name.keyspace) && fits(&self.shard, &name.shard)
    }
}

/// One list over all shards that fit. An empty one is `null`, as Go writes it.
fn list<T: Serialize>(
    reader: &Reader,
    filter: &Filter,
    each: impl Fn(&ShardReport) -> Vec<T>,
) -> Result<HttpResponse, ApiError> {
    filter.check()?;
    let reports = reader.services.board.shards();
    let found: Vec<T> = reports
        .iter()
        .filter(|report| filter.fits(report))
        .flat_map(|report| each(report))
        .collect();
    Ok(HttpResponse::Ok().json(if found.is_empty() { None } else { Some(found) }))
}

async fn problems(reader: Reader, filter: web::Query<Filter>) -> Result<HttpResponse, ApiError> {
    list(&reader, &filter, |report| {
        let all = report.snapshot.tablets.values().map(|state| Instance::of(state, report));
        all.filter(Instance::has_problems).collect()
    })
}

async fn with_errant_gtids(
    reader: Reader,
    filter: web::Query<Filter>,
) -> Result<HttpResponse, ApiError> {
    list(&reader, &filter, |report| {
        let snapshot = &report.snapshot;
        let errant = snapshot.tablets.values().filter(|state| {
            snapshot.primary().and_then(|primary| errant_gtids(state, primary)).is_some()
        });
        errant.map(|state| Instance::of(state, report)).collect()
    })
}

async fn detection_analysis(
    reader: Reader,
    filter: web::Query<Filter>,
) -> Result<HttpResponse, ApiError> {
    list(&reader, &filter, analyses)
}

async fn state(reader: Reader) -> Result<HttpResponse, ApiError> {
    let tables = database_state(&reader.services.board.shards());
    let text = serde_json::to_string_pretty(&tables).unwrap_or_default();
    Ok(plain(text))
}

async fn config_in_force(reader: Reader) -> Result<HttpResponse, ApiError> {
    Ok(plain(serde_json::to_string_pretty(&reader.config).unwrap_or_default()))
}

async fn disable(operator: Operator, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    switch(false, &operator, &request).await
}

async fn enable(operator: Operator, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    switch(true, &operator, &request).await
}

async fn switch(
    enabled: bool,
    operator: &Operator,
    request: &HttpRequest,
) -> Result<HttpResponse, ApiError> {
    switch_recoveries(operator, enabled, format!("through {}", request.path())).await?;
    let word = if enabled { "enabled" } else { "disabled" };
    Ok(plain(format!("Global recoveries {word}\n")))
}

/// VTOrc's status page is the console here.
async fn status(_: Reader) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Found().insert_header(("Location", "/")).finish())
}

fn plain(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("Content-Type", "text/plain; charset=utf-8"))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .body(text)
}

/// A table of VTOrc's database.
fn table(name: &str, rows: Vec<Value>) -> Value {
    json!({ "TableName": name, "Rows": rows })
}
