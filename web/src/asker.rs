//! Who asks. A handler names in its first argument what its asker must be allowed to do; so nobody's body is read
//! before that is known.

use std::future::{Ready, ready};
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use vtorc_core::ids::KeyspaceShard;

use crate::context::WebContext;
use crate::error::ApiError;

/// Somebody who may read, and what the handler needs.
pub(crate) struct Reader(web::Data<WebContext>);

/// Somebody who may change something, and what the handler needs.
pub(crate) struct Operator {
    /// Who, as far as known.
    pub(crate) name: String,
    context: web::Data<WebContext>,
}

/// The shard that the path names.
pub(crate) struct NamedShard(pub(crate) KeyspaceShard);

impl Deref for Reader {
    type Target = WebContext;

    fn deref(&self) -> &WebContext {
        &self.0
    }
}

impl Deref for Operator {
    type Target = WebContext;

    fn deref(&self) -> &WebContext {
        &self.context
    }
}

impl FromRequest for Reader {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(context(request).and_then(|context| {
            context.access.may_read(request)?;
            Ok(Self(context))
        }))
    }
}

impl FromRequest for Operator {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(context(request).and_then(|context| {
            let name = context.access.may_change(request)?.name;
            Ok(Self { name, context })
        }))
    }
}

impl FromRequest for NamedShard {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let part = |name| request.match_info().query(name);
        let shard = KeyspaceShard::new(part("keyspace"), part("shard"));
        ready(shard.map(Self).map_err(|error| ApiError::bad_request(error.to_string())))
    }
}

fn context(request: &HttpRequest) -> Result<web::Data<WebContext>, ApiError> {
    let context = request.app_data::<web::Data<WebContext>>().cloned();
    context.ok_or_else(|| ApiError::unavailable("this server has nothing to show"))
}
