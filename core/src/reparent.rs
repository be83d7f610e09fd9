//! Replacing a primary: who could hold what was acknowledged, whether a reparent loses nothing, who wins, and what
//! would happen if the primary died now.

pub mod ackers;
pub mod choice;
mod contender;
pub mod election;
mod position;
pub mod prognosis;
mod rank;
pub mod reason;
pub mod safety;
pub mod successor;
pub mod trust;
