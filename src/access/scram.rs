//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding: the client proves that it knows a key without
//! showing it, and what is kept here does not let anybody in. PostgreSQL keeps the same, in the same words.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use rand::{TryRngCore, rngs::OsRng};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// As PostgreSQL has it. A key of 256 random bits needs none.
const ITERATIONS: u32 = 4096;
/// Beyond, a client would be kept busy.
const MOST_ITERATIONS: u32 = 1_000_000;

type Sum = [u8; 32];

/// What is kept of a key: `SCRAM-SHA-256$4096:SALT$STOREDKEY:SERVERKEY`, the last three in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Box<[u8]>,
    stored: Sum,
    server: Sum,
}

/// A conversation with a client that has said its first word.
pub struct Exchange {
    verifier: Verifier,
    /// `n,,` or `y,,`.
    header: String,
    /// The client's first word without the header, and ours.
    said: String,
    nonce: String,
    /// Nobody has this name: whatever is proved, it is not enough.
    nobody: bool,
}

/// A client's message that is none, or proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProved;

// === impl Verifier ===

impl Verifier {
    /// Reads it; none if it is no verifier.
    pub fn parse(text: &str) -> Option<Self> {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        let sum = |text: &str| Sum::try_from(STANDARD.decode(text).ok()?).ok();
        let iterations = iterations.parse().ok().filter(|count| (1..=MOST_ITERATIONS).contains(count))?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self { iterations, salt: salt.into(), stored: sum(stored)?, server: sum(server)? })
    }

    /// Of a key, with a new salt; none if there is no randomness to be had.
    pub fn new(key: &[u8]) -> Option<Self> {
        let mut salt = [0; 16];
        OsRng.try_fill_bytes(&mut salt).ok()?;
        Some(Self::of(key, &salt, ITERATIONS))
    }

    fn of(key: &[u8], salt: &[u8], iterations: u32) -> Self {
        // `Hi` of RFC 5802.
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(key, salt, iterations);
        let stored = Sha256::digest(sign(&salted, b"Client Key")).into();
        Self { iterations, salt: salt.into(), stored, server: sign(&salted, b"Server Key") }
    }

    /// For a name that nobody has: the same each time, so that it cannot be told from one that somebody has.
    fn of_nobody(secret: &[u8], name: &str) -> Self {
        let salt = sign(secret, name.as_bytes());
        Self { iterations: ITERATIONS, salt: salt[..16].into(), stored: sign(secret, &salt), server: salt }
    }
}

/// As it stands in the configuration.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] = [&self.salt[..], &self.stored, &self.server].map(|bytes| STANDARD.encode(bytes));
        write!(f, "SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(***)")
    }
}

// === impl Exchange ===

impl Exchange {
    /// Hears a client's first word, and gives ours. `verifier`: of the name it gave, if anybody has it; `secret` is the
    /// gateway's own, the same over restarts.
    ///
    /// # Errors
    /// It is no first word, or wants channel binding.
    pub fn begin(
        verifier: Option<&Verifier>,
        name: &str,
        secret: &[u8],
        first: &str,
    ) -> Result<(Self, String), NotProved> {
        let mut random = [0; 18];
        OsRng.try_fill_bytes(&mut random).map_err(|_| NotProved)?;
        Self::begin_with(verifier, name, secret, first, &STANDARD.encode(random))
    }

    fn begin_with(
        verifier: Option<&Verifier>,
        name: &str,
        secret: &[u8],
        first: &str,
        own: &str,
    ) -> Result<(Self, String), NotProved> {
        let bare = first.strip_prefix("n,,").or_else(|| first.strip_prefix("y,,")).ok_or(NotProved)?;
        let (_, theirs) = bare.split_once(",r=").filter(|(user, _)| user.starts_with("n=")).ok_or(NotProved)?;
        let theirs = theirs.split(',').next().filter(|nonce| !nonce.is_empty()).ok_or(NotProved)?;
        let nonce = format!("{theirs}{own}");
        let nobody = verifier.is_none();
        let verifier = verifier.cloned().unwrap_or_else(|| Verifier::of_nobody(secret, name));
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let header = first[..3].to_owned();
        Ok((Self { verifier, header, said: format!("{bare},{answer}"), nonce, nobody }, answer))
    }

    /// Hears a client's last word, and gives ours.
    ///
    /// # Errors
    /// It does not prove that it knows the key.
    pub fn finish(&self, last: &str) -> Result<String, NotProved> {
        let (without, proof) = last.rsplit_once(",p=").ok_or(NotProved)?;
        if without != format!("c={},r={}", STANDARD.encode(&self.header), self.nonce) {
            return Err(NotProved);
        }
        let proof = STANDARD.decode(proof).ok().and_then(|proof| Sum::try_from(proof).ok()).ok_or(NotProved)?;
        let said = format!("{},{without}", self.said);
        let signature = sign(&self.verifier.stored, said.as_bytes());
        let key: Vec<u8> = proof.iter().zip(signature).map(|(proof, signature)| proof ^ signature).collect();
        let known: bool = Sha256::digest(key).as_slice().ct_eq(&self.verifier.stored).into();
        if !known || self.nobody {
            return Err(NotProved);
        }
        Ok(format!("v={}", STANDARD.encode(sign(&self.verifier.server, said.as_bytes()))))
    }
}

fn sign(key: &[u8], text: &[u8]) -> Sum {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of HMAC may have any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc_is_understood() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::of(b"pencil", &salt, 4096);
        let own = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let (exchange, answer) = Exchange::begin_with(Some(&verifier), "user", b"x", first, own).unwrap();
        assert_eq!(answer, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.finish(last).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        for wrong in [
            last.replace("biws", "eSws"),
            last.replace("dHz", "dHy"),
            last.replace("$k0", "$k1"),
            String::new(),
            "p=".into(),
        ] {
            assert_eq!(exchange.finish(&wrong), Err(NotProved), "{wrong}");
        }
        assert_eq!(Verifier::parse(&verifier.to_string()), Some(verifier.clone()));
        assert_eq!(format!("{verifier:?}"), "Verifier(***)");
    }

    #[test]
    fn a_name_that_nobody_has_looks_like_any_other() {
        let ask = |name| Exchange::begin_with(None, name, b"secret", "y,,n=,r=abc", "def").unwrap();
        let (exchange, answer) = ask("nobody");
        assert_eq!(answer, ask("nobody").1);
        assert_ne!(answer, ask("another").1);
        assert!(answer.ends_with(",i=4096") && answer.starts_with("r=abcdef,s="));
        // Even with the proof that would do.
        let without = "c=eSws,r=abcdef";
        let signature = sign(&exchange.verifier.stored, format!("{},{without}", exchange.said).as_bytes());
        assert_eq!(exchange.finish(&format!("{without},p={}", STANDARD.encode(signature))), Err(NotProved));
        for first in ["", "n,,", "p=tls-unique,,n=,r=a", "n,a=x,n=,r=a", "n,,n=,r=", "n,,r=a"] {
            assert!(Exchange::begin(None, "x", b"s", first).is_err(), "{first}");
        }
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        let good = Verifier::new(b"key").unwrap().to_string();
        assert!(Verifier::parse(&good).is_some());
        for wrong in ["", "md5abc", &good[..good.len() - 4], &good.replace("4096", "0"), &good.replace("4096", "x")] {
            assert_eq!(Verifier::parse(wrong), None, "{wrong}");
        }
    }
}
