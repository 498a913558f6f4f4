//! Errors as callers see them: `application/problem+json` (RFC 9457) with what the database said as members, or the same
//! object in the last line of an answer that is under way.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use crate::{
    backend::{BackendError, DatabaseError},
    edge::{Response, answer},
    limit::Refused,
};

/// The title of a connection that is no more.
const LOST: &str = "Connection lost";

/// An error on its way to the caller.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    title: &'static str,
    pub(super) detail: String,
    members: Map<String, Value>,
    pub(super) retry_after: Option<Duration>,
    allow: Option<&'static str>,
    blame: Blame,
}

/// Whose an error is, for others who ask the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// The request's: whoever sends it gets the same.
    Request,
    /// There was no way to the database, or none any more: the statement is not to blame.
    Outage,
    /// The business of the one caller who got it.
    Caller,
}

impl Problem {
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title,
            detail: detail.into(),
            members: Map::new(),
            retry_after: None,
            allow: None,
            blame: Blame::Request,
        }
    }

    /// A request that is not as it should be.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad request", detail)
    }

    /// Nothing that the client accepts can be had.
    pub(super) fn not_acceptable(detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "Not acceptable", detail)
    }

    /// Adds a member.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Names the methods that would have done.
    pub(super) fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Whether there was no way to the database, or none any more: the statement is not to blame.
    pub(super) fn is_outage(&self) -> bool {
        self.blame == Blame::Outage
    }

    /// Whether it is the business of the one caller who got it, and not of others who asked the same.
    pub(super) fn is_personal(&self) -> bool {
        self.blame == Blame::Caller
    }

    fn outage(self) -> Self {
        Self { blame: Blame::Outage, ..self }
    }

    /// What it tells the caller.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    fn retry_in(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self.with("retryable", true)
    }

    /// An answer that no cache may keep, as some do with a 404.
    pub(super) fn not_kept(self) -> Response {
        let mut response = self.into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = answer::problem_with(self.status, self.title, &self.detail, self.members);
        if let Some(pause) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(pause));
        }
        if let Some(methods) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }

    /// The object without its head, for a line of NDJSON.
    pub(super) fn into_object(self) -> Value {
        let mut object = Map::new();
        object.insert("title".into(), self.title.into());
        object.insert("status".into(), self.status.as_u16().into());
        object.insert("detail".into(), self.detail.into());
        object.extend(self.members);
        Value::Object(object)
    }
}

/// Whole seconds, and never at once.
pub(super) fn retry_after(pause: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(pause.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
}

/// Why an answer could not be given, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The database, or the way to it.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// More rows than the route allows.
    #[error("the answer has more than {0} rows")]
    Rows(u64),
    /// More bytes than the route allows.
    #[error("the answer is longer than {0} bytes")]
    Bytes(u64),
    /// The client took the answer too slowly.
    #[error("the answer was not taken before the deadline")]
    Slow,
}

impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Backend(error) => error.into(),
            Trouble::Slow => timeout(trouble.to_string()),
            Trouble::Rows(_) | Trouble::Bytes(_) => too_large(trouble.to_string()),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = format!("limit `{}` is used up", refused.policy);
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests", detail);
        let pause = Duration::from_secs(refused.retry_after.into());
        Self { members: refused.problem(), retry_after: Some(pause), blame: Blame::Caller, ..problem }
    }
}

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Database(error) => {
                let sqlstate = error.sqlstate.as_deref().unwrap_or_default();
                let (verdict, blame) = (judge(sqlstate), blame(sqlstate));
                Self { blame, ..database(*error, verdict) }
            }
            BackendError::ReadOnly(error) => {
                let verdict = (StatusCode::SERVICE_UNAVAILABLE, "Database takes no writes", Again::Later);
                database(*error, verdict)
            }
            BackendError::Checkout(error) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let problem = Self::new(status, "No connection to the database", error.public()).outage();
                let problem = match error.sqlstate() {
                    Some(sqlstate) => problem.with("sqlstate", sqlstate),
                    None => problem,
                };
                problem
                    .with("reason", error.kind().as_str())
                    .retry_in(error.retry_after().unwrap_or(Duration::from_secs(1)))
            }
            BackendError::NoSuchDatabase => Self::new(StatusCode::NOT_FOUND, "No such database", error.to_string()),
            BackendError::NoSuchEndpoint => Self::new(StatusCode::NOT_FOUND, "No such endpoint", error.to_string()),
            BackendError::NoRole | BackendError::Forbidden => {
                Self::new(StatusCode::FORBIDDEN, "Forbidden", error.to_string())
            }
            BackendError::Unavailable(why) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let problem = Self::new(status, "No connection to the database", why).outage();
                problem.retry_in(Duration::from_secs(1))
            }
            BackendError::NoReplica(_) => {
                tracing::warn!(%error, "a read was refused");
                let detail = "no replica of the database can serve, and reads do not go to the primary";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "No replica", detail)
                    .outage()
                    .with("reason", "no-replica")
                    .retry_in(Duration::from_secs(1))
            }
            BackendError::Timeout => timeout(error.to_string()).with("outcome", "unknown"),
            BackendError::Held => {
                Self { title: "Held too long", ..timeout(error.to_string() + ", longer than its pool allows") }
                    .with("reason", "held-limit")
                    .with("outcome", "unknown")
            }
            BackendError::Lost { outcome_unknown, ref reason, .. } => {
                tracing::warn!(reason, outcome_unknown, "database connection lost");
                let detail = "the connection to the database was lost";
                let problem = Self::new(StatusCode::BAD_GATEWAY, LOST, detail).outage();
                if outcome_unknown { problem.with("outcome", "unknown") } else { problem.with("retryable", true) }
            }
            BackendError::Unsupported(why) => Self::bad_request(why),
            BackendError::TooLarge { .. } => too_large(error.to_string()),
        }
    }
}

/// Others may have more time.
fn timeout(detail: String) -> Problem {
    Problem { blame: Blame::Caller, ..Problem::new(StatusCode::GATEWAY_TIMEOUT, "Deadline passed", detail) }
}

fn too_large(detail: String) -> Problem {
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "Answer too large", detail)
}

/// The database's own words.
fn database(error: DatabaseError, (status, title, again): Verdict) -> Problem {
    let detail = error.detail.clone().unwrap_or_else(|| error.message.clone());
    let mut problem = Problem::new(status, title, detail).with("message", error.message);
    let texts = [
        ("sqlstate", error.sqlstate),
        ("severity", error.severity),
        ("hint", error.hint),
        ("internal_query", error.internal_query),
        ("context", error.context),
        ("schema", error.schema),
        ("table", error.table),
        ("column", error.column),
        ("data_type", error.data_type),
        ("constraint", error.constraint),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            problem = problem.with(name, text);
        }
    }
    for (name, number) in [("position", error.position), ("internal_position", error.internal_position)] {
        if let Some(number) = number {
            problem = problem.with(name, number);
        }
    }
    if let Some(statement) = error.statement {
        problem = problem.with("statement", statement);
    }
    match again {
        Again::No => problem,
        Again::AtOnce => problem.with("retryable", true),
        Again::Later => problem.retry_in(Duration::from_secs(1)),
    }
}

/// Whether the same request may succeed the next time.
enum Again {
    No,
    AtOnce,
    Later,
}

/// Status, title, and whether to try again.
type Verdict = (StatusCode, &'static str, Again);

/// What an SQLSTATE means for a caller (PostgreSQL's Appendix A).
fn judge(sqlstate: &str) -> Verdict {
    const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    match sqlstate {
        "40001" | "40P01" => (StatusCode::CONFLICT, "Conflict with another transaction", Again::AtOnce),
        "55P03" => (UNAVAILABLE, "Locked by another transaction", Again::Later),
        // The server's own timeouts: of a statement (or a cancel), an idle transaction, a transaction.
        "57014" | "25P03" | "25P04" => (StatusCode::GATEWAY_TIMEOUT, "Statement cancelled", Again::No),
        // The count of parameters, which a caller can get wrong, has the code of a broken protocol.
        "08P01" => (StatusCode::BAD_REQUEST, "Statement refused", Again::No),
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "08" => (StatusCode::BAD_GATEWAY, LOST, Again::Later),
            "53" | "57" => (UNAVAILABLE, "Database unavailable", Again::Later),
            "58" | "F0" | "XX" => (StatusCode::BAD_GATEWAY, "Database failed", Again::No),
            _ => (StatusCode::BAD_REQUEST, "Statement refused", Again::No),
        },
    }
}

/// Whose an error of the database's own is.
fn blame(sqlstate: &str) -> Blame {
    match sqlstate {
        // A cancel, and the server's own timeouts.
        "57014" | "25P03" | "25P04" => Blame::Caller,
        "53300" => Blame::Outage,
        "08P01" => Blame::Request,
        _ if sqlstate.starts_with("57P") || sqlstate.starts_with("08") => Blame::Outage,
        _ => Blame::Request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sqlstate: &str) -> Problem {
        let error = DatabaseError { sqlstate: Some(sqlstate.into()), message: "m".into(), ..DatabaseError::default() };
        BackendError::Database(Box::new(error)).into()
    }

    #[test]
    fn sqlstates_have_their_status() {
        for (sqlstate, status, retryable) in [
            ("22012", 400, false),
            ("23505", 400, false),
            ("42601", 400, false),
            ("08P01", 400, false),
            ("P0001", 400, false),
            ("", 400, false),
            ("ä", 400, false),
            ("40001", 409, true),
            ("40P01", 409, true),
            ("55P03", 503, true),
            ("53300", 503, true),
            ("57P01", 503, true),
            ("57014", 504, false),
            ("25P03", 504, false),
            ("25P04", 504, false),
            ("25006", 400, false),
            ("08006", 502, true),
            ("XX000", 502, false),
        ] {
            let problem = told(sqlstate);
            assert_eq!(problem.status.as_u16(), status, "{sqlstate}");
            assert_eq!(problem.members.get("retryable").is_some(), retryable, "{sqlstate}");
        }
    }

    #[test]
    fn an_outage_is_told_from_what_the_statement_did() {
        for (sqlstate, outage) in [
            ("57P01", true),
            ("57P03", true),
            ("53300", true),
            ("08006", true),
            ("53200", false),
            ("55P03", false),
            ("57014", false),
            ("25006", false),
            ("22012", false),
            ("XX000", false),
        ] {
            assert_eq!(told(sqlstate).is_outage(), outage, "{sqlstate}");
        }
        let error = DatabaseError { sqlstate: Some("25006".into()), message: "m".into(), ..DatabaseError::default() };
        assert!(!Problem::from(BackendError::ReadOnly(Box::new(error))).is_outage());
        assert!(Problem::from(BackendError::NoReplica("p".into())).is_outage());
        assert!(Problem::from(BackendError::Unavailable("full".into())).is_outage());
        assert!(!Problem::from(BackendError::Timeout).is_outage());
    }

    #[test]
    fn a_server_that_takes_no_writes_is_unavailable() {
        let error = DatabaseError { sqlstate: Some("25006".into()), message: "m".into(), ..DatabaseError::default() };
        let object = Problem::from(BackendError::ReadOnly(Box::new(error))).into_object();
        assert_eq!((&object["status"], &object["sqlstate"]), (&503.into(), &"25006".into()));
        assert_eq!(object["retryable"], true);
    }

    #[test]
    fn a_read_that_no_replica_can_serve_says_so_and_names_no_pool() {
        let object = Problem::from(BackendError::NoReplica("hidden".into())).into_object();
        assert_eq!(
            (&object["status"], &object["reason"], &object["retryable"]),
            (&503.into(), &"no-replica".into(), &true.into())
        );
        assert!(!object.to_string().contains("hidden"));
    }

    #[test]
    fn what_the_database_said_is_passed_on() {
        let error = DatabaseError {
            sqlstate: Some("23505".into()),
            message: "duplicate key".into(),
            detail: Some("Key (a)=(1) already exists.".into()),
            table: Some("t".into()),
            position: Some(7),
            statement: Some(2),
            ..DatabaseError::default()
        };
        let object = Problem::from(BackendError::Database(Box::new(error))).into_object();
        for (member, value) in [
            ("status", Value::from(400)),
            ("sqlstate", "23505".into()),
            ("message", "duplicate key".into()),
            ("detail", "Key (a)=(1) already exists.".into()),
            ("table", "t".into()),
            ("position", 7.into()),
            ("statement", 2.into()),
        ] {
            assert_eq!(object[member], value);
        }
        assert!(object.get("hint").is_none());
    }

    #[test]
    fn a_lost_connection_says_what_is_known() {
        let lost = |outcome_unknown| {
            let reason = "10.0.0.1 reset".into();
            Problem::from(BackendError::Lost { sent: true, outcome_unknown, reason }).into_object()
        };
        assert_eq!((lost(true)["outcome"].as_str(), lost(true).get("retryable")), (Some("unknown"), None));
        assert_eq!(lost(false)["retryable"], true);
        assert!(!lost(true).to_string().contains("10.0.0.1"));
    }
}
