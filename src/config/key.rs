//! How a key's place is written: `pool.demo.size.max`, `route[0].path`, `plugin."a b".path`.

use std::fmt::Write as _;

/// The key `name` in the table `parent`; the parent of a top-level key is empty.
pub(super) fn join(parent: &str, name: &str) -> String {
    let mut key = parent.to_owned();
    if !key.is_empty() {
        key.push('.');
    }
    if is_bare(name) {
        key.push_str(name);
    } else {
        let _ = write!(key, "{name:?}");
    }
    key
}

/// The element `index` of the list `parent`, counted from 0.
pub(super) fn item(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}

/// The key's parent: `pool.demo` of `pool.demo.url`, `route` of `route[0]`; none for a top-level key.
pub(super) fn parent(key: &str) -> Option<&str> {
    let (mut quoted, mut escaped, mut cut) = (false, false, None);
    for (at, c) in key.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '.' | '[' if !quoted => cut = Some(at),
            _ => {}
        }
    }
    cut.map(|at| &key[..at])
}

/// Whether `key` is `ancestor`, or lies in it.
pub(super) fn is_within(key: &str, ancestor: &str) -> bool {
    key.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether TOML takes `name` without quotes.
pub(super) fn is_bare(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_together_and_apart() {
        let odd = join("plugin", "a.\"b[");
        assert_eq!(odd, r#"plugin."a.\"b[""#);
        assert_eq!(parent(&odd), Some("plugin"));
        assert_eq!(parent(&item("route", 3)), Some("route"));
        assert_eq!(parent("route[3].path"), Some("route[3]"));
        assert_eq!(parent("log"), None);
        assert!(is_within("pool.a.url", "pool.a") && is_within("pool.a", "pool.a") && is_within("route[1]", "route"));
        assert!(!is_within("pool.ab", "pool.a") && !is_within("pool", "pool.a"));
    }
}
