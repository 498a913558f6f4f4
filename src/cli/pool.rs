//! `sluicegate pool …`: an operator's word to a running gateway, over its admin listener.
//!
//! Where that is, and its token, say the configuration, or `--admin` and `--token-file`.

use std::{
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::ConfigArgs;
use crate::{
    admin,
    config::{self, value::Span},
};

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(100);

/// What to do with pools.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Show every pool in a line.
    List(At),
    /// Show all there is to know of one, as JSON.
    Show(Named),
    /// Show what its statements cost, the heaviest first.
    Statements(Named),
    /// Lend no connection until `resume`: callers wait. What is open stays open.
    Pause(Waiting),
    /// The same, and close every connection; before a restart of the database.
    Drain(Waiting),
    /// Lend connections again.
    Resume(Named),
    /// Replace every connection; those in use when they come back.
    Reconnect(Named),
    /// Change `size.min` or `size.max` until a configuration changes the pool.
    Resize {
        #[command(flatten)]
        named: Named,
        /// Connections kept open at least.
        #[arg(long, required_unless_present = "max")]
        min: Option<u32>,
        /// Connections at most.
        #[arg(long)]
        max: Option<u32>,
    },
    /// Close one connection: now if it is idle, else when it comes back.
    Evict {
        #[command(flatten)]
        named: Named,
        /// Its number, as `show` lists holders.
        connection: u64,
    },
}

/// Which gateway.
#[derive(Args)]
pub(super) struct At {
    #[command(flatten)]
    config: ConfigArgs,
    /// Its admin listener, if not the configuration's: http://127.0.0.1:9901
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// File with its token, if not the configuration's.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Which pool.
#[derive(Args)]
pub(super) struct Named {
    /// The pool's name.
    name: String,
    #[command(flatten)]
    at: At,
}

/// Which pool, and how long to wait for it.
#[derive(Args)]
pub(super) struct Waiting {
    #[command(flatten)]
    named: Named,
    /// Wait so long for connections in use to come back, and fail if they do not.
    #[arg(long, value_name = "DURATION")]
    wait: Option<Span>,
}

/// The admin listener of a running gateway.
struct Gateway {
    agent: ureq::Agent,
    base: String,
    token: String,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(at) => list(&Gateway::at(at)?),
        Command::Show(Named { name, at }) => {
            println!("{:#}", Gateway::at(at)?.pool("GET", &name, "")?);
            Ok(())
        }
        Command::Statements(Named { name, at }) => {
            statements(&Gateway::at(at)?.pool("GET", &name, "")?["statements"]);
            Ok(())
        }
        Command::Pause(waiting) => suspend(waiting, "pause", |pool| number(pool, "in_use")),
        Command::Drain(waiting) => suspend(waiting, "drain", |pool| number(pool, "size") + number(pool, "closing")),
        Command::Resume(named) => tell(named, "POST", "/resume"),
        Command::Reconnect(named) => tell(named, "POST", "/reconnect"),
        Command::Resize { named, min, max } => {
            let bounds = [("min", min), ("max", max)].into_iter();
            let bounds = bounds.filter_map(|(name, bound)| Some(format!("{name}={}", bound?)));
            tell(named, "POST", &format!("/resize?{}", bounds.collect::<Vec<_>>().join("&")))
        }
        Command::Evict { named, connection } => tell(named, "DELETE", &format!("/connections/{connection}")),
    }
}

fn list(gateway: &Gateway) -> anyhow::Result<()> {
    let status = gateway.ask("GET", "/status")?;
    let pools = status["pools"].as_object().context("the gateway tells of no pools")?;
    println!(
        "{:20} {:8} {:>6} {:>6} {:>6} {:>8} {:>6}",
        "POOL", "SERVICE", "IN USE", "IDLE", "LIMIT", "WAITING", "HEALTH"
    );
    for (name, pool) in pools {
        let [in_use, idle, limit, waiters] = ["in_use", "idle", "limit", "waiters"].map(|figure| number(pool, figure));
        let (service, health) = (text(pool, "service"), pool["health"].as_f64().unwrap_or_default());
        println!("{name:20} {service:8} {in_use:>6} {idle:>6} {limit:>6} {waiters:>8} {health:>6.2}");
    }
    Ok(())
}

/// Times in milliseconds.
fn statements(of: &Value) {
    println!(
        "{:>10} {:>12} {:>12} {:>10} {:>10} {:>10} {:>8} {:5}  STATEMENT",
        "CALLS", "ROWS", "TOTAL", "MEAN", "P95", "MAX", "ERRORS", "LAST"
    );
    let line = |row: &Value, text: &str| {
        let [calls, rows, errors] = ["calls", "rows", "errors"].map(|figure| number(row, figure));
        let [total, p95, max] = ["total_ms", "p95_ms", "max_ms"].map(|figure| row[figure].as_f64().unwrap_or_default());
        let (mean, last) = (total / calls.max(1) as f64, row["last_sqlstate"].as_str().unwrap_or_default());
        println!(
            "{calls:>10} {rows:>12} {total:>12.1} {mean:>10.3} {p95:>10.3} {max:>10.3} {errors:>8} {last:5}  {text}"
        );
    };
    for row in of["top"].as_array().into_iter().flatten() {
        line(row, text(row, "fingerprint"));
    }
    if number(&of["other"], "calls") > 0 {
        line(&of["other"], "(all others)");
    }
}

fn tell(Named { name, at }: Named, method: &str, action: &str) -> anyhow::Result<()> {
    say(&Gateway::at(at)?.pool(method, &name, action)?);
    Ok(())
}

/// Suspends a pool and, if asked, waits until `left` of it is nothing.
fn suspend(waiting: Waiting, action: &str, left: impl Fn(&Value) -> u64) -> anyhow::Result<()> {
    let Waiting { named: Named { name, at }, wait } = waiting;
    let gateway = Gateway::at(at)?;
    let mut pool = gateway.pool("POST", &name, &format!("/{action}"))?;
    let Some(Span(wait)) = wait else {
        say(&pool);
        return Ok(());
    };
    let end = Instant::now() + wait;
    while left(&pool) > 0 {
        if Instant::now() >= end {
            say(&pool);
            bail!("connections are still in use; the pool stays as it is: resume it, or wait on");
        }
        sleep(LOOK);
        pool = gateway.pool("GET", &name, "")?;
    }
    say(&pool);
    Ok(())
}

fn say(pool: &Value) {
    let [in_use, idle, limit, waiters] = ["in_use", "idle", "limit", "waiters"].map(|figure| number(pool, figure));
    let (name, service) = (text(pool, "name"), text(pool, "service"));
    println!("{name}: {service}, {in_use} in use, {idle} idle, of {limit}; {waiters} waiting");
    for holder in pool["holders"].as_array().into_iter().flatten() {
        let (connection, route) = (number(holder, "connection"), text(holder, "route"));
        println!("  connection {connection} held by {route} for {} ms", number(holder, "held_ms"));
    }
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_default()
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_default()
}

impl Gateway {
    fn at(At { config, admin, token_file }: At) -> anyhow::Result<Self> {
        let (base, token) = match (admin, token_file) {
            (Some(base), Some(file)) => (base, read(&file)?),
            (admin, file) => {
                let loaded = config::load(&config.into())?;
                let settings = loaded.config.admin.as_ref().context("the configuration has no [admin]")?;
                let token = match file {
                    Some(file) => read(&file)?,
                    None => admin::token(settings, &loaded.config.server.state_dir()).map_err(anyhow::Error::msg)?,
                };
                (admin.unwrap_or_else(|| format!("http://{}", settings.address)), token)
            }
        };
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).proxy(None);
        Ok(Self { agent: agent.build().into(), base: base.trim_end_matches('/').to_owned(), token })
    }

    fn pool(&self, method: &str, name: &str, action: &str) -> anyhow::Result<Value> {
        self.ask(method, &format!("/pools/{name}{action}"))
    }

    /// The answer, or what the gateway says is wrong.
    fn ask(&self, method: &str, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        let request = http::Request::builder().method(method).uri(&url);
        let request = request.header("authorization", format!("Bearer {}", self.token)).body(());
        let request = request.context("the token holds what no token holds: is that the right file?")?;
        let mut answer = self.agent.run(request).with_context(|| format!("no answer from {url}"))?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string()?;
        let body: Value = serde_json::from_str(&text).with_context(|| format!("{url} answered {status}: {text}"))?;
        match body["detail"].as_str() {
            _ if status.is_success() => Ok(body),
            Some(detail) => bail!("{detail}"),
            None => bail!("{url} answered {status}"),
        }
    }
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(text.trim().to_owned())
}
