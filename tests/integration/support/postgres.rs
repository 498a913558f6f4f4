//! A PostgreSQL server of the test's own, copied from a template that is made once a machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::{Process, activity::count, eventually, free_port, mortal};

/// The superuser's password, and the application's.
pub const PASSWORD: &str = "not-a-secret";

/// What the log says of a connection for which there was no room: in all, for all but superusers, for the role.
pub const REFUSED_AS_FULL: [&str; 3] =
    ["too many clients", "remaining connection slots", "too many connections for role"];

/// A running server.
pub struct Postgres {
    process: Process,
    dir: TempDir,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    settings: Vec<String>,
}

impl Postgres {
    /// Starts a server with pgbench's tables at `scale` (0: none) and extra settings such as `max_connections=20`.
    pub async fn start(scale: u32, settings: &[&str]) -> Self {
        let template = template(scale);
        let dir = tempfile::Builder::new().prefix("sg-pg-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(&data).status().unwrap();
        assert!(copied.success());
        let port = free_port();
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let process = serve(&data, port, &settings);
        let server = Self { process, dir, port, settings };
        server.ready().await;
        server
    }

    /// Starts a server on a data directory that is there already, as `data` below `dir`.
    pub(super) async fn start_on(dir: TempDir, settings: &[String]) -> Self {
        let port = free_port();
        let process = serve(&dir.path().join("data"), port, settings);
        let server = Self { process, dir, port, settings: settings.to_vec() };
        server.ready().await;
        server
    }

    /// The settings it was started with.
    pub(super) fn settings(&self) -> &[String] {
        &self.settings
    }

    /// `postgres://app:…@127.0.0.1:PORT/postgres`.
    pub fn url(&self) -> String {
        Self::url_at(self.port)
    }

    /// The same by way of another port, a fault proxy's.
    pub fn url_at(port: u16) -> String {
        format!("postgres://app:{PASSWORD}@127.0.0.1:{port}/postgres")
    }

    /// A superuser's connection beside the gateway.
    pub async fn admin(&self) -> tokio_postgres::Client {
        self.try_admin().await.expect("superuser connection")
    }

    async fn try_admin(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").password(PASSWORD).dbname("postgres");
        config.application_name("observer");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Waits until it takes connections.
    pub async fn ready(&self) {
        eventually("postgres accepts", || async { self.try_admin().await.is_ok() }, |ready| *ready).await;
    }

    /// Every process of the server: the postmaster's children too.
    pub fn pids(&self) -> Vec<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        let mut pids: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        pids.push(self.process.id());
        pids
    }

    /// Sends a signal to all of them.
    pub fn signal_all(&self, name: &str) {
        for pid in self.pids() {
            super::signal(pid, name);
        }
    }

    /// Stops at once (SIGQUIT), as a crash would.
    pub fn stop(&mut self) {
        self.process.signal("QUIT");
        let _ = self.process.0.wait();
    }

    /// Starts again after [`Postgres::stop`], on the same port.
    pub async fn start_again(&mut self) {
        self.process = serve(&self.dir.path().join("data"), self.port, &self.settings);
        self.ready().await;
    }

    /// Starts again after [`Postgres::stop`] as a standby that takes no sessions: whoever connects is told so (57P03), until
    /// [`Postgres::promote`]. Waits until it listens.
    pub async fn start_in_recovery(&mut self) {
        let data = self.dir.path().join("data");
        fs::write(data.join("standby.signal"), "").unwrap();
        let settings = [&self.settings[..], &["hot_standby=off".to_owned()]].concat();
        self.process = serve(&data, self.port, &settings);
        eventually("it listens", || async { self.logged(&["entering standby mode"]) }, |seen| *seen == 1).await;
    }

    /// Ends recovery: from now on it takes writes.
    pub fn promote(&self) {
        let mut promote = mortal(&binary("pg_ctl"), Some("postgres"));
        let promoted = promote.args(["promote", "-W", "-D"]).arg(self.dir.path().join("data")).output().unwrap();
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    }

    /// Sessions of the gateway, counted at the server.
    pub async fn sessions(&self, admin: &tokio_postgres::Client) -> i64 {
        let sql = "select count(*) from pg_stat_activity where application_name = 'sluicegate' and backend_type = 'client backend'";
        count(admin, sql).await
    }

    /// From now on the server itself refuses the application one session more than `most`.
    pub async fn grant_sessions(&self, admin: &tokio_postgres::Client, most: i64) {
        admin.batch_execute(&format!("alter role app connection limit {most}")).await.unwrap();
    }

    /// What the server has logged so far, from before a restart too. It logs an error before it sends it.
    pub fn log(&self) -> String {
        let log = fs::read(log_of(&self.dir.path().join("data"), self.port)).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Lines of the log with one of `texts`.
    pub fn logged(&self, texts: &[&str]) -> usize {
        self.log().lines().filter(|line| texts.iter().any(|text| line.contains(text))).count()
    }

    /// The most of `user`'s sessions that were being started at a time, by the log that `log_connections=on` makes.
    pub fn starting_at_a_time(&self, user: &str) -> usize {
        let log = self.log();
        let process = |line: &str| line.split(['[', ']']).nth(1).unwrap_or_default().to_owned();
        let authorized = format!("connection authorized: user={user} ");
        let wanted: Vec<String> = log.lines().filter(|line| line.contains(&authorized)).map(process).collect();
        let (mut now, mut most) = (0, 0);
        for line in log.lines().filter(|line| wanted.contains(&process(line))) {
            match line {
                line if line.contains("connection received") => now += 1,
                line if line.contains("connection authorized") => now -= 1,
                _ => {}
            }
            most = most.max(now);
        }
        most
    }

    /// CPU seconds so far of all its processes, user and system, those that have ended too.
    pub fn cpu_seconds(&self) -> f64 {
        let alive: u64 = self.pids().into_iter().map(|pid| ticks(pid, 11)).sum();
        (alive + ticks(self.process.id(), 13)) as f64 / 100.0
    }
}

fn serve(data: &Path, port: u16, settings: &[String]) -> Process {
    let mut command = mortal(&binary("postgres"), Some("postgres"));
    command.arg("-D").arg(data).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
    for setting in ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=64MB"] {
        command.args(["-c", setting]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    let log = fs::OpenOptions::new().create(true).append(true).open(log_of(data, port)).unwrap();
    Process(command.stdout(Stdio::null()).stderr(log).spawn().expect("postgres starts"))
}

/// Two fields of `/proc/PID/stat`, counted from behind the name; 0 for one that has ended, whose parent has its ticks.
fn ticks(pid: u32, first: usize) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    behind_name.skip(first).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn log_of(data: &Path, port: u16) -> PathBuf {
    data.with_extension(format!("{port}.log"))
}

/// The newest installed server's binary.
pub fn binary(name: &str) -> String {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        versions.sort();
        versions.pop().expect("PostgreSQL is installed: run `make setup-test`").1
    });
    dir.join(name).to_str().unwrap().to_owned()
}

/// A data directory to copy, made under a lock by the first test that needs it.
fn template(scale: u32) -> PathBuf {
    let base = std::env::temp_dir().join("sluicegate-postgres");
    fs::create_dir_all(&base).unwrap();
    let _ = fs::set_permissions(&base, fs::Permissions::from_mode(0o777));
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(base.join("lock")).unwrap();
    lock.lock().unwrap();
    let done = base.join(format!("v1-scale-{scale}"));
    if !done.exists() {
        let making = base.join(format!("making-{}", std::process::id()));
        make_template(&making, scale);
        fs::rename(&making, &done).unwrap();
    }
    done
}

fn make_template(data: &Path, scale: u32) {
    let secret = data.with_extension("password");
    fs::write(&secret, PASSWORD).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let mut initdb = mortal(&binary("initdb"), Some("postgres"));
    initdb.args(["-N", "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"]);
    initdb.arg(format!("--pwfile={}", secret.display())).arg("-D").arg(data);
    let made = initdb.stdout(Stdio::null()).status().unwrap();
    assert!(made.success(), "initdb");
    let port = free_port();
    let mut server = serve(data, port, &[]);
    let sql = format!("create role app login password '{PASSWORD}'; grant all on schema public to app");
    wait_for(port);
    run("psql", port, &["-q", "-c", &sql]);
    if scale > 0 {
        run("pgbench", port, &["-i", "-q", "-s", &scale.to_string()]);
        run("psql", port, &["-q", "-c", "grant all on all tables in schema public to app"]);
    }
    server.signal("INT");
    let _ = server.0.wait();
}

fn wait_for(port: u16) {
    let end = std::time::Instant::now() + super::PATIENCE;
    while !Command::new(binary("pg_isready"))
        .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
        .status()
        .unwrap()
        .success()
    {
        assert!(std::time::Instant::now() < end, "postgres did not start");
        std::thread::yield_now();
    }
}

fn run(program: &str, port: u16, args: &[&str]) {
    let output = Command::new(binary(program))
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
        .args(args)
        .arg("postgres")
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
