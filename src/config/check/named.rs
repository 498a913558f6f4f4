//! `[named.NAME]`, and what routes make of them. What a statement's text says is looked at by those who run it.

use std::collections::BTreeSet;

use super::{Check, LONGEST_ROLE};
use crate::config::{
    key,
    model::{Access, BackendKind, Claims, Dialect, Named, NamedParam, OnExhausted, ParamType, Query, Route, Serves},
};

impl Check<'_> {
    pub(super) fn named(&mut self) {
        let config = self.config;
        for (name, named) in &config.named {
            let at = key::join("named", name);
            self.unless(!named.sql.trim().is_empty(), format!("{at}.sql"), "must not be empty");
            self.number(format!("{at}.cost"), named.cost, 1, 1 << 20);
            if let Some(role) = &named.role {
                let fits = !role.is_empty() && role.len() <= LONGEST_ROLE && !role.contains('\0');
                self.unless(fits, format!("{at}.role"), "must be the name of a role: 1 to 63 bytes");
                self.unless(role != "none", format!("{at}.role"), "`none` is no role: leave `role` out instead");
            }
            if let Claims::Only(claims) = &named.claims {
                self.unless(
                    !claims.is_empty(),
                    format!("{at}.claims"),
                    "the list is empty: write `true` for all, or `false`",
                );
            }
            if let Some(timeout) = named.timeout {
                self.positive(&at, &[("timeout", timeout)]);
            }
            self.kept(&at, named);
            self.params(&at, &named.params);
        }
    }

    fn kept(&mut self, at: &str, named: &Named) {
        let message = "needs `read_only = true`: what writes must reach the database";
        self.unless(named.read_only || named.cache.0.is_zero(), format!("{at}.cache"), message);
        let stale = named.on_exhausted == OnExhausted::Stale;
        self.unless(named.read_only || !stale, format!("{at}.on_exhausted"), format!("`stale` {message}"));
    }

    fn params(&mut self, at: &str, params: &[NamedParam]) {
        let mut names = BTreeSet::new();
        for (index, param) in params.iter().enumerate() {
            let at = format!("{at}.params[{index}]");
            let fits = key::is_bare(&param.name) && param.name.len() <= 64;
            self.unless(fits, format!("{at}.name"), "a name has letters, digits, `-` and `_`, and at most 64 of them");
            if !names.insert(&param.name) {
                self.wrong(format!("{at}.name"), format!("`{}` is there already", param.name));
            }
            if let ParamType::Other(kind) = innermost(&param.kind) {
                let plausible = !kind.is_empty() && !kind.contains([';', '\'', '\0']);
                self.unless(plausible, format!("{at}.type"), "must be the name of a type, such as `int8` or `text[]`");
            }
            let counted = matches!(
                param.kind,
                ParamType::Text | ParamType::Json(_) | ParamType::Numeric | ParamType::Array(_) | ParamType::Other(_)
            );
            let message = "is for texts and arrays";
            self.unless(param.max_length.is_none() || counted, format!("{at}.max_length"), message);
        }
    }

    /// `query.named`, `query.raw` and `query.allow` of a route.
    pub(super) fn serves(&mut self, at: &str, route: &Route, query: &Query) {
        let config = self.config;
        let key = format!("{at}.query.named");
        let served: Vec<(&String, &Named)> = config.named.iter().filter(|(name, _)| query.named.has(name)).collect();
        if let Serves::Only(names) = &query.named {
            for (index, name) in names.iter().enumerate() {
                let key = format!("{key}[{index}]");
                if names[..index].contains(name) {
                    self.wrong(&key, format!("`{name}` is there already"));
                }
                self.refer(key, "named", name, config.named.keys());
            }
        }
        if query.dialect == Dialect::Neon {
            self.unless(query.named.is_none(), &key, "named queries are of the dialect `json`");
        }
        let asks = query.raw || !query.named.is_none();
        let message = "without SQL of callers' own, and without `named`, nothing could be asked";
        self.unless(asks, format!("{at}.query.raw"), message);
        if let Some(allow) = &query.allow {
            let key = format!("{at}.query.allow");
            self.unless(query.raw, &key, "`raw = false` refuses all that it would let through");
            self.unless(!allow.file.as_os_str().is_empty(), format!("{key}.file"), "must not be empty");
            let others = config.route.iter().filter_map(|route| route.query.as_ref()?.allow.as_ref());
            let alone = others.filter(|other| other.file == allow.file).all(|other| other.mode == allow.mode);
            let message = "another route has this file in the other mode: what it learns would pass here at once";
            self.unless(alone, format!("{key}.mode"), message);
        }
        let sqlite = config.pool.get(&query.pool).is_some_and(|pool| pool.backend == BackendKind::Sqlite);
        let callers: &[String] = match &route.access {
            Some(Access::Consumers(names)) => names.as_slice(),
            _ => &[],
        };
        for (name, named) in served {
            if sqlite && (named.role.is_some() || named.claims.are_set()) {
                let message = format!("`{name}` sets a role or claims, which SQLite has not");
                self.wrong(&key, message);
            }
            let limits = route.limits.iter().filter_map(|name| Some((name, config.limit.get(name)?)));
            let limits = limits.map(|(name, limit)| ("limit", name, limit.burst.unwrap_or(limit.rate.count)));
            let consumers = callers.iter().filter_map(|name| Some((name, config.consumer.get(name)?)));
            let consumers = consumers.filter_map(|(name, consumer)| {
                Some(("consumer", name, consumer.burst.unwrap_or(consumer.rate.as_ref()?.count)))
            });
            for (what, of, burst) in limits.chain(consumers).filter(|(_, _, burst)| named.cost > *burst) {
                let message = format!("`{name}` costs {}, more than {what} `{of}` ever has ({burst})", named.cost);
                self.wrong(&key, message);
            }
        }
    }
}

fn innermost(kind: &ParamType) -> &ParamType {
    match kind {
        ParamType::Array(element) => innermost(element),
        other => other,
    }
}
