//! The real actors on virtual time, against simulated servers, topology and network.
//!
//! One seed is one run, byte for byte: everything happens on one thread under tokio's paused clock, and all
//! chance comes from the seed. Nothing of vtorc is modelled here: registry, probers, shards and recoveries
//! are the ones that the daemon runs.
//!
//! | module | is |
//! |---|---|
//! | [`gtids`], [`server`], [`ills`], [`statements`], [`replication`] | the MySQL servers |
//! | [`topology`], [`network`] | the topology server, and who reaches whom |
//! | [`clients`], [`ledger`] | who writes, and what must never happen |
//! | [`universe`] | all of it, behind one lock |
//! | [`ports`], [`history`], [`manager`] | what a vtorc is given instead of the real outside |
//! | [`foreign`] | another tool that reparents beside vtorc |
//! | [`faults`], [`schedule`], [`hazards`] | what goes wrong, and when |
//! | [`claims`] | what vtorcs say and keep, and must be true |
//! | [`order`], [`judge`] | what order is, and what is asked of a run |
//! | [`oracle`] | what a human could have done, and when |
//! | [`stage`], [`run`] | one schedule from its beginning to its verdict |

pub mod claims;
pub mod clients;
pub mod faults;
pub mod foreign;
pub mod gtids;
pub mod hazards;
pub mod history;
pub mod ills;
pub mod judge;
pub mod ledger;
pub mod manager;
pub mod mariadb;
pub mod network;
pub mod oracle;
pub mod order;
pub mod policies;
pub mod ports;
pub mod replication;
pub mod run;
pub mod schedule;
pub mod server;
pub mod stage;
pub mod statements;
pub mod topology;
pub mod universe;
pub mod vttablet;

/// Virtual milliseconds since the beginning of a run.
pub type Millis = u64;
