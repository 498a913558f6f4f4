//! The headers of a request, which say what the answer shall look like and how a batch runs.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::connection::{ConnectionError, ConnectionString};
use crate::backend::Isolation;

pub(super) const CONNECTION_STRING: HeaderName = HeaderName::from_static("neon-connection-string");
const RAW_TEXT: HeaderName = HeaderName::from_static("neon-raw-text-output");
const ARRAY_MODE: HeaderName = HeaderName::from_static("neon-array-mode");
const ISOLATION: HeaderName = HeaderName::from_static("neon-batch-isolation-level");
const READ_ONLY: HeaderName = HeaderName::from_static("neon-batch-read-only");
const DEFERRABLE: HeaderName = HeaderName::from_static("neon-batch-deferrable");

const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What a request's headers say beside its credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Values are PostgreSQL's text.
    pub(super) raw: bool,
    /// Rows are lists, where a query does not say otherwise.
    pub(super) array: bool,
    /// Of a batch.
    pub(super) isolation: Option<Isolation>,
    /// Of a batch.
    pub(super) read_only: bool,
    /// Of a batch.
    pub(super) deferrable: bool,
}

/// No isolation level is called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid isolation level")]
pub(super) struct UnknownIsolation;

impl Head {
    /// Reads the headers. What is not exactly `true` is false.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, UnknownIsolation> {
        let is_set = |name| headers.get(name) == Some(&TRUE);
        Ok(Self {
            raw: is_set(RAW_TEXT),
            array: is_set(ARRAY_MODE),
            isolation: headers.get(ISOLATION).map(isolation).transpose()?,
            read_only: is_set(READ_ONLY),
            deferrable: is_set(DEFERRABLE),
        })
    }

    /// Says with the answer to a batch how it ran.
    pub(super) fn echo(self, headers: &mut HeaderMap) {
        if self.read_only {
            headers.insert(READ_ONLY, TRUE);
        }
        if self.deferrable {
            headers.insert(DEFERRABLE, TRUE);
        }
        if let Some(isolation) = self.isolation {
            headers.insert(ISOLATION, HeaderValue::from_static(name(isolation)));
        }
    }
}

fn isolation(value: &HeaderValue) -> Result<Isolation, UnknownIsolation> {
    let all =
        [Isolation::ReadUncommitted, Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable];
    all.into_iter().find(|isolation| value == name(*isolation)).ok_or(UnknownIsolation)
}

fn name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadUncommitted => "ReadUncommitted",
        Isolation::ReadCommitted => "ReadCommitted",
        Isolation::RepeatableRead => "RepeatableRead",
        Isolation::Serializable => "Serializable",
    }
}

/// The request's connection string. Of two there is none: who else read the request may have taken the other.
pub(super) fn connection(headers: &HeaderMap) -> Result<ConnectionString<'_>, ConnectionError> {
    let mut values = headers.get_all(CONNECTION_STRING).iter();
    let value = values.next().filter(|_| values.next().is_none()).ok_or(ConnectionError::Header)?;
    ConnectionString::parse(value.to_str().map_err(|_| ConnectionError::Header)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_true_is_true() {
        let names = ["neon-raw-text-output", "neon-array-mode", "neon-batch-read-only", "neon-batch-deferrable"];
        let all = |value: &'static str| headers(&names.map(|name| (name, value)));
        let head = Head { raw: true, array: true, isolation: None, read_only: true, deferrable: true };
        assert_eq!(Head::read(&all("true")), Ok(head));
        for value in ["True", "1", "yes", "", "false", "true, true"] {
            assert_eq!(Head::read(&all(value)), Ok(Head::default()), "{value}");
        }
        assert_eq!(Head::read(&HeaderMap::new()), Ok(Head::default()));
    }

    #[test]
    fn isolation_levels_have_their_names_and_come_back() {
        for (text, isolation) in [
            ("ReadUncommitted", Isolation::ReadUncommitted),
            ("ReadCommitted", Isolation::ReadCommitted),
            ("RepeatableRead", Isolation::RepeatableRead),
            ("Serializable", Isolation::Serializable),
        ] {
            let asked = headers(&[("neon-batch-isolation-level", text)]);
            let head = Head::read(&asked).unwrap();
            assert_eq!(head.isolation, Some(isolation));
            let mut echoed = HeaderMap::new();
            head.echo(&mut echoed);
            assert_eq!(echoed, asked);
        }
        for text in ["serializable", "READ COMMITTED", "", "Snapshot"] {
            assert_eq!(Head::read(&headers(&[("neon-batch-isolation-level", text)])), Err(UnknownIsolation));
        }
        let asked = headers(&[("neon-batch-read-only", "true"), ("neon-batch-deferrable", "true")]);
        let mut echoed = HeaderMap::new();
        Head::read(&asked).unwrap().echo(&mut echoed);
        assert_eq!(echoed, asked);
    }

    #[test]
    fn there_is_one_connection_string_or_none() {
        let one = headers(&[("neon-connection-string", "postgres://a:b@h/db")]);
        assert_eq!(connection(&one).unwrap().database, "db");
        let two = headers(&[
            ("neon-connection-string", "postgres://a:b@h/x"),
            ("neon-connection-string", "postgres://a:b@h/y"),
        ]);
        assert_eq!(connection(&two), Err(ConnectionError::Header));
        assert_eq!(connection(&HeaderMap::new()), Err(ConnectionError::Header));
        assert_eq!(
            connection(&headers(&[("neon-connection-string", "postgres://a:ä@h/db")])),
            Err(ConnectionError::Header)
        );
    }
}
