//! demo
pub(crate) fn run(_: crate::cli::DemoOptions) -> Result<(), crate::Failure> { Ok(()) }
