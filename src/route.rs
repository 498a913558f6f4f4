//! From a request's host, path and method to a route.
//!
//! [`RouteTable::build`] turns the configuration's routes into a table; [`RouteTable::lookup`] asks it, once a request,
//! without allocating and in time proportional to the length of host and path.
//!
//! # Which route matches
//!
//! 1. **Host.** An exact name before `*.example.com` before no host at all; of two wildcards the longer. A wildcard stands
//!    for one or more labels. Case, a port and a final dot do not matter. Where the more specific host has no route for
//!    the path, the next less specific one is asked: a route without a host is a fallback for every host.
//! 2. **Path.** The whole path (`exact`) before the longest prefix (`path`), which ends on a segment boundary: `/a` matches
//!    `/a`, `/a/` and `/a/b`, not `/ab`. A slash at the end of a prefix changes nothing; at the end of an exact path it
//!    does. The path is compared as it comes, so it must be normalised before (the edge does that), and the
//!    configuration must be written that way: [`RouteTable::build`] refuses what could never match.
//! 3. **Method.** A route that names the method before one that names none. A route for `GET` also answers `HEAD`, unless
//!    another names it.
//!
//! The choice is made in that order and not taken back: a path that is routed for other methods is answered with 405, even
//! if a shorter prefix would take the method.
//!
//! **Ambiguity is an error, not a precedence puzzle.** Two routes for the same host, the same path and a common method, or
//! both for any method, are refused; the order of routes in the file means nothing.
//!
//! A path with parameters (`/a;x=1/b`) is compared with them. As some servers cut them off, [`RouteTable::is_ambiguous`] tells
//! whether such a server would see another route's path.
//!
//! Left out: regular expressions, headers and query strings in matches.

mod host;
mod path;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;

use http::{HeaderValue, Method};

use crate::{config::model::Route, edge::normalise};
use host::{Hosts, Pattern};
use tree::{Clash, Tree};

/// The routes of a configuration, ready to be asked.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: Hosts,
}

/// What [`RouteTable::lookup`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The route with this index in the configuration.
    Route(usize),
    /// The path is routed, the method is not; the value is for the `Allow` field of a 405.
    MethodNotAllowed(&'a HeaderValue),
    /// Nothing matches.
    NotFound,
}

/// Why routes cannot be put in one table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RouteError {
    /// Indexes of the routes concerned, ascending.
    pub routes: Vec<usize>,
    /// What is wrong, naming them.
    pub message: String,
}

impl RouteTable {
    /// Builds the table.
    ///
    /// # Errors
    /// Everything that is wrong: hosts, paths and methods that could never match, and every pair of routes that match the same.
    pub fn build(routes: &[Route]) -> Result<Self, Vec<RouteError>> {
        let mut errors = Vec::new();
        let mut trees: BTreeMap<Pattern, Tree> = BTreeMap::new();
        for (index, route) in routes.iter().enumerate() {
            let mut wrong = |text: String| errors.push(RouteError { routes: vec![index], message: text });
            let place = path::place(route).map_err(&mut wrong).ok();
            let methods = methods(route).map_err(&mut wrong).ok();
            let patterns = host::patterns(&route.host).map_err(&mut wrong).ok();
            let (Some(place), Some(methods), Some(patterns)) = (place, methods, patterns) else { continue };
            for pattern in patterns {
                let on = pattern.to_string();
                for clash in trees.entry(pattern).or_default().insert(&place, &methods, index) {
                    report(&mut errors, routes, &clash, index, &on);
                }
            }
        }
        if errors.is_empty() { Ok(Self { hosts: Hosts::new(trees) }) } else { Err(errors) }
    }

    /// Finds the route for a request. `host` is the `Host` field or the authority, with or without a port.
    pub fn lookup(&self, host: &str, path: &str, method: &Method) -> Found<'_> {
        self.hosts.find(host, |tree| tree.find(path)).map_or(Found::NotFound, |leaf| leaf.choose(method))
    }
}

impl RouteTable {
    /// Whether whoever cuts the parameters (`;…`) off a path finds it routed otherwise: then what guards that route would be
    /// walked around.
    pub fn is_ambiguous(&self, host: &str, path: &str, method: &Method) -> bool {
        let Ok(bare) = normalise::without_parameters(path) else { return true };
        match self.lookup(host, &bare, method) {
            Found::NotFound => false,
            found => found != self.lookup(host, path, method),
        }
    }
}

/// A name for a route: its own, else its match as text, such as `GET,POST www.example.com/api`.
pub fn describe(route: &Route) -> String {
    if let Some(name) = &route.name {
        return name.clone();
    }
    let path = match (&route.exact, &route.path) {
        (Some(exact), _) => format!("={exact}"),
        (None, Some(prefix)) => prefix.clone(),
        (None, None) => String::new(),
    };
    let methods = if route.methods.is_empty() { String::new() } else { format!("{} ", route.methods.join(",")) };
    format!("{methods}{}{path}", route.host.join(","))
}

/// The methods a route names; none means any.
fn methods(route: &Route) -> Result<Vec<Method>, String> {
    let mut methods = Vec::with_capacity(route.methods.len());
    for name in &route.methods {
        let method = Method::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a method"))?;
        if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(format!("methods are case-sensitive: write `{}` for `{name}`", name.to_ascii_uppercase()));
        }
        if methods.contains(&method) {
            return Err(format!("`{name}` is named twice"));
        }
        methods.push(method);
    }
    Ok(methods)
}

/// Adds an error for two routes that match the same, once a pair.
fn report(errors: &mut Vec<RouteError>, routes: &[Route], clash: &Clash, index: usize, host: &str) {
    let pair = vec![clash.with, index];
    if errors.iter().any(|error| error.routes == pair) {
        return;
    }
    let name = |index: usize| format!("route {} (`{}`)", index + 1, describe(&routes[index]));
    let method = clash.method.as_ref().map_or("any method", Method::as_str);
    let message = format!("{} and {} both match {method} on {host}", name(clash.with), name(index));
    errors.push(RouteError { routes: pair, message });
}
