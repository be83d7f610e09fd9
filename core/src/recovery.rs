//! What a recovery prescribes: a snapshot goes in, commands with their grounds come out. The actors carry them out.

pub mod care;
pub mod catch_up;
pub mod hook;
pub mod kind;
pub mod login;
pub mod made_up;
pub mod planned;
pub mod preview;
pub mod promotion;
pub mod receivers;
pub mod records;
pub mod reopen;
pub mod reparent;
pub mod replica;
pub mod request;
pub mod step;
pub mod task;
