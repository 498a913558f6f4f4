// The driver over HTTP: what an application does with it.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, describe, test } from 'node:test';
import { neon, neonConfig, NeonDbError } from '@neondatabase/serverless';
import { Agent } from 'undici';
import {
    ADMIN_URL, comparable, eventually, extended, failure, GATEWAY, GATEWAY_URL, overHttp, overTcp, pointAtGateway, running,
} from './support.mjs';

const file = { after };
const [pg, admin, full] = [await overTcp(file), await overTcp(file, ADMIN_URL), overHttp()];
pointAtGateway();
const sql = neon(GATEWAY_URL);
await pg.query('create table item (id int primary key, name text, at timestamptz default now())');

/** Fetches over HTTP/2, as an edge runtime does. */
const h2 = new Agent({ allowH2: true });
after(() => h2.close());

describe('queries', () => {
    test('a tagged template binds its values', async () => {
        const [name, ids] = ["O'Brien; drop table item", [1, 2]];
        const rows = await sql`select ${name}::text as name, ${ids}::int[] as ids, ${null}::text as nothing`;
        assert.deepEqual(rows, [{ name, ids, nothing: null }]);
    });

    test('templates compose, and unsafe text stays text', async () => {
        const only = sql`where n > ${7}`;
        const rows = await sql`select n from generate_series(1, 9) n ${only} order by ${sql.unsafe('n desc')}`;
        assert.deepEqual(rows.map((row) => row.n), [9, 8]);
    });

    test('query() takes a text and values', async () => {
        assert.deepEqual(await sql.query('select $1::int + $2::int as sum', [40, 2]), [{ sum: 42 }]);
        assert.deepEqual(await sql.query("select 'é' as e"), [{ e: 'é' }]);
    });

    test('whole results and rows as lists, by connection and by query', async () => {
        const expected = comparable(await pg.query(extended('select 1 as a, 2 as a', [], { rowMode: 'array' })));
        assert.deepEqual(comparable(await neon(GATEWAY_URL, { arrayMode: true, fullResults: true })`select 1 as a, 2 as a`), expected);
        assert.deepEqual(comparable(await sql.query('select 1 as a, 2 as a', [], { arrayMode: true, fullResults: true })), expected);
        assert.deepEqual(await neon(GATEWAY_URL, { arrayMode: true })`select 1, 2`, [[1, 2]]);
    });

    test('parameters as other clients send them, not as text', async () => {
        const params = [1, true, null, 'x', { a: [1] }, [1, null, 2], ['a"b', null], 1.5];
        const query = 'select $1::int, $2::bool, $3::text, $4::text, $5::jsonb, $6::int[], $7::text[], $8::float8';
        const headers = { 'Neon-Connection-String': GATEWAY_URL };
        const answer = await fetch(`https://${GATEWAY}/sql`, { method: 'POST', headers, body: JSON.stringify({ query, params, arrayMode: true }) });
        const { rows, rowAsArray } = await answer.json();
        assert.equal(rowAsArray, true);
        // As JSON's own kinds, since raw text was not asked for; and what goes in comes out.
        assert.deepEqual(rows, [params]);
    });

    test('a page in a browser may ask which headers it may send', async () => {
        const headers = { Origin: 'https://app.example.com', 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'neon-connection-string' };
        const answer = await fetch(`https://${GATEWAY}/sql`, { method: 'OPTIONS', headers });
        assert.ok(answer.ok, `${answer.status}`);
        const allowed = answer.headers.get('access-control-allow-headers').toLowerCase();
        for (const name of ['neon-connection-string', 'neon-raw-text-output', 'neon-array-mode', 'neon-batch-isolation-level', 'neon-batch-read-only', 'neon-batch-deferrable', 'authorization', 'content-type']) {
            assert.ok(allowed.includes(name), `${name} in ${allowed}`);
        }
    });
});

describe('transactions', () => {
    test('all is done, or nothing', async () => {
        const done = await sql.transaction([sql`insert into item (id, name) values (1, 'a')`, sql`select name from item where id = 1`]);
        assert.deepEqual(done, [[], [{ name: 'a' }]]);
        const error = await failure(sql.transaction((tx) => [tx`insert into item (id) values (2)`, tx`insert into item (id) values (1)`]));
        assert.equal(error.code, '23505');
        assert.equal((await pg.query('select from item where id = 2')).rowCount, 0);
    });

    test('an empty one has no results', async () => assert.deepEqual(await sql.transaction([]), []));

    test('its statements see one another, and one snapshot', async () => {
        const ids = await full.transaction([full`select txid_current() as id`, full`select txid_current() as id`]);
        assert.equal(ids[0].rows[0].id, ids[1].rows[0].id);
    });

    const shown = async (options) => {
        const names = ['transaction_isolation', 'transaction_read_only', 'transaction_deferrable'];
        const results = await sql.transaction(names.map((name) => sql.query(`select current_setting('${name}') as v`)), options);
        return results.map(([row]) => row.v);
    };

    test('every isolation level, read only, deferrable', async () => {
        assert.deepEqual(await shown(), ['read committed', 'off', 'off']);
        assert.deepEqual(await shown({ isolationLevel: 'ReadUncommitted' }), ['read uncommitted', 'off', 'off']);
        assert.deepEqual(await shown({ isolationLevel: 'ReadCommitted', readOnly: true }), ['read committed', 'on', 'off']);
        assert.deepEqual(await shown({ isolationLevel: 'RepeatableRead', readOnly: false }), ['repeatable read', 'off', 'off']);
        assert.deepEqual(await shown({ isolationLevel: 'Serializable' }), ['serializable', 'off', 'off']);
        assert.deepEqual(await shown({ isolationLevel: 'Serializable', readOnly: true, deferrable: true }), ['serializable', 'on', 'on']);
        assert.deepEqual(await shown(), ['read committed', 'off', 'off'], 'and nothing of it is left');
    });

    test('a write in a read-only one is refused', async () => {
        const error = await failure(sql.transaction([sql`insert into item (id) values (8)`], { readOnly: true }));
        assert.deepEqual([error.code, error.message], ['25006', 'cannot execute INSERT in a read-only transaction']);
    });

    test('results differ by query where their options do', async () => {
        const [plain, lists] = await sql.transaction([sql`select 1 as a`, sql.query('select 1 as a', [], { arrayMode: true, fullResults: true })]);
        assert.deepEqual([plain, lists.rows], [[{ a: 1 }], [[1]]]);
    });

    test('a hundred statements in one', async () => {
        const results = await sql.transaction(Array.from({ length: 100 }, (_, n) => sql`select ${n}::int as n`));
        results.forEach(([row], n) => assert.equal(row.n, n));
    });
});

describe('what is large, what is many', () => {
    const digest = (rows) => createHash('sha256').update(JSON.stringify(rows)).digest('hex');

    for (const [name, text] of [
        ['one value of 10 MB', "select repeat('0123456789abcdef', 655360) as v"],
        ['10 MB in ten thousand rows', "select n, repeat(md5(n::text), 32) as v from generate_series(1, 10000) n"],
        ['10 MB that must be escaped', `select repeat(E'"\\\\\\n\\t\\u0001é', 1000000) as v`],
        ['two hundred thousand rows', "select n, n % 7 = 0 as b from generate_series(1, 200000) n"],
    ]) {
        test(name, async () => {
            const [{ rows }, ours] = [await pg.query(extended(text)), await full.query(text)];
            assert.equal(ours.rowCount, rows.length);
            assert.equal(digest(ours.rows), digest(rows));
        });
    }

    test('two hundred at a time over few connections', async () => {
        const results = await Promise.all(Array.from({ length: 200 }, (_, n) => sql`select ${n}::int as n, pg_backend_pid() as pid`));
        results.forEach(([row], n) => assert.equal(row.n, n));
        assert.ok(new Set(results.map(([row]) => row.pid)).size <= 8, 'no more than the pool has');
    });

    test('the same over HTTP/2', async () => {
        const over2 = neon(GATEWAY_URL, { fetchOptions: { dispatcher: h2 } });
        const results = await Promise.all(Array.from({ length: 100 }, (_, n) => over2`select ${n}::int as n`));
        results.forEach(([row], n) => assert.equal(row.n, n));
    });
});

describe('cancellation', () => {
    for (const [protocol, more] of [['HTTP/1.1', {}], ['HTTP/2', { dispatcher: h2 }]]) {
        test(`an aborted query over ${protocol} is cancelled at the server, and its connection serves on`, async () => {
            const backends = async () => {
                const found = await admin.query("select pid from pg_stat_activity where application_name = 'sluicegate' order by 1");
                return found.rows.map(({ pid }) => pid);
            };
            await sql`select 1`;
            const mark = `aborted over ${protocol}`;
            const abort = new AbortController();
            const fetchOptions = { signal: abort.signal, ...more };
            const ended = failure(sql.query(`insert into item select 1000, pg_sleep(60)::text /* ${mark} */`, [], { fetchOptions }));
            const [{ pid }] = await eventually(mark, () => running(admin, mark), (found) => found.length === 1);
            abort.abort();
            const error = await ended;
            assert.ok(error instanceof NeonDbError && error.sourceError.name === 'AbortError', error);
            await eventually('it is gone', () => running(admin, mark), (found) => found.length === 0);
            assert.equal((await admin.query('select from item where id = 1000')).rowCount, 0);
            // Whichever connections there are now, all of them are clean.
            const seen = await Promise.all(Array.from({ length: 40 }, () => sql`select pg_backend_pid() as pid, txid_current_if_assigned() as tx`));
            for (const [row] of seen) assert.equal(row.tx, null);
            const idle = "select count(*)::int as n from pg_stat_activity where application_name = 'sluicegate' and state <> 'idle'";
            await eventually('all are idle', async () => (await admin.query(idle)).rows[0].n, (n) => n === 0);
            assert.ok((await backends()).length <= 8, `${pid}`);
        });
    }

    test('a query that was aborted before it began is not asked', async () => {
        const error = await failure(sql.query('insert into item (id) values (2000)', [], { fetchOptions: { signal: AbortSignal.abort() } }));
        assert.equal(error.sourceError.name, 'AbortError');
        assert.equal((await pg.query('select from item where id = 2000')).rowCount, 0);
    });
});

describe('who may not', () => {
    test('a wrong password is an error of the database that names the user', async () => {
        const error = await failure(neon(GATEWAY_URL.replace(/:[^:@]+@/, ':wrong@'))`select 1`);
        assert.ok(error instanceof NeonDbError, error);
        assert.equal(error.message, "password authentication failed for user 'app'");
    });

    test('a token may stand in the Authorization header instead, also one that is made at each call', async () => {
        const { password } = new URL(GATEWAY_URL);
        const bare = GATEWAY_URL.replace(/:[^:@]+@/, '@');
        let asked = 0;
        const byToken = neon(bare, { authToken: async () => (asked++, password) });
        assert.deepEqual(await byToken`select 1 as a`, [{ a: 1 }]);
        assert.deepEqual(await byToken.transaction([byToken`select 2 as a`]), [[{ a: 2 }]]);
        assert.equal(asked, 2);
        assert.ok((await failure(neon(bare, { authToken: 'wrong' })`select 1`)) instanceof NeonDbError);
        assert.ok((await failure(neon(bare)`select 1`)) instanceof NeonDbError, 'nothing at all');
    });

    test('a host that no endpoint is configured for is refused', async () => {
        const error = await failure(neon(GATEWAY_URL.replace('db1.', 'db9.'))`select 1`);
        assert.ok(error instanceof NeonDbError, error);
    });

    test('the fetch function may be the application’s own', async () => {
        neonConfig.fetchFunction = (url, options) => fetch(url, { ...options, dispatcher: h2 });
        try {
            assert.deepEqual(await sql`select 1 as a`, [{ a: 1 }]);
        } finally {
            neonConfig.fetchFunction = undefined;
        }
    });
});
