//! Errors as the drivers read them. They look into the body of a 400 alone; any other status is `Server error (HTTP status N)`
//! to their users, with the body as text. The shape is the same for all.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    backend::{BackendError, DatabaseError},
    edge::{Body, Response},
    query::{
        Wanted,
        problem::{Problem, Trouble, retry_after},
        words::words,
    },
};

/// An error on its way to the driver.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: Box<DatabaseError>,
    retry_after: Option<Duration>,
}

impl Failure {
    /// An error that is not the database's.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let error = Box::new(DatabaseError { message: message.into(), ..DatabaseError::default() });
        Self { status, error, retry_after: None }
    }

    /// A request that is not as it should be.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Neither a query nor anything else that the dialect has.
    pub(super) fn not_supported() -> Self {
        Self::bad_request("query is not supported")
    }

    /// Credentials that nobody has.
    pub(super) fn no_such_user(name: &str) -> Self {
        Self::bad_request(format!("password authentication failed for user '{name}'"))
    }

    /// Why the work was not begun. What PostgreSQL says to who asks for what it does not have is said as it would.
    pub(super) fn of(error: BackendError, wanted: &Wanted) -> Self {
        match error {
            BackendError::NoSuchDatabase
            | BackendError::NoSuchEndpoint
            | BackendError::Forbidden
            | BackendError::NoRole => {
                // As PostgreSQL refuses a connection.
                let (sqlstate, message) = words(&error, wanted);
                Self::said(in_postgres_words(&sqlstate, "FATAL", message))
            }
            other => other.into(),
        }
    }

    /// A statement that the route or the consumer may not ask, as PostgreSQL refuses one for the want of a right.
    pub(super) fn not_allowed(why: &str) -> Self {
        Self::said(in_postgres_words("42501", "ERROR", why.to_owned()))
    }

    fn said(error: DatabaseError) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: Box::new(error), retry_after: None }
    }

    /// The answer that tells of it.
    pub(super) fn into_response(self) -> Response {
        self.instead_of(Response::new(Body::empty()))
    }

    /// The same, with the headers of an answer that tells of it in another shape.
    pub(super) fn instead_of(self, other: Response) -> Response {
        let body = serde_json::to_vec(&Told::from(&*self.error)).unwrap_or_default();
        let mut response = other.map(|_| Body::full(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(pause) = self.retry_after {
            headers.insert(header::RETRY_AFTER, retry_after(pause));
        }
        response
    }
}

fn in_postgres_words(sqlstate: &str, severity: &str, message: String) -> DatabaseError {
    let (sqlstate, severity) = (Some(sqlstate.to_owned()), Some(severity.to_owned()));
    DatabaseError { sqlstate, severity, message, ..DatabaseError::default() }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Backend(error) => error.into(),
            other => Problem::from(other).into(),
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Database(error) | BackendError::ReadOnly(error) => Self::said(*error),
            // As if PostgreSQL had refused it.
            BackendError::Unsupported(_) => {
                let (sqlstate, message) = words(&error, &Wanted::default());
                Self::said(in_postgres_words(&sqlstate, "ERROR", message))
            }
            BackendError::Checkout(error) => {
                let sqlstate = error.sqlstate().map(ToString::to_string);
                let mut failure = Self::from(Problem::from(BackendError::Checkout(error)));
                failure.error.sqlstate = sqlstate;
                failure
            }
            other => Problem::from(other).into(),
        }
    }
}

/// What goes wrong on our side, in the status that it has in every dialect.
impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let retry_after = problem.retry_after;
        Self { retry_after, ..Self::new(problem.status, problem.detail) }
    }
}

/// Every field, whether there is something in it or not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    message: &'a str,
    code: Option<&'a str>,
    detail: Option<&'a str>,
    hint: Option<&'a str>,
    position: Option<String>,
    internal_position: Option<String>,
    internal_query: Option<&'a str>,
    severity: Option<&'a str>,
    r#where: Option<&'a str>,
    table: Option<&'a str>,
    column: Option<&'a str>,
    schema: Option<&'a str>,
    data_type: Option<&'a str>,
    constraint: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<&'a str>,
    routine: Option<&'a str>,
}

impl<'a> From<&'a DatabaseError> for Told<'a> {
    fn from(error: &'a DatabaseError) -> Self {
        Self {
            message: &error.message,
            code: error.sqlstate.as_deref(),
            detail: error.detail.as_deref(),
            hint: error.hint.as_deref(),
            position: error.position.map(|position| position.to_string()),
            internal_position: error.internal_position.map(|position| position.to_string()),
            internal_query: error.internal_query.as_deref(),
            severity: error.severity.as_deref(),
            r#where: error.context.as_deref(),
            table: error.table.as_deref(),
            column: error.column.as_deref(),
            schema: error.schema.as_deref(),
            data_type: error.data_type.as_deref(),
            constraint: error.constraint.as_deref(),
            file: error.file.as_deref(),
            line: error.line.as_deref(),
            routine: error.routine.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn told(failure: Failure) -> (u16, Option<String>, String) {
        let response = failure.into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let pause = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, pause, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_database_error_has_exactly_the_fields_that_drivers_copy_in_their_order() {
        let text = |text: &str| Some(text.to_owned());
        let error = DatabaseError {
            sqlstate: text("22012"),
            severity: text("ERROR"),
            message: "division by zero".into(),
            detail: text("d"),
            hint: text("h"),
            position: Some(8),
            internal_position: Some(3),
            internal_query: text("q"),
            context: text("w"),
            schema: text("s"),
            table: text("t"),
            column: text("c"),
            data_type: text("y"),
            constraint: text("k"),
            file: text("int.c"),
            line: text("869"),
            routine: text("int4div"),
            statement: Some(1),
        };
        let (status, pause, body) = told(BackendError::Database(Box::new(error)).into()).await;
        assert_eq!((status, pause), (400, None));
        let expected = concat!(
            r#"{"message":"division by zero","code":"22012","detail":"d","hint":"h","position":"8","internalPosition":"3","#,
            r#""internalQuery":"q","severity":"ERROR","where":"w","table":"t","column":"c","schema":"s","dataType":"y","#,
            r#""constraint":"k","file":"int.c","line":"869","routine":"int4div"}"#
        );
        assert_eq!(body, expected);
        let (_, _, body) = told(Failure::bad_request("no")).await;
        let object: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(object.as_object().unwrap().len(), 17);
        assert_eq!((&object["message"], &object["code"], &object["line"]), (&json!("no"), &json!(null), &json!(null)));
    }

    #[tokio::test]
    async fn what_the_database_says_is_a_400_and_what_befalls_us_is_not() {
        let refused = |sqlstate: &str| {
            BackendError::Database(Box::new(DatabaseError { sqlstate: Some(sqlstate.into()), ..Default::default() }))
        };
        for (error, status) in [
            (refused("40001"), 400),
            (refused("57014"), 400),
            (refused("53300"), 400),
            (refused("XX000"), 400),
            (BackendError::Unsupported("no".into()), 400),
            (BackendError::Timeout, 504),
            (BackendError::Held, 504),
            (BackendError::TooLarge { limit: 1 }, 507),
            (BackendError::Lost { sent: true, outcome_unknown: true, reason: "r".into() }, 502),
        ] {
            assert_eq!(told(error.into()).await.0, status);
        }
        assert_eq!(told(Trouble::Rows(1).into()).await.0, 507);
        let (status, pause, _) = told(BackendError::Unavailable("later".into()).into()).await;
        assert_eq!((status, pause.as_deref()), (503, Some("1")));
    }
}
