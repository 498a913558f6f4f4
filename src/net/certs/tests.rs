//! Loading, signing, watching, on real files.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use super::*;
use crate::config::model::{SelfSigned, TlsPair};

fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn pair(directory: &Path, certificate: &str, key: &str) -> TlsPair {
    TlsPair { certificate: directory.join(certificate), key: directory.join(key) }
}

fn write_pair(directory: &Path, stem: &str) {
    let signed = rcgen::generate_simple_self_signed(names(&["A.test", "*.a.test", "127.0.0.1"])).unwrap();
    fs::write(directory.join(format!("{stem}.pem")), signed.cert.pem()).unwrap();
    fs::write(directory.join(format!("{stem}.key")), signed.signing_key.serialize_pem()).unwrap();
}

#[test]
fn a_pair_of_files_gives_names_and_expiry() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), "a");
    let loaded = load_pair(&pair(directory.path(), "a.pem", "a.key")).unwrap();
    assert_eq!(loaded.names, ["a.test".into(), "*.a.test".into()] as [Box<str>; 2]);
    assert!(loaded.not_after > 4_000_000_000);
}

#[test]
fn what_is_wrong_with_a_pair_is_said_with_the_file() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), "a");
    write_pair(directory.path(), "b");
    fs::write(directory.path().join("empty"), "nothing here\n").unwrap();
    fs::write(directory.path().join("cut"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    let error = |certificate, key| load_pair(&pair(directory.path(), certificate, key)).unwrap_err().to_string();
    assert!(error("none", "a.key").contains("none: No such file"), "{}", error("none", "a.key"));
    assert!(error("empty", "a.key").contains("empty: holds no certificate"));
    assert!(error("a.key", "a.key").contains("a.key: holds no certificate"));
    assert!(error("a.pem", "a.pem").contains("a.pem: holds no private key"));
    assert!(error("cut", "a.key").contains("cut: not valid PEM"));
    let mismatch = error("a.pem", "b.key");
    assert!(mismatch.contains("b.key: the key does not belong to the certificate in") && mismatch.contains("a.pem"));
}

#[test]
fn the_local_authority_is_private_and_kept() {
    let state = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let tls = Tls::SelfSigned(SelfSigned { self_signed: names(&["localhost", "127.0.0.1"]) });
    let first = load(&tls, state.path(), now).unwrap().remove(0);
    let again = load(&tls, state.path(), now + days(59)).unwrap().remove(0);
    assert_eq!(first.key.cert, again.key.cert);
    assert_eq!(first.names, ["localhost".into()] as [Box<str>; 1]);

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let ca = state.path().join("ca");
    assert_eq!(mode(&ca), 0o700);
    for file in fs::read_dir(&ca).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        assert!(path.extension().is_none_or(|extension| extension != "new"));
    }
}

#[test]
fn a_leaf_is_renewed_before_it_ends_and_made_anew_for_other_names() {
    let state = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = Authority::open(state.path(), now).unwrap();
    let first = authority.leaf(&names(&["a.test"]), now).unwrap();
    let later = authority.leaf(&names(&["a.test"]), now + days(61)).unwrap();
    assert_ne!(first.key.cert, later.key.cert);
    assert!(later.not_after > first.not_after);
    assert_eq!(first.renew_at, Some(first.not_after - 30 * 86_400));
    let other = authority.leaf(&names(&["b.test"]), now).unwrap();
    assert_eq!(other.names, ["b.test".into()] as [Box<str>; 1]);
    assert_eq!(authority.leaf(&names(&["a.test"]), now + days(61)).unwrap().key.cert, later.key.cert);
}

#[test]
fn an_authority_that_would_die_before_its_leaf_is_replaced() {
    let state = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let before = fs::read(Authority::open(state.path(), now).unwrap().path());
    let kept = fs::read(Authority::open(state.path(), now + days(3_500)).unwrap().path());
    assert_eq!(before.as_ref().unwrap(), kept.as_ref().unwrap());
    let after = fs::read(Authority::open(state.path(), now + days(3_600)).unwrap().path());
    assert_ne!(before.unwrap(), after.unwrap());
}

#[test]
fn a_damaged_authority_is_an_error_and_is_not_overwritten() {
    let state = tempfile::tempdir().unwrap();
    drop(Authority::open(state.path(), SystemTime::now()).unwrap());
    let path = state.path().join("ca/ca.key");
    fs::write(&path, "rubbish").unwrap();
    let error = Authority::open(state.path(), SystemTime::now()).err().unwrap().to_string();
    assert!(error.contains("ca.key"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"rubbish");
}

#[test]
fn a_watch_sees_content_and_not_mere_touching() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pem");
    fs::write(&path, "one").unwrap();
    let mut watch = FileWatch::new([path.clone()]);
    assert!(!watch.changed());
    fs::write(&path, "two").unwrap();
    assert!(watch.changed(), "same length, same file, same tick");
    assert!(!watch.changed());
    fs::write(&path, "two").unwrap();
    assert!(!watch.changed(), "the same content again");
    fs::write(directory.path().join("new"), "three").unwrap();
    fs::rename(directory.path().join("new"), &path).unwrap();
    assert!(watch.changed());
    fs::remove_file(&path).unwrap();
    assert!(watch.changed());
    assert!(!watch.changed());
}

#[test]
fn a_file_written_in_place_with_its_old_time_put_back_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pem");
    let old = SystemTime::now() - Duration::from_hours(1);
    let write = |content: &str| {
        fs::write(&path, content).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    };
    write("one");
    let mut watch = FileWatch::new([path.clone()]);
    let before = path.metadata().unwrap();
    while std::os::unix::fs::MetadataExt::ctime_nsec(&path.metadata().unwrap())
        == std::os::unix::fs::MetadataExt::ctime_nsec(&before)
    {
        write("two");
    }
    assert!(watch.changed());
}

#[test]
fn a_change_half_way_through_two_files_is_seen_when_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), "a");
    write_pair(directory.path(), "b");
    let files = pair(directory.path(), "a.pem", "a.key");
    let tls = Tls::Files(vec![files.clone()]);
    let mut watch = CertWatch::new(&tls, None);
    fs::copy(directory.path().join("b.pem"), &files.certificate).unwrap();
    assert!(watch.due(SystemTime::now()));
    assert!(load(&tls, directory.path(), SystemTime::now()).is_err());
    fs::copy(directory.path().join("b.key"), &files.key).unwrap();
    assert!(watch.due(SystemTime::now()));
    assert!(load(&tls, directory.path(), SystemTime::now()).is_ok());
    assert!(!watch.due(SystemTime::now()));
}

#[test]
fn a_leaf_of_our_own_is_due_by_the_clock() {
    let state = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let tls = Tls::SelfSigned(SelfSigned { self_signed: names(&["a.test"]) });
    let mut watch = CertWatch::new(&tls, None);
    watch.loaded(&load(&tls, state.path(), now).unwrap());
    assert!(!watch.due(now + days(59)));
    assert!(watch.due(now + days(61)));
    // What cannot be renewed is not tried at every look.
    watch.refused(now + days(61));
    assert!(!watch.due(now + days(61) + Duration::from_secs(59)));
    assert!(watch.due(now + days(61) + Duration::from_secs(61)));
    watch.loaded(&load(&tls, state.path(), now + days(61)).unwrap());
    assert!(!watch.due(now + days(61)));
}
