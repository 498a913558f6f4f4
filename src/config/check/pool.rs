//! `[plugin.NAME]` and `[pool.NAME]`.

use super::{Check, LONGEST_ROLE, syntax};
use crate::config::{
    key,
    model::{BackendKind, Per, PolicyRef, Pool},
    value::{Size, Span, sha256},
    words,
};

/// Connections of one pool beyond which a number is a slip of the finger.
const MOST_CONNECTIONS: u64 = 65_536;

/// Fingerprints beyond which the table costs more than it tells: each new one looks through all.
const MOST_STATEMENTS: u64 = 1000;

const SIZING: &[&str] = &["fixed"];
const EVICTION: &[&str] = &["lifetime"];
const VALIDATION: &[&str] = &["always", "bypass-window", "never"];

impl Check<'_> {
    pub(super) fn plugins(&mut self) {
        let config = self.config;
        for (name, plugin) in &config.plugin {
            let at = key::join("plugin", name);
            self.unless(!plugin.path.as_os_str().is_empty(), format!("{at}.path"), "must not be empty");
            let pinned_well = plugin.sha256.as_ref().is_none_or(|digest| sha256(digest).is_some());
            self.unless(pinned_well, format!("{at}.sha256"), "must be 64 hex digits: see `sha256sum`");
            self.size(format!("{at}.memory"), plugin.memory, Size::kib(64), Size(1 << 32));
            self.size(format!("{at}.max_size"), plugin.max_size, Size(1), Size(1 << 30));
            self.size(format!("{at}.compile_memory"), plugin.compile_memory, Size::mib(64), Size(1 << 40));
            let deadlines = [("deadline", plugin.deadline), ("compile_deadline", plugin.compile_deadline)];
            self.positive(&at, &deadlines);
            let short = plugin.deadline <= Span::secs(1);
            self.unless(short, format!("{at}.deadline"), "must be at most 1s: requests wait for it");
        }
    }

    pub(super) fn pools(&mut self) {
        let config = self.config;
        for (name, pool) in &config.pool {
            let at = key::join("pool", name);
            self.url(&at, pool);
            self.roles(&at, pool);
            self.bounds(&at, pool);
            self.waits(&at, pool);
            self.policy(&at, "sizing", &pool.sizing, SIZING);
            self.policy(&at, "eviction", &pool.eviction, EVICTION);
            self.policy(&at, "validation", &pool.validation, VALIDATION);
            self.failures(&at, pool);
            if let Some(name) = &pool.tls.server_name {
                self.parsed(syntax::host_pattern(name), format!("{at}.tls.server_name"));
            }
        }
    }

    fn url(&mut self, at: &str, pool: &Pool) {
        let key = format!("{at}.url");
        let Some(url) = self.secrets.get(&key) else { return };
        if self.doubtful.contains(&format!("{at}.backend")) {
            return;
        }
        let holds_password = match pool.backend {
            BackendKind::Postgres => syntax::postgres_url(url),
            BackendKind::Sqlite => syntax::sqlite_url(url).map(|()| false),
        };
        match holds_password {
            Err(message) => self.wrong(key.clone(), message),
            Ok(true) if pool.password.is_some() => {
                self.wrong(format!("{at}.password"), "the URL has a password already: give one of them");
            }
            Ok(_) if pool.password.is_some() && pool.backend == BackendKind::Sqlite => {
                self.wrong(format!("{at}.password"), "SQLite knows no passwords");
            }
            Ok(_) => {}
        }
        self.star(key, url, pool);
    }

    /// Where a pool stands for many, its URL has a place for the name.
    fn star(&mut self, key: String, url: &str, pool: &Pool) {
        let place = url.split('?').next().unwrap_or_default();
        let stars = place.matches('*').count();
        let last = place.rsplit('/').next().is_some_and(|last| last.contains('*'));
        let open_ended =
            pool.backend == BackendKind::Sqlite && place.rsplit_once('*').is_some_and(|(_, end)| !end.starts_with('.'));
        let message = match pool.per {
            Some(Per::Role) if pool.backend == BackendKind::Sqlite => "SQLite knows no roles: `per` cannot be `role`",
            Some(Per::Role) if stars != 1 || !place.contains("://*@") => {
                "with `per = \"role\"`, the URL's user is `*`, without a password: those are in `roles`"
            }
            Some(Per::Database) if stars == 1 && last && open_ended => {
                "with `per`, a file has an ending behind the `*`, as in `data/*.db`: a name could else be that of another's log"
            }
            Some(Per::Database) if stars != 1 || !last => {
                "with `per`, the database (the file) has one `*` where the name goes, as in `tenant_*`"
            }
            None if stars > 0 => {
                "has a `*`: for a pool for each database, write `per = \"database\"`; for each role, `\"role\"`"
            }
            _ => return,
        };
        self.wrong(key, message);
    }

    fn roles(&mut self, at: &str, pool: &Pool) {
        if pool.per != Some(Per::Role) {
            return self.unless(pool.roles.is_empty(), format!("{at}.roles"), "are for a pool with `per = \"role\"`");
        }
        self.unless(!pool.roles.is_empty(), at, "connects as no role: name some, `roles.NAME = { password = … }`");
        let own = "each role has its own: `roles.NAME.password`";
        self.unless(pool.password.is_none(), format!("{at}.password"), own);
        for role in pool.roles.keys() {
            // PostgreSQL cuts longer names off, and would take one for another.
            let fits = (1..=LONGEST_ROLE).contains(&role.len()) && !role.contains(char::is_control);
            let message = "a role's name has 1 to 63 bytes, none of them a control character";
            self.unless(fits, key::join(&format!("{at}.roles"), role), message);
        }
    }

    fn bounds(&mut self, at: &str, pool: &Pool) {
        match pool.size.max {
            Some(max) => {
                self.number(format!("{at}.size.max"), max, 1, MOST_CONNECTIONS);
                let message = format!("`min` is {}, more than `max`, which is {max}", pool.size.min);
                self.unless(pool.size.min <= max.max(1), format!("{at}.size.min"), message);
            }
            None => self.number(format!("{at}.size.min"), pool.size.min, 0, MOST_CONNECTIONS),
        }
        let size = &pool.size;
        let most = u64::from(pool.max_size());
        let idle = format!("is {}, more than `max`, which is {most}", size.min_idle);
        self.unless(u64::from(size.min_idle) <= most, format!("{at}.size.min_idle"), idle);
        let reserve = format!("is {}: one connection of `max`, which is {most}, must be for everybody", size.reserve);
        self.unless(u64::from(size.reserve) < most, format!("{at}.size.reserve"), reserve);
        let min = format!(
            "is {}, more than `max` less `reserve`, which is {}",
            size.min,
            most.saturating_sub(size.reserve.into())
        );
        self.unless(
            u64::from(size.min) + u64::from(size.reserve) <= most.max(size.min.into()),
            format!("{at}.size.min"),
            min,
        );
        self.number(format!("{at}.max_pools"), pool.max_pools, 1, 65_536);
        let statements = u32::try_from(pool.statements).unwrap_or(u32::MAX);
        self.number(format!("{at}.statements"), statements, 0, MOST_STATEMENTS);
        if let Some(connections) = pool.server.connections {
            self.number(format!("{at}.server.connections"), connections, 1, MOST_CONNECTIONS);
        }
        let share = pool.server.share;
        self.unless(share > 0.0 && share <= 1.0, format!("{at}.server.share"), "must be above 0 and at most 1");
        self.number(format!("{at}.creates_per_second"), pool.creates_per_second, 0, 10_000);
        self.number(format!("{at}.parallel_creates"), pool.parallel_creates, 1, MOST_CONNECTIONS);
        self.number(format!("{at}.statement_cache"), pool.statement_cache, 0, 65_536);
        let printable = pool.application_name.bytes().all(|b| (b' '..=b'~').contains(&b));
        let fits = printable && pool.application_name.len() < 64;
        self.unless(fits, format!("{at}.application_name"), "must be printable ASCII, at most 63 characters");
    }

    fn waits(&mut self, at: &str, pool: &Pool) {
        self.positive(
            at,
            &[
                ("checkout_timeout", pool.checkout_timeout),
                ("connect_timeout", pool.connect_timeout),
                ("validation_timeout", pool.validation_timeout),
                ("max_lifetime", pool.max_lifetime),
                ("idle_timeout", pool.idle_timeout),
                ("linger", pool.linger),
                ("pool_idle_timeout", pool.pool_idle_timeout),
            ],
        );
        for (name, span) in [("sizing_interval", pool.sizing_interval), ("sweep_interval", pool.sweep_interval)] {
            self.unless(span >= Span::millis(100), format!("{at}.{name}"), "must be at least 100ms");
        }
        let summary = pool.summary_interval;
        let seldom = summary.0.is_zero() || summary >= Span::secs(1);
        self.unless(seldom, format!("{at}.summary_interval"), "must be at least 1s, or 0s: never");
    }

    fn failures(&mut self, at: &str, pool: &Pool) {
        let (backoff, breaker) = (&pool.backoff, &pool.breaker);
        self.positive(at, &[("backoff.initial", backoff.initial), ("breaker.max_open", breaker.max_open)]);
        let message = format!("less than `initial`, which is {}", backoff.initial);
        self.unless(backoff.max >= backoff.initial, format!("{at}.backoff.max"), message);
        let within = (0.0..1.0).contains(&backoff.jitter);
        self.unless(within, format!("{at}.backoff.jitter"), "must be at least 0 and less than 1");
        self.number(format!("{at}.breaker.failures"), breaker.failures, 1, u32::MAX.into());
        self.number(format!("{at}.breaker.successes"), breaker.successes, 1, u32::MAX.into());
    }

    fn policy(&mut self, at: &str, kind: &str, policy: &PolicyRef, natives: &[&str]) {
        let key = |part: &str| format!("{at}.{kind}.{part}");
        let native_key = match policy {
            PolicyRef::Plugin(_) => key("fallback"),
            PolicyRef::Native(_) => key("native"),
        };
        if let Some(plugin) = policy.plugin() {
            self.refer(key("plugin"), "plugin", plugin, self.config.plugin.keys());
        }
        let native = policy.native();
        if natives.contains(&native) {
            return;
        }
        let hint = match words::nearest(native, natives.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use {}", words::list(natives, "or")),
        };
        self.wrong(native_key, format!("there is no native {kind} policy `{native}`; {hint}"));
    }
}
