//! The console's files: embedded, or from a directory for those who change them.

use std::path::{Component, Path, PathBuf};

use actix_web::{HttpRequest, HttpResponse};
use rust_embed::RustEmbed;

use crate::asker::Reader;
use crate::error::ApiError;

#[derive(RustEmbed)]
#[folder = "console/"]
struct Embedded;

/// What a directory lacks to serve as the console.
pub(crate) fn missing_from(directory: &Path) -> Vec<String> {
    let lacks = |name: &std::borrow::Cow<'static, str>| !directory.join(name.as_ref()).is_file();
    Embedded::iter().filter(lacks).map(|name| name.into_owned()).collect()
}

pub(crate) async fn file(reader: Reader, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let name = match request.path().trim_start_matches('/') {
        "" => "index.html",
        name => name,
    };
    let not_found = || ApiError::not_found(format!("there is nothing at {}", request.path()));
    let bytes = match &reader.console_directory {
        Some(directory) => from_directory(directory, name).ok_or_else(not_found)?,
        None => Embedded::get(name).ok_or_else(not_found)?.data.into_owned(),
    };
    Ok(HttpResponse::Ok()
        .insert_header(("Content-Type", content_type(name)))
        .insert_header(("Cache-Control", "no-cache"))
        .insert_header(("Content-Security-Policy", POLICY))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .insert_header(("X-Frame-Options", "DENY"))
        .insert_header(("Referrer-Policy", "no-referrer"))
        .body(bytes))
}

const POLICY: &str =
    "default-src 'self'; style-src 'self'; img-src 'self' data:; frame-ancestors 'none'";

fn from_directory(directory: &Path, name: &str) -> Option<Vec<u8>> {
    let relative = PathBuf::from(name);
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return None;
    }
    std::fs::read(directory.join(relative)).ok()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some(_) | None => "application/octet-stream",
    }
}
