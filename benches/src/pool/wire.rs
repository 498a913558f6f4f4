//! (b) A query through a pool, beside the bare wire client on a connection of its own.

use std::{pin::Pin, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use bb8_postgres::PostgresConnectionManager;
use serde_json::json;
use sluicegate::{
    backend::{Limits, Param, Statement, Work, postgres::Postgres as Backend},
    pool::{Holder, Pool},
};
use tokio::time::{Instant, timeout};
use tokio_postgres::{NoTls, types::Type};

use crate::{
    figures::{quantile, verdict},
    pooled::{Components, database},
    server::Postgres,
};

/// What a pool has if nothing else is said.
pub const TRUSTING: &str = "bypass-window";

const LOOKUP: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
/// Lookups of one in its turn: what disturbs one disturbs all.
const TURN: u32 = 250;
/// Rows that are looked up: so few that all are in the database's memory after a turn or two.
const ROWS: u32 = 100_000;
/// Longest wait of a caller, in all.
const DEADLINE: Duration = Duration::from_secs(2);

/// One that looks a row up.
pub trait Asker {
    /// Looks it up, within two seconds.
    fn ask(&self, aid: i32) -> Pin<Box<dyn Future<Output = Result<()>> + '_>>;
}

/// By its name.
pub type Named = (&'static str, Rc<dyn Asker>);

/// The wire client by itself, with a prepared statement: perhaps to a PgBouncer.
pub struct Bare {
    client: tokio_postgres::Client,
    statement: tokio_postgres::Statement,
}

/// Sluicegate's pool.
pub struct Ours(pub Arc<Pool<Backend>>);

struct Deadpool(deadpool_postgres::Pool);

struct Bb8(bb8::Pool<PostgresConnectionManager<NoTls>>);

struct Sqlx(sqlx::PgPool);

/// A client to PgBouncer that connects again when it has lost its connection.
struct Through {
    url: String,
    client: tokio::sync::Mutex<Option<tokio_postgres::Client>>,
}

impl Bare {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let statement = client.prepare(LOOKUP).await?;
        Ok(Self { client, statement })
    }
}

impl Ours {
    /// A pool of `size` connections, with a native policy of validation.
    pub async fn connect(url: &str, size: u32, validation: &str) -> Result<Self> {
        let keys = json!({ "size": { "min": size, "max": size }, "checkout_timeout": "2s",
            "application_name": format!("sluicegate-{validation}"), "validation": { "native": validation } });
        Ok(Self(Components::none().await?.postgres(url, keys).await?))
    }
}

/// Pools of `size` connections beside ours. Each has its name at the server.
pub async fn others(url: &str, size: u32) -> Result<Vec<Named>> {
    let named = |name: &str| format!("{url}?application_name={name}");
    Ok(vec![
        ("deadpool-postgres", Rc::new(Deadpool(deadpool(&named("deadpool-postgres"), size)?))),
        ("bb8-postgres", Rc::new(Bb8(bb8(&named("bb8-postgres"), size).await?))),
        ("sqlx", Rc::new(Sqlx(sqlx(&named("sqlx"), size).await?))),
    ])
}

/// By way of a PgBouncer at `url`.
pub fn through(url: &str) -> Named {
    let url = format!("{url}?application_name=pgbouncer");
    ("pgbouncer", Rc::new(Through { url, client: tokio::sync::Mutex::default() }))
}

fn deadpool(url: &str, size: u32) -> Result<deadpool_postgres::Pool> {
    let manager = deadpool_postgres::Manager::new(url.parse()?, NoTls);
    let building = deadpool_postgres::Pool::builder(manager).max_size(size as usize);
    let limits = building.wait_timeout(Some(DEADLINE)).create_timeout(Some(DEADLINE)).recycle_timeout(Some(DEADLINE));
    Ok(limits.runtime(deadpool_postgres::Runtime::Tokio1).build()?)
}

async fn bb8(url: &str, size: u32) -> Result<bb8::Pool<PostgresConnectionManager<NoTls>>> {
    let manager = PostgresConnectionManager::new_from_stringlike(url, NoTls)?;
    let building = bb8::Pool::builder().max_size(size).min_idle(size).connection_timeout(DEADLINE);
    Ok(building.build(manager).await?)
}

async fn sqlx(url: &str, size: u32) -> Result<sqlx::PgPool> {
    let options = sqlx::postgres::PgPoolOptions::new().max_connections(size).min_connections(size);
    Ok(options.acquire_timeout(DEADLINE).connect(url).await?)
}

/// p50 and p99 of each, in microseconds.
pub async fn run(postgres: &Postgres, bouncer: Option<&str>, seconds: u32) -> Result<()> {
    let url = postgres.url();
    let mut all: Vec<Named> = vec![("tokio-postgres, alone", Rc::new(Bare::connect(&url).await?))];
    all.push(("sluicegate", Rc::new(Ours::connect(&url, 1, TRUSTING).await?)));
    all.extend(others(&url, 1).await?);
    if let Some(bouncer) = bouncer {
        all.push(("pgbouncer", Rc::new(Bare::connect(bouncer).await?)));
    }
    let mut times = vec![Vec::new(); all.len()];
    for turn in 0..seconds * 12 {
        for place in 0..all.len() {
            // Not always behind the same one, and no rows that another has just had read.
            let at = (place + turn as usize) % all.len();
            let (asker, times) = (&all[at].1, &mut times[at]);
            for lookup in 0..TURN {
                let nth = (turn * all.len() as u32 + at as u32) * TURN + lookup;
                let aid = nth.wrapping_mul(7919) % ROWS + 1;
                let begun = std::time::Instant::now();
                asker.ask(aid as i32).await?;
                let took = begun.elapsed().as_secs_f64() * 1e6;
                // The first of a turn pay for what the others left in the caches.
                if turn > 1 && lookup >= 5 {
                    times.push(took);
                }
            }
        }
    }
    let of: Vec<_> = times.iter().map(|times| (quantile(times, 0.5), quantile(times, 0.99))).collect();
    for ((name, _), (p50, p99)) in all.iter().zip(&of) {
        println!("(b) a lookup: {name:21} p50 {p50:5.1} us, p99 {p99:5.1} us");
    }
    let (bare, ours) = (of[0], of[1]);
    println!(
        "    of the bare client's p50: {}; p99: {}",
        verdict(ours.0 / bare.0, 1.1),
        verdict(ours.1 / bare.1, 1.25)
    );
    Ok(())
}

type Asked<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

impl Asker for Bare {
    fn ask(&self, aid: i32) -> Asked<'_> {
        Box::pin(async move {
            let row = self.client.query_one(&self.statement, &[&aid]).await?;
            row.try_get::<_, i32>(0)?;
            Ok(())
        })
    }
}

impl Asker for Ours {
    fn ask(&self, aid: i32) -> Asked<'_> {
        Box::pin(async move {
            let params = vec![Param::Number(aid.into())];
            let work = Work::Single(Statement { sql: LOOKUP.to_owned(), params });
            let limits = Limits { row: 1 << 20, trace: None };
            let database = database(&self.0);
            let started = database.start(work, Instant::now() + DEADLINE, Holder::default(), limits).await;
            let mut execution = started.map_err(|error| anyhow!("{error}"))?;
            while execution.next().await.map_err(|error| anyhow!("{error}"))?.is_some() {}
            Ok(())
        })
    }
}

impl Asker for Deadpool {
    fn ask(&self, aid: i32) -> Asked<'_> {
        Box::pin(async move {
            let client = self.0.get().await?;
            let statement = client.prepare_cached(LOOKUP).await?;
            let row = timeout(DEADLINE, client.query_one(&statement, &[&aid])).await??;
            row.try_get::<_, i32>(0)?;
            Ok(())
        })
    }
}

impl Asker for Bb8 {
    fn ask(&self, aid: i32) -> Asked<'_> {
        Box::pin(async move {
            let client = self.0.get().await.map_err(|error| anyhow!("{error}"))?;
            // It keeps no statements: parsed each time, as its users do.
            let row = timeout(DEADLINE, client.query_typed_one(LOOKUP, &[(&aid, Type::INT4)])).await??;
            row.try_get::<_, i32>(0)?;
            Ok(())
        })
    }
}

impl Asker for Sqlx {
    fn ask(&self, aid: i32) -> Asked<'_> {
        Box::pin(async move {
            let query = sqlx::query_scalar::<_, i32>(LOOKUP).bind(aid).fetch_one(&self.0);
            timeout(DEADLINE, query).await??;
            Ok(())
        })
    }
}

impl Asker for Through {
    fn ask(&self, aid: i32) -> Asked<'_> {
        Box::pin(async move { timeout(DEADLINE, self.once(aid)).await.context("took two seconds")? })
    }
}

impl Through {
    async fn once(&self, aid: i32) -> Result<()> {
        let mut client = self.client.lock().await;
        if client.as_ref().is_none_or(tokio_postgres::Client::is_closed) {
            let (fresh, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
            tokio::spawn(connection);
            *client = Some(fresh);
        }
        let Some(client) = client.as_ref() else { return Ok(()) };
        client.query_typed_one(LOOKUP, &[(&aid, Type::INT4)]).await?;
        Ok(())
    }
}
