//! No file makes loading panic, hang, or report nothing while refusing.

use proptest::prelude::*;

use super::environment;
use crate::config::load::load_content;

const SHIPPED: &str = include_str!("../demonstration.toml");
const EVERY_KEY: &str = include_str!("../every_key.toml");

fn survives(content: &[u8], variables: &[(&str, &str)]) {
    if let Err(report) = load_content(content, &environment(variables)) {
        assert!(!report.is_empty());
        assert_eq!(report.to_string().lines().count(), report.problems().len());
    }
}

/// A line of TOML that is more often right than not.
fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "server", "log", "admin", "listener", "plugin", "pool", "route", "limit", "a", "tls", "size", "max", "url",
        "env", "native", "fallback", "address", "key", "rate", "query", "path", "config", "\"\"", "\"a.b\"", "'é'",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "1.5",
        "nan",
        "true",
        "false",
        "\"\"",
        "\"x\"",
        "\"1s\"",
        "\"1/s\"",
        "\"/\"",
        "\"127.0.0.1:0\"",
        "[]",
        "[1, {}]",
        "[[]]",
        "{}",
        "{ env = \"X\" }",
        "{ native = \"fixed\" }",
        "{ a.b = 1 }",
        "1979-05-27",
        "\"sqlite\"",
        "[\"x\"]",
    ]);
    let key = prop::collection::vec(name, 1..4).prop_map(|names| names.join("."));
    (key, value, 0..6_u8).prop_map(|(key, value, form)| match form {
        0 => format!("[{key}]\n"),
        1 => format!("[[{key}]]\n"),
        2 => "[[route]]\n".into(),
        _ => format!("{key} = {value}\n"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(content in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&content, &[]);
    }

    #[test]
    fn any_lines_are_survived(lines in prop::collection::vec(line(), 0..12), value in ".*") {
        survives(lines.concat().as_bytes(), &[("SLUICEGATE_POOL__A__URL", &value)]);
    }

    #[test]
    fn a_damaged_file_is_survived(
        which in prop::sample::select(vec![SHIPPED, EVERY_KEY]),
        at in any::<prop::sample::Index>(),
        length in 0..40_usize,
        new in "[a-z=\\[\\]{}\"'.,#\n0-9é-]{0,8}",
    ) {
        let start = at.index(which.len());
        let mut content = which.as_bytes().to_vec();
        content.splice(start..(start + length).min(which.len()), new.bytes());
        survives(&content, &[]);
    }

    #[test]
    fn any_variable_is_survived(name in "[A-Za-z_]{0,40}", value in ".*") {
        survives(SHIPPED.as_bytes(), &[(&format!("SLUICEGATE_{name}"), &value)]);
    }
}
