//! What is known of a shard: answers become knowledge here and nowhere else, for the probes and for the second look
//! under the shard's lock alike.

pub mod channels;
pub mod health;
pub mod identity;
pub mod memory;
pub mod observe;
pub mod servers;
pub mod snapshot;
