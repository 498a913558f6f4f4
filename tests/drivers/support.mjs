// The two sides that these tests compare: `pg` straight to the server over TCP, and the drivers by way of the gateway.
//
// From the environment, set by `tests/integration/drivers.rs`:
//   SERVER_URL   postgres://app:…@127.0.0.1:PORT/postgres, the server itself
//   ADMIN_URL    the same as a superuser, for what a test prepares and looks at
//   GATEWAY_URL  postgres://app:KEY@db1.gw.test/postgres, what an application would have as DATABASE_URL
//   GATEWAY_PORT where the gateway listens on 127.0.0.1 (as `localhost`, with a certificate in NODE_EXTRA_CA_CERTS)

import assert from 'node:assert/strict';
import pg from 'pg';
import ws from 'ws';
import { neon, neonConfig, Client as NeonClient, Pool as NeonPool } from '@neondatabase/serverless';

/** A variable that must be there. */
export function variable(name) {
    const value = process.env[name];
    assert.ok(value, `${name} is not set: these tests are run by \`cargo nextest run drivers\``);
    return value;
}

export const SERVER_URL = variable('SERVER_URL');
export const ADMIN_URL = variable('ADMIN_URL');
export const GATEWAY_URL = variable('GATEWAY_URL');
export const GATEWAY = `localhost:${variable('GATEWAY_PORT')}`;

/** The explicit way to point the driver at a gateway: two settings, and a WebSocket for Node before 22. */
export function pointAtGateway() {
    neonConfig.fetchEndpoint = `https://${GATEWAY}/sql`;
    neonConfig.wsProxy = () => `${GATEWAY}/v2`;
    neonConfig.webSocketConstructor = ws;
}

/** `neon()` by way of the gateway, with whole results. */
export function overHttp(options = {}) {
    pointAtGateway();
    return neon(GATEWAY_URL, { fullResults: true, ...options });
}

/** A `Client` of the driver over a WebSocket, connected. Ended with the test. */
export async function overWebSocket(test, config = {}, settings = {}) {
    pointAtGateway();
    const client = new NeonClient({ connectionString: GATEWAY_URL, ...config });
    Object.assign(client.neonConfig, settings);
    let ended = false;
    client.once('end', () => (ended = true));
    test.after(() => ended || client.end());
    await client.connect();
    return client;
}

/** A `Pool` of the driver over WebSockets. Ended with the test. */
export function poolOverWebSocket(test, config = {}) {
    pointAtGateway();
    const pool = new NeonPool({ connectionString: GATEWAY_URL, ...config });
    test.after(() => pool.end());
    return pool;
}

/** `pg` over TCP, connected. Ended with the test. */
export async function overTcp(test, url = SERVER_URL) {
    const client = new pg.Client({ connectionString: url });
    test.after(() => client.end());
    await client.connect();
    return client;
}

/** A query of `pg` in the extended protocol even without parameters, as one over HTTP is. */
export const extended = (text, values = [], more = {}) => ({ text, values, queryMode: 'extended', ...more });

/** Type parsers that leave every value as the server's text. */
export const asText = { getTypeParser: () => (value) => value };

/** What both sides must agree on in a result. */
export function comparable(result) {
    const { command, rowCount, rowAsArray, rows, fields } = result;
    return { command, rowCount, rowAsArray: rowAsArray ?? false, rows: rows.map(bare), fields: fields.map((field) => ({ ...field })) };
}

/** A value without its class, which each side has a copy of, but with the class's name. */
function bare(value) {
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value;
    if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString('hex')}`;
    if (Array.isArray(value)) return value.map(bare);
    if (value === null || typeof value !== 'object') return value;
    const fields = Object.fromEntries(Object.entries(value).map(([name, field]) => [name, bare(field)]));
    const of = value.constructor?.name ?? 'Object';
    return of === 'Object' ? fields : { of, fields };
}

const ERROR_FIELDS = [
    'message', 'severity', 'code', 'detail', 'hint', 'position', 'internalPosition', 'internalQuery', 'where',
    'schema', 'table', 'column', 'dataType', 'constraint', 'file', 'line', 'routine',
];

/** Every field that the server may put into an error, absent ones too. */
export function comparableError(error) {
    assert.ok(error.code, `an error of the database: ${error.stack}`);
    return Object.fromEntries(ERROR_FIELDS.map((field) => [field, error[field]]));
}

/** The error that `promise` ends in. */
export async function failure(promise) {
    const [outcome] = await Promise.allSettled([promise]);
    assert.equal(outcome.status, 'rejected', `should have failed: ${JSON.stringify(outcome.value)}`);
    return outcome.reason;
}

/** Looks until `enough` is true of what it sees; fails with what it saw last after 20 s. */
export async function eventually(what, look, enough = Boolean) {
    const end = Date.now() + 20_000;
    for (;;) {
        const seen = await look();
        if (enough(seen)) return seen;
        assert.ok(Date.now() < end, `${what}: last seen ${JSON.stringify(seen)}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

/** Server processes that run a statement with `text` now, the asking one apart. */
export async function running(admin, text) {
    const sql = `select pid, wait_event_type from pg_stat_activity
                 where state = 'active' and pid <> pg_backend_pid() and position($1 in query) > 0`;
    return (await admin.query(sql, [text])).rows;
}

/** Waits until a statement with `text` waits for a lock. */
export const blocked = (admin, text) =>
    eventually(`${text} waits for a lock`, () => running(admin, text), (found) => found.some((row) => row.wait_event_type === 'Lock'));
