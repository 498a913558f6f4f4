// One DNS name with a wildcard, and an application reaches its database by way of the gateway without a changed line.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { GATEWAY_URL, overTcp } from './support.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Runs the application with a DATABASE_URL; its exit code and what it said. */
async function application(url) {
    const environment = { ...process.env, DATABASE_URL: url };
    const child = spawn(process.execPath, ['--import', here('names.mjs'), here('application.mjs')], { env: environment });
    let [out, err] = ['', ''];
    child.stdout.on('data', (data) => (out += data));
    child.stderr.on('data', (data) => (err += data));
    const code = await new Promise((resolve) => child.on('close', resolve));
    return { code, out, err };
}

test('an application runs over HTTP and WebSocket with nothing but its DATABASE_URL', async (t) => {
    const { code, out, err } = await application(GATEWAY_URL);
    assert.equal(code, 0, err);
    assert.deepEqual(JSON.parse(out), { overHttp: [{ who: 'Ada' }], overWebSocket: [{ who: 'Ada' }] });
    const pg = await overTcp(t);
    assert.equal((await pg.query("select from visit where who = 'Ada'")).rowCount, 1, 'and it is in the database');
});

test('the endpoint’s name says which database', async () => {
    // `db2` is a pool whose role may not create tables.
    const { code, err } = await application(GATEWAY_URL.replace('db1.', 'db2.'));
    assert.notEqual(code, 0);
    assert.match(err, /permission denied for schema public/);
});

test('without the authority’s certificate nothing is sent', async () => {
    const { NODE_EXTRA_CA_CERTS } = process.env;
    try {
        delete process.env.NODE_EXTRA_CA_CERTS;
        const { code, err } = await application(GATEWAY_URL);
        assert.notEqual(code, 0);
        assert.match(err, /fetch failed/);
    } finally {
        process.env.NODE_EXTRA_CA_CERTS = NODE_EXTRA_CA_CERTS;
    }
});
