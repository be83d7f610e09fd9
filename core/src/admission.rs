//! Whether a recovery may start now, and why nothing is done where it may not.

mod automatic;
pub mod inaction;

pub use automatic::*;
