//! An HTTP service, its endpoints and connections.

use std::sync::{Arc, atomic::Ordering};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::time::{Duration, Instant};

use super::{connection::Connection, endpoint::Endpoint, gate::Gate, idle::Stacks};
use crate::{
    config::model::{self, HostHeader, UpstreamTls},
    net::{self, ClientConfig, Verify},
};

/// An HTTP service. Shared by all workers, kept over reloads while its endpoints and TLS stay the same.
pub struct Upstream {
    name: Arc<str>,
    pub(super) endpoints: Box<[Arc<Endpoint>]>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    identity: Identity,
    live: ArcSwap<Live>,
    pub(super) gate: Arc<Gate<Connection>>,
    pub(super) idle: Stacks<Connection>,
}

/// What makes it the same service: endpoints, TLS, and what the CA file holds.
type Identity = (Vec<String>, UpstreamTls, Option<[u8; 32]>);

/// The settings that a reload changes in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) max_connections: u32,
    pub(super) queue_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) send_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) fail_timeout: Duration,
    pub(super) upgrade_idle_timeout: Duration,
    pub(super) host: HostHeader,
}

/// Why an upstream cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// There is nothing to forward to.
    #[error("upstream `{0}` has no endpoints")]
    NoEndpoints(String),
    /// An endpoint is not one.
    #[error("upstream `{upstream}`: {reason}")]
    Endpoint {
        /// The upstream.
        upstream: String,
        /// What is wrong.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("upstream `{upstream}`: {source}")]
    Tls {
        /// The upstream.
        upstream: String,
        /// What is wrong.
        source: net::TlsError,
    },
}

/// How an upstream is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Connections it may have open.
    pub max_connections: u32,
    /// Connections open, or being opened or closed.
    pub open: usize,
    /// Of these, unused.
    pub idle: usize,
    /// Of these, in use, or being opened or closed.
    pub in_use: usize,
    /// Requests waiting for one.
    pub waiting: usize,
    /// Each endpoint.
    pub endpoints: Vec<EndpointStatus>,
}

/// How an endpoint is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    /// `host:port`.
    pub address: Arc<str>,
    /// Connections open to it.
    pub open: usize,
    /// Of these, unused.
    pub idle: usize,
    /// Milliseconds for which it will still be passed over; 0: it is not.
    pub failed_for_ms: u64,
    /// Requests sent to it, first tries and second.
    pub requests: u64,
    /// Failed connects, and fresh connections without a valid answer.
    pub failures: u64,
}

impl Upstream {
    /// An upstream without connections; they are opened as requests come.
    ///
    /// # Errors
    /// There are no endpoints, one is malformed, or the CA file cannot be used. The file is read here.
    pub fn new(name: &str, config: &model::Upstream) -> Result<Arc<Self>, UpstreamError> {
        let mut endpoints = Vec::with_capacity(config.endpoints.len());
        for text in &config.endpoints {
            let endpoint = Endpoint::parse(text, config.tls.server_name.as_deref())
                .map_err(|reason| UpstreamError::Endpoint { upstream: name.to_owned(), reason })?;
            endpoints.push(Arc::new(endpoint));
        }
        if endpoints.is_empty() {
            return Err(UpstreamError::NoEndpoints(name.to_owned()));
        }
        // Before the file is read for use: should it change in between, the next reload notices.
        let identity = identity(config);
        let encrypted = endpoints.iter().any(|endpoint| endpoint.tls_name.is_some());
        let tls = encrypted
            .then(|| net::client_tls(&config.tls, Verify::Full, &[b"http/1.1"]))
            .transpose()
            .map_err(|source| UpstreamError::Tls { upstream: name.to_owned(), source })?;
        Ok(Arc::new(Self {
            name: name.into(),
            tls,
            identity,
            live: ArcSwap::from_pointee(Live::of(config)),
            gate: Gate::new(config.max_connections, config.queue),
            idle: Stacks::new(endpoints.len()),
            endpoints: endpoints.into(),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether a new configuration describes the same service, so that [`Upstream::reconfigure`] will do. Otherwise a new
    /// upstream takes its place, and this one ends with its last request. Reads the CA file again, to notice that it has changed.
    pub fn is_same_service(&self, config: &model::Upstream) -> bool {
        self.identity == identity(config)
    }

    /// Takes over everything but endpoints and TLS. A lower cap takes no connection away from a request.
    pub fn reconfigure(&self, config: &model::Upstream) {
        self.live.store(Arc::new(Live::of(config)));
        self.gate.resize(config.max_connections, config.queue);
        self.shed();
    }

    /// Closes idle connections that are too old, dead, or above the cap. Called once a second, from any thread.
    pub fn sweep(&self, now: Instant) {
        drop(self.idle.sweep(now, self.live().idle_timeout));
        self.shed();
    }

    /// Closes idle connections above a cap that was lowered.
    fn shed(&self) {
        let over = self.gate.open().saturating_sub(self.live().max_connections as usize);
        for _ in 0..over {
            if self.idle.pop_any(|_| true).is_none() {
                break;
            }
        }
    }

    /// How it is doing.
    pub fn status(&self, now: Instant) -> UpstreamStatus {
        let figures = self.idle.figures(self.endpoints.len());
        let open = self.gate.open();
        let idle = figures.iter().map(|(idle, _)| idle).sum::<usize>().min(open);
        let endpoint = |(endpoint, (idle, requests)): (&Arc<Endpoint>, (usize, u64))| EndpointStatus {
            address: endpoint.name.clone(),
            open: endpoint.open.load(Ordering::Relaxed),
            idle,
            failed_for_ms: u64::try_from(endpoint.failed_for(now).as_millis()).unwrap_or(u64::MAX),
            requests,
            failures: endpoint.failures(),
        };
        UpstreamStatus {
            name: self.name.clone(),
            max_connections: self.live().max_connections,
            open,
            idle,
            in_use: open - idle,
            waiting: self.gate.waiting(),
            endpoints: self.endpoints.iter().zip(figures).map(endpoint).collect(),
        }
    }

    pub(super) fn live(&self) -> Live {
        **self.live.load()
    }
}

fn identity(config: &model::Upstream) -> Identity {
    (config.endpoints.clone(), config.tls.clone(), config.tls.ca_digest())
}

impl Live {
    fn of(config: &model::Upstream) -> Self {
        Self {
            max_connections: config.max_connections,
            queue_timeout: config.queue_timeout.0,
            connect_timeout: config.connect_timeout.0,
            send_timeout: config.send_timeout.0,
            read_timeout: config.read_timeout.0,
            idle_timeout: config.idle_timeout.0,
            fail_timeout: config.fail_timeout.0,
            upgrade_idle_timeout: config.upgrade_idle_timeout.0,
            host: config.host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::certs::Authority;

    #[test]
    fn another_ca_in_the_same_file_makes_another_service() {
        let directory = tempfile::tempdir().unwrap();
        let ca = |name: &str| {
            let authority = Authority::open(&directory.path().join(name), std::time::SystemTime::now());
            authority.unwrap().path()
        };
        let (first, second) = (ca("first"), ca("second"));
        let file = directory.path().join("ca.pem");
        std::fs::copy(first, &file).unwrap();
        let table = serde_json::json!({ "endpoints": ["https://localhost:1"], "tls": { "ca": file } });
        let config: model::Upstream = serde_json::from_value(table).unwrap();
        let upstream = Upstream::new("u", &config).unwrap();
        assert!(upstream.is_same_service(&config));
        std::fs::copy(second, &file).unwrap();
        assert!(!upstream.is_same_service(&config));
    }
}
