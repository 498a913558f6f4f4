//! `[listener.NAME]`, and that no two sockets want one address.

use std::net::{IpAddr, SocketAddr};

use super::{Check, syntax};
use crate::config::{
    key,
    model::{Http2, Listener, Tls},
    value::Size,
};

/// Least that hyper takes as its read buffer, which holds the head.
const LEAST_HEAD: Size = Size::kib(8);
/// Largest HTTP/2 window (RFC 9113, section 6.9.1).
const LARGEST_WINDOW: Size = Size((1 << 31) - 1);

impl Check<'_> {
    pub(super) fn listeners(&mut self) {
        let config = self.config;
        let none_lost = !self.doubtful.iter().any(|key| key::is_within(key, "listener"));
        self.unless(!config.listener.is_empty() || !none_lost, "listener", "there is none: nothing would be served");
        for (name, listener) in &config.listener {
            self.listener(&key::join("listener", name), listener);
        }
        self.addresses();
    }

    fn listener(&mut self, at: &str, listener: &Listener) {
        match &listener.tls {
            Some(Tls::SelfSigned(names)) => self.self_signed(at, &names.self_signed),
            Some(Tls::Files(pairs)) => {
                self.unless(!pairs.is_empty(), format!("{at}.tls"), "the list of certificates is empty");
            }
            None => {}
        }
        let shown = listener.client_certificates.is_none() || listener.tls.is_some();
        let message = "needs `tls`: a client shows its certificate in the handshake";
        self.unless(shown, format!("{at}.client_certificates"), message);
        if let Some(redirect) = &listener.https_redirect {
            let plain = listener.tls.is_none();
            let message = "stands with `tls`: a listener that speaks TLS has nowhere to redirect to; use another one";
            self.unless(plain, format!("{at}.https_redirect"), message);
            self.number(format!("{at}.https_redirect.port"), redirect.port, 1, 65535);
            let known = matches!(redirect.status, 301 | 302 | 307 | 308);
            self.unless(known, format!("{at}.https_redirect.status"), "must be 301, 302, 307 or 308");
        }
        self.positive(
            at,
            &[
                ("handshake_timeout", listener.handshake_timeout),
                ("header_timeout", listener.header_timeout),
                ("idle_timeout", listener.idle_timeout),
                ("progress_timeout", listener.progress_timeout),
                ("max_age", listener.max_age),
            ],
        );
        self.number(format!("{at}.backlog"), listener.backlog, 1, i32::MAX as u64);
        self.number(format!("{at}.max_headers"), listener.max_headers, 1, 10_000);
        self.size(format!("{at}.max_header_bytes"), listener.max_header_bytes, LEAST_HEAD, Size::mib(16));
        self.http2(&format!("{at}.http2"), &listener.http2);
    }

    fn self_signed(&mut self, at: &str, names: &[String]) {
        self.unless(
            !names.is_empty(),
            format!("{at}.tls.self_signed"),
            "name at least one host, such as \"localhost\"",
        );
        for (index, name) in names.iter().enumerate() {
            self.parsed(syntax::host_pattern(name), format!("{at}.tls.self_signed[{index}]"));
        }
    }

    fn http2(&mut self, at: &str, http2: &Http2) {
        self.number(format!("{at}.max_streams"), http2.max_streams, 1, 100_000);
        self.size(format!("{at}.stream_window"), http2.stream_window, Size::kib(1), LARGEST_WINDOW);
        self.size(format!("{at}.connection_window"), http2.connection_window, Size::kib(1), LARGEST_WINDOW);
        self.size(format!("{at}.send_buffer"), http2.send_buffer, Size::kib(1), LARGEST_WINDOW);
        self.positive(at, &[("ping_interval", http2.ping_interval), ("ping_timeout", http2.ping_timeout)]);
        self.number(format!("{at}.max_pending_resets"), http2.max_pending_resets, 1, 100_000);
        self.number(format!("{at}.max_local_resets"), http2.max_local_resets, 1, 100_000);
    }

    fn addresses(&mut self) {
        let config = self.config;
        let admin = config.admin.iter().map(|admin| ("admin".to_owned(), admin.address));
        let listeners = config.listener.iter().map(|(name, listener)| (key::join("listener", name), listener.address));
        let all: Vec<_> = admin.chain(listeners).collect();
        for (index, (at, address)) in all.iter().enumerate() {
            if let Some((other, taken)) = all[..index].iter().find(|(_, taken)| collide(*taken, *address)) {
                self.wrong(format!("{at}.address"), format!("`{address}` collides with `{taken}` of `{other}`"));
            }
        }
    }
}

/// Whether two sockets cannot both have their address: the same one, or one of them is every address of the family.
pub fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let every = |ip: IpAddr| ip.is_unspecified();
    let overlap = a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (every(a.ip()) || every(b.ip())));
    a.port() == b.port() && a.port() != 0 && overlap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_collide() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("127.0.0.1:80", "127.0.0.1:80"));
        assert!(collide("0.0.0.0:80", "127.0.0.1:80"));
        assert!(collide("[::1]:80", "[::]:80"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!collide("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!collide("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!collide("0.0.0.0:80", "[::1]:80"));
    }
}
