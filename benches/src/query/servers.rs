//! What answers: the gateway, what people write today (Node, fastify, pg), and a PgBouncer, each with one core and the same pool.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use crate::{
    peers::{Workshop, binary, words},
    process::{Server, installed},
    server::{Bouncing, Postgres, bouncer},
};

/// Where the database listens.
pub const POSTGRES: u16 = 18_470;
/// Where the others do.
pub const GATEWAY: u16 = 18_471;
pub const NODE: u16 = 18_472;
pub const BOUNCER: u16 = 18_473;
/// Connections to the database, of each.
pub const POOL: u32 = 16;

const APPLICATION: &str = r"
import Fastify from 'fastify'; import pg from 'pg'; import fs from 'fs';
const pool = new pg.Pool({ host: '127.0.0.1', port: +process.env.PGPORT, user: 'postgres', database: 'postgres', max: +process.env.POOL });
const app = Fastify({ logger: { stream: fs.createWriteStream('/dev/null') }, https: { cert: fs.readFileSync(process.env.CERT), key: fs.readFileSync(process.env.KEY) } });
app.post('/query', async (request) => {
  const result = await pool.query({ name: request.body.sql.slice(0, 60), text: request.body.sql, values: request.body.params, rowMode: 'array' });
  return { columns: result.fields.map((field) => field.name), rows: result.rows, row_count: result.rowCount };
});
app.listen({ port: +process.env.PORT, host: '127.0.0.1' });
";

/// A PgBouncer in front of the same database; none if it is not installed.
pub fn pgbouncer(at: &Workshop, postgres: &Postgres) -> Result<Option<Server>> {
    bouncer(at, BOUNCER, crate::MEASURED_CORE, postgres, Bouncing { size: POOL, reserve: 0, wait_s: 30 })
}

/// The gateway.
pub fn gateway(at: &Workshop) -> Result<Server> {
    let root = at.root();
    let conf = format!(
        r#"
[server]
workers = 1
state = "{root}/state"
[overload]
cpu = 0
[log]
filter = "warn"
access = "{root}/query.access"
[listener.public]
address = "127.0.0.1:{GATEWAY}"
tls = [{{ certificate = "{root}/cert.pem", key = "{root}/key.pem" }}]
[pool.bench]
backend = "postgres"
url = "postgres://postgres@127.0.0.1:{POSTGRES}/postgres"
size = {{ min = {POOL}, max = {POOL} }}
[limit.never]
key = "client-address"
rate = "1000000/s"
[[route]]
path = "/query"
query = {{ dialect = "json", pool = "bench" }}
deadline = "60s"
access = "open"
limits = ["never"]
"#
    );
    fs::write(at.path("query.toml"), conf)?;
    let command = words(&[&binary(), "serve", "--config", &format!("{root}/query.toml")]);
    Server::start(&command, crate::MEASURED_CORE, &at.path("query.log"), GATEWAY, &[])
}

/// Node with its packages, kept for the next run; none without npm.
pub fn node(at: &Workshop) -> Result<Option<Server>> {
    if !installed("npm") {
        return Ok(None);
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench-node");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("application.mjs"), APPLICATION)?;
    if !dir.join("node_modules/fastify").exists() {
        let installed =
            Command::new("npm").args(["install", "--silent", "fastify", "pg"]).current_dir(&dir).status()?;
        ensure!(installed.success(), "npm install failed");
    }
    let envs = [
        ("PGPORT", POSTGRES.to_string()),
        ("POOL", POOL.to_string()),
        ("PORT", NODE.to_string()),
        ("CERT", at.path("cert.pem").display().to_string()),
        ("KEY", at.path("key.pem").display().to_string()),
    ];
    let command = words(&["node", &dir.join("application.mjs").display().to_string()]);
    Server::start(&command, crate::MEASURED_CORE, &at.path("node.log"), NODE, &envs).map(Some)
}
