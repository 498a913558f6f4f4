//! A copy of a request, for the case that its connection dies before it is answered.

use http::{HeaderName, HeaderValue, Method, Uri};

use super::{body::SendBody, exchange::Outgoing};

/// A request without a body, as text. The room is kept from one request to the next, so that a copy allocates nothing and
/// holds on to nothing of the client's; a clone of the field map does both, on every request.
#[derive(Default)]
pub(super) struct Spare {
    method: Option<Method>,
    /// The target, and the value of each field.
    text: Vec<u8>,
    target: usize,
    /// Each field, and where its value ends.
    fields: Vec<(HeaderName, usize)>,
}

impl Spare {
    /// Copies a request, if sending it twice does no more than sending it once (RFC 9110, section 9.2.2).
    pub(super) fn keep(&mut self, request: &Outgoing) {
        self.method = None;
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        if !request.method().is_idempotent() || !request.body().is_empty() {
            return;
        }
        self.method = Some(request.method().clone());
        self.text.clear();
        self.text.extend_from_slice(target.as_bytes());
        self.target = self.text.len();
        self.fields.clear();
        for (name, value) in request.headers() {
            self.text.extend_from_slice(value.as_bytes());
            self.fields.push((name.clone(), self.text.len()));
        }
    }

    /// The copy, if one was kept.
    pub(super) fn take(&mut self) -> Option<Outgoing> {
        let mut request = Outgoing::new(SendBody::empty());
        *request.method_mut() = self.method.take()?;
        *request.uri_mut() = Uri::try_from(self.text.get(..self.target)?).ok()?;
        let mut start = self.target;
        for (name, end) in self.fields.drain(..) {
            let value = HeaderValue::from_bytes(self.text.get(start..end)?).ok()?;
            request.headers_mut().append(name, value);
            start = end;
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::edge::RequestBody;

    fn outgoing(method: Method, body: RequestBody) -> Outgoing {
        let request = http::Request::builder().method(method).uri("/a/b?c=%20d");
        let request = request.header("host", "a").header("cookie", "x").header("accept", "1").header("accept", "2");
        request.header("empty", "").body(SendBody::new(body, Instant::now())).unwrap()
    }

    #[test]
    fn a_copy_is_the_same_and_taken_once() {
        let mut spare = Spare::default();
        assert!(spare.take().is_none());
        for method in [Method::GET, Method::PUT, Method::OPTIONS] {
            let original = outgoing(method, RequestBody::empty());
            spare.keep(&original);
            let copy = spare.take().unwrap();
            assert_eq!(
                (copy.method(), copy.uri(), copy.headers()),
                (original.method(), original.uri(), original.headers())
            );
            assert!(spare.take().is_none());
        }
    }

    #[test]
    fn what_may_not_be_sent_twice_is_not_kept_nor_what_was_before_it() {
        let mut spare = Spare::default();
        for other in [outgoing(Method::POST, RequestBody::empty()), outgoing(Method::PUT, RequestBody::full("x"))] {
            spare.keep(&outgoing(Method::GET, RequestBody::empty()));
            spare.keep(&other);
            assert!(spare.take().is_none());
        }
    }
}
