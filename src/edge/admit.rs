//! What is done to a request before the handler sees it, and which requests it never sees.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::{COOKIE, HOST, TRANSFER_ENCODING},
    request::Parts,
    uri::PathAndQuery,
};

use super::{
    Authority, Context, PathFlags, Peer,
    answer::Rejection,
    normalise::{self, BadPath},
};
use crate::net::ServerTls;

/// The rules of one connection.
#[derive(Debug)]
pub(super) struct Admission {
    peer: Arc<Peer>,
    max_headers: usize,
    http2: bool,
    /// The last authority, since a connection mostly asks for the same.
    known: RefCell<Option<Known>>,
    tls: Option<Arc<ServerTls>>,
    /// The rules of client certificates that the connection was last found to satisfy.
    rules: Cell<u64>,
}

#[derive(Clone, Debug)]
struct Known {
    authority: Authority,
    header: HeaderValue,
}

impl Admission {
    /// `tls` is the listener's.
    pub(super) fn new(peer: Arc<Peer>, max_headers: usize, http2: bool, tls: Option<Arc<ServerTls>>) -> Self {
        let rules = Cell::new(peer.tls.as_ref().map_or(0, |tls| tls.rules));
        Self { peer, max_headers, http2, known: RefCell::new(None), tls, rules }
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Brings a request head into the form that handlers rely on.
    pub(super) fn admit(&self, head: &mut Parts) -> Result<(), Rejection> {
        if head.headers.len() > self.max_headers {
            return Err(Rejection::TooManyHeaders);
        }
        if head.method == Method::CONNECT {
            return Err(Rejection::Connect);
        }
        check_transfer_encoding(&head.headers)?;
        let authority = self.authority(head)?;
        self.check_server_name(&authority)?;
        self.check_certificate(SystemTime::now)?;
        let (path, original) = rewrite(head)?;
        if self.http2 {
            join_cookies(&mut head.headers);
        }
        head.extensions.insert(Context { peer: self.peer.clone(), authority, path, original });
        Ok(())
    }

    /// Finds whom the request is for, and leaves it in `Host`.
    fn authority(&self, head: &mut Parts) -> Result<Authority, Rejection> {
        let mut hosts = head.headers.get_all(HOST).iter();
        let (host, second) = (hosts.next(), hosts.next());
        if second.is_some() {
            return Err(Rejection::ManyHosts);
        }
        let target = head.uri.authority();
        match (target, host) {
            (None, None) if head.version < Version::HTTP_11 => Ok(Authority::none()),
            (None, None) => Err(Rejection::NoHost),
            (None, Some(host)) => Ok(self.known(host.as_bytes())?.authority),
            (Some(_), None) if head.version == Version::HTTP_11 => Err(Rejection::NoHost),
            (Some(target), host) => {
                let known = self.known(target.as_str().as_bytes())?;
                if let Some(host) = host {
                    let written = Authority::parse(host.as_bytes()).ok_or(Rejection::BadHost)?;
                    if self.http2 && written != known.authority {
                        return Err(Rejection::HostsDiffer);
                    }
                }
                head.headers.insert(HOST, known.header);
                Ok(known.authority)
            }
        }
    }

    fn known(&self, text: &[u8]) -> Result<Known, Rejection> {
        let mut last = self.known.borrow_mut();
        if let Some(known) = last.as_ref().filter(|known| known.header.as_bytes() == text) {
            return Ok(known.clone());
        }
        let authority = Authority::parse(text).ok_or(Rejection::BadHost)?;
        let header = HeaderValue::from_bytes(text).map_err(|_| Rejection::BadHost)?;
        Ok(last.insert(Known { authority, header }).clone())
    }

    /// A connection opened for one name must not be used for another: its certificate and its TLS rules were chosen by that
    /// name. Strict equality; a client that sent no name (it dialled an address, or is a probe) chose no certificate. Where clients
    /// show theirs, it may then ask for an address alone.
    fn check_server_name(&self, authority: &Authority) -> Result<(), Rejection> {
        let Some(tls) = &self.peer.tls else { return Ok(()) };
        let right = match tls.sni.as_deref() {
            Some(name) => *name == *authority.host,
            None => !self.asks_clients() || authority.host.is_empty() || authority.is_address(),
        };
        if right { Ok(()) } else { Err(Rejection::Misdirected) }
    }

    fn asks_clients(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.asks_clients())
    }

    /// The client's certificate must still hold, whatever the connection's age; so must the want of one. Its chain is verified anew
    /// only when the authorities have changed.
    fn check_certificate(&self, now: impl FnOnce() -> SystemTime) -> Result<(), Rejection> {
        let client = self.peer.tls.as_ref().and_then(|tls| tls.client.as_deref());
        if client.is_some_and(|client| client.not_after <= now()) {
            return Err(Rejection::Certificate);
        }
        let Some(listener) = &self.tls else { return Ok(()) };
        let Some(rules) = listener.has_other_rules(self.rules.get()) else { return Ok(()) };
        if !listener.accepts(client) {
            return Err(Rejection::Certificate);
        }
        self.rules.set(rules);
        Ok(())
    }
}

/// hyper has seen to it that `chunked` comes last, and dropped `Content-Length`. What else may stand before it we do not
/// decode, and who is behind us might read it otherwise.
fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Rejection::TransferEncoding),
    }
}

/// Makes the target a normalised path with the query it had. Gives back what it was, if it changed.
fn rewrite(head: &mut Parts) -> Result<(PathFlags, Option<PathAndQuery>), Rejection> {
    let path = head.uri.path();
    if path == "*" && head.method == Method::OPTIONS {
        return Ok((PathFlags::default(), None));
    }
    let normal = normalise::normalise(path).map_err(Rejection::Path)?;
    let flags = PathFlags { encoded_separator: normal.encoded_separator, parameters: normal.parameters };
    if normal.path == path {
        if head.uri.scheme().is_some() || head.uri.authority().is_some() {
            let target = std::mem::take(&mut head.uri).into_parts().path_and_query;
            head.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        }
        return Ok((flags, None));
    }
    let text = match head.uri.query() {
        Some(query) => format!("{}?{query}", normal.path),
        None => normal.path.into_owned(),
    };
    let target = PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| Rejection::Path(BadPath::Escape))?;
    let original = std::mem::replace(&mut head.uri, Uri::from(target)).into_parts().path_and_query;
    Ok((flags, original))
}

/// HTTP/2 clients may send a cookie in crumbs; HTTP/1 upstreams and handlers expect one line (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Parts of valid values make a valid value.
    if let Ok(cookie) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::net::{ClientCertificate, TlsInfo};

    fn admission(sni: Option<&str>, http2: bool) -> Admission {
        let mut peer = (*Context::for_host(Authority::none()).peer).clone();
        peer.tls = sni.map(|name| {
            Arc::new(TlsInfo {
                sni: (!name.is_empty()).then(|| name.into()),
                version: "TLSv1.3",
                cipher: "x",
                alpn: None,
                resumed: false,
                client: None,
                rules: 0,
            })
        });
        Admission::new(Arc::new(peer), 5, http2, None)
    }

    fn request(version: Version, target: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn h1(target: &str, headers: &[(&'static str, &str)]) -> Result<Parts, Rejection> {
        let mut head = request(Version::HTTP_11, target, headers);
        admission(None, false).admit(&mut head).map(|()| head)
    }

    fn h2(target: &str, headers: &[(&'static str, &str)]) -> Result<Parts, Rejection> {
        let mut head = request(Version::HTTP_2, target, headers);
        admission(None, true).admit(&mut head).map(|()| head)
    }

    fn context(head: &Parts) -> &Context {
        head.extensions.get().unwrap()
    }

    #[test]
    fn the_host_comes_from_the_header_or_the_target() {
        let head = h1("/a?b", &[("host", "Example.com:8080")]).unwrap();
        assert_eq!((&*context(&head).authority.host, context(&head).authority.port), ("example.com", Some(8080)));
        assert_eq!(head.headers[HOST], "Example.com:8080");

        let head = h1("http://Target.test/a?b", &[("host", "other.test")]).unwrap();
        assert_eq!(&*context(&head).authority.host, "target.test");
        assert_eq!(head.headers[HOST], "Target.test");
        assert_eq!(head.uri, "/a?b");

        let head = h2("https://two.test:444/x", &[]).unwrap();
        assert_eq!((&*context(&head).authority.host, context(&head).authority.port), ("two.test", Some(444)));
        assert_eq!(head.headers[HOST], "two.test:444");
        assert_eq!(head.uri, "/x");
        assert_eq!(h2("http://x.test", &[]).unwrap().uri, "/");
    }

    #[test]
    fn hosts_that_are_missing_doubled_or_at_odds_are_refused() {
        assert_eq!(h1("/", &[]).unwrap_err(), Rejection::NoHost);
        assert_eq!(h1("http://a.test/", &[]).unwrap_err(), Rejection::NoHost);
        assert_eq!(h1("/", &[("host", "a"), ("host", "a")]).unwrap_err(), Rejection::ManyHosts);
        assert_eq!(h1("/", &[("host", "a b")]).unwrap_err(), Rejection::BadHost);
        assert_eq!(h1("/", &[("host", "")]).unwrap_err(), Rejection::BadHost);
        assert_eq!(h1("http://u@a.test/", &[("host", "a.test")]).unwrap_err(), Rejection::BadHost);
        assert_eq!(h1("http://a.test/", &[("host", "a b")]).unwrap_err(), Rejection::BadHost);
        assert_eq!(h2("/", &[]).unwrap_err(), Rejection::NoHost);
        assert_eq!(h2("https://a.test/", &[("host", "b.test")]).unwrap_err(), Rejection::HostsDiffer);
        assert!(h2("https://a.test/", &[("host", "A.test")]).is_ok());
        assert!(h2("/", &[("host", "a.test")]).is_ok());
        let mut old = request(Version::HTTP_10, "/", &[]);
        admission(None, false).admit(&mut old).unwrap();
        assert_eq!(&*context(&old).authority.host, "");
    }

    #[test]
    fn the_path_is_normalised_and_the_original_kept() {
        let head = h1("/a/../%62//c?x=/../%2f", &[("host", "a")]).unwrap();
        assert_eq!(head.uri, "/b/c?x=/../%2f");
        assert_eq!(context(&head).original.as_ref().unwrap(), "/a/../%62//c?x=/../%2f");
        let head = h1("/plain?q", &[("host", "a")]).unwrap();
        assert_eq!((head.uri.to_string().as_str(), &context(&head).original), ("/plain?q", &None));
        assert!(context(&h1("/a%2Fb", &[("host", "a")]).unwrap()).path.encoded_separator);
        assert_eq!(h1("/%", &[("host", "a")]).unwrap_err(), Rejection::Path(BadPath::Escape));
        assert_eq!(h1("*", &[("host", "a")]).unwrap_err(), Rejection::Path(BadPath::Relative));
        assert_eq!(h1("a.test:80", &[("host", "a")]).unwrap_err(), Rejection::Path(BadPath::Relative));
    }

    #[test]
    fn a_connection_serves_the_name_it_was_opened_for() {
        let ask = |sni: &str, host: &str| {
            let mut head = request(Version::HTTP_11, "/", &[("host", host)]);
            admission(Some(sni), false).admit(&mut head)
        };
        assert_eq!(ask("a.test", "A.test:8443"), Ok(()));
        assert_eq!(ask("a.test", "a.test."), Ok(()));
        assert_eq!(ask("a.test", "b.test"), Err(Rejection::Misdirected));
        assert_eq!(ask("a.test", "127.0.0.1"), Err(Rejection::Misdirected));
        assert_eq!(ask("", "127.0.0.1:8443"), Ok(()));
        assert_eq!(ask("", "a.test"), Ok(()));
    }

    #[test]
    fn a_connection_is_over_with_its_clients_certificate() {
        let mut admission = admission(Some("a.test"), false);
        let end = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        let mut peer = (*admission.peer).clone();
        let mut tls = (**peer.tls.as_ref().unwrap()).clone();
        tls.client = Some(Arc::new(ClientCertificate::named("test", &["dns:app"], end)));
        peer.tls = Some(Arc::new(tls));
        admission.peer = Arc::new(peer);
        let before = end - std::time::Duration::from_millis(1);
        assert_eq!(admission.check_certificate(|| before), Ok(()));
        assert_eq!(admission.check_certificate(|| end), Err(Rejection::Certificate));
        let mut head = request(Version::HTTP_11, "/", &[("host", "a.test")]);
        assert_eq!(admission.admit(&mut head), Err(Rejection::Certificate), "asked before each request");
    }

    #[test]
    fn only_chunked_is_understood() {
        let coding = |values: &[&str]| {
            let mut headers = vec![("host", "a")];
            headers.extend(values.iter().map(|value| ("transfer-encoding", *value)));
            h1("/", &headers).map(|_| ())
        };
        assert_eq!(coding(&["Chunked"]), Ok(()));
        for values in
            [&["gzip, chunked"][..], &["chunked, chunked"], &["chunked", "chunked"], &["identity"], &["xchunked"]]
        {
            assert_eq!(coding(values), Err(Rejection::TransferEncoding), "{values:?}");
        }
    }

    #[test]
    fn crumbs_are_counted_and_joined() {
        let head = h2("https://a.test/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]).unwrap();
        assert_eq!(head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
        let many = [("cookie", "a=1"); 6];
        assert_eq!(h2("https://a.test/", &many).unwrap_err(), Rejection::TooManyHeaders);
    }
}
