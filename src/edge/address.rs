//! Who the client is, when proxies stand before us.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The client's address: the socket's, unless that is a trusted proxy's; then what it says in `X-Forwarded-For`, read from
/// right to left for as long as the speaker is trusted. An entry that is no address ends the walk, since whoever wrote it
/// speaks another language than the rest of it. When all are trusted, it is the leftmost.
///
/// IPv4 addresses mapped into IPv6 count as IPv4.
pub fn client_ip(socket: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = socket.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
            let Some(address) = parse(entry) else { return client };
            client = address;
            if !is_trusted(client, trusted) {
                return client;
            }
        }
    }
    client
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// An address, with a port as some proxies write it, or in brackets.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let address = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let in_brackets = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    address.or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn client(socket: &str, lines: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_ip(socket.parse().unwrap(), &headers(lines), &trusted).to_string()
    }

    #[test]
    fn nobody_is_believed_by_default() {
        assert_eq!(client("9.9.9.9", &["1.1.1.1"], &[]), "9.9.9.9");
        assert_eq!(client("9.9.9.9", &["1.1.1.1"], &["10.0.0.0/8"]), "9.9.9.9");
    }

    #[test]
    fn the_walk_goes_from_right_to_left_through_trusted_proxies() {
        let trusted = &["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1"], trusted), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"], trusted), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2,10.0.0.3"], trusted), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.9, 10.0.0.2"], trusted), "10.0.0.9");
        assert_eq!(client("2001:db8::1", &["2a00::1"], trusted), "2a00::1");
        assert_eq!(client("10.0.0.1", &[], trusted), "10.0.0.1");
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_walk() {
        let trusted = &["10.0.0.0/8"];
        for entry in ["unknown", "", "1.1.1", "_hidden", "1.1.1.1 x"] {
            assert_eq!(client("10.0.0.1", &[&format!("6.6.6.6, {entry}, 10.0.0.2")], trusted), "10.0.0.2", "{entry:?}");
        }
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(client("10.0.0.1", &["1.1.1.1:4711"], trusted), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["[2a00::1]:4711"], trusted), "2a00::1");
        assert_eq!(client("10.0.0.1", &["[2a00::1]"], trusted), "2a00::1");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:1.1.1.1"], trusted), "1.1.1.1");
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    proptest! {
        /// However the header is forged, what the nearest untrusted speaker is stands to the right of it.
        #[test]
        fn what_a_client_writes_cannot_change_its_address(
            forged in "[0-9a-f.:, x\\[\\]]{0,40}",
            address in any_address(),
            hops in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let trusted: IpNet = "10.0.0.0/8".parse().unwrap();
            prop_assume!(!trusted.contains(&address.to_canonical()));
            let mut lines = vec![format!("{forged}, {address}")];
            lines.extend(hops.iter().map(|hop| format!("10.0.0.{hop}")));
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let headers = headers(&lines);
            prop_assert_eq!(client_ip("10.1.1.1".parse().unwrap(), &headers, &[trusted]), address.to_canonical());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(32_u8..127, 0..64), socket in any_address()) {
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-for", HeaderValue::from_bytes(&bytes).unwrap());
            client_ip(socket, &headers, &["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        }
    }
}
