//! `sluicegate plugin inspect|check|compile`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::{
    config::value::{Size, Span},
    policy::{Compiler, Plugins, TemporaryState, compile},
};

/// What to do with components.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Say what a component imports and exports, and who it is.
    Inspect {
        /// The component.
        file: PathBuf,
    },
    /// Put a component through all that it must pass before it serves, and time it.
    Check {
        /// The component.
        file: PathBuf,
    },
    /// Compile a component to machine code; the gateway calls this in a process of its own.
    Compile {
        /// The component.
        file: PathBuf,
        /// Where to write; must not exist.
        #[arg(short, long)]
        output: PathBuf,
        /// Memory that may be used beyond what the process starts with.
        #[arg(long, default_value = "1GiB")]
        memory: Size,
        /// Time that may be used.
        #[arg(long, default_value = "30s")]
        deadline: Span,
    },
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Inspect { file } => with_plugins(|plugins, runtime| show(&runtime.block_on(plugins.inspect(file))?)),
        Command::Check { file } => with_plugins(|plugins, runtime| show(&runtime.block_on(plugins.check(file))?)),
        Command::Compile { file, output, memory, deadline } => {
            let limits = compile::CompileLimits { memory: *memory, deadline: *deadline };
            Ok(compile::child(file, output, limits)?)
        }
    }
}

fn with_plugins(ask: impl FnOnce(&Plugins, &tokio::runtime::Runtime) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let state = TemporaryState::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let plugins = Plugins::new(Compiler::this_program(), state.path(), 1)?;
    ask(&plugins, &runtime)
}

fn show(found: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(found)?);
    Ok(())
}
