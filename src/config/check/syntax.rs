//! Forms of text: host names, endpoints, database URLs. What they say of a wrong text never repeats what may be a
//! secret.

use std::net::{IpAddr, Ipv6Addr};

/// A DNS name in ASCII, without a final dot. Underscores are let through: container networks use them.
pub(super) fn host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label) && !looks_like_ipv4(name)
}

/// Numbers and dots alone are an address, or a mistaken one.
fn looks_like_ipv4(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// What a `Host` may be matched against: a name, `*.` and a name, or an IP address (IPv6 in brackets or bare).
pub(super) fn host_pattern(host: &str) -> Result<(), String> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() || host_name(host.strip_prefix("*.").unwrap_or(host)) {
        return Ok(());
    }
    let hint = match host.rsplit_once(':') {
        _ if host == "*" => "; for any host, leave `host` out",
        _ if host.contains("://") => "; write the name alone",
        Some((name, port)) if host_name(name) && port.parse::<u16>().is_ok() => {
            "; leave the port out: a route is for every port"
        }
        _ if !host.is_ascii() => "; write it in its ASCII form (xn--…)",
        _ => "",
    };
    Err(format!("`{host}` is not a host name{hint}"))
}

/// `http://host:port` or `https://host:port`.
pub(super) fn endpoint(text: &str) -> Result<(), String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "http" && scheme != "https" {
        return Err("expected `http://host:port` or `https://host:port`".into());
    }
    if rest.contains('@') {
        return Err("an endpoint holds no user and password".into());
    }
    if rest.contains(['/', '?', '#']) {
        return Err(format!("an endpoint holds no path; write `{scheme}://host:port`, without a `/` at the end"));
    }
    host_port(rest).map_err(|why| format!("`{text}` is not an endpoint: {why}"))
}

/// `https://host:port/path`, or `http://…`.
pub(super) fn web_url(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or("expected `https://host/path` or `http://host/path`")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("the URL must hold no user and password".into());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains('#') {
        return Err("the URL must be percent-encoded, without a `#`".into());
    }
    host_port(authority).map_err(|why| format!("`{text}` is no URL: {why}"))
}

/// A host and perhaps a port.
fn host_port(text: &str) -> Result<(), &'static str> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            address.parse::<Ipv6Addr>().map_err(|_| "there is no IPv6 address in the brackets")?;
            // What follows the bracket without a colon is no port.
            (None, (!port.is_empty()).then(|| port.strip_prefix(':').unwrap_or_default()))
        }
        None => text.split_once(':').map_or((Some(text), None), |(host, port)| (Some(host), Some(port))),
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Err("the port is not a number from 1 to 65535");
    }
    match host {
        Some(host) if !host_name(host) && host.parse::<IpAddr>().is_err() => {
            Err("the host is not a name or an address")
        }
        _ => Ok(()),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `https://app.example.com`, as a browser sends it in `Origin`.
pub(super) fn origin(text: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("`{text}` is not an origin such as `https://app.example.com`: {why}");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
    {
        return Err(wrong("the scheme is not lower-case letters"));
    }
    if rest.contains('/') {
        return Err(wrong("it has a path, or a `/` at the end"));
    }
    if rest.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(wrong("browsers send it in lower case"));
    }
    if matches!((scheme, rest.rsplit_once(':')), ("https", Some((_, "443"))) | ("http", Some((_, "80")))) {
        return Err(wrong("browsers leave the scheme's own port out"));
    }
    host_port(rest).map_err(wrong)
}

/// `postgres://user:password@host:port,host/database?key=value`. `Ok`: whether it holds a password.
pub(super) fn postgres_url(url: &str) -> Result<bool, String> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or("expected `postgres://user@host:port/database`, or another `backend`")?;
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = address.split_once('/').unwrap_or((address, ""));
    let (userinfo, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let encode = "; in a user or a password, `@`, `/`, `?`, `:` and `%` are written %40, %2F, %3F, %3A and %25";
    for (index, host) in hosts.split(',').enumerate() {
        let socket = host.to_ascii_lowercase().starts_with("%2f");
        let local = host.is_empty() || host.starts_with(':');
        if !socket && !local {
            host_port(host).map_err(|why| format!("host {} of the URL: {why}{encode}", index + 1))?;
        }
    }
    if ![userinfo, hosts, database, query].iter().all(|part| percent_encoded(part)) || userinfo.contains('@') {
        return Err(format!("the URL is not percent-encoded{encode}"));
    }
    if query.split('&').any(|pair| !pair.is_empty() && !pair.contains('=')) {
        return Err("after `?`, the URL has `key=value`, with `&` between".into());
    }
    let in_query = query.split('&').any(|pair| pair.starts_with("password="));
    Ok(in_query || userinfo.contains(':'))
}

fn percent_encoded(text: &str) -> bool {
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    escapes.into_iter().all(|(at, _)| hex(bytes.get(at + 1)) && hex(bytes.get(at + 2)))
}

/// `sqlite:path`.
pub(super) fn sqlite_url(url: &str) -> Result<(), String> {
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.split('?').next().unwrap_or_default().is_empty() => Ok(()),
        _ => Err("expected `sqlite:` and a path, or another `backend`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in
            ["a", "a.example.com", "*.example.com", "xn--bcher-kva.ch", "my_service", "127.0.0.1", "[::1]", "::1"]
        {
            assert_eq!(host_pattern(host), Ok(()), "{host}");
        }
        for host in ["", "*", "a.*.b", "a..b", "-a", "a.example.com.", "http://a", "a/b", "1.2.3", "a b", "*.", "**.a"]
        {
            assert!(host_pattern(host).is_err(), "{host}");
        }
        assert!(host_pattern("a:8080").unwrap_err().contains("leave the port out"));
        assert!(host_pattern("bücher.ch").unwrap_err().contains("xn--"));
    }

    #[test]
    fn endpoints() {
        for text in [
            "http://a",
            "https://a.b:8443",
            "http://127.0.0.1:80",
            "http://[::1]:80",
            "http://[::1]",
            "http://my_app:1",
        ] {
            assert_eq!(endpoint(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "a:80",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a/",
            "http://a?x",
            "http://a:0",
            "http://a:x",
            "http://a:70000",
            "http://[::1",
            "http://[::1]80",
            "http://a:1:2",
            "http://[a]:1",
            "http://a:+1",
            "HTTP://a",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
        assert!(!endpoint("http://user:hunter2@host").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn web_urls() {
        for text in ["https://a", "http://127.0.0.1:80/x", "https://a.b/c/d.json?e=f", "https://[::1]:8443/"] {
            assert_eq!(web_url(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "a/b",
            "ftp://a",
            "https://",
            "https:///x",
            "https://a:0/",
            "https://a/#b",
            "https://a/ b",
            "HTTPS://a",
        ] {
            assert!(web_url(text).is_err(), "{text}");
        }
        assert!(!web_url("https://user:hunter2@a/").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn origins() {
        for text in ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443", "capacitor://localhost"]
        {
            assert_eq!(origin(text), Ok(()), "{text}");
        }
        for text in
            ["app.example.com", "https://a/", "https://A.com", "https://a:443", "http://a:80", "://a", "https://"]
        {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn postgres_urls() {
        let with = "postgres://u:p%40ss@h:5432,g:5433/d?sslmode=require";
        assert_eq!(postgres_url(with), Ok(true));
        for without in [
            "postgres://",
            "postgresql://u@h/d",
            "postgres://u@%2Fvar%2Frun/d",
            "postgres:///d?host=/run",
            "postgres://[::1]:1/d",
        ] {
            assert_eq!(postgres_url(without), Ok(false), "{without}");
        }
        for wrong in [
            "",
            "mysql://hunter2@h",
            "postgres://u:hunter2/x@h/d",
            "postgres://u:hunter2%@h/d",
            "postgres://u:h@hunter2@h/d",
            "postgres://h:hunter2/d",
            "postgres://h/d?hunter2",
        ] {
            let message = postgres_url(wrong).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
