//! Proxied requests: CPU of the proxy per request, side by side.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::{
    figures::verdict,
    peers::{Peer, Workshop, words},
    process::{Server, load, number_after, number_before},
};

const WORK: [(&str, &str); 4] = [
    ("h1", "HTTP/1.1, 64 connections, 1 KiB"),
    ("h2", "HTTP/2, 16 connections of 8 streams, 1 KiB"),
    ("new", "a new TLS connection for each request, 1 KiB"),
    ("1m", "HTTP/1.1, 8 connections, 1 MiB"),
];

/// Rounds; the median counts.
const ROUNDS: usize = 3;

pub fn run(seconds: u32) -> Result<()> {
    let at = Workshop::new()?;
    let _origin = at.origin()?;
    let peers = Peer::present();
    let mut costs: BTreeMap<(&str, Peer), Vec<f64>> = BTreeMap::new();
    println!("\n## Proxied requests: CPU microseconds of the proxy per request\n");
    for round in 0..ROUNDS {
        for (index, peer) in peers.iter().enumerate() {
            let port = 18_440 + index as u16;
            let server = peer.start(&at, port)?;
            for (work, _) in WORK {
                measure(&server, work, port, 1)?;
                let (rate, cost) = measure(&server, work, port, seconds)?;
                println!("round {round} {work:4} {:10} {rate:9.0} requests/s {cost:8.1} us/request", peer.name());
                costs.entry((work, *peer)).or_default().push(cost);
            }
        }
    }
    summary(&peers, &costs);
    Ok(())
}

/// Requests a second, and CPU microseconds a request.
fn measure(server: &Server, work: &str, port: u16, seconds: u32) -> Result<(f64, f64)> {
    let duration = format!("-d{seconds}s");
    let small = format!("https://localhost:{port}/1k");
    let large = format!("https://localhost:{port}/1m");
    let command = match work {
        "h1" => words(&["wrk", "-t1", "-c64", &duration, &small]),
        "h2" => words(&["h2load", "-t1", "-c16", "-m8", &format!("-D{seconds}"), &small]),
        "new" => words(&["wrk", "-t1", "-c32", &duration, "-H", "Connection: close", &small]),
        _ => words(&["wrk", "-t1", "-c8", &duration, &large]),
    };
    let before = server.cpu();
    let text = load(&command)?;
    let spent = server.cpu() - before;
    let (count, rate) = if work == "h2" {
        (number_before(&text, " succeeded"), number_before(&text, " req/s"))
    } else {
        (number_before(&text, " requests in"), number_after(&text, "Requests/sec:"))
    };
    let bad = number_after(&text, "Non-2xx or 3xx responses:").unwrap_or(0.0);
    anyhow::ensure!(bad == 0.0, "{bad} answers were not 200");
    let count = count.filter(|count| *count > 0.0).with_context(|| format!("no figures in: {text}"))?;
    Ok((rate.unwrap_or(0.0), spent / count * 1e6))
}

fn summary(peers: &[Peer], costs: &BTreeMap<(&str, Peer), Vec<f64>>) {
    println!("\n| work | {} | of nginx | of the best peer |", names(peers));
    println!("|---|{}---|---|", "---|".repeat(peers.len()));
    for (work, what) in WORK {
        let cost = |peer: Peer| costs.get(&(work, peer)).map(|all| median(all));
        let cells: Vec<String> =
            peers.iter().map(|peer| cost(*peer).map_or("-".into(), |cost| format!("{cost:.1}"))).collect();
        let ours = cost(Peer::Sluicegate).unwrap_or(f64::NAN);
        let best = peers
            .iter()
            .filter(|peer| **peer != Peer::Sluicegate)
            .filter_map(|peer| cost(*peer))
            .fold(f64::INFINITY, f64::min);
        let of_nginx = cost(Peer::Nginx).map_or("-".into(), |nginx| verdict(ours / nginx, 1.0));
        let of_best = if work == "h2" { verdict(ours / best, 1.25) } else { format!("{:.2}", ours / best) };
        println!("| {what} | {} | {of_nginx} | {of_best} |", cells.join(" | "));
    }
}

fn names(peers: &[Peer]) -> String {
    peers.iter().map(|peer| peer.name()).collect::<Vec<_>>().join(" | ")
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
