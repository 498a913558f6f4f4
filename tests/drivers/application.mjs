// An application as people have it: a DATABASE_URL and the driver, and no word of a gateway. `wildcard.test.mjs` runs it.

import { neon, Pool, neonConfig } from '@neondatabase/serverless';
import ws from 'ws';

neonConfig.webSocketConstructor = ws; // Node 22 has a WebSocket of its own

const sql = neon(process.env.DATABASE_URL);
await sql`create table if not exists visit (id int generated always as identity, who text)`;
const [[{ id }]] = await sql.transaction([sql`insert into visit (who) values (${'Ada'}) returning id`]);
const overHttp = await sql`select who from visit where id = ${id}`;

const pool = new Pool({ connectionString: process.env.DATABASE_URL });
const { rows: overWebSocket } = await pool.query('select who from visit where id = $1', [id]);
await pool.end();

console.log(JSON.stringify({ overHttp, overWebSocket }));
