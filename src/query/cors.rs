//! Pages of other origins (Fetch standard, "CORS protocol"; RFC 6454).
//!
//! A browser sends `Origin` with every POST. A page of another origin may only read an answer that names it, but its request
//! has been carried out by then: so one that is not allowed is refused before anything else is looked at.
//!
//! A page that came from the gateway's own address needs no leave. What that address is, the request itself says, and a site
//! that makes its own name lead to the gateway (DNS rebinding) says it of itself. Over TLS it cannot, for want of a
//! certificate; over plain HTTP a name therefore proves nothing, and only an address or `localhost` does.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use super::{neon, problem::Problem};
use crate::{
    config::model::{Cors, Dialect},
    edge::{Authority, Body, Request, Response},
};

/// Request headers that a page may set.
const HEADERS: &str = "authorization, content-type, accept, if-none-match, x-api-key, traceparent";

/// Answer headers that a page may read.
const EXPOSED: &str = "retry-after, ratelimit, ratelimit-policy, etag, age, cache-status";

/// Answers a preflight, before access control: a browser sends it without credentials. None: it is not one. `dialect`: of a query
/// route. `methods`: those that the route answers.
pub fn preflight(cors: &Cors, dialect: Option<Dialect>, methods: &'static str, request: &Request) -> Option<Response> {
    let headers = request.headers();
    let origin = headers.get(ORIGIN)?;
    if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    if !allows(cors, origin) {
        return Some(refused().into_response());
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    allow_origin(cors, None, Some(origin), answer);
    answer.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, sets(dialect));
    answer.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.0.as_secs().into());
    Some(response)
}

/// Lets the page that asked read an answer, whatever it says, if `cors` allows its origin.
pub fn allow_origin(cors: &Cors, dialect: Option<Dialect>, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    let any = cors.origins.iter().any(|allowed| allowed == "*");
    if !any {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    let Some(origin) = origin.filter(|origin| allows(cors, origin)) else { return };
    let allowed = if any { HeaderValue::from_static("*") } else { origin.clone() };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, reads(dialect));
}

fn sets(dialect: Option<Dialect>) -> HeaderValue {
    also(HEADERS, neon::PAGE_SETS, dialect)
}

fn reads(dialect: Option<Dialect>) -> HeaderValue {
    also(EXPOSED, neon::PAGE_READS, dialect)
}

fn also(always: &'static str, of_neon: &str, dialect: Option<Dialect>) -> HeaderValue {
    let both = || HeaderValue::from_str(&format!("{always}, {of_neon}")).ok();
    let more = if dialect == Some(Dialect::Neon) { both() } else { None };
    more.unwrap_or(HeaderValue::from_static(always))
}

/// Refuses a request that a page of another origin sent, unless `cors` allows it. `secure`: it came over TLS.
pub(super) fn check(
    headers: &HeaderMap,
    authority: &Authority,
    secure: bool,
    cors: Option<&Cors>,
) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let own = is_own(origin, authority, secure);
    if own || cors.is_some_and(|cors| allows(cors, origin)) { Ok(()) } else { Err(refused()) }
}

/// Refuses a GET that a page may have sent without telling its origin, as browsers do where the page cannot read the answer, or
/// is of the same origin.
///
/// What other sites have a browser fetch, it says so of (Fetch Metadata). Where it does not, over plain HTTP, a name proves
/// nothing, as above: unless it is `proven` otherwise, as the route is for certain hosts, or the caller has shown who it is,
/// which a page of a stranger's cannot.
pub(super) fn check_get(headers: &HeaderMap, authority: &Authority, proven: bool) -> Result<(), Problem> {
    if headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    match site {
        Some(b"cross-site" | b"same-site") => Err(refused()),
        Some(_) => Ok(()),
        None if proven || authority.is_address() || is_localhost(&authority.host) => Ok(()),
        None => {
            let detail = "over plain HTTP a name proves nothing: give the route its `host`, or ask for a key";
            Err(Problem::new(StatusCode::FORBIDDEN, "Foreign origin", detail))
        }
    }
}

fn refused() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Foreign origin", "pages of this origin may not call this route")
}

fn allows(cors: &Cors, origin: &HeaderValue) -> bool {
    let is = |allowed: &String| allowed == "*" || origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
    cors.origins.iter().any(is)
}

/// Whether `origin` is where the request itself went. Over plain HTTP that takes an address or `localhost`, which nobody else
/// can make a name lead to; either scheme counts then, because something before us may have ended TLS.
fn is_own(origin: &HeaderValue, authority: &Authority, secure: bool) -> bool {
    if !secure && !authority.is_address() && !is_localhost(&authority.host) {
        return false;
    }
    let is = |scheme: &[u8], port: u16| {
        let theirs = origin.as_bytes().strip_prefix(scheme).and_then(Authority::parse);
        theirs.is_some_and(|theirs| {
            theirs.host == authority.host && theirs.port.unwrap_or(port) == authority.port.unwrap_or(port)
        })
    };
    is(b"https://", 443) || (!secure && is(b"http://", 80))
}

/// Names that browsers resolve to the machine they run on, without asking anybody (Secure Contexts, section 3.1; RFC 6761).
fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::value::Span, edge::RequestBody};

    fn cors(origins: &[&str]) -> Cors {
        Cors { origins: origins.iter().map(ToString::to_string).collect(), max_age: Span::secs(60) }
    }

    fn request(method: Method, headers: &[(&'static str, &str)]) -> Request {
        let mut request = http::Request::new(RequestBody::empty());
        *request.method_mut() = method;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn foreign_origins_are_refused_unless_allowed() {
        let app = cors(&["https://app.example.com"]);
        for (origin, host, secure, allowed, passes) in [
            (None, "db.example.com", true, None, true),
            (Some("https://db.example.com"), "db.example.com", true, None, true),
            (Some("https://DB.example.com"), "db.example.com:443", true, None, true),
            (Some("https://db.example.com:8443"), "db.example.com:8443", true, None, true),
            (Some("https://db.example.com:8443"), "db.example.com", true, None, false),
            (Some("http://db.example.com"), "db.example.com", true, None, false),
            (Some("http://127.0.0.1:8080"), "127.0.0.1:8080", false, None, true),
            (Some("https://127.0.0.1"), "127.0.0.1", false, None, true),
            (Some("http://[::1]:8080"), "[::1]:8080", false, None, true),
            (Some("http://localhost:8080"), "localhost:8080", false, None, true),
            (Some("http://app.localhost"), "app.localhost", false, None, true),
            (Some("http://db.example.com"), "db.example.com", false, None, false),
            (Some("https://db.example.com"), "db.example.com", false, None, false),
            (Some("http://notlocalhost"), "notlocalhost", false, None, false),
            (Some("http://db.example.com"), "db.example.com", false, Some(&cors(&["http://db.example.com"])), true),
            (Some("https://evil.example.com"), "db.example.com", true, None, false),
            (Some("null"), "db.example.com", true, Some(&app), false),
            (Some("https://app.example.com"), "db.example.com", true, Some(&app), true),
            (Some("https://app.example.com.evil.org"), "db.example.com", true, Some(&app), false),
            (Some("https://"), "", true, None, false),
            (Some("https://a.example@db.example.com"), "db.example.com", true, None, false),
            (Some("null"), "db.example.com", true, Some(&cors(&["*"])), true),
        ] {
            let headers = origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))).into_iter().collect();
            let authority = Authority::parse(host.as_bytes()).unwrap_or(Authority::none());
            let passed = check(&headers, &authority, secure, allowed).is_ok();
            assert_eq!(passed, passes, "{origin:?} {host} {secure}");
        }
    }

    #[test]
    fn a_get_that_a_strangers_page_may_have_sent_is_refused() {
        for (site, host, proven, passes) in [
            (None, "db.example.com", true, true),
            (None, "db.example.com", false, false),
            (None, "127.0.0.1:8080", false, true),
            (None, "localhost:8080", false, true),
            (Some("none"), "db.example.com", false, true),
            (Some("same-origin"), "db.example.com", false, true),
            (Some("same-site"), "db.example.com", true, false),
            (Some("cross-site"), "127.0.0.1", true, false),
        ] {
            let headers = site.map(|site| ("sec-fetch-site".parse().unwrap(), HeaderValue::from_static(site)));
            let headers: HeaderMap = headers.into_iter().collect();
            let authority = Authority::parse(host.as_bytes()).unwrap();
            assert_eq!(check_get(&headers, &authority, proven).is_ok(), passes, "{site:?} {host} {proven}");
        }
        let told = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://a.example"))]);
        assert!(check_get(&told, &Authority::none(), false).is_ok(), "an origin that is told has been looked at");
    }

    #[test]
    fn preflights_are_answered() {
        let app = cors(&["https://app.example.com"]);
        let asks =
            |origin: &str| request(Method::OPTIONS, &[("origin", origin), ("access-control-request-method", "POST")]);
        let yes = preflight(&app, None, "GET, HEAD, POST", &asks("https://app.example.com")).unwrap();
        assert_eq!(yes.status(), StatusCode::NO_CONTENT);
        assert_eq!(yes.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example.com");
        assert_eq!(yes.headers()[ACCESS_CONTROL_MAX_AGE], "60");
        assert_eq!(yes.headers()[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD, POST");
        assert_eq!(yes.headers()[VARY], "origin");
        assert!(!yes.headers()[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().contains("neon"));
        let neon = preflight(&app, Some(Dialect::Neon), "POST", &asks("https://app.example.com")).unwrap();
        let may_set = neon.headers()[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        for header in ["authorization", "content-type", "neon-connection-string", "neon-batch-deferrable"] {
            assert!(may_set.split(", ").any(|allowed| allowed == header), "{header}");
        }
        let no = preflight(&app, None, "POST", &asks("https://other.example.com")).unwrap();
        assert_eq!(no.status(), StatusCode::FORBIDDEN);
        assert!(!no.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert!(
            preflight(&app, None, "POST", &request(Method::POST, &[("origin", "https://app.example.com")])).is_none()
        );
        assert!(
            preflight(&app, None, "POST", &request(Method::OPTIONS, &[("origin", "https://app.example.com")]))
                .is_none()
        );
        let any = preflight(&cors(&["*"]), None, "POST", &asks("https://other.example.com")).unwrap();
        assert_eq!(any.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!any.headers().contains_key(VARY));
    }
}
