//! What an upstream is told of the client.

use std::{io::Write as _, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    Forward,
    fields::{Found, joined, remove_all},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Writes `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `Forwarded` (RFC 7239). The `X-Forwarded-…` of a trusted peer are
/// kept, and its `-For` is continued; anyone else's are replaced, or removed. `Forwarded` is always our own word, and all
/// other names for the same are removed: a proxy that writes the one lets a client's own claim in the other pass.
pub(super) fn write(headers: &mut HeaderMap, found: Found, context: &Forward<'_>) {
    let peer = context.context.peer.socket.ip().to_canonical();
    let mut room = [0; ADDRESS];
    let address = address(peer, &mut room);
    let host = headers.get(header::HOST).cloned();
    let chain = forwarded(context.client.to_canonical(), (peer, address), host.as_ref(), context.scheme());
    if found.has(Found::ALIAS) {
        remove_all(headers, Found::ALIAS);
    }
    if found.has(Found::X_FORWARDED) && !context.trusted {
        remove_all(headers, Found::X_FORWARDED);
    }
    set(headers, header::FORWARDED, HeaderValue::from_maybe_shared(Bytes::from(chain)).ok());
    let (scheme, port) = (HeaderValue::from_static(context.scheme()), port(context.context.peer.local.port()));
    if context.trusted && found.has(Found::X_FORWARDED) {
        let chain = joined(headers, &FORWARDED_FOR, b", ", address);
        set(headers, FORWARDED_FOR, chain);
        for (name, value) in [(FORWARDED_PROTO, Some(scheme)), (FORWARDED_HOST, host), (FORWARDED_PORT, Some(port))] {
            if let (false, Some(value)) = (headers.contains_key(&name), value) {
                headers.insert(name, value);
            }
        }
    } else {
        set(headers, FORWARDED_FOR, HeaderValue::from_bytes(address).ok());
        set(headers, FORWARDED_PROTO, Some(scheme));
        set(headers, FORWARDED_HOST, host);
        set(headers, FORWARDED_PORT, Some(port));
    }
}

/// Sets a field, or removes it: never leaves what the client sent.
fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => _ = headers.insert(name, value),
        None => _ = headers.remove(name),
    }
}

fn port(number: u16) -> HeaderValue {
    match number {
        80 => HeaderValue::from_static("80"),
        443 => HeaderValue::from_static("443"),
        8080 => HeaderValue::from_static("8080"),
        8443 => HeaderValue::from_static("8443"),
        _ => number.into(),
    }
}

/// Room for the longest address as text, an IPv6 one.
const ADDRESS: usize = 46;

/// An address as text. The formatting machinery costs ten times this for IPv4.
fn address(address: IpAddr, room: &mut [u8; ADDRESS]) -> &[u8] {
    let mut rest = &mut room[..];
    // There is room for either; a write that found none would be cut.
    match address {
        IpAddr::V4(v4) => {
            let mut digits = itoa::Buffer::new();
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    _ = rest.write_all(b".");
                }
                _ = rest.write_all(digits.format(octet).as_bytes());
            }
        }
        IpAddr::V6(v6) => _ = write!(rest, "{v6}"),
    }
    let left = rest.len();
    &room[..ADDRESS - left]
}

/// `for=192.0.2.60;host="example.com";proto=https`, of the peer; after `for=198.51.100.7, ` of the client, where that is
/// another.
fn forwarded(
    client: IpAddr,
    (peer, address_of_peer): (IpAddr, &[u8]),
    host: Option<&HeaderValue>,
    scheme: &str,
) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(byte);
    let host = host.map(HeaderValue::as_bytes).filter(|host| !host.is_empty() && host.iter().all(plain));
    let mut text = Vec::with_capacity(128);
    if client != peer {
        put_for(&mut text, client, address(client, &mut [0; ADDRESS]));
        text.extend_from_slice(b", ");
    }
    put_for(&mut text, peer, address_of_peer);
    if let Some(host) = host {
        for part in [b";host=\"", host, b"\""] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b";proto=");
    text.extend_from_slice(scheme.as_bytes());
    text
}

/// An IPv6 address is put in brackets and, as it has colons, in quotes (RFC 7239, section 6).
fn put_for(text: &mut Vec<u8>, of: IpAddr, address: &[u8]) {
    let (open, close): (&[u8], &[u8]) = if of.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    for part in [open, address, close] {
        text.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::edge::{Authority, Context, Peer, TlsInfo};

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn forwarded(peer: &str, trusted: bool, fields: &[(&'static str, &str)]) -> HeaderMap {
        forwarded_for(peer, peer, trusted, fields)
    }

    fn forwarded_for(client: &str, peer: &str, trusted: bool, fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = headers(fields);
        let mut at = Context::for_host(Authority::none());
        let tls =
            TlsInfo { sni: None, version: "1.3", cipher: "any", alpn: None, resumed: false, client: None, rules: 0 };
        at.peer = Arc::new(Peer {
            socket: (peer.parse::<IpAddr>().unwrap(), 40_000).into(),
            local: ([127, 0, 0, 1], 8443).into(),
            tls: Some(Arc::new(tls)),
            ..(*at.peer).clone()
        });
        let context = Forward {
            context: &at,
            client: client.parse().unwrap(),
            trusted,
            strip_prefix: None,
            identity: None,
            tunnels: &Arc::default(),
        };
        let found = Found::scan(&map);
        write(&mut map, found, &context);
        map
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        let map = forwarded(
            "::ffff:10.0.0.9",
            false,
            &[
                ("host", "example.com:8443"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-for", "5.6.7.8"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-port", "1"),
                ("forwarded", "for=1.2.3.4"),
                ("x_forwarded_for", "1.2.3.4"),
                ("x-forwarded-user", "root"),
                ("x-real-ip", "1.2.3.4"),
                ("x-forward", "is another field"),
            ],
        );
        assert_eq!(map.keys().filter(|name| name.as_str().starts_with('x')).count(), 5, "{map:?}");
        assert_eq!(map.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["10.0.0.9"]);
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["x-forwarded-host"], "example.com:8443");
        assert_eq!(map["x-forwarded-port"], "8443");
        assert_eq!(map["forwarded"], "for=10.0.0.9;host=\"example.com:8443\";proto=https");
        let bare = forwarded("2001:db8::1", false, &[("x-forwarded-host", "evil"), ("host", "a\"b")]);
        assert_eq!(bare["forwarded"], "for=\"[2001:db8::1]\";proto=https", "nothing is quoted that could break out");
        assert!(!forwarded("10.0.0.9", false, &[("x-forwarded-host", "evil")]).contains_key("x-forwarded-host"));
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_continued() {
        let map = forwarded_for(
            "5.6.7.8",
            "10.0.0.9",
            true,
            &[
                ("host", "internal"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-for", "5.6.7.8"),
                ("x-forwarded-host", "www.example.com"),
            ],
        );
        assert_eq!(map["x-forwarded-for"], "1.2.3.4, 5.6.7.8, 10.0.0.9");
        assert_eq!(map["x-forwarded-host"], "www.example.com");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["forwarded"], "for=5.6.7.8, for=10.0.0.9;host=\"internal\";proto=https");
        let first = forwarded("10.0.0.9", true, &[("x-forwarded-proto", "http")]);
        assert_eq!(
            (&first["x-forwarded-for"], &first["x-forwarded-proto"]),
            (&"10.0.0.9".parse().unwrap(), &"http".parse().unwrap())
        );
        let v6 = forwarded_for("2001:db8::1", "10.0.0.9", true, &[]);
        assert_eq!(v6["forwarded"], "for=\"[2001:db8::1]\", for=10.0.0.9;proto=https");
    }

    #[test]
    fn what_a_client_claims_does_not_pass_behind_a_trusted_proxy_either() {
        let map = forwarded_for(
            "5.6.7.8",
            "10.0.0.9",
            true,
            &[
                ("x-forwarded-for", "5.6.7.8"),
                ("x_forwarded_for", "127.0.0.1"),
                ("x-forwarded_for", "127.0.0.1"),
                ("x_forwarded_proto", "https"),
                ("x-real-ip", "127.0.0.1"),
                ("x_real_ip", "127.0.0.1"),
                ("forwarded", "for=127.0.0.1"),
            ],
        );
        let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["forwarded", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"]);
        assert!(!map.values().any(|value| value.to_str().unwrap().contains("127.0.0.1")), "{map:?}");
    }
}
