//! One request's line in the access log, and its share of the figures.
//!
//! An [`Entry`] begins with the request and is written when the last byte of the answer has gone, the body has broken off,
//! or the client has left: whoever drops it, it is written once. Status 499 (nginx's) stands for a client who left before
//! there was an answer.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method, Version, header, uri::PathAndQuery};
use tokio::time::Instant;

use crate::{
    access::Identity,
    edge::{Peer, Refusal},
    observe::{
        access_log::{Line, Lines},
        figures::RouteFigures,
        trace::Trace,
    },
    proxy,
};

/// Where a request came from and what it asked, kept until its line is written.
pub(super) struct Entry {
    lines: Arc<Lines>,
    started: Instant,
    wall: SystemTime,
    /// The request's number in this process.
    pub(super) id: u64,
    /// The trace it belongs to.
    pub(super) trace: Trace,
    peer: Arc<Peer>,
    client: IpAddr,
    method: Method,
    target: Option<PathAndQuery>,
    host: Arc<str>,
    version: Version,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    route: Option<(Arc<str>, Arc<RouteFigures>)>,
    /// Kept until the answer is sent: the consumer's count of requests under way goes by it.
    identity: Option<Identity>,
    /// What became of it upstream.
    pub(super) forwarded: Option<(Arc<str>, proxy::Outcome)>,
    /// Why it was refused or failed, in a word.
    pub(super) reason: Option<&'static str>,
    status: u16,
    bytes: u64,
    complete: bool,
}

/// What an entry begins with.
pub(super) struct Beginning<'a> {
    pub(super) id: u64,
    pub(super) peer: &'a Arc<Peer>,
    pub(super) client: IpAddr,
    pub(super) method: &'a Method,
    pub(super) target: Option<&'a PathAndQuery>,
    pub(super) host: &'a Arc<str>,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
}

impl Entry {
    pub(super) fn begin(lines: Arc<Lines>, of: Beginning<'_>) -> Box<Self> {
        Box::new(Self {
            lines,
            started: Instant::now(),
            wall: SystemTime::now(),
            id: of.id,
            trace: Trace::of(of.headers),
            peer: of.peer.clone(),
            client: of.client,
            method: of.method.clone(),
            target: of.target.cloned(),
            host: of.host.clone(),
            version: of.version,
            user_agent: of.headers.get(header::USER_AGENT).cloned(),
            referer: of.headers.get(header::REFERER).cloned(),
            route: None,
            identity: None,
            forwarded: None,
            reason: None,
            status: 499,
            bytes: 0,
            complete: false,
        })
    }

    /// Writes the line of a request that the edge has answered by itself.
    pub(super) fn refused(lines: Arc<Lines>, id: u64, client: IpAddr, refusal: &Refusal<'_>) {
        let head = refusal.head;
        let written = head.headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
        let host = head.uri.authority().map(|authority| authority.as_str().into()).or(written).unwrap_or_default();
        let beginning = Beginning {
            id,
            peer: refusal.peer,
            client,
            method: &head.method,
            target: head.uri.path_and_query(),
            host: &Arc::from(host),
            version: head.version,
            headers: &head.headers,
        };
        let mut entry = Self::begin(lines, beginning);
        entry.reason = Some(refusal.reason);
        entry.answered(refusal.response.status().as_u16());
        entry.sent(refusal.response.body().len().unwrap_or(0), true);
    }

    /// The route is known: its figures count from now on.
    pub(super) fn routed(&mut self, name: &Arc<str>, figures: &Arc<RouteFigures>) {
        figures.begin();
        self.route = Some((name.clone(), figures.clone()));
    }

    /// The caller is known.
    pub(super) fn called_by(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// There is an answer, whose body is still to be sent.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// Its body has ended, well or not.
    pub(super) fn sent(mut self: Box<Self>, bytes: u64, complete: bool) {
        self.bytes = bytes;
        self.complete = complete;
    }

    fn write(&self, line: &mut Line<'_>, took: Duration) {
        line.time("time", self.wall);
        line.address("client", self.client);
        line.socket("peer", self.peer.socket);
        line.text("listener", &self.peer.listener);
        line.text("method", self.method.as_str());
        line.text("host", &self.host);
        line.text("path", self.target.as_ref().map_or("", PathAndQuery::as_str));
        line.text("protocol", protocol(self.version));
        line.number("status", self.status.into());
        line.number("bytes", self.bytes);
        line.number("duration_us", micros(took));
        if !self.complete {
            line.truth("complete", false);
        }
        if let Some((name, _)) = &self.route {
            line.text("route", name);
        }
        if let Some(identity) = &self.identity {
            line.text("consumer", identity.consumer.name());
        }
        if let Some((upstream, forwarded)) = &self.forwarded {
            self.write_forwarded(line, upstream, forwarded);
        }
        if let Some(reason) = self.reason {
            line.text("reason", reason);
        }
        if let Some(tls) = &self.peer.tls {
            line.text("tls", tls.version);
            line.text("cipher", tls.cipher);
            if let Some(sni) = &tls.sni {
                line.text("sni", sni);
            }
        }
        field(line, "user_agent", self.user_agent.as_ref());
        field(line, "referer", self.referer.as_ref());
        line.number("request", self.id);
        line.id("trace_id", self.trace.trace_id);
    }

    fn write_forwarded(&self, line: &mut Line<'_>, upstream: &str, forwarded: &proxy::Outcome) {
        line.text("upstream", upstream);
        if let Some(endpoint) = &forwarded.endpoint {
            line.text("endpoint", endpoint);
        }
        if let Some(connect) = forwarded.connect_us {
            line.number("connect_us", connect.into());
        }
        if let Some(ttfb) = forwarded.ttfb_us {
            line.number("ttfb_us", ttfb.into());
        }
        if forwarded.retried {
            line.truth("retried", true);
        }
        if let (Some(reason), None) = (forwarded.reason, self.reason) {
            line.text("reason", reason);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        if let Some((_, figures)) = &self.route {
            figures.end(self.status, took, self.bytes, self.complete);
        }
        if self.lines.enabled() {
            self.lines.add(|line| self.write(line, took));
        }
    }
}

fn field(line: &mut Line<'_>, key: &str, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        line.text(key, &String::from_utf8_lossy(value.as_bytes()));
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        edge::{Authority, Context, problem},
        observe::access_log::AccessLog,
    };

    #[test]
    fn what_the_edge_refuses_has_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let writer = AccessLog::open(file.to_str().unwrap()).unwrap();
        let request = http::Request::get("/a?b").header("host", "other.test").header("user-agent", "probe");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let context = Context::for_host(Authority::none());
        let response = problem(http::StatusCode::MISDIRECTED_REQUEST, "", "elsewhere");
        let refusal = Refusal { head: &head, peer: &context.peer, reason: "misdirected", response: &response };
        Entry::refused(Arc::new(writer.log().lines()), 7, context.peer.socket.ip(), &refusal);
        assert!(writer.finish(Duration::from_secs(20)));
        let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let said = |key: &str| line[key].as_str().unwrap().to_owned();
        assert_eq!((line["status"].as_u64(), line["request"].as_u64()), (Some(421), Some(7)));
        assert_eq!([said("reason"), said("host"), said("path")], ["misdirected", "other.test", "/a?b"]);
        assert_eq!([said("method"), said("client"), said("user_agent")], ["GET", "127.0.0.1", "probe"]);
        assert_eq!(line["bytes"].as_u64(), response.body().len());
    }
}
