use std::{net::Ipv4Addr, time::Duration};

use http::StatusCode;

use super::*;
use crate::config::model::{Access, Open};

fn consumers(entries: &[(&str, &[&str])]) -> BTreeMap<String, Consumer> {
    let hash = |key: &&str| Digest::of(key.as_bytes()).to_string();
    entries
        .iter()
        .map(|(name, keys)| ((*name).to_owned(), Consumer { key_sha256: keys.iter().map(hash).collect(), role: None }))
        .collect()
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.parse().unwrap());
    }
    map
}

fn who(consumers: &Consumers, fields: &[(&'static str, &str)]) -> Result<Option<String>, Denied> {
    Ok(consumers.authenticate(&headers(fields))?.map(|handle| handle.name().to_string()))
}

#[test]
fn a_key_is_found_in_either_field() {
    let consumers = Consumers::build(&consumers(&[("a", &["ka", "kb"]), ("c", &["kc"])])).unwrap();
    assert_eq!(who(&consumers, &[]), Ok(None));
    assert_eq!(who(&consumers, &[("authorization", "Bearer ka")]), Ok(Some("a".to_owned())));
    assert_eq!(who(&consumers, &[("authorization", "bEARER  kb ")]), Ok(Some("a".to_owned())));
    assert_eq!(who(&consumers, &[("x-api-key", "kc")]), Ok(Some("c".to_owned())));
    assert_eq!(who(&consumers, &[("x-api-key", "kc"), ("authorization", "Bearer kc")]), Ok(Some("c".to_owned())));
    assert_eq!(who(&consumers, &[("x-api-key", "ka"), ("authorization", "Bearer kc")]), Err(Denied::TwoKeys));
    assert_eq!(who(&consumers, &[("x-api-key", "ka"), ("x-api-key", "kb")]), Err(Denied::TwoKeys));
    assert_eq!(who(&consumers, &[("authorization", "Basic a2E6")]), Ok(None), "another scheme is not ours");
    for wrong in ["", "k", "kaa", "KA", "\u{fc}"] {
        assert_eq!(who(&consumers, &[("x-api-key", wrong)]), Err(Denied::UnknownKey), "{wrong}");
    }
}

#[test]
fn open_to_some_closed_to_others() {
    let configured = consumers(&[("a", &["ka"]), ("b", &["kb"])]);
    let consumers = Consumers::build(&configured).unwrap();
    let route = Admission::build(Some(&Access::Consumers(vec!["a".to_owned()])), &configured).unwrap();
    let ask = |admission: &Admission, key: Option<&str>| {
        let fields: Vec<_> = key.iter().map(|key| ("x-api-key", *key)).collect();
        admission.admit(&consumers, &headers(&fields)).map(|handle| handle.map(|handle| handle.name().to_string()))
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
        open.admit(&consumers, &fields).map(|handle| handle.is_some())
    };
    assert_eq!(two("kx", "ky"), Ok(false), "both for the upstream");
    assert_eq!(two("kx", "ka"), Err(Denied::TwoKeys), "ours is not for the upstream");
    let nobody = Admission::build(Some(&Access::Consumers(vec![])), &configured).unwrap();
    assert_eq!(ask(&nobody, Some("ka")), Err(Denied::NotNamed), "an empty list is closed, not open");
    let unknown = Admission::build(Some(&Access::Consumers(vec!["z".to_owned()])), &configured);
    assert_eq!(unknown, Err(vec![AccessError::Unknown("z".to_owned())]));
}

#[test]
fn malformed_and_shared_keys_are_refused_without_repeating_them() {
    let mut configured = consumers(&[("a", &["k1"]), ("b", &["k1"])]);
    configured.insert(
        "c".to_owned(),
        Consumer { key_sha256: vec!["sg_pasted-by-mistake".to_owned(), "é".repeat(32)], role: None },
    );
    let errors = Consumers::build(&configured).unwrap_err();
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
    let consumer = Consumer { key_sha256: vec![key.sha256.to_uppercase()], role: None };
    let consumers = Consumers::build(&BTreeMap::from([("new".to_owned(), consumer)])).unwrap();
    assert_eq!(who(&consumers, &[("x-api-key", &key.text)]), Ok(Some("new".to_owned())));
    // RFC 6234's vector.
    assert_eq!(Digest::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn the_key_is_taken_out_and_other_credentials_stay() {
    let mut fields = headers(&[("authorization", "Bearer ka"), ("x-api-key", "ka"), ("cookie", "c")]);
    conceal(&mut fields);
    assert_eq!(fields, headers(&[("cookie", "c")]));
    let mut basic = headers(&[("authorization", "Basic a2E6"), ("x-api-key", "ka")]);
    conceal(&mut basic);
    assert_eq!(basic, headers(&[("authorization", "Basic a2E6")]));
}

#[tokio::test]
async fn a_reload_keeps_handles_and_revokes_what_is_gone() {
    let before = Consumers::build(&consumers(&[("a", &["k1", "k2"]), ("b", &["k3"])])).unwrap();
    let handle =
        |consumers: &Consumers, key: &str| consumers.authenticate(&headers(&[("x-api-key", key)])).unwrap().unwrap();
    let (rotated, kept, moved) = (handle(&before, "k1"), handle(&before, "k2"), handle(&before, "k3"));
    assert_eq!(rotated.id(), kept.id(), "a limit counts the consumer, not the key");

    let waiting = tokio::spawn({
        let rotated = rotated.clone();
        async move { rotated.revoked().await }
    });
    tokio::task::yield_now().await;
    let after = Consumers::build_after(&consumers(&[("a", &["k2", "k4"]), ("c", &["k3"])]), &before).unwrap();
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
