//! Commands to single pools: `GET /pools/NAME`; `POST /pools/NAME/pause`, `drain`, `resume`, `reconnect`, and
//! `resize?min=N&max=N`; `DELETE /pools/NAME/connections/NUMBER`. Each answers with the pool as it is then, and leaves a line in
//! the log with what was done and from where.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    edge::{Context, Request, Response, answer},
    gateway::{PoolEntry, Shared},
    pool::{Operation, OperationError, PoolStatus},
};

/// What a path and a method ask of a pool.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Show,
    Do(Operation),
    /// The path is right, and the method is not; this one is.
    Instead(&'static str),
    /// In words for the operator.
    Wrong(String),
    Nothing,
}

/// Answers a request for `/pools/…`. `rest` is what follows.
pub(super) fn answer(shared: &Shared, request: &Request, rest: &str) -> Response {
    let (name, action) = rest.split_once('/').unwrap_or((rest, ""));
    let nothing = || answer::problem(StatusCode::NOT_FOUND, "Not found", "there is no such thing here");
    let operation = match asked(request.method(), action, request.uri().query().unwrap_or_default()) {
        Asked::Show => None,
        Asked::Do(operation) => Some(operation),
        Asked::Instead(allow) => return super::not_allowed(allow),
        Asked::Wrong(why) => return answer::problem(StatusCode::BAD_REQUEST, "Bad request", &why),
        Asked::Nothing => return nothing(),
    };
    let generation = shared.generation();
    let Some(pool) = generation.all_pools().remove(name) else {
        return answer::problem(StatusCode::NOT_FOUND, "Not found", &format!("no pool is called `{name}`"));
    };
    if let Some(operation) = operation {
        let from = Context::of(request).map(|context| context.peer.socket);
        match pool.operate(operation) {
            Ok(()) => tracing::info!(pool = name, ?operation, ?from, "an operator's word"),
            Err(error @ OperationError::UnknownConnection(_)) => {
                return answer::problem(StatusCode::NOT_FOUND, "Not found", &error.to_string());
            }
            Err(error) => return answer::problem(StatusCode::CONFLICT, "Not done", &error.to_string()),
        }
    }
    super::json(StatusCode::OK, &shown(&pool.status(), &pool, usize::MAX))
}

/// A pool as JSON, with its replicas if it has some, and so many of its statements.
pub(super) fn shown(status: &PoolStatus, entry: &PoolEntry, most_statements: usize) -> Value {
    let mut pool = super::replicas::with_replicas(status, entry);
    let mut statements = entry.statements();
    statements.top.truncate(most_statements);
    pool["statements"] = json!(statements);
    pool
}

fn asked(method: &Method, action: &str, query: &str) -> Asked {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let post = |operation: Operation| match *method {
        Method::POST => Asked::Do(operation),
        _ => Asked::Instead("POST"),
    };
    match action {
        "" if reads => Asked::Show,
        "" => Asked::Instead("GET, HEAD"),
        "pause" => post(Operation::Pause),
        "drain" => post(Operation::Drain),
        "resume" => post(Operation::Resume),
        "reconnect" => post(Operation::Reconnect),
        "resize" => bounds(query).map_or_else(Asked::Wrong, post),
        _ => match action.strip_prefix("connections/").map(str::parse) {
            Some(Ok(number)) if *method == Method::DELETE => Asked::Do(Operation::Evict(number)),
            Some(Ok(_)) => Asked::Instead("DELETE"),
            Some(Err(_)) => Asked::Wrong("a connection has a number".into()),
            None => Asked::Nothing,
        },
    }
}

/// `min=N&max=N`, at least one of them.
fn bounds(query: &str) -> Result<Operation, String> {
    let (mut min, mut max) = (None, None);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let place = match name {
            "min" => &mut min,
            "max" => &mut max,
            _ => return Err(format!("`{name}` is neither `min` nor `max`")),
        };
        *place = Some(value.parse().map_err(|_| format!("`{name}` must be a whole number, not `{value}`"))?);
    }
    if min.is_none() && max.is_none() {
        return Err("say `min` or `max` or both: resize?min=2&max=20".into());
    }
    Ok(Operation::Resize { min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_method_say_what_is_asked() {
        assert_eq!(asked(&Method::GET, "", ""), Asked::Show);
        assert_eq!(asked(&Method::POST, "", ""), Asked::Instead("GET, HEAD"));
        assert_eq!(asked(&Method::POST, "pause", ""), Asked::Do(Operation::Pause));
        assert_eq!(asked(&Method::GET, "drain", ""), Asked::Instead("POST"));
        assert_eq!(asked(&Method::DELETE, "connections/17", ""), Asked::Do(Operation::Evict(17)));
        assert_eq!(asked(&Method::GET, "connections/17", ""), Asked::Instead("DELETE"));
        assert!(matches!(asked(&Method::DELETE, "connections/x", ""), Asked::Wrong(_)));
        assert_eq!(asked(&Method::POST, "explode", ""), Asked::Nothing);
        let both = Operation::Resize { min: Some(2), max: Some(20) };
        assert_eq!(asked(&Method::POST, "resize", "min=2&max=20"), Asked::Do(both));
        assert_eq!(asked(&Method::POST, "resize", "max=5"), Asked::Do(Operation::Resize { min: None, max: Some(5) }));
        for wrong in ["", "max", "max=", "max=-1", "max=x", "size=3", "min=1&max=4294967296"] {
            assert!(matches!(asked(&Method::POST, "resize", wrong), Asked::Wrong(_)), "{wrong}");
        }
    }
}
