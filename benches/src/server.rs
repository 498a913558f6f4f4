//! PostgreSQL and PgBouncer, started for a measurement, as the user `postgres` where that is not ours.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    peers::{Workshop, words},
    process::{AS_POSTGRES, Server, installed},
};

/// A PostgreSQL that trusts loopback, without `fsync`.
pub struct Postgres {
    bin: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    core: &'static str,
    settings: Vec<String>,
    server: Server,
}

/// How a PgBouncer in transaction mode pools.
#[derive(Clone, Copy, Debug)]
pub struct Bouncing {
    /// `default_pool_size`.
    pub size: u32,
    /// `reserve_pool_size`, opened after a second.
    pub reserve: u32,
    /// `query_wait_timeout`.
    pub wait_s: u32,
}

impl Postgres {
    /// A new, empty one; none if it is not installed.
    pub fn start(at: &Workshop, port: u16, core: &'static str, settings: &[&str]) -> Result<Option<Self>> {
        let Some(bin) = newest() else { return Ok(None) };
        let data = at.path(&format!("postgres-{port}"));
        fs::create_dir(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        let text = data.display().to_string();
        run_quietly(&["chown", "postgres:postgres", &text])?;
        let initdb = bin.join("initdb").display().to_string();
        let initdb = [&initdb, "-N", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-D", &text];
        run_quietly(&[&["setpriv"], &AS_POSTGRES[..], &initdb[..]].concat())?;
        let log = at.path(&format!("postgres-{port}.log"));
        let settings: Vec<String> = ["fsync=off", "shared_buffers=256MB", "max_connections=100"]
            .iter()
            .chain(settings)
            .flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()])
            .collect();
        let server = Server::begin(&AS_POSTGRES, &command(&bin, &data, port, &settings), core, &log, &[])?;
        let postgres = Self { bin, data, log, port, core, settings, server };
        postgres.ready()?;
        Ok(Some(postgres))
    }

    /// Makes pgbench's tables.
    pub fn fill(&self, scale: u32) -> Result<()> {
        let port = self.port.to_string();
        let pgbench = self.tool("pgbench");
        let to = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "postgres"];
        run_quietly(&[&[pgbench.as_str(), "-i", "-q", "-s", &scale.to_string()], &to[..]].concat())
    }

    /// For the superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// For a role.
    pub fn url_of(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends it as a crash would.
    pub fn crash(&mut self) -> Result<()> {
        self.server.end_by("QUIT")
    }

    /// Starts it again, and does not wait for it.
    pub fn start_again(&mut self) -> Result<()> {
        let command = command(&self.bin, &self.data, self.port, &self.settings);
        self.server = Server::begin(&AS_POSTGRES, &command, self.core, &self.log, &[])?;
        Ok(())
    }

    /// Lines of its log with `text`, so far.
    pub fn logged(&self, text: &str) -> Result<usize> {
        let log = fs::read(&self.log)?;
        Ok(String::from_utf8_lossy(&log).lines().filter(|line| line.contains(text)).count())
    }

    /// Its version, as it names itself.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(self.tool("postgres")).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.trim().trim_start_matches("postgres (PostgreSQL)").trim().to_owned())
    }

    fn ready(&self) -> Result<()> {
        let isready = self.tool("pg_isready");
        let port = self.port.to_string();
        for _ in 0..600 {
            if Command::new(&isready).args(["-q", "-h", "127.0.0.1", "-p", &port]).status()?.success() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        anyhow::bail!("PostgreSQL does not come up; its log: {}", fs::read_to_string(&self.log).unwrap_or_default())
    }

    fn tool(&self, name: &str) -> String {
        self.bin.join(name).display().to_string()
    }
}

/// A PgBouncer in front of `postgres`, which everybody may use; none if it is not installed.
pub fn bouncer(at: &Workshop, port: u16, core: &str, postgres: &Postgres, pooling: Bouncing) -> Result<Option<Server>> {
    if !installed("pgbouncer") {
        return Ok(None);
    }
    let root = at.root();
    let Bouncing { size, reserve, wait_s } = pooling;
    let users = at.path("bouncer.users");
    fs::write(&users, "\"postgres\" \"\"\n\"load\" \"\"\n")?;
    let conf = format!(
        "[databases]
* = host=127.0.0.1 port={}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {root}/bouncer.users
pool_mode = transaction
max_client_conn = 4000
default_pool_size = {size}
reserve_pool_size = {reserve}
reserve_pool_timeout = 1
query_wait_timeout = {wait_s}
log_connections = 0
log_disconnections = 0
",
        postgres.port
    );
    let path = at.path(&format!("bouncer-{port}.ini"));
    fs::write(&path, conf)?;
    let command = words(&["pgbouncer", &path.display().to_string()]);
    Server::start_as_postgres(&command, core, &at.path(&format!("bouncer-{port}.log")), port)
        .map(Some)
        .context("PgBouncer")
}

fn command(bin: &Path, data: &Path, port: u16, settings: &[String]) -> Vec<String> {
    let program = bin.join("postgres").display().to_string();
    let mut command =
        words(&[&program, "-D", &data.display().to_string(), "-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
    command.extend_from_slice(settings);
    command
}

fn newest() -> Option<PathBuf> {
    let dirs = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let versions =
        dirs.filter_map(|dir| Some((dir.file_name().to_str()?.parse::<u32>().ok()?, dir.path().join("bin"))));
    versions.max().map(|(_, bin)| bin).filter(|bin: &PathBuf| bin.join("postgres").exists())
}

fn run_quietly(command: &[&str]) -> Result<()> {
    let output = Command::new(command[0]).args(&command[1..]).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
