//! One connection, from its first byte to its last.

use std::{pin::Pin, rc::Rc, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    EdgeCounters, Handler, Peer,
    accept::{Arrival, Service},
    admit::Admission,
    deadline::{Cause, FRESH_GRACE},
    farewell::{self, SPEAK_HTTPS, TOO_SLOW},
    gather::gather,
    io::{Io, Socket},
    keeper::{Keeper, Outcome},
    service::Desk,
    settings::Settings,
    watch::{Flight, Watch},
};
use crate::net::{HandshakeFailure, ServerTls, TlsInfo, accept_tls};

/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 22;

/// Serves a connection to its end.
pub(super) async fn serve<H: Handler>(arrival: Arrival, service: Rc<Service<H>>) {
    let watch = Arc::new(Watch::new(Instant::now(), service.counters.clone()));
    let settings = service.settings.load_full();
    let Arrival { tcp, client, local, permit, hold } = arrival;
    let socket = Socket::new(tcp, watch.clone(), permit, hold);
    let opened = match settings.tls.clone() {
        Some(tls) => open_tls(socket, &watch, &settings, &tls, &service).await,
        None => open_plain(socket, &watch, &settings, &service).await,
    };
    let Some(opened) = opened else { return };
    let peer = Peer {
        socket: client,
        local,
        tls: opened.tls.map(Arc::new),
        listener: settings.name.clone(),
        drain: service.drain.clone(),
    };
    if opened.http2 {
        watch.set_http2();
    }
    let desk = Rc::new(Desk {
        handler: service.handler.clone(),
        admission: Admission::new(Arc::new(peer), settings.max_headers, opened.http2, settings.tls.clone()),
        pace: settings.pace(),
        http2: opened.http2,
    });
    let keeper = Keeper::new(&watch, settings.deadlines(opened.ready_at), &service.drain);
    if opened.http2 {
        run_http2(opened.io, desk, &settings, &watch, keeper).await;
    } else {
        run_http1(opened.io, desk, &settings, &watch, keeper).await;
    }
}

// === opening ===

/// A connection that is ready for requests.
struct Opened {
    io: Io,
    tls: Option<TlsInfo>,
    http2: bool,
    /// When it became ready, in the watch's time.
    ready_at: u64,
}

async fn open_tls<H>(
    socket: Socket,
    watch: &Arc<Watch>,
    settings: &Settings,
    tls: &ServerTls,
    service: &Service<H>,
) -> Option<Opened> {
    let counters = &watch.counters;
    let deadline = watch.base() + settings.handshake_timeout;
    match first_bytes(&socket, deadline, service).await {
        First::Bytes([TLS_HANDSHAKE, ..]) => {}
        First::Bytes([b'A'..=b'Z', ..]) => {
            EdgeCounters::bump(&counters.handshake_plain_http);
            tracing::debug!("plain HTTP on a TLS port");
            farewell::say(SPEAK_HTTPS, Io::plain(socket, watch.clone())).await;
            return None;
        }
        First::Bytes(_) => {
            counters.handshake(HandshakeFailure::Malformed);
            tracing::debug!("neither TLS nor HTTP on a TLS port");
            return None;
        }
        First::Closed => {
            counters.handshake(HandshakeFailure::Closed);
            return None;
        }
        First::Late => {
            counters.handshake(HandshakeFailure::Timeout);
            return None;
        }
        First::Drained => return None,
    }
    match accept_tls(socket, tls, deadline).await {
        Ok((stream, info)) => Some(Opened {
            io: Io::tls(stream, watch.clone()),
            http2: info.alpn == Some("h2"),
            tls: Some(info),
            ready_at: watch.now(),
        }),
        Err(error) => {
            counters.handshake(error.kind);
            tracing::debug!(kind = ?error.kind, error = %error.source, "TLS handshake failed");
            None
        }
    }
}

async fn open_plain<H>(
    socket: Socket,
    watch: &Arc<Watch>,
    settings: &Settings,
    service: &Service<H>,
) -> Option<Opened> {
    let deadline = watch.base() + settings.header_timeout();
    let http2 = match first_bytes(&socket, deadline, service).await {
        // The preface of HTTP/2 with prior knowledge; no HTTP/1 method is spelled so.
        First::Bytes(bytes) => bytes == *b"PRI ",
        First::Late => {
            EdgeCounters::bump(&watch.counters.timeout_first_request);
            return None;
        }
        First::Closed | First::Drained => return None,
    };
    Some(Opened { io: Io::plain(socket, watch.clone()), tls: None, http2, ready_at: 0 })
}

/// How a connection begins.
enum First {
    /// With up to four bytes, zeros after them.
    Bytes([u8; 4]),
    Closed,
    Late,
    Drained,
}

/// Looks at the first bytes and leaves them.
async fn first_bytes<H>(socket: &Socket, deadline: Instant, service: &Service<H>) -> First {
    let mut bytes = [0; 4];
    let drained = async {
        service.drain.started().await;
        sleep(Duration::from_millis(FRESH_GRACE)).await;
    };
    let peeked = async {
        tokio::select! {
            biased;
            peeked = socket.tcp().peek(&mut bytes) => Some(peeked),
            () = drained => None,
        }
    };
    match timeout_at(deadline, peeked).await {
        Ok(Some(Ok(1..))) => First::Bytes(bytes),
        Ok(Some(_)) => First::Closed,
        Ok(None) => First::Drained,
        Err(_) => First::Late,
    }
}

// === serving ===

async fn run_http1<H: Handler>(io: Io, desk: Rc<Desk<H>>, settings: &Settings, watch: &Arc<Watch>, keeper: Keeper<'_>) {
    let arrivals = watch.clone();
    let answer = service_fn(move |request| desk.clone().serve(request, Flight::new(&arrivals)));
    let mut connection = settings.http1.serve_connection(TokioIo::new(io), answer).with_upgrades();
    let outcome = keeper.keep(Pin::new(&mut connection), http1::UpgradeableConnection::graceful_shutdown).await;
    let refused = matches!(&outcome, Outcome::Ended(Err(error)) if error.is_parse());
    if refused {
        EdgeCounters::bump(&watch.counters.rejected);
    }
    settle(&outcome, watch);
    let Some(io) = connection.into_parts().map(|parts| parts.io.into_inner()) else { return };
    match outcome {
        Outcome::Cut(Cause::Header) => farewell::say(TOO_SLOW, io).await,
        Outcome::Ended(_) if refused || watch.has_unread() => farewell::linger(io.into_socket()).await,
        _ => {}
    }
}

async fn run_http2<H: Handler>(io: Io, desk: Rc<Desk<H>>, settings: &Settings, watch: &Arc<Watch>, keeper: Keeper<'_>) {
    let arrivals = watch.clone();
    let answer = service_fn(move |request| desk.clone().serve(request, Flight::new(&arrivals)));
    let mut connection = gather(io, |io| settings.http2(watch).serve_connection(TokioIo::new(io), answer));
    let outcome =
        keeper.keep(Pin::new(&mut connection), |sending| sending.get_mut().connection().graceful_shutdown()).await;
    settle(&outcome, watch);
}

fn settle(outcome: &Outcome, watch: &Watch) {
    let counters = &watch.counters;
    match outcome {
        Outcome::Ended(Ok(())) => {}
        Outcome::Ended(Err(error)) => {
            EdgeCounters::bump(&counters.broken);
            tracing::debug!(error = %Chain(error), "connection broke");
        }
        Outcome::Cut(cause) => {
            EdgeCounters::bump(match cause {
                Cause::FirstRequest => &counters.timeout_first_request,
                Cause::Header => &counters.timeout_header,
                Cause::Write => &counters.timeout_write,
                Cause::Window => &counters.timeout_window,
                _ => &counters.timeout_closing,
            });
            tracing::debug!(?cause, "connection cut");
        }
    }
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
