//! A trace's identity behind a statement, as sqlcommenter writes it: `/*traceparent='00-…-01'*/`.
//!
//! It is hexadecimal digits and dashes, so that nothing can break out of it. Whether what stands before it lets it be a comment
//! is looked at: behind a string or a comment that does not end it would close what the caller left open, and is left out.

use super::lex::{Token, tokens};
use crate::observe::trace::Trace;

/// The comment for `trace`.
pub(super) fn comment(trace: &Trace) -> String {
    let header = trace.header();
    format!("/*traceparent='{}'*/", String::from_utf8_lossy(header.as_bytes()))
}

/// `sql` with the comment behind it, where that is one.
pub(super) fn behind(sql: &str, comment: &str) -> Option<String> {
    // A line's end, as the text may end in a comment that runs to it.
    let text = format!("{sql}\n{comment}");
    let last = tokens(&text).last();
    last.is_some_and(|(token, text)| token == Token::Comment && text == comment).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::fingerprint;

    const COMMENT: &str = "/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/";

    #[test]
    fn a_trace_is_told_as_sqlcommenter_tells_it() {
        let trace =
            Trace { trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span_id: 0xb7ad_6b71_6920_3331, flags: 1 };
        assert_eq!(comment(&trace), COMMENT);
    }

    #[test]
    fn it_stands_behind_whole_statements_alone() {
        for sql in [
            "select 1",
            "select 1;",
            "select 1 -- as it is",
            "select 'a''b' /* c */",
            "select $$x$$",
            "",
            "select E'\\''",
        ] {
            let told = behind(sql, COMMENT).unwrap();
            assert!(told.starts_with(sql) && told.ends_with(COMMENT), "{told}");
            assert_eq!(fingerprint(&told), fingerprint(sql));
        }
        for open in
            ["select 'a", "select \"a", "select /* a", "select $$ a", "select E'a\\", "select $x$ $$", "select U&'a"]
        {
            assert_eq!(behind(open, COMMENT), None, "{open}");
        }
    }

    proptest! {
        #[test]
        fn what_the_caller_wrote_stays_what_it_was(sql in "[-'\"$/*\\\\a-z0-9 ;\n]{0,40}") {
            if let Some(told) = behind(&sql, COMMENT) {
                let (last, before): (Vec<_>, Vec<_>) = tokens(&told).partition(|(_, text)| *text == COMMENT);
                prop_assert_eq!(last.len(), 1);
                let own: Vec<_> = tokens(&sql).filter(|(token, _)| *token != Token::Space).collect();
                let kept: Vec<_> = before.into_iter().filter(|(token, _)| *token != Token::Space).collect();
                prop_assert_eq!(own, kept);
            }
        }
    }
}
