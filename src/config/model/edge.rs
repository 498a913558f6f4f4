//! Listeners: addresses, certificates, deadlines and protocol limits.

use std::{fmt, net::SocketAddr, path::PathBuf};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        self,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use super::defaults::{half_minute, hour, minute, permanent, ten_seconds};
use crate::config::value::{Size, Span, address, word};

/// `[listener.NAME]`. A new or removed listener is bound or drained live; a changed `address` is a rebind.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port; port 0 takes a free one, named in the ready line. (rebind)
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// Certificates; absent means plain HTTP. (live)
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Oldest TLS version spoken: `1.2` (default) or `1.3`. (live, for new connections)
    #[serde(default, deserialize_with = "word")]
    pub tls_min_version: TlsVersion,
    /// What a server name without a certificate gets: the first certificate (`default`) or an alert (`refuse`). (live)
    #[serde(default, deserialize_with = "word")]
    pub unknown_sni: UnknownSni,
    /// Whether clients are asked for certificates, and whose. Default: they are not. (live, also for connections that are open)
    #[serde(default)]
    pub client_certificates: Option<ClientCertificates>,
    /// Answer every request with a redirect to the same place over HTTPS. (live)
    #[serde(default)]
    pub https_redirect: Option<HttpsRedirect>,
    /// Longest accept queue. Default 4096; the kernel's somaxconn caps it. (rebind)
    #[serde(default = "backlog")]
    pub backlog: u32,
    /// Longest TLS handshake. Default 10s. (live, for new connections; so are all below)
    #[serde(default = "ten_seconds")]
    pub handshake_timeout: Span,
    /// Longest wait for the first request, and from the first byte of a head to its end. Default 10s.
    #[serde(default = "ten_seconds")]
    pub header_timeout: Span,
    /// How long a connection may carry no request. Default 60s.
    #[serde(default = "minute")]
    pub idle_timeout: Span,
    /// A body must make progress within this, in either direction. Default 30s.
    #[serde(default = "half_minute")]
    pub progress_timeout: Span,
    /// Least bytes a second a request body must bring, averaged over `progress_timeout`. Default 256B; 0B: any
    /// progress will do.
    #[serde(default = "min_rate")]
    pub min_body_rate: Size,
    /// Oldest a connection may grow before it is asked to leave, with 10 % jitter. Default 1h.
    #[serde(default = "hour")]
    pub max_age: Span,
    /// Most header fields in a request. Default 100.
    #[serde(default = "headers")]
    pub max_headers: usize,
    /// Largest request head: HTTP/1 bytes, HTTP/2 header list. Default 32KiB.
    #[serde(default = "header_bytes")]
    pub max_header_bytes: Size,
    /// HTTP/2 settings.
    #[serde(default)]
    pub http2: Http2,
}

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Tls {
    /// `{ self_signed = ["localhost"] }`: a leaf from the local CA in the state directory.
    SelfSigned(SelfSigned),
    /// `[{ certificate = "a.pem", key = "a.key" }, …]`: chosen by SNI, exact before wildcard; the first is the default.
    Files(Vec<TlsPair>),
}

/// Names for a certificate signed by the local CA.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SelfSigned {
    /// DNS names and IP addresses.
    pub self_signed: Vec<String>,
}

/// A certificate chain and its key, both PEM files, watched.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsPair {
    /// Leaf first, then intermediates.
    pub certificate: PathBuf,
    /// PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
}

/// Client certificates (mutual TLS).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// PEM file of the CAs that sign them, watched.
    pub ca: PathBuf,
    /// Whether there is no handshake without one. Default false: who shows none may still show a key.
    #[serde(default)]
    pub required: bool,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with AEAD and forward-secret suites only.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V13,
}

/// What a client gets that names a server we have no certificate for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownSni {
    /// The listener's first certificate.
    #[default]
    Default,
    /// A handshake failure.
    Refuse,
}

/// Redirect to HTTPS.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpsRedirect {
    /// Port in the target; 443 is left out. Default 443.
    #[serde(default = "https")]
    pub port: u16,
    /// 301, 302, 307 or 308. Default 308, which keeps the method.
    #[serde(default = "permanent")]
    pub status: u16,
}

/// HTTP/2 settings of a listener. The defaults bound the memory of one connection at about 26 MiB in the worst case.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Streams at a time on one connection. Default 100.
    pub max_streams: u32,
    /// Bytes a client may send on one stream before we read them. Default 64KiB.
    pub stream_window: Size,
    /// Bytes a client may send on one connection before we read them. Default 1MiB.
    pub connection_window: Size,
    /// Bytes of answer held for one stream. Default 256KiB.
    pub send_buffer: Size,
    /// Silence after which the client is pinged. Default 30s.
    pub ping_interval: Span,
    /// How long a ping may stay unanswered. Default 10s.
    pub ping_timeout: Span,
    /// Streams the client reset before we took them up (CVE-2023-44487). Default 20.
    pub max_pending_resets: usize,
    /// Streams we reset because of the client's errors (CVE-2025-8671). Default 1024.
    pub max_local_resets: usize,
}

impl Listener {
    /// A listener without TLS, with every default.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            tls_min_version: TlsVersion::default(),
            unknown_sni: UnknownSni::default(),
            client_certificates: None,
            https_redirect: None,
            backlog: backlog(),
            handshake_timeout: ten_seconds(),
            header_timeout: ten_seconds(),
            idle_timeout: minute(),
            progress_timeout: half_minute(),
            min_body_rate: min_rate(),
            max_age: hour(),
            max_headers: headers(),
            max_header_bytes: header_bytes(),
            http2: Http2::default(),
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_streams: 100,
            stream_window: Size::kib(64),
            connection_window: Size::mib(1),
            send_buffer: Size::kib(256),
            ping_interval: Span::secs(30),
            ping_timeout: Span::secs(10),
            max_pending_resets: 20,
            max_local_resets: 1024,
        }
    }
}

// Written out, not `untagged`: that forgets where in the table the mistake was, and what it was.
impl<'de> Deserialize<'de> for Tls {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Table or list.
        struct Form;

        impl<'de> de::Visitor<'de> for Form {
            type Value = Tls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "`{ self_signed = [\"localhost\"] }` or a list of `{ certificate = \"a.pem\", key = \"a.key\" }`",
                )
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                SelfSigned::deserialize(MapAccessDeserializer::new(map)).map(Tls::SelfSigned)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Tls, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Tls::Files)
            }
        }

        from.deserialize_any(Form)
    }
}

fn backlog() -> u32 {
    4096
}

fn min_rate() -> Size {
    Size(256)
}

fn headers() -> usize {
    100
}

fn header_bytes() -> Size {
    Size::kib(32)
}

fn https() -> u16 {
    443
}
