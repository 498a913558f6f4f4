//! The pool beside its peers, figure by figure: what is promised of it, each with its bound, in one run on one machine.
//!
//! (a) to (f) need no database: a backend that does nothing takes its place. The rest runs against a PostgreSQL of its own.
//! PgBouncer is left out where it is not installed.

mod acquire;
mod cap;
mod crowd;
mod idle;
mod lender;
mod nothing;
mod recovery;
mod spike;
mod steady;
mod wire;

use anyhow::Result;
use tokio::{runtime::Builder, task::LocalSet};

use crate::{
    peers::Workshop,
    process::stay_on,
    server::{Bouncing, Postgres, bouncer},
};

const POSTGRES: u16 = 18_474;
const BOUNCER: u16 = 18_475;

/// All of them; `seconds` scales those that take a length of time.
pub fn run(seconds: u32) -> Result<()> {
    println!("\n## The pool beside its peers\n");
    // The database has the other core: where it is must not be chance.
    stay_on(crate::MEASURED_CORE);
    let done = all(seconds);
    stay_on(crate::BOTH_CORES);
    done
}

fn all(seconds: u32) -> Result<()> {
    on_a_thread(async {
        acquire::uncontended(seconds).await?;
        acquire::contended().await?;
        acquire::components(seconds).await?;
        acquire::validation().await?;
        spike::run().await?;
        crowd::crowd().await?;
        crowd::fairness().await
    })?;
    let at = Workshop::new()?;
    let settings = ["max_connections=300", "log_connections=on"];
    let Some(mut postgres) = Postgres::start(&at, POSTGRES, crate::LOAD_CORE, &settings)? else {
        println!("PostgreSQL is not installed: nothing that needs a database");
        return Ok(());
    };
    postgres.fill(10)?;
    let pooling = Bouncing { size: 5, reserve: 0, wait_s: 10 };
    let bouncer = bouncer(&at, BOUNCER, crate::LOAD_CORE, &postgres, pooling)?;
    if bouncer.is_none() {
        println!("PgBouncer is not installed: left out");
    }
    let through = bouncer.as_ref().map(|_| format!("postgres://postgres@127.0.0.1:{BOUNCER}/postgres"));
    let through = through.as_deref();
    on_a_thread(wire::run(&postgres, through, seconds))?;
    steady::run(&at, &postgres, seconds)?;
    on_a_thread(cap::run(&postgres, seconds))?;
    on_a_thread(idle::run(&postgres, through))?;
    on_a_thread(async { recovery::run(&mut postgres, through).await })
}

/// Each part has a runtime of its own, and leaves nothing behind.
fn on_a_thread(part: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, part)
}
