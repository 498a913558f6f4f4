//! Named queries: the configuration's SQL, asked for by name with typed parameters.
//!
//! A caller sends no SQL, so that what is set for the transaction (the role, the claims, the timeout) is a boundary: it is set
//! in the round trip of the statement, before each statement, and undone with the transaction. Which queries there are is the
//! [`Catalogue`]; which of them a route serves, its settings say.
//!
//! Those that are read only may be asked for with GET (`…/NAME?id=1`), and their answers kept ([`Cache`]) by definition,
//! parameters, role, pool and, where the answer depends on who asks, by consumer and claims.
//!
//! **When things go wrong.** A name that the route does not serve is 404, whether it is another route's or nobody's. A parameter
//! that does not fit is 400, named. While one request fills the cache others wait for it, no longer than their deadline.
//! With `on_exhausted = "stale"` the last good answer stands in when no connection is to be had; never for an error of the
//! statement's own.

mod cache;
mod compose;
mod conditional;
mod params;
mod serve;
mod types;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value};

use crate::{
    access::Identity,
    backend::{Param, inspect},
    config::{
        Finding,
        model::{Named, NamedParam},
    },
    query::{Wanted, allow::AllowList},
};

pub use cache::{Cache, Held};
pub(super) use compose::compose;
pub(super) use params::Params;
pub(super) use serve::{run, wish_of};

/// The named queries of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    queries: BTreeMap<String, Arc<Entry>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Entry {
    name: Arc<str>,
    settings: Named,
    /// What is sent for a parameter that is left out.
    defaults: Vec<Option<Param>>,
    /// Of this definition alone: answers of another have another.
    id: u64,
    figures: Arc<Figures>,
}

/// What became of requests by name.
#[derive(Debug, Default)]
pub(super) struct Figures {
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    failed: AtomicU64,
}

/// The same, told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct NamedFigures {
    /// Answered with what was kept.
    pub hits: u64,
    /// Asked of the database.
    pub misses: u64,
    /// Answered with an old answer, as there was no connection.
    pub stale: u64,
    /// Ended with an error.
    pub failed: u64,
}

/// What of a generation a request for a query needs.
#[derive(Clone, Debug)]
pub struct Place {
    /// All named queries.
    pub catalogue: Arc<Catalogue>,
    /// Where answers are kept.
    pub cache: Arc<Cache>,
    /// The route's list of texts.
    pub allow: Option<AllowList>,
    /// What tells the route's pool from any other, by name and by where it leads.
    pub pool: Arc<str>,
    /// The pool is PostgreSQL's.
    pub postgres: bool,
    /// The answer depends on who calls, since the pool does.
    pub per_caller: bool,
    /// Where the path of a GET goes on behind the route's, if the route serves named queries there.
    pub path: Option<usize>,
    /// It names the database, too.
    pub named_by_path: bool,
    /// The route is for certain hosts only.
    pub hosts: bool,
    /// Anyone may call.
    pub open: bool,
}

/// Who asks, as far as queries depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Who<'a> {
    /// The consumer's name.
    pub consumer: Option<&'a str>,
    /// What the request names of a pool of many.
    pub database: Option<&'a str>,
    /// What its consumer names of one.
    pub role: Option<&'a str>,
    /// Verified claims.
    pub claims: Option<&'a Map<String, Value>>,
}

#[cfg(test)]
impl Place {
    /// Without any query.
    pub(super) fn alone() -> Self {
        Self {
            catalogue: Arc::default(),
            cache: Cache::new(0),
            allow: None,
            pool: "test".into(),
            postgres: false,
            per_caller: false,
            path: None,
            named_by_path: false,
            hosts: false,
            open: true,
        }
    }
}

impl<'a> Who<'a> {
    /// Of an identity, which asks for the database that is `wanted`.
    pub(super) fn of(identity: Option<&'a Identity>, wanted: &'a Wanted) -> Self {
        Self {
            consumer: identity.map(|identity| &**identity.consumer.name()),
            database: wanted.database.as_deref(),
            role: wanted.role.as_deref(),
            claims: identity.and_then(|identity| identity.claims.as_deref()),
        }
    }
}

impl Catalogue {
    /// Reads the queries of a new configuration; definitions that stay keep what is kept of them.
    ///
    /// # Errors
    /// Everything that their texts and defaults show to be wrong.
    pub fn build_after(queries: &BTreeMap<String, Named>, before: &Self) -> Result<Self, Vec<Finding>> {
        let (mut built, mut wrong) = (BTreeMap::new(), Vec::new());
        for (name, settings) in queries {
            let at = format!("named.{name}");
            look_at_text(&at, settings, &mut wrong);
            let kept = before.queries.get(name);
            if let Some(kept) = kept.filter(|kept| kept.settings == *settings) {
                built.insert(name.clone(), kept.clone());
                continue;
            }
            let defaults = defaults(&at, &settings.params, &mut wrong);
            let figures = kept.map(|kept| kept.figures.clone()).unwrap_or_default();
            let entry =
                Entry { name: name.as_str().into(), settings: settings.clone(), defaults, id: next_id(), figures };
            built.insert(name.clone(), Arc::new(entry));
        }
        if wrong.is_empty() { Ok(Self { queries: built }) } else { Err(wrong) }
    }

    /// What became of requests, by name.
    pub fn figures(&self) -> impl Iterator<Item = (&str, NamedFigures)> {
        self.queries.iter().map(|(name, entry)| (name.as_str(), entry.figures.told()))
    }

    fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.queries.get(name)
    }
}

impl Figures {
    fn told(&self) -> NamedFigures {
        let figure = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NamedFigures {
            hits: figure(&self.hits),
            misses: figure(&self.misses),
            stale: figure(&self.stale),
            failed: figure(&self.failed),
        }
    }
}

/// Unique in this process.
fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

fn defaults(at: &str, params: &[NamedParam], wrong: &mut Vec<Finding>) -> Vec<Option<Param>> {
    let read = |(index, param): (usize, &NamedParam)| {
        let given: Param = serde_json::from_value(param.default.clone()?).ok()?;
        match types::value(param, types::Given::Param(&given)) {
            Ok(value) => Some(value),
            Err(why) => {
                wrong.push(Finding::new(format!("{at}.params[{index}].default"), why));
                None
            }
        }
    };
    params.iter().enumerate().map(read).collect()
}

/// First words of what is not read only.
const WRITES: [&str; 9] = ["insert", "update", "delete", "merge", "truncate", "create", "alter", "drop", "grant"];

/// What can be said of a text without a database.
fn look_at_text(at: &str, named: &Named, wrong: &mut Vec<Finding>) {
    let mut finding = |key: String, message: String| wrong.push(Finding::new(key, message));
    let found = inspect(&named.sql);
    let sql = format!("{at}.sql");
    if found.statements > 1 {
        finding(sql.clone(), format!("holds {} statements; a named query is one", found.statements));
    }
    if found.statements == 0 && !named.sql.trim().is_empty() {
        finding(sql.clone(), "holds no statement".to_owned());
    }
    if found.controls || found.copies {
        let what = if found.copies { "copies to or from a caller" } else { "begins or ends a transaction" };
        finding(sql.clone(), format!("{what}, which a named query cannot"));
    }
    if found.session {
        finding(sql.clone(), "changes the session, which is others' too".to_owned());
    }
    if named.read_only && WRITES.contains(&found.verb.as_str()) {
        finding(format!("{at}.read_only"), format!("`{}` writes", found.verb));
    }
    let most = named.params.len();
    if let Some(beyond) = found.placeholders.iter().find(|number| **number == 0 || **number as usize > most) {
        let params = if most == 1 { "1 parameter".to_owned() } else { format!("{most} parameters") };
        finding(sql.clone(), format!("holds the placeholder {beyond}, but there is {params}"));
    }
    let unnumbered = found.placeholders.is_empty() && found.unnumbered == most;
    for (index, param) in named.params.iter().enumerate().filter(|_| !unnumbered) {
        if !found.placeholders.contains(&(index as u32 + 1)) {
            let message = format!("`{}` is not used: the statement has no placeholder {}", param.name, index + 1);
            finding(format!("{at}.params[{index}]"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build(queries: Value) -> Result<Catalogue, Vec<String>> {
        let queries = serde_json::from_value(queries).unwrap();
        let built = Catalogue::build_after(&queries, &Catalogue::default());
        built
            .map_err(|wrong| wrong.into_iter().map(|finding| format!("{}: {}", finding.key, finding.message)).collect())
    }

    fn wrong(query: Value) -> String {
        build(json!({ "q": query })).map_or_else(|wrong| wrong.join("; "), |_| String::new())
    }

    #[test]
    fn texts_that_cannot_be_named_queries_are_found_without_a_database() {
        let int = |name: &str| json!({"name": name, "type": "int4"});
        for (query, finding) in [
            (json!({"sql": "select $1", "params": [int("a")]}), ""),
            (json!({"sql": "select $2, $1;", "params": [int("a"), int("b")]}), ""),
            (json!({"sql": "select ?1", "params": [int("a")]}), ""),
            (json!({"sql": "select ?, ?", "params": [int("a"), int("b")]}), ""),
            (json!({"sql": "select data ? 'a' from t"}), ""),
            (json!({"sql": "select 1; select 2"}), "named.q.sql: holds 2 statements; a named query is one"),
            (json!({"sql": "-- nothing"}), "named.q.sql: holds no statement"),
            (json!({"sql": "commit"}), "named.q.sql: begins or ends a transaction, which a named query cannot"),
            (json!({"sql": "copy t to stdout"}), "named.q.sql: copies to or from a caller, which a named query cannot"),
            (json!({"sql": "set role boss"}), "named.q.sql: changes the session, which is others' too"),
            (json!({"sql": "insert into t values (1)", "read_only": true}), "named.q.read_only: `insert` writes"),
            (
                json!({"sql": "select $2", "params": [int("a")]}),
                "named.q.sql: holds the placeholder 2, but there is 1 parameter; named.q.params[0]: `a` is not used: the statement has no placeholder 1",
            ),
            (
                json!({"sql": "select '$1'", "params": [int("a")]}),
                "named.q.params[0]: `a` is not used: the statement has no placeholder 1",
            ),
            (
                json!({"sql": "select $1", "params": [{"name": "a", "type": "int2", "default": 40000}]}),
                "named.q.params[0].default: must be a whole number of 16 bits",
            ),
        ] {
            assert_eq!(wrong(query.clone()), finding, "{query}");
        }
    }

    #[test]
    fn a_definition_that_stays_keeps_its_number_and_one_that_changes_does_not() {
        let queries = |sql: &str| serde_json::from_value(json!({"q": {"sql": sql}, "r": {"sql": "select 2"}})).unwrap();
        let first = Catalogue::build_after(&queries("select 1"), &Catalogue::default()).unwrap();
        let second = Catalogue::build_after(&queries("select 3"), &first).unwrap();
        assert!(Arc::ptr_eq(first.get("r").unwrap(), second.get("r").unwrap()));
        assert_ne!(first.get("q").unwrap().id, second.get("q").unwrap().id);
        assert!(Arc::ptr_eq(&first.get("q").unwrap().figures, &second.get("q").unwrap().figures));
    }
}
