//! What an operator does: start, check, reload, look, stop; and what they do wrong.

use std::{fs, net::TcpListener, path::Path, process::Command};

use serde_json::json;

use crate::support::{
    PATIENCE,
    client::{Client, tls_stream},
    config::{BASE, QUERY_ROUTE, pool, with_keys},
    eventually,
    gateway::{Gateway, run},
    nginx::Nginx,
    origin::Origin,
    postgres::Postgres,
};

/// A gateway with one fixed answer.
fn hello(body: &str) -> String {
    format!(
        r#"{BASE}
[[route]]
path = "/"
respond = {{ status = 200, body = "{body}" }}
"#
    )
}

#[tokio::test]
async fn health_is_open_and_everything_else_needs_the_token() {
    let gateway = Gateway::start(&hello("hi")).await;
    let mut client = Client::plain(gateway.address("admin")).await.unwrap();
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/status", 401), ("/metrics", 401), ("/nothing", 401)] {
        assert_eq!(client.get(path).await.unwrap().status, status, "{path}");
    }
    assert_eq!(client.send("POST", "/reload", &[], "").await.unwrap().status, 401);
    let wrong = [("authorization", "Bearer wrong")];
    assert_eq!(client.send("GET", "/status", &wrong, "").await.unwrap().status, 401);
    assert_eq!(gateway.admin("GET", "/status").await.0, 200);
    assert_eq!(gateway.admin("GET", "/nothing").await.0, 404);
    assert_eq!(gateway.admin("GET", "/reload").await.0, 405);
}

#[tokio::test]
async fn a_rotated_admin_token_takes_the_place_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "first-token-of-this-test\n").unwrap();
    let secret = format!("token = {{ file = \"{}\" }}", file.display());
    let gateway = Gateway::start(&with_keys(&hello("hi"), "admin", &secret)).await;
    let status = async |token: &str| {
        let mut client = Client::plain(gateway.address("admin")).await.unwrap();
        let token = format!("Bearer {token}");
        client.send("GET", "/status", &[("authorization", &token)], "").await.unwrap().status
    };
    let seen = async || (status("first-token-of-this-test").await, status("second-token-of-this-test").await);
    assert_eq!(seen().await, (200, 401));
    fs::write(&file, "second-token-of-this-test\n").unwrap();
    eventually("the new token counts, the old one no more", seen, |seen| *seen == (401, 200)).await;
}

#[tokio::test]
async fn an_admin_request_by_another_name_is_refused() {
    let gateway = Gateway::start(&hello("hi")).await;
    let mut client = Client::plain(gateway.address("admin")).await.unwrap();
    let rebound = client.send("GET", "/livez", &[("host", "attacker.example")], "").await.unwrap();
    assert_eq!(rebound.status, 421);
    assert_eq!(client.send("GET", "/livez", &[("host", "localhost:1")], "").await.unwrap().status, 200);
}

#[tokio::test]
async fn figures_are_exposed_under_their_names() {
    let gateway = Gateway::start(&hello("hi")).await;
    gateway.h2().await.get("/").await.unwrap();
    let (status, text) = gateway.admin("GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("http_server_request_duration_seconds_count"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_changed_file_is_reloaded_and_open_connections_stay() {
    let gateway = Gateway::start(&hello("one")).await;
    let mut client = gateway.h2().await;
    assert_eq!(client.get("/").await.unwrap().text(), "one");
    gateway.reconfigure(&hello("two")).await;
    assert_eq!(client.get("/").await.unwrap().text(), "two");
}

#[tokio::test]
async fn a_broken_file_is_refused_with_its_line_and_the_old_one_serves_on() {
    let mut gateway = Gateway::start(&hello("one")).await;
    fs::write(gateway.config_path(), hello("two").replace("respond", "resspond")).unwrap();
    let line = gateway.logged("resspond").await;
    assert!(line.contains("respond") && line.contains("gateway.toml:"), "{line}");
    assert_eq!(gateway.h1().await.get("/").await.unwrap().text(), "one");
    let (status, text) = gateway.admin("POST", "/reload").await;
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("resspond"), "{text}");
    assert!(gateway.status().await["reload"]["last_error"].as_str().unwrap().contains("resspond"));
    gateway.reconfigure(&hello("three")).await;
    assert_eq!(gateway.h1().await.get("/").await.unwrap().text(), "three");
}

#[tokio::test]
async fn sighup_and_the_admin_listener_reload_too() {
    let gateway = Gateway::start(&hello("one")).await;
    let before = gateway.generation().await;
    gateway.process().signal("HUP");
    gateway.status_until("/generation", |now| now.as_u64() > Some(before)).await;
    let (status, text) = gateway.admin("POST", "/reload").await;
    assert_eq!(status, 200, "{text}");
    assert!(gateway.generation().await > before + 1);
}

#[tokio::test]
async fn a_reload_says_what_it_changed() {
    let mut gateway = Gateway::start(&hello("one")).await;
    gateway.reconfigure(&hello("two").replace("workers = 2", "workers = 3")).await;
    let line = gateway.logged("configuration reloaded").await;
    let changes = serde_json::from_str::<serde_json::Value>(&line).unwrap()["changes"].as_str().unwrap().to_owned();
    assert!(changes.contains("route[0].respond.body"), "{changes}");
    assert!(changes.contains("server.workers") && changes.contains("restart"), "{changes}");
    // The admin listener says it to whoever asks; the file may have been seen before it was asked.
    fs::write(gateway.config_path(), hello("three")).unwrap();
    let (status, text) = gateway.admin("POST", "/reload").await;
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200, "{text}");
    assert!(summary["generation"].is_u64() && summary["changes"].is_array(), "{text}");
}

#[tokio::test]
async fn logs_are_for_people_or_for_machines_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let config = hello("hi") + "[log]\nformat = \"pretty\"\n";
    fs::write(dir.path().join("c.toml"), config).unwrap();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let mut command = crate::support::mortal(env!("CARGO_BIN_EXE_sluicegate"), None);
    command.args(["serve", "--config", "c.toml"]).current_dir(dir.path()).stderr(log);
    let process = crate::support::Process(command.stdout(std::process::Stdio::null()).spawn().unwrap());
    let log = async || fs::read_to_string(dir.path().join("log")).unwrap();
    let log = eventually("it is ready", log, |log| log.contains("ready")).await;
    drop(process);
    let line = log.lines().find(|line| line.contains("ready")).unwrap();
    assert!(line.contains("INFO") && !line.starts_with('{') && !line.contains('\x1b'), "{line}");
}

#[tokio::test]
async fn a_listener_can_be_added_moved_and_removed() {
    let gateway = Gateway::start(&hello("one")).await;
    let port = crate::support::free_port();
    let extra = format!("\n[listener.extra]\naddress = \"127.0.0.1:{port}\"\n");
    gateway.reconfigure(&(hello("two") + &extra)).await;
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let mut kept = Client::plain(address).await.unwrap();
    assert_eq!(kept.get("/").await.unwrap().text(), "two");
    gateway.reconfigure(&hello("three")).await;
    let refused = || async move { Client::plain(address).await.is_err() };
    eventually("the removed listener is closed", refused, |refused| *refused).await;
}

#[tokio::test]
async fn every_error_is_reported_at_once_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"
[listener.public]
address = "127.0.0.1:0"
tls = [{ certificate = "missing.pem", key = "missing.key" }]
[pool.main]
backend = "postgres"
url = "postgres://app:hunter2@127.0.0.1/app"
sise = { min = 1 }
[[route]]
path = "/query"
query = { dialect = "json", pool = "mian" }
[[route]]
path = "/a"
respond = { status = 200 }
redirect = { to = "/b" }
"#;
    fs::write(dir.path().join("bad.toml"), config).unwrap();
    for command in ["check", "serve"] {
        let output = run(dir.path(), &[command, "--config", "bad.toml"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let text = String::from_utf8(output.stderr).unwrap();
        for part in ["bad.toml:8:", "sise", "size"] {
            assert!(text.contains(part), "{command}: no {part} in\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }
    fs::write(dir.path().join("bad.toml"), config.replace("sise", "size")).unwrap();
    let output = run(dir.path(), &["check", "--config", "bad.toml"]);
    let text = String::from_utf8(output.stderr).unwrap();
    for part in ["mian", "main", "access", "missing.pem", "a route has one"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

#[tokio::test]
async fn routes_that_cannot_be_told_apart_are_refused_at_every_door() {
    let twice = hello("one") + "[[route]]\npath = \"/\"\nrespond = { status = 404 }\n";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), &twice).unwrap();
    for command in ["check", "serve"] {
        let output = run(dir.path(), &[command, "--config", "c.toml"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {text}");
        assert!(text.contains("c.toml:12:"), "{command}: {text}");
    }
    let gateway = Gateway::start(&hello("one")).await;
    fs::write(gateway.config_path(), &twice).unwrap();
    assert_eq!(gateway.admin("POST", "/reload").await.0, 422);
    assert_eq!(gateway.h1().await.get("/").await.unwrap().text(), "one");
}

#[tokio::test]
async fn wrong_words_on_the_command_line_are_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), &["srve"]).status.code(), Some(2));
    assert_eq!(run(dir.path(), &["serve", "--config", "absent.toml"]).status.code(), Some(1));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let config = hello("x").replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    fs::write(dir.path().join("c.toml"), config).unwrap();
    let output = run(dir.path(), &["serve", "--config", "c.toml"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&port.to_string()) && text.contains("in use"), "{text}");
}

#[tokio::test]
async fn check_passes_what_serve_starts_with() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), hello("x")).unwrap();
    let output = run(dir.path(), &["check", "--config", "c.toml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_new_key_opens_what_its_hash_is_configured_for() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["key", "new"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let word = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let (key, hash) = (word("key "), word("key_sha256 "));
    let config = hello("let in") + "access = [\"app\"]\n[consumer.app]\nkey_sha256 = [\"" + &hash + "\"]\n";
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.h1().await;
    let refused = client.get("/").await.unwrap();
    assert_eq!((refused.status, refused.header("www-authenticate").is_empty()), (401, false));
    for (name, value) in [("authorization", format!("Bearer {key}")), ("x-api-key", key.clone())] {
        assert_eq!(client.send("GET", "/", &[(name, &value)], "").await.unwrap().text(), "let in");
    }
    let wrong = client.send("GET", "/", &[("x-api-key", "sg_wrong")], "").await.unwrap();
    assert_eq!(wrong.status, 401);
    // A key that is taken out is refused on its next request.
    let revoked = config.replace(&hash, &"0".repeat(64));
    gateway.reconfigure(&revoked).await;
    assert_eq!(client.send("GET", "/", &[("x-api-key", &key)], "").await.unwrap().status, 401);
    assert!(!gateway.log_lines().join("\n").contains(&key) && !gateway.access_log().contains(&key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sigterm_drains_what_is_under_way_and_exits_with_zero() {
    let (origin, postgres) = (Origin::http().await, Postgres::start(0, &[]).await);
    let more = format!(
        r#"
[[route]]
path = "/up"
proxy = {{ upstream = "web", strip_prefix = true }}
[upstream.web]
endpoints = ["{}"]
{}
{QUERY_ROUTE}"#,
        origin.url(),
        pool("main", &postgres.url(), "size = { min = 1, max = 2 }")
    );
    let hello = with_keys(&hello("hi"), "server", "drain_delay = \"1s\"\ndrain_deadline = \"20s\"");
    let mut gateway = Gateway::start(&(hello + &more)).await;
    let (mut h1, mut h2, mut asker) = (gateway.h1().await, gateway.h2().await, gateway.h2().await);
    let mut admin = Client::plain(gateway.address("admin")).await.unwrap();
    let under_way = async {
        tokio::join!(
            h1.get("/up/sleep/2500"),
            h2.get("/up/sleep/2500"),
            asker.query("select 1::int from pg_sleep(2.5)", json!([]))
        )
    };
    let public = gateway.address("public");
    let seen = async {
        gateway.status_until("/requests", |count| count.as_u64() >= Some(3)).await;
        gateway.process().signal("TERM");
        let end = std::time::Instant::now() + PATIENCE;
        // First readiness falls, while everybody is served yet: whoever balances the load has a second to notice.
        while admin.get("/readyz").await.unwrap().status == 200 {
            assert!(std::time::Instant::now() < end, "readiness does not fall");
        }
        assert_eq!(admin.get("/livez").await.unwrap().status, 200);
        assert_eq!(gateway.h1().await.get("/").await.unwrap().text(), "hi");
        // Then nobody new is let in.
        let closed = || async move { tokio::net::TcpStream::connect(public).await.is_err() };
        eventually("the listener is closed", closed, |closed| *closed).await;
    };
    let ((one, two, three), ()) = tokio::join!(under_way, seen);
    for answer in [one, two, three] {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_drains_deadline_cuts_what_does_not_end() {
    let nginx = Nginx::start("one").await;
    let hello = with_keys(&hello("hi"), "server", "drain_deadline = \"1s\"");
    let mut gateway = Gateway::start(&(hello + &nginx.files())).await;
    let mut h2 = gateway.h2().await;
    // 1 MiB at 1 KiB/s would take 17 minutes.
    let slow = h2.open("GET", "/files/slow", &[], "").await.unwrap();
    assert_eq!(slow.status(), 200);
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let whole = http_body_util::BodyExt::collect(slow.into_body()).await;
    assert!(whole.is_err(), "a cut answer was passed as whole");
    assert!(gateway.log_lines().join("\n").contains("drain deadline passed"));
}

#[tokio::test]
async fn the_lines_that_a_first_start_prints_work() {
    let dir = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(dir.path().join("config")).unwrap();
    fs::copy(here.join("config/gateway.toml"), dir.path().join("config/gateway.toml")).unwrap();
    std::os::unix::fs::symlink(here.join("plugins"), dir.path().join("plugins")).unwrap();
    let root = dir.path().to_owned();
    // As `make run` starts it, on ports that are free.
    let ports = [("SLUICEGATE_LISTENER__PUBLIC__ADDRESS", "127.0.0.1:0"), ("SLUICEGATE_ADMIN__ADDRESS", "127.0.0.1:0")];
    let gateway = Gateway::start_with(dir, "config/gateway.toml", &ports).await;
    let printed = async || gateway.access_log();
    let printed = eventually("the tour", printed, |text| text.contains("Ctrl-C")).await;
    let lines: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("  curl ")).collect();
    assert_eq!(lines.len(), 5, "{printed}");
    let mut answers = Vec::new();
    for line in lines {
        let output = Command::new("sh").args(["-c", &format!("curl -sSf {line}")]).current_dir(&root).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        answers.push(String::from_utf8(output.stdout).unwrap());
    }
    assert_eq!(answers[0], "Sluicegate is running\n");
    assert!(answers[3].contains(r#""rows":[[1,"Ada"]]"#), "{}", answers[3]);
    let status: serde_json::Value = serde_json::from_str(&answers[4]).unwrap();
    assert_eq!(status["health"], "ok", "{status}");
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_a_broken_new_one_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let file = name.replace('*', "any");
        fs::write(dir.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
        fs::write(dir.path().join(format!("{file}.pem")), certificate.pem()).unwrap();
        let path = dir.path().display().to_string();
        format!("{{ certificate = \"{path}/{file}.pem\", key = \"{path}/{file}.key\" }}")
    };
    let tls = ["a.test", "*.b.test"].map(pair).join(", ");
    let config = hello("hi").replace("{ self_signed = [\"localhost\"] }", &format!("[{tls}]"));
    let mut gateway = Gateway::start(&config).await;
    let address = gateway.address("public");
    for (file, name) in [("a.test", "a.test"), ("any.b.test", "x.b.test")] {
        let ca = dir.path().join(format!("{file}.pem"));
        tls_stream(address, &ca, name, b"h2").await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // A key that does not fit: the old pair serves on, and the log says which file is wrong.
    fs::write(dir.path().join("a.test.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    gateway.logged("a.test").await;
    tls_stream(address, &dir.path().join("a.test.pem"), "a.test", b"h2").await.unwrap();
}

#[tokio::test]
async fn the_access_log_has_a_line_for_every_request() {
    let mut gateway = Gateway::start(&hello("hi")).await;
    let mut client = gateway.h2().await;
    client.send("GET", "/a\u{7f}b?q=%22", &[("user-agent", "test \"quoted\"")], "").await.ok();
    client.get("/fine?x=1").await.unwrap();
    drop(client);
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let log = gateway.access_log();
    let lines: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let fine = lines.iter().find(|line| line["path"] == "/fine?x=1").unwrap_or_else(|| panic!("{log}"));
    assert_eq!((&fine["status"], &fine["method"], &fine["protocol"]), (&json!(200), &json!("GET"), &json!("HTTP/2")));
    assert!(fine["trace_id"].as_str().unwrap().len() == 32 && fine["duration_us"].is_u64());
}
