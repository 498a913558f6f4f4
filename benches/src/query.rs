//! Queries over HTTPS: CPU, throughput and p99 of a primary-key lookup, beside what people write today and beside the database
//! spoken to without HTTP; answers of 1,000 rows and of 1 MB; and what compression costs.

mod coding;
mod direct;
mod servers;

use std::fs;

use anyhow::{Context, Result, ensure};

use self::{
    direct::{Direct, psql},
    servers::{BOUNCER, GATEWAY, NODE, POOL, POSTGRES, gateway, node, pgbouncer},
};
use crate::{
    figures::{at_least, median, verdict},
    peers::{Workshop, words},
    process::{Server, load, number_after, number_before},
    server::Postgres,
};

const ROUNDS: usize = 3;
const CLIENTS: u32 = 64;

/// Of 1,000 rows and some 100 KB.
const ROWS: &str =
    "select n, 'row ' || n as name, n * 1.5 as price, now() as at, n % 2 = 0 as even from generate_series(1, 1000) n";
/// Of a million bytes and some.
const MEGABYTE: &str = "select n, repeat('abcdefghij', 100) as t from generate_series(1, 1000) n";

/// What a server was measured at.
struct Figures {
    /// CPU microseconds an answer.
    cpu: f64,
    rate: f64,
    p99_ms: f64,
}

pub fn run(seconds: u32) -> Result<()> {
    coding::run()?;
    let at = Workshop::new()?;
    // Where the load is: the measured core is the gateway's alone.
    let Some(postgres) = Postgres::start(&at, POSTGRES, crate::LOAD_CORE, &[])? else {
        println!("\nPostgreSQL is not installed: no query figures");
        return Ok(());
    };
    postgres.fill(10)?;
    let (gateway, node) = (gateway(&at)?, node(&at)?);
    let lookup =
        r#"'{"sql":"SELECT abalance FROM pgbench_accounts WHERE aid = $1","params":[' .. math.random(1000000) .. ']}'"#;
    println!("\n## Queries: primary-key lookups over HTTPS, {CLIENTS} clients, {POOL} connections to the database\n");
    let ours = compare(&at, "lookup", lookup, CLIENTS, &gateway, node.as_ref(), seconds)?;
    beside_the_database(&at, &postgres, &ours, seconds)?;
    println!("\n## Queries: answers of 1,000 rows of 5 columns, over HTTPS, {POOL} clients\n");
    compare(&at, "rows", &request(ROWS), POOL, &gateway, node.as_ref(), seconds)?;
    println!("\n## Queries: answers of 1 MB, over HTTPS, one client\n");
    let ours = compare(&at, "megabyte", &request(MEGABYTE), 1, &gateway, node.as_ref(), seconds)?;
    let plain = psql(&at, MEGABYTE, seconds)?;
    println!("psql       {plain:9.0} results/s, without TLS");
    println!("\nThroughput of 1 MB results, of psql's: {}", at_least(ours.rate / plain, 0.7));
    Ok(())
}

/// A statement without parameters as wrk's script has it.
fn request(sql: &str) -> String {
    format!("'{}'", serde_json::json!({ "sql": sql }).to_string().replace('\'', "\\'"))
}

/// The gateway and its peer in turns; prints the ratio of their CPU, and gives the gateway's figures.
fn compare(
    at: &Workshop,
    name: &str,
    body: &str,
    clients: u32,
    gateway: &Server,
    node: Option<&Server>,
    seconds: u32,
) -> Result<Figures> {
    let script = at.path(&format!("{name}.lua"));
    let head = r#"wrk.method = "POST"; wrk.headers["Content-Type"] = "application/json""#;
    fs::write(&script, format!("{head}\nrequest = function() return wrk.format(nil, nil, nil, {body}) end\n"))?;
    let script = script.display().to_string();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(measure(&script, clients, gateway, "sluicegate", GATEWAY, round, seconds)?);
        if let Some(node) = node {
            theirs.push(measure(&script, clients, node, "fastify+pg", NODE, round, seconds)?);
        }
    }
    let middle = |of: &[Figures], figure: fn(&Figures) -> f64| median(&of.iter().map(figure).collect::<Vec<_>>());
    if theirs.is_empty() {
        println!("\nnpm is not installed: nothing to compare with");
    } else {
        let ratio = middle(&ours, |of| of.cpu) / middle(&theirs, |of| of.cpu);
        println!("\nCPU an answer, of fastify+pg: {}; aimed at 0.25", verdict(ratio, 0.4));
        let ratio = middle(&ours, |of| of.rate) / middle(&theirs, |of| of.rate);
        println!("Throughput, of fastify+pg: {ratio:.2}");
    }
    let [cpu, rate, p99_ms] = [middle(&ours, |of| of.cpu), middle(&ours, |of| of.rate), middle(&ours, |of| of.p99_ms)];
    Ok(Figures { cpu, rate, p99_ms })
}

fn measure(
    script: &str,
    clients: u32,
    server: &Server,
    name: &str,
    port: u16,
    round: usize,
    seconds: u32,
) -> Result<Figures> {
    let url = format!("https://localhost:{port}/query");
    let clients = format!("-c{clients}");
    let of = |seconds: u32| words(&["wrk", "-t1", &clients, &format!("-d{seconds}s"), "--latency", "-s", script, &url]);
    load(&of(1))?;
    let before = server.cpu();
    let text = load(&of(seconds))?;
    let spent = server.cpu() - before;
    let bad = number_after(&text, "Non-2xx or 3xx responses:").unwrap_or(0.0);
    ensure!(bad == 0.0, "{bad} answers of {name} were not 200");
    let count = number_before(&text, " requests in").with_context(|| text.clone())?;
    let cpu = spent / count * 1e6;
    let rate = number_after(&text, "Requests/sec:").unwrap_or(0.0);
    let p99_ms = percentile(&text, "99%").with_context(|| text.clone())?;
    println!("round {round} {name:10} {rate:9.0} answers/s {cpu:9.1} us of CPU each, p99 {p99_ms:7.2} ms");
    Ok(Figures { cpu, rate, p99_ms })
}

/// wrk's, in milliseconds.
fn percentile(text: &str, of: &str) -> Option<f64> {
    let rest = &text[text.find("Latency Distribution")?..];
    let word = rest[rest.find(of)? + of.len()..].split_whitespace().next()?;
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let unit = match &word[end..] {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        _ => return None,
    };
    Some(word[..end].parse::<f64>().ok()? * unit)
}

/// The same lookup without HTTP: by pgbench on as many connections, and by as many clients through a PgBouncer.
fn beside_the_database(at: &Workshop, postgres: &Postgres, ours: &Figures, seconds: u32) -> Result<()> {
    let direct = Direct::measure(at, "pgbench", POSTGRES, POOL, "prepared", None, seconds)?;
    println!("\nThroughput, of pgbench's on {POOL} connections of its own: {:.2}", ours.rate / direct.rate);
    println!("p99 {:.2} ms, pgbench's {:.2} ms", ours.p99_ms, direct.p99_ms);
    let Some(bouncer) = pgbouncer(at, postgres)? else {
        println!("PgBouncer is not installed: left out");
        return Ok(());
    };
    // 1.18 has no prepared statements in transaction mode.
    let through = Direct::measure(at, "PgBouncer", BOUNCER, CLIENTS, "extended", Some(&bouncer), seconds)?;
    println!("\nThroughput, of {CLIENTS} clients' through PgBouncer: {:.2}", ours.rate / through.rate);
    println!("CPU a lookup, HTTPS and JSON included, of PgBouncer's: {:.2}", ours.cpu / through.cpu);
    println!("p99 {:.2} ms, through PgBouncer {:.2} ms", ours.p99_ms, through.p99_ms);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let text = "  Latency Distribution\n     50%    1.20ms\n     99%    810.00us\n  12345 requests in 5.00s";
        assert_eq!((percentile(text, "50%"), percentile(text, "99%")), (Some(1.2), Some(0.81)));
        assert_eq!(percentile("no latencies", "99%"), None);
    }
}
