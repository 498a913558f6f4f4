//! Compiled components at rest: sealed with a digest, and turned back into code. The one place with `unsafe`.
//!
//! What is loaded here becomes machine code of this process. Wasmtime checks that it was compiled by the same version
//! for the same settings and CPU, not that it is sound. So it must be the very bytes our own compiler wrote: the cache's
//! directory and files belong to this user and nobody else may write there ([`super::cache`]), and the seal's digest
//! catches what a disk or a cut-off write did to them. The bytes are copied, not mapped: a file truncated under a mapping
//! would kill the process.

#![allow(unsafe_code, reason = "the one way to load a precompiled component, see above")]

use wasmtime::{Engine, component::Component};

use super::content::Digest;

/// Says what the file is; the digit is the seal's own version.
const MAGIC: &[u8; 8] = b"SGPOLCY1";
const HEADER: usize = MAGIC.len() + 32;

/// Compiled code with the seal before it, as [`open`] takes it.
pub(super) fn seal(code: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEADER + code.len());
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(Digest::of(code).as_bytes());
    sealed.extend_from_slice(code);
    sealed
}

/// Loads what [`seal`] sealed. `sealed` must come from a place that only this program writes to.
///
/// # Errors
/// The seal is broken, or the code is of another compiler, other settings or another CPU.
pub(super) fn open(engine: &Engine, sealed: &[u8]) -> Result<Component, String> {
    let code = unseal(sealed)?;
    // SAFETY: `code` is what this program's compiler process wrote, unchanged: nobody else can write where it lay (see
    // `Cache`), and its digest agrees.
    unsafe { Component::deserialize(engine, code) }.map_err(|error| format!("{error:#}"))
}

fn unseal(sealed: &[u8]) -> Result<&[u8], String> {
    let rest = sealed.strip_prefix(MAGIC).ok_or("not a compiled policy")?;
    let (digest, code) = rest.split_first_chunk().ok_or("cut short")?;
    if Digest::of(code) != Digest::from_bytes(*digest) {
        return Err("its content does not match its digest".to_owned());
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_seal_is_noticed_wherever_it_is_broken() {
        let sealed = seal(b"some code");
        assert_eq!(unseal(&sealed).unwrap(), b"some code");
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(unseal(&broken).is_err(), "byte {at}");
            assert!(unseal(&sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
