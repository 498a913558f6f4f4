//! `sluicegate bench pool|compare`: which size and which policy a pool should have, tried on the real database.
//!
//! `pool` drives one pool of a configuration in this process, with its policies, and without a listener or HTTP.
//! Clients on as many threads as a gateway would have take a connection, run a statement, read it to its end, think,
//! and again. Each waits for its answer before it asks anew, so a database that slows down is asked less: latency says
//! what these clients met, not what a crowd that keeps coming would. What came of it is a report in JSON. `compare`
//! draws reports side by side on one page of HTML that needs nothing but itself.
//!
//! **When things go wrong.** A pool that is not there, and a database that gives no connection or refuses the reading
//! statement, end it before there is any load. Later failures are counted by class. Ctrl-C ends the load early, and
//! there is a report still; once more, and what still runs is cut.
//!
//! **What it leaves out**: logs (the report counts what they would tell), load at a given rate, several pools at a
//! time.
//!
//! From the bottom up: `plan` (what to run), `tally`, `sample` (what is measured), `progress`, `load` (running it),
//! `report`; `plot`, `page`, `compare`.

mod compare;
mod load;
mod page;
mod plan;
mod plot;
mod progress;
mod report;
mod sample;
mod tally;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};

use self::{
    plan::{Bounds, Plan},
    report::Report,
};
use super::ConfigArgs;
use crate::gateway;

/// What to measure, or what to do with it.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Put a pool of the configuration under load, against its database, and save a report.
    Pool(Pool),
    /// Draw reports side by side, as one page of HTML.
    Compare {
        /// Reports of `bench pool`.
        #[arg(required = true, value_name = "REPORT", num_args = 1..=compare::MOST)]
        reports: Vec<PathBuf>,
        /// Where to write the page.
        #[arg(long, short, value_name = "FILE", default_value = "report.html")]
        output: PathBuf,
    },
}

/// Which pool, and how.
#[derive(Args)]
pub(super) struct Pool {
    /// The pool's name.
    name: String,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    plan: Plan,
    /// Other bounds than the configuration's.
    #[arg(long, value_name = "MIN..MAX")]
    size: Option<Bounds>,
    /// Where to save the report.
    #[arg(long, short, value_name = "FILE", default_value = "report.json")]
    output: PathBuf,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    let done = match command {
        Command::Pool(pool) => measure(pool),
        Command::Compare { reports, output } => {
            compare::run(&reports, &output).inspect(|()| println!("{}", output.display()))
        }
    };
    // What was done is no use without why it failed.
    done.map_err(|error| anyhow::anyhow!("{error:#}"))
}

fn measure(Pool { name, config, plan, size, output }: Pool) -> anyhow::Result<()> {
    // Found now, not after an hour.
    let into = output.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    ensure!(into.is_dir() && !output.is_dir(), "cannot write {}: is that a file in a directory?", output.display());
    let size = size.map(|Bounds(size)| size);
    let report = gateway::with_pool(&config.into(), &name, size, async |pool| {
        let outcome = load::run(pool, &plan).await?;
        anyhow::Ok(Report::of(pool, plan.clone(), outcome))
    })??;
    println!("{}", report.summary());
    std::fs::write(&output, serde_json::to_vec(&report)?).with_context(|| output.display().to_string())?;
    println!("{}", output.display());
    Ok(())
}
