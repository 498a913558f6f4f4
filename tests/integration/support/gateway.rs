//! The gateway, as its users start it: the binary, a configuration file, a directory of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, Process, client::Client, eventually, mortal};

/// A running gateway.
pub struct Gateway {
    process: Process,
    dir: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    ready: String,
}

impl Gateway {
    /// Writes `config`, starts, and waits for the ready line.
    pub async fn start(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sg-gateway-").tempdir().unwrap();
        Self::start_in(dir, config).await
    }

    /// The same in a directory that may already hold something.
    pub async fn start_in(dir: TempDir, config: &str) -> Self {
        fs::write(dir.path().join("gateway.toml"), config).unwrap();
        Self::start_with(dir, "gateway.toml", &[]).await
    }

    /// Starts in `dir` with the configuration that lies there as `file`, and variables beside it.
    pub async fn start_with(dir: TempDir, file: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = mortal(env!("CARGO_BIN_EXE_sluicegate"), None);
        command.args(["serve", "--config", file]).envs(variables.iter().copied());
        Self::spawn(dir, command).await
    }

    /// Starts in `dir`, where `gateway.toml` lies, by way of a program that ends up being the gateway.
    pub async fn start_by(dir: TempDir, way: &[&str]) -> Self {
        let mut command = mortal(way[0], None);
        command.args(&way[1..]).args([env!("CARGO_BIN_EXE_sluicegate"), "serve", "--config", "gateway.toml"]);
        Self::spawn(dir, command).await
    }

    async fn spawn(dir: TempDir, mut command: Command) -> Self {
        let stdout = fs::File::create(dir.path().join("stdout")).unwrap();
        let mut child =
            command.current_dir(dir.path()).stdout(stdout).stderr(Stdio::piped()).spawn().expect("the gateway starts");
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut gateway = Self { process: Process(child), dir, log, ready: String::new() };
        gateway.ready = gateway.logged("\"message\":\"ready\"").await;
        gateway
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    /// Waits for a log line with `text`.
    ///
    /// Panics with the log when the gateway ends first.
    pub async fn logged(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log_lines().into_iter().find(|line| line.contains(text)) {
                return line;
            }
            let ended = self.process.0.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "no {text} in the log ({ended:?}):\n{}",
                self.log_lines().join("\n")
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The log so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The access log so far, when it goes to standard output.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("stdout")).unwrap()
    }

    /// Where a listener is bound, by name (`admin` too).
    pub fn address(&self, listener: &str) -> SocketAddr {
        let ready: Value = serde_json::from_str(&self.ready).unwrap();
        let field = if listener == "admin" { &ready["admin"] } else { &ready["listeners"] };
        let text = field.as_str().unwrap_or_default();
        if listener == "admin" {
            return text.trim_start_matches("http://").parse().expect("admin address");
        }
        let named = text.split_whitespace().find_map(|item| item.strip_prefix(&format!("{listener}=")));
        let address = named.unwrap_or_else(|| panic!("no listener {listener} in {text}"));
        address.rsplit('/').next().unwrap().parse().unwrap()
    }

    /// What a client trusts: the first certificate file of the configuration, else the local authority's.
    pub fn ca(&self) -> PathBuf {
        let config = fs::read_to_string(self.config_path()).unwrap();
        let named = config.split("certificate = \"").nth(1).and_then(|rest| rest.split('"').next()).map(PathBuf::from);
        named.unwrap_or_else(|| self.dir.path().join("var/ca/ca.pem"))
    }

    /// A client of the listener `public` over TLS, HTTP/1.1.
    pub async fn h1(&self) -> Client {
        Client::tls(self.address("public"), &self.ca(), "localhost", false).await.unwrap()
    }

    /// A client of the listener `public` over TLS, HTTP/2.
    pub async fn h2(&self) -> Client {
        Client::tls(self.address("public"), &self.ca(), "localhost", true).await.unwrap()
    }

    /// The admin token.
    pub fn token(&self) -> String {
        fs::read_to_string(self.dir.path().join("var/admin.token")).unwrap().trim().to_owned()
    }

    /// Asks the admin listener.
    pub async fn admin(&self, method: &str, path: &str) -> (u16, String) {
        let mut client = Client::plain(self.address("admin")).await.unwrap();
        let token = format!("Bearer {}", self.token());
        let answer = client.send(method, path, &[("authorization", &token)], "").await.unwrap();
        (answer.status, answer.text())
    }

    /// Runs `sluicegate` with `words` beside it, as its operator does, to the end.
    pub fn command(&self, words: &[&str]) -> Output {
        let admin = format!("http://{}", self.address("admin"));
        run(self.dir.path(), &[words, &["--config", "gateway.toml", "--admin", &admin]].concat())
    }

    /// `/status`.
    pub async fn status(&self) -> Value {
        let (code, body) = self.admin("GET", "/status").await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A number of `/status` by JSON pointer.
    ///
    /// Panics with the pointer when there is none: a field that is absent is not a count of nothing.
    pub async fn figure(&self, pointer: &str) -> u64 {
        let status = self.status().await;
        let number = status.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no number at {pointer} in {status:#}"))
    }

    /// A value of `/status` by JSON pointer, once it satisfies `enough`.
    pub async fn status_until(&self, pointer: &str, enough: impl Fn(&Value) -> bool) -> Value {
        let look = || async { self.status().await.pointer(pointer).cloned().unwrap_or(Value::Null) };
        eventually(pointer, look, enough).await
    }

    /// Writes another configuration and waits until it serves.
    pub async fn reconfigure(&self, config: &str) {
        let before = self.generation().await;
        fs::write(self.config_path(), config).unwrap();
        self.status_until("/generation", |now| now.as_u64() > Some(before)).await;
    }

    /// The number of the generation that serves.
    pub async fn generation(&self) -> u64 {
        self.status().await["generation"].as_u64().expect("a generation number")
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// CPU seconds so far, user and system.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.ended().await
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the gateway did not end:\n{}", self.log_lines().join("\n"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Runs the binary to its end in `dir`.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicegate")).args(args).current_dir(dir).output().expect("the binary runs")
}
