//! Errors as every caller gets them: `{"code", "message", "details"}` with a fitting status.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use vtorc_actors::messages::Rejected;
use vtorc_core::ports::HistoryError;

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    details: Option<&'a str>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn forbidden(message: impl Into<String>, details: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::FORBIDDEN, "forbidden", message);
        error.details = Some(details.into());
        error
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "log in first, as AuthenticationMethod in the configuration says";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .insert_header(("WWW-Authenticate", "Basic realm=\"vtorc\", charset=\"UTF-8\""));
        }
        response.json(Body {
            code: self.code,
            message: &self.message,
            details: self.details.as_deref(),
        })
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        let message = rejected.to_string();
        match rejected {
            Rejected::UnknownShard(_) => Self::not_found(message),
            Rejected::UnknownTablet(_) => Self::bad_request(message),
            Rejected::Conflict(_) => Self::conflict(message),
            Rejected::Unavailable(_) => Self::unavailable(message),
        }
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        Self::unavailable(error.to_string())
    }
}
