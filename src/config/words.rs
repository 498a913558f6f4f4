//! Errors in the operator's words: serde speaks of structs, sequences and `u32`.

use figment::error::{Actual, Kind};

/// Names that a message lists; of more, the documentation has a table.
const MAX_LISTED: usize = 12;

/// What is wrong with a value. Text that was given is repeated only where a parser of ours did so: it may be a secret.
pub(super) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Message(text) => text.clone(),
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => unexpected(found, wanted, actual),
        Kind::InvalidLength(found, wanted) => format!("expected {wanted}, found {found}"),
        Kind::UnknownVariant(found, known) => match nearest(found, known.iter().copied()) {
            Some(near) => format!("`{found}` is not known here; did you mean `{near}`?"),
            None => format!("`{found}` is not known here; use {}", list(known, "or")),
        },
        Kind::UnknownField(found, known) => match nearest(found, known.iter().copied()) {
            Some(near) => format!("unknown key; did you mean `{near}`?"),
            None if known.len() > MAX_LISTED => "unknown key, and none here is like it".into(),
            None => format!("unknown key; known here: {}", list(known, "and")),
        },
        Kind::MissingField(_) => "required, but not set".into(),
        other => other.to_string(),
    }
}

/// The same of a value that is secret: of numbers and the like, too, the kind alone.
pub(super) fn describe_secret(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => unexpected(found, wanted, kind_of),
        other => describe(other),
    }
}

fn unexpected(found: &Actual, wanted: &str, say: impl Fn(&Actual) -> String) -> String {
    let wants_text = wanted == "a string" || wanted.starts_with("text");
    let quotes = if wants_text && is_scalar(found) { " in quotes" } else { "" };
    let expected = expected(wanted).replacen("text", &format!("text{quotes}"), 1);
    format!("expected {expected}, found {}", say(found))
}

/// The candidate that `word` most likely meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = if word.chars().count() <= 3 { 1 } else { 2.max(word.chars().count() / 3) };
    let distance = |candidate: &str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
    let near = candidates.into_iter().map(|candidate| (distance(candidate), candidate));
    near.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// The names as `a`, `b` or `c`.
pub(super) fn list<T: AsRef<str>>(names: &[T], conjunction: &str) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.as_slice() {
        [] => "nothing".into(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

fn expected(wanted: &str) -> String {
    let number = |max: u64| format!("a whole number from 0 to {max}");
    match wanted {
        "a string" | "path string" => "text".into(),
        "a boolean" => "`true` or `false`".into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        "u16" => number(u16::MAX.into()),
        "u32" => number(u32::MAX.into()),
        "u64" | "usize" => "a whole number, not negative".into(),
        "f64" => "a number".into(),
        _ if wanted.starts_with("struct ") => "a table".into(),
        _ => wanted.into(),
    }
}

fn actual(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => format!("`{value}`"),
        Actual::Unsigned(value) => format!("the number {value}"),
        Actual::Signed(value) => format!("the number {value}"),
        Actual::Float(value) => format!("the number {value}"),
        Actual::Str(_) | Actual::Char(_) => "text".into(),
        Actual::Seq => "a list".into(),
        Actual::Map => "a table".into(),
        other => other.to_string(),
    }
}

fn kind_of(found: &Actual) -> String {
    match found {
        Actual::Bool(_) => "`true` or `false`".into(),
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number".into(),
        other => actual(other),
    }
}

fn is_scalar(found: &Actual) -> bool {
    matches!(found, Actual::Bool(_) | Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_near() {
        let keys = ["size", "sizing", "slow_query", "url"];
        assert_eq!(nearest("sise", keys), Some("size"));
        assert_eq!(nearest("sizng", keys), Some("sizing"));
        assert_eq!(nearest("slow-querry", keys), Some("slow_query"));
        assert_eq!(nearest("uri", keys), Some("url"));
        assert_eq!(nearest("URL", keys), Some("url"));
        assert_eq!(nearest("frobnicate", keys), None);
        assert_eq!(nearest("", keys), None);
    }

    #[test]
    fn text_that_may_be_secret_is_not_repeated() {
        let kind = Kind::InvalidType(Actual::Str("hunter2".into()), "a sequence".into());
        assert_eq!(describe(&kind), "expected a list, found text");
    }
}
