//! vtorc keeps every MySQL shard of a Vitess topology with exactly one writable primary.

mod bench;
mod check;
mod cli;
mod config;
mod ctl;
mod daemon;
mod demo;
mod explain;
mod files;
mod logging;
mod print;
mod topo;
mod wiring;

use std::process::ExitCode;

use cli::{Cli, Command};

fn main() -> ExitCode {
    // One provider for all that speaks TLS; a second installation attempt would only say that it is there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let normal = cli::normalise(std::env::args());
    let mut cli = match <Cli as clap::Parser>::try_parse_from(normal.arguments) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    cli.daemon.without_effect = normal.without_effect;
    let outcome = match cli.command {
        Some(Command::Check(options)) => match check::run(&cli.daemon, &options) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        None => daemon::run(cli.daemon),
        Some(Command::Demo(options)) => demo::run(options),
        Some(Command::Bench(options)) => bench::run(options),
        Some(Command::Ctl(options)) => ctl::run(options, cli.daemon.config.as_deref()),
        Some(Command::Explain(options)) => explain::run(&options, cli.daemon.config.as_deref()),
        Some(Command::Topo(command)) => topo::run(cli.daemon, command),
        Some(Command::Completions { shell }) => {
            cli::print_completions(shell);
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vtorc: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Anything that ends a command, in words for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// An error and what was being done.
    pub(crate) fn while_doing(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}
