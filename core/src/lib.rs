//! Everything vtorc knows about failover, as plain values and pure functions
