//! What a route says about the path, checked against the form in which paths arrive.

use crate::config::model::Route;

/// Where in a tree of path segments a route belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The segments from the root.
    pub(super) segments: Vec<String>,
    /// Whether nothing may follow.
    pub(super) whole: bool,
}

/// The place of a route. A prefix loses the slash at its end; a whole path keeps it, as an empty last segment.
pub(super) fn place(route: &Route) -> Result<Place, String> {
    let (text, whole) = match (&route.path, &route.exact) {
        (Some(prefix), None) => (prefix, false),
        (None, Some(exact)) => (exact, true),
        (Some(_), Some(_)) => return Err("a route has `path` or `exact`, not both".to_owned()),
        (None, None) => return Err("a route needs `path` or `exact`".to_owned()),
    };
    let Some(rest) = text.strip_prefix('/') else { return Err(format!("`{text}` does not start with `/`")) };
    let rest = if whole { rest } else { rest.strip_suffix('/').unwrap_or(rest) };
    let segments: Vec<String> =
        if rest.is_empty() && !whole { Vec::new() } else { rest.split('/').map(str::to_owned).collect() };
    for (position, segment) in segments.iter().enumerate() {
        let last = position + 1 == segments.len();
        if segment.is_empty() && !(whole && last) {
            return Err(format!("`{text}` has an empty segment, and paths arrive without"));
        }
        check(segment).map_err(|reason| format!("`{text}` {reason}"))?;
    }
    Ok(Place { segments, whole })
}

/// Refuses what a normalised path does not contain (RFC 3986, sections 3.3 and 6.2.2).
fn check(segment: &str) -> Result<(), String> {
    if segment == "." || segment == ".." {
        return Err("has a `.` or `..` segment, and paths arrive without".to_owned());
    }
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let Some(code) = high.zip(low).map(|(high, low)| high << 4 | low) else {
                    return Err("has a `%` that is not followed by two hexadecimal digits in upper case".to_owned());
                };
                if unreserved(code) {
                    return Err(format!("has `%{code:02X}`, which arrives as `{}`", char::from(code)));
                }
            }
            b'?' | b'#' => return Err(format!("has a `{}`: only the path is matched", char::from(byte))),
            _ if unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte) => {}
            _ => return Err(format!("has a character that arrives as `%{byte:02X}`")),
        }
    }
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}
