//! Tokens against keys: what holds, and what is refused.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{
    keys::{KeySet, KeysError},
    token::{LARGEST, verify},
    *,
};
use crate::{
    access::ConsumerHandle,
    config::model::{self, Claim},
};

/// Half past nothing in particular, in 2026.
const NOW: u64 = 1_790_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair, as a token is signed by it and as an issuer shows it.
struct Pair {
    private: EncodingKey,
    public: Value,
    /// What a public key is, byte for byte, where somebody takes it for a secret.
    raw: Vec<u8>,
}

impl Pair {
    fn rsa(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        // RFC 8017: SEQUENCE { INTEGER n (with a zero in front), INTEGER e }.
        let raw = pair.public_key_raw().to_vec();
        let public = json!({ "kty": "RSA", "kid": id, "n": b64(&raw[9..265]), "e": "AQAB" });
        // PKCS#8 holds PKCS#1 behind 26 bytes.
        Self { private: EncodingKey::from_rsa_der(&pair.serialize_der()[26..]), public, raw }
    }

    fn ec(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let raw = pair.public_key_raw().to_vec();
        let public = json!({ "kty": "EC", "kid": id, "crv": "P-256", "x": b64(&raw[1..33]), "y": b64(&raw[33..]) });
        Self { private: EncodingKey::from_ec_der(&pair.serialize_der()), public, raw }
    }

    fn ed(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let raw = pair.public_key_raw().to_vec();
        let public = json!({ "kty": "OKP", "kid": id, "crv": "Ed25519", "x": b64(&raw) });
        Self { private: EncodingKey::from_ed_der(&pair.serialize_der()), public, raw }
    }

    /// A token, whatever its header says, signed in this way.
    fn sign(&self, header: &Value, claims: &Value, how: jsonwebtoken::Algorithm) -> String {
        sign(&self.private, header, claims, how)
    }
}

fn sign(key: &EncodingKey, header: &Value, claims: &Value, how: jsonwebtoken::Algorithm) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, how).unwrap();
    format!("{message}.{signature}")
}

/// An issuer with these keys.
fn issuer(keys: &[&Value]) -> Arc<Issuer> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
    let text = format!("jwks = {:?}\nissuer = \"https://a/\"\naudience = [\"us\", \"we\"]", file.path());
    let settings: model::Issuer = toml_edit::de::from_str(&text).unwrap();
    let source = KeySource::open("a", &settings, None).unwrap();
    Arc::new(Issuer { settings, source })
}

fn claims() -> Value {
    json!({ "iss": "https://a/", "aud": "us", "exp": NOW + 60, "sub": "someone" })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
        value => object[name] = value,
    }
    object
}

fn ask(token: &str, issuer: &Arc<Issuer>) -> Result<Sound, TokenFault> {
    verify(token.as_bytes(), [issuer], || true, at(NOW))
}

fn fault(token: &str, issuer: &Arc<Issuer>) -> TokenFault {
    ask(token, issuer).map(|sound| sound.claims).unwrap_err()
}

use jsonwebtoken::Algorithm::{ES256, EdDSA, HS256, HS384, PS256, RS256, RS512};

#[test]
fn a_token_of_each_kind_of_key_holds() {
    let (rsa, ec, ed) = (Pair::rsa("r"), Pair::ec("e"), Pair::ed("d"));
    let issuer = issuer(&[&rsa.public, &ec.public, &ed.public]);
    for (pair, how, id) in [(&rsa, RS256, "r"), (&rsa, PS256, "r"), (&ec, ES256, "e"), (&ed, EdDSA, "d")] {
        let header = json!({ "alg": format!("{how:?}"), "kid": id });
        let sound = ask(&pair.sign(&header, &claims(), how), &issuer).unwrap();
        assert_eq!(sound.claims["sub"], "someone");
        assert_eq!(sound.ends, at(NOW + 90), "with the leeway");
        for r#type in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
            assert!(ask(&pair.sign(&with(header.clone(), "typ", json!(r#type)), &claims(), how), &issuer).is_ok());
        }
    }
    let unlisted = rsa.sign(&json!({ "alg": "RS512", "kid": "r" }), &claims(), RS512);
    assert_eq!(fault(&unlisted, &issuer), TokenFault::Algorithm, "the issuer's list is held to");
}

#[test]
fn what_a_header_says_of_its_own_verification_is_not_believed() {
    let (rsa, ec, stranger) = (Pair::rsa("r"), Pair::ec("e"), Pair::rsa("r"));
    let issuer = issuer(&[&rsa.public, &ec.public]);
    let unsigned = |alg: &str| format!("{}.{}.", b64(json!({ "alg": alg }).to_string()), b64(claims().to_string()));
    for alg in ["none", "None", "NONE", ""] {
        assert_eq!(fault(&unsigned(alg), &issuer), TokenFault::Algorithm, "{alg}");
    }
    assert_eq!(fault(&unsigned("RS256"), &issuer), TokenFault::Signature);
    // The public key, taken for a shared secret: as bytes, and as the text of its JWK.
    for secret in [rsa.raw.clone(), rsa.public.to_string().into_bytes(), ec.raw.clone()] {
        for (alg, how) in [("HS256", HS256), ("HS384", HS384)] {
            let token = sign(&EncodingKey::from_secret(&secret), &json!({ "alg": alg, "kid": "r" }), &claims(), how);
            assert_eq!(fault(&token, &issuer), TokenFault::Algorithm);
        }
        let token = sign(&EncodingKey::from_secret(&secret), &json!({ "alg": "RS256", "kid": "r" }), &claims(), HS256);
        assert_eq!(fault(&token, &issuer), TokenFault::Signature);
    }
    // One kind of key under another's name.
    let crossed = ec.sign(&json!({ "alg": "ES256", "kid": "r" }), &claims(), ES256);
    assert_eq!(fault(&crossed, &issuer), TokenFault::UnknownKey, "an RSA key does not verify ES256");
    let crossed = rsa.sign(&json!({ "alg": "RS256", "kid": "e" }), &claims(), RS256);
    assert_eq!(fault(&crossed, &issuer), TokenFault::UnknownKey);
    // A key that the token brings along.
    for (name, value) in [
        ("jwk", stranger.public.clone()),
        ("jku", json!("https://evil/jwks")),
        ("x5u", json!("https://evil/x")),
        ("x5c", json!(["MIIB"])),
    ] {
        let header = with(json!({ "alg": "RS256", "kid": "r" }), name, value);
        assert_eq!(fault(&stranger.sign(&header, &claims(), RS256), &issuer), TokenFault::Signature, "{name}");
        assert!(ask(&rsa.sign(&header, &claims(), RS256), &issuer).is_ok(), "{name} is not looked at");
    }
    for (name, value) in [("crit", json!(["b64"])), ("crit", json!([])), ("typ", json!("logout+jwt"))] {
        let header = with(json!({ "alg": "RS256", "kid": "r" }), name, value);
        assert_eq!(fault(&rsa.sign(&header, &claims(), RS256), &issuer), TokenFault::Malformed, "{name}");
    }
    let null = json!({ "alg": "RS256", "kid": "r", "crit": null });
    assert_eq!(fault(&rsa.sign(&null, &claims(), RS256), &issuer), TokenFault::Malformed, "it is there");
}

#[test]
fn a_key_that_says_its_algorithm_verifies_no_other() {
    let rsa = Pair::rsa("r");
    let ps_only = issuer(&[&with(rsa.public.clone(), "alg", json!("PS256"))]);
    let token = |alg: &str, how| rsa.sign(&json!({ "alg": alg, "kid": "r" }), &claims(), how);
    assert!(ask(&token("PS256", PS256), &ps_only).is_ok());
    assert_eq!(fault(&token("RS256", RS256), &ps_only), TokenFault::UnknownKey);
    for (name, value) in
        [("use", json!("enc")), ("key_ops", json!(["sign"])), ("alg", json!("ES256")), ("alg", json!("HS256"))]
    {
        let key = with(rsa.public.clone(), name, value);
        let document = json!({ "keys": [key] }).to_string();
        assert_eq!(KeySet::parse(document.as_bytes()).unwrap().len(), 0, "{name}");
    }
}

#[test]
fn claims_are_held_against_the_issuers_rules() {
    let ed = Pair::ed("d");
    let issuer = issuer(&[&ed.public]);
    let with_claim = |name: &str, value: Value| {
        let token = ed.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &with(claims(), name, value), EdDSA);
        ask(&token, &issuer).map(|sound| sound.ends)
    };
    for (value, wanted) in [
        (json!("https://b/"), TokenFault::Issuer),
        (json!("https://a"), TokenFault::Issuer),
        (json!(["https://a/"]), TokenFault::Issuer),
        (Value::Null, TokenFault::Issuer),
    ] {
        assert_eq!(with_claim("iss", value), Err(wanted));
    }
    for (value, good) in [
        (json!("us"), true),
        (json!("we"), true),
        (json!(["others", "we"]), true),
        (json!("others"), false),
        (json!("US"), false),
        (json!(["others"]), false),
        (json!([]), false),
        (json!({ "us": true }), false),
        (Value::Null, false),
    ] {
        let wanted = if good { Ok(at(NOW + 90)) } else { Err(TokenFault::Audience) };
        assert_eq!(with_claim("aud", value.clone()), wanted, "{value}");
    }
    for (value, wanted) in [
        (json!(NOW - 29), Ok(at(NOW + 1))),
        (json!(NOW - 30), Err(TokenFault::Expired)),
        (json!((NOW - 30) as f64 + 0.5), Ok(at(NOW) + Duration::from_millis(500))),
        (json!("tomorrow"), Err(TokenFault::Expired)),
        (json!(-1), Err(TokenFault::Expired)),
        (json!(1e300), Err(TokenFault::Expired)),
        (Value::Null, Err(TokenFault::Expired)),
    ] {
        assert_eq!(with_claim("exp", value.clone()), wanted, "{value}");
    }
    for (value, good) in [(json!(NOW + 30), true), (json!(NOW + 31), false), (json!("now"), false), (json!(0), true)] {
        let wanted = if good { Ok(at(NOW + 90)) } else { Err(TokenFault::Early) };
        assert_eq!(with_claim("nbf", value.clone()), wanted, "{value}");
    }
}

#[test]
fn keys_are_found_by_id_and_without_one_by_trying_a_few() {
    let (one, two) = (Pair::ed("x"), Pair::ed("x"));
    let bare = |pair: &Pair| with(pair.public.clone(), "kid", Value::Null);
    let token = |pair: &Pair, id: Option<&str>| {
        let header = json!({ "alg": "EdDSA" });
        pair.sign(&id.map_or(header.clone(), |id| with(header, "kid", json!(id))), &claims(), EdDSA)
    };
    let same_id = issuer(&[&one.public, &two.public]);
    let no_id = issuer(&[&bare(&one), &bare(&two)]);
    for pair in [&one, &two] {
        assert!(ask(&token(pair, Some("x")), &same_id).is_ok() && ask(&token(pair, None), &same_id).is_ok());
        assert!(ask(&token(pair, Some("y")), &no_id).is_ok() && ask(&token(pair, None), &no_id).is_ok());
        assert_eq!(fault(&token(pair, Some("y")), &same_id), TokenFault::UnknownKey);
    }
    let many: Vec<Value> = (0..64).map(|_| bare(&Pair::ed(""))).chain([bare(&one)]).collect();
    let crowd = issuer(&many[1..].iter().collect::<Vec<_>>());
    assert_eq!(fault(&token(&one, None), &crowd), TokenFault::Signature, "no token costs 64 signatures");
    let document = json!({ "keys": many }).to_string();
    assert_eq!(KeySet::parse(document.as_bytes()).unwrap_err(), KeysError::TooMany(65));
}

#[test]
fn only_public_keys_of_sound_size_are_taken() {
    let rsa = Pair::rsa("r").public;
    let parse = |keys: Value| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).map(|keys| keys.len());
    let short = json!({ "kty": "RSA", "n": b64([0xff; 128]), "e": "AQAB" });
    let long = json!({ "kty": "RSA", "n": b64([0xff; 1025]), "e": "AQAB" });
    let secret = json!({ "kty": "oct", "k": b64([7; 32]), "alg": "HS256" });
    let curve = json!({ "kty": "EC", "crv": "secp256k1", "x": b64([1; 32]), "y": b64([1; 32]) });
    let cut = json!({ "kty": "EC", "crv": "P-256", "x": b64([1; 31]), "y": b64([1; 32]) });
    for bad in [short, long, secret, curve, cut, json!({ "kty": "RSA" }), json!({}), json!(7)] {
        assert_eq!(parse(json!([bad, rsa])), Ok(1), "{bad} is passed over");
        assert_eq!(parse(json!([bad])), Ok(0), "{bad}");
    }
    assert!(matches!(KeySet::parse(b"<html>"), Err(KeysError::Form(_))));
    assert!(matches!(KeySet::parse(b"{}"), Err(KeysError::Form(_))));
}

#[test]
fn a_set_without_a_key_takes_back_those_that_were() {
    let ed = Pair::ed("d");
    let issuer = issuer(&[&ed.public]);
    let token = ed.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims(), EdDSA);
    let full = json!({ "keys": [ed.public] }).to_string();
    let unsupported = json!({ "keys": [with(ed.public.clone(), "crv", json!("Ed448"))] }).to_string();
    for taken_back in [r#"{"keys":[]}"#, &unsupported] {
        assert!(ask(&token, &issuer).is_ok());
        issuer.source.take(taken_back.as_bytes()).unwrap();
        assert_eq!(fault(&token, &issuer), TokenFault::UnknownKey, "refused, and not to be tried again: {taken_back}");
        issuer.source.take(full.as_bytes()).unwrap();
    }
    for broken in ["", "{}", "{\"keys\":{}}"] {
        issuer.source.take(broken.as_bytes()).unwrap_err();
        assert!(ask(&token, &issuer).is_ok(), "the last good keys serve on");
    }
}

#[test]
fn a_token_is_no_larger_than_8_kib() {
    let ed = Pair::ed("d");
    let issuer = issuer(&[&ed.public]);
    let token = |padding: usize| {
        let claims = with(claims(), "padding", json!("x".repeat(padding)));
        ed.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims, EdDSA)
    };
    assert!(token(5800).len() < LARGEST && ask(&token(5800), &issuer).is_ok());
    assert!(token(6200).len() > LARGEST);
    assert_eq!(fault(&token(6200), &issuer), TokenFault::Oversized);
}

#[test]
fn claims_match_as_the_configuration_says() {
    let said = json!({
        "tier": "pro", "roles": ["reader", "writer"], "level": 3, "staff": true, "app": { "role": "admin", "ids": [7] },
        "scope": "read write", "words": "read write", "https://x/role": "owner", "a.b": "dotted",
    });
    let Value::Object(said) = said else { panic!("an object") };
    let holds = |text: &str| {
        let wanted: BTreeMap<String, Claim> = toml_edit::de::from_str(text).unwrap();
        matches(Some(&wanted), &said)
    };
    for text in [
        "",
        "tier = \"pro\"",
        "roles = \"reader\"",
        "level = 3",
        "staff = true",
        "app.role = \"admin\"",
        "app.ids = 7",
        "scope = \"write\"",
        "scope = \"read write\"",
        "\"https://x/role\" = \"owner\"",
        "\"a.b\" = \"dotted\"",
        "tier = [\"free\", \"pro\"]",
        "tier = \"pro\"\nlevel = 3",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in [
        "tier = \"free\"",
        "tier = \"pr\"",
        "tier = \"PRO\"",
        "roles = \"read\"",
        "level = \"3\"",
        "staff = \"true\"",
        "level = 4",
        "app = \"admin\"",
        "app.role = \"user\"",
        "app.none = 1",
        "scope = \"rea\"",
        "words = \"write\"",
        "none = \"\"",
        "tier = [\"free\"]",
        "tier = \"pro\"\nlevel = 4",
        "a.b = \"dotted\"",
    ] {
        assert!(!holds(text), "{text}");
    }
}

// === what is remembered ===

fn known(issuer: &Arc<Issuer>, ends: SystemTime, length: usize) -> Known {
    let handle = Arc::new(ConsumerHandle::new("a"));
    let keys = issuer.source.keys();
    Known { handle, claims: Arc::default(), ends, issuer: issuer.clone(), keys, at: at(NOW), length }
}

#[test]
fn a_verified_token_is_believed_for_a_minute_and_not_beyond_its_end_or_its_keys() {
    let (ed, other) = (Pair::ed("d"), Pair::ed("o"));
    let issuer = issuer(&[&ed.public]);
    let verified = Verified::default();
    let (long, short) = ([1; 32], [2; 32]);
    verified.put(long, known(&issuer, at(NOW + 3600), 100));
    verified.put(short, known(&issuer, at(NOW + 5), 100));
    assert!(verified.get(&[3; 32], at(NOW)).is_none());
    assert!(verified.get(&long, at(NOW + 59)).is_some() && verified.get(&long, at(NOW + 60)).is_none());
    assert!(verified.get(&long, at(NOW - 1)).is_none(), "the clock was set back: verified anew");
    assert!(verified.get(&short, at(NOW + 4)).is_some() && verified.get(&short, at(NOW + 5)).is_none());

    let same = json!({ "keys": [ed.public] }).to_string();
    issuer.source.take(same.as_bytes()).unwrap();
    assert!(verified.get(&long, at(NOW + 1)).is_some(), "the same document again changes nothing");
    issuer.source.take(json!({ "keys": [other.public] }).to_string().as_bytes()).unwrap();
    assert!(verified.get(&long, at(NOW + 1)).is_none());
}

#[test]
fn what_is_remembered_is_bounded_in_number_and_bytes() {
    let issuer = issuer(&[&Pair::ed("d").public]);
    let fill = |length: usize| {
        let verified = Verified::default();
        let used = [9; 32];
        for n in 0..20_000_u32 {
            let mut token = [0; 32];
            token[..4].copy_from_slice(&n.to_le_bytes());
            token[31] = 1;
            verified.put(token, known(&issuer, at(NOW + 3600), length));
            if n % 1000 == 0 {
                verified.put(used, known(&issuer, at(NOW + 3600), length));
            }
            assert!(verified.get(&token, at(NOW)).is_some());
        }
        verified.len()
    };
    let (small, large) = (fill(100), fill(LARGEST));
    assert!((2048..=4096).contains(&small), "{small}");
    assert!(large * LARGEST <= 8 << 20, "{large} of 8 KiB");
}

proptest! {
    #[test]
    fn no_credential_makes_it_panic_or_pass(text in "[A-Za-z0-9_.-]{0,200}|[^.]{0,40}\\.[^.]{0,40}\\.[^.]{0,40}") {
        let issuer = known_issuer();
        prop_assert!(verify(text.as_bytes(), [&issuer.1], || true, at(NOW)).is_err());
        looks_like_one(text.as_bytes());
    }

    #[test]
    fn a_token_with_one_other_character_does_not_hold(place in 0_usize..400, letter in 0_usize..65) {
        let (token, issuer) = known_issuer();
        let mut changed = token.clone().into_bytes();
        let place = place % changed.len();
        let letter = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."[letter];
        prop_assume!(changed[place] != letter);
        changed[place] = letter;
        prop_assert!(verify(&changed, [&issuer], || true, at(NOW)).is_err());
        prop_assert!(verify(token.as_bytes(), [&issuer], || true, at(NOW)).is_ok());
    }

    #[test]
    fn no_document_makes_it_panic(document in proptest::collection::vec(any::<u8>(), 0..200), n in "[A-Za-z0-9_-]{0,20}", kty in "RSA|EC|OKP|oct") {
        let _ = KeySet::parse(&document);
        let one = json!({ "kty": kty, "n": n, "e": n, "x": n, "y": n, "crv": "P-256", "kid": n });
        let document = json!({ "keys": [one] }).to_string();
        prop_assert_eq!(KeySet::parse(document.as_bytes()).map(|keys| keys.len()), Ok(0));
    }
}

/// A good token and its issuer, made once.
fn known_issuer() -> (String, Arc<Issuer>) {
    static MADE: std::sync::OnceLock<(String, Arc<Issuer>)> = std::sync::OnceLock::new();
    let made = || {
        let ed = Pair::ed("d");
        (ed.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims(), EdDSA), issuer(&[&ed.public]))
    };
    MADE.get_or_init(made).clone()
}
