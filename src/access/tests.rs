use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, StatusCode};

use super::{key::Digest, *};
use crate::{
    config::model::{Access, Config, Consumer, Open},
    net::ClientCertificate,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

fn with_keys(key_sha256: Vec<String>) -> Consumer {
    Consumer { key_sha256: Some(key_sha256), ..Consumer::default() }
}

fn config(consumer: BTreeMap<String, Consumer>) -> Config {
    Config { consumer, ..Config::default() }
}

fn shown(headers: &HeaderMap) -> Shown<'_> {
    Shown {
        headers,
        secret: None,
        certificate: None,
        upstream: false,
        client: CLIENT.into(),
        failed: None,
        method: &Method::GET,
    }
}

fn consumers(entries: &[(&str, &[&str])]) -> BTreeMap<String, Consumer> {
    let hash = |key: &&str| Digest::of(key.as_bytes()).to_string();
    entries.iter().map(|(name, keys)| ((*name).to_owned(), with_keys(keys.iter().map(hash).collect()))).collect()
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.parse().unwrap());
    }
    map
}

fn who(consumers: &Consumers, fields: &[(&'static str, &str)]) -> Result<Option<String>, Denied> {
    let who = consumers.authenticate(&shown(&headers(fields)), SystemTime::now())?;
    Ok(who.map(|who| who.consumer.name().to_string()))
}

#[test]
fn a_key_is_found_in_either_field() {
    let consumers = Consumers::build(&config(consumers(&[("a", &["ka", "kb"]), ("c", &["kc"])]))).unwrap();
    assert_eq!(who(&consumers, &[]), Ok(None));
    assert_eq!(who(&consumers, &[("authorization", "Bearer ka")]), Ok(Some("a".to_owned())));
    assert_eq!(who(&consumers, &[("authorization", "bEARER  kb ")]), Ok(Some("a".to_owned())));
    assert_eq!(who(&consumers, &[("x-api-key", "kc")]), Ok(Some("c".to_owned())));
    assert_eq!(who(&consumers, &[("x-api-key", "kc"), ("authorization", "Bearer kc")]), Ok(Some("c".to_owned())));
    assert_eq!(who(&consumers, &[("x-api-key", "ka"), ("authorization", "Bearer kc")]), Err(Denied::TwoKeys));
    assert_eq!(who(&consumers, &[("x-api-key", "ka"), ("x-api-key", "kb")]), Err(Denied::TwoKeys));
    assert_eq!(who(&consumers, &[("authorization", "Basic a2E6")]), Ok(None), "another scheme is not ours");
    assert_eq!(who(&consumers, &[("x-api-key", ""), ("authorization", "Bearer  ")]), Ok(None), "nothing was shown");
    for wrong in ["k", "kaa", "KA", "\u{fc}"] {
        assert_eq!(who(&consumers, &[("x-api-key", wrong)]), Err(Denied::UnknownKey), "{wrong}");
    }
}

#[test]
fn nothing_is_no_key_even_where_its_digest_is_one() {
    let consumers = Consumers::build(&config(consumers(&[("a", &[""])]))).unwrap();
    for fields in [("x-api-key", ""), ("x-api-key", " "), ("authorization", "Bearer ")] {
        assert_eq!(who(&consumers, &[fields]), Ok(None), "{fields:?}");
    }
    let fields = HeaderMap::new();
    let shown = Shown { secret: Some(b""), ..shown(&fields) };
    assert!(consumers.authenticate(&shown, SystemTime::now()).unwrap().is_none());
}

#[test]
fn open_to_some_closed_to_others() {
    let configured = consumers(&[("a", &["ka"]), ("b", &["kb"])]);
    let consumers = Consumers::build(&config(configured.clone())).unwrap();
    let route = Admission::build(Some(&Access::Consumers(vec!["a".to_owned()])), &configured).unwrap();
    let ask = |admission: &Admission, key: Option<&str>| {
        let fields: Vec<_> = key.iter().map(|key| ("x-api-key", *key)).collect();
        let who = admission.admit(&consumers, &shown(&headers(&fields)));
        who.map(|who| who.map(|who| who.consumer.name().to_string()))
    };
    assert_eq!(ask(&route, Some("ka")), Ok(Some("a".to_owned())));
    assert_eq!(ask(&route, Some("kb")), Err(Denied::NotNamed));
    assert_eq!(ask(&route, Some("kx")), Err(Denied::UnknownKey));
    assert_eq!(ask(&route, None), Err(Denied::NoKey));
    assert_eq!(Denied::NotNamed.status(), StatusCode::FORBIDDEN);
    assert_eq!(Denied::NoKey.challenge().unwrap(), "Bearer");

    let open = Admission::build(Some(&Access::Open(Open::Open)), &configured).unwrap();
    assert!(open.is_open());
    assert_eq!(ask(&open, Some("ka")), Ok(Some("a".to_owned())), "known, for limits by consumer");
    assert_eq!(ask(&open, Some("kx")), Ok(None), "a key for the upstream");
    let two = |one: &str, other: &str| {
        let authorization = format!("Bearer {one}");
        let fields = headers(&[("authorization", &authorization), ("x-api-key", other)]);
        open.admit(&consumers, &shown(&fields)).map(|who| who.is_some())
    };
    assert_eq!(two("kx", "ky"), Ok(false), "both for the upstream");
    assert_eq!(two("kx", "ka"), Err(Denied::TwoKeys), "ours is not for the upstream");
    let three = headers(&[("x-api-key", "kx"), ("x-api-key", "ky"), ("x-api-key", "kz"), ("x-api-key", "kx")]);
    assert_eq!(open.admit(&consumers, &shown(&three)).unwrap_err(), Denied::TwoKeys, "nobody has so many");
    let nobody = Admission::build(Some(&Access::Consumers(vec![])), &configured).unwrap();
    assert_eq!(ask(&nobody, Some("ka")), Err(Denied::NotNamed), "an empty list is closed, not open");
    let unknown = Admission::build(Some(&Access::Consumers(vec!["z".to_owned()])), &configured);
    assert_eq!(unknown, Err(vec![AccessError::Unknown("z".to_owned())]));
}

#[test]
fn malformed_and_shared_keys_are_refused_without_repeating_them() {
    let mut configured = consumers(&[("a", &["k1"]), ("b", &["k1"])]);
    configured.insert("c".to_owned(), with_keys(vec!["sg_pasted-by-mistake".to_owned(), "é".repeat(32)]));
    let errors = Consumers::build(&config(configured.clone())).unwrap_err();
    assert_eq!(errors.len(), 3);
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(text[0], "consumer `b`: `key_sha256[0]` is also a key of `a`");
    assert!(text[1].contains("`key_sha256[0]` is not 64") && !text[1].contains("pasted"), "{}", text[1]);
}

#[test]
fn a_new_key_opens() {
    let key = new_key().unwrap();
    assert!(key.text.starts_with("sg_") && key.text.len() == 46, "{}", key.text);
    assert_ne!(key.text, new_key().unwrap().text);
    assert!(!format!("{key:?}").contains(&key.text));
    let consumer = with_keys(vec![key.sha256.to_uppercase()]);
    let consumers = Consumers::build(&config(BTreeMap::from([("new".to_owned(), consumer)]))).unwrap();
    assert_eq!(who(&consumers, &[("x-api-key", &key.text)]), Ok(Some("new".to_owned())));
    // RFC 6234's vector.
    assert_eq!(Digest::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn the_key_is_taken_out_and_other_credentials_stay() {
    let mut fields = headers(&[("authorization", "Bearer ka"), ("x-api-key", "ka"), ("cookie", "c")]);
    let by_key = Identity::of("a", Grant::default()).by_key();
    conceal(&mut fields, &by_key);
    assert_eq!(fields, headers(&[("cookie", "c")]));
    let mut basic = headers(&[("authorization", "Basic a2E6"), ("x-api-key", "ka")]);
    conceal(&mut basic, &by_key);
    assert_eq!(basic, headers(&[("authorization", "Basic a2E6")]));
    let mut token = headers(&[("authorization", "Bearer a.b.c"), ("x-api-key", "theirs")]);
    conceal(&mut token, &Identity::of("a", Grant::default()));
    assert_eq!(token.len(), 2, "a token is the caller's word to the service, too");
}

#[tokio::test]
async fn a_reload_keeps_handles_and_revokes_what_is_gone() {
    let before = Consumers::build(&config(consumers(&[("a", &["k1", "k2"]), ("b", &["k3"])]))).unwrap();
    let handle = |consumers: &Consumers, key: &str| {
        let fields = headers(&[("x-api-key", key)]);
        consumers.authenticate(&shown(&fields), SystemTime::now()).unwrap().unwrap().consumer
    };
    let (rotated, kept, moved) = (handle(&before, "k1"), handle(&before, "k2"), handle(&before, "k3"));
    assert_eq!(rotated.id(), kept.id(), "a limit counts the consumer, not the key");

    let waiting = tokio::spawn({
        let rotated = rotated.clone();
        async move { rotated.revoked().await }
    });
    tokio::task::yield_now().await;
    let after = Consumers::build_after(&config(consumers(&[("a", &["k2", "k4"]), ("c", &["k3"])])), &before).unwrap();
    assert!(!rotated.is_revoked(), "a configuration that is not in force revokes nothing");
    before.revoke_missing(&after);

    tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    rotated.revoked().await;
    assert!(rotated.is_revoked());
    assert!(moved.is_revoked(), "the key is another consumer's now");
    assert!(!kept.is_revoked());
    assert!(Arc::ptr_eq(&kept, &handle(&after, "k2")));
    assert_eq!(handle(&after, "k4").id(), kept.id());
}

#[test]
fn failures_are_limited_by_address() {
    let failures = FailedAuth::default();
    let address = |last| Ipv4Addr::new(10, 0, 0, last).into();
    let allowed = (0..30).filter(|_| failures.failed(address(1)).allowed).count();
    assert!((20..=21).contains(&allowed), "{allowed}");
    assert!(failures.failed(address(2)).allowed);
    assert!(Denied::UnknownKey.is_suspicious() && !Denied::NoKey.is_suspicious());
    failures.sweep();
}

/// A consumer `a` of tokens, and one of them: RFC 8037, appendix A, has the key.
fn with_a_token() -> (Consumers, String) {
    let keys = tempfile::NamedTempFile::new().unwrap();
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(keys.path(), key).unwrap();
    let text = format!(
        "[issuer.i]\njwks = {:?}\nissuer = \"i\"\naudience = [\"us\"]\n[consumer.a]\njwt = {{ issuer = \"i\" }}\n",
        keys.path()
    );
    let consumers = Consumers::build(&toml_edit::de::from_str::<Config>(&text).unwrap()).unwrap();
    // PKCS#8 around the 32 bytes of the private key.
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let der = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
    let claims = r#"{"iss":"i","aud":"us","exp":4102444800}"#;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#), URL_SAFE_NO_PAD.encode(claims));
    let key = jsonwebtoken::EncodingKey::from_ed_der(&der);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::EdDSA).unwrap();
    (consumers, format!("{message}.{signature}"))
}

#[test]
fn tokens_of_an_address_that_failed_too_often_are_not_verified_unless_one_was_a_moment_ago() {
    let (consumers, token) = with_a_token();
    let failures = FailedAuth::default();
    let far = Ipv4Addr::new(192, 0, 2, 8).into();
    let ask = |admission: &Admission, token: &str, client| {
        let fields = headers(&[("authorization", &format!("Bearer {token}"))]);
        let shown = Shown { failed: Some(&failures), client, ..shown(&fields) };
        admission.admit(&consumers, &shown).map(|who| who.map(|who| who.consumer.name().to_string()))
    };
    let only = Admission::AnyOf(["a".into()].into());
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    assert_eq!(ask(&only, &forged, CLIENT.into()), Err(Denied::Token(TokenFault::Signature)));
    while failures.failed(CLIENT.into()).allowed {}
    let untried = Err(Denied::Token(TokenFault::Untried));
    assert_eq!(ask(&only, &forged, CLIENT.into()), untried);
    assert_eq!(ask(&only, &token, CLIENT.into()), untried, "it cannot be told from a forged one");
    assert_eq!(ask(&Admission::Open, &token, CLIENT.into()), untried, "nor is it nobody's");
    assert_eq!(ask(&Admission::Open, "not.of.ours", CLIENT.into()), Ok(None), "which can be told without");
    assert_eq!(ask(&only, &token, far), Ok(Some("a".to_owned())), "another address");
    assert_eq!(ask(&only, &token, CLIENT.into()), Ok(Some("a".to_owned())), "it is known now");
    let denied = Denied::Token(TokenFault::Untried);
    assert_eq!((denied.status(), denied.challenge()), (StatusCode::TOO_MANY_REQUESTS, None));
    assert!(!denied.is_suspicious(), "who waits gets another chance");
}

#[test]
fn a_consumer_is_held_to_its_own_bounds_wherever_it_is_known() {
    let bounded = Consumer {
        methods: Some(vec!["POST".to_owned()]),
        networks: Some(vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()]),
        expires: Some("2027-01-31T00:00:00Z".parse().unwrap()),
        ..with_keys(vec![Digest::of(b"ka").to_string()])
    };
    let end = bounded.expires.unwrap().0;
    let consumers = Consumers::build(&config(BTreeMap::from([("a".to_owned(), bounded)]))).unwrap();
    let fields = headers(&[("x-api-key", "ka")]);
    let ask = |client: &str, method: &Method, now| {
        let shown = Shown { client: client.parse().unwrap(), method, ..shown(&fields) };
        consumers.authenticate(&shown, now).map(|who| who.unwrap().expires)
    };
    let before = end - Duration::from_secs(1);
    for client in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"] {
        assert_eq!(ask(client, &Method::POST, before), Ok(Some(end)), "{client}");
    }
    for client in ["192.0.3.7", "::ffff:192.0.3.7", "2001:db9::1", "::1"] {
        assert_eq!(ask(client, &Method::POST, before), Err(Denied::Network), "{client}");
    }
    assert_eq!(ask("192.0.2.7", &Method::GET, before), Err(Denied::Method));
    assert_eq!(ask("192.0.2.7", &Method::POST, end), Err(Denied::Expired));
    assert_eq!((Denied::Expired.status(), Denied::Expired.reason()), (StatusCode::UNAUTHORIZED, "expired"));
    assert_eq!((Denied::Network.status(), Denied::Network.reason()), (StatusCode::FORBIDDEN, "network"));
    assert_eq!((Denied::Method.status(), Denied::Method.reason()), (StatusCode::FORBIDDEN, "method"));
    let open = Admission::Open.admit(&consumers, &shown(&fields));
    assert_eq!(open.map(|_| ()), Err(Denied::Method), "who is known is bound, also where anybody may call");
}

#[test]
fn a_secret_that_a_dialect_carries_is_a_key() {
    let consumers = Consumers::build(&config(consumers(&[("a", &["ka"]), ("b", &["kb"])]))).unwrap();
    let ask = |fields: &[(&'static str, &str)], secret: &str| {
        let fields = headers(fields);
        let shown = Shown { secret: Some(secret.as_bytes()), ..shown(&fields) };
        consumers.authenticate(&shown, SystemTime::now()).map(|who| who.unwrap().role().to_string())
    };
    assert_eq!(ask(&[], "ka"), Ok("a".to_owned()));
    assert_eq!(ask(&[("x-api-key", "ka")], "ka"), Ok("a".to_owned()));
    assert_eq!(ask(&[("x-api-key", "kb")], "ka"), Err(Denied::TwoKeys));
    assert_eq!(ask(&[], "kx"), Err(Denied::UnknownKey));
}

#[test]
fn requests_under_way_are_counted_to_their_last_holder_and_over_a_reload() {
    let bounded = |most| {
        let two = with_keys(vec![Digest::of(b"k1").to_string(), Digest::of(b"k2").to_string()]);
        BTreeMap::from([("a".to_owned(), Consumer { max_concurrent: Some(most), ..two })])
    };
    let before = Consumers::build(&config(bounded(2))).unwrap();
    let after = Consumers::build_after(&config(bounded(3)), &before).unwrap();
    let take = |consumers: &Consumers, key| {
        let fields = headers(&[("x-api-key", key)]);
        let mut who = consumers.authenticate(&shown(&fields), SystemTime::now()).unwrap().unwrap();
        who.take_seat().map(|()| who)
    };
    let first = take(&before, "k1").unwrap();
    let copy = first.clone();
    let second = take(&before, "k2").unwrap();
    assert_eq!(take(&before, "k1").unwrap_err(), Full { most: 2 }, "of the consumer, not of the key");
    drop(first);
    assert!(take(&before, "k1").is_err(), "a clone holds it, too");
    let third = take(&after, "k1").unwrap();
    assert_eq!(take(&after, "k2").unwrap_err(), Full { most: 3 }, "those of before the reload count");
    drop((copy, second, third));
    assert!(take(&before, "k1").is_ok());
}

#[test]
fn an_unchanged_rate_keeps_its_count_over_a_reload() {
    let limited = |rate: &str| {
        let one = with_keys(vec![Digest::of(b"k1").to_string()]);
        BTreeMap::from([("a".to_owned(), Consumer { rate: Some(rate.parse().unwrap()), burst: Some(1), ..one })])
    };
    let limits = |consumers: &Consumers| {
        let fields = headers(&[("x-api-key", "k1")]);
        let who = consumers.authenticate(&shown(&fields), SystemTime::now()).unwrap().unwrap();
        who.grant.limits().unwrap().clone()
    };
    let before = Consumers::build(&config(limited("1/h"))).unwrap();
    let same = Consumers::build_after(&config(limited("1/h")), &before).unwrap();
    let other = Consumers::build_after(&config(limited("2/h")), &before).unwrap();
    assert!(Arc::ptr_eq(&limits(&before), &limits(&same)));
    assert!(!Arc::ptr_eq(&limits(&before), &limits(&other)));
}

#[test]
fn what_was_admitted_under_other_rights_is_revoked() {
    let named = |consumer: Consumer| {
        let key_sha256 = Some(vec![Digest::of(b"k1").to_string()]);
        BTreeMap::from([("a".to_owned(), Consumer { key_sha256, ..consumer })])
    };
    let at = |text: &str| Some(text.parse().unwrap());
    let old = Consumer { expires: at("2027-02-01T00:00:00Z"), ..Consumer::default() };
    let before = Consumers::build(&config(named(old.clone()))).unwrap();
    let fields = headers(&[("x-api-key", "k1")]);
    let handle = |consumers: &Consumers| {
        consumers.authenticate(&shown(&fields), SystemTime::UNIX_EPOCH).unwrap().unwrap().consumer
    };
    let kept = |change: Consumer| {
        let after = Consumers::build_after(&config(named(change)), &before).unwrap();
        Arc::ptr_eq(&handle(&before), &handle(&after))
    };
    assert!(kept(old.clone()));
    assert!(
        kept(Consumer { max_rows: Some(1), rate: Some("1/s".parse().unwrap()), ..old.clone() }),
        "of the next request"
    );
    assert!(kept(Consumer { expires: at("2027-03-01T00:00:00Z"), ..old.clone() }), "longer");
    assert!(!kept(Consumer { expires: at("2027-01-01T00:00:00Z"), ..old.clone() }), "shorter");
    assert!(!kept(Consumer { role: Some("other".to_owned()), ..old.clone() }));
    assert!(!kept(Consumer { read_only: true, ..old.clone() }));
    assert!(!kept(Consumer { pools: Some(vec!["main".to_owned()]), ..old }));
}

#[tokio::test]
async fn what_lasts_ends_with_its_consumer() {
    let mut who = Identity::of("a", Grant::default());
    assert!(tokio::time::timeout(Duration::from_millis(50), who.ends()).await.is_err(), "no end");
    who.expires = Some(SystemTime::now() + Duration::from_millis(20));
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), who.ends()).await, Ok(Ended::Expired));
    who.expires = None;
    who.consumer.revoke();
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), who.ends()).await, Ok(Ended::Revoked));
}

// === certificates ===

fn with_certificates(entries: &[(&str, &[&str])]) -> Config {
    let consumer = |names: &[&str]| Consumer {
        certificate: Some(names.iter().map(ToString::to_string).collect()),
        ..Consumer::default()
    };
    config(entries.iter().map(|(name, names)| ((*name).to_owned(), consumer(names))).collect())
}

#[test]
fn a_certificate_says_who_calls_where_the_request_says_nothing_of_ours() {
    let mut configured = with_certificates(&[("a", &["dns:a", "uri:spiffe://a"]), ("b", &["dns:b"])]);
    configured.consumer.extend(consumers(&[("k", &["kk"])]));
    let consumers = Consumers::build(&configured).unwrap();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let ask = |names: &[&str], fields: &[(&'static str, &str)], now| {
        let (fields, certificate) = (headers(fields), Arc::new(ClientCertificate::named("public", names, end)));
        let shown = Shown { certificate: Some(&certificate), ..shown(&fields) };
        let who = consumers.authenticate(&shown, now)?;
        Ok(who.map(|who| (who.consumer.name().to_string(), who.expires)))
    };
    let before = end - Duration::from_secs(1);
    let a = Ok(Some(("a".to_owned(), Some(end))));
    assert_eq!(ask(&["dns:x", "uri:spiffe://a"], &[], before), a);
    assert_eq!(ask(&["dns:a", "uri:spiffe://a"], &[], before), a, "two names of one consumer are one");
    assert_eq!(ask(&["dns:a", "dns:b"], &[], before), Err(Denied::Ambiguous));
    assert_eq!(ask(&["dns:x"], &[], before), Ok(None));
    assert_eq!(ask(&["dns:a"], &[], end), Err(Denied::CertificateExpired));
    assert_eq!(
        ask(&["dns:a"], &[("x-api-key", "kk")], before),
        Ok(Some(("k".to_owned(), None))),
        "the request goes first"
    );
    assert_eq!(ask(&["dns:a"], &[("authorization", "Bearer x"), ("x-api-key", "y")], before), Err(Denied::TwoKeys));
}

#[test]
fn a_certificate_stands_in_for_no_key_token_or_password_but_what_may_be_the_upstreams() {
    let mut configured = with_certificates(&[("mesh", &["dns:mesh"])]);
    configured.consumer.extend(consumers(&[("user", &["sg_user"])]));
    let consumers = Consumers::build(&configured).unwrap();
    let end = SystemTime::now() + Duration::from_mins(1);
    let certificate = |name| Arc::new(ClientCertificate::named("public", &[name], end));
    let (mesh, nobody) = (certificate("dns:mesh"), certificate("dns:nobody"));
    let ask =
        |certificate: &Arc<ClientCertificate>, upstream, fields: &[(&'static str, &str)], secret: Option<&str>| {
            let fields = headers(fields);
            let secret = secret.map(str::as_bytes);
            let shown = Shown { certificate: Some(certificate), upstream, secret, ..shown(&fields) };
            let who = consumers.authenticate(&shown, SystemTime::now())?;
            Ok(who.map(|who| who.consumer.name().to_string()))
        };
    let is = |name: &str| Ok(Some(name.to_owned()));
    let authorization = |credential| ("authorization", credential);
    for upstream in [false, true] {
        assert_eq!(ask(&mesh, upstream, &[authorization("Bearer sg_user")], None), is("user"));
        let revoked = ask(&mesh, upstream, &[authorization("Bearer sg_revoked")], None);
        assert_eq!(revoked, Err(Denied::UnknownKey), "a key of ours that is none any more");
        assert_eq!(ask(&mesh, upstream, &[("x-api-key", "theirs")], None), Err(Denied::UnknownKey));
        assert_eq!(ask(&mesh, upstream, &[], Some("wrong")), Err(Denied::UnknownKey), "a password is for us");
        let both = ask(&mesh, upstream, &[authorization("Bearer theirs"), ("x-api-key", "theirs")], None);
        assert_eq!(both, Err(Denied::UnknownKey));
        assert_eq!(ask(&mesh, upstream, &[authorization("Basic a2E6")], None), is("mesh"), "a scheme that is not ours");
        assert_eq!(ask(&nobody, upstream, &[authorization("Bearer theirs")], None), Err(Denied::UnknownKey));
    }
    assert_eq!(ask(&mesh, true, &[authorization("Bearer theirs")], None), is("mesh"), "it may be the upstream's");
    assert_eq!(ask(&mesh, false, &[authorization("Bearer theirs")], None), Err(Denied::UnknownKey), "there is none");
}

#[test]
fn a_certificate_is_its_consumers_only_by_the_listener_that_the_consumer_names() {
    let at = |listener: Option<&str>| {
        let mut configured = with_certificates(&[("ops", &["dns:ops.internal"])]);
        configured.consumer.get_mut("ops").unwrap().certificate_listener = listener.map(ToOwned::to_owned);
        Consumers::build(&configured).unwrap()
    };
    let end = SystemTime::now() + Duration::from_mins(1);
    let fields = HeaderMap::new();
    let ask = |consumers: &Consumers, listener: &str| {
        let certificate = Arc::new(ClientCertificate::named(listener, &["dns:ops.internal"], end));
        let shown = Shown { certificate: Some(&certificate), ..shown(&fields) };
        consumers.authenticate(&shown, SystemTime::now()).unwrap().map(|who| who.consumer.name().to_string())
    };
    assert_eq!(ask(&at(Some("internal")), "internal").as_deref(), Some("ops"));
    assert_eq!(ask(&at(Some("internal")), "public"), None, "another authority has given itself the name");
    assert_eq!(ask(&at(None), "public").as_deref(), Some("ops"));
}

#[test]
fn a_certificates_or_tokens_handle_goes_with_what_says_that_it_is_good() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(keys.path(), key).unwrap();
    let text = format!(
        "[issuer.i]\njwks = {:?}\nissuer = \"i\"\naudience = [\"us\"]\n\
         [consumer.a]\ncertificate = [\"dns:a\"]\njwt = {{ issuer = \"i\", claims = {{ tier = \"pro\" }} }}\n",
        keys.path()
    );
    let read = |text: &str| toml_edit::de::from_str::<Config>(text).unwrap();
    let revoked = |text_after: &str| {
        let before = Consumers::build(&read(&text)).unwrap();
        let handles: Vec<_> = before.handles().cloned().collect();
        before.revoke_missing(&Consumers::build_after(&read(text_after), &before).unwrap());
        handles.iter().map(|handle| handle.is_revoked()).collect::<Vec<_>>()
    };
    assert_eq!(revoked(&text), [false, false], "the token's, the certificate's");
    assert_eq!(revoked(&text.replace("[\"us\"]", "[\"us\"]\nrefresh = \"1m\"")), [false, false]);
    assert_eq!(revoked(&text.replace("[\"us\"]", "[\"them\"]")), [true, false]);
    assert_eq!(revoked(&text.replace("[\"us\"]", "[\"us\"]\nalgorithms = [\"ES256\"]")), [true, false]);
    assert_eq!(revoked(&text.replace("\"pro\"", "\"free\"")), [true, false]);
    assert_eq!(revoked(&text.replace("dns:a", "dns:b")), [false, true]);
    let by_another = text.replace("[\"dns:a\"]", "[\"dns:a\"]\ncertificate_listener = \"internal\"");
    assert_eq!(revoked(&by_another), [false, true]);
    assert_eq!(revoked(&text.replace("consumer.a", "consumer.b")), [true, true]);
}
