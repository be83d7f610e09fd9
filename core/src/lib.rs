//! Everything vtorc knows about failover, as plain values and pure functions.
//!
//! Nothing here does I/O, reads a clock, logs or draws lots, so every decision can be read, replayed and
//! tested without a server. [`ports`] declares what the outside must supply.
//!
//! | module | knows |
//! |---|---|
//! | [`ids`], [`time`], [`gtid`] | the vocabulary |
//! | [`tablet`], [`durability`], [`topology`] | what should be: records, types, policies |
//! | [`status`], [`source_access`] | what is: one server's answer |
//! | [`knowledge`] | how answers become what is known of a shard |
//! | [`analysis`], [`remedy`] | what is wrong with it, what would help |
//! | [`shard`] | the shard's memory: events in, effects out |
//! | [`controls`] | what operators switched, excused or asked for |
//! | [`recovery`] | what a recovery does, as commands with their grounds |
//! | [`admission`] | whether an automatic recovery may start now, and why nothing is done |
//! | [`isolation`] | whether it is vtorc that is cut off |
//! | [`reparent`] | whether a reparent loses nothing, who wins, and what would happen if the primary died now |
//! | [`preflight`] | what would go wrong on the bad day |
//! | [`audit`] | what is kept of a recovery |
//! | [`hooks`] | what an operator's own programs are told, and when |
//!
//! A new finding touches exactly: the row in [`analysis::RULES`], its arm in [`remedy`], one scenario.

pub mod admission;
pub mod analysis;
pub mod audit;
pub mod controls;
pub mod durability;
pub mod filter;
pub mod gtid;
pub mod hooks;
pub mod ids;
pub mod isolation;
pub mod knowledge;
pub mod ports;
pub mod preflight;
pub mod recovery;
pub mod remedy;
pub mod reparent;
#[doc(hidden)]
pub mod sabotage;
pub mod secret;
pub mod settings;
pub mod shard;
pub mod source_access;
pub mod status;
pub mod tablet;
pub mod time;
pub mod topology;

#[doc(hidden)]
pub mod testkit;
