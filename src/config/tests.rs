//! The room as a whole: what is reported, what is merged, what a reload sees, and that the page about it is true.

mod databases;
mod docs;
mod fuzz;
mod layers;
mod mistakes;
mod named;
mod reload;
mod replicas;

use std::collections::BTreeMap;

use super::{Environment, Loaded, Report, load::load_content};

/// An environment of these variables alone.
fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::Given(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
}

/// Loads a text as `a.toml`, without variables.
fn text(text: &str) -> Result<Loaded, Report> {
    load_content(text.as_bytes(), &Environment::Given(BTreeMap::new()))
}

/// What is reported of a text, with a listener that is right.
fn report(wrong: &str) -> String {
    let sound = "listener.l.address = \"127.0.0.1:0\"\n";
    text(&format!("{sound}{wrong}")).err().map(|report| report.to_string()).unwrap_or_default()
}
