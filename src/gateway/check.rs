//! `sluicegate check`: all that a gateway would refuse to start for, without starting one.

use super::{
    generation::Generation,
    inputs, listeners,
    run::{RunError, background, io_error, shared},
    supervisor::{prepare_plugins, report},
};
use crate::{
    config::{Loaded, Source},
    observe::access_log::AccessLog,
    policy::{Compiler, TemporaryState},
};

/// What a configuration that passed holds.
#[derive(Debug)]
pub struct Checked {
    /// The files it was read from.
    pub files: Vec<String>,
    /// Its parts in words: `2 listeners, 3 routes, …`.
    pub parts: String,
}

impl Checked {
    fn of(loaded: &Loaded) -> Self {
        let config = &loaded.config;
        let parts = [
            (config.listener.len(), "listener"),
            (config.route.len(), "route"),
            (config.pool.len(), "pool"),
            (config.upstream.len(), "upstream"),
            (config.plugin.len(), "plugin"),
            (config.limit.len(), "limit"),
            (config.consumer.len(), "consumer"),
            (config.named.len(), "named query"),
        ];
        let word = |(count, name): (usize, &str)| match name.strip_suffix('y') {
            _ if count == 1 => format!("1 {name}"),
            Some(stem) => format!("{count} {stem}ies"),
            None => format!("{count} {name}s"),
        };
        Self {
            files: loaded.files.iter().map(|file| file.display().to_string()).collect(),
            parts: parts.into_iter().filter(|(count, _)| *count > 0).map(word).collect::<Vec<_>>().join(", "),
        }
    }
}

/// Everything that `run` would refuse to start for, short of ports that are taken.
///
/// # Errors
/// Every reason at once.
pub fn check(source: &Source) -> Result<Checked, RunError> {
    let loaded = inputs::load(source)?;
    let runtime = background()?;
    let writer = AccessLog::open("off").map_err(io_error("access log"))?;
    // Not the gateway's own: whoever checks may not be the user that serves.
    let cache = TemporaryState::new().map_err(io_error("cannot make a temporary directory"))?;
    runtime.block_on(async {
        let (shared, _requests) =
            shared(Compiler::this_program(), source.clone(), &loaded, cache.path(), writer.log())?;
        let (plugins, mut wrong) = prepare_plugins(&shared, &loaded).await;
        wrong.extend(listeners::check(&loaded.config, &shared.state));
        wrong.extend(Generation::check(&loaded.config, plugins.as_ref()));
        if wrong.is_empty() { Ok(Checked::of(&loaded)) } else { Err(report(&loaded, wrong).into()) }
    })
}
