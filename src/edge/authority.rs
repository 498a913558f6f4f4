//! Whom a request is addressed to: `Host`, or HTTP/2's `:authority`.

use std::{net::Ipv6Addr, sync::Arc};

/// Host and port that the client asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Lower case, without port and trailing dot; an IPv6 address in brackets. Empty when an HTTP/1.0 client sent none.
    pub host: Arc<str>,
    /// The port, where one was given.
    pub port: Option<u16>,
}

/// Longest host name there is (RFC 1035, section 2.3.4), dots included.
const LONGEST: usize = 255;

impl Authority {
    /// Of a client that said nothing, as HTTP/1.0 clients may.
    pub fn none() -> Self {
        Self { host: "".into(), port: None }
    }

    /// Reads `host`, `host:port`, `address:port` or `[address]:port`.
    ///
    /// Stricter than RFC 3986: no user part, no escapes, only letters, digits, `-`, `.` and `_`. What routes, limits and
    /// logs compare should have one spelling.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (host, port) = split_port(text)?;
        let port = match port {
            None | Some(b"") => None,
            Some(digits) if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
                Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
            }
            Some(_) => return None,
        };
        let host = std::str::from_utf8(host).ok()?;
        Some(Self { host: canonical(host)?, port })
    }

    /// Whether the host is an IP address rather than a name.
    pub fn is_address(&self) -> bool {
        self.host.starts_with('[') || self.host.parse::<std::net::Ipv4Addr>().is_ok()
    }
}

fn split_port(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end_of_host = match text.first()? {
        b'[' => memchr::memchr(b']', text)? + 1,
        _ => memchr::memchr(b':', text).unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end_of_host);
    match rest {
        [] => Some((host, None)),
        [b':', port @ ..] => Some((host, Some(port))),
        _ => None,
    }
}

fn canonical(host: &str) -> Option<Arc<str>> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]").into());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut labels = name.split('.');
    if name.len() > LONGEST || !labels.all(|label| !label.is_empty() && label.bytes().all(valid)) {
        return None;
    }
    Some(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Option<(String, Option<u16>)> {
        Authority::parse(text.as_bytes()).map(|authority| (authority.host.to_string(), authority.port))
    }

    #[test]
    fn one_spelling_for_each_host() {
        assert_eq!(parsed("Example.COM"), Some(("example.com".into(), None)));
        assert_eq!(parsed("example.com.:443"), Some(("example.com".into(), Some(443))));
        assert_eq!(parsed("example.com:"), Some(("example.com".into(), None)));
        assert_eq!(parsed("127.0.0.1:80"), Some(("127.0.0.1".into(), Some(80))));
        assert_eq!(parsed("[2001:DB8:0::1]:80"), Some(("[2001:db8::1]".into(), Some(80))));
        assert_eq!(parsed("my_host"), Some(("my_host".into(), None)));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":80",
            ".",
            "..",
            "a..b",
            ".a",
            "user@host",
            "a b",
            "a/b",
            "a%2eb",
            "host:99999",
            "host:80x",
            "host:+80",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "::1",
            "h\u{fc}",
            "a,b",
            "a\0b",
            long.as_str(),
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_already_canonical(text in "[A-Za-z0-9._:\\[\\]@%-]{0,24}") {
            if let Some(authority) = Authority::parse(text.as_bytes()) {
                let again = Authority::parse(authority.host.as_bytes());
                prop_assert_eq!(again, Some(Authority { host: authority.host.clone(), port: None }));
                let lower = authority.host.to_ascii_lowercase();
                prop_assert_eq!(lower.as_str(), &*authority.host);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = Authority::parse(&bytes);
        }
    }
}
