//! One spelling for each path, decided before anything looks at it.
//!
//! A router, a limit and an upstream that read one path in three ways are how access rules are walked around. So a path is
//! brought to one form first: unreserved characters decoded (RFC 3986, section 6.2.2.2), other escapes in upper case, empty
//! and dot segments removed (section 5.2.4, except that repeated slashes are merged too), `..` never above the root.
//!
//! Some escapes cannot be decoded without changing what the path means to somebody: an encoded slash, backslash or NUL, and
//! the bare backslash, which some servers take for a slash. They stay as they are and set a flag; the gateway answers 400
//! unless the route lets them through. Where such a separator hides a dot segment (`..%2Fadmin`), or path parameters do
//! (`..;/admin`), the path is refused, whatever the route says: what it leads to depends on who reads it.
//!
//! Path parameters (`/a;x=1/b`) stay, and set a flag: there are servers that route by them and servers that cut them off, and the
//! gateway answers 400 where that would lead past a route ([`without_parameters`]).
//!
//! The query is never touched.

use std::borrow::Cow;

/// A path in its one spelling.
#[derive(Debug, PartialEq, Eq)]
pub struct Normal<'a> {
    /// The path; borrowed when it was normal already.
    pub path: Cow<'a, str>,
    /// It holds an encoded slash, backslash or NUL, or a bare backslash.
    pub encoded_separator: bool,
    /// A segment has parameters (`;…`).
    pub parameters: bool,
}

/// Why a path has no spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with a slash.
    #[error("the path must begin with a slash")]
    Relative,
    /// A `%` without two hexadecimal digits after it.
    #[error("the path holds a broken percent escape")]
    Escape,
    /// A dot segment behind an encoded separator or with parameters.
    #[error("the path hides a dot segment")]
    HiddenDots,
}

/// Brings a path (without query) to its one spelling. Doing so twice changes nothing.
///
/// # Errors
/// The path is malformed, or means different things to different readers.
pub fn normalise(path: &str) -> Result<Normal<'_>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath::Relative);
    }
    if is_plain(path.as_bytes()) {
        return Ok(Normal { path: Cow::Borrowed(path), encoded_separator: false, parameters: false });
    }
    let (decoded, encoded_separator) = decode(path)?;
    let joined = join(&decoded)?;
    let parameters = joined.contains(';');
    let path = if joined == path { Cow::Borrowed(path) } else { Cow::Owned(joined) };
    Ok(Normal { path, encoded_separator, parameters })
}

/// A normal path as servers read it that cut the parameters off each segment (Tomcat, Jetty, and what stands on them).
///
/// # Errors
/// What is left hides a dot segment.
pub fn without_parameters(path: &str) -> Result<String, BadPath> {
    let mut bare = String::with_capacity(path.len());
    for segment in path.split('/').skip(1) {
        bare.push('/');
        bare.push_str(segment.split(';').next().unwrap_or_default());
    }
    join(&bare)
}

/// Nothing in it that could need work: no escape, backslash, empty or dot-led segment.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' | b';' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// Decodes what may be decoded.
fn decode(path: &str) -> Result<(String, bool), BadPath> {
    let mut decoded = String::with_capacity(path.len());
    let mut separator = false;
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        decoded.push_str(&rest[..at]);
        if rest.as_bytes()[at] == b'\\' {
            separator = true;
            decoded.push('\\');
            rest = &rest[at + 1..];
            continue;
        }
        let value = rest.as_bytes().get(at + 1..at + 3).and_then(hex).ok_or(BadPath::Escape)?;
        match value {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => decoded.push(char::from(value)),
            _ => {
                separator |= matches!(value, b'/' | b'\\' | 0);
                decoded.push('%');
                decoded.push_str(&rest[at + 1..at + 3].to_ascii_uppercase());
            }
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    Ok((decoded, separator))
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    match digits {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    }
}

/// Removes empty and dot segments.
fn join(decoded: &str) -> Result<String, BadPath> {
    let mut joined = String::with_capacity(decoded.len());
    let mut open = true;
    for segment in decoded[1..].split('/') {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => joined.truncate(joined.rfind('/').unwrap_or(0)),
            _ if hides_dots(segment) => return Err(BadPath::HiddenDots),
            _ => {
                joined.push('/');
                joined.push_str(segment);
            }
        }
    }
    if open {
        joined.push('/');
    }
    Ok(joined)
}

/// Whether some reader would see a dot segment in this one: split at what others may take for a slash, cut at parameters
/// or at what a C string ends with.
fn hides_dots(segment: &str) -> bool {
    let mut rest = segment;
    loop {
        let end = ["%2F", "%5C", "\\", "%00", ";"].iter().filter_map(|mark| Some((rest.find(mark)?, mark.len()))).min();
        let (part, next) = match end {
            Some((at, length)) => (&rest[..at], Some(&rest[at + length..])),
            None => (rest, None),
        };
        match next {
            _ if matches!(part, "." | "..") => return true,
            Some(next) => rest = next,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> String {
        let normal = normalise(path).unwrap();
        assert!(!normal.encoded_separator, "{path}");
        normal.path.into_owned()
    }

    fn flagged(path: &str) -> String {
        let normal = normalise(path).unwrap();
        assert!(normal.encoded_separator, "{path}");
        normal.path.into_owned()
    }

    #[test]
    fn plain_paths_are_borrowed() {
        for path in
            ["/", "/a", "/a/", "/a/b.c/d", "/a.b", "/~x/!$&'()*+,=:@", "/.well-known/x", "/a/..b", "/a/b..", "/x;v=1"]
        {
            assert!(matches!(normalise(path).unwrap().path, Cow::Borrowed(same) if same == path), "{path}");
        }
    }

    #[test]
    fn dots_slashes_and_escapes() {
        assert_eq!(normal("//a///b//"), "/a/b/");
        assert_eq!(normal("/a/./b/../c"), "/a/c");
        assert_eq!(normal("/a/b/.."), "/a/");
        assert_eq!(normal("/a/."), "/a/");
        assert_eq!(normal("/../../a"), "/a");
        assert_eq!(normal("/.."), "/");
        assert_eq!(normal("/a/%2e%2E/b"), "/b");
        assert_eq!(normal("/%61%2d%5F%7e"), "/a-_~");
        assert_eq!(normal("/%c3%bc%20x"), "/%C3%BC%20x");
        assert_eq!(normal("/%252e%252e/"), "/%252e%252e/");
        assert_eq!(normal("/a//../b"), "/b");
    }

    #[test]
    fn separators_that_cannot_be_decoded_are_flagged_and_kept() {
        assert_eq!(flagged("/a%2fb"), "/a%2Fb");
        assert_eq!(flagged("/a%5cb"), "/a%5Cb");
        assert_eq!(flagged("/a\\b"), "/a\\b");
        assert_eq!(flagged("/a%00"), "/a%00");
        assert_eq!(flagged("/x%2Fy/../b"), "/b");
    }

    #[test]
    fn parameters_are_flagged_kept_and_can_be_cut_off() {
        for (path, bare) in [
            ("/sec;x/echo", "/sec/echo"),
            ("/sec;", "/sec"),
            ("/;x/sec", "/sec"),
            ("/;", "/"),
            ("/a;b;c=/d;/", "/a/d/"),
            ("/a;v=1", "/a"),
        ] {
            let flagged = normalise(path).unwrap();
            assert!(flagged.parameters && flagged.path == path, "{path}");
            assert_eq!(without_parameters(path).as_deref(), Ok(bare), "{path}");
        }
        assert!(!normalise("/a%3Bb").unwrap().parameters);
    }

    #[test]
    fn what_means_two_things_is_refused() {
        for path in [
            "/a/..%2fb",
            "/a%2F../b",
            "/..%5c",
            "/..\\x",
            "/a/..;/b",
            "/.;x/b",
            "/a/..%00/b",
            "/a%2f.%2fb",
            "/a/%2e%2e%2fb",
        ] {
            assert_eq!(normalise(path), Err(BadPath::HiddenDots), "{path}");
        }
        for path in ["/%", "/%4", "/%zz", "/a%+1b", "/%\u{fc}"] {
            assert_eq!(normalise(path), Err(BadPath::Escape), "{path}");
        }
        for path in ["", "*", "a/b", "http://x/"] {
            assert_eq!(normalise(path), Err(BadPath::Relative), "{path}");
        }
    }

    fn segments() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/"),
            Just("."),
            Just(".."),
            Just("%2e"),
            Just("%2F"),
            Just("%5c"),
            Just("\\"),
            Just("%00"),
            Just(";"),
            Just("%41"),
            Just("%25"),
            Just("a"),
            Just("b.c"),
            Just("%c3"),
            Just("%"),
            Just("\u{fc}"),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_normal_path_is_stable_and_has_no_dots(path in segments()) {
            if let Ok(normal) = normalise(&path) {
                let again = normalise(&normal.path);
                prop_assert_eq!(again.as_ref().map(|again| &*again.path), Ok(&*normal.path));
                prop_assert!(normal.path.starts_with('/'));
                prop_assert!(!normal.path.contains("//"));
                for segment in normal.path.split(['/', '\\']).flat_map(|s| s.split("%2F")).flat_map(|s| s.split("%5C")) {
                    prop_assert!(segment != "." && segment != "..", "{:?} of {:?}", normal.path, path);
                }
            }
        }

        #[test]
        fn equal_up_to_escaping_means_equal(path in "/[a-z./~-]{0,16}") {
            let escaped: String = path.bytes().map(|b| if b == b'/' { "/".to_owned() } else { format!("%{b:02x}") }).collect();
            let (plain, escaped) = (normalise(&path), normalise(&escaped));
            prop_assert_eq!(plain.map(|normal| normal.path.into_owned()), escaped.map(|normal| normal.path.into_owned()));
        }

        #[test]
        fn no_text_panics(path in "\\PC{0,32}") {
            let _ = normalise(&path);
        }
    }
}
