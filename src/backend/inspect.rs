//! What can be said of a statement's text without a database.

use std::collections::BTreeSet;

use super::{
    lex::{Token, first_words, tokens},
    postgres::effects,
};

/// What a text is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Statements in it, empty ones left out.
    pub statements: usize,
    /// The numbers of its placeholders: `$1` or, where there is none of these, `?1`.
    pub placeholders: BTreeSet<u32>,
    /// Placeholders without a number (`?`), where there is none with one. In PostgreSQL they are operators.
    pub unnumbered: usize,
    /// Its first word, in lower case.
    pub verb: String,
    /// It begins, ends or changes a transaction.
    pub controls: bool,
    /// It copies from or to the client.
    pub copies: bool,
    /// It changes the session, by its first word.
    pub session: bool,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// White space or a comment.
    Gap,
    /// Anything else.
    Code,
    /// A literal or a name that is not closed.
    Open,
}

/// The pieces of `sql`, in order; put together they are the text.
pub fn pieces(sql: &str) -> impl Iterator<Item = (Piece, &str)> {
    let mut at = 0;
    tokens(sql).map(move |(token, text)| {
        at += text.len();
        let piece = match token {
            Token::Space | Token::Comment => Piece::Gap,
            // What is not closed goes on to the end.
            Token::Literal | Token::Quoted if at == sql.len() && !is_closed(text) => Piece::Open,
            _ => Piece::Code,
        };
        (piece, text)
    })
}

/// Whether a literal or a name would take no more.
fn is_closed(text: &str) -> bool {
    let longer = format!("{text} ");
    tokens(&longer).next().is_some_and(|(_, taken)| taken.len() == text.len())
}

/// Reads `sql`.
pub fn inspect(sql: &str) -> Inspection {
    let mut found = Inspection::default();
    let (mut inside, mut others) = (false, BTreeSet::new());
    for (token, text) in tokens(sql) {
        match token {
            Token::Space | Token::Comment => continue,
            Token::Other if text == ";" => {
                inside = false;
                continue;
            }
            Token::Parameter => match (text.as_bytes()[0], text[1..].parse()) {
                (b'$', Ok(number)) => _ = found.placeholders.insert(number),
                (_, Ok(number)) => _ = others.insert(number),
                // A number that is too large to be one.
                (b'$', Err(_)) => _ = found.placeholders.insert(u32::MAX),
                (_, Err(_)) => found.unnumbered += 1,
            },
            _ => {}
        }
        found.statements += usize::from(!inside);
        inside = true;
    }
    if found.placeholders.is_empty() {
        found.placeholders = others;
    }
    if !found.placeholders.is_empty() {
        found.unnumbered = 0;
    }
    let effects = effects(sql);
    let [verb] = first_words::<1>(sql);
    Inspection { verb, controls: effects.control, copies: effects.copy, session: effects.session, ..found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_and_placeholders_are_counted_in_code_alone() {
        for (sql, statements, placeholders, unnumbered) in [
            ("select 1", 1, &[][..], 0),
            ("", 0, &[], 0),
            (" ; -- nothing\n /* $1; */ ;", 0, &[], 0),
            ("select $1, $2 + $1;", 1, &[1, 2], 0),
            ("select '$1;', \"$2;\", $$ $3; $$, $4", 1, &[4], 0),
            ("select 1; select 2", 2, &[], 0),
            ("select 1;; delete from t;", 2, &[], 0),
            ("select data ? 'a', $1", 1, &[1], 0),
            ("select ?2, ?1", 1, &[1, 2], 0),
            ("select ?, ?", 1, &[], 2),
            ("select $99999999999", 1, &[u32::MAX], 0),
            ("do $x$ begin; end $x$", 1, &[], 0),
        ] {
            let found = inspect(sql);
            let numbers: Vec<u32> = found.placeholders.iter().copied().collect();
            assert_eq!(
                (found.statements, &*numbers, found.unnumbered),
                (statements, placeholders, unnumbered),
                "{sql}"
            );
        }
    }

    #[test]
    fn what_a_statement_does_beyond_itself_is_seen() {
        let seen = |sql| {
            let found = inspect(sql);
            (found.verb, found.controls, found.copies, found.session)
        };
        assert_eq!(seen("/* x */ Select 1"), ("select".into(), false, false, false));
        assert_eq!(seen("COMMIT"), ("commit".into(), true, false, false));
        assert_eq!(seen("set transaction read write"), ("set".into(), true, false, false));
        assert_eq!(seen("set role boss"), ("set".into(), false, false, true));
        assert_eq!(seen("copy t from stdin"), ("copy".into(), false, true, false));
    }
}
