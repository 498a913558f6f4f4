//! Host patterns, and the trees behind them in order of precedence.

use std::{collections::BTreeMap, fmt};

use super::tree::{Leaf, Tree};

/// Longest host name (RFC 1035, section 2.3.4); a longer one in a request has no route of its own.
const LONGEST: usize = 253;

/// What a route says about the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pattern {
    /// This host, in lower case.
    Exact(String),
    /// Whatever ends in a dot and this, in lower case.
    Below(String),
    /// Any host.
    Any,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "host {name}"),
            Self::Below(name) => write!(f, "host *.{name}"),
            Self::Any => f.write_str("any host"),
        }
    }
}

/// The patterns of a route; no host means any.
pub(super) fn patterns(hosts: &[String]) -> Result<Vec<Pattern>, String> {
    if hosts.is_empty() {
        return Ok(vec![Pattern::Any]);
    }
    let mut patterns = Vec::with_capacity(hosts.len());
    for text in hosts {
        let pattern = pattern(text)?;
        if patterns.contains(&pattern) {
            return Err(format!("host `{text}` is named twice"));
        }
        patterns.push(pattern);
    }
    Ok(patterns)
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let (wild, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
    let name = rest.strip_suffix('.').unwrap_or(rest).to_ascii_lowercase();
    if !text.is_ascii() {
        return Err(format!("host `{text}`: write the name in its ASCII form, `xn--…`"));
    }
    if text == "*" {
        return Err("host `*`: leave `host` out to match any".to_owned());
    }
    let bracketed = name.starts_with('[') && name.ends_with(']') && !wild;
    if !bracketed && name.contains(':') {
        return Err(format!("host `{text}`: leave the port out, and put an IPv6 address in brackets"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || bracketed;
    if name.is_empty() || name.len() > LONGEST || name.split('.').any(str::is_empty) || !name.bytes().all(allowed) {
        return Err(format!("host `{text}` is neither a name, `*.` and a name, nor an IP address"));
    }
    Ok(if wild { Pattern::Below(name) } else { Pattern::Exact(name) })
}

/// Trees by host pattern. Names are sorted, so that a lookup is a binary search: no hashing, nothing to flood.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: Vec<(Box<str>, Tree)>,
    below: Vec<(Box<str>, Tree)>,
    any: Option<Tree>,
}

impl Hosts {
    pub(super) fn new(trees: BTreeMap<Pattern, Tree>) -> Self {
        let mut hosts = Self::default();
        for (pattern, tree) in trees {
            match pattern {
                Pattern::Exact(name) => hosts.exact.push((name.into(), tree)),
                Pattern::Below(name) => hosts.below.push((name.into(), tree)),
                Pattern::Any => hosts.any = Some(tree),
            }
        }
        hosts
    }

    /// What `ask` first finds in the trees that match `host`, the most specific tree first.
    pub(super) fn find<'a>(&'a self, host: &str, ask: impl Fn(&'a Tree) -> Option<&'a Leaf>) -> Option<&'a Leaf> {
        if !self.exact.is_empty() || !self.below.is_empty() {
            let mut buffer = [0_u8; LONGEST];
            if let Some(found) = canonical(host, &mut buffer).and_then(|name| self.find_named(name, &ask)) {
                return Some(found);
            }
        }
        self.any.as_ref().and_then(ask)
    }

    fn find_named<'a>(&'a self, name: &str, ask: &impl Fn(&'a Tree) -> Option<&'a Leaf>) -> Option<&'a Leaf> {
        if let Some(found) = get(&self.exact, name).and_then(ask) {
            return Some(found);
        }
        if self.below.is_empty() {
            return None;
        }
        name.match_indices('.').find_map(|(dot, _)| get(&self.below, &name[dot + 1..]).and_then(ask))
    }
}

fn get<'a>(sorted: &'a [(Box<str>, Tree)], name: &str) -> Option<&'a Tree> {
    let at = sorted.binary_search_by(|(entry, _)| (**entry).cmp(name)).ok()?;
    Some(&sorted[at].1)
}

/// The host in lower case, without port and final dot; none for what no pattern can match.
fn canonical<'a>(host: &str, buffer: &'a mut [u8; LONGEST]) -> Option<&'a str> {
    let bare = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let name = bare.strip_suffix('.').unwrap_or(bare);
    let copy = buffer.get_mut(..name.len())?;
    copy.copy_from_slice(name.as_bytes());
    copy.make_ascii_lowercase();
    std::str::from_utf8(copy).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_case_and_final_dots_do_not_matter() {
        for (host, name) in [
            ("www.Example.COM", "www.example.com"),
            ("www.example.com:8443", "www.example.com"),
            ("www.example.com.", "www.example.com"),
            ("www.example.com.:8443", "www.example.com"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("[::1]:80", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(canonical(host, &mut [0; LONGEST]), Some(name), "{host}");
        }
        assert_eq!(canonical(&"a".repeat(LONGEST + 1), &mut [0; LONGEST]), None);
    }

    #[test]
    fn hosts_that_cannot_match_are_refused() {
        for text in
            ["", "*", "*.", "a..b", "a b", "example.com:80", "*.*.com", "a/b", "bücher.example", "::1", "*.[::1]"]
        {
            assert!(pattern(text).is_err(), "{text}");
        }
        assert_eq!(pattern("*.Example.com."), Ok(Pattern::Below("example.com".to_owned())));
        assert_eq!(pattern("[::1]"), Ok(Pattern::Exact("[::1]".to_owned())));
    }
}
