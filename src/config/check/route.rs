//! `[[route]]`.

use std::collections::BTreeMap;

use http::{HeaderValue, Method};

use super::{Check, syntax};
use crate::config::{
    key,
    model::{Access, BackendKind, Cors, Dialect, NamedBy, Per, Pool, Query, Redirect, Respond, Route, TunnelMode},
    value::Size,
    words,
};

impl Check<'_> {
    pub(super) fn routes(&mut self) {
        let config = self.config;
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, route) in config.route.iter().enumerate() {
            let at = key::item("route", index);
            if let Some(name) = &route.name {
                let fits = !name.is_empty() && name.len() <= 128 && !name.chars().any(char::is_control);
                self.unless(
                    fits,
                    format!("{at}.name"),
                    "must be 1 to 128 characters, none of them a control character",
                );
                if let Some(other) = names.insert(name, index) {
                    self.wrong(format!("{at}.name"), format!("`{name}` is the name of route[{other}] already"));
                }
            }
            self.matching(&at, route);
            self.target(&at, route);
            self.admission(&at, route);
        }
    }

    fn matching(&mut self, at: &str, route: &Route) {
        match (&route.path, &route.exact) {
            (Some(path), None) => self.parsed(path_form(path), format!("{at}.path")),
            (None, Some(path)) => self.parsed(path_form(path), format!("{at}.exact")),
            (None, None) => self.wrong(at, "has no match; give it `path` (a prefix) or `exact`"),
            (Some(_), Some(_)) => self.wrong(format!("{at}.exact"), "stands with `path`; a route has one of them"),
        }
        for (index, host) in route.host.iter().enumerate() {
            self.parsed(syntax::host_pattern(host), format!("{at}.host[{index}]"));
        }
        for (index, method) in route.methods.iter().enumerate() {
            self.parsed(method_form(method), format!("{at}.methods[{index}]"));
        }
    }

    fn target(&mut self, at: &str, route: &Route) {
        let config = self.config;
        let targets = [
            ("query", route.query.is_some()),
            ("proxy", route.proxy.is_some()),
            ("respond", route.respond.is_some()),
            ("redirect", route.redirect.is_some()),
        ];
        let given: Vec<_> = targets.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        match given.len() {
            0 => self.wrong(at, "has no target; give it one of `query`, `proxy`, `respond` and `redirect`"),
            1 => {}
            many => self.wrong(at, format!("has {many} targets, {}; a route has one", words::list(&given, "and"))),
        }
        if let Some(query) = &route.query {
            self.query(at, route, query);
        }
        if let Some(proxy) = &route.proxy {
            self.refer(format!("{at}.proxy.upstream"), "upstream", &proxy.upstream, config.upstream.keys());
            let strips = proxy.strip_prefix && route.path.is_none() && route.exact.is_some();
            self.unless(!strips, format!("{at}.proxy.strip_prefix"), "needs `path`: `exact` would leave nothing");
        }
        if let Some(respond) = &route.respond {
            self.respond(&format!("{at}.respond"), respond);
        }
        if let Some(redirect) = &route.redirect {
            self.redirect(&format!("{at}.redirect"), redirect);
        }
    }

    fn query(&mut self, at: &str, route: &Route, query: &Query) {
        self.refer(format!("{at}.query.pool"), "pool", &query.pool, self.config.pool.keys());
        for (label, pool) in &query.endpoints {
            self.endpoint(&format!("{at}.query.endpoints"), label, pool);
        }
        match query.dialect {
            Dialect::Json => self.of_json(at, query),
            Dialect::Neon => self.of_neon(at, route, query),
        }
        for name in query.pools() {
            self.one_of_many(at, route, query, name);
        }
        self.serves(at, route, query);
        self.number(format!("{at}.query.max_rows"), query.max_rows, 1, u64::MAX);
        self.number(format!("{at}.query.max_batch"), query.max_batch, 1, 1 << 20);
        self.size(format!("{at}.query.max_response"), query.max_response, Size(1), Size(u64::MAX));
        self.tunnel(at, query);
        let takes_a_body = route.max_body.is_none_or(|size| size > Size(0));
        self.unless(takes_a_body, format!("{at}.max_body"), "must be more than 0B: a query is a body");
        let message = "a query route says who may call: `access = [\"CONSUMER\", …]`, or `access = \"open\"` for anyone \
                       who reaches the listener";
        self.unless(route.access.is_some(), format!("{at}.access"), message);
    }

    /// A label is compared in small letters, as hosts are.
    fn endpoint(&mut self, at: &str, label: &str, pool: &str) {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        let fits = (1..=63).contains(&label.len()) && label.bytes().all(plain);
        let key = key::join(at, label);
        let message = "is the first label of a host: 1 to 63 small letters, digits, `-` and `_`";
        self.unless(fits, &key, message);
        self.refer(key, "pool", pool, self.config.pool.keys());
    }

    fn of_json(&mut self, at: &str, query: &Query) {
        let message = "are for dialect `neon`: a `json` request has no connection string to name one";
        self.unless(query.endpoints.is_empty(), format!("{at}.query.endpoints"), message);
    }

    fn of_neon(&mut self, at: &str, route: &Route, query: &Query) {
        for name in query.pools() {
            let of_postgres = self.config.pool.get(name).is_none_or(|pool| pool.backend == BackendKind::Postgres);
            let message = format!("dialect `neon` is PostgreSQL's, and `pool.{name}` is not");
            self.unless(of_postgres, format!("{at}.query.dialect"), message);
        }
        let message = "dialect `neon` has the database's name in the connection string";
        self.unless(query.database.is_none(), format!("{at}.query.database"), message);
        let reached = route.exact.as_deref().is_none_or(|exact| exact.ends_with("/sql"));
        let message = "drivers of dialect `neon` send to `/sql`: end with it, or give `path`, below which it is";
        self.unless(reached, format!("{at}.exact"), message);
    }

    /// Which of a pool's many a request is for.
    fn one_of_many(&mut self, at: &str, route: &Route, query: &Query, name: &str) {
        let Some(pool) = self.config.pool.get(name) else { return };
        let key = format!("{at}.query.database");
        match (pool.per, &query.database) {
            (Some(Per::Database), None) if query.dialect == Dialect::Neon => {}
            (Some(Per::Database), None) => {
                let message =
                    "the pool is one for each database: say where a request names it, `path` or `header:NAME`";
                self.wrong(key, message);
            }
            (None, Some(_)) => self.wrong(key, "the pool has one database: `per` is not set for it"),
            (Some(Per::Role), Some(_)) => self.wrong(key, "the pool has one database: it is one for each role"),
            (Some(Per::Role), None) => self.roles_of(at, route, name, pool),
            _ if query.database == Some(NamedBy::Path) && route.path.is_none() => {
                self.wrong(key, "`path` needs a route with `path`: behind `exact` there is nothing");
            }
            _ => {}
        }
    }

    /// Each consumer of a route has a role in its pool.
    fn roles_of(&mut self, at: &str, route: &Route, pool_name: &str, pool: &Pool) {
        let Some(Access::Consumers(names)) = &route.access else {
            let message = "the pool is one for each role: name consumers, of whom each has one";
            return self.unless(route.access.is_none(), format!("{at}.access"), message);
        };
        for (index, name) in names.iter().enumerate().filter(|(_, name)| self.config.consumer.contains_key(*name)) {
            let role = self.config.role_of(name);
            let message = format!("`{name}` has the role `{role}`, which is none of `pool.{pool_name}.roles`");
            self.unless(pool.roles.contains_key(role), format!("{at}.access[{index}]"), message);
        }
    }

    fn tunnel(&mut self, at: &str, query: &Query) {
        let names = query.endpoints.values().chain([&query.pool]);
        let why = names.filter_map(|name| self.config.pool.get(name)).find_map(|pool| query.why_no_tunnel(pool));
        if let Some(why) = why.filter(|_| query.tunnel.is_some_and(|mode| mode != TunnelMode::Off)) {
            self.wrong(format!("{at}.query.tunnel"), why);
        }
        self.positive(&format!("{at}.query"), &[("tunnel_idle", query.tunnel_idle)]);
    }

    fn respond(&mut self, at: &str, respond: &Respond) {
        self.number(format!("{at}.status"), respond.status, 200, 599);
        let bodiless = matches!(respond.status, 204 | 205 | 304) && !respond.body.is_empty();
        self.unless(!bodiless, format!("{at}.body"), format!("an answer of status {} has none", respond.status));
        let valid = HeaderValue::from_str(&respond.content_type).is_ok() && respond.content_type.contains('/');
        self.unless(valid, format!("{at}.content_type"), "must be a media type such as `text/html; charset=utf-8`");
    }

    fn redirect(&mut self, at: &str, redirect: &Redirect) {
        let known = matches!(redirect.status, 301 | 302 | 303 | 307 | 308);
        self.unless(known, format!("{at}.status"), "must be 301, 302, 303, 307 or 308");
        let to = redirect.to.as_str();
        let host = to.strip_prefix("http://").or_else(|| to.strip_prefix("https://"));
        let elsewhere = host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '{']));
        // `//evil.example` is another host, not a path; so would `/{path}` be.
        let here = to.starts_with('/') && !to.starts_with("//") && !to.starts_with("/{");
        let printable = to.bytes().all(|b| b.is_ascii_graphic());
        let message = "must be an absolute URL (http:// or https://) or a path with one `/` in front, percent-encoded";
        self.unless((elsewhere || here) && printable, format!("{at}.to"), message);
    }

    fn admission(&mut self, at: &str, route: &Route) {
        let config = self.config;
        for (index, limit) in route.limits.iter().enumerate() {
            let key = format!("{at}.limits[{index}]");
            if route.limits[..index].contains(limit) {
                self.wrong(&key, format!("`{limit}` is there already"));
            }
            self.refer(key, "limit", limit, config.limit.keys());
        }
        if let Some(Access::Consumers(consumers)) = &route.access {
            let message = "the list is empty: nobody could call; name consumers, or write `access = \"open\"`";
            self.unless(!consumers.is_empty(), format!("{at}.access"), message);
            for (index, consumer) in consumers.iter().enumerate() {
                self.refer(format!("{at}.access[{index}]"), "consumer", consumer, config.consumer.keys());
            }
        }
        self.positive(at, &[("deadline", route.deadline)]);
        if let Some(cors) = &route.cors {
            self.cors(&format!("{at}.cors"), cors);
        }
    }

    fn cors(&mut self, at: &str, cors: &Cors) {
        self.unless(!cors.origins.is_empty(), format!("{at}.origins"), "the list is empty; leave `cors` out instead");
        let any = cors.origins.iter().any(|origin| origin == "*");
        self.unless(!any || cors.origins.len() == 1, format!("{at}.origins"), "`*` admits all: leave the others out");
        for (index, origin) in cors.origins.iter().enumerate().filter(|(_, origin)| *origin != "*") {
            self.parsed(syntax::origin(origin), format!("{at}.origins[{index}]"));
        }
    }
}

/// A path in the normal form that requests are brought to; any other would never match.
fn path_form(path: &str) -> Result<(), String> {
    let why = if !path.starts_with('/') {
        "must start with `/`"
    } else if path.contains(['?', '#']) {
        "must not hold `?` or `#`: a route is of the path alone"
    } else if path.contains("//") {
        "must not hold an empty segment (`//`)"
    } else if path.split('/').any(|segment| segment == "." || segment == "..") {
        "must not hold `.` or `..` as a segment: requests are resolved first"
    } else if path.contains('*') {
        "must not hold `*`; `path` matches everything below it"
    } else if !path.bytes().all(|b| b.is_ascii_graphic()) {
        "must be percent-encoded"
    } else {
        return Ok(());
    };
    Err(why.into())
}

pub(super) fn method_form(method: &str) -> Result<(), String> {
    let upper = method.to_ascii_uppercase();
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    match Method::from_bytes(method.as_bytes()) {
        Err(_) => Err(format!("`{method}` is not a method")),
        Ok(_) if method == "CONNECT" => Err("CONNECT is not served".into()),
        Ok(_) if method != upper && known.contains(&upper.as_str()) => {
            Err(format!("`{method}` is not `{upper}`: methods are case-sensitive"))
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_in_normal_form() {
        for path in ["/", "/a", "/a/", "/a/b.c", "/%20", "/..a"] {
            assert_eq!(path_form(path), Ok(()), "{path}");
        }
        for path in ["", "a", "/a?b", "/a#b", "//", "/a//b", "/./a", "/a/..", "/a/*", "/ a", "/é"] {
            assert!(path_form(path).is_err(), "{path}");
        }
    }

    #[test]
    fn methods_are_tokens() {
        for method in ["GET", "PROPFIND", "m-search"] {
            assert_eq!(method_form(method), Ok(()), "{method}");
        }
        for method in ["", "G T", "get", "CONNECT", "GÉT"] {
            assert!(method_form(method).is_err(), "{method}");
        }
    }
}
