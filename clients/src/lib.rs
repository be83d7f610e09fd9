//! The adapters of vtorc, one per outside system, each implementing one port of core
