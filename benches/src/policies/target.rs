//! Who answers a load: the gateway's pool in this process, or a PgBouncer.

use std::{cell::RefCell, pin::Pin, time::Duration};

use anyhow::{Context, Result, anyhow};
use sluicegate::{
    backend::{Cell, Database, Event, Limits, Param, Statement, Work},
    pool::Holder,
};
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls, types::Type};

/// The role that a load comes as, by which the server counts it.
pub const ROLE: &str = "load";

/// What a statement is: it sleeps, since what a database does otherwise would take this machine's cores from what is measured.
/// It answers how long it took, in milliseconds, as the server sees it.
///
/// Beyond a knee it takes longer, for everybody: by the power of one and a half of how far beyond, as statements do that stand
/// in each other's way. So there is most done at the knee, and less the more run at once. Each holds a shared lock while it
/// runs, by which they are counted.
pub const SCHEMA: &str = "
create role load login;
create function work(ms float8, knee int) returns float8 language plpgsql as $$
declare
    running int;
    factor float8 := 1;
begin
    if knee > 0 then
        perform pg_advisory_xact_lock_shared(42);
        select count(*) into running from pg_locks where locktype = 'advisory' and objid = 42;
        factor := greatest(1, (running::float8 / knee) ^ 1.5);
    end if;
    perform pg_sleep(ms * factor / 1000);
    return extract(epoch from clock_timestamp() - statement_timestamp()) * 1000;
end $$;
";

const STATEMENT: &str = "select work($1, $2)";
/// Longest answer, the wait included: nothing takes so long.
const DEADLINE: Duration = Duration::from_secs(20);
/// Connections to PgBouncer that are open from the beginning.
const CLIENTS: usize = 400;

/// What comes of a statement: milliseconds that it took at the server.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<f64>> + 'a>>;

/// One that answers.
pub trait Target {
    /// Runs a statement of so many milliseconds.
    fn run(&self, ms: f64, knee: u32) -> Answer<'_>;
}

/// A PgBouncer's clients: as many as there are statements at a time.
pub struct Through {
    url: String,
    free: RefCell<Vec<Client>>,
}

impl Target for Database {
    fn run(&self, ms: f64, knee: u32) -> Answer<'_> {
        Box::pin(async move {
            let ms = serde_json::Number::from_f64(ms).context("a number of milliseconds")?;
            let params = vec![Param::Number(ms), Param::Number(knee.into())];
            let work = Work::Single(Statement { sql: STATEMENT.to_owned(), params });
            let started = self
                .start(work, Instant::now() + DEADLINE, Holder::default(), Limits { row: 1 << 16, trace: None })
                .await;
            let mut execution = started.map_err(|error| anyhow!("{error}"))?;
            let mut took = None;
            while let Some(event) = execution.next().await.map_err(|error| anyhow!("{error}"))? {
                if let Event::Row(row) = event {
                    row.cells(&mut |cell| {
                        if let Cell::Text(text) = cell {
                            took = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                        }
                    });
                }
            }
            took.context("no number in the answer")
        })
    }
}

impl Through {
    /// Clients of the PgBouncer at `url`.
    pub async fn connect(url: &str) -> Result<Self> {
        let mut free = Vec::new();
        for _ in 0..CLIENTS {
            free.push(client(url).await?);
        }
        Ok(Self { url: url.to_owned(), free: RefCell::new(free) })
    }

    async fn once(&self, ms: f64, knee: u32) -> Result<f64> {
        let client = match self.take() {
            Some(client) => client,
            None => client(&self.url).await?,
        };
        let knee = i32::try_from(knee)?;
        // Unnamed, in one round trip: its version has no prepared statements in transaction mode.
        let row = client.query_typed_one(STATEMENT, &[(&ms, Type::FLOAT8), (&knee, Type::INT4)]).await?;
        self.free.borrow_mut().push(client);
        Ok(row.try_get(0)?)
    }

    /// One that PgBouncer has not sent away.
    fn take(&self) -> Option<Client> {
        let mut free = self.free.borrow_mut();
        free.retain(|client| !client.is_closed());
        free.pop()
    }
}

impl Target for Through {
    fn run(&self, ms: f64, knee: u32) -> Answer<'_> {
        Box::pin(async move { timeout(DEADLINE, self.once(ms, knee)).await? })
    }
}

async fn client(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
