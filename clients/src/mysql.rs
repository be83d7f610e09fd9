//! MySQL and MariaDB servers: probes over `mysql_async`, changes over `mysql` on worker threads.
//!
//! Both clients hand out the previous query's answer after one that timed out, so a connection is dropped
//! on any error: `probe` takes it out before each use and puts it back only on success.

mod access;
mod commands;
mod delay;
mod dialect;
mod discover;
mod errors;
mod fence;
mod follow;
#[cfg(test)]
mod fuzz;
mod grants;
mod inspect;
mod locks;
mod login;
mod oldest_log;
mod opening;
mod other_channels;
mod probe;
mod relay_log;
mod semi_sync;
mod session;
mod status;
mod stopping;
mod text;
mod transactions;
mod workers;

pub use access::{ChannelTls, Login, MysqlAccess, Secret, TlsFiles};
pub use discover::{Discovered, discover};
pub use probe::AsyncProber;
pub use workers::WorkerPool;

pub(crate) use commands::CREATE_DATABASE;
pub(crate) use delay::{goes_on_trying, start_as_nobody};
pub(crate) use dialect::{Row, SETTINGS, SYNTAX_ERROR, SemiSyncNames, name_value};
pub(crate) use errors::receiver_error;
pub(crate) use fence::{column_text, is_of_server};
pub(crate) use follow::RETRIES;
pub(crate) use locks::{READ_LOCKS, is_any};
pub(crate) use opening::once_open;
pub(crate) use relay_log::refusal;
pub(crate) use semi_sync::semi_sync_settings;
pub(crate) use session::Thread;
pub(crate) use status::{free_connections, semi_sync};
pub(crate) use stopping::{ENDS_WITHIN, LOOK_AGAIN, end_of, question};
pub(crate) use text::quoted;
