//! The calls of vttablets and of etcd, and their messages, compiled from `proto/`.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated from proto/"
)]

include!(concat!(env!("OUT_DIR"), "/interfaces.rs"));
