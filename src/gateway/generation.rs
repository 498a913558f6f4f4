//! Everything derived from one configuration, immutable.
//!
//! [`Generation::prepare`] builds it beside the one that serves, taking over what did not change. All that can be refused is
//! checked before anything that serves is touched: first the draft, then the plugins are swapped, then the pools are made.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::{
    places::Stock,
    pools::{Changes, Plan, PoolEntry},
    shared::Shared,
    source::{Place, Source},
    template::Template,
};
use crate::{
    access::{Admission, Consumers, SourceStatus},
    config::{
        Finding, Loaded,
        model::{Config, Cors, Dialect, Priority, Query, Redirect, Respond, Route, TunnelAuth},
    },
    limit::{Limiter, RouteLimits},
    observe::figures::RouteFigures,
    policy,
    proxy::Upstream,
    query::{
        allow::AllowFile,
        named::{self, NamedFigures},
    },
    route::{RouteTable, describe},
};

/// A configuration at work. A request keeps the one it started with to its end.
pub struct Generation {
    /// Counts up from 1.
    pub number: u64,
    /// What it was built from.
    pub loaded: Loaded,
    pub(super) table: RouteTable,
    pub(super) routes: Vec<RouteEntry>,
    pub(super) consumers: Consumers,
    /// Pools by name.
    pub pools: BTreeMap<String, PoolEntry>,
    /// Pools that stand for many.
    pub templates: BTreeMap<String, Arc<Template>>,
    /// Upstreams by name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Named queries, and lists of texts.
    pub(super) stock: Stock,
    /// Limits by name.
    pub limits: BTreeMap<String, Arc<Limiter>>,
    live: Arc<AtomicUsize>,
}

/// A route, ready to serve.
pub(super) struct RouteEntry {
    pub(super) name: Arc<str>,
    pub(super) figures: Arc<RouteFigures>,
    pub(super) limits: RouteLimits,
    pub(super) admission: Admission,
    pub(super) priority: Priority,
    pub(super) deadline: Duration,
    pub(super) body_limit: Option<u64>,
    pub(super) allow_encoded_separators: bool,
    pub(super) cors: Option<Cors>,
    /// Methods that pages of other origins may use.
    pub(super) cors_methods: &'static str,
    pub(super) target: Target,
}

/// Where a route leads.
pub(super) enum Target {
    Query { source: Box<Source>, settings: Box<Query>, place: named::Place },
    Proxy { upstream: Arc<Upstream>, strip: Option<Box<str>> },
    Respond(Fixed),
    Redirect(Moved),
}

/// A fixed answer.
pub(super) struct Fixed {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) content_type: (HeaderName, HeaderValue),
}

/// A redirect.
pub(super) struct Moved {
    pub(super) status: StatusCode,
    pub(super) to: String,
}

/// A generation that does not serve yet, and what its coming changes.
pub(super) struct Prepared {
    generation: Generation,
    pools: Changes,
}

/// All of a generation that can be refused, less its pools.
struct Draft {
    limits: BTreeMap<String, Arc<Limiter>>,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    consumers: Consumers,
    table: RouteTable,
    stock: Stock,
    pools: Plan,
}

impl Generation {
    /// Builds a generation beside the one that serves, and puts its plugins in service.
    ///
    /// # Errors
    /// Everything that is wrong, by key, with what `wrong` holds already; then nothing has changed.
    pub(super) fn prepare(
        shared: &Shared,
        loaded: Loaded,
        plugins: policy::Prepared,
        before: Option<&Self>,
        mut wrong: Vec<Finding>,
    ) -> Result<Prepared, Vec<Finding>> {
        let config = &loaded.config;
        let draft = Draft::of(config, Some(&plugins), before, shared.cores(), &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        shared.plugins.commit(plugins);
        let pools = draft.pools.make(shared, before)?;
        let (limits, upstreams, stock) = (&draft.limits, &draft.upstreams, &draft.stock);
        let parts = Parts { shared, config, limits, upstreams, stock, pools: &pools };
        let routes = parts.routes()?;
        shared.generations.fetch_add(1, Ordering::Relaxed);
        let generation = Self {
            number: before.map_or(1, |before| before.number + 1),
            table: draft.table,
            routes,
            consumers: draft.consumers,
            pools: pools.entries().clone(),
            templates: pools.templates().clone(),
            upstreams: draft.upstreams,
            limits: draft.limits,
            stock: draft.stock,
            live: shared.generations.clone(),
            loaded,
        };
        Ok(Prepared { generation, pools })
    }

    /// What would keep a generation of this configuration from being built; hooks of plugins are checked if there are any.
    pub(super) fn check(config: &Config, plugins: Option<&policy::Prepared>) -> Vec<Finding> {
        let mut wrong = Vec::new();
        Draft::of(config, plugins, None, 1, &mut wrong);
        wrong
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Has the keys of issuers read anew where it is time. Called a few times a second, on the background.
    pub(super) fn look_after_issuers(&self) {
        self.consumers.look(Instant::now());
    }

    /// How the keys of issuers are.
    pub fn issuers(&self) -> BTreeMap<String, SourceStatus> {
        self.consumers.issuers()
    }

    /// Every pool there is at this moment, by name; those of a template are called `TEMPLATE:DATABASE`.
    pub fn all_pools(&self) -> BTreeMap<String, PoolEntry> {
        let made = self.templates.values().flat_map(|template| template.pools());
        self.pools.iter().map(|(name, pool)| (name.clone(), pool.clone())).chain(made).collect()
    }

    /// What became of requests by name, for each named query.
    pub fn named_queries(&self) -> impl Iterator<Item = (&str, NamedFigures)> {
        self.stock.catalogue.figures()
    }

    /// The files of texts that routes let through.
    pub fn allow_lists(&self) -> impl Iterator<Item = &Arc<AllowFile>> {
        self.stock.allowed.values()
    }

    /// The names of its routes, in order.
    pub fn route_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.routes.iter().map(|route| &route.name)
    }
}

impl Draft {
    fn of(
        config: &Config,
        plugins: Option<&policy::Prepared>,
        before: Option<&Generation>,
        cores: u32,
        wrong: &mut Vec<Finding>,
    ) -> Self {
        let nobody = Consumers::default();
        let known = before.map_or(&nobody, |before| &before.consumers);
        let consumers = Consumers::build_after(config, known).unwrap_or_else(|errors| {
            wrong.extend(errors.into_iter().map(|error| Finding::new(error.key(), error.to_string())));
            Consumers::default()
        });
        let table = RouteTable::build(&config.route).unwrap_or_else(|errors| {
            let at = |routes: &[usize]| routes.last().map_or("route".to_owned(), |index| format!("route[{index}]"));
            wrong.extend(errors.into_iter().map(|error| Finding::new(at(&error.routes), error.message)));
            RouteTable::default()
        });
        Self {
            limits: limits(config, before, wrong),
            upstreams: upstreams(config, before, wrong),
            consumers,
            table,
            stock: Stock::of(config, before, wrong),
            pools: Plan::of(config, plugins, before, cores, wrong),
        }
    }
}

impl RouteEntry {
    /// The dialect of a query route.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        match &self.target {
            Target::Query { settings, .. } => Some(settings.dialect),
            _ => None,
        }
    }
}

impl Prepared {
    /// Puts the generation in the place of the one that serves.
    pub(super) fn commit(self, shared: &Arc<Shared>) -> Arc<Generation> {
        let generation = Arc::new(self.generation);
        for (name, upstream) in &generation.upstreams {
            if let Some(settings) = generation.config().upstream.get(name) {
                upstream.reconfigure(settings);
            }
        }
        let proves = |query: &Query| query.tunnel_auth == TunnelAuth::Scram;
        if generation.config().route.iter().any(|route| route.query.as_ref().is_some_and(proves)) {
            shared.scram_secret();
        }
        self.pools.commit(shared);
        shared.query_cache.resize(generation.config().server.query_cache.as_usize());
        let before = shared.current.swap(Some(generation.clone()));
        if let Some(before) = &before {
            before.consumers.revoke_missing(&generation.consumers);
        }
        generation
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Limits that did not change keep their counts.
fn limits(config: &Config, before: Option<&Generation>, wrong: &mut Vec<Finding>) -> BTreeMap<String, Arc<Limiter>> {
    let mut limits = BTreeMap::new();
    for (name, settings) in &config.limit {
        let kept = before.and_then(|before| before.limits.get(name)).filter(|kept| kept.settings() == settings);
        match kept.map_or_else(|| Limiter::new(name, settings).map(Arc::new), |kept| Ok(kept.clone())) {
            Ok(limiter) => drop(limits.insert(name.clone(), limiter)),
            Err(error) => wrong.push(Finding::new(format!("limit.{name}"), error.to_string())),
        }
    }
    limits
}

/// Upstreams that did not change keep their connections and their queue.
fn upstreams(
    config: &Config,
    before: Option<&Generation>,
    wrong: &mut Vec<Finding>,
) -> BTreeMap<String, Arc<Upstream>> {
    let mut upstreams = BTreeMap::new();
    for (name, settings) in &config.upstream {
        let kept = before.and_then(|before| before.upstreams.get(name)).filter(|kept| kept.is_same_service(settings));
        match kept.map_or_else(|| Upstream::new(name, settings), |kept| Ok(kept.clone())) {
            Ok(upstream) => drop(upstreams.insert(name.clone(), upstream)),
            Err(error) => wrong.push(Finding::new(format!("upstream.{name}"), error.to_string())),
        }
    }
    upstreams
}

/// What routes are made of.
struct Parts<'a> {
    shared: &'a Shared,
    config: &'a Config,
    limits: &'a BTreeMap<String, Arc<Limiter>>,
    upstreams: &'a BTreeMap<String, Arc<Upstream>>,
    stock: &'a Stock,
    pools: &'a Changes,
}

impl Parts<'_> {
    fn routes(&self) -> Result<Vec<RouteEntry>, Vec<Finding>> {
        let (mut routes, mut wrong) = (Vec::with_capacity(self.config.route.len()), Vec::new());
        for (index, route) in self.config.route.iter().enumerate() {
            match self.route(route) {
                Ok(entry) => routes.push(entry),
                Err(message) => wrong.push(Finding::new(format!("route[{index}]"), message)),
            }
        }
        if wrong.is_empty() { Ok(routes) } else { Err(wrong) }
    }

    fn route(&self, route: &Route) -> Result<RouteEntry, String> {
        let name: Arc<str> = describe(route).into();
        let limiters =
            route.limits.iter().map(|name| self.limits.get(name).cloned().ok_or_else(|| unknown("limit", name)));
        let admission = Admission::build(route.access.as_ref(), &self.config.consumer);
        let admission =
            admission.map_err(|errors| join(&errors.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
        Ok(RouteEntry {
            figures: self.shared.http.route(&name),
            name,
            limits: RouteLimits::new(limiters.collect::<Result<_, _>>()?),
            admission,
            priority: route.priority,
            deadline: route.deadline.0,
            body_limit: route.body_limit().map(|size| size.0),
            allow_encoded_separators: route.allow_encoded_separators,
            cors: route.cors.clone(),
            cors_methods: match &route.query {
                Some(query) if !query.named.is_none() => "GET, HEAD, POST",
                _ => "POST",
            },
            target: self.target(route)?,
        })
    }

    fn target(&self, route: &Route) -> Result<Target, String> {
        match (&route.query, &route.proxy, &route.respond, &route.redirect) {
            (Some(query), None, None, None) => {
                let pool = self.pools.entries().get(&query.pool).map(|pool| &pool.identity);
                let identity = pool.or_else(|| self.pools.templates().get(&query.pool).map(|pool| &pool.identity));
                let place = self.stock.place(self.config, route, query, identity, &self.shared.query_cache);
                Ok(Target::Query {
                    source: Box::new(self.source(route, query)?),
                    settings: Box::new(query.clone()),
                    place,
                })
            }
            (None, Some(proxy), None, None) => {
                let upstream = self.upstreams.get(&proxy.upstream).cloned();
                let upstream = upstream.ok_or_else(|| unknown("upstream", &proxy.upstream))?;
                let strip = route.path.as_deref().filter(|_| proxy.strip_prefix).map(Into::into);
                Ok(Target::Proxy { upstream, strip })
            }
            (None, None, Some(respond), None) => fixed(respond).map(Target::Respond),
            (None, None, None, Some(redirect)) => moved(redirect).map(Target::Redirect),
            _ => Err("a route has exactly one of query, proxy, respond and redirect".into()),
        }
    }
}

impl Parts<'_> {
    fn source(&self, route: &Route, query: &Query) -> Result<Source, String> {
        let endpoint = |(label, pool): (&String, &String)| Ok((label.clone(), self.place(pool)?));
        let pool = self.place(&query.pool)?;
        let endpoints: BTreeMap<String, Place> = query.endpoints.iter().map(endpoint).collect::<Result<_, String>>()?;
        let of_roles = pool.is_of_roles() || endpoints.values().any(Place::is_of_roles);
        Ok(Source { pool, endpoints, below: below(route), named_by: query.database.clone(), of_roles })
    }

    fn place(&self, name: &str) -> Result<Place, String> {
        let per = self.config.pool.get(name).and_then(|pool| pool.per);
        if let (Some(template), Some(per)) = (self.pools.templates().get(name), per) {
            return Ok(Place::many(name, per, template.clone()));
        }
        self.pools.entries().get(name).map(|pool| Place::one(name, pool)).ok_or_else(|| unknown("pool", name))
    }
}

/// The length of a route's path, without a slash at its end; of a whole one, up to its last segment.
fn below(route: &Route) -> usize {
    match (&route.path, &route.exact) {
        (Some(path), _) => path.trim_end_matches('/').len(),
        (None, exact) => exact.as_deref().and_then(|path| path.rfind('/')).unwrap_or_default(),
    }
}

fn fixed(respond: &Respond) -> Result<Fixed, String> {
    let status = StatusCode::from_u16(respond.status).map_err(|_| format!("{} is not a status", respond.status))?;
    let content_type = HeaderValue::from_str(&respond.content_type);
    let content_type = content_type.map_err(|_| format!("`{}` is not a content type", respond.content_type))?;
    Ok(Fixed { status, body: respond.body.clone().into(), content_type: (header::CONTENT_TYPE, content_type) })
}

fn moved(redirect: &Redirect) -> Result<Moved, String> {
    let status = StatusCode::from_u16(redirect.status).map_err(|_| format!("{} is not a status", redirect.status))?;
    Ok(Moved { status, to: redirect.to.clone() })
}

fn unknown(kind: &str, name: &str) -> String {
    format!("no {kind} is called `{name}`")
}

fn join(texts: &[String]) -> String {
    texts.join("; ")
}
