// The driver's `Client` and `Pool` over a WebSocket: a session of PostgreSQL, with all that belongs to one.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Client, neonConfig, Pool } from '@neondatabase/serverless';
import Cursor from 'pg-cursor';
import {
    ADMIN_URL, comparable, eventually, failure, GATEWAY, GATEWAY_URL, overTcp, overWebSocket, pointAtGateway, poolOverWebSocket, running,
} from './support.mjs';

const file = { after };
const [pg, admin] = [await overTcp(file), await overTcp(file, ADMIN_URL)];
await pg.query('create table account (id int primary key, owner text, amount int check (amount >= 0))');
await pg.query("insert into account values (1, 'ann', 100), (2, 'bob', 100)");

const once = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));

describe('connecting', () => {
    for (const [name, settings] of [
        ['everything in one flight, as is the default', {}],
        ['step by step', { pipelineConnect: false }],
        ['each message in a frame of its own', { coalesceWrites: false }],
    ]) {
        test(name, async (t) => {
            const client = await overWebSocket(t, {}, settings);
            assert.deepEqual((await client.query('select $1::int as a', [1])).rows, [{ a: 1 }]);
            assert.deepEqual((await client.query('select 1 as a; select 2 as b')).map(({ rows }) => rows), [[{ a: 1 }], [{ b: 2 }]]);
        });
    }

    test('through the path that older proxies have, with the name of an endpoint', async (t) => {
        const client = await overWebSocket(t, {}, { wsProxy: (host, port) => `${GATEWAY}/v1?address=${host}:${port}` });
        assert.equal((await client.query('select 1 as a')).rows[0].a, 1);
    });

    test('to another address is refused, whatever listens there', async () => {
        pointAtGateway();
        const client = new Client({ connectionString: GATEWAY_URL });
        client.on('error', () => {});
        client.neonConfig.wsProxy = () => `${GATEWAY}/v1?address=127.0.0.1:${new URL(process.env.SERVER_URL).port}`;
        await failure(client.connect().then(() => client.query('select 1')));
    });

    for (const pipelineConnect of ['password', false]) {
        test(`a wrong password is told as PostgreSQL tells it (pipelineConnect: ${pipelineConnect})`, async () => {
            pointAtGateway();
            const client = new Client({ connectionString: GATEWAY_URL.replace(/:[^:@]+@/, ':wrong@') });
            const told = once(client, 'error');
            client.neonConfig.pipelineConnect = pipelineConnect;
            const error = await Promise.race([failure(client.connect().then(() => client.query('select 1'))), told]);
            assert.deepEqual([error.severity, error.code], ['FATAL', '28P01'], error);
        });
    }

    test('the session is the pool’s role in the pool’s database, and says which server it is', async (t) => {
        const client = await overWebSocket(t);
        const { rows } = await client.query("select current_user as role, current_database() as db, current_setting('server_version') as version");
        const direct = await pg.query("select current_user as role, current_database() as db, current_setting('server_version') as version");
        assert.deepEqual(rows, direct.rows);
    });

    test('hangs up when told to, and the server’s session is free again', async (t) => {
        const client = await overWebSocket(t);
        const pid = (await client.query('select pg_backend_pid() as pid')).rows[0].pid;
        await client.query('begin');
        await client.end();
        const state = "select state from pg_stat_activity where pid = $1 and state <> 'idle'";
        await eventually('nothing is open', async () => (await admin.query(state, [pid])).rows, (rows) => rows.length === 0);
        assert.equal((await failure(client.query('select 1'))).message, 'Client was closed and is not queryable');
    });
});

describe('a session', () => {
    test('keeps its settings, temporary tables and cursors, and the next one has none of them', async (t) => {
        const client = await overWebSocket(t);
        await client.query("set my.own = 'mine'; create temporary table mine (n int); prepare p as select 7");
        assert.equal((await client.query("select current_setting('my.own') as v, (select count(*) from mine)")).rows[0].v, 'mine');
        assert.equal((await client.query('execute p')).rowCount, 1);
        await client.end();
        const others = await Promise.all(Array.from({ length: 4 }, () => overWebSocket(t)));
        for (const other of others) {
            const { rows } = await other.query("select current_setting('my.own', true) as v, to_regclass('mine') as mine, (select count(*)::int from pg_prepared_statements where from_sql) as n");
            assert.deepEqual([rows[0].v || null, rows[0].mine, rows[0].n], [null, null, 0]);
        }
    });

    test('a transaction commits', async (t) => {
        const client = await overWebSocket(t);
        await client.query('begin');
        await client.query('update account set amount = amount - $1 where id = 1', [30]);
        assert.equal((await pg.query('select amount from account where id = 1')).rows[0].amount, 100, 'nobody else sees it yet');
        await client.query('update account set amount = amount + $1 where id = 2', [30]);
        await client.query('commit');
        assert.deepEqual((await pg.query('select amount from account order by id')).rows.map((row) => row.amount), [70, 130]);
    });

    test('a transaction rolls back, and to a savepoint', async (t) => {
        const client = await overWebSocket(t);
        await client.query('begin');
        await client.query('savepoint s');
        assert.equal((await failure(client.query('update account set amount = -1 where id = 1'))).code, '23514');
        assert.equal((await failure(client.query('select 1'))).code, '25P02');
        await client.query('rollback to s');
        await client.query("insert into account values (3, 'cyd', 1)");
        await client.query('rollback');
        assert.equal((await pg.query('select from account where id = 3')).rowCount, 0);
    });

    test('a named statement is prepared once', async (t) => {
        const client = await overWebSocket(t);
        for (let n = 0; n < 5; n++) {
            const { rows } = await client.query({ name: 'by-owner', text: 'select id from account where owner = $1', values: ['ann'] });
            assert.deepEqual(rows, [{ id: 1 }]);
        }
        const { rows } = await client.query("select generic_plans + custom_plans as runs from pg_prepared_statements where name = 'by-owner'");
        assert.deepEqual(rows, [{ runs: '5' }]);
    });

    test('queries may be queued, and come back in order', async (t) => {
        const client = await overWebSocket(t);
        const results = await Promise.all(Array.from({ length: 100 }, (_, n) => client.query('select $1::int as n', [n])));
        results.forEach(({ rows }, n) => assert.equal(rows[0].n, n));
    });

    test('a cursor takes a part at a time', async (t) => {
        const client = await overWebSocket(t);
        const cursor = client.query(new Cursor('select n from generate_series(1, $1::int) n', [1000]));
        let seen = 0;
        for (let rows = await cursor.read(300); rows.length > 0; rows = await cursor.read(300)) {
            for (const { n } of rows) assert.equal(n, ++seen);
            assert.ok(rows.length <= 300);
        }
        assert.equal(seen, 1000);
        await cursor.close();
        assert.equal((await client.query('select 1 as a')).rows[0].a, 1);
    });

    test('20 MB of rows come whole, as do 20 MB of a parameter', async (t) => {
        const client = await overWebSocket(t);
        const text = "select md5(n::text) || repeat('x', 1000) as v from generate_series(1, 20000) n";
        assert.deepEqual(comparable(await client.query(text)), comparable(await pg.query(text)));
        const long = 'é'.repeat(10_000_000);
        assert.equal((await client.query('select octet_length($1::text) as n', [long])).rows[0].n, 20_000_000);
    });

    test('notices arrive', async (t) => {
        const client = await overWebSocket(t);
        const notice = once(client, 'notice');
        await client.query("do $$ begin raise warning 'mind %', 'the gap' using detail = 'd', errcode = '01234'; end $$");
        const { severity, code, message, detail } = await notice;
        assert.deepEqual({ severity, code, message, detail }, { severity: 'WARNING', code: '01234', message: 'mind the gap', detail: 'd' });
    });

    test('notifications arrive while nothing is asked, from this session and from others', async (t) => {
        const client = await overWebSocket(t);
        const got = [];
        client.on('notification', ({ channel, payload, processId }) => got.push({ channel, payload, processId }));
        await client.query('listen news');
        await client.query("notify news, 'own'");
        await pg.query("select pg_notify('news', $1)", ['from afar é']);
        await pg.query("notify others, 'not for us'");
        await eventually('both came', () => got, ({ length }) => length === 2);
        const own = (await client.query('select pg_backend_pid() as pid')).rows[0].pid;
        assert.deepEqual(got, [{ channel: 'news', payload: 'own', processId: own }, { channel: 'news', payload: 'from afar é', processId: pg.processID }]);
        await client.query('unlisten *');
    });

    test('an error leaves the session as it was', async (t) => {
        const client = await overWebSocket(t);
        for (let n = 0; n < 20; n++) {
            assert.equal((await failure(client.query('select 1/$1::int', [0]))).code, '22012');
            assert.equal((await client.query('select $1::int as n', [n])).rows[0].n, n);
        }
    });
});

describe('cancellation', () => {
    test('another connection cancels a running query by its key, and the session serves on', async (t) => {
        const client = await overWebSocket(t);
        const mark = 'cancelled by key';
        const ended = failure(client.query(`select pg_sleep(60) /* ${mark} */`));
        await eventually(mark, () => running(admin, mark), (found) => found.length === 1);
        const canceller = new Client({ connectionString: GATEWAY_URL });
        canceller.cancel(client, client.activeQuery);
        assert.equal((await ended).code, '57014');
        assert.equal((await client.query('select 1 as a')).rows[0].a, 1);
    });

    test('a client that vanishes takes its query with it', async (t) => {
        pointAtGateway();
        const client = new Client({ connectionString: GATEWAY_URL });
        client.on('error', () => {});
        await client.connect();
        const mark = 'vanished';
        const ended = failure(client.query(`select pg_sleep(60) /* ${mark} */`));
        await eventually(mark, () => running(admin, mark), (found) => found.length === 1);
        client.connection.stream.ws.terminate();
        await ended;
        await eventually('it is gone', () => running(admin, mark), (found) => found.length === 0);
    });

    test('a session that the server ends is an error at the client, and a new one is to be had', async (t) => {
        const client = await overWebSocket(t);
        const errors = [];
        client.on('error', (error) => errors.push(error.code));
        const { pid } = (await client.query('select pg_backend_pid() as pid')).rows[0];
        await admin.query('select pg_terminate_backend($1)', [pid]);
        await eventually('it is told why', () => errors, (codes) => codes.includes('57P01'));
        assert.equal((await (await overWebSocket(t)).query('select 1 as a')).rows[0].a, 1);
    });
});

describe('a pool', () => {
    test('shares its sessions among callers', async (t) => {
        const pool = poolOverWebSocket(t, { max: 4 });
        const results = await Promise.all(Array.from({ length: 60 }, (_, n) => pool.query('select $1::int as n, pg_backend_pid() as pid', [n])));
        results.forEach(({ rows }, n) => assert.equal(rows[0].n, n));
        assert.ok(new Set(results.map(({ rows }) => rows[0].pid)).size <= 4);
    });

    test('a client of it has a transaction of its own', async (t) => {
        const pool = poolOverWebSocket(t, { max: 2 });
        const client = await pool.connect();
        try {
            await client.query('begin');
            await client.query("insert into account values (10, 'dot', 5)");
            assert.equal((await pool.query('select from account where id = 10')).rowCount, 0);
            await client.query('rollback');
        } finally {
            client.release();
        }
        assert.equal((await pool.query('select from account where id = 10')).rowCount, 0);
    });

    test('poolQueryViaFetch: lone queries go over HTTP, clients over the WebSocket', async (t) => {
        const pool = poolOverWebSocket(t);
        neonConfig.poolQueryViaFetch = true;
        try {
            const viaFetch = await pool.query('select $1::int as n', [3]);
            assert.deepEqual([viaFetch.rows, viaFetch.viaNeonFetch], [[{ n: 3 }], true]);
            assert.equal((await failure(pool.query('select 1/0'))).code, '22012');
            assert.equal(pool.totalCount, 0);
            const client = await pool.connect();
            assert.equal((await client.query('select 1 as a')).viaNeonFetch, undefined);
            client.release();
        } finally {
            neonConfig.poolQueryViaFetch = false;
        }
    });

    test('ends when told to', async () => {
        pointAtGateway();
        const pool = new Pool({ connectionString: GATEWAY_URL });
        await Promise.all([pool.query('select 1'), pool.query('select 2')]);
        await pool.end();
        assert.equal(pool.totalCount, 0);
        assert.ok(await failure(pool.query('select 1')));
    });
});
