//! What is read, when, and what is lost by it: nothing.

use std::{fs, ops::ControlFlow, time::Duration};

use super::bench::{Bench, hello, on_background};
use crate::{
    config::Source,
    gateway::{
        inputs::{self, Reading},
        shared::ReloadRequest,
    },
};

/// A plugin that is let off when it does not compile.
const PLUGIN: &str = "[plugin.slow]\npath = \"DIR/slow.wasm\"\nrequired = false\n";

/// The least that is taken for a component: its header.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

#[test]
fn an_edit_while_plugins_compile_is_followed_by_another_reload() {
    on_background(async {
        // The compiler takes its time; an editor saves meanwhile.
        let mut bench = Bench::compiling(&hello("one"), "cp DIR/third.toml DIR/gateway.toml\nexit 1").await;
        bench.write("third.toml", &hello("three"));
        fs::write(bench.path("slow.wasm"), COMPONENT).unwrap();
        bench.reconfigure(&(hello("two") + PLUGIN)).await.unwrap();
        assert_eq!(bench.body(), "two");
        bench.follow_files().await;
        assert_eq!(bench.body(), "three");
    });
}

#[test]
fn an_edit_between_reading_and_watching_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let source = Source { file: Some(path.clone()), ..Source::default() };
    fs::write(&path, hello("one")).unwrap();
    let Reading { outcome, mut watch } = inputs::read_and(&source, &[], || fs::write(&path, hello("two")).unwrap());
    assert_eq!(outcome.unwrap().config.route[0].respond.as_ref().unwrap().body, "one");
    assert!(watch.changed() && !watch.changed());
}

#[test]
fn a_secret_or_certificate_that_was_missing_is_read_when_it_comes() {
    on_background(async {
        let mut bench = Bench::serving(&hello("one")).await;
        let admin = "[admin]\naddress = \"127.0.0.1:0\"\ntoken = { file = \"DIR/token\" }\n";
        bench.reconfigure(&(hello("two") + admin)).await.unwrap_err();
        bench.write("token", "0123456789abcdef");
        bench.follow_files().await;
        assert_eq!(bench.body(), "two");
        let tls = "[listener.other]\naddress = \"127.0.0.1:0\"\ntls = [{ certificate = \"DIR/a.pem\", key = \"DIR/a.key\" }]\n";
        bench.reconfigure(&(hello("three") + tls)).await.unwrap_err();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        bench.write("a.key", &key.serialize_pem());
        bench.write("a.pem", &certificate.pem());
        bench.follow_files().await;
        assert_eq!(bench.body(), "three");
    });
}

#[test]
fn a_signal_does_not_wait_for_plugins_to_compile() {
    on_background(async {
        let mut bench = Bench::compiling(&hello("one"), "touch DIR/started\nexec sleep 600").await;
        fs::write(bench.path("slow.wasm"), COMPONENT).unwrap();
        bench.write("gateway.toml", &(hello("two") + PLUGIN));
        let started = bench.path("started");
        let signal = async {
            while !started.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let request = ReloadRequest { why: "test", done: None };
        assert_eq!(bench.supervisor.reload(request, signal).await, ControlFlow::Break(()));
        assert_eq!(bench.body(), "one");
    });
}
