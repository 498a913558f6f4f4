//! The proxy against servers of all kinds, on loopback.

mod cap;
mod exchange;
mod faults;
mod front;
mod origin;
mod tunnel;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::*;
use crate::{
    access::{Consumers, Shown},
    edge::{self, Authority, RequestBody},
};
use front::streaming;
use origin::Origin;

/// Where requests come from.
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// An upstream with these origins, and settings beyond.
fn upstream(origins: &[&Origin], settings: &str) -> Arc<Upstream> {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("http://{}", origin.address)).collect();
    upstream_at(&addresses, settings)
}

fn upstream_at(endpoints: &[String], settings: &str) -> Arc<Upstream> {
    let mut text = String::new();
    write!(text, "endpoints = {endpoints:?}\n{settings}").unwrap();
    Upstream::new("test", &toml_edit::de::from_str(&text).unwrap()).unwrap()
}

fn request(method: Method, path: &str, body: RequestBody) -> edge::Request {
    http::Request::builder().method(method).uri(path).header("host", "www.example.com").body(body).unwrap()
}

fn get(path: &str) -> edge::Request {
    request(Method::GET, path, RequestBody::empty())
}

/// Forwards a request and reads the answer to its end.
async fn fetch(upstream: &Arc<Upstream>, request: edge::Request) -> (StatusCode, Bytes, Outcome) {
    let (response, outcome) = send(upstream, request).await;
    let status = response.status();
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    (status, body, outcome)
}

async fn send(upstream: &Arc<Upstream>, request: edge::Request) -> (edge::Response, Outcome) {
    let (context, tunnels) = (Context::for_host(Authority::none()), Arc::default());
    let context = Forward {
        context: &context,
        client: LOOPBACK,
        trusted: false,
        strip_prefix: None,
        identity: None,
        tunnels: &tunnels,
    };
    within(forward(request, upstream, &context)).await
}

async fn within<F: Future>(what: F) -> F::Output {
    timeout(PATIENCE, what).await.expect("in time")
}

/// Waits until something is so, which other tasks bring about.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// Who shows these fields.
fn known(consumers: &Consumers, headers: &HeaderMap) -> Option<Identity> {
    let shown = Shown {
        headers,
        secret: None,
        certificate: None,
        upstream: true,
        client: LOOPBACK,
        failed: None,
        method: &Method::GET,
    };
    consumers.authenticate(&shown, std::time::SystemTime::now()).unwrap()
}
