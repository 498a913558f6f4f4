//! Reading a configuration, and watching what it was read from.

use std::{collections::BTreeSet, path::PathBuf};

use super::{generation::Generation, listeners};
use crate::{
    config::{
        self, Loaded, Report, Source,
        model::{Config, Tls},
    },
    net::certs::FileWatch,
};

/// A configuration as it was read.
pub(super) struct Reading {
    pub(super) outcome: Result<Loaded, Report>,
    pub(super) watch: InputWatch,
}

/// The files behind a configuration, watched from before anything was made of them, so that no edit is lost however long the
/// making takes.
pub(super) struct InputWatch {
    /// Those it is read from, secrets among them.
    inputs: FileWatch,
    /// Those it names besides (certificates, plugins). Whoever serves from them follows them; they are looked at here while
    /// the configuration stands refused, since it may be for the want of one of them.
    named: FileWatch,
    /// An input changed between being read and being watched.
    missed: bool,
}

impl InputWatch {
    /// The configuration serves now.
    pub(super) fn accepted(&mut self) {
        self.named = FileWatch::default();
    }

    /// Whether to read again.
    pub(super) fn changed(&mut self) -> bool {
        let missed = std::mem::take(&mut self.missed);
        let (inputs, named) = (self.inputs.changed(), self.named.changed());
        missed || inputs || named
    }
}

/// Reads a configuration. `before`: the files of the one that serves, to be watched when this one does not get as far as
/// saying what it is made of.
pub(super) fn read(source: &Source, before: &[PathBuf]) -> Reading {
    read_and(source, before, || ())
}

/// The same; `meanwhile` comes between reading and watching.
pub(super) fn read_and(source: &Source, before: &[PathBuf], meanwhile: impl FnOnce()) -> Reading {
    let mut files: BTreeSet<PathBuf> = before.iter().cloned().collect();
    let mut named = Vec::new();
    let outcome = load_and(source, |config| {
        files.extend(config.secret_files());
        named = named_by(config);
    });
    if let Ok(loaded) = &outcome {
        files = loaded.files.iter().cloned().collect();
        named = named_by(&loaded.config);
    }
    meanwhile();
    let (inputs, named) = (FileWatch::new(files), FileWatch::new(named));
    let missed = !is_same(&outcome, &load(source));
    Reading { outcome, watch: InputWatch { inputs, named, missed } }
}

/// Reads a configuration; if it is refused, with all that the rooms would have to say of it.
pub(super) fn load(source: &Source) -> Result<Loaded, Report> {
    load_and(source, |_| ())
}

fn load_and(source: &Source, refused: impl FnOnce(&Config)) -> Result<Loaded, Report> {
    config::load_and(source, |config| {
        refused(config);
        let mut wrong = Generation::check(config, None);
        wrong.extend(listeners::check(config, &config.server.state_dir()));
        wrong
    })
}

fn is_same(one: &Result<Loaded, Report>, other: &Result<Loaded, Report>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one.has_same_inputs(other),
        (Err(one), Err(other)) => one == other,
        _ => false,
    }
}

fn named_by(config: &Config) -> Vec<PathBuf> {
    let pairs = config.listener.values().flat_map(|listener| match &listener.tls {
        Some(Tls::Files(pairs)) => pairs.as_slice(),
        _ => &[],
    });
    let certificates = pairs.flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]);
    let plugins = config.plugin.values().map(|plugin| plugin.path.clone());
    let pools = config.pool.values().filter_map(|pool| pool.tls.ca.clone());
    let upstreams = config.upstream.values().filter_map(|upstream| upstream.tls.ca.clone());
    let lists = config.route.iter().filter_map(|route| route.query.as_ref()?.allow.as_ref());
    let lists = lists.map(|allow| allow.file.clone());
    let clients =
        config.listener.values().filter_map(|listener| Some(listener.client_certificates.as_ref()?.ca.clone()));
    let issuers = config.issuer.values().flat_map(|issuer| {
        let keys = (!issuer.is_remote()).then(|| PathBuf::from(&issuer.jwks));
        keys.into_iter().chain(issuer.tls.ca.clone())
    });
    certificates.chain(plugins).chain(pools).chain(upstreams).chain(clients).chain(issuers).chain(lists).collect()
}
