//! The command line: `serve`, `check`, `key new`, `plugin inspect|compile|check`, `pool list|show|pause|…`,
//! `bench pool|compare`.
//!
//! Answers go to standard output, reasons to standard error. Exit code 0: done; 1: failed, with every reason at once; 2: the
//! words were not understood (clap's own). `serve` and `check` read a configuration by the same path, so what `check` passes,
//! `serve` starts with, short of ports that are taken.
#![allow(clippy::print_stdout, reason = "the command line is what speaks to standard output")]

mod bench;
mod key;
mod plugin;
mod pool;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::Source;

/// An edge gateway: HTTPS in, pooled services and databases behind, policies swapped live.
#[derive(Parser)]
#[command(name = "sluicegate", version, about, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; SIGHUP reloads.
    Serve(ConfigArgs),
    /// Check a configuration, its certificates and its plugins, and print every error.
    Check(ConfigArgs),
    /// Make API keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Look at policy components.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Operate the pools of a running gateway, over its admin listener.
    #[command(subcommand)]
    Pool(pool::Command),
    /// Try sizes and policies of a pool under load, and compare.
    #[command(subcommand)]
    Bench(bench::Command),
}

/// Which configuration.
#[derive(Args, Clone)]
struct ConfigArgs {
    /// Configuration file; without one, the embedded demonstration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of an overlay: NAME.toml beside the configuration file.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

impl From<ConfigArgs> for Source {
    fn from(args: ConfigArgs) -> Self {
        Self { file: args.config, profile: args.profile, ..Self::default() }
    }
}

/// Parses the process's arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Serve(args) => serve::serve(args.into()),
        Command::Check(args) => serve::check(&args.into()),
        Command::Key(command) => key::run(&command),
        Command::Plugin(command) => plugin::run(&command),
        Command::Pool(command) => pool::run(command),
        Command::Bench(command) => bench::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
