//! Names and shapes of types that only this server knows.
//!
//! A result's description names types by OID, and it comes when the statement runs already: another query cannot be put
//! between. So the reply is held back until it is complete, the types are asked for behind it on the same connection,
//! and then it is handed out. That costs one round trip more, once a type and pool, and nothing for types that all
//! servers know. Asking first (Describe, then run) would cost every cold statement that round trip; asking on a second
//! connection could wait for ever when the pool is exhausted, or exceed its cap.
//!
//! What is held back is bounded: beyond [`HOLD`] the reply is handed out with the types unnamed and their text as it
//! is, and they are asked for by the next one that is short enough.

use std::borrow::Cow;

use postgres_protocol::message::frontend;

use super::{
    connection::PostgresConnection,
    failure::PostgresFailure,
    inbox::Next,
    params,
    types::{self, TypeId, TypeInfo},
};
use crate::backend::{
    param::Param,
    work::{Cell, Row},
};

/// Longest reply that is held back.
pub(super) const HOLD: usize = 1 << 20;

/// A row for each type asked for: its OID and modifier, its name, and if it is an array its elements' type (under a
/// domain, the domain's base) and delimiter. It runs in the caller's session, under the `search_path` that stands there, and its
/// answer is everybody's: nothing in it may be looked up along that path, operators as little as names.
const QUERY: &str = "SELECT r.o, r.m, pg_catalog.format_type(r.o, r.m), \
    CASE WHEN t.typcategory OPERATOR(pg_catalog.=) 'A'::pg_catalog.\"char\" THEN \
    CASE WHEN e.typbasetype OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN e.oid ELSE e.typbasetype END END, e.typdelim \
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.int4[])) AS r(o, m) \
    JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) r.o \
    LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem";

/// Asks for `ids` on a connection whose replies are all received, whether read or not, and keeps the answers for the
/// pool. An error of the server is no failure: the types stay unknown. Not cancel safe; the connection is broken then.
pub(super) async fn look_up(conn: &mut PostgresConnection, ids: &[TypeId]) -> Result<(), PostgresFailure> {
    let held = conn.inbox.take();
    conn.broken = true;
    let (waiting, status) = (conn.pending, conn.status);
    let numbers = |number: fn(&TypeId) -> String| {
        let numbers: Vec<String> = ids.iter().map(number).collect();
        Param::Array(format!("[{}]", numbers.join(",")).into())
    };
    let given = [numbers(|id| id.oid.to_string()), numbers(|id| id.modifier.to_string())];
    frontend::parse("", QUERY, [], &mut conn.outbox)?;
    params::bind("", &given, &mut conn.outbox).map_err(std::io::Error::other)?;
    frontend::execute("", 0, &mut conn.outbox)?;
    frontend::sync(&mut conn.outbox);
    conn.pending += 1;
    while conn.pending > waiting {
        match conn.message(HOLD)? {
            Next::Message(b'D') => keep(conn),
            Next::Incomplete => conn.exchange().await?,
            _ => {}
        }
    }
    conn.inbox.put_back(held);
    conn.status = status;
    conn.broken = false;
    Ok(())
}

fn keep(conn: &PostgresConnection) {
    let mut cells: Vec<Option<String>> = Vec::with_capacity(5);
    conn.inbox.cells(&mut |cell| {
        cells.push(match cell {
            Cell::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        });
    });
    let [Some(oid), Some(modifier), Some(name), element, delimiter] = &cells[..] else { return };
    let (Ok(oid), Ok(modifier)) = (oid.parse(), modifier.parse()) else { return };
    let element = element.as_ref().and_then(|oid| oid.parse().ok()).map(types::shape_of);
    let delimiter = delimiter.as_ref().and_then(|text| text.bytes().next()).unwrap_or(b',');
    let shape = match element {
        Some(element) => types::array_of(element, delimiter),
        None => types::shape_of(oid),
    };
    conn.shared.types.insert(TypeId { oid, modifier }, TypeInfo { name: Cow::Owned(name.clone()), shape });
}
