//! The sockets that accept: bound for every worker, reconciled at a reload, drained when they go.
//!
//! A listener whose address, backlog and kind (TLS or plain) stay the same stays the same object over a reload: its sockets,
//! its connections, its TLS sessions; only its settings and certificates are swapped inside it. Otherwise new sockets are
//! bound beside the old ones, which accept until their queue is empty and then close.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::shared::Shared;
use crate::{
    config::{
        self, Finding,
        model::{Config, Listener, Tls},
    },
    edge::{self, Drain},
    net::{CertStore, Certificate, ServerTls, certs},
};

/// All listeners, and the way to the workers.
#[derive(Default)]
pub struct Listeners {
    by_name: Mutex<BTreeMap<String, Arc<Listening>>>,
    draining: Mutex<Vec<Arc<Listening>>>,
}

/// A listener at work.
pub struct Listening {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it is bound.
    pub address: SocketAddr,
    configured: SocketAddr,
    backlog: u32,
    config: ArcSwap<Listener>,
    settings: Arc<ArcSwap<edge::Settings>>,
    tls: Option<Arc<ServerTls>>,
    watch: Mutex<Option<certs::CertWatch>>,
    drain: Drain,
}

/// What a worker is told.
pub(super) enum Command {
    /// Accept on this socket.
    Serve(Arc<Listening>, TcpListener),
    /// End, whatever is still open.
    Stop,
}

/// Listeners of a new configuration, bound but not served.
pub(super) struct Prepared {
    kept: Vec<(Arc<Listening>, Arc<Listener>, Vec<Certificate>)>,
    new: Vec<(Arc<Listening>, Vec<TcpListener>)>,
    gone: Vec<Arc<Listening>>,
}

impl Listening {
    /// Its configuration now.
    pub(super) fn config(&self) -> arc_swap::Guard<Arc<Listener>> {
        self.config.load()
    }

    /// What a worker's accept loop needs.
    pub(super) fn service<H>(&self, shared: &Shared, handler: H) -> edge::Service<H> {
        edge::Service {
            settings: self.settings.clone(),
            handler,
            limits: shared.connections.clone(),
            counters: shared.edge.clone(),
            drain: self.drain.clone(),
        }
    }

    /// The certificates that are served.
    pub fn certificates(&self) -> Vec<certs::CertInfo> {
        self.tls.as_ref().map(|tls| tls.store().infos()).unwrap_or_default()
    }

    /// When the first of its certificates expires, in seconds since 1970.
    pub fn not_after(&self) -> Option<i64> {
        self.tls.as_ref().and_then(|tls| tls.store().not_after())
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Whether this listener can serve `settings` without being bound again.
    fn fits(&self, settings: &Listener) -> bool {
        self.configured == settings.address
            && self.backlog == settings.backlog
            && self.tls.is_some() == settings.tls.is_some()
    }

    fn adopt(&self, settings: Arc<Listener>, certificates: &[Certificate]) {
        if let Some(tls) = &self.tls {
            tls.store().replace(certificates, settings.unknown_sni);
            if let Err(error) = tls.set_oldest(settings.tls_min_version) {
                tracing::error!(listener = %self.name, %error, "cannot change the oldest tls version");
            }
            let mut watch = self.watch.lock();
            let changed = self.config.load().tls != settings.tls;
            match (&mut *watch, &settings.tls) {
                (Some(watch), _) if !changed => watch.loaded(certificates),
                (watch, Some(tls)) => *watch = Some(watched(tls, certificates)),
                _ => {}
            }
        }
        self.settings.store(Arc::new(edge::Settings::new(&self.name, &settings, self.tls.clone())));
        self.config.store(settings);
    }
}

impl Listeners {
    /// The listeners that serve.
    pub fn serving(&self) -> Vec<Arc<Listening>> {
        self.by_name.lock().values().cloned().collect()
    }

    /// Binds and loads what a configuration asks for, beside what serves.
    pub(super) fn prepare(&self, config: &Config, state: &Path, workers: usize, wrong: &mut Vec<Finding>) -> Prepared {
        let serving = self.by_name.lock().clone();
        let mut prepared = Prepared { kept: Vec::new(), new: Vec::new(), gone: Vec::new() };
        for (name, settings) in &config.listener {
            let certificates = load(name, settings, state, wrong);
            match serving.get(name).filter(|listening| listening.fits(settings)) {
                Some(listening) => {
                    prepared.kept.push((listening.clone(), Arc::new(settings.clone()), certificates));
                }
                None => match bind(name, settings, &certificates, workers, &serving) {
                    Ok(new) => prepared.new.push(new),
                    Err(message) => wrong.push(Finding::new(format!("listener.{name}.address"), message)),
                },
            }
        }
        let stays = |listening: &Arc<Listening>| prepared.kept.iter().any(|(kept, ..)| Arc::ptr_eq(kept, listening));
        prepared.gone = serving.into_values().filter(|listening| !stays(listening)).collect();
        prepared
    }

    /// Serves what was prepared, and drains what is gone.
    pub(super) async fn commit(&self, prepared: Prepared, workers: &[mpsc::Sender<Command>]) {
        for (listening, settings, certificates) in prepared.kept {
            listening.adopt(settings, &certificates);
        }
        for (listening, sockets) in prepared.new {
            for (worker, socket) in workers.iter().zip(sockets) {
                if let Err(error) = edge::listen(&socket, listening.backlog) {
                    tracing::error!(listener = %listening.name, %error, "cannot listen");
                }
                let _ = worker.send(Command::Serve(listening.clone(), socket)).await;
            }
            tracing::info!(listener = %listening.name, address = %listening.address, "listening");
            self.by_name.lock().insert(listening.name.to_string(), listening);
        }
        for listening in prepared.gone {
            tracing::info!(listener = %listening.name, address = %listening.address, "listener drains");
            listening.drain.start();
            let mut by_name = self.by_name.lock();
            if by_name.get(&*listening.name).is_some_and(|serving| Arc::ptr_eq(serving, &listening)) {
                by_name.remove(&*listening.name);
            }
            self.draining.lock().push(listening);
        }
    }

    /// Drops drained listeners, and swaps certificates whose files have changed. Called a few times a second.
    pub(super) fn tick(&self, state: &Path) {
        self.draining.lock().retain(|listening| listening.drain.held() > 0);
        for listening in self.serving() {
            renew(&listening, state);
        }
    }

    /// Everything that is not drained yet.
    pub(super) fn drain_all(&self) -> Vec<Drain> {
        let serving = std::mem::take(&mut *self.by_name.lock());
        let draining = std::mem::take(&mut *self.draining.lock());
        let all: Vec<Drain> = serving.into_values().chain(draining).map(|listening| listening.drain.clone()).collect();
        for drain in &all {
            drain.start();
        }
        all
    }
}

/// Reads changed certificates; those that cannot be read leave what is served as it is.
fn renew(listening: &Listening, state: &Path) {
    let mut watch = listening.watch.lock();
    let settings = listening.config.load_full();
    let (Some(watch), Some(tls), Some(server)) = (&mut *watch, &settings.tls, &listening.tls) else { return };
    let now = SystemTime::now();
    if !watch.due(now) {
        return;
    }
    match certs::load(tls, state, now) {
        Ok(certificates) => {
            server.store().replace(&certificates, settings.unknown_sni);
            watch.loaded(&certificates);
            tracing::info!(listener = %listening.name, "certificates swapped");
        }
        Err(error) => {
            watch.refused(now);
            tracing::warn!(listener = %listening.name, %error, "new certificates refused, the old ones serve on");
        }
    }
}

fn watched(tls: &Tls, certificates: &[Certificate]) -> certs::CertWatch {
    let mut watch = certs::CertWatch::new(tls);
    watch.loaded(certificates);
    watch
}

fn load(name: &str, settings: &Listener, state: &Path, wrong: &mut Vec<Finding>) -> Vec<Certificate> {
    let Some(tls) = &settings.tls else { return Vec::new() };
    certs::load(tls, state, SystemTime::now()).unwrap_or_else(|error| {
        wrong.push(Finding::new(format!("listener.{name}.tls"), error.to_string()));
        Vec::new()
    })
}

fn bind(
    name: &str,
    settings: &Listener,
    certificates: &[Certificate],
    workers: usize,
    serving: &BTreeMap<String, Arc<Listening>>,
) -> Result<(Arc<Listening>, Vec<TcpListener>), String> {
    let tls = match &settings.tls {
        Some(_) => {
            let store = Arc::new(CertStore::new(certificates, settings.unknown_sni));
            let server = ServerTls::new(store, settings.tls_min_version);
            Some(Arc::new(server.map_err(|error| error.to_string())?))
        }
        None => None,
    };
    let held = serving.values().any(|listening| config::collide(listening.address, settings.address));
    let sockets = reserve_all(settings.address, workers, held)
        .map_err(|error| format!("cannot listen on {}: {error}", settings.address))?;
    let address = sockets[0].local_addr().map_err(|error| error.to_string())?;
    let listening = Listening {
        name: name.into(),
        address,
        configured: settings.address,
        backlog: settings.backlog,
        watch: Mutex::new(settings.tls.as_ref().map(|tls| watched(tls, certificates))),
        config: ArcSwap::from_pointee(settings.clone()),
        settings: Arc::new(ArcSwap::from_pointee(edge::Settings::new(name, settings, tls.clone()))),
        tls,
        drain: Drain::new(),
    };
    Ok((Arc::new(listening), sockets))
}

/// One socket a worker on the same port, none of which listens yet: the configuration may still be refused, and closing a
/// socket that listens resets whoever waits in its queue. `held`: a listener of ours has the port, and is about to let go of it.
fn reserve_all(address: SocketAddr, workers: usize, held: bool) -> io::Result<Vec<TcpListener>> {
    if !held {
        edge::probe(address)?;
    }
    let first = edge::reserve(address, true)?;
    let bound = first.local_addr()?;
    let others = (1..workers).map(|_| edge::reserve(bound, true));
    std::iter::once(Ok(first)).chain(others).collect()
}

/// What would keep a configuration's certificates from being served.
pub(super) fn check(config: &Config, state: &Path) -> Vec<Finding> {
    let mut wrong = Vec::new();
    for (name, settings) in &config.listener {
        // Making a local authority is for the gateway that serves.
        if matches!(settings.tls, Some(Tls::Files(_))) {
            load(name, settings, state, &mut wrong);
        }
    }
    wrong
}
