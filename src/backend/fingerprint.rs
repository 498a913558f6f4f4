//! A statement without what its caller put into it, for logs and figures.
//!
//! `SELECT * FROM t WHERE id IN (1, 2) -- mine` becomes `SELECT * FROM t WHERE id IN (?)`: literals and parameters are
//! `?`, lists of them and of rows of them are one, comments are dropped, white space is one blank. Case and names stay.
//! Whatever stands in a string never comes through, not even from a text that is cut short or is no SQL.

use super::lex::{Token, tokens};

/// Longest fingerprint, in bytes: enough to know a statement by.
const LONGEST: usize = 1024;

/// The fingerprint of `sql`.
pub fn fingerprint(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len().min(LONGEST));
    let mut gap = false;
    for (token, text) in tokens(sql) {
        if out.len() + text.len().min(8) >= LONGEST {
            out.push('…');
            return out;
        }
        match token {
            Token::Space | Token::Comment => {
                gap = true;
                continue;
            }
            _ if gap && !out.is_empty() => out.push(' '),
            _ => {}
        }
        gap = false;
        match token {
            Token::Number | Token::Literal | Token::Parameter => out.push('?'),
            _ => out.extend(text.chars().take(LONGEST - out.len())),
        }
        fold(&mut out);
    }
    out
}

/// Takes back the end of `out` where it repeats the item before it: `?, ?` or `(?), (?)`.
fn fold(out: &mut String) {
    for item in ["?", "(?)"] {
        let Some(before) = out.strip_suffix(item) else { continue };
        let Some(list) = before.trim_end().strip_suffix(',') else { continue };
        let list = list.trim_end();
        if list.ends_with(item) {
            out.truncate(list.len());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_lists_and_comments_go() {
        for (sql, expected) in [
            ("SELECT  1,'a' ,  x FROM t1 -- hi", "SELECT ? , x FROM t1"),
            ("select * from t where a in (1, 2,3) and b=$2", "select * from t where a in (?) and b=?"),
            ("INSERT INTO t VALUES (1,'x'), (2, 'y'),(3,$$z$$)", "INSERT INTO t VALUES (?)"),
            ("/* a */ select -5::int, \"Col\"", "select -?::int, \"Col\""),
            ("select E'a\\'b' || X'00'", "select ? || ?"),
            ("select 'unclosed", "select ?"),
            ("", ""),
        ] {
            assert_eq!(fingerprint(sql), expected);
        }
    }

    #[test]
    fn a_long_statement_is_cut() {
        let long = format!("select {}", (0..5000).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", "));
        let print = fingerprint(&long);
        assert!(print.len() <= LONGEST + 8 && print.ends_with('…'), "{} {print}", print.len());
        assert!(fingerprint(&"x".repeat(9000)).len() <= LONGEST + 8);
    }

    proptest! {
        #[test]
        fn a_strings_content_never_comes_through(
            before in "[a-z ,()=]{0,20}", inside in "[a-z\" $/*-]{0,20}", after in "[a-z ,()=]{0,20}", quote in 0..4_usize,
        ) {
            let secret = format!("SECRET{inside}");
            let quoted = match quote {
                0 => format!("'{secret}'"),
                1 => format!("E'{secret}\\''"),
                2 => format!("'{secret}"),
                _ => format!("$q$ {} $q$", secret.replace('$', "")),
            };
            let print = fingerprint(&format!("{before} {quoted} {after}"));
            prop_assert!(!print.contains("SECRET"), "{}", print);
        }
    }
}
