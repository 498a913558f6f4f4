//! SQL cut into tokens: just enough to find a statement's first words and to take the literals out of it.
//!
//! PostgreSQL's rules (nested comments, dollar quotes, `E''`), which hold for SQLite's text as well, save that SQLite
//! has no nested comments. What is not closed runs to the end. Never fails, and the tokens put together are the text.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// White space.
    Space,
    /// `-- …` or `/* … */`.
    Comment,
    /// A keyword or a plain identifier.
    Word,
    /// A number.
    Number,
    /// A string or bit-string literal, with its prefix.
    Literal,
    /// `"…"`, or SQLite's `` `…` ``.
    Quoted,
    /// `$1`, `?`, `?1`.
    Parameter,
    /// Any other character.
    Other,
}

/// The tokens of a text, in order.
#[derive(Clone, Debug)]
pub(crate) struct Tokens<'a> {
    rest: &'a str,
}

/// Cuts `sql`.
pub(crate) fn tokens(sql: &str) -> Tokens<'_> {
    Tokens { rest: sql }
}

/// The first `N` words of a statement in lower case, past comments and empty statements; fewer words leave empty
/// strings.
pub(crate) fn first_words<const N: usize>(sql: &str) -> [String; N] {
    let mut words = std::array::from_fn(|_| String::new());
    let mut found = 0;
    for (token, text) in tokens(sql) {
        match token {
            Token::Space | Token::Comment => {}
            Token::Other if text == ";" && found == 0 => {}
            Token::Word if found < N => {
                words[found] = text.to_ascii_lowercase();
                found += 1;
            }
            _ => break,
        }
    }
    words
}

/// Whether `word`, in lower case, stands anywhere in `sql`: in code, strings or comments, in either case, on its own.
pub(crate) fn mentions(sql: &str, word: &str) -> bool {
    let (bytes, length) = (sql.as_bytes(), word.len());
    let Some(first) = word.bytes().next() else { return false };
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), bytes).any(|start| {
        let end = start + length;
        bytes.get(start..end).is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes()))
            && !start.checked_sub(1).is_some_and(|before| is_word(bytes[before]))
            && !bytes.get(end).is_some_and(|after| is_word(*after))
    })
}

/// Whether `part`, in lower case, stands anywhere in `sql`, in either case, within a longer word or not.
pub(crate) fn contains(sql: &str, part: &str) -> bool {
    let Some(first) = part.bytes().next() else { return false };
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), sql.as_bytes()).any(|start| {
        sql.as_bytes().get(start..start + part.len()).is_some_and(|found| found.eq_ignore_ascii_case(part.as_bytes()))
    })
}

// === cutting ===

impl<'a> Iterator for Tokens<'a> {
    type Item = (Token, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (token, length) = cut(self.rest)?;
        let (text, rest) = self.rest.split_at(self.rest.ceil_char_boundary(length));
        self.rest = rest;
        Some((token, text))
    }
}

fn cut(rest: &str) -> Option<(Token, usize)> {
    let bytes = rest.as_bytes();
    let next = bytes.get(1).copied().unwrap_or(0);
    Some(match *bytes.first()? {
        b if is_space(b) => (Token::Space, run(bytes, is_space)),
        b'-' if next == b'-' => (Token::Comment, memchr::memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len())),
        b'/' if next == b'*' => (Token::Comment, comment(bytes)),
        b'\'' => (Token::Literal, quoted(bytes, 0, b'\'', false)),
        b'"' => (Token::Quoted, quoted(bytes, 0, b'"', false)),
        b'`' => (Token::Quoted, quoted(bytes, 0, b'`', false)),
        b'$' => dollar(bytes),
        b'?' => (Token::Parameter, 1 + run(&bytes[1..], |b| b.is_ascii_digit())),
        b if b.is_ascii_digit() || (b == b'.' && next.is_ascii_digit()) => (Token::Number, number(bytes)),
        b if is_word(b) => word(bytes),
        _ => (Token::Other, 1),
    })
}

fn word(bytes: &[u8]) -> (Token, usize) {
    let length = run(bytes, is_word);
    let after = bytes.get(length).copied();
    match (&bytes[..length], after) {
        (b"E" | b"e", Some(b'\'')) => (Token::Literal, quoted(bytes, length, b'\'', true)),
        (b"B" | b"b" | b"X" | b"x" | b"N" | b"n", Some(b'\'')) => (Token::Literal, quoted(bytes, length, b'\'', false)),
        (b"U" | b"u", Some(b'&')) if bytes.get(length + 1) == Some(&b'\'') => {
            (Token::Literal, quoted(bytes, length + 1, b'\'', false))
        }
        _ => (Token::Word, length),
    }
}

/// `$1`, `$tag$ … $tag$`, or a lone dollar.
fn dollar(bytes: &[u8]) -> (Token, usize) {
    let digits = run(&bytes[1..], |b| b.is_ascii_digit());
    if digits > 0 {
        return (Token::Parameter, 1 + digits);
    }
    let tag = 1 + run(&bytes[1..], |b| is_word(b) && b != b'$');
    if bytes.get(tag) != Some(&b'$') {
        return (Token::Other, 1);
    }
    let fence = &bytes[..=tag];
    let end = memchr::memmem::find(&bytes[fence.len()..], fence).map_or(bytes.len(), |at| at + 2 * fence.len());
    (Token::Literal, end)
}

/// The length of a quoted text whose opening quote is at `open`; a doubled quote stays inside.
fn quoted(bytes: &[u8], open: usize, quote: u8, escapes: bool) -> usize {
    let mut at = open + 1;
    while let Some(&b) = bytes.get(at) {
        match b {
            b'\\' if escapes => at += 2,
            b if b == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") if depth == 1 => return at + 2,
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

fn number(bytes: &[u8]) -> usize {
    let mut at = run(bytes, |b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
    let exponent = matches!(bytes[at - 1], b'e' | b'E') && !bytes.starts_with(b"0x") && !bytes.starts_with(b"0X");
    // A sign that no digit follows is none: behind it a comment may begin.
    if exponent && matches!(bytes.get(at..at + 2), Some([b'+' | b'-', b'0'..=b'9'])) {
        at += 1 + run(&bytes[at + 1..], |b| b.is_ascii_digit());
    }
    at
}

fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|b| !belongs(*b)).unwrap_or(bytes.len())
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || !b.is_ascii()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_words_are_found_past_noise() {
        assert_eq!(first_words::<2>(" -- x\n /* a /* b */ c */ ;; Set  LOCAL x"), ["set", "local"]);
        assert_eq!(first_words::<2>("(select 1)"), ["", ""]);
        assert_eq!(first_words::<2>("commit; select"), ["commit", ""]);
        assert_eq!(first_words::<1>("\u{b}\u{c}ROLLBACK"), ["rollback"]);
        assert_eq!(first_words::<1>("-- to PostgreSQL a comment ends here\rcommit"), ["commit"]);
    }

    #[test]
    fn literals_and_names_are_told_apart() {
        let kinds = |sql| tokens(sql).filter(|(t, _)| *t != Token::Space).map(|(t, _)| t).collect::<Vec<_>>();
        assert_eq!(kinds("'it''s' \"a\"\"b\""), [Token::Literal, Token::Quoted]);
        assert_eq!(kinds(r"E'a\'b' x'00' U&'d' $$a$b$$ $t$ $$ $t$"), [Token::Literal; 5]);
        assert_eq!(kinds("$1 ?2 ? t1 1.5e-3 .5 0xff"), {
            use Token::{Number, Parameter, Word};
            [Parameter, Parameter, Parameter, Word, Number, Number, Number]
        });
        assert_eq!(kinds(r"'a\' x"), [Token::Literal, Token::Word], "no escapes in a plain string");
    }

    #[test]
    fn words_are_found_anywhere_but_whole() {
        assert!(mentions("do $$ begin create TEMP table x() $$", "temp"));
        assert!(!mentions("select temperature, atemp, temp_x", "temp"));
        assert!(contains("select PG_TRY_ADVISORY_lock(1)", "advisory"));
    }

    proptest! {
        #[test]
        fn tokens_put_together_are_the_text(sql in "\\PC{0,60}|[-'\"$/*a-z0-9 ;?.\\\\e+é]{0,60}") {
            let joined: String = tokens(&sql).map(|(_, text)| text).collect();
            prop_assert_eq!(joined, sql);
        }
    }
}
