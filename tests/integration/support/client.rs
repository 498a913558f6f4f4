//! HTTP/1.1 and HTTP/2 clients on one connection each, so that a broken connection is seen as such.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::PATIENCE;

/// What a query's body is.
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// A connection to the gateway.
pub struct Client {
    sender: Sender,
    authority: String,
}

#[derive(Clone)]
enum Sender {
    H1(Arc<tokio::sync::Mutex<http1::SendRequest<Full<Bytes>>>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.text()))
    }

    /// The status, and the body as JSON.
    pub fn told(&self) -> (u16, Value) {
        (self.status, self.json())
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Client {
    /// Over TLS to `address`, trusting the authority in `ca`, asking for `name`.
    pub async fn tls(address: SocketAddr, ca: &Path, name: &str, h2: bool) -> Result<Self> {
        let alpn: &[u8] = if h2 { b"h2" } else { b"http/1.1" };
        let stream = tls_stream(address, ca, name, alpn).await?;
        let authority = format!("{name}:{}", address.port());
        let sender = if h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Sender::H2(sender)
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection.with_upgrades());
            Sender::H1(Arc::new(tokio::sync::Mutex::new(sender)))
        };
        Ok(Self { sender, authority })
    }

    /// Without TLS, HTTP/1.1.
    pub async fn plain(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender: Sender::H1(Arc::new(tokio::sync::Mutex::new(sender))), authority: address.to_string() })
    }

    /// The same connection once more: HTTP/2 runs them beside each other, HTTP/1.1 one after another.
    pub fn share(&self) -> Self {
        Self { sender: self.sender.clone(), authority: self.authority.clone() }
    }

    /// Sends a request and returns the answer's head with its body still to come.
    pub async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<http::Response<hyper::body::Incoming>> {
        let mut request = http::Request::builder().method(method);
        let h2 = matches!(self.sender, Sender::H2(_));
        request = if h2 { request.uri(format!("https://{}{path}", self.authority)) } else { request.uri(path) };
        if !h2 && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", &self.authority);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        match &mut self.sender {
            Sender::H1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await.context("connection is closed")?;
                Ok(sender.send_request(request).await?)
            }
            Sender::H2(sender) => {
                sender.ready().await.context("connection is closed")?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Sends a request and reads the answer to its end. Bounded, so that a gateway that hangs fails a test and not the run.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let whole = async {
            let response = self.open(method, path, headers, body).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.context("body broke off")?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        timeout(3 * PATIENCE, whole).await.context("no whole answer")?
    }

    /// GET.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.send("GET", path, &[], "").await
    }

    /// JSON by POST, with more headers.
    pub async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Answer> {
        self.send("POST", path, &[headers, &[JSON]].concat(), body.to_string()).await
    }

    /// A statement in the `json` dialect at `/query`.
    pub async fn query(&mut self, sql: &str, params: Value) -> Result<Answer> {
        self.post("/query", &[], &json!({ "sql": sql, "params": params })).await
    }
}

/// A TLS stream to the gateway, for raw bytes.
pub async fn tls_stream(address: SocketAddr, ca: &Path, name: &str, alpn: &[u8]) -> Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned())?, stream);
    Ok(timeout(PATIENCE, handshake).await.context("no handshake")??)
}
