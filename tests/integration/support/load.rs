//! Load on many connections at a time, in which every failed request and every broken connection counts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use serde_json::json;
use tokio::task::JoinSet;

use super::{client::Client, gateway::Gateway};

/// Load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    tasks: JoinSet<Vec<String>>,
}

/// What became of it.
#[derive(Debug)]
pub struct Report {
    /// Requests answered as they should be.
    pub requests: u64,
    /// What went wrong, one text each.
    pub failures: Vec<String>,
}

impl Load {
    /// `connections` connections, half of them HTTP/2 with two requests at a time, asking for a query at `/query`
    /// (`select $1::int`) one time in four, and for the proxied `/files/1k` else.
    pub async fn start(gateway: &Gateway, connections: usize) -> Self {
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for index in 0..connections {
            let client = if index % 2 == 0 { gateway.h1().await } else { gateway.h2().await };
            for _ in 0..=(index % 2) {
                tasks.spawn(ask(client.share(), index, stop.clone(), requests.clone()));
            }
        }
        Self { stop, requests, tasks }
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Waits until `more` requests were answered from now on.
    pub async fn advance(&self, more: u64) {
        let target = self.requests() + more;
        super::eventually("the load goes on", || async { self.requests() }, |now| *now >= target).await;
    }

    /// Stops it and reports.
    pub async fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(done) = self.tasks.join_next().await {
            failures.extend(done.unwrap());
        }
        Report { requests: self.requests.load(Ordering::Relaxed), failures }
    }
}

async fn ask(mut client: Client, index: usize, stop: Arc<AtomicBool>, requests: Arc<AtomicU64>) -> Vec<String> {
    let mut failures = Vec::new();
    let mut number = index as u64;
    while !stop.load(Ordering::Relaxed) && failures.len() < 5 {
        number += 1;
        let failure = if number.is_multiple_of(4) { query(&mut client, number).await } else { file(&mut client).await };
        match failure {
            None => drop(requests.fetch_add(1, Ordering::Relaxed)),
            Some(text) => failures.push(format!("connection {index}: {text}")),
        }
    }
    failures
}

async fn query(client: &mut Client, number: u64) -> Option<String> {
    match client.query("select $1::int as n", json!([number])).await {
        Ok(answer) if answer.status == 200 && answer.json()["rows"] == json!([[number]]) => None,
        Ok(answer) => Some(format!("query: {} {}", answer.status, answer.text())),
        Err(error) => Some(format!("query: {error:#}")),
    }
}

async fn file(client: &mut Client) -> Option<String> {
    match client.get("/files/1k").await {
        Ok(answer) if answer.status == 200 && answer.body.len() == 1024 => None,
        Ok(answer) => Some(format!("file: {} {}", answer.status, answer.text())),
        Err(error) => Some(format!("file: {error:#}")),
    }
}
