//! JSON Web Tokens (RFC 7519), with the practices of RFC 8725.
//!
//! A token names its issuer (`iss`), which must be one of ours; the issuer's rules say how it may be signed and for whom it must be.
//! What a token says about its own verification is believed as little as can be: its `alg` must be on the issuer's list, which has
//! signatures with public keys alone, and the key that is found must itself be for that algorithm (by its type, its curve, and its
//! `alg` where it has one), so that a public key is never taken for a shared secret nor one curve for another. `jwk`, `jku` and
//! `x5u` are not looked at; `crit` is refused, as no extension is understood. `exp` must be there.
//!
//! Keys come from a JWK Set ([`keys::KeySet`]), by a file or over HTTP ([`KeySource`]), and never on a request's way. Who shows a token
//! of a key that is not known is refused (401) and waits for nothing: the keys are asked for anew on the background, within a
//! quarter of a second, though at most every 30 seconds. To wait instead would let anybody park requests here with key ids of
//! their own invention; an issuer that turns its keys over shows the new one well before it uses it.
//!
//! A verified token is remembered by its hash for a minute ([`Verified`]), not beyond its end, nor beyond a change of the issuer's
//! keys or of the configuration.

mod claims;
mod keys;
mod source;
#[cfg(test)]
mod tests;
mod token;
mod verified;

pub use source::SourceStatus;
pub use token::TokenFault;

pub(super) use claims::matches;
pub(super) use source::KeySource;
pub(super) use token::{Issuer, Sound, looks_like_one, verify};
pub(super) use verified::{Known, Verified};

use verified::Digest;
