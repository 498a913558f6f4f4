//! A statement without what its caller put into it, for logs and figures.
//!
//! `SELECT * FROM t WHERE id IN (1, 2) -- mine` becomes `SELECT * FROM t WHERE id IN (?)`: literals and parameters are
//! `?`, lists of them and of rows of them are one, comments are dropped, white space is one blank. Case and names stay.
//! Whatever stands in a string never comes through, not even from a text that is cut short or is no SQL.
//!
//! A long one is cut, and ends with a hash of the whole, so that two that begin alike are two.

use sha2::{Digest, Sha256};

use super::lex::{Token, tokens};

/// Longest fingerprint, in bytes: enough to know a statement by.
const LONGEST: usize = 1024;

/// Read of a text at most: reading more would take a worker longer than it is worth.
const LONGEST_READ: usize = 64 << 10;

/// The fingerprint of `sql`.
pub fn fingerprint(sql: &str) -> String {
    let read = &sql[..sql.floor_char_boundary(LONGEST_READ)];
    let mut out = whole(read);
    if out.len() <= LONGEST {
        out.push_str(if read.len() < sql.len() { "…" } else { "" });
        return out;
    }
    let digest = Sha256::digest(&out);
    let hash = digest[..8].iter().fold(0, |hash: u64, byte| hash << 8 | u64::from(*byte));
    out.truncate(out.floor_char_boundary(LONGEST));
    out + &format!("… #{hash:016x}")
}

/// All of it.
fn whole(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len().min(LONGEST));
    let mut gap = false;
    for (token, text) in tokens(sql) {
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
            _ => out.push_str(text),
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
        let (text, hash) = print.rsplit_once("… #").unwrap();
        assert!(text.len() == LONGEST && hash.len() == 16 && long.starts_with(text), "{print}");
        assert_eq!(fingerprint(&format!("{long} where x = 1")), fingerprint(&format!("{long} where x = 2")));
        assert_ne!(fingerprint(&format!("{long} where x = 1")), print, "what differs behind the cut is another one");
        assert!(fingerprint(&"x".repeat(9000)).len() <= LONGEST + 24);
        let list = vec!["1"; 5000].join(", ");
        assert_eq!(fingerprint(&format!("select * from t where id in ({list})")), "select * from t where id in (?)");
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
