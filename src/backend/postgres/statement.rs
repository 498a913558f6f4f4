//! What a statement's text says about its effects: which session state it may leave behind, whether it ends a
//! transaction.
//!
//! The extended protocol takes one statement at a time, so that the first words, past comments and empty statements,
//! are reliable. What runs inside functions is not seen here: a word anywhere in the text counts for the calls that are
//! known, and a pool that must not rely on that has `reset = "always"`.

use crate::backend::lex::{contains, first_words, mentions};

/// Session settings differ.
pub(super) const SETTINGS: u32 = 1;
/// Temporary tables may exist.
pub(super) const TEMPORARY: u32 = 2;
/// A channel is listened to.
pub(super) const LISTENING: u32 = 4;
/// Session-wide advisory locks may be held.
pub(super) const LOCKS: u32 = 8;
/// Prepared statements were made or dropped by hand.
pub(super) const PREPARED: u32 = 16;
/// The role may be another one.
pub(super) const ROLE: u32 = 32;
/// A cursor may be open.
pub(super) const CURSORS: u32 = 64;

/// Everything that code which is not seen may do to a session.
pub(super) const ANYTHING: u32 = SETTINGS | TEMPORARY | LISTENING | LOCKS | PREPARED | ROLE | CURSORS;

/// What a text says about its effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::backend) struct Traits {
    /// Session state that it may leave behind, as bits.
    pub(in crate::backend) dirty: u32,
    /// It begins, ends, splits or changes a transaction.
    pub(in crate::backend) control: bool,
    /// It runs code that may commit before it is complete (outside a batch).
    pub(in crate::backend) commits: bool,
    /// It copies from or to the client.
    pub(in crate::backend) copy: bool,
    /// It sets session state by its first word, not by way of a function.
    pub(in crate::backend) session: bool,
    /// It sets something for the transaction only (`SET LOCAL`), although its command tag reads like the lasting kind.
    pub(in crate::backend) passing: bool,
}

/// Reads the traits of `sql`.
pub(in crate::backend) fn traits(sql: &str) -> Traits {
    let words = first_words::<3>(sql);
    let [first, second, third] = words.each_ref().map(String::as_str);
    let mut traits = match first {
        "set" => set(second, third),
        "reset" => lasting(SETTINGS | if matches!(second, "role" | "session") { ROLE } else { 0 }),
        "load" => lasting(SETTINGS),
        "listen" => lasting(LISTENING),
        "declare" => lasting(CURSORS),
        "prepare" if second == "transaction" => control(),
        "prepare" | "deallocate" | "discard" => lasting(PREPARED),
        "do" | "call" => Traits { dirty: ANYTHING | by_hand(sql), commits: true, ..Traits::default() },
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => control(),
        "copy" => Traits { copy: mentions(sql, "stdin") || mentions(sql, "stdout"), ..Traits::default() },
        _ => Traits::default(),
    };
    if contains(sql, "temp") && (mentions(sql, "temp") || mentions(sql, "temporary") || contains(sql, "pg_temp")) {
        traits.dirty |= TEMPORARY;
        traits.session |= first == "create";
    }
    // The last three are ways to say it so that it does not stand there: the view that sets when it is updated, a name in
    // escapes, and text that is run.
    if ["set_config", "pg_settings", "u&\"", "_to_xml"].iter().any(|way| contains(sql, way)) {
        traits.dirty |= SETTINGS | ROLE;
    }
    if contains(sql, "advisory") {
        traits.dirty |= LOCKS;
    }
    traits
}

/// Session state that a command tag tells of, whatever the text said.
pub(super) fn traces(command: &str) -> u32 {
    match command {
        "SET" | "RESET" => SETTINGS | ROLE,
        "LISTEN" => LISTENING,
        "PREPARE" | "DEALLOCATE" | "DEALLOCATE ALL" | "DISCARD ALL" | "DISCARD PLANS" => PREPARED,
        "DECLARE CURSOR" => CURSORS,
        _ => 0,
    }
}

fn set(second: &str, third: &str) -> Traits {
    match (second, third) {
        ("transaction", _) | ("local" | "session", "transaction") => Traits { passing: true, ..control() },
        ("local" | "constraints", _) => Traits { passing: true, ..Traits::default() },
        ("role", _) | ("session", "authorization" | "role") => lasting(SETTINGS | ROLE),
        _ => lasting(SETTINGS),
    }
}

fn by_hand(sql: &str) -> u32 {
    let words = ["prepare", "deallocate", "discard"];
    if words.iter().any(|word| mentions(sql, word)) { PREPARED } else { 0 }
}

fn lasting(dirty: u32) -> Traits {
    Traits { dirty, session: true, ..Traits::default() }
}

fn control() -> Traits {
    Traits { control: true, ..Traits::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_state_is_seen() {
        for (sql, dirty) in [
            ("SET work_mem = '1MB'", SETTINGS),
            ("/* x */ set session role bob", SETTINGS | ROLE),
            ("SET SESSION AUTHORIZATION bob", SETTINGS | ROLE),
            ("reset role", SETTINGS | ROLE),
            ("select set_config('a.b', 'c', false)", SETTINGS | ROLE),
            ("update pg_settings set setting = '1' where name = 'work_mem'", SETTINGS | ROLE),
            (r#"select U&"set\005fconfig"('a.b', 'c', false)"#, SETTINGS | ROLE),
            ("select query_to_xml('select set_' || 'config(''a.b'', ''c'', false)', true, true, '')", SETTINGS | ROLE),
            ("select Pg_Advisory_Lock(1)", LOCKS),
            ("create temp table t()", TEMPORARY),
            ("select 1 into temporary t", TEMPORARY),
            ("create table pg_temp.t()", TEMPORARY),
            ("LISTEN x", LISTENING),
            ("prepare p as select 1", PREPARED),
            ("DISCARD ALL", PREPARED),
            ("declare c cursor with hold for select 1", CURSORS),
            ("DO $$ begin execute 'prepare p as select 1'; end $$", ANYTHING | PREPARED),
            ("call p()", ANYTHING),
            ("load 'x'", SETTINGS),
        ] {
            assert_eq!(traits(sql).dirty, dirty, "{sql}");
        }
    }

    #[test]
    fn the_usual_leaves_nothing_behind() {
        for sql in [
            "update t set temperature = 1",
            "select * from listen",
            "insert into prepare values ('set x')",
            "SET LOCAL work_mem = '1MB'",
            "set constraints all deferred",
            "with x as (select 1) select * from x",
        ] {
            let found = traits(sql);
            assert_eq!((found.dirty, found.control), (0, false), "{sql}");
        }
    }

    #[test]
    fn transaction_control_is_seen_whatever_stands_before_it() {
        for sql in [
            "COMMIT",
            ";;/*/* */*/ commit",
            "-- x\nrollback to a",
            "-- x\rcommit",
            "END",
            "abort",
            "Begin",
            "start transaction",
            "savepoint a",
            "release a",
            "prepare transaction 'x'",
            "set transaction read write",
            "SET LOCAL TRANSACTION READ WRITE",
            "set session transaction isolation level serializable",
        ] {
            assert!(traits(sql).control, "{sql}");
        }
    }
}
