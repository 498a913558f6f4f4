//! From what a caller asks for to what the database is given.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Entry, Place, Who, cache::Key, params};
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
    // The longest holds for each: none sheds its own among others that have none.
    let timeouts = || entries().filter_map(|entry| Some(entry.settings.timeout?.0));
    let longest = timeouts().max();
    let bounded = !looked_up.is_empty() && timeouts().count() == looked_up.len();
    let timeout = bounded.then(|| timeouts().sum::<Duration>() + LATER);
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
            let entry = entry.ok_or_else(|| {
                let shown = params::shown(&name);
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        access::{Grant, Identity},
        backend::Isolation,
        config::model::Query,
        query::{Wanted, named::Catalogue},
    };

    fn place() -> Place {
        let queries = json!({
            "plain": {"sql": "select $1", "params": [{"name": "a", "type": "text", "nullable": true}], "cache": "1s", "read_only": true},
            "other": {"sql": "select $1", "params": [{"name": "a", "type": "text"}], "cache": "1s", "read_only": true},
            "mine": {"sql": "select 1", "claims": ["sub"], "role": "anon", "cache": "1s", "read_only": true, "timeout": "2s"},
            "all": {"sql": "select 2", "claims": true, "cost": 3, "timeout": "1s"},
            "timed": {"sql": "select 3", "timeout": "3s"},
            "write": {"sql": "update t set a = 1", "role": "anon"},
        });
        let queries = serde_json::from_value(queries).unwrap();
        let catalogue = Catalogue::build_after(&queries, &Catalogue::default()).unwrap().into();
        Place { catalogue, postgres: true, ..Place::alone() }
    }

    fn settings(keys: Value) -> Query {
        let mut query = json!({"dialect": "json", "pool": "main", "named": "*"});
        query.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        serde_json::from_value(query).unwrap()
    }

    fn someone(name: &str, grant: Grant, claims: Value) -> Identity {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        let mut identity = Identity::of(name, grant);
        identity.claims = Some(Arc::new(claims));
        identity
    }

    fn grant(named_only: bool, read_only: bool) -> Grant {
        let mut grant = Grant::default();
        (grant.named_only, grant.read_only) = (named_only, read_only);
        grant
    }

    fn asked(body: Value, settings: &Query, place: &Place, identity: Option<&Identity>, form: u8) -> Result<Job, u16> {
        let allowed = Allowed::of(settings, identity, place, Instant::now());
        let wish = crate::query::request::parse(body.to_string().as_bytes(), 100).unwrap();
        let wanted = Wanted::default();
        compose(wish, form, &allowed, place, &Who::of(identity, &wanted)).map_err(|problem| problem.status.as_u16())
    }

    fn job(body: Value, identity: Option<&Identity>) -> Result<Job, u16> {
        asked(body, &settings(json!({})), &place(), identity, 0)
    }

    #[test]
    fn what_is_set_is_what_the_definition_says() {
        let alice = someone("app", Grant::default(), json!({"sub": "alice", "exp": 7}));
        let told = |body: Value| match job(body, Some(&alice)).unwrap().work {
            Work::Batch(Batch { settings, read_only, single, .. }) => {
                let settings = settings.into_iter().map(|(name, value)| format!("{name}={value}"));
                (settings.collect::<Vec<_>>().join(" "), read_only, single)
            }
            other => panic!("{other:?}"),
        };
        let mine = "statement_timeout=2000ms request.jwt.claims={\"sub\":\"alice\"} role=anon";
        assert_eq!(told(json!({"name": "mine"})), (mine.into(), true, true));
        let all = "statement_timeout=1000ms request.jwt.claims={\"exp\":7,\"sub\":\"alice\"}";
        assert_eq!(told(json!({"name": "all"})), (all.into(), false, true));
        assert_eq!(told(json!({"name": "write"})), ("role=anon".into(), false, true));
        assert_eq!(told(json!({"batch": [{"name": "mine"}, {"name": "mine"}]})), (mine.into(), true, false));
        assert!(matches!(job(json!({"name": "plain"}), None).unwrap().work, Work::Read(_)));
        let anyone = job(json!({"name": "mine"}), None).unwrap().work;
        assert!(matches!(anyone, Work::Batch(batch) if batch.settings[1].1 == "{}"), "never what another has set");
    }

    #[test]
    fn a_transaction_is_one_role_and_costs_what_its_queries_do() {
        for batch in [
            json!([{"name": "mine"}, {"name": "all"}]),
            json!([{"name": "write"}, {"sql": "select 1"}]),
            json!([{"sql": "select 1"}, {"name": "mine"}]),
        ] {
            assert_eq!(job(json!({ "batch": batch }), None).unwrap_err(), 400, "{batch}");
        }
        let body = json!({"batch": [{"name": "all"}, {"name": "all"}], "isolation": "serializable"});
        let both = job(body, None).unwrap();
        assert_eq!((both.more, both.timeout), (5, Some(Duration::from_millis(2500))));
        let Work::Batch(batch) = both.work else { panic!("a batch") };
        assert_eq!((batch.isolation, batch.read_only), (Some(Isolation::Serializable), false));
        assert_eq!(batch.settings[0].1, "1000ms");
        let mixed = job(json!({"batch": [{"sql": "select 1"}, {"name": "plain"}]}), None).unwrap();
        assert!(matches!(mixed.work, Work::Batch(batch) if batch.settings.is_empty() && !batch.read_only));
        let some = job(json!({"batch": [{"sql": "select 1"}, {"name": "timed"}, {"name": "plain"}]}), None).unwrap();
        assert_eq!(some.timeout, None);
        assert!(matches!(some.work, Work::Batch(batch) if batch.settings[0].1 == "3000ms"), "it does not shed its own");
        assert_eq!(job(json!({"batch": []}), None).unwrap().more, 0);
    }

    #[test]
    fn sql_of_a_callers_own_passes_where_it_may() {
        let named_only = someone("app", grant(true, false), json!({}));
        let closed = settings(json!({"raw": false}));
        let sql = || json!({"sql": "select 1"});
        assert!(job(sql(), None).is_ok());
        assert_eq!(asked(sql(), &closed, &place(), None, 0).unwrap_err(), 403);
        assert_eq!(job(sql(), Some(&named_only)).unwrap_err(), 403);
        assert_eq!(job(json!({"batch": [{"name": "plain"}, sql()]}), Some(&named_only)).unwrap_err(), 403);
        assert!(job(json!({"name": "plain"}), Some(&named_only)).is_ok());
        let some = settings(json!({"named": ["plain"]}));
        assert!(asked(json!({"name": "plain"}), &some, &place(), None, 0).is_ok());
        assert_eq!(asked(json!({"name": "mine"}), &some, &place(), None, 0).unwrap_err(), 404);
        let reader = someone("app", grant(false, true), json!({}));
        assert!(job(json!({"name": "write"}), Some(&reader)).unwrap().work.is_read_only());
    }

    #[test]
    fn an_answer_is_kept_by_all_that_it_depends_on() {
        let (place, query) = (place(), settings(json!({})));
        let key = |body: &Value, place: &Place, query: &Query, identity: Option<&Identity>, form| {
            asked(body.clone(), query, place, identity, form).unwrap().named.unwrap().key.unwrap()
        };
        let who = |name: &str, claims: Value| someone(name, Grant::default(), claims);
        let (alice, bob) = (who("app", json!({"sub": "alice"})), who("app", json!({"sub": "bob"})));
        let (later, other) = (who("app", json!({"sub": "alice", "exp": 9})), who("other", json!({"sub": "alice"})));
        let plain = json!({"name": "plain", "params": ["x"]});
        let of_plain = key(&plain, &place, &query, Some(&alice), 0);
        assert_eq!(key(&json!({"name": "plain", "params": {"a": "x"}}), &place, &query, Some(&other), 0), of_plain);
        let elsewhere = Place { pool: "other".into(), ..place.clone() };
        let per_caller = Place { per_caller: true, ..place.clone() };
        let bounded = settings(json!({"max_rows": 10}));
        let keys = [
            of_plain,
            key(&plain, &place, &query, None, 1),
            key(&plain, &elsewhere, &query, None, 0),
            key(&plain, &place, &bounded, None, 0),
            key(&plain, &per_caller, &query, Some(&alice), 0),
            key(&plain, &per_caller, &query, Some(&other), 0),
            key(&json!({"name": "plain", "params": [""]}), &place, &query, None, 0),
            key(&json!({"name": "plain", "params": [null]}), &place, &query, None, 0),
            key(&json!({"name": "other", "params": ["x"]}), &place, &query, None, 0),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(one), "{index}");
        }
        let mine = json!({"name": "mine"});
        let of_mine = |identity| key(&mine, &place, &query, identity, 0);
        assert_eq!(of_mine(Some(&later)), of_mine(Some(&alice)), "only the claims that are given count");
        let each = [of_mine(Some(&alice)), of_mine(Some(&bob)), of_mine(Some(&other)), of_mine(None)];
        for (index, one) in each.iter().enumerate() {
            assert!(!each[..index].contains(one), "{index}");
        }
        let unkept = job(json!({"name": "all"}), Some(&alice)).unwrap().named.unwrap();
        assert!(unkept.key.is_none() && unkept.private);
    }
}
