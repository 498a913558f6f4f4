//! What is told of work: figures of its statements, and a line in the log if it was slow.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    BackendError, Event, Param, Work,
    figures::{Figures, Ran, StatementsStatus},
    fingerprint,
    throttle::Throttle,
};
use crate::{config::model, pool::UseError};

/// Longest text of a statement, and longest list of parameters, that the log is told.
const LONGEST: usize = 4 << 10;

/// Which work is slow, and what the log is told of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slow {
    /// Work that takes longer; zero: none.
    pub over: Duration,
    /// With its texts as they came, literals and all.
    pub literals: bool,
    /// With its parameters.
    pub parameters: bool,
}

impl From<&model::Pool> for Slow {
    fn from(pool: &model::Pool) -> Self {
        Self { over: pool.slow_query.0, literals: pool.log_literals, parameters: pool.log_parameters }
    }
}

impl From<Duration> for Slow {
    fn from(over: Duration) -> Self {
        Self { over, ..Self::default() }
    }
}

/// What is known of the statements of one pool. It stays as long as its pool.
pub(super) struct Notebook {
    figures: Figures,
    slow: Mutex<Throttle>,
}

impl Notebook {
    pub(super) fn new(statements: usize) -> Self {
        Self { figures: Figures::new(statements), slow: Mutex::default() }
    }

    /// How many statements it tells apart.
    pub(super) fn capacity(&self) -> usize {
        self.figures.capacity()
    }

    /// Tells so many apart from now on.
    pub(super) fn resize(&self, statements: usize) {
        self.figures.resize(statements);
    }

    pub(super) fn status(&self) -> StatementsStatus {
        self.figures.status()
    }
}

/// Watches work to its end.
pub(super) struct Watch {
    pub(super) pool: Arc<str>,
    pub(super) route: Arc<str>,
    pub(super) consumer: Option<Arc<str>>,
    pub(super) work: Arc<Work>,
    pub(super) slow: Slow,
    pub(super) begun: Instant,
    pub(super) end: Option<&'static str>,
    /// What the connection is told of.
    pub(super) blame: Option<UseError>,
    pub(super) tally: Tally,
}

/// What the work has come to so far.
#[derive(Default)]
pub(super) struct Tally {
    /// Rows of all statements.
    rows: u64,
    /// Rows given out of the one that runs.
    current: u64,
    completed: usize,
    /// Rows of each that is complete, where there is more than one.
    each: Vec<u64>,
    sqlstate: Option<String>,
}

impl Watch {
    /// Takes note of how a step went.
    pub(super) fn note<T>(&mut self, outcome: Result<T, BackendError>) -> Result<T, BackendError> {
        if let Err(error) = &outcome {
            self.blame = blame(error);
            self.end = Some(match error {
                BackendError::Lost { .. } => "lost",
                BackendError::Timeout => "timeout",
                BackendError::Held => "held",
                _ => "failed",
            });
            if let BackendError::Database(said) | BackendError::ReadOnly(said) = error {
                self.tally.sqlstate.clone_from(&said.sqlstate);
            }
        }
        outcome
    }

    /// Puts down what it came to: the database was waited for as long as `ran`, after a checkout that took `waited`.
    pub(super) fn close(&mut self, notebook: &Notebook, ran: Duration, waited: Duration) {
        self.record(notebook, ran);
        let took = self.begun.elapsed();
        if self.slow.over.is_zero() || took < self.slow.over {
            return;
        }
        let Some(held_back) = notebook.slow.lock().pass(Instant::now()) else { return };
        let statements = self.work.statements();
        let first = statements.first();
        let text = first.filter(|_| self.slow.literals).map(|first| short(&first.sql));
        let params = first.filter(|_| self.slow.parameters).map(|first| shown(&first.params));
        tracing::warn!(
            pool = %self.pool,
            route = %self.route,
            consumer = self.consumer.as_deref(),
            took_ms = millis(took),
            checkout_ms = millis(waited),
            execution_ms = millis(ran),
            rows = self.tally.rows + self.tally.current,
            end = self.end.unwrap_or("abandoned"),
            sqlstate = self.tally.sqlstate,
            statements = statements.len(),
            statement = first.map(|statement| fingerprint(&statement.sql)),
            text,
            params,
            held_back = (held_back > 0).then_some(held_back),
            "slow query",
        );
    }

    /// Replies to a batch come together: its time is shared out among the statements that ran.
    fn record(&mut self, notebook: &Notebook, ran: Duration) {
        let statements = self.work.statements();
        let failed = matches!(self.end, Some("failed" | "lost" | "timeout" | "held"));
        let tally = &self.tally;
        // The one that did not become complete ran, too: it failed, or nobody waited for it.
        let count = (tally.completed + usize::from(self.end != Some("done"))).min(statements.len());
        let time = ran / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        for (index, statement) in statements[..count].iter().enumerate() {
            let complete = index < tally.completed;
            let rows = match tally.each.get(index) {
                Some(rows) => *rows,
                None if complete => tally.rows,
                None => tally.current,
            };
            // What fails when all are complete is the commit, and that is the last one's.
            let failed = failed && (!complete || index + 1 == count);
            let sqlstate = tally.sqlstate.as_deref().filter(|_| failed);
            notebook.figures.record(&statement.sql, Ran { rows, time, failed, sqlstate });
        }
    }
}

impl Tally {
    /// Takes note of a step.
    pub(super) fn event(&mut self, event: &Event<'_>, statements: usize) {
        match event {
            Event::Columns(_) => {}
            Event::Row(_) => self.current += 1,
            Event::Complete { row_count, .. } => {
                let rows = row_count.unwrap_or(self.current);
                self.rows += rows;
                self.current = 0;
                self.completed += 1;
                if statements > 1 {
                    self.each.push(rows);
                }
            }
        }
    }
}

/// What an error says of the connection; nothing if it is the statement's own.
fn blame(error: &BackendError) -> Option<UseError> {
    match error {
        BackendError::Lost { .. } => Some(UseError::Io),
        BackendError::Timeout | BackendError::Held => Some(UseError::Timeout),
        BackendError::ReadOnly(_) => Some(UseError::ReadOnly),
        BackendError::Database(error) => match error.sqlstate.as_deref()? {
            state if state.starts_with("08") || state.starts_with("57P") => Some(UseError::Connection),
            state if state.starts_with("28") => Some(UseError::Authentication),
            _ => None,
        },
        _ => None,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn short(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    text[..end].to_owned() + if end < text.len() { "…" } else { "" }
}

/// Parameters in the log's own words, as a list.
fn shown(params: &[Param]) -> String {
    let mut out = String::from("[");
    for (index, param) in params.iter().enumerate() {
        if out.len() > LONGEST {
            out.push('…');
            break;
        }
        out.push_str(if index == 0 { "" } else { ", " });
        match param {
            Param::Null => out.push_str("null"),
            Param::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Param::Number(number) => out.push_str(&number.to_string()),
            Param::Text(text) => out.push_str(&serde_json::Value::from(short(text)).to_string()),
            Param::Array(text) | Param::Object(text) => out.push_str(&short(text)),
        }
    }
    out.push(']');
    out
}
