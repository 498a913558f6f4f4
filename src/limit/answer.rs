//! The limits of a route, and what they tell the client.
//!
//! The fields are those of draft-ietf-httpapi-ratelimit-headers-11: `RateLimit-Policy: "name";q=200;w=2`, which is the same
//! for every answer of a route, and `RateLimit: "name";r=199;t=1`. `t` is the time in which no more than `r` should be
//! spent; here, the time until one more permit is there. No partition key (`pk`) is sent: it would tell who is counted how.

use std::{num::NonZeroU32, sync::Arc};

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Map, Value};

use super::{Caller, Limiter, Outcome};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// The problem type of the draft, section 6.1.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The limits that one route names, every one of which must admit a request.
#[derive(Debug, Default)]
pub struct RouteLimits {
    limiters: Box<[Arc<Limiter>]>,
    policy: Option<HeaderValue>,
}

/// What the limits asked so far said about a request. Without limits it costs nothing.
#[derive(Debug, Default)]
pub struct Tally {
    standing: BytesMut,
}

/// A limit refused the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit `{policy}` is exceeded")]
pub struct Refused {
    /// The limit's name.
    pub policy: Arc<str>,
    /// Seconds until it may be tried again, for `Retry-After`; never 0.
    pub retry_after: u32,
}

impl RouteLimits {
    /// The limits of a route, in the order of its configuration.
    pub fn new(limiters: Vec<Arc<Limiter>>) -> Self {
        let mut text = BytesMut::new();
        for limiter in limiters.iter().filter(|limiter| limiter.settings.headers) {
            item(&mut text, limiter.name(), ";q=", limiter.burst, ";w=", limiter.window_seconds());
        }
        let policy = (!text.is_empty()).then(|| value(text)).flatten();
        Self { limiters: limiters.into(), policy }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.limiters.is_empty()
    }

    /// Asks the limits that need not know the consumer, in order, up to the first that refuses.
    ///
    /// # Errors
    /// The limit that refused.
    pub fn check_before_access(&self, caller: &Caller<'_>, tally: &mut Tally) -> Result<(), Refused> {
        self.check(false, caller, tally)
    }

    /// Asks the limits by consumer, in order, up to the first that refuses.
    ///
    /// # Errors
    /// The limit that refused.
    pub fn check_after_access(&self, caller: &Caller<'_>, tally: &mut Tally) -> Result<(), Refused> {
        self.check(true, caller, tally)
    }

    /// Takes `more` permits of each, for a request that turns out to cost more than one; up to the first that refuses. What
    /// the tally says is as of now.
    ///
    /// # Errors
    /// The limit that refused.
    pub fn charge(&self, caller: &Caller<'_>, more: u32, tally: &mut Tally) -> Result<(), Refused> {
        let Some(more) = NonZeroU32::new(more) else { return Ok(()) };
        tally.standing.clear();
        for limiter in &self.limiters {
            let outcome = limiter.check_caller_for(caller, more);
            noted(limiter, outcome, tally)?;
        }
        Ok(())
    }

    fn check(&self, by_consumer: bool, caller: &Caller<'_>, tally: &mut Tally) -> Result<(), Refused> {
        for limiter in self.limiters.iter().filter(|limiter| limiter.needs_consumer() == by_consumer) {
            noted(limiter, limiter.check_caller(caller), tally)?;
        }
        Ok(())
    }

    /// Adds `RateLimit-Policy` and `RateLimit` to an answer. Fields of the upstream's own stay beside them.
    pub fn render(&self, tally: Tally, headers: &mut HeaderMap) {
        if let Some(policy) = &self.policy {
            headers.append(POLICY, policy.clone());
        }
        if let Some(standing) = value(tally.standing) {
            headers.append(STANDING, standing);
        }
    }
}

fn noted(limiter: &Limiter, outcome: Outcome, tally: &mut Tally) -> Result<(), Refused> {
    if limiter.settings.headers {
        tally.add(limiter.name(), outcome);
    }
    if outcome.allowed {
        return Ok(());
    }
    Err(Refused { policy: limiter.name().clone(), retry_after: outcome.reset_seconds })
}

impl Tally {
    fn add(&mut self, name: &str, outcome: Outcome) {
        self.standing.reserve(name.len() + 32);
        item(&mut self.standing, name, ";r=", outcome.remaining, ";t=", outcome.reset_seconds);
    }
}

impl Refused {
    /// The members of the 429's problem document beyond title, status and detail: `type` and `violated-policies`.
    pub fn problem(&self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("type".to_owned(), QUOTA_EXCEEDED.into());
        members.insert("violated-policies".to_owned(), vec![&*self.policy].into());
        members
    }

    /// Sets `Retry-After`.
    pub fn render(&self, headers: &mut HeaderMap) {
        headers.insert(header::RETRY_AFTER, self.retry_after.into());
    }
}

/// Appends a list member with two integer parameters (RFC 9651, section 3.1).
fn item(list: &mut BytesMut, name: &str, first: &str, one: u32, second: &str, two: u32) {
    if !list.is_empty() {
        list.put_slice(b", ");
    }
    string(list, name);
    let mut digits = itoa::Buffer::new();
    list.put_slice(first.as_bytes());
    list.put_slice(digits.format(one).as_bytes());
    list.put_slice(second.as_bytes());
    list.put_slice(digits.format(two).as_bytes());
}

/// Appends a string (RFC 9651, section 4.1.6); what has no place in one becomes an underscore.
fn string(list: &mut BytesMut, text: &str) {
    list.put_u8(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => list.put_slice(&[b'\\', character as u8]),
            ' '..='~' => list.put_u8(character as u8),
            _ => list.put_u8(b'_'),
        }
    }
    list.put_u8(b'"');
}

fn value(text: BytesMut) -> Option<HeaderValue> {
    if text.is_empty() { None } else { HeaderValue::from_maybe_shared(text.freeze()).ok() }
}
