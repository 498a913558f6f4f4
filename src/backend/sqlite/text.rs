//! What can be told from a statement's text without SQLite: how many statements it holds, its command, and whether it
//! controls a transaction. Only the shape of tokens is known here (SQLite's tokenizer, `tokenize.c`); SQLite itself
//! decides what they mean.

/// Why a text is not one statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A second statement begins at this byte.
    Second(usize),
    /// It holds a NUL, where SQLite would stop reading.
    Nul,
}

/// Semicolons in the body of a trigger. More would only cost stack: rusqlite looks for a second statement recursively.
const MAX_TRIGGER_STEPS: usize = 256;

/// Checks that `sql` holds at most one statement.
pub(super) fn single(sql: &str) -> Result<(), Fault> {
    if memchr::memchr(0, sql.as_bytes()).is_some() {
        return Err(Fault::Nul);
    }
    if memchr::memchr(b';', sql.as_bytes()).is_none() {
        return Ok(());
    }
    let allowed = if is_trigger(sql) { MAX_TRIGGER_STEPS } else { 0 };
    let (mut begun, mut ended) = (false, 0);
    for token in Tokens::new(sql) {
        match token.kind {
            Kind::Semicolon => ended += usize::from(begun),
            _ if ended > allowed => return Err(Fault::Second(token.start)),
            _ => begun = true,
        }
    }
    Ok(())
}

/// The command as PostgreSQL's tag would name it: `SELECT`, `INSERT`, `CREATE TABLE`; empty where there is no statement.
pub(super) fn command(sql: &str) -> String {
    let mut words = words(sql);
    let Some(first) = words.next() else { return String::new() };
    let first = first.to_ascii_uppercase();
    match first.as_str() {
        "WITH" => behind_with(sql).to_owned(),
        "VALUES" => "SELECT".to_owned(),
        "REPLACE" => "INSERT".to_owned(),
        "CREATE" | "DROP" | "ALTER" => {
            let noun = words.find(|word| !is_adjective(word)).unwrap_or_default();
            format!("{first} {}", noun.to_ascii_uppercase())
        }
        _ => first,
    }
}

/// Whether the statement begins or ends a transaction or a savepoint.
pub(super) fn controls_transaction(sql: &str) -> bool {
    const CONTROL: [&str; 8] = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"];
    words(sql).next().is_some_and(|first| is_one_of(first, &CONTROL))
}

/// Whether there is anything to run.
pub(super) fn is_empty(sql: &str) -> bool {
    Tokens::new(sql).all(|token| token.kind == Kind::Semicolon)
}

/// The position of a byte as PostgreSQL counts it: in characters, from 1.
pub(super) fn position(sql: &str, byte: usize) -> u32 {
    let before = sql.char_indices().take_while(|(at, _)| *at < byte).count();
    u32::try_from(before + 1).unwrap_or(u32::MAX)
}

fn is_trigger(sql: &str) -> bool {
    let mut words = words(sql).skip_while(|word| is_one_of(word, &["EXPLAIN", "QUERY", "PLAN"]));
    words.next().is_some_and(|word| is_one_of(word, &["CREATE"]))
        && words.find(|word| !is_one_of(word, &["TEMP", "TEMPORARY"])).is_some_and(|word| is_one_of(word, &["TRIGGER"]))
}

fn is_adjective(word: &str) -> bool {
    is_one_of(word, &["TEMP", "TEMPORARY", "UNIQUE", "VIRTUAL"])
}

fn is_one_of(word: &str, list: &[&str]) -> bool {
    list.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// The verb behind the common table expressions: the first one outside of parentheses.
fn behind_with(sql: &str) -> &'static str {
    let mut depth = 0_u32;
    for token in Tokens::new(sql) {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Word if depth == 0 => {
                let word = &sql[token.start..token.end];
                let verbs = [("SELECT", "SELECT"), ("VALUES", "SELECT"), ("INSERT", "INSERT"), ("REPLACE", "INSERT")];
                let verbs = verbs.into_iter().chain([("UPDATE", "UPDATE"), ("DELETE", "DELETE")]);
                if let Some((_, verb)) = verbs.into_iter().find(|(verb, _)| word.eq_ignore_ascii_case(verb)) {
                    return verb;
                }
            }
            _ => {}
        }
    }
    "SELECT"
}

fn words(sql: &str) -> impl Iterator<Item = &str> {
    Tokens::new(sql).filter(|token| token.kind == Kind::Word).map(|token| &sql[token.start..token.end])
}

// === tokens ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Semicolon,
    Open,
    Close,
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

/// Tokens of a text, without white space and comments. Byte offsets always lie on character boundaries: every token ends
/// before an ASCII byte or at the end.
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn new(sql: &'a str) -> Self {
        Self { text: sql.as_bytes(), at: 0 }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn skip_blanks(&mut self) {
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c), _) => self.at += 1,
                (Some(b'-'), Some(b'-')) => self.at = self.after(b"\n", self.at + 2),
                (Some(b'/'), Some(b'*')) => self.at = self.after(b"*/", self.at + 2),
                _ if self.text[self.at..].starts_with("\u{feff}".as_bytes()) => self.at += 3,
                _ => return,
            }
        }
    }

    /// The offset behind the next `needle`, or the end.
    fn after(&self, needle: &[u8], from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        memchr::memmem::find(rest, needle).map_or(self.text.len(), |found| from + found + needle.len())
    }

    /// Behind a quoted token whose closing quote is doubled to escape it (brackets are not).
    fn after_quoted(&self, close: u8) -> usize {
        let mut at = self.at + 1;
        loop {
            at = self.after(&[close], at);
            if close == b']' || self.text.get(at) != Some(&close) {
                return at;
            }
            at += 1;
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        let start = self.at;
        let (kind, end) = match self.byte(0)? {
            b';' => (Kind::Semicolon, start + 1),
            b'(' => (Kind::Open, start + 1),
            b')' => (Kind::Close, start + 1),
            quote @ (b'\'' | b'"' | b'`') => (Kind::Other, self.after_quoted(quote)),
            b'[' => (Kind::Other, self.after_quoted(b']')),
            byte if is_name(byte) => {
                let length = self.text[start..].iter().position(|byte| !is_name(*byte));
                (Kind::Word, length.map_or(self.text.len(), |length| start + length))
            }
            _ => (Kind::Other, start + 1),
        };
        self.at = end;
        Some(Token { kind, start, end })
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_statement_is_found() {
        for fine in ["select 1", "select 1;", " ; select ';' ; ; -- ;x\n", "select '';", "select \"a;b\", [;], `;`", ""]
        {
            assert_eq!(single(fine), Ok(()), "{fine}");
        }
        assert_eq!(single("select 1; select 2"), Err(Fault::Second(10)));
        assert_eq!(single("select 1; /* ; */ x"), Err(Fault::Second(18)));
        assert_eq!(single("select 'it''s;'; x"), Err(Fault::Second(17)));
        assert_eq!(single("select 1\0; x"), Err(Fault::Nul));
    }

    #[test]
    fn a_trigger_may_have_steps() {
        let trigger = "create temp trigger t after insert on a begin select 1; select 2; end";
        assert_eq!(single(trigger), Ok(()));
        assert!(single(&format!("create trigger t {}", "select 1;".repeat(1000))).is_err());
        assert!(single("create table trigger_(a); select 1").is_err());
    }

    #[test]
    fn commands_are_named_like_tags() {
        for (sql, name) in [
            ("select 1", "SELECT"),
            ("/* a */ -- b\n Values (1)", "SELECT"),
            ("with a as (select 1), b(x) as (delete) insert into t select * from a", "INSERT"),
            ("with recursive a as (values(1)) select 1", "SELECT"),
            ("create unique index i on t(a)", "CREATE INDEX"),
            ("create table if not exists t(a)", "CREATE TABLE"),
            ("\u{feff};drop view v", "DROP VIEW"),
            ("replace into t values (1)", "INSERT"),
            ("-- nothing", ""),
        ] {
            assert_eq!(command(sql), name, "{sql}");
        }
    }

    #[test]
    fn transaction_control_is_seen_behind_comments() {
        for sql in ["begin", "/**/ COMMIT", ";end;", "-- x\nrollback to a", "Savepoint s", "\u{feff}release s"] {
            assert!(controls_transaction(sql), "{sql}");
        }
        for sql in ["select 1", "explain commit", "'begin'", ""] {
            assert!(!controls_transaction(sql), "{sql}");
        }
    }

    #[test]
    fn positions_count_characters() {
        assert_eq!(position("häh x", 0), 1);
        assert_eq!(position("häh x", 5), 5);
        assert_eq!(position("ab", 99), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(sql in ".{0,80}") {
            let mut last = 0;
            for token in Tokens::new(&sql) {
                prop_assert!(token.start >= last && token.end > token.start && token.end <= sql.len());
                prop_assert!(token.kind != Kind::Word || sql.get(token.start..token.end).is_some());
                last = token.end;
            }
            let _ = (single(&sql), command(&sql), controls_transaction(&sql), is_empty(&sql));
        }
    }
}
