//! A real PgBouncer in transaction mode, in front of a test's PostgreSQL.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{
    Process, eventually, free_port, mortal,
    postgres::{PASSWORD, Postgres},
};

/// A running PgBouncer.
pub struct PgBouncer {
    process: Process,
    dir: TempDir,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl PgBouncer {
    /// Starts one that opens at most `servers` connections to `postgres`, with more lines for its `[pgbouncer]`.
    pub async fn start(postgres: &Postgres, servers: u32, more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sg-pgbouncer-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (root, port) = (dir.path().display(), free_port());
        let config = format!(
            "[databases]\npostgres = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {root}/users\nadmin_users = app\npool_mode = transaction\n\
             default_pool_size = {servers}\nmax_client_conn = 500\n{more}\n",
            postgres.port
        );
        fs::write(dir.path().join("pgbouncer.ini"), config).unwrap();
        fs::write(dir.path().join("users"), format!("\"app\" \"{PASSWORD}\"\n")).unwrap();
        let process = serve(&dir);
        let bouncer = Self { process, dir, port };
        bouncer.ready().await;
        bouncer
    }

    /// Ends at once by SIGTERM, or by SIGINT when the transactions under way are over, and starts again on the same port.
    pub async fn restart(&mut self, signal: &str) {
        self.process.signal(signal);
        let process = &mut self.process.0;
        let ended = tokio::task::block_in_place(|| process.wait());
        assert!(ended.is_ok(), "{ended:?}");
        self.process = serve(&self.dir);
        self.ready().await;
    }

    /// Connections that clients have to it, by its own count.
    pub async fn clients(&self) -> usize {
        let admin = self.connect("pgbouncer").await.expect("its console");
        let rows = admin.simple_query("show clients").await.unwrap();
        let of_a_client = |row: &&SimpleQueryMessage| match row {
            SimpleQueryMessage::Row(row) => row.get("database") == Some("postgres"),
            _ => false,
        };
        rows.iter().filter(of_a_client).count()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    async fn ready(&self) {
        eventually("pgbouncer accepts", || async { self.connect("pgbouncer").await.is_ok() }, |ready| *ready).await;
    }

    async fn connect(&self, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("app").password(PASSWORD).dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// It will not run as root.
fn serve(dir: &TempDir) -> Process {
    let mut command = mortal(&binary(), Some("postgres"));
    command.arg(dir.path().join("pgbouncer.ini"));
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.path().join("log")).unwrap();
    Process(command.stdout(Stdio::null()).stderr(log).spawn().expect("pgbouncer starts"))
}

/// Debian has it where a user's shell does not look.
fn binary() -> String {
    let found = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"].into_iter().find(|path| {
        Command::new(path).arg("--version").stdout(Stdio::null()).status().is_ok_and(|done| done.success())
    });
    found.expect("pgbouncer is installed: run `make setup-test`").to_owned()
}
