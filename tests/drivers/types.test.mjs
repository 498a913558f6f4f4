// Whatever PostgreSQL can say in a column comes through the gateway as `pg` gets it over TCP: the value, the server's own
// text of it, and every field of the metadata. And back again as a parameter.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { asText, comparable, extended, overHttp, overTcp, overWebSocket } from './support.mjs';
import { METADATA, PARAMETERS, SCHEMA, VALUES } from './values.mjs';

// Connected before the tests are declared: `t.after` of a test is this file's own `after` here.
const file = { after };
const sides = { pg: await overTcp(file), http: overHttp(), socket: await overWebSocket(file) };
await sides.pg.query(SCHEMA);

/** The same query on `pg`, over HTTP and over a WebSocket; fails unless all agree, else gives `pg`'s result. */
async function agreed(text, values, { types, arrayMode = false } = {}) {
    const asPg = { ...extended(text, values), ...(types && { types }), ...(arrayMode && { rowMode: 'array' }) };
    const expected = comparable(await sides.pg.query({ ...asPg }));
    const http = comparable(await sides.http.query(text, values, { arrayMode, ...(types && { types }) }));
    assert.deepStrictEqual(http, expected, 'over HTTP');
    assert.deepStrictEqual(comparable(await sides.socket.query({ ...asPg })), expected, 'over a WebSocket');
    return expected;
}

describe('a value comes through as pg gets it over TCP', () => {
    for (const [name, expression] of VALUES) {
        test(name, async () => {
            const sql = `select ${expression} as v`;
            await agreed(sql, []);
            await agreed(sql, [], { types: asText, arrayMode: true });
        });
    }
});

describe('a value goes back in as a parameter, and out again as it was', () => {
    for (const [name, expression, { oneWay = false } = {}] of VALUES) {
        if (oneWay) continue;
        test(name, async () => {
            const told = await sides.pg.query({ ...extended(`select ${expression} as v`), types: asText });
            const { dataTypeID, dataTypeModifier } = told.fields[0];
            const type = await sides.pg.query('select format_type($1, $2) as name', [dataTypeID, dataTypeModifier]);
            const back = await agreed(`select $1::${type.rows[0].name} as v`, [told.rows[0].v], { types: asText });
            assert.equal(back.rows[0].v, told.rows[0].v);
        });
    }
});

describe('a JavaScript value is the parameter that pg makes of it', () => {
    for (const [name, cast, value] of PARAMETERS) {
        test(name, () => agreed(`select $1::${cast} as v`, [value], { types: asText }));
    }
});

describe('metadata is what the server says', () => {
    for (const [name, sql] of METADATA) {
        test(name, async () => {
            await agreed(sql, []);
            await agreed(sql, [], { arrayMode: true });
        });
    }
});

test('a statement with nothing in it has a result with nothing in it', async () => {
    for (const text of ['', '-- nothing', ' ; ']) {
        const expected = comparable(await sides.pg.query(extended(text)));
        assert.equal(expected.command, null);
        // Where `pg` has no command tag, the driver's HTTP side is told an empty one.
        assert.deepStrictEqual(comparable(await sides.http.query(text)), { ...expected, command: '' });
        assert.deepStrictEqual(comparable(await sides.socket.query(extended(text))), expected);
    }
});

test('there are as many as were promised', () => {
    assert.ok(VALUES.length >= 60, `${VALUES.length} values`);
    assert.equal(new Set(VALUES.map(([name]) => name)).size, VALUES.length, 'no name twice');
});
