//! HTTP API, JSON views, metrics and the console. Holds no state of its own and decides nothing.
//!
//! | module | |
//! |---|---|
//! | [`server`] | routes, TLS |
//! | [`access`], `asker` | who may do what, and who asks |
//! | `shards`, `recoveries`, `system` | the handlers |
//! | `views` | what core's values look like as JSON |
//! | `events` | the stream of all that changes |
//! | `metrics` | the same figures for Prometheus |
//! | `snapshot` | a shard's state as a file, there and back |
//! | `controls` | what operators switched, excused or asked for |
//! | `console` | the status page's files |

pub mod access;
mod asker;
mod console;
mod context;
mod controls;
mod error;
mod events;
mod metrics;
mod recoveries;
pub mod server;
mod shards;
mod snapshot;
mod system;
mod views;
mod vtorc;

pub use access::{Access, Authentication, Policy, TrustedProxy};
pub use context::{Streams, WebContext};
pub use server::{Tls, serve};
pub use snapshot::SnapshotFile;
