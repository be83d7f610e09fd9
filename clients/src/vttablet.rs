//! Vttablets: the servers of a Vitess shard, looked at and changed through the process that owns each.
//!
//! A vttablet publishes its own type and term, and its shard's primary; so whatever touches those goes
//! through its calls. [`Tablets`] serves core's ports for tablets of both kinds: those with a vttablet, and
//! plain servers.

mod access;
mod calls;
mod commands;
mod delay;
mod fence;
mod probe;
mod sql;
mod status;
mod stopping;
mod tablet_command;
mod tablets;
mod tls;

pub use access::VttabletAccess;
pub use tablets::Tablets;
pub use tls::VttabletTls;
