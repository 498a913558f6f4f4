//! The database spoken to in its own protocol: pgbench's lookups, and psql's results.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};

use super::servers::POSTGRES;
use crate::{
    figures::quantile,
    peers::{Workshop, words},
    process::{Server, load, number_after},
};

/// What pgbench measured.
pub struct Direct {
    pub rate: f64,
    pub p99_ms: f64,
    /// CPU microseconds a lookup, of the server between.
    pub cpu: f64,
}

impl Direct {
    /// Lookups of so many clients on `port`.
    pub fn measure(
        at: &Workshop,
        name: &str,
        port: u16,
        clients: u32,
        protocol: &str,
        between: Option<&Server>,
        seconds: u32,
    ) -> Result<Self> {
        let script = at.path("lookup.sql");
        fs::write(&script, "\\set aid random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n")?;
        let log = at.path(&format!("pgbench-{port}"));
        let (port, clients) = (port.to_string(), clients.to_string());
        let command = [
            "pgbench",
            "-n",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-M",
            protocol,
            "-j",
            "1",
            "-c",
            &clients,
            "-T",
            &seconds.to_string(),
            "-l",
            "--log-prefix",
            &log.display().to_string(),
            "-f",
            &script.display().to_string(),
            "postgres",
        ];
        let before = between.map_or(0.0, Server::cpu);
        let text = load(&words(&command))?;
        let spent = between.map_or(0.0, Server::cpu) - before;
        let rate = number_after(&text, "tps =").with_context(|| text.clone())?;
        let count = number_after(&text, "number of transactions actually processed:").with_context(|| text.clone())?;
        let p99_ms = quantile(&latencies(at, &log.display().to_string())?, 0.99) / 1000.0;
        let cpu = spent / count * 1e6;
        println!("        {name:10} {rate:9.0} lookups/s {cpu:9.1} us of CPU each, p99 {p99_ms:7.2} ms");
        Ok(Self { rate, p99_ms, cpu })
    }
}

/// Microseconds of each transaction that pgbench logged: the third word of each line.
fn latencies(at: &Workshop, prefix: &str) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(at.root())? {
        let path = entry?.path();
        if path.display().to_string().starts_with(&format!("{prefix}.")) {
            let text = fs::read_to_string(path)?;
            all.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
        }
    }
    ensure!(!all.is_empty(), "pgbench logged nothing");
    Ok(all)
}

/// Results a second that psql takes on one connection, on the measured core, and throws away.
pub fn psql(at: &Workshop, sql: &str, seconds: u32) -> Result<f64> {
    let many = 100 * seconds as usize;
    let script = at.path("megabyte.sql");
    fs::write(&script, format!("\\o /dev/null\n{}", format!("{sql};\n").repeat(many)))?;
    let run = || -> Result<f64> {
        let begun = Instant::now();
        let done = Command::new("taskset")
            .args(["-c", crate::MEASURED_CORE, "psql", "-XAtq", "-h", "127.0.0.1", "-p", &POSTGRES.to_string()])
            .args(["-U", "postgres", "-f", &script.display().to_string(), "postgres"])
            .status()?;
        ensure!(done.success(), "psql failed");
        Ok(begun.elapsed().as_secs_f64())
    };
    Ok(many as f64 / run()?)
}
