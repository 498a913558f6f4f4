//! Who calls, and what they may do.
//!
//! A consumer shows an API key, in `Authorization: Bearer KEY` or in `X-API-Key: KEY`, or where a dialect carries secrets
//! ([`Shown::secret`]). The configuration holds only the SHA-256 of each key; as keys are 256 random bits ([`new_key`]), no salt
//! and no slow hash is needed. The hash of what came is compared with every known one in constant time, without leaving early, so
//! that the time taken tells nothing.
//!
//! [`Consumers`] answers *who*, [`Admission`] (a route's `access`) *whether*, and an [`Identity`] says both: who it is, and what
//! this consumer may do at most (its [`Grant`]). Consumers and admissions are immutable and belong to a generation. What outlives
//! a generation is the [`ConsumerHandle`]: one for each credential, kept over reloads as long as the credential stays and says the
//! same. When it goes, [`Consumers::revoke_missing`] tells the handle, and with it every connection opened under it (WebSockets,
//! which are asked only once who they are). A consumer's count of requests, and of those under way, are kept as well.
//!
//! When things go wrong: a missing, unknown or contradictory key is 401, and so is a consumer who has expired; a known one who is
//! not let in here, from there or like this is 403; the answer never says how close a key came. Failures are limited by address
//! ([`FailedAuth`]); a valid key is served even from an address that is over that limit, for a neighbour behind the same NAT is
//! not to blame, and 256 bits are not guessed.
//!
//! Left out: JWT, client certificates, Basic.

mod admission;
mod consumers;
mod denied;
mod failed;
mod grant;
mod handle;
mod identity;
mod jwt;
mod key;
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
pub use key::{NewKey, conceal, new_key};
pub use seats::{Full, Seat};
