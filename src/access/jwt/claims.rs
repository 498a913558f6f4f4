//! Whether a token claims what a consumer's tokens must claim.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::config::model::Claim;

/// Whether all of it is claimed.
pub(crate) fn matches(wanted: Option<&BTreeMap<String, Claim>>, claims: &Map<String, Value>) -> bool {
    wanted.into_iter().flatten().all(|(name, claim)| is_claimed(name, claim, claims.get(name)))
}

fn is_claimed(name: &str, wanted: &Claim, said: Option<&Value>) -> bool {
    let Some(said) = said else { return false };
    match (wanted, said) {
        (Claim::AnyOf(any), _) => any.iter().any(|one| is_claimed(name, one, Some(said))),
        (Claim::Within(members), Value::Object(object)) => matches(Some(members), object),
        (Claim::Within(_), _) => false,
        (_, Value::Array(list)) => list.iter().any(|one| is(wanted, one)),
        // Words in one text (RFC 8693, section 4.2).
        (Claim::Text(word), Value::String(words)) if name == "scope" => {
            words == word || words.split(' ').any(|one| one == word)
        }
        _ => is(wanted, said),
    }
}

fn is(wanted: &Claim, said: &Value) -> bool {
    match (wanted, said) {
        (Claim::Text(wanted), Value::String(said)) => wanted == said,
        (Claim::Number(wanted), Value::Number(said)) => said.as_i64() == Some(*wanted),
        (Claim::Flag(wanted), Value::Bool(said)) => wanted == said,
        _ => false,
    }
}
