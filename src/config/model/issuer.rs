//! Who signs tokens.

use serde::{Deserialize, Serialize};

use super::UpstreamTls;
use crate::config::value::Span;

/// `[issuer.NAME]`: who signs JSON Web Tokens (RFC 7519), and which of them are for us. Live; the keys stay as long as their
/// place does.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Where the keys are: a URL (`https://…`, or `http://…` on a network that is trusted), or a file, which is watched. A JWK Set
    /// (RFC 7517).
    pub jwks: String,
    /// `iss` of its tokens, to the letter.
    pub issuer: String,
    /// One of these must be in a token's `aud`.
    pub audience: Vec<String>,
    /// How tokens may be signed. Default RS256, PS256, ES256 and EdDSA; never with a shared secret.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be from ours. Default 30s.
    #[serde(default = "leeway")]
    pub leeway: Span,
    /// How old the keys may grow before they are fetched anew. Default 10m.
    #[serde(default = "refresh")]
    pub refresh: Span,
    /// TLS to the URL.
    #[serde(default)]
    pub tls: UpstreamTls,
}

/// A signature of RFC 7518, section 3.1, or RFC 8037, with a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// The same with SHA-384.
    RS384,
    /// The same with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// The same with SHA-384.
    PS384,
    /// The same with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Issuer {
    /// Whether the keys come over the network.
    pub fn is_remote(&self) -> bool {
        self.jwks.contains("://")
    }
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA]
}

fn leeway() -> Span {
    Span::secs(30)
}

fn refresh() -> Span {
    Span::secs(600)
}
