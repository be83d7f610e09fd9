//! Whether a recovery may start now, and why nothing is done where it may not.

pub mod attempts;
mod automatic;
pub mod inaction;
pub mod requested;

pub use automatic::*;
