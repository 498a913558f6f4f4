// An error of the database is the same object, field by field, whether it came through the gateway or from the server.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { NeonDbError } from '@neondatabase/serverless';
import {
    ADMIN_URL, blocked, comparableError, eventually, extended, failure, overHttp, overTcp, overWebSocket, running,
} from './support.mjs';

const file = { after };
const sides = { pg: await overTcp(file), http: overHttp(), socket: await overWebSocket(file), admin: await overTcp(file, ADMIN_URL) };

await sides.pg.query(`
    create schema shop;
    create domain shop.positive as int constraint above_zero check (value > 0);
    create table shop.customer (id int primary key, email text not null unique);
    create table shop.orders (
        id int primary key, customer int references shop.customer, amount numeric(5,2) constraint sane check (amount < 500), size shop.positive,
        during tstzrange, constraint no_overlap exclude using gist (during with &&));
    insert into shop.customer values (1, 'a@example.com'), (2, 'b@example.com');
    insert into shop.orders values (1, 1, 1, 1, '[2026-01-01,2026-02-01)');
    create function shop.complain() returns int language plpgsql as $$ begin
        raise exception 'it is %', 'bad' using errcode = 'XX123', detail = 'because "so"', hint = E'do\\nbetter 😀',
            schema = 's', table = 't', column = 'c', datatype = 'd', constraint = 'k';
    end $$;
    create function shop.deep(n int) returns int language plpgsql as $$ begin
        if n = 0 then return 1 / n; end if; return shop.deep(n - 1); end $$;
    create function shop.inside() returns int language plpgsql as $$ begin
        execute 'select * frm nowhere'; return 1; end $$;
    create table shop.counter (id int primary key, n int);
    insert into shop.counter values (1, 0), (2, 0), (3, 0), (4, 0);
`);

const ERRORS = [
    ['a syntax error', 'select * frm t', [], '42601'],
    ['a syntax error behind astral characters', "select '😀😀' frm t x", [], '42601'],
    ['an unfinished string', "select 'abc", [], '42601'],
    ['several statements', 'select 1; select 2', [], '42601'],
    ['division by zero', 'select 1/0', [], '22012'],
    ['division by a parameter', 'select 1 / $1::int', [0], '22012'],
    ['a unique violation', "insert into shop.customer values (1, 'c')", [], '23505'],
    ['a unique violation of text', "insert into shop.customer values (9, 'b@example.com')", [], '23505'],
    ['a foreign key violation', 'insert into shop.orders values (9, 99)', [], '23503'],
    ['a foreign key that is still used', 'delete from shop.customer where id = 1', [], '23503'],
    ['a check violation', 'insert into shop.orders values (9, 1, 501)', [], '23514'],
    ['a check violation of a domain', 'insert into shop.orders values (9, 1, 5, 0)', [], '23514'],
    ['a not null violation', 'insert into shop.customer values (3, null)', [], '23502'],
    ['an exclusion violation', "insert into shop.orders values (9, 1, 5, 1, '[2026-01-15,2026-03-01)')", [], '23P01'],
    ['a raised exception with everything', 'select shop.complain()', [], 'XX123'],
    ['an error deep in functions', 'select shop.deep(3)', [], '22012'],
    ['an error in a query that a function makes', 'select shop.inside()', [], '42601'],
    ['an undefined table', 'select * from nowhere', [], '42P01'],
    ['an undefined column, with a hint', 'select emial from shop.customer', [], '42703'],
    ['an undefined function, with a hint', "select lenght('x')", [], '42883'],
    ['an undefined type', 'select null::nothing', [], '42704'],
    ['an undefined schema', 'select * from no_schema.t', [], '42P01'],
    ['an invalid text representation', 'select $1::int', ['abc'], '22P02'],
    ['an invalid uuid', 'select $1::uuid', ['abc'], '22P02'],
    ['an invalid array', 'select $1::int[]', ['{1,2'], '22P02'],
    ['invalid json', 'select $1::jsonb', ['{"a":'], '22P02'],
    ['an invalid date', 'select $1::date', ['2026-02-30'], '22008'],
    ['a number out of range', 'select $1::int2', [40000], '22003'],
    ['a numeric that overflows', 'update shop.orders set amount = 1e6', [], '22003'],
    ['text too long', 'select cast(x as varchar(2)) from (select 1) s, lateral (select repeat($1, 3)) q(x) limit $2', ['x', 'y'], '22P02'],
    ['too few parameters', 'select $1::int + $2::int', [1], '08P01'],
    ['parameters where none are wanted', 'select 1', [1], '08P01'],
    ['none where one is wanted', 'select $1::int', [], '08P01'],
    ['a parameter of no known type', 'select $1 is null', [1], '42P18'],
    ['an ambiguous column', 'select id from shop.customer a, shop.orders b', [], '42702'],
    ['a grouping error', 'select id, count(*) from shop.orders', [], '42803'],
    ['a privilege that is missing', 'select * from pg_authid', [], '42501'],
    ['a cast that is not there', "select '1'::int::uuid", [], '42846'],
    ['a text with a NUL character', 'select $1::text', ['a\u0000b'], '22021'],
    ['an array of texts with a NUL character', 'select $1::text[]', [['a\u0000b']], '22021'],
    ['a subquery of more rows', 'select (select n from generate_series(1, 2) n)', [], '21000'],
    ['a regular expression that is none', "select 'x' ~ '['", [], '2201B'],
    ['a table that is there already', 'create table shop.customer (id int)', [], '42P07'],
    ['a savepoint outside a transaction', 'savepoint s', [], '25P01'],
    ['a statement that has no business in a pool: prepared, of no name', 'execute nothing', [], '26000'],
];

describe('an error over HTTP has every field that it has over TCP', () => {
    for (const [name, text, values, code] of ERRORS) {
        test(name, async () => {
            const expected = comparableError(await failure(sides.pg.query(extended(text, values))));
            assert.equal(expected.code, code);
            const error = await failure(sides.http.query(text, values));
            assert.ok(error instanceof NeonDbError, error);
            assert.deepStrictEqual(comparableError(error), expected);
            const later = await failure(sides.http.query(text, values));
            assert.deepStrictEqual(comparableError(later), expected, 'and the same again');
        });
    }
});

describe('an error over a WebSocket has every field that it has over TCP', () => {
    for (const [name, text, values] of ERRORS) {
        // Without values both send a simple query, in which several statements are fine.
        if (name === 'several statements') continue;
        test(name, async () => {
            const expected = comparableError(await failure(sides.pg.query(text, values)));
            assert.deepStrictEqual(comparableError(await failure(sides.socket.query(text, values))), expected);
        });
    }
});

test('an error in a transaction is that of its statement, and nothing of the transaction is done', async () => {
    const expected = comparableError(await failure(sides.pg.query(extended("insert into shop.customer values (1, 'c')"))));
    const { http } = sides;
    const whole = http.transaction([
        http`insert into shop.customer values (50, 'fifty')`, http`insert into shop.customer values (1, 'c')`, http`select 1`,
    ]);
    assert.deepStrictEqual(comparableError(await failure(whole)), expected);
    assert.equal((await http`select from shop.customer where id = 50`).rowCount, 0);
});

test('a deferred constraint fails at the commit', async () => {
    await sides.pg.query('create table shop.late (id int references shop.customer deferrable initially deferred)');
    const direct = async () => {
        await sides.pg.query('begin');
        await sides.pg.query('insert into shop.late values (77)');
        await sides.pg.query('commit');
    };
    const expected = comparableError(await failure(direct()));
    assert.equal(expected.code, '23503');
    const { http } = sides;
    assert.deepStrictEqual(comparableError(await failure(http.transaction([http`insert into shop.late values (77)`]))), expected);
    assert.deepStrictEqual(comparableError(await failure(http`insert into shop.late values (77)`)), expected, 'alone');
    assert.equal((await http`select from shop.late`).rowCount, 0);
});

test('a statement that took longer than statement_timeout', async () => {
    const limit = "select set_config('statement_timeout', '200', true)";
    const direct = async () => {
        await sides.pg.query('begin');
        await sides.pg.query(extended(limit));
        await sides.pg.query(extended('select pg_sleep(20)')).finally(() => sides.pg.query('rollback'));
    };
    const expected = comparableError(await failure(direct()));
    assert.equal(expected.code, '57014');
    const { http } = sides;
    const error = await failure(http.transaction([http.query(limit), http.query('select pg_sleep(20)')]));
    assert.deepStrictEqual(comparableError(error), expected);
});

test('a statement that an administrator cancelled', async () => {
    const cancelled = async (start, mark) => {
        const ended = failure(start(`select pg_sleep(60) /* ${mark} */`));
        const [{ pid }] = await eventually(mark, () => running(sides.admin, mark), (found) => found.length > 0);
        await sides.admin.query('select pg_cancel_backend($1)', [pid]);
        return comparableError(await ended);
    };
    const expected = await cancelled((sql) => sides.pg.query(extended(sql)), 'cancelled-1');
    assert.equal(expected.code, '57014');
    assert.deepStrictEqual(await cancelled((sql) => sides.http.query(sql), 'cancelled-2'), expected);
    assert.deepStrictEqual(await cancelled((sql) => sides.socket.query(extended(sql)), 'cancelled-3'), expected);
});

test('a session that an administrator ended is an error, and the next query has another', async () => {
    const ended = failure(sides.http.query('select pg_sleep(60) /* ended-1 */'));
    const [{ pid }] = await eventually('it runs', () => running(sides.admin, 'ended-1'), (found) => found.length > 0);
    await sides.admin.query('select pg_terminate_backend($1)', [pid]);
    assert.ok((await ended) instanceof NeonDbError);
    assert.equal((await sides.http`select 1 as one`).rows[0].one, 1);
});

/** A batch on the counter that another session stands in the way of; what becomes of it. */
async function inTheWay(start, mark, ids, other) {
    const admin = await overTcp(file, ADMIN_URL);
    await admin.query("set deadlock_timeout = '1min'");
    await admin.query('begin');
    await admin.query('update shop.counter set n = n + 1 where id = $1', [ids[0]]);
    const ended = failure(start(mark));
    await blocked(sides.admin, mark);
    const theirs = other(admin);
    const error = comparableError(await ended);
    await theirs;
    await admin.query('rollback');
    const unnumbered = (text) => text?.replace(/\d+/g, 'N').replace(/\/\*.*?\*\//g, '');
    return { ...error, detail: unnumbered(error.detail), where: unnumbered(error.where) };
}

test('a deadlock', async () => {
    const [first, second] = [1, 2].map((id) => (mark) => `update shop.counter set n = n + 1 where id = ${id} /* ${mark} */`);
    const cross = (admin) => admin.query('update shop.counter set n = n + 1 where id = 2');
    const direct = async (mark) => {
        await sides.pg.query('begin');
        await sides.pg.query(extended(second(mark)));
        await sides.pg.query(extended(first(mark))).finally(() => sides.pg.query('rollback'));
    };
    const expected = await inTheWay(direct, 'deadlock-1', [1], cross);
    assert.equal(expected.code, '40P01');
    const { http } = sides;
    const batch = (mark) => http.transaction([http.query(second(mark)), http.query(first(mark))]);
    assert.deepStrictEqual(await inTheWay(batch, 'deadlock-2', [1], cross), expected);
});

test('a serialisation failure', async () => {
    const sql = (mark) => `update shop.counter set n = n + 1 where id = 3 /* ${mark} */`;
    const commit = (admin) => admin.query('commit');
    const direct = async (mark) => {
        await sides.pg.query('begin isolation level repeatable read');
        await sides.pg.query(extended('select count(*) from shop.counter'));
        await sides.pg.query(extended(sql(mark))).finally(() => sides.pg.query('rollback'));
    };
    const expected = await inTheWay(direct, 'serial-1', [3], commit);
    assert.equal(expected.code, '40001');
    const { http } = sides;
    const options = { isolationLevel: 'RepeatableRead' };
    const batch = (mark) => http.transaction([http`select count(*) from shop.counter`, http.query(sql(mark))], options);
    assert.deepStrictEqual(await inTheWay(batch, 'serial-2', [3], commit), expected);
});

test('errors leave nothing behind: the next query is as good as any', async () => {
    const wrong = Array.from({ length: 50 }, (_, n) => failure(sides.http.query(`select ${n}/0`)));
    const right = Array.from({ length: 50 }, (_, n) => sides.http.query(`select ${n} as n`));
    for (const error of await Promise.all(wrong)) assert.equal(error.code, '22012');
    (await Promise.all(right)).forEach((result, n) => assert.equal(result.rows[0].n, n));
});
