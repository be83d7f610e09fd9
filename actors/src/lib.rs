//! Who owns which state and who tells whom. Decisions are made in core; actors carry messages.
//!
//! ```text
//! Registry ── TopoWatcher                  reads and watches the topology
//!          ├─ ShardActor    (one a shard)  owns what is known about its tablets
//!          │   ├─ ProberActor (one a tablet)  one connection, one probe in flight
//!          │   └─ RecoveryActor               admission, lock, recovery, verification
//!          └─ Auditor                      the one writer of the history
//! ```
//!
//! [`messages`] is the map of the system; [`recovery`] is where servers and records are changed, and nowhere
//! else. What everybody may read lies on the [`board`], with its [`counters`] and the actors' [`meters`].
//! [`preflight`] looks at a shard when somebody asks.

pub mod auditor;
pub mod board;
pub mod clock;
pub mod counters;
pub mod guardian;
mod locked;
pub mod messages;
pub mod meters;
pub mod numbers;
mod patience;
pub mod preflight;
pub mod prober;
pub mod recovery;
pub mod registry;
pub mod services;
pub mod shard;
pub mod topo_watcher;
