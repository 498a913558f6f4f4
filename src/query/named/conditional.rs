//! What an answer says of itself: `ETag` and `If-None-Match` (RFC 9110), `Cache-Control` and `Age` (RFC 9111), `Cache-Status`
//! (RFC 9211).

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::cache::Kept;
use crate::edge::{Body, Response};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was kept.
    Hit,
    /// The database was asked; `kept`: the answer is kept now.
    Miss { kept: bool },
    /// Another request asked the database.
    Collapsed,
    /// The database could not be asked; it had this status.
    Stale(StatusCode),
    /// Answers of this query are not kept.
    Bypass,
}

/// What a GET asks for beyond the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Get<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The answer depends on who asks.
    pub(super) private: bool,
}

/// A strong tag: other bytes have another.
pub(super) fn etag(body: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(body);
    let text = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..18]));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// An answer that is whole.
pub(super) fn whole(kept: &Kept, from: Origin, get: Option<Get<'_>>, now: Instant) -> Response {
    let same = get.is_some_and(|get| matches(get.headers, &kept.etag));
    let mut response = Response::new(if same { Body::empty() } else { Body::full(kept.body.clone()) });
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    if !same {
        headers.insert(header::CONTENT_TYPE, kept.content_type.clone());
    }
    let age = kept.age(now);
    if matches!(from, Origin::Hit | Origin::Stale(_)) {
        headers.insert(header::AGE, age.as_secs().into());
    }
    let left = seconds(kept.fresh) - seconds(age);
    headers.insert(CACHE_STATUS, status(from, left));
    if let Some(get) = get {
        headers.insert(header::ETAG, kept.etag.clone());
        let fresh = if matches!(from, Origin::Stale(_) | Origin::Bypass) { Duration::ZERO } else { kept.fresh };
        headers.insert(header::CACHE_CONTROL, control(get.private, fresh));
        vary(headers, get.private);
    }
    response
}

/// What an answer says that is not whole, or that is none.
pub(super) fn passing(response: &mut Response, from: Origin, get: Option<Get<'_>>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, status(from, 0));
    if let Some(get) = get {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        vary(headers, get.private);
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn status(from: Origin, left: i64) -> HeaderValue {
    let text = match from {
        Origin::Hit => format!("sluicegate; hit; ttl={left}"),
        Origin::Miss { kept: true } => format!("sluicegate; fwd=miss; stored; ttl={left}"),
        Origin::Miss { kept: false } => "sluicegate; fwd=miss".to_owned(),
        Origin::Collapsed => format!("sluicegate; fwd=miss; collapsed; ttl={left}"),
        Origin::Stale(status) => format!("sluicegate; fwd=stale; fwd-status={}; ttl={left}", status.as_u16()),
        Origin::Bypass => "sluicegate; fwd=bypass".to_owned(),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("sluicegate"))
}

fn control(private: bool, fresh: Duration) -> HeaderValue {
    let who = if private { "private" } else { "public" };
    let text = match fresh.as_secs() {
        0 => format!("{who}, no-cache"),
        seconds => format!("{who}, max-age={seconds}"),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("no-store"))
}

/// That the answer depends on `Accept` is said of all answers.
fn vary(headers: &mut HeaderMap, private: bool) {
    if private {
        headers.append(header::VARY, HeaderValue::from_static("authorization, x-api-key"));
    }
}

/// Whether the caller has it already: weak comparison, in which `W/` does not count (RFC 9110, section 13.1.2).
fn matches(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    fn plain(tag: &[u8]) -> &[u8] {
        tag.strip_prefix(b"W/").unwrap_or(tag)
    }
    headers.get_all(header::IF_NONE_MATCH).iter().any(|list| {
        let tags = list.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        tags.into_iter().any(|tag| tag == b"*" || plain(tag) == etag.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(at: Instant) -> Kept {
        Kept {
            body: "{}".into(),
            content_type: HeaderValue::from_static("application/json"),
            etag: etag(b"{}"),
            at,
            fresh: Duration::from_secs(10),
            stale: Duration::from_secs(100),
        }
    }

    fn head(from: Origin, private: bool, age: u64, tags: &[&str]) -> (u16, HeaderMap) {
        let now = Instant::now();
        let headers: HeaderMap =
            tags.iter().map(|tag| (header::IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap())).collect();
        let get = Get { headers: &headers, private };
        let (head, _) = whole(&kept(now), from, Some(get), now + Duration::from_secs(age)).into_parts();
        (head.status.as_u16(), head.headers)
    }

    #[test]
    fn an_answer_says_where_it_comes_from_and_how_long_it_is_good() {
        for (from, private, age, status, control, told_age) in [
            (Origin::Hit, true, 3, "sluicegate; hit; ttl=7", "private, max-age=10", Some("3")),
            (Origin::Miss { kept: true }, false, 0, "sluicegate; fwd=miss; stored; ttl=10", "public, max-age=10", None),
            (Origin::Collapsed, false, 0, "sluicegate; fwd=miss; collapsed; ttl=10", "public, max-age=10", None),
            (
                Origin::Stale(StatusCode::SERVICE_UNAVAILABLE),
                true,
                42,
                "sluicegate; fwd=stale; fwd-status=503; ttl=-32",
                "private, no-cache",
                Some("42"),
            ),
            (Origin::Bypass, true, 0, "sluicegate; fwd=bypass", "private, no-cache", None),
        ] {
            let (code, headers) = head(from, private, age, &[]);
            assert_eq!(code, 200);
            assert_eq!(headers[CACHE_STATUS], status);
            assert_eq!(headers[header::CACHE_CONTROL], control);
            assert_eq!(headers.get(header::AGE).map(|age| age.to_str().unwrap()), told_age);
            assert_eq!(headers.get(header::VARY).is_some_and(|vary| vary == "authorization, x-api-key"), private);
        }
    }

    #[test]
    fn who_has_it_already_is_told_so() {
        let tag = etag(b"{}").to_str().unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.len() == 26 && etag(b"{ }") != etag(b"{}"));
        for (tags, status) in [
            (vec![], 200),
            (vec![tag.as_str()], 304),
            (vec![&*format!("W/{tag}")], 304),
            (vec!["*"], 304),
            (vec!["\"other\""], 200),
            (vec!["\"other\"", &*format!("\"x\" , {tag}")], 304),
            (vec![tag.trim_matches('"')], 200),
        ] {
            let (code, headers) = head(Origin::Hit, false, 1, &tags);
            assert_eq!(code, status, "{tags:?}");
            assert!(headers.contains_key(header::ETAG) && headers.contains_key(header::CACHE_CONTROL));
            assert_eq!(headers.contains_key(header::CONTENT_TYPE), status == 200);
        }
    }
}
