//! What a recovery prescribes: a snapshot goes in, commands with their grounds come out. The actors carry them out.

pub mod catch_up;
pub mod hook;
pub mod kind;
pub mod login;
pub mod receivers;
pub mod reopen;
pub mod replica;
pub mod step;
