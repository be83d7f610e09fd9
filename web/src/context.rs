//! What every handler is given.

use std::path::PathBuf;
use std::time::Instant;

use actix::Addr;
use vtorc_actors::registry::Registry;
use vtorc_actors::services::Services;

use crate::access::Access;

/// What the handlers need.
#[derive(Clone)]
pub struct WebContext {
    /// The board, the history, the settings.
    pub services: Services,
    /// Where requests go.
    pub registry: Addr<Registry>,
    /// Who may do what.
    pub access: Access,
    /// The configuration in force, without its secrets.
    pub config: serde_json::Value,
    /// When the process began.
    pub started: Instant,
    /// The console's files, if not the embedded ones.
    pub console_directory: Option<PathBuf>,
}
