//! The gateway and its peers, each a reverse proxy with TLS, an access log and a limit, on one core.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::process::{Server, installed};

/// Where the origin listens.
pub const ORIGIN: u16 = 18_080;

/// A directory with certificates, files and configurations.
pub struct Workshop {
    dir: tempfile::TempDir,
}

/// A reverse proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Sluicegate,
    Nginx,
    HaProxy,
    Caddy,
    Envoy,
}

impl Peer {
    /// Those that are installed, the gateway first. Envoy is looked for at `$ENVOY`.
    pub fn present() -> Vec<Self> {
        let all = [Self::Sluicegate, Self::Nginx, Self::HaProxy, Self::Caddy, Self::Envoy];
        all.into_iter().filter(|peer| peer.is_present()).collect()
    }

    fn is_present(self) -> bool {
        match self {
            Self::Sluicegate => true,
            Self::Envoy => std::env::var_os("ENVOY").is_some() || installed("envoy"),
            other => installed(other.name()),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sluicegate => "sluicegate",
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
        }
    }

    /// Starts it on `port`.
    pub fn start(self, at: &Workshop, port: u16) -> Result<Server> {
        let (command, envs) = match self {
            Self::Sluicegate => (sluicegate(at, port)?, vec![]),
            Self::Nginx => (nginx(at, port)?, vec![]),
            Self::HaProxy => (haproxy(at, port)?, vec![]),
            Self::Caddy => (caddy(at, port)?, vec![("GOMAXPROCS", "1".to_owned())]),
            Self::Envoy => (envoy(at, port)?, vec![]),
        };
        Server::start(&command, crate::MEASURED_CORE, &at.path(&format!("{}.log", self.name())), port, &envs)
    }
}

impl Workshop {
    /// Makes certificates and files.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sluicegate-bench-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let at = Self { dir };
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])?.self_signed(&key)?;
        fs::write(at.path("cert.pem"), certificate.pem())?;
        fs::write(at.path("key.pem"), key.serialize_pem())?;
        fs::write(at.path("both.pem"), certificate.pem() + &key.serialize_pem())?;
        fs::create_dir(at.path("www"))?;
        fs::write(at.path("www/1k"), vec![b'x'; 1 << 10])?;
        fs::write(at.path("www/1m"), vec![b'x'; 1 << 20])?;
        Ok(at)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its own path as text.
    pub fn root(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// An nginx that serves the files.
    pub fn origin(&self) -> Result<Server> {
        let root = self.root();
        let conf = format!(
            "worker_processes 1; daemon off; pid {root}/origin.pid; error_log {root}/origin.err;
events {{ worker_connections 8192; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000; keepalive_timeout 300s; open_file_cache max=100;
server {{ listen 127.0.0.1:{ORIGIN} backlog=4096; root {root}/www; }} }}"
        );
        fs::write(self.path("origin.conf"), conf)?;
        let command =
            words(&["/usr/sbin/nginx", "-e", &format!("{root}/origin.err"), "-c", &format!("{root}/origin.conf")]);
        Server::start(&command, crate::LOAD_CORE, &self.path("origin.log"), ORIGIN, &[])
    }
}

/// The gateway's release build.
pub fn binary() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/sluicegate").display().to_string()
}

/// Words as a command.
pub fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|word| (*word).to_owned()).collect()
}

fn sluicegate(at: &Workshop, port: u16) -> Result<Vec<String>> {
    let root = at.root();
    let conf = format!(
        r#"
[server]
workers = 1
state = "{root}/state"
max_connections_per_address = 10000
[overload]
cpu = 0
[log]
filter = "warn"
access = "{root}/sluicegate.access"
[listener.public]
address = "127.0.0.1:{port}"
tls = [{{ certificate = "{root}/cert.pem", key = "{root}/key.pem" }}]
max_age = "1d"
[upstream.origin]
endpoints = ["http://127.0.0.1:{ORIGIN}"]
[limit.never]
key = "client-address"
rate = "1000000/s"
[[route]]
path = "/"
proxy = {{ upstream = "origin" }}
limits = ["never"]
"#
    );
    fs::write(at.path("sluicegate.toml"), conf)?;
    Ok(words(&[&binary(), "serve", "--config", &format!("{root}/sluicegate.toml")]))
}

fn nginx(at: &Workshop, port: u16) -> Result<Vec<String>> {
    let root = at.root();
    let conf = format!(
        r#"worker_processes 1; daemon off; pid {root}/nginx.pid; error_log {root}/nginx.err;
events {{ worker_connections 8192; }}
http {{ access_log {root}/nginx.access; limit_req_zone $binary_remote_addr zone=z:10m rate=1000000r/s;
limit_req zone=z burst=1000000 nodelay; keepalive_requests 100000000; keepalive_timeout 300s;
upstream o {{ server 127.0.0.1:{ORIGIN}; keepalive 256; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{port} ssl http2 backlog=4096; ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/key.pem;
 ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:10m;
 location / {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
 proxy_set_header X-Forwarded-For $remote_addr; }} }} }}"#
    );
    fs::write(at.path("nginx.conf"), conf)?;
    Ok(words(&["/usr/sbin/nginx", "-e", &format!("{root}/nginx.err"), "-c", &format!("{root}/nginx.conf")]))
}

fn haproxy(at: &Workshop, port: u16) -> Result<Vec<String>> {
    let root = at.root();
    let conf = format!(
        "global
  maxconn 8192
  nbthread 1
  log stdout format raw local0 info
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  http-reuse always
  option forwardfor
frontend f
  bind 127.0.0.1:{port} ssl crt {root}/both.pem alpn h2,http/1.1
  stick-table type ip size 100k expire 30s store http_req_rate(1s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 10000000 }}
  default_backend b
backend b
  server o 127.0.0.1:{ORIGIN} pool-max-conn 256
"
    );
    fs::write(at.path("haproxy.cfg"), conf)?;
    Ok(words(&["haproxy", "-db", "-f", &format!("{root}/haproxy.cfg")]))
}

fn caddy(at: &Workshop, port: u16) -> Result<Vec<String>> {
    let root = at.root();
    let conf = format!(
        "{{
  admin off
  auto_https off
}}
https://localhost:{port}, https://127.0.0.1:{port} {{
  tls {root}/cert.pem {root}/key.pem
  log {{
    output file {root}/caddy.access
  }}
  reverse_proxy 127.0.0.1:{ORIGIN} {{
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}"
    );
    fs::write(at.path("Caddyfile"), conf)?;
    Ok(words(&["caddy", "run", "--config", &format!("{root}/Caddyfile"), "--adapter", "caddyfile"]))
}

fn envoy(at: &Workshop, port: u16) -> Result<Vec<String>> {
    let root = at.root();
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let address = |port: u16| serde_json::json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let limit = serde_json::json!({ "@type": kind("filters.http.local_ratelimit.v3.LocalRateLimit"), "stat_prefix": "l",
        "token_bucket": { "max_tokens": 100_000_000, "tokens_per_fill": 100_000_000, "fill_interval": "1s" },
        "filter_enabled": { "default_value": { "numerator": 100 } }, "filter_enforced": { "default_value": { "numerator": 100 } } });
    let manager = serde_json::json!({
        "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "i",
        "access_log": [{ "name": "f", "typed_config": { "@type": kind("access_loggers.file.v3.FileAccessLog"), "path": format!("{root}/envoy.access") } }],
        "generate_request_id": false, "use_remote_address": true,
        "route_config": { "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "o" } }] }] },
        "http_filters": [{ "name": "envoy.filters.http.local_ratelimit", "typed_config": limit },
            { "name": "envoy.filters.http.router", "typed_config": { "@type": kind("filters.http.router.v3.Router") } }] });
    let tls = serde_json::json!({ "@type": kind("transport_sockets.tls.v3.DownstreamTlsContext"), "common_tls_context": {
        "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [{
            "certificate_chain": { "filename": format!("{root}/cert.pem") }, "private_key": { "filename": format!("{root}/key.pem") } }] } });
    let conf = serde_json::json!({ "static_resources": {
        "listeners": [{ "name": "l", "address": address(port), "filter_chains": [{
            "transport_socket": { "name": "tls", "typed_config": tls },
            "filters": [{ "name": "hcm", "typed_config": manager }] }] }],
        "clusters": [{ "name": "o", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": { "cluster_name": "o", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(ORIGIN) } }] }] },
            "circuit_breakers": { "thresholds": [{ "max_connections": 4096, "max_requests": 8192, "max_pending_requests": 8192 }] } }] } });
    fs::write(at.path("envoy.json"), conf.to_string())?;
    let program = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".into());
    Ok(words(&[
        &program,
        "-c",
        &format!("{root}/envoy.json"),
        "--concurrency",
        "1",
        "--base-id",
        &port.to_string(),
        "-l",
        "warn",
    ]))
}
