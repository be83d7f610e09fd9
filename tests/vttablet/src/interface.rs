//! The calls of a vttablet and their messages, compiled from the protos of the clients.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    unreachable_pub,
    dead_code,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/interface.rs"));
