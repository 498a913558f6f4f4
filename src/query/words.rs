//! What keeps a caller from a database, in PostgreSQL's words: for those who speak to us as to a server.

use std::borrow::Cow;

use super::Wanted;
use crate::backend::BackendError;

/// The SQLSTATE and the text of `error`, which befell a caller who wanted this.
pub(super) fn words(error: &BackendError, wanted: &Wanted) -> (Cow<'static, str>, String) {
    let database = wanted.database.as_deref().unwrap_or_default();
    let endpoint = wanted.endpoint.as_deref().unwrap_or_default();
    let (code, text) = match error {
        BackendError::NoSuchDatabase => ("3D000", format!("database \"{database}\" does not exist")),
        BackendError::NoSuchEndpoint => ("08004", format!("endpoint \"{endpoint}\" does not exist")),
        BackendError::Forbidden => ("42501", format!("permission denied for database \"{database}\"")),
        BackendError::NoRole => ("28000", error.to_string()),
        BackendError::Checkout(error) => ("53300", error.public()),
        BackendError::NoReplica(_) => ("53300", "no replica of the database can serve".to_owned()),
        BackendError::Unavailable(_) => ("57P03", error.to_string()),
        BackendError::Timeout | BackendError::Held => ("57014", error.to_string()),
        BackendError::Lost { .. } => ("08006", "the connection to the database was lost".to_owned()),
        BackendError::Unsupported(_) | BackendError::TooLarge { .. } => ("0A000", error.to_string()),
        BackendError::Database(said) | BackendError::ReadOnly(said) => {
            let code = said.sqlstate.clone().map_or(Cow::Borrowed("XX000"), Cow::Owned);
            return (code, said.message.clone());
        }
    };
    (code.into(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::DatabaseError;

    #[test]
    fn each_error_has_its_sqlstate_and_a_text_that_names_what_was_wanted() {
        let (endpoint, database) = (Some("db1".to_owned()), Some("shop".to_owned()));
        let wanted = Wanted { endpoint, database, role: None };
        let said = DatabaseError { sqlstate: Some("22023".into()), message: "no".into(), ..DatabaseError::default() };
        let lost = BackendError::Lost { sent: true, outcome_unknown: true, reason: "10.0.0.1".into() };
        for (error, code, text) in [
            (BackendError::NoSuchDatabase, "3D000", "database \"shop\" does not exist"),
            (BackendError::NoSuchEndpoint, "08004", "endpoint \"db1\" does not exist"),
            (BackendError::Forbidden, "42501", "permission denied for database \"shop\""),
            (BackendError::NoRole, "28000", "the caller has no role in this database"),
            (BackendError::Unavailable("later".into()), "57P03", "later"),
            (BackendError::NoReplica("secret".into()), "53300", "no replica of the database can serve"),
            (lost, "08006", "the connection to the database was lost"),
            (BackendError::Unsupported("not here".into()), "0A000", "not here"),
            (BackendError::Database(Box::new(said)), "22023", "no"),
            (BackendError::ReadOnly(Box::default()), "XX000", ""),
        ] {
            assert_eq!(words(&error, &wanted), (code.into(), text.to_owned()), "{error:?}");
        }
    }
}
