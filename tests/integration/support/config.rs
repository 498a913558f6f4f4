//! What the configurations of most tests have in common, in pieces that end with their line: a test joins them and adds the
//! tables that are its own.

use super::sha256;

/// Two workers, the listener `public` over TLS as `localhost`, and the admin listener, on free ports. `[admin]` is its last
/// table: keys that stand behind it are the admin listener's.
pub const BASE: &str = r#"[server]
workers = 2
[listener.public]
address = "127.0.0.1:0"
tls = { self_signed = ["localhost"] }
[admin]
address = "127.0.0.1:0"
"#;

/// `/query` in front of the pool `main`, open to all: keys that stand behind it are this route's.
pub const QUERY_ROUTE: &str = r#"[[route]]
path = "/query"
query = { dialect = "json", pool = "main" }
access = "open"
"#;

/// `config` with more keys for a table that it has: `with_keys(BASE, "server", "drain_delay = \"0s\"")`.
pub fn with_keys(config: &str, table: &str, keys: &str) -> String {
    let head = format!("[{table}]\n");
    assert_eq!(config.matches(&head).count(), 1, "{head} in\n{config}");
    config.replacen(&head, &format!("{head}{keys}\n"), 1)
}

/// `config` with a certificate that is for `name` too, besides `localhost`.
pub fn also_named(config: &str, name: &str) -> String {
    config.replacen("[\"localhost\"]", &format!("[\"localhost\", \"{name}\"]"), 1)
}

/// `[pool.NAME]` on the server or file at `url`, whose scheme is its backend, with more keys.
pub fn pool(name: &str, url: &str, keys: &str) -> String {
    let backend = if url.starts_with("sqlite:") { "sqlite" } else { "postgres" };
    format!("[pool.{name}]\nbackend = \"{backend}\"\nurl = \"{url}\"\n{keys}\n")
}

/// `[consumer.NAME]`, who shows `key-NAME`, with more keys.
pub fn consumer(name: &str, keys: &str) -> String {
    format!("[consumer.{name}]\nkey_sha256 = [\"{}\"]\n{keys}\n", sha256(&format!("key-{name}")))
}
