//! The routes of one host pattern: a tree of path segments.

use http::{HeaderValue, Method};

use super::{Found, path::Place};

/// A tree of path segments; node 0 is the root. A path is walked once, whatever the number of routes.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by segment.
    children: Vec<(Box<str>, usize)>,
    /// Routes for paths that end here.
    whole: Option<Leaf>,
    /// Routes for paths that end here or go on.
    prefix: Option<Leaf>,
}

/// Routes that differ only in their methods.
#[derive(Debug)]
pub(super) struct Leaf {
    named: Vec<(Method, usize)>,
    unnamed: Option<usize>,
    allow: HeaderValue,
}

/// Two routes that match the same.
#[derive(Debug)]
pub(super) struct Clash {
    /// The route that was there first.
    pub(super) with: usize,
    /// The method both name; none: both leave it open.
    pub(super) method: Option<Method>,
}

// === impl Tree ===

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Tree {
    /// Adds a route, unless it clashes.
    pub(super) fn insert(&mut self, place: &Place, methods: &[Method], route: usize) -> Vec<Clash> {
        let mut at = 0;
        for segment in &place.segments {
            at = self.child(at, segment);
        }
        let node = &mut self.nodes[at];
        let leaf = if place.whole { &mut node.whole } else { &mut node.prefix };
        leaf.get_or_insert_with(Leaf::empty).insert(methods, route)
    }

    fn child(&mut self, parent: usize, segment: &str) -> usize {
        let next = self.nodes.len();
        let children = &mut self.nodes[parent].children;
        match children.binary_search_by(|(name, _)| (**name).cmp(segment)) {
            Ok(position) => children[position].1,
            Err(position) => {
                children.insert(position, (segment.into(), next));
                self.nodes.push(Node::default());
                next
            }
        }
    }

    /// The most specific leaf for a path: where the whole of it leads, else its longest prefix.
    pub(super) fn find(&self, path: &str) -> Option<&Leaf> {
        let rest = path.strip_prefix('/')?;
        let mut node = &self.nodes[0];
        let mut longest = node.prefix.as_ref();
        for segment in rest.split('/') {
            let Ok(position) = node.children.binary_search_by(|(name, _)| (**name).cmp(segment)) else {
                return longest;
            };
            node = &self.nodes[node.children[position].1];
            longest = node.prefix.as_ref().or(longest);
        }
        node.whole.as_ref().or(longest)
    }
}

// === impl Leaf ===

impl Leaf {
    fn empty() -> Self {
        Self { named: Vec::new(), unnamed: None, allow: HeaderValue::from_static("") }
    }

    fn insert(&mut self, methods: &[Method], route: usize) -> Vec<Clash> {
        if methods.is_empty() {
            let with = *self.unnamed.get_or_insert(route);
            return if with == route { Vec::new() } else { vec![Clash { with, method: None }] };
        }
        let mut clashes = Vec::new();
        for method in methods {
            match self.named.iter().find(|(named, _)| named == method) {
                Some((_, with)) => clashes.push(Clash { with: *with, method: Some(method.clone()) }),
                None => self.named.push((method.clone(), route)),
            }
        }
        self.allow = self.allowed();
        clashes
    }

    /// The route for a method.
    pub(super) fn choose(&self, method: &Method) -> Found<'_> {
        let named = |wanted: &Method| self.named.iter().find(|(named, _)| named == wanted).map(|(_, route)| *route);
        let found = named(method).or_else(|| if *method == Method::HEAD { named(&Method::GET) } else { None });
        match found.or(self.unnamed) {
            Some(route) => Found::Route(route),
            None => Found::MethodNotAllowed(&self.allow),
        }
    }

    fn allowed(&self) -> HeaderValue {
        let mut names: Vec<&str> = self.named.iter().map(|(method, _)| method.as_str()).collect();
        if names.contains(&"GET") && !names.contains(&"HEAD") {
            names.push("HEAD");
        }
        names.sort_unstable();
        HeaderValue::from_str(&names.join(", ")).expect("methods are tokens")
    }
}
