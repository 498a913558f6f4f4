// The same small application on drizzle-orm: over TCP with `pg`, over HTTP, and over a WebSocket. All see the same.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { neon, Pool as NeonPool } from '@neondatabase/serverless';
import { and, desc, eq, inArray, relations, sql } from 'drizzle-orm';
import { drizzle as overNeonHttp } from 'drizzle-orm/neon-http';
import { drizzle as overNeonServerless } from 'drizzle-orm/neon-serverless';
import { drizzle as overNodePostgres } from 'drizzle-orm/node-postgres';
import {
    bigint, boolean, customType, date, integer, jsonb, numeric, pgEnum, pgTable, serial, text, timestamp, uuid, varchar,
} from 'drizzle-orm/pg-core';
import pg from 'pg';
import { failure, GATEWAY_URL, pointAtGateway, SERVER_URL } from './support.mjs';

const bytea = customType({ dataType: () => 'bytea' });
const mood = pgEnum('temper', ['calm', 'it\'s "ok"']);
const author = pgTable('author', {
    id: serial('id').primaryKey(),
    name: varchar('name', { length: 40 }).notNull().unique(),
    mood: mood('mood'),
    tags: text('tags').array(),
    born: date('born'),
    joined: timestamp('joined', { withTimezone: true, mode: 'date' }),
    key: uuid('key'),
});
const book = pgTable('book', {
    id: serial('id').primaryKey(),
    authorId: integer('author_id').notNull().references(() => author.id),
    title: text('title').notNull(),
    price: numeric('price', { precision: 8, scale: 2 }),
    sold: bigint('sold', { mode: 'bigint' }),
    rating: jsonb('rating'),
    cover: bytea('cover'),
    inPrint: boolean('in_print').default(true),
});
const schema = {
    author,
    book,
    authorRelations: relations(author, ({ many }) => ({ books: many(book) })),
    bookRelations: relations(book, ({ one }) => ({ author: one(author, { fields: [book.authorId], references: [author.id] }) })),
};

pointAtGateway();
const pools = { pg: new pg.Pool({ connectionString: SERVER_URL }), neon: new NeonPool({ connectionString: GATEWAY_URL }) };
after(() => Promise.all([pools.pg.end(), pools.neon.end()]));
const WAYS = {
    'node-postgres over TCP': overNodePostgres(pools.pg, { schema }),
    'neon-http': overNeonHttp(neon(GATEWAY_URL), { schema }),
    'neon-serverless over a WebSocket': overNeonServerless(pools.neon, { schema }),
};
const tcp = WAYS['node-postgres over TCP'];

/** Tables as `drizzle-kit push` would make them, empty. */
async function fresh() {
    await tcp.execute(sql.raw(`
        drop table if exists book, author; drop type if exists temper;
        create type temper as enum ('calm', 'it''s "ok"');
        create table author (id serial primary key, name varchar(40) not null unique, mood temper, tags text[], born date, joined timestamptz, key uuid);
        create table book (id serial primary key, author_id int not null references author, title text not null, price numeric(8,2), sold bigint,
            rating jsonb, cover bytea, in_print boolean default true)`));
}

const ANN = {
    name: 'Ann', mood: 'it\'s "ok"', tags: ['a,b', '"', '', '{}'], born: '1970-01-02', joined: new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 678)),
    key: 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
};
const BOOKS = [
    { authorId: 1, title: 'Éclair 😀', price: '12.50', sold: 9223372036854775807n, rating: { by: [1, null, 'x"y'] }, cover: Buffer.from([0, 1, 255]) },
    { authorId: 1, title: 'Plain', price: null, sold: 0n, rating: [], inPrint: false },
    { authorId: 2, title: 'Third', price: '0.10', sold: -1n, rating: 'text' },
];

/** What an application does in a day, and what it saw. */
async function day(db) {
    const seen = [];
    const see = (value) => seen.push(value);
    see(await db.insert(author).values([ANN, { name: 'Bob' }]).returning());
    see(await db.insert(book).values(BOOKS).returning({ id: book.id, price: book.price, cover: sql`encode(${book.cover}, 'hex')` }));
    see(await db.select().from(author).orderBy(author.id));
    see(await db.select({ id: book.id, sold: book.sold, rating: book.rating, inPrint: book.inPrint }).from(book).where(inArray(book.id, [1, 2, 3])).orderBy(desc(book.id)));
    see(await db.select({ name: author.name, books: sql`count(*)::int` }).from(author).innerJoin(book, eq(book.authorId, author.id)).groupBy(author.id).orderBy(author.id));
    see(await db.query.author.findMany({ with: { books: { columns: { title: true, price: true, rating: true }, orderBy: book.id } }, orderBy: author.id }));
    see(await db.query.book.findFirst({ where: eq(book.title, 'Third'), columns: { id: true, title: true }, with: { author: true } }));
    see(await db.update(book).set({ price: sql`${book.price} * 2` }).where(and(eq(book.authorId, 1), eq(book.inPrint, true))).returning({ id: book.id, price: book.price }));
    see(await db.insert(author).values({ name: 'Ann' }).onConflictDoUpdate({ target: author.name, set: { born: '2000-02-29' } }).returning({ id: author.id, born: author.born }));
    const byTitle = db.select({ id: book.id }).from(book).where(eq(book.title, sql.placeholder('title'))).prepare('by_title');
    for (const title of ['Plain', 'Third', 'none']) see(await byTitle.execute({ title }));
    see((await db.delete(book).where(eq(book.id, 2))).rowCount);
    see(await db.$count(book));
    see((await db.execute(sql`select ${1}::int as a, ${'x'} as b`)).rows);
    const error = await failure(db.insert(author).values({ name: 'Bob' }));
    see([error.cause.code, error.cause.constraint, error.cause.detail, error.cause.table]);
    return seen;
}

describe('a day of an application', async () => {
    await fresh();
    const expected = await day(tcp);
    for (const [name, db] of Object.entries(WAYS)) {
        test(name, async () => {
            await fresh();
            assert.deepStrictEqual(await day(db), expected);
        });
    }
});

describe('transactions', () => {
    for (const name of ['node-postgres over TCP', 'neon-serverless over a WebSocket']) {
        test(name, async () => {
            await fresh();
            const db = WAYS[name];
            await db.transaction(async (tx) => {
                const [{ id }] = await tx.insert(author).values({ name: 'Cyd' }).returning();
                await failure(tx.transaction(async (inner) => {
                    await inner.insert(book).values({ authorId: id, title: 'undone' });
                    inner.rollback();
                }));
                await tx.insert(book).values({ authorId: id, title: 'kept' });
            }, { isolationLevel: 'repeatable read' });
            await failure(db.transaction(async (tx) => {
                await tx.insert(author).values({ name: 'Dot' });
                throw new Error('no');
            }));
            assert.deepEqual((await db.select({ title: book.title }).from(book)).map(({ title }) => title), ['kept']);
            assert.deepEqual((await db.select({ name: author.name }).from(author)).map((row) => row.name), ['Cyd']);
        });
    }

    test('neon-http has batches: all or nothing, in order', async () => {
        await fresh();
        const db = WAYS['neon-http'];
        const [made, found] = await db.batch([
            db.insert(author).values({ name: 'Eve' }).returning({ id: author.id }),
            db.query.author.findMany({ columns: { name: true } }),
        ]);
        assert.deepEqual([made, found], [[{ id: 1 }], [{ name: 'Eve' }]]);
        await failure(db.batch([db.insert(author).values({ name: 'Fay' }), db.insert(author).values({ name: 'Eve' })]));
        assert.equal(await db.$count(author), 1);
    });
});
