//! One place that an upstream's requests go to, and whose turn it is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use http::{HeaderValue, Uri};
use tokio::time::{Duration, Instant};

use crate::net::Host;

/// An endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// `host:port`, for logs.
    pub(super) name: Arc<str>,
    pub(super) host: Host,
    /// The name to verify, if TLS is spoken.
    pub(super) tls_name: Option<Box<str>>,
    /// What `Host` says if it is the endpoint's; a port that the scheme implies is left out.
    pub(super) host_field: HeaderValue,
    /// Connections open now.
    pub(super) open: AtomicUsize,
    /// Failed connects, and answers that were none.
    failures: AtomicU64,
    /// Milliseconds after `born` until which it is passed over.
    failed_until: AtomicU64,
    born: Instant,
}

impl Endpoint {
    /// Reads `http://host:port` or `https://host:port`. `server_name` is verified instead of the host.
    pub(super) fn parse(text: &str, server_name: Option<&str>) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an endpoint; write it like http://host:port or https://host:port");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        if uri.path() != "/" || uri.query().is_some() || text.ends_with('/') && text.matches('/').count() > 3 {
            return Err(format!("endpoint `{text}`: a path has no meaning here; the request's own is sent"));
        }
        let (host, implied) = (uri.host().ok_or_else(wrong)?, if tls { 443 } else { 80 });
        let port = uri.port_u16().unwrap_or(implied);
        let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
        let whole = authority.as_str() == host || authority.as_str() == format!("{host}:{port}");
        if host.is_empty() || !plain || !whole || port == 0 {
            return Err(wrong());
        }
        let host_text = if port == implied { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Self {
            name: format!("{host}:{port}").into(),
            host: Host::Tcp(host.to_owned(), port),
            tls_name: tls.then(|| server_name.unwrap_or(host).into()),
            host_field: HeaderValue::from_str(&host_text).map_err(|_| wrong())?,
            open: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            failed_until: AtomicU64::new(0),
            born: Instant::now(),
        })
    }

    /// Whether it is passed over while another is left.
    pub(super) fn is_failed(&self, now: Instant) -> bool {
        let until = self.failed_until.load(Ordering::Relaxed);
        until > 0 && until > self.millis(now)
    }

    /// Notes a failure: it is passed over for `span`. True if it was not before.
    pub(super) fn fail(&self, now: Instant, span: Duration) -> bool {
        let was = self.is_failed(now);
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failed_until.store(self.millis(now + span), Ordering::Relaxed);
        !was
    }

    /// Notes that a connection was made.
    pub(super) fn recover(&self) {
        if self.failed_until.load(Ordering::Relaxed) > 0 {
            self.failed_until.store(0, Ordering::Relaxed);
        }
    }

    /// Failures so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How long it will still be passed over.
    pub(super) fn failed_for(&self, now: Instant) -> Duration {
        let left = self.failed_until.load(Ordering::Relaxed).saturating_sub(self.millis(now));
        Duration::from_millis(left)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whose turn it is, of `count`, beginning with `turn`: the first that neither failed nor was tried; else the first that was
/// not tried; none if all were.
pub(super) fn choose(
    turn: usize,
    count: usize,
    failed: impl Fn(usize) -> bool,
    tried: impl Fn(usize) -> bool,
) -> Option<usize> {
    let in_turn = || (0..count).map(|step| (turn + step) % count).filter(|index| !tried(*index));
    in_turn().find(|index| !failed(*index)).or_else(|| in_turn().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let read = |text| Endpoint::parse(text, None).unwrap();
        let web = read("http://web.internal:8080");
        assert_eq!((&*web.name, web.tls_name.is_none()), ("web.internal:8080", true));
        assert_eq!(web.host_field, "web.internal:8080");
        let secure = read("https://web.internal");
        assert_eq!((&*secure.name, secure.tls_name.as_deref()), ("web.internal:443", Some("web.internal")));
        assert_eq!(secure.host_field, "web.internal");
        let v6 = read("http://[::1]:80/");
        assert_eq!((&*v6.name, v6.host_field.to_str().unwrap()), ("[::1]:80", "[::1]"));
        let named = Endpoint::parse("https://10.0.0.1:443", Some("db.example.com")).unwrap();
        assert_eq!(named.tls_name.as_deref(), Some("db.example.com"));
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "web",
            "web:80",
            "ftp://web",
            "http://",
            "http://web/base",
            "http://web?x",
            "http://user@web",
            "http://web:0",
            "http://web:",
            "http://web:99999",
            "unix:/run/x",
            "http://a b",
            "http://web//",
        ] {
            assert!(Endpoint::parse(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn a_failed_endpoint_is_passed_over_for_a_while() {
        let (a, start) = (Endpoint::parse("http://a", None).unwrap(), Instant::now());
        let later = |millis| start + Duration::from_millis(millis);
        assert!(!a.is_failed(start));
        assert!(a.fail(start, Duration::from_secs(10)), "news");
        assert!(!a.fail(start, Duration::from_secs(10)), "no news");
        assert!(a.is_failed(later(9_990)) && !a.is_failed(later(10_001)));
        a.recover();
        assert!(!a.is_failed(start));
        assert_eq!(a.failures(), 2);
    }

    #[test]
    fn the_turn_passes_over_failed_ones_while_another_is_left() {
        let none = |_| false;
        assert_eq!(choose(1, 3, none, none), Some(1));
        assert_eq!(choose(1, 3, |index| index == 1, none), Some(2));
        assert_eq!(choose(2, 3, |index| index != 1, none), Some(1));
        assert_eq!(choose(2, 3, |_| true, none), Some(2), "all failed: as if none had");
        assert_eq!(choose(0, 3, |index| index == 1, |index| index != 1), Some(1), "the last resort");
        assert_eq!(choose(0, 3, none, |_| true), None);
        assert_eq!(choose(0, 0, none, none), None);
    }
}
