//! A statement's normal form, and its digest.
//!
//! What two texts may differ in and have one form must be nothing to any database, but that one of them is an error (two literals
//! in a row are one only with a line's end between them): so only what is a comment or white space under every reading is dropped. A text that one database could read otherwise than this (a backslash in a plain string, a
//! comment in a comment, a backtick, a lone carriage return, something that is not closed) is its own normal form, to the
//! byte.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use super::Digest;
use crate::backend::{Piece, pieces};

/// What `sql` is known by.
pub(super) fn digest(sql: &str) -> Digest {
    Sha256::digest(normal(sql).as_bytes()).into()
}

/// `sql` without comments, with one blank for each gap; literals as they are.
pub(super) fn normal(sql: &str) -> Cow<'_, str> {
    if sql.bytes().any(|b| matches!(b, b'`' | b'[' | b'\\' | b'\r' | 0x0b | 0)) {
        return Cow::Borrowed(sql);
    }
    let mut out = String::with_capacity(sql.len());
    let mut gap = false;
    for (piece, text) in pieces(sql) {
        match piece {
            Piece::Gap if is_plain_gap(text) => gap = true,
            Piece::Open | Piece::Gap => return Cow::Borrowed(sql),
            Piece::Code => {
                if gap && !out.is_empty() {
                    out.push(' ');
                }
                gap = false;
                out.push_str(text);
            }
        }
    }
    Cow::Owned(out)
}

/// White space, `-- …`, or `/* … */` without another in it.
fn is_plain_gap(text: &str) -> bool {
    match text.strip_prefix("/*") {
        Some(rest) => rest.strip_suffix("*/").is_some_and(|inner| !inner.contains("/*") && !inner.contains("*/")),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_and_white_space_do_not_count() {
        let form = "select a , 'x  -- y' from t where b = $1";
        for sql in [
            form,
            "  select a\n, 'x  -- y'\tfrom t -- where c\n where b = $1 ",
            "/* by the app; */select/**/a /* 1 */ , 'x  -- y' from t where b = $1\n--",
        ] {
            assert_eq!(normal(sql), form, "{sql}");
        }
    }

    #[test]
    fn literals_names_case_and_the_lack_of_a_gap_count() {
        let form = normal("select 'a b' from \"T  1\" where x=1");
        for sql in [
            "select 'a  b' from \"T  1\" where x=1",
            "select 'a b' from \"T 1\" where x=1",
            "select 'a b' from \"t  1\" where x=1",
            "select 'a b' from \"T  1\" where x=2",
            "select 'a b' from \"T  1\" where x =1",
            "SELECT 'a b' from \"T  1\" where x=1",
            "select 'a b' from \"T  1\" where x=1;",
            "select 'a b' from \"T  1\" where x=1 union select $$ $$",
        ] {
            assert_ne!(normal(sql), form, "{sql}");
        }
    }

    #[test]
    fn what_databases_read_differently_counts_to_the_byte() {
        for sql in [
            // Hidden from one that knows nested comments.
            "select 1 /* /* */ union select secret from t -- */",
            // Hidden where a backslash escapes.
            r"select 'a\'' /* union select secret from t -- ' */",
            "select 1 -- x\r union select 2",
            "select `a` /* x */",
            "select 'a /* x */",
            "select 1 /* x",
            "select $a$ x /* y */",
            "select 1 \u{b}/* x */",
        ] {
            assert_eq!(normal(sql), sql);
            assert_ne!(digest(sql), digest("select 1"));
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own(sql in "[-'\"$/*a-z0-9 ;\\n]{0,60}|\\PC{0,40}") {
            let once = normal(&sql).into_owned();
            let twice = normal(&once).into_owned();
            prop_assert_eq!(twice, once);
        }

        #[test]
        fn a_comment_between_words_never_counts(words in prop::collection::vec("[a-z]{1,5}|'[a-z -]{0,4}'|[0-9]{1,3}", 1..6), gap in " |\\n\\t|/\\* [a-z;' ]{0,8} \\*/|--[a-z'/;]{0,5}\\n") {
            let sql = words.join(&gap);
            prop_assert_eq!(normal(&sql), words.join(" "));
        }
    }
}
