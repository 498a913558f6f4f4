// The same small application on kysely: over TCP with `pg`, over HTTP with `kysely-neon`, and over a WebSocket. All see the same.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { neon, Pool as NeonPool } from '@neondatabase/serverless';
import { Kysely, PostgresDialect, sql } from 'kysely';
import { jsonArrayFrom, jsonObjectFrom } from 'kysely/helpers/postgres';
import { NeonDialect } from 'kysely-neon';
import pg from 'pg';
import { failure, GATEWAY_URL, pointAtGateway, SERVER_URL } from './support.mjs';

pointAtGateway();
const WAYS = {
    'PostgresDialect over TCP': new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: SERVER_URL }) }) }),
    'NeonDialect over HTTP': new Kysely({ dialect: new NeonDialect({ neon: neon(GATEWAY_URL) }) }),
    'PostgresDialect over a WebSocket': new Kysely({ dialect: new PostgresDialect({ pool: new NeonPool({ connectionString: GATEWAY_URL }) }) }),
};
const tcp = WAYS['PostgresDialect over TCP'];
after(() => Promise.all(Object.values(WAYS).map((db) => db.destroy())));

/** Makes the tables anew by way of `db`: a schema builder is SQL like any other. */
async function fresh(db) {
    await db.schema.dropTable('pet').ifExists().execute();
    await db.schema.dropTable('person').ifExists().execute();
    await db.schema.createTable('person')
        .addColumn('id', 'integer', (column) => column.primaryKey().generatedAlwaysAsIdentity())
        .addColumn('name', 'varchar(40)', (column) => column.notNull().unique())
        .addColumn('born', 'timestamptz').addColumn('score', 'numeric').addColumn('tags', sql`text[]`).addColumn('extra', 'jsonb')
        .execute();
    await db.schema.createTable('pet')
        .addColumn('id', 'serial', (column) => column.primaryKey())
        .addColumn('owner', 'integer', (column) => column.references('person.id').onDelete('cascade').notNull())
        .addColumn('name', 'text').addColumn('photo', 'bytea')
        .execute();
}

/** What an application does in a day, and what it saw. */
async function day(db) {
    const seen = [];
    const see = (value) => seen.push(value);
    const people = [
        { name: 'Ann', born: new Date(Date.UTC(1970, 0, 2)), score: '1.50', tags: ['a,b', null, '"'], extra: { a: [1, null] } },
        { name: 'Bob é😀', born: null, score: 'NaN', tags: [], extra: null },
    ];
    see(await db.insertInto('person').values(people).returningAll().execute());
    const { id } = await db.selectFrom('person').select('id').where('name', '=', 'Ann').executeTakeFirstOrThrow();
    see(await db.insertInto('pet').values([{ owner: id, name: 'Rex' }, { owner: id, name: null }]).executeTakeFirst());
    see(await db.selectFrom('person').innerJoin('pet', 'pet.owner', 'person.id').select(['person.name', 'pet.name as pet']).orderBy('pet.id').execute());
    see(await db.selectFrom('person').select((eb) => [
        'name',
        jsonArrayFrom(eb.selectFrom('pet').select(['pet.id', 'pet.name']).whereRef('pet.owner', '=', 'person.id').orderBy('pet.id')).as('pets'),
        jsonObjectFrom(eb.selectFrom('pet').select('pet.name').whereRef('pet.owner', '=', 'person.id').orderBy('pet.id').limit(1)).as('first'),
    ]).orderBy('id').execute());
    see(await db.updateTable('person').set({ score: sql`score + 1` }).where('id', 'in', [1, 2]).returning(['id', 'score']).execute());
    see(await db.insertInto('person').values({ name: 'Ann', score: '7' }).onConflict((on) => on.column('name').doUpdateSet({ score: (eb) => eb.ref('excluded.score') })).executeTakeFirst());
    see(await db.with('old', (q) => q.selectFrom('person').select('id').where('born', '<', new Date())).selectFrom('old').selectAll().execute());
    see((await sql`select ${[1, 2]}::int[] as list, ${Buffer.from([0, 255])}::bytea = '\\x00ff' as same`.execute(db)).rows);
    see((await db.deleteFrom('pet').where('name', 'is', null).executeTakeFirst()).numDeletedRows);
    const error = await failure(db.insertInto('pet').values({ owner: 99 }).execute());
    see([error.code, error.constraint, error.table, error.detail]);
    see((await db.introspection.getTables()).filter(({ name }) => ['person', 'pet'].includes(name)));
    return seen;
}

describe('a day of an application', async () => {
    await fresh(tcp);
    const expected = await day(tcp);
    for (const [name, db] of Object.entries(WAYS)) {
        test(name, async () => {
            await fresh(db);
            assert.deepStrictEqual(await day(db), expected);
        });
    }
});

describe('transactions', () => {
    for (const name of ['PostgresDialect over TCP', 'PostgresDialect over a WebSocket']) {
        test(name, async () => {
            const db = WAYS[name];
            await fresh(db);
            await db.transaction().setIsolationLevel('serializable').execute(async (tx) => {
                await tx.insertInto('person').values({ name: 'Cyd' }).execute();
                await tx.insertInto('pet').values({ owner: 1, name: 'Rex' }).execute();
            });
            await failure(db.transaction().execute(async (tx) => {
                await tx.insertInto('person').values({ name: 'Dot' }).execute();
                await tx.insertInto('person').values({ name: 'Cyd' }).execute();
            }));
            const tx = await db.startTransaction().execute();
            await tx.insertInto('person').values({ name: 'Eve' }).execute();
            await tx.savepoint('s').execute();
            await tx.rollback().execute();
            assert.deepEqual(await db.selectFrom('person').select('name').execute(), [{ name: 'Cyd' }]);
        });
    }
});
