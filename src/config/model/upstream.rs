//! Services that requests are forwarded to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::defaults::{five_seconds, half_minute, hour, minute, ten_seconds, three_seconds};
use crate::config::value::{Span, word};

/// `[upstream.NAME]`. All keys are live; changed endpoints or TLS make a new upstream beside the old one's open
/// requests.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `http://host:port` or `https://host:port`, tried in turn.
    pub endpoints: Vec<String>,
    /// Connections open at a time, over all endpoints and workers. Default 256.
    #[serde(default = "upstream_connections")]
    pub max_connections: u32,
    /// Requests that may wait for a connection; more get 503. Default 1024.
    #[serde(default = "upstream_queue")]
    pub queue: u32,
    /// Longest wait for a connection; then 503. Default 5s.
    #[serde(default = "five_seconds")]
    pub queue_timeout: Span,
    /// Longest connect, TLS included. Default 3s.
    #[serde(default = "three_seconds")]
    pub connect_timeout: Span,
    /// Longest pause while sending the request. Default 30s.
    #[serde(default = "half_minute")]
    pub send_timeout: Span,
    /// Longest wait for the head of the answer, and longest pause in its body. Default 60s.
    #[serde(default = "minute")]
    pub read_timeout: Span,
    /// How long an unused connection is kept. Default 60s.
    #[serde(default = "minute")]
    pub idle_timeout: Span,
    /// How long an endpoint that failed is passed over while another is left. Default 10s.
    #[serde(default = "ten_seconds")]
    pub fail_timeout: Span,
    /// Longest silence on an upgraded connection (WebSocket). Default 1h.
    #[serde(default = "hour")]
    pub upgrade_idle_timeout: Span,
    /// `Host` sent: `preserve` the client's (default) or the `endpoint`'s own.
    #[serde(default, deserialize_with = "word")]
    pub host: HostHeader,
    /// TLS to the endpoints.
    #[serde(default)]
    pub tls: UpstreamTls,
}

/// Which `Host` an upstream sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// The endpoint's host and port.
    Endpoint,
}

/// TLS towards an upstream or a database.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// PEM file of the CAs to trust instead of the public ones.
    pub ca: Option<PathBuf>,
    /// Name to verify and send as SNI instead of the endpoint's host.
    pub server_name: Option<String>,
}

fn upstream_connections() -> u32 {
    256
}

fn upstream_queue() -> u32 {
    1024
}
