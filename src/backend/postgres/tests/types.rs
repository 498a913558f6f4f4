//! Types: their names, shapes and exact text.

use serde_json::{Value, json};

use crate::backend::{
    Shape, Work,
    postgres::{
        testkit::{Cluster, batch, query, query_with, run},
        types::{TypeId, TypeNames},
    },
};

/// An expression, the text that PostgreSQL gives for it, its type's name and shape.
const EXPECTED: &[(&str, &str, &str, &str)] = &[
    ("true", "t", "boolean", "Bool"),
    ("1::int2", "1", "smallint", "Number"),
    ("-2147483648", "-2147483648", "integer", "Number"),
    ("9223372036854775807", "9223372036854775807", "bigint", "Text"),
    ("42::oid", "42", "oid", "Number"),
    ("1.50::numeric(10,2)", "1.50", "numeric(10,2)", "Text"),
    ("1e-3::numeric(3,-2)", "0", "numeric(3,-2)", "Text"),
    ("12345678901234567890.123::numeric", "12345678901234567890.123", "numeric", "Text"),
    ("0.1::float4", "0.1", "real", "Float"),
    ("0.1::float8 + 0.2::float8", "0.30000000000000004", "double precision", "Float"),
    ("'NaN'::float8", "NaN", "double precision", "Float"),
    ("'-Infinity'::float4", "-Infinity", "real", "Float"),
    ("'12.34'::money", "$12.34", "money", "Text"),
    ("'a'::text", "a", "text", "Text"),
    ("'a'::varchar(10)", "a", "character varying(10)", "Text"),
    ("'a'::varchar", "a", "character varying", "Text"),
    ("'a'::char(3)", "a  ", "character(3)", "Text"),
    ("'a'::bpchar", "a", "bpchar", "Text"),
    ("'a'::\"char\"", "a", "\"char\"", "Text"),
    ("'a'::name", "a", "name", "Text"),
    ("'\\x00ff'::bytea", "\\x00ff", "bytea", "Text"),
    ("'2024-02-29'::date", "2024-02-29", "date", "Text"),
    ("'12:34:56.7'::time", "12:34:56.7", "time without time zone", "Text"),
    ("'12:34:56.789'::time(1)", "12:34:56.8", "time(1) without time zone", "Text"),
    ("'12:34+02'::timetz", "12:34:00+02", "time with time zone", "Text"),
    ("'2024-02-29 1:2:3'::timestamp", "2024-02-29 01:02:03", "timestamp without time zone", "Text"),
    ("'2024-02-29 1:2:3.45'::timestamp(0)", "2024-02-29 01:02:03", "timestamp(0) without time zone", "Text"),
    (
        "'2024-02-29 1:2:3+02'::timestamptz at time zone 'UTC'",
        "2024-02-28 23:02:03",
        "timestamp without time zone",
        "Text",
    ),
    ("'infinity'::timestamptz(3)", "infinity", "timestamp(3) with time zone", "Text"),
    ("'1 year 2 days 3:04'::interval", "1 year 2 days 03:04:00", "interval", "Text"),
    ("'1 year 2 mons'::interval year to month", "1 year 2 mons", "interval year to month", "Text"),
    ("'1.55 s'::interval second(1)", "00:00:01.6", "interval second(1)", "Text"),
    ("'{\"b\":1, \"a\":[null]}'::json", "{\"b\":1, \"a\":[null]}", "json", "Json"),
    ("'{\"b\":1, \"a\":[null]}'::jsonb", "{\"a\": [null], \"b\": 1}", "jsonb", "Json"),
    ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "uuid", "Text"),
    ("'10.0.0.0/8'::cidr", "10.0.0.0/8", "cidr", "Text"),
    ("'::1'::inet", "::1", "inet", "Text"),
    ("'08:00:2b:01:02:03'::macaddr", "08:00:2b:01:02:03", "macaddr", "Text"),
    ("'(1,2)'::point", "(1,2)", "point", "Text"),
    ("'((0,0),(1,1))'::box", "(1,1),(0,0)", "box", "Text"),
    ("B'101'", "101", "\"bit\"", "Text"),
    ("B'101'::bit(3)", "101", "bit(3)", "Text"),
    ("B'101'::varbit(5)", "101", "bit varying(5)", "Text"),
    ("'[1,5)'::int4range", "[1,5)", "int4range", "Text"),
    ("'{[1,5),[7,9)}'::int4multirange", "{[1,5),[7,9)}", "int4multirange", "Text"),
    ("'a & b'::tsquery", "'a' & 'b'", "tsquery", "Text"),
    ("'<a/>'::xml", "<a/>", "xml", "Text"),
    ("'=r/postgres'::aclitem", "=r/postgres", "aclitem", "Text"),
    ("'pg_class'::regclass", "pg_class", "regclass", "Text"),
    ("'1 2'::int2vector", "1 2", "int2vector", "Text"),
    ("row(1,'a b')", "(1,\"a b\")", "record", "Text"),
    ("array[1,null]", "{1,NULL}", "integer[]", "Array(Number, 44)"),
    ("array[[true],[false]]", "{{t},{f}}", "boolean[]", "Array(Bool, 44)"),
    ("array[1.5]::numeric(4,1)[]", "{1.5}", "numeric(4,1)[]", "Array(Text, 44)"),
    ("array['a\"b']", "{\"a\\\"b\"}", "text[]", "Array(Text, 44)"),
    ("array['1'::json]", "{1}", "json[]", "Array(Json, 44)"),
    ("array['((0,0),(1,1))'::box]", "{(1,1),(0,0)}", "box[]", "Array(Text, 59)"),
    ("'[2:3]={1,2}'::float8[]", "[2:3]={1,2}", "double precision[]", "Array(Float, 44)"),
];

#[tokio::test]
async fn every_type_comes_as_its_exact_text() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    for (expression, text, name, shape) in EXPECTED {
        let answer = query(&mut conn, &format!("select {expression}")).await.unwrap();
        let column = &answer.columns[0];
        let found = (answer.cell(), column.type_name.as_deref().unwrap(), format!("{:?}", column.shape));
        assert_eq!(found, (*text, *name, (*shape).to_owned()), "{expression}");
    }
    let null = query(&mut conn, "select null, ''").await.unwrap();
    assert_eq!(null.rows, [vec![None, Some(String::new())]]);
}

#[tokio::test]
async fn names_agree_with_the_servers_own() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let sql = "select t.oid, m, format_type(t.oid, m), t.typtype from pg_type t, \
               unnest(array[-1, 0, 1, 4, 5, 14, 655366, 655374, 263143]) m \
               where t.oid < 10000 and (m = -1 or t.typmodout <> 0 and t.typname not like '%interval') \
               union all select t.oid, r << 16 | p, format_type(t.oid, r << 16 | p), t.typtype from pg_type t, \
               unnest(array[2, 4, 6, 8, 1024, 1032, 2048, 3072, 3080, 4096, 6144, 7168, 7176, 32767]) r, \
               unnest(array[0, 3, 65535]) p where t.typname in ('interval', '_interval')";
    let answer = query(&mut conn, sql).await.unwrap();
    let types = TypeNames::default();
    let mut known = 0;
    for row in &answer.rows {
        let [Some(oid), Some(modifier), Some(name), Some(kind)] = &row[..] else { panic!("{row:?}") };
        let id = TypeId { oid: oid.parse().unwrap(), modifier: modifier.parse().unwrap() };
        if let Some(found) = types.get(id) {
            known += 1;
            assert_eq!(&found.name, name, "{id:?}");
        } else {
            assert!(
                matches!(kind.as_str(), "p" | "c") || name.contains("pg_") || name.ends_with("[]"),
                "{id:?} {name}"
            );
        }
    }
    assert!(known > 300, "{known}");
}

#[tokio::test]
async fn a_types_of_the_database_are_named_at_first_sight() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    for sql in [
        "create type mood as enum ('sad', 'happy')",
        "create domain positive as int check (value > 0)",
        "create type pair as (a int, b text)",
        "create schema other",
        "create type other.mood as enum ('ok')",
    ] {
        query(&mut conn, sql).await.unwrap();
    }
    // Two results in one pipeline, each with types that are new.
    let answers = run(&mut conn, Work::Batch(batch(&["select 'sad'::mood", "select 'ok'::other.mood, 'happy'::mood"])));
    let answers = answers.await.unwrap();
    let names = |at: usize| answers[at].columns.iter().map(|c| c.type_name.as_deref().unwrap()).collect::<Vec<_>>();
    assert_eq!((names(0), names(1)), (vec!["mood"], vec!["other.mood", "mood"]));
    let sql = "select 'sad'::mood, array['sad','happy']::mood[], 5::positive, array[5]::positive[], row(1,'x')::pair, \
               'ok'::other.mood, n from generate_series(1, 3) n";
    // Cold, named, cached; and on another connection of the same pool.
    let backend = cluster.backend();
    let mut other = crate::pool::backend::Manager::create(&backend).await.unwrap();
    for conn in [&mut conn, &mut other] {
        for _ in 0..3 {
            let answer = query(conn, sql).await.unwrap();
            let columns: Vec<_> = answer.columns.iter().map(|c| (c.type_name.as_deref().unwrap(), &c.shape)).collect();
            let expected = [
                ("mood", Shape::Text),
                ("mood[]", Shape::Array(Box::new(Shape::Text), b',')),
                ("integer", Shape::Number),
                ("positive[]", Shape::Array(Box::new(Shape::Number), b',')),
                ("pair", Shape::Text),
                ("other.mood", Shape::Text),
                ("integer", Shape::Number),
            ];
            assert_eq!(columns, expected.each_ref().map(|(name, shape)| (*name, shape)));
            assert_eq!((answer.rows.len(), answer.row_count), (3, Some(3)));
            assert_eq!(answer.rows[2][1].as_deref(), Some("{sad,happy}"));
            assert_eq!(answer.rows[2][6].as_deref(), Some("3"));
        }
    }
}

#[tokio::test]
async fn a_callers_own_operators_do_not_say_what_a_type_is() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let made = "create type mood as enum ('sad'); create schema evil;
         create function evil.never(oid, oid) returns bool language sql immutable as 'select false';
         create operator evil.= (function = evil.never, leftarg = oid, rightarg = oid);
         create function evil.always(\"char\", \"char\") returns bool language sql immutable as 'select true';
         create operator evil.= (function = evil.always, leftarg = \"char\", rightarg = \"char\");
         grant usage on schema evil to public";
    cluster.admin().await.batch_execute(made).await.unwrap();
    let caller = batch(&["set search_path = evil, pg_catalog, public", "select 'sad'::mood"]);
    run(&mut conn, Work::Batch(caller)).await.unwrap();
    let next = query(&mut conn, "select 'sad'::mood").await.unwrap();
    assert_eq!((next.columns[0].type_name.as_deref(), &next.columns[0].shape), (Some("mood"), &Shape::Text));
}

#[tokio::test]
async fn an_element_type_without_a_delimiter_is_no_trouble() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create type mood as enum ('sad')").await.unwrap();
    let admin = cluster.admin().await;
    admin.batch_execute("update pg_type set typdelim = '' where typname = 'mood'").await.unwrap();
    let answer = query(&mut conn, "select array['sad']::mood[]").await.unwrap();
    assert_eq!(answer.columns[0].shape, Shape::Array(Box::new(Shape::Text), b','));
}

#[tokio::test]
async fn asking_for_types_does_not_lose_statements_that_are_being_prepared() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create type mood as enum ('sad')").await.unwrap();
    query(&mut conn, "select 1 + 1").await.unwrap();
    run(&mut conn, Work::Batch(batch(&["select 'sad'::mood", "select 1 + 1"]))).await.unwrap();
    assert_eq!(crate::pool::Connection::statements(&conn), 1);
    let prepared = "select count(*) from pg_prepared_statements";
    assert_eq!(query(&mut conn, prepared).await.unwrap().cell(), "1");
}

#[tokio::test]
async fn a_long_answer_with_unknown_types_is_not_held_in_memory() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create type mood as enum ('sad')").await.unwrap();
    let sql = |rows: u32| format!("select 'sad'::mood, repeat('x', 1000) from generate_series(1, {rows})");
    let long = query(&mut conn, &sql(20_000)).await.unwrap();
    assert_eq!((long.columns[0].type_name.as_deref(), long.rows.len()), (None, 20_000));
    assert!(conn.inbox.len() < 1024);
    let short = query(&mut conn, &sql(20)).await.unwrap();
    assert_eq!((short.columns[0].type_name.as_deref(), short.rows.len()), (Some("mood"), 20));
}

#[tokio::test]
async fn parameters_take_the_type_that_the_server_infers() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let sql =
        "select $1::int + 1, $2::text, $3::jsonb, $4::int[], $5::bool, $6::text[], $7::json[], $8::bytea, $9::numeric";
    let params = json!([41, "it's ü", {"a": 1}, [1, null, 3], true, ["a\"b\\c", "NULL", "", "x,y\n"], [{"k": "v"}],
                        "\\x00ff", 1.25]);
    let expected: Vec<Value> = vec![
        json!("42"),
        json!("it's ü"),
        json!("{\"a\": 1}"),
        json!("{1,NULL,3}"),
        json!("t"),
        json!("{\"a\\\"b\\\\c\",\"NULL\",\"\",\"x,y\n\"}"),
        json!("{\"{\\\"k\\\":\\\"v\\\"}\"}"),
        json!("\\x00ff"),
        json!("1.25"),
    ];
    for _ in 0..3 {
        let answer = query_with(&mut conn, sql, params.clone()).await.unwrap();
        assert_eq!(json!(answer.rows[0]), json!(expected));
    }
    let null = query_with(&mut conn, "select $1::int is null", json!([null])).await.unwrap();
    assert_eq!(null.cell(), "t");
}
