//! The proxy against servers of all kinds, on loopback.

mod cap;
mod exchange;
mod faults;
mod origin;
mod tunnel;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::*;
use crate::edge::{self, RequestBody};
use origin::Origin;

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
    let tunnels = Arc::default();
    within(forward(request, upstream, &Forward::new("http", 80, &tunnels))).await
}

/// A request body that the test feeds; `abort` makes it fail.
struct Feeder(Option<tokio::sync::mpsc::Sender<Result<Bytes, edge::BodyError>>>);

impl Feeder {
    async fn send(&mut self, piece: impl Into<Bytes>) {
        self.0.as_ref().unwrap().send(Ok(piece.into())).await.unwrap();
    }

    async fn abort(mut self) {
        self.0.take().unwrap().send(Err(edge::BodyError::TooLarge)).await.unwrap();
    }
}

fn streaming() -> (Feeder, RequestBody) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    let pieces = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames = futures_util::StreamExt::map(pieces, |piece: Result<Bytes, _>| piece.map(http_body::Frame::data));
    (Feeder(Some(sender)), RequestBody::any(http_body_util::StreamBody::new(frames)))
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
