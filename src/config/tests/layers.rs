//! Layers over layers, and the files that are shipped.

use std::{fs, path::PathBuf};

use super::{environment, text};
use crate::config::{
    Environment, Loaded, Report, Source, load,
    load::{TABLES, load_content},
    model::{Config, LogFormat},
    value::Span,
};

const BASE: &str = r#"
[server]
max_connections = 500
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
[listener.public]
address = "127.0.0.1:8443"
tls = { self_signed = ["localhost"] }
[listener.other]
address = "127.0.0.1:8444"
[limit.per-client]
key = "all"
rate = "5/s"
[pool.demo]
backend = "sqlite"
url = "sqlite:a.db"
size = { min = 1, max = 5 }
[[route]]
path = "/a"
respond = { status = 200 }
[[route]]
path = "/b"
respond = { status = 200 }
"#;

const PROFILE: &str = r#"
[server]
trusted_proxies = ["192.0.2.0/24"]
[listener.public]
tls = false
[listener]
other = false
[pool.demo.size]
max = 7
[[route]]
path = "/c"
respond = { status = 404 }
"#;

/// A directory with `base.toml` and `over.toml`, loaded with the profile `over`.
fn layered(base: &str, over: &str, variables: &[(&str, &str)]) -> Result<Loaded, Report> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("base.toml"), base).unwrap();
    fs::write(directory.path().join("over.toml"), over).unwrap();
    let file = Some(directory.path().join("base.toml"));
    load(&Source { file, profile: Some("over".into()), environment: environment(variables) })
}

fn shipped(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn a_profile_lies_on_the_file_and_the_environment_on_both() {
    let variables = [
        ("SLUICEGATE_POOL__DEMO__SIZE__MAX", "9"),
        ("SLUICEGATE_LIMIT__PER_CLIENT__RATE", "50/m"),
        ("sluicegate_log__format", "json"),
    ];
    let loaded = layered(BASE, PROFILE, &variables).unwrap();
    let config = &loaded.config;
    assert_eq!(config.server.max_connections, 500);
    assert_eq!(config.server.trusted_proxies, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(config.listener.keys().collect::<Vec<_>>(), ["public"]);
    assert_eq!(config.listener["public"].tls, None);
    assert_eq!((config.pool["demo"].min(), config.pool["demo"].max_size()), (1, 9));
    assert_eq!(config.limit["per-client"].rate.to_string(), "50/m");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.route.len(), 1);
    assert_eq!(config.route[0].path.as_deref(), Some("/c"));
    assert_eq!(loaded.files.len(), 2);
    let at = |key: &str| {
        let position = loaded.locate(key).unwrap().to_string();
        position.rsplit('/').next().unwrap().to_owned()
    };
    assert_eq!(at("pool.demo.size.max"), "$SLUICEGATE_POOL__DEMO__SIZE__MAX");
    assert_eq!(at("pool.demo.url"), "base.toml:15:1");
    assert_eq!(at("pool.demo.queue"), "over.toml:8:7", "the table, where the key is not set");
    assert_eq!(at("route[0].path"), "over.toml:11:1");
    assert_eq!(loaded.locate("upstream.x"), None);
    assert_eq!(
        loaded.problem("listener.public.tls", "x").to_string().rsplit('/').next(),
        Some("over.toml:5:1: listener.public.tls: x")
    );
}

#[test]
fn mistakes_are_placed_in_the_layer_that_made_them() {
    let over = "[pool.demo]\nsise = 1\n[server]\nmax_connections = \"x\"";
    let variables = [("SLUICEGATE_POOL__DEMO__QUEUE", "lots"), ("SLUICEGATE_ADMIN__ADDRES", "127.0.0.1:1")];
    let report = layered(BASE, over, &variables).err().unwrap().to_string();
    let lines: Vec<_> = report.lines().map(|line| line.rsplit("toml:").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "$SLUICEGATE_ADMIN__ADDRES: admin.addres: unknown key; did you mean `address`?",
            "$SLUICEGATE_ADMIN__ADDRES: admin.address: required, but not set",
            "$SLUICEGATE_POOL__DEMO__QUEUE: pool.demo.queue: expected a whole number from 0 to 4294967295, found text",
            "2:1: pool.demo.sise: unknown key; did you mean `size`?",
            "4:1: server.max_connections: expected a whole number from 0 to 4294967295, found text",
        ]
    );
}

#[test]
fn a_variable_is_text_where_text_is_wanted() {
    let sound =
        b"[listener.l]\naddress = \"127.0.0.1:0\"\n[pool.p]\nbackend = \"postgres\"\nurl = \"postgres://h/d\"\n";
    let variables = [("SLUICEGATE_POOL__P__PASSWORD", "0815.5"), ("SLUICEGATE_LISTENER__L__TLS_MIN_VERSION", "1.3")];
    let loaded = load_content(sound, &environment(&variables)).unwrap();
    assert_eq!(loaded.config.pool["p"].password.as_ref().unwrap().reveal().unwrap(), "0815.5");
    let wrong = load_content(sound, &environment(&[("SLUICEGATE_POOL__P__QUEUE", "1.5")])).err().unwrap();
    assert_eq!(
        wrong.to_string(),
        "$SLUICEGATE_POOL__P__QUEUE: pool.p.queue: expected a whole number from 0 to 4294967295, found the number 1.5"
    );
}

#[test]
fn files_that_cannot_be_read_are_all_named() {
    let source = Source { file: Some("/nonexistent/a.toml".into()), profile: Some("b".into()), ..Source::default() };
    let report = load(&source).err().unwrap().to_string();
    assert_eq!(
        report,
        "/nonexistent/a.toml: cannot read: No such file or directory (os error 2)\n\
         /nonexistent/b.toml: cannot read: No such file or directory (os error 2)"
    );
    let outside = Source { profile: Some("../secret".into()), ..Source::default() };
    assert!(load(&outside).err().unwrap().to_string().contains("a profile is named with letters"));
    let endless = Source { file: Some("/dev/zero".into()), ..Source::default() };
    assert_eq!(load(&endless).err().unwrap().to_string(), "/dev/zero: cannot read: larger than 4 MiB");
}

#[test]
fn what_is_not_toml_is_reported_for_every_file() {
    let report = layered("a = \n", "[[x\n", &[]).err().unwrap();
    assert_eq!(report.problems().len(), 2, "{report}");
}

#[test]
fn nothing_named_runs_what_is_built_in() {
    let source = Source { environment: environment(&[]), ..Source::default() };
    let loaded = load(&source).unwrap();
    assert!(loaded.config.plugin.values().all(|plugin| !plugin.required), "nobody chose these plugins");
    assert!(loaded.files.is_empty());
    let named =
        load(&Source { file: Some(shipped("gateway.toml")), environment: environment(&[]), profile: None }).unwrap();
    assert!(named.config.plugin.values().all(|plugin| plugin.required));
    assert_eq!(named.config.route.len(), loaded.config.route.len());
    let place = loaded.locate("pool.demo.url").unwrap().to_string();
    assert!(place.starts_with("config/gateway.toml (built in):"), "{place}");
}

/// A copy, so that editing the file that is shipped does not have the gateway compiled again.
#[test]
fn what_is_built_in_is_what_is_shipped() {
    let shipped = fs::read_to_string(shipped("gateway.toml")).unwrap();
    assert!(
        shipped == include_str!("../demonstration.toml"),
        "copy config/gateway.toml to src/config/demonstration.toml"
    );
}

#[test]
fn shipped_profiles_pass_over_the_shipped_file() {
    let secrets = [
        ("ORDERS_DATABASE_URL", "postgres://gateway@db-1.internal:5432,db-2.internal:5432/orders?sslmode=require"),
        ("ORDERS_DATABASE_PASSWORD", "hunter2"),
    ];
    let profile = |name: &str| {
        let source = Source {
            file: Some(shipped("gateway.toml")),
            profile: Some(name.into()),
            environment: environment(&secrets),
        };
        load(&source).unwrap_or_else(|report| panic!("{name}: {report}")).config
    };
    assert_eq!(profile("test").listener["public"].address.port(), 0);
    assert_eq!(profile("development").log.format, LogFormat::Pretty);
    let production = profile("production");
    assert_eq!(production.pool.keys().collect::<Vec<_>>(), ["orders"]);
    assert_eq!(production.listener.len(), 3);
    assert_eq!(production.server.drain_delay, Span::secs(5));
    let source = Source {
        file: Some(shipped("gateway.toml")),
        profile: Some("production".into()),
        environment: environment(&[]),
    };
    let report = load(&source).err().unwrap().to_string();
    assert!(report.contains("ORDERS_DATABASE_URL is not set") && report.lines().count() == 2, "{report}");
}

#[test]
fn bounds_of_a_pool_have_sense_without_being_stated() {
    let loaded =
        text("listener.l.address = \"127.0.0.1:0\"\n[pool.p]\nbackend = \"sqlite\"\nurl = \"sqlite:a\"\n").unwrap();
    assert_eq!(loaded.config.pool["p"].min(), 0);
    assert!(loaded.config.pool["p"].max_size() >= 2);
    let many = text(
        "listener.l.address = \"127.0.0.1:0\"\n[pool.p]\nbackend = \"sqlite\"\nurl = \"sqlite:a\"\nsize.min = 60000\n",
    );
    assert_eq!(many.unwrap().config.pool["p"].max_size(), 60_000);
}

#[test]
fn the_process_environment_is_read() {
    // Without unsafe code a test cannot set one; that none of ours is set is enough to load.
    assert!(text(BASE).is_ok());
    assert!(load_content(BASE.as_bytes(), &Environment::Process).is_ok());
}

#[test]
fn a_variable_may_name_any_table_of_the_model() {
    let every: Config = toml_edit::de::from_str(include_str!("../every_key.toml")).unwrap();
    let serde_json::Value::Object(tables) = serde_json::to_value(every).unwrap() else { panic!("a table") };
    let (mut known, mut there) = (TABLES.to_vec(), tables.keys().map(String::as_str).collect::<Vec<_>>());
    known.sort_unstable();
    there.sort_unstable();
    assert_eq!(known, there);
    let named = "{ orders = { sql = \"select 1\" } }";
    let loaded = load_content(BASE.as_bytes(), &environment(&[("SLUICEGATE_NAMED", named)])).unwrap();
    assert!(loaded.config.named.contains_key("orders"));
}
