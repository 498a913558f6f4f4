//! Who calls, and what they may do.
//!
//! A consumer shows one of four things. An **API key**, in `Authorization: Bearer KEY` or in `X-API-Key: KEY`, or where a dialect
//! carries secrets ([`Shown::secret`]): the configuration holds only the SHA-256 of each; as keys are 256 random bits ([`new_key`]),
//! no salt and no slow hash is needed. The hash of what came is compared with every known one in constant time, without leaving
//! early, so that the time taken tells nothing. A **token** (`jwt`), in the same places, signed by an issuer whose keys we have. A
//! **client certificate**, which the connection's handshake has verified: its alternative names, or its digest. What the request
//! shows goes before what its connection shows, also where it is good for nothing: a certificate stands in for no key that was
//! taken out. Only an `Authorization` that may be the upstream's business is passed over. What stands for two consumers stands
//! for none. And in a tunnel, a **proof** by SCRAM that it knows a key ([`Exchange`]), which is then not shown at all.
//!
//! [`Consumers`] answers *who*, [`Admission`] (a route's `access`) *whether*, and an [`Identity`] says both: who it is, and what
//! this consumer may do at most (its [`Grant`]). Consumers and admissions are immutable and belong to a generation. What outlives
//! a generation is the [`ConsumerHandle`]: one for each credential, kept over reloads as long as the credential stays and says the
//! same. When it goes, [`Consumers::revoke_missing`] tells the handle, and with it every connection opened under it (WebSockets,
//! which are asked only once who they are). A consumer's count of requests, and of those under way, are kept as well, and so are
//! issuers' keys. A certificate's WebSockets end when its listener would not accept it any more. A token's WebSockets end with the token
//! (`exp`), not with the key that had signed it.
//!
//! When things go wrong: what is missing, unknown, contradictory or over is 401; a known consumer who is not let in here, from there
//! or like this is 403, and so is a good token that stands for nobody; the answer never says how close a key came. While an issuer's
//! keys cannot be had, the last good ones serve; if none ever came, its tokens are 503. Failures are limited by address
//! ([`FailedAuth`]); a valid key is served even from an address that is over that limit, for a neighbour behind the same NAT is
//! not to blame, and 256 bits are not guessed. So is a token that was verified a moment ago; another one is not looked at (429), as
//! each signature costs some 100 µs.
//!
//! Left out: Basic, tokens that are bound to a key of their sender (DPoP, RFC 9449), encrypted ones, introspection.

mod admission;
mod consumers;
mod denied;
mod failed;
mod grant;
mod handle;
mod identity;
mod jwt;
mod key;
mod scram;
mod seats;
#[cfg(test)]
mod tests;

pub use admission::Admission;
pub use consumers::{AccessError, Consumers};
pub use denied::Denied;
pub use failed::FailedAuth;
pub use grant::Grant;
pub use handle::ConsumerHandle;
pub use identity::{Ended, Identity, Shown};
pub use jwt::{SourceStatus, TokenFault};
pub use key::{NewKey, conceal, kept_key, new_key};
pub use scram::{Exchange, NotProved, Verifier};
pub use seats::Full;
