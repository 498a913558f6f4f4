//! A document fetched over HTTP/1.1: a small client for what the gateway itself needs to know, off every request's path.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{StatusCode, Uri, header, uri::Authority};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::{DialError, Host, Stream, Target, connect_tls, dial};

/// Why a document was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a URL that can be fetched.
    #[error("`{0}` is not a URL of http or https")]
    Url(String),
    /// The server cannot be reached, or is not the one.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server has no document, or another one.
    #[error("{url}: answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// What it said.
        status: StatusCode,
    },
    /// HTTP went wrong, or the document is too large.
    #[error("{url}: {reason}")]
    Broken {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// The deadline passed.
    #[error("{0}: took too long")]
    Timeout(String),
}

/// Gets a document of at most `most` bytes before `deadline`, on a connection of its own. Only a 200 is one: no redirect is followed,
/// since whoever can redirect us could choose what we believe, and where we connect.
///
/// Cancel safe.
///
/// # Errors
/// Why it could not be had.
pub async fn fetch(
    url: &str,
    tls: Arc<ClientConfig>,
    server_name: Option<&str>,
    most: usize,
    deadline: Instant,
) -> Result<Bytes, FetchError> {
    let (secure, authority, path) = parts(url).ok_or_else(|| FetchError::Url(url.to_owned()))?;
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let target = Target { hosts: vec![Host::Tcp(authority.host().to_owned(), port)], keepalive: None };
    let mut stream = dial(&target, deadline).await?;
    if secure {
        stream = connect_tls(stream, tls, server_name.unwrap_or(authority.host()), deadline).await?;
    }
    let request = http::Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("sluicegate/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| FetchError::Url(url.to_owned()))?;
    match timeout_at(deadline, exchange(url, stream, request, most)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(FetchError::Timeout(url.to_owned())),
    }
}

async fn exchange(
    url: &str,
    stream: Stream,
    request: http::Request<Empty<Bytes>>,
    most: usize,
) -> Result<Bytes, FetchError> {
    let broken = |reason: &dyn fmt::Display| FetchError::Broken { url: url.to_owned(), reason: reason.to_string() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(FetchError::Status { url: url.to_owned(), status });
        }
        let body = Limited::new(response.into_body(), most).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| broken(&error))
    };
    // The connection is driven beside what waits for its answer; its own end says nothing that the answer does not.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        outcome = answered => outcome,
        never = driven => never,
    }
}

/// Whether under TLS, whom, and what.
fn parts(url: &str) -> Option<(bool, Authority, String)> {
    let uri: Uri = url.parse().ok()?;
    let secure = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Some((secure, uri.authority()?.clone(), path.to_owned()))
}
