//! What SQL sent by a caller may do to a connection. Asked by SQLite while it compiles a statement
//! (<https://www.sqlite.org/c3ref/set_authorizer.html>), so that a refused statement never starts.
//!
//! Refused is what reaches beyond the database file (ATTACH, VACUUM INTO, extensions), what would still be there for the
//! connection's next caller (temporary objects, settings), and what would lift a guard (`query_only`, `trusted_schema`).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

/// Pragmas that only tell something.
const TELL: [&str; 25] = [
    "application_id",
    "auto_vacuum",
    "collation_list",
    "compile_options",
    "data_version",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "foreign_keys",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "journal_mode",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "quick_check",
    "schema_version",
    "synchronous",
    "table_info",
    "user_version",
];

/// Those whose value is a question's argument, or that set something in the file itself.
const WITH_VALUE: [&str; 12] = [
    "application_id",
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];

/// Shared by a connection's authorizer and the code that runs statements on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// Set while the gateway's own pragmas run.
    trusted: Arc<AtomicBool>,
    /// Why the last statement was refused.
    refusal: Arc<Mutex<Option<&'static str>>>,
}

impl Guard {
    /// Watches `conn` from now on.
    pub(super) fn install(&self, conn: &rusqlite::Connection) -> rusqlite::Result<()> {
        let guard = self.clone();
        conn.authorizer(Some(move |context: AuthContext<'_>| guard.decide(&context)))
    }

    /// Runs the gateway's own statements, unguarded.
    pub(super) fn trusted<T>(&self, run: impl FnOnce() -> T) -> T {
        self.trusted.store(true, Ordering::Relaxed);
        let outcome = run();
        self.trusted.store(false, Ordering::Relaxed);
        outcome
    }

    /// Takes the reason of the last refusal.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        self.refusal.lock().take()
    }

    fn decide(&self, context: &AuthContext<'_>) -> Authorization {
        if self.trusted.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        let Some(reason) = refuse(context) else { return Authorization::Allow };
        *self.refusal.lock() = Some(reason);
        Authorization::Deny
    }
}

fn refuse(context: &AuthContext<'_>) -> Option<&'static str> {
    match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Some(
            "ATTACH, DETACH and VACUUM are refused: a pool serves one database file, and leaves its upkeep to the operator",
        ),
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => Some(TEMPORARY),
        // `CREATE TABLE temp.x` has the code of an ordinary table.
        AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateVtable { .. }
            if context.database_name == Some("temp") =>
        {
            Some(TEMPORARY)
        }
        AuthAction::Function { function_name }
            if ["load_extension", "fts3_tokenizer"].iter().any(|name| function_name.eq_ignore_ascii_case(name)) =>
        {
            Some("extensions are refused")
        }
        AuthAction::Pragma { pragma_name, pragma_value } if !pragma_allowed(pragma_name, pragma_value) => {
            Some("this PRAGMA is refused: connections are shared, and set by the gateway's configuration")
        }
        _ => None,
    }
}

const TEMPORARY: &str = "temporary tables, views, indexes and triggers are refused: connections are shared";

fn pragma_allowed(name: &str, value: Option<&str>) -> bool {
    let listed = |list: &[&str]| list.iter().any(|entry| name.eq_ignore_ascii_case(entry));
    listed(&WITH_VALUE) || (value.is_none() && listed(&TELL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pragmas_tell_but_do_not_set() {
        for (name, value) in
            [("table_info", Some("t")), ("journal_mode", None), ("User_Version", Some("3")), ("foreign_keys", None)]
        {
            assert!(pragma_allowed(name, value), "{name}");
        }
        for (name, value) in [
            ("journal_mode", Some("delete")),
            ("foreign_keys", Some("off")),
            ("query_only", Some("0")),
            ("hard_heap_limit", Some("1")),
            ("database_list", None),
            ("writable_schema", Some("on")),
            ("temp_store_directory", Some("/")),
            ("wal_checkpoint", None),
        ] {
            assert!(!pragma_allowed(name, value), "{name}");
        }
    }

    #[test]
    fn lists_are_sorted() {
        assert!(TELL.is_sorted() && WITH_VALUE.is_sorted());
    }
}
