//! A primary-key lookup over HTTPS: CPU of the gateway per query beside what people write today (Node, fastify, pg), on the
//! same PostgreSQL with the same pool size.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    figures::verdict,
    peers::{Workshop, binary, words},
    process::{Server, installed, load, number_after, number_before},
    server::Postgres,
};

const POSTGRES: u16 = 18_470;
const GATEWAY: u16 = 18_471;
const NODE: u16 = 18_472;
const POOL: u32 = 16;
const ROUNDS: usize = 3;

const APPLICATION: &str = r"
import Fastify from 'fastify'; import pg from 'pg'; import fs from 'fs';
const pool = new pg.Pool({ host: '127.0.0.1', port: +process.env.PGPORT, user: 'postgres', database: 'postgres', max: +process.env.POOL });
const app = Fastify({ logger: { stream: fs.createWriteStream('/dev/null') }, https: { cert: fs.readFileSync(process.env.CERT), key: fs.readFileSync(process.env.KEY) } });
app.post('/query', async (request) => {
  const result = await pool.query({ name: 'a', text: request.body.sql, values: request.body.params, rowMode: 'array' });
  return { columns: result.fields.map((field) => field.name), rows: result.rows, row_count: result.rowCount };
});
app.listen({ port: +process.env.PORT, host: '127.0.0.1' });
";

const LOOKUP: &str = r#"wrk.method = "POST"; wrk.headers["Content-Type"] = "application/json"
request = function() return wrk.format(nil, nil, nil, '{"sql":"SELECT abalance FROM pgbench_accounts WHERE aid = $1","params":[' .. math.random(1000000) .. ']}') end
"#;

pub fn run(seconds: u32) -> Result<()> {
    let at = Workshop::new()?;
    // Where the load is: the measured core is the gateway's alone.
    let Some(postgres) = Postgres::start(&at, POSTGRES, crate::LOAD_CORE, &[])? else {
        println!("\nPostgreSQL is not installed: no query figures");
        return Ok(());
    };
    postgres.fill(10)?;
    fs::write(at.path("lookup.lua"), LOOKUP)?;
    println!(
        "\n## Queries: CPU microseconds per primary-key lookup over HTTPS, 64 connections, {POOL} to the database\n"
    );
    let gateway = gateway(&at)?;
    let node = node(&at)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(measure(&at, &gateway, "sluicegate", GATEWAY, round, seconds)?);
        if let Some(node) = &node {
            theirs.push(measure(&at, node, "fastify+pg", NODE, round, seconds)?);
        }
    }
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    match theirs.get(ROUNDS / 2) {
        Some(theirs) => println!("\nCPU per lookup, of fastify+pg: {}", verdict(ours[ROUNDS / 2] / theirs, 0.4)),
        None => println!("\nnpm is not installed: nothing to compare with"),
    }
    Ok(())
}

fn measure(at: &Workshop, server: &Server, name: &str, port: u16, round: usize, seconds: u32) -> Result<f64> {
    let script = at.path("lookup.lua").display().to_string();
    let url = format!("https://localhost:{port}/query");
    let of = |seconds: u32| words(&["wrk", "-t1", "-c64", &format!("-d{seconds}s"), "--latency", "-s", &script, &url]);
    load(&of(1))?;
    let before = server.cpu();
    let text = load(&of(seconds))?;
    let spent = server.cpu() - before;
    let bad = number_after(&text, "Non-2xx or 3xx responses:").unwrap_or(0.0);
    ensure!(bad == 0.0, "{bad} answers of {name} were not 200");
    let count = number_before(&text, " requests in").with_context(|| text.clone())?;
    let cost = spent / count * 1e6;
    let rate = number_after(&text, "Requests/sec:").unwrap_or(0.0);
    println!("round {round} {name:10} {rate:9.0} queries/s {cost:8.1} us/query");
    Ok(cost)
}

fn gateway(at: &Workshop) -> Result<Server> {
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
access = "open"
limits = ["never"]
"#
    );
    fs::write(at.path("query.toml"), conf)?;
    let command = words(&[&binary(), "serve", "--config", &format!("{root}/query.toml")]);
    Server::start(&command, crate::MEASURED_CORE, &at.path("query.log"), GATEWAY, &[])
}

/// Node with its packages, kept for the next run; none without npm.
fn node(at: &Workshop) -> Result<Option<Server>> {
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
