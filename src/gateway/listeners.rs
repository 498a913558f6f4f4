//! The sockets that accept: bound for every worker, reconciled at a reload, drained when they go.
//!
//! A listener whose address, backlog and kind (TLS or plain) stay the same stays the same object over a reload: its sockets,
//! its connections, its TLS sessions; only its settings and certificates are swapped inside it. Otherwise new sockets are
//! bound beside the old ones, which accept until their queue is empty and then close.
//!
//! The kernel lets several sockets of ours stand at one address, and spreads connections over them. That is what we want of a
//! listener's own sockets, and while one listener takes the place of another; never of two that both stay. An address at
//! which none of ours is open must be free.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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
    edge::{self, Drain, Hold},
    net::{CertStore, Certificate, ClientAuth, ServerTls, certs},
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
    /// How many of its sockets are on their way to a worker or at work there; connections hold the drain, but not these.
    open: AtomicUsize,
}

/// What a worker is told.
pub(super) enum Command {
    /// Accept on this socket.
    Serve(Socket),
    /// End, whatever is still open.
    Stop,
}

/// A socket that listens, on its way to a worker. Dropping it closes the socket before it is said to be closed.
pub(super) struct Socket {
    pub(super) tcp: TcpListener,
    pub(super) open: Open,
}

/// Says that a socket of a listener is open: until it is dropped, the listener is not drained, and its address is ours.
pub(super) struct Open {
    listening: Arc<Listening>,
    _hold: Hold,
}

/// Listeners of a new configuration, bound but not served.
#[derive(Default)]
pub(super) struct Prepared {
    kept: Vec<Kept>,
    new: Vec<(Arc<Listening>, Vec<TcpListener>)>,
    gone: Vec<Arc<Listening>>,
}

/// A listener that stays, and what it is to adopt.
struct Kept {
    listening: Arc<Listening>,
    settings: Arc<Listener>,
    certified: Option<Certified>,
}

/// Certificates, and the watch that was on their files before they were read.
struct Certified {
    certificates: Vec<Certificate>,
    clients: Option<Arc<ClientAuth>>,
    watch: certs::CertWatch,
}

// === impl Listening ===

impl Listening {
    /// A listener for `sockets`, which share an address; at least one.
    fn new(
        name: &str,
        settings: &Listener,
        certified: Option<Certified>,
        sockets: &[TcpListener],
    ) -> Result<Self, String> {
        let (tls, watch) = match certified {
            Some(Certified { certificates, clients, watch }) => {
                let store = Arc::new(CertStore::new(&certificates, settings.unknown_sni));
                let server = ServerTls::new(name, store, settings.tls_min_version, clients);
                let server = server.map_err(|error| error.to_string())?;
                (Some(Arc::new(server)), Some(watch))
            }
            None => (None, None),
        };
        Ok(Self {
            name: name.into(),
            address: sockets[0].local_addr().map_err(|error| error.to_string())?,
            configured: settings.address,
            backlog: settings.backlog,
            config: ArcSwap::from_pointee(settings.clone()),
            settings: Arc::new(ArcSwap::from_pointee(edge::Settings::new(name, settings, tls.clone()))),
            tls,
            watch: Mutex::new(watch),
            drain: Drain::new(),
            open: AtomicUsize::new(0),
        })
    }

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

    /// Whether a socket at `address` would share connections with this listener, or could not be bound for it.
    fn collides(&self, address: SocketAddr) -> bool {
        config::collide(self.address, address)
    }

    /// Whether a socket of it has not been closed yet.
    fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }

    fn adopt(&self, settings: Arc<Listener>, certified: Option<Certified>) {
        if let (Some(tls), Some(Certified { certificates, clients, watch })) = (&self.tls, certified) {
            tls.store().replace(&certificates, settings.unknown_sni);
            if let Err(error) = tls.set_rules(settings.tls_min_version, clients) {
                tracing::error!(listener = %self.name, %error, "cannot change the rules of tls");
            }
            *self.watch.lock() = Some(watch);
        }
        self.settings.store(Arc::new(edge::Settings::new(&self.name, &settings, self.tls.clone())));
        self.config.store(settings);
    }
}

// === impl Open ===

impl Open {
    fn new(listening: Arc<Listening>) -> Self {
        listening.open.fetch_add(1, Ordering::SeqCst);
        let hold = listening.drain.hold();
        Self { listening, _hold: hold }
    }

    /// Whose socket it is.
    pub(super) fn listening(&self) -> &Arc<Listening> {
        &self.listening
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listening.open.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl Listeners ===

impl Listeners {
    /// The listeners that serve.
    pub fn serving(&self) -> Vec<Arc<Listening>> {
        self.by_name.lock().values().cloned().collect()
    }

    /// Binds and loads what a configuration asks for, beside what serves.
    pub(super) fn prepare(&self, config: &Config, state: &Path, workers: usize, wrong: &mut Vec<Finding>) -> Prepared {
        let mut serving = self.by_name.lock().clone();
        let draining = self.draining.lock().clone();
        let (mut prepared, mut wanted) = (Prepared::default(), Vec::new());
        for (name, settings) in &config.listener {
            let certified = settings.tls.as_ref().map(|tls| Certified::load(name, settings, tls, state, wrong));
            match serving.entry(name.clone()) {
                Entry::Occupied(same) if same.get().fits(settings) => {
                    let listening = same.remove();
                    prepared.kept.push(Kept { listening, settings: Arc::new(settings.clone()), certified });
                }
                _ => wanted.push((name, settings, certified)),
            }
        }
        prepared.gone = serving.into_values().collect();
        for (name, settings, certified) in wanted {
            let reserved = prepared.reserve(settings.address, workers, &draining);
            let new = reserved.and_then(|sockets| Ok((Listening::new(name, settings, certified, &sockets)?, sockets)));
            match new {
                Ok((listening, sockets)) => prepared.new.push((Arc::new(listening), sockets)),
                Err(message) => wrong.push(Finding::new(format!("listener.{name}.address"), message)),
            }
        }
        prepared
    }

    /// Serves what was prepared, and drains what is gone. Returns the listeners on whose sockets the system did not let us
    /// listen, each at its address's key, for the caller to tell: such a listener does not serve, the one that it was to replace
    /// serves on, and the next configuration tries again.
    pub(super) async fn commit(&self, prepared: Prepared, workers: &[mpsc::Sender<Command>]) -> Vec<Finding> {
        let Prepared { kept, new, mut gone } = prepared;
        for Kept { listening, settings, certified } in kept {
            listening.adopt(settings, certified);
        }
        let mut deaf = Vec::new();
        for (listening, sockets) in new {
            let listened = sockets.iter().try_for_each(|socket| edge::listen(socket, listening.backlog));
            match listened {
                Ok(()) => self.serve(listening, sockets, workers).await,
                Err(error) => {
                    gone.retain(|old| old.name != listening.name);
                    let message = format!("cannot listen on {}: {error}", listening.address);
                    deaf.push(Finding::new(format!("listener.{}.address", listening.name), message));
                }
            }
        }
        for listening in gone {
            self.leave(listening);
        }
        deaf
    }

    async fn serve(&self, listening: Arc<Listening>, sockets: Vec<TcpListener>, workers: &[mpsc::Sender<Command>]) {
        for (worker, tcp) in workers.iter().zip(sockets) {
            let socket = Socket { tcp, open: Open::new(listening.clone()) };
            let _ = worker.send(Command::Serve(socket)).await;
        }
        tracing::info!(listener = %listening.name, address = %listening.address, "listening");
        self.by_name.lock().insert(listening.name.to_string(), listening);
    }

    fn leave(&self, listening: Arc<Listening>) {
        tracing::info!(listener = %listening.name, address = %listening.address, "listener drains");
        listening.drain.start();
        let mut by_name = self.by_name.lock();
        if by_name.get(&*listening.name).is_some_and(|serving| Arc::ptr_eq(serving, &listening)) {
            by_name.remove(&*listening.name);
        }
        self.draining.lock().push(listening);
    }

    /// Drops drained listeners, tells the others who has taken their place, and swaps certificates whose files have changed. Called
    /// a few times a second.
    pub(super) fn tick(&self, state: &Path) {
        let serving = self.serving();
        let mut draining = self.draining.lock();
        draining.retain(|listening| listening.drain.held() > 0);
        for (left, tls) in draining.iter().filter_map(|left| Some((left, left.tls.as_ref()?))) {
            let successor = serving.iter().find(|listening| listening.name == left.name);
            tls.succeeded_by(successor.and_then(|listening| listening.tls.as_deref()));
        }
        drop(draining);
        for listening in serving {
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

// === impl Prepared ===

impl Prepared {
    /// One socket a worker at `address`, if no listener that stays or was prepared before is there. Those that go may be.
    fn reserve(
        &self,
        address: SocketAddr,
        workers: usize,
        draining: &[Arc<Listening>],
    ) -> Result<Vec<TcpListener>, String> {
        let kept = self.kept.iter().map(|kept| &kept.listening);
        let mut beside = kept.chain(self.new.iter().map(|(listening, _)| listening));
        if let Some(other) = beside.find(|listening| listening.collides(address)) {
            return Err(format!("`{address}` collides with `{}` of `listener.{}`", other.address, other.name));
        }
        let mut going = self.gone.iter().chain(draining);
        let held = going.any(|listening| listening.is_open() && listening.collides(address));
        reserve_all(address, workers, held).map_err(|error| format!("cannot listen on {address}: {error}"))
    }
}

// === impl Certified ===

impl Certified {
    fn load(name: &str, settings: &Listener, tls: &Tls, state: &Path, wrong: &mut Vec<Finding>) -> Self {
        let mut watch = certs::CertWatch::new(tls, settings.client_certificates.as_ref());
        let certificates = load(name, tls, state, wrong);
        watch.loaded(&certificates);
        Self { certificates, clients: load_clients(name, settings, wrong), watch }
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
    let loaded = certs::load(tls, state, now).and_then(|certificates| {
        Ok((certificates, settings.client_certificates.as_ref().map(ClientAuth::load).transpose()?))
    });
    match loaded {
        Ok((certificates, clients)) => {
            server.store().replace(&certificates, settings.unknown_sni);
            watch.loaded(&certificates);
            if let Err(error) = server.set_rules(settings.tls_min_version, clients) {
                tracing::error!(listener = %listening.name, %error, "cannot change the rules of tls");
            }
            tracing::info!(listener = %listening.name, "certificates swapped");
        }
        Err(error) => {
            watch.refused(now);
            tracing::warn!(listener = %listening.name, %error, "new certificates refused, the old ones serve on");
        }
    }
}

fn load(name: &str, tls: &Tls, state: &Path, wrong: &mut Vec<Finding>) -> Vec<Certificate> {
    certs::load(tls, state, SystemTime::now()).unwrap_or_else(|error| {
        wrong.push(Finding::new(format!("listener.{name}.tls"), error.to_string()));
        Vec::new()
    })
}

fn load_clients(name: &str, settings: &Listener, wrong: &mut Vec<Finding>) -> Option<Arc<ClientAuth>> {
    let loaded = ClientAuth::load(settings.client_certificates.as_ref()?);
    let key = || format!("listener.{name}.client_certificates.ca");
    loaded.map_err(|error| wrong.push(Finding::new(key(), error.to_string()))).ok()
}

/// One socket a worker on the same port, none of which listens yet: the configuration may still be refused, and closing a
/// socket that listens resets whoever waits in its queue. `held`: a listener of ours has the port, and is about to let
/// go of it.
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
        if let Some(tls @ Tls::Files(_)) = &settings.tls {
            load(name, tls, state, &mut wrong);
        }
        load_clients(name, settings, &mut wrong);
    }
    wrong
}
