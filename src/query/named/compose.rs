//! From what a caller asks for to what the database is given.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Entry, Place, Who, cache::Key};
use crate::{
    backend::{Batch, Param, Statement, Work},
    config::model::Claims,
    query::{
        Allowed,
        problem::Problem,
        request::{Ask, Wish},
        stream::Bounds,
    },
};

/// How much later than the database the gateway gives a named query up: the database can say more.
const LATER: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Debug)]
pub(in crate::query) struct Job {
    pub(super) work: Work,
    /// Longest that it may take, waiting included.
    timeout: Option<Duration>,
    /// What it counts for in limits, beyond the one that every request counts for.
    pub(super) more: u32,
    /// The one named query that it is.
    pub(super) named: Option<Single>,
}

/// A named query by itself.
#[derive(Debug)]
pub(super) struct Single {
    pub(super) entry: Arc<Entry>,
    /// Whether its answer is nobody else's business.
    pub(super) private: bool,
    /// Where its answer is kept.
    pub(super) key: Option<Key>,
}

impl Job {
    /// When its answer must be whole, of a request that must be answered at `deadline`.
    pub(in crate::query) fn ends(&self, deadline: Instant, now: Instant) -> Instant {
        self.timeout.map_or(deadline, |timeout| deadline.min(now + timeout))
    }
}

/// Under which role and with which claims statements run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Guise<'a> {
    role: Option<&'a str>,
    claims: Option<String>,
}

/// Composes. `form`: a number for the shape of the answer.
///
/// # Errors
/// 403, SQL of the caller's own that is not let through; 404, no such query; 400, parameters that do not fit, or queries that
/// cannot be in one transaction.
pub(in crate::query) fn compose(
    wish: Wish,
    form: u8,
    allowed: &Allowed<'_>,
    place: &Place,
    who: &Who<'_>,
) -> Result<Job, Problem> {
    let mut looked_up = Vec::with_capacity(wish.asks.len());
    for ask in wish.asks {
        looked_up.push(look_up(ask, allowed, place)?);
    }
    let read_only = wish.read_only || allowed.read_only;
    if !wish.batch
        && let [(entry, _)] = looked_up.as_slice()
        && let Some(entry) = entry.clone()
    {
        let statement = looked_up.remove(0).1;
        return Ok(single(entry, statement, form, read_only, allowed, place, who));
    }
    let entries = || looked_up.iter().filter_map(|(entry, _)| entry.as_ref());
    let guise = shared_guise(&looked_up, who)?;
    let local = |timeout| local(&guise, timeout, place.postgres);
    let all_read = !looked_up.is_empty() && looked_up.iter().all(|(entry, _)| is_read(entry.as_ref()));
    let cost: u32 = entries().fold(0, |cost, entry| cost.saturating_add(entry.settings.cost));
    let timeouts: Option<Vec<Duration>> =
        looked_up.iter().map(|(entry, _)| Some(entry.as_ref()?.settings.timeout?.0)).collect();
    let timeouts = timeouts.filter(|timeouts| !timeouts.is_empty());
    let longest = timeouts.iter().flatten().max().copied();
    let timeout = timeouts.map(|timeouts| timeouts.iter().sum::<Duration>() + LATER);
    let settings = local(longest);
    let statements: Vec<Statement> = looked_up.into_iter().map(|(_, statement)| statement).collect();
    let work = if wish.batch {
        Work::Batch(Batch {
            statements,
            isolation: wish.isolation,
            read_only: read_only || all_read,
            settings,
            ..Batch::default()
        })
    } else {
        let statement = statements.into_iter().next().ok_or_else(|| Problem::bad_request("nothing is asked"))?;
        if read_only { Work::Read(statement) } else { Work::Single(statement) }
    };
    Ok(Job { work, timeout, more: cost.saturating_sub(1), named: None })
}

fn look_up(ask: Ask, allowed: &Allowed<'_>, place: &Place) -> Result<(Option<Arc<Entry>>, Statement), Problem> {
    match ask {
        Ask::Sql(statement) => {
            allowed.sql(&statement.sql)?;
            Ok((None, statement))
        }
        Ask::Name(name, params) => {
            let served = allowed.settings.named.has(&name);
            let entry = place.catalogue.get(&name).filter(|_| served);
            let shown: String = name.chars().take(64).collect();
            let entry = entry.ok_or_else(|| {
                Problem::new(StatusCode::NOT_FOUND, "No such query", format!("there is no query `{shown}` here"))
            })?;
            let params = params.bind(entry)?;
            Ok((Some(entry.clone()), Statement { sql: entry.settings.sql.clone(), params }))
        }
    }
}

fn is_read(entry: Option<&Arc<Entry>>) -> bool {
    entry.is_some_and(|entry| entry.settings.read_only)
}

// === one ===

fn single(
    entry: Arc<Entry>,
    statement: Statement,
    form: u8,
    read_only: bool,
    allowed: &Allowed<'_>,
    place: &Place,
    who: &Who<'_>,
) -> Job {
    let named = &entry.settings;
    let guise = guise(&entry, who);
    let timeout = named.timeout.map(|timeout| timeout.0);
    let key = named.keeps().then(|| key(&entry, &statement.params, form, &guise, allowed.bounds, place, who));
    let (settings, cost) = (local(&guise, timeout, place.postgres), named.cost);
    let read_only = read_only || named.read_only;
    let private = !place.open || guise.claims.is_some();
    let work = match (settings.is_empty(), read_only) {
        (true, true) => Work::Read(statement),
        (true, false) => Work::Single(statement),
        (false, _) => {
            Work::Batch(Batch { statements: vec![statement], read_only, settings, single: true, ..Batch::default() })
        }
    };
    let timeout = timeout.map(|timeout| timeout + LATER);
    Job { work, timeout, more: cost - 1, named: Some(Single { entry, private, key }) }
}

/// What an answer is kept by. Each part stands with its length, so that no two questions have one key.
fn key(
    entry: &Entry,
    params: &[Param],
    form: u8,
    guise: &Guise<'_>,
    bounds: Bounds,
    place: &Place,
    who: &Who<'_>,
) -> Key {
    let mut digest = Sha256::new();
    let mut part = |kind: u8, bytes: &[u8]| {
        digest.update([kind]);
        digest.update(bytes.len().to_be_bytes());
        digest.update(bytes);
    };
    part(0, &entry.id.to_be_bytes());
    part(1, &[form]);
    part(2, place.pool.as_bytes());
    part(3, who.database.unwrap_or_default().as_bytes());
    part(15, who.role.unwrap_or_default().as_bytes());
    // What is cut short for one is not for another.
    part(13, &bounds.rows.to_be_bytes());
    part(14, &bounds.bytes.to_be_bytes());
    part(4, guise.role.unwrap_or_default().as_bytes());
    if guise.claims.is_some() || place.per_caller {
        part(5, who.consumer.unwrap_or_default().as_bytes());
        part(6, guise.claims.as_deref().unwrap_or_default().as_bytes());
    }
    for param in params {
        match param {
            Param::Null => part(7, &[]),
            Param::Bool(truth) => part(8, &[u8::from(*truth)]),
            Param::Number(number) => part(9, number.to_string().as_bytes()),
            Param::Text(text) => part(10, text.as_bytes()),
            Param::Array(json) => part(11, json.as_bytes()),
            Param::Object(json) => part(12, json.as_bytes()),
        }
    }
    Key(digest.finalize().into())
}

// === several ===

/// All of a transaction run as one: what one is allowed to do, another's SQL in it could do as well.
fn shared_guise<'a>(looked_up: &'a [(Option<Arc<Entry>>, Statement)], who: &Who<'_>) -> Result<Guise<'a>, Problem> {
    let mut guises = looked_up.iter().map(|(entry, _)| match entry {
        Some(entry) => (Some(&entry.name), guise(entry, who)),
        None => (None, Guise::default()),
    });
    let Some((first, guise)) = guises.next() else { return Ok(Guise::default()) };
    match guises.find(|(_, other)| *other != guise) {
        None => Ok(guise),
        Some((other, _)) => {
            let told = |name: Option<&Arc<str>>| name.map_or("SQL".to_owned(), |name| format!("`{name}`"));
            let detail = format!(
                "{} and {} run under different roles or claims: they cannot be in one batch",
                told(first),
                told(other)
            );
            Err(Problem::bad_request(detail))
        }
    }
}

fn guise<'a>(entry: &'a Entry, who: &Who<'_>) -> Guise<'a> {
    let text = |claims: Option<&Map<String, Value>>| {
        claims.and_then(|claims| serde_json::to_string(claims).ok()).unwrap_or_else(|| "{}".to_owned())
    };
    let claims = match &entry.settings.claims {
        Claims::No => None,
        Claims::All => Some(text(who.claims)),
        Claims::Only(names) => {
            let told = who.claims.into_iter().flatten().filter(|(name, _)| names.contains(*name));
            Some(text(Some(&told.map(|(name, value)| (name.clone(), value.clone())).collect())))
        }
    };
    Guise { role: entry.settings.role.as_deref(), claims }
}

/// What is set for the transaction.
fn local(guise: &Guise<'_>, timeout: Option<Duration>, postgres: bool) -> Vec<(Cow<'static, str>, String)> {
    let mut settings = Vec::new();
    if let Some(timeout) = timeout.filter(|_| postgres) {
        settings.push(("statement_timeout".into(), format!("{}ms", timeout.as_millis().max(1))));
    }
    if let Some(claims) = &guise.claims {
        settings.push(("request.jwt.claims".into(), claims.clone()));
    }
    if let Some(role) = guise.role {
        settings.push(("role".into(), role.to_owned()));
    }
    settings
}
