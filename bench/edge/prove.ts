/** Shows that a server answers a row's request with the expected bytes, from its cache, and refuses a wrong token. */
import { Agent, type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps, Agent as TlsAgent } from 'node:https';
import type { LoadTask } from './load.js';
import type { Content, Row } from './rows.js';
import type { Server } from './servers.js';

const TRIES = 200;
const agents = {
  plain: new Agent({ keepAlive: true, maxSockets: 16 }),
  tls: new TlsAgent({ keepAlive: true, rejectUnauthorized: false }),
};

export async function prove(
  server: Server,
  row: Row,
  task: LoadTask,
  bodies: ReadonlyMap<Content, Buffer>,
): Promise<void> {
  const { what } = row;
  if (what.kind === 'zipf') {
    const agent = task.paths.map((path) => () => ask(server, task, { ...task, path }));
    await inTurns(agent, 16);
    return;
  }
  const path = (task.paths[0] ?? '').replace('{n}', String(task.from));
  const body = what.kind === 'content' ? bodies.get(what.content) : undefined;
  const last = await untilRight(server, row, { ...task, path }, body);
  if (last !== undefined) throw new Error(`${server.name}, ${row.name}: ${last}`);
  if (!/authorization/i.test(server.fields) || row.method === 'POST') return;
  const fields = task.fields.replace(/(Authorization: Bearer )/, '$1x');
  const { status } = await ask(server, task, { ...task, path, fields });
  if (status !== 401) throw new Error(`${server.name} answers ${status} to a wrong token`);
}

interface Asked {
  readonly path: string;
  readonly fields: string;
}

/** What is wrong with the last answer; undefined once one is right. A cache needs some requests until it has stored. */
async function untilRight(
  server: Server,
  row: Row,
  asked: LoadTask & Asked,
  body: Buffer | undefined,
): Promise<string | undefined> {
  let wrong: string | undefined;
  for (let attempt = 1; attempt <= TRIES; attempt += 1) {
    // A range is asked for once the whole is stored.
    const line = asked.lines[0] ?? '';
    const answer = await ask(server, asked, { path: asked.path, fields: asked.fields + (attempt === 1 ? '' : line) });
    wrong = faultOf(server, row, answer, line, body);
    if (wrong === undefined) return undefined;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return wrong;
}

function faultOf(
  server: Server,
  { method, status, what }: Row,
  answer: Answer,
  line: string,
  body: Buffer | undefined,
): string | undefined {
  if (answer.status !== status) return `status ${answer.status}`;
  if (what.kind !== 'content' || body === undefined) return undefined;
  if (method === 'GET' && status !== 304 && !answer.bytes.equals(expected(body, line))) return 'another body';
  const cached = String(answer.fields['cache-status'] ?? answer.fields['x-cache'] ?? 'none');
  if (!server.name.startsWith('edge')) return cached === 'none' || cached === 'HIT' ? undefined : cached;
  const tier = server.name.startsWith('edge, disk') ? 'disk' : 'memory';
  return cached.includes('; hit') && cached.includes(`detail=${tier}`) ? undefined : cached;
}

function expected(body: Buffer, line: string): Buffer {
  const [, first, last] = /bytes=(\d+)-(\d+)/.exec(line) ?? [];
  return first === undefined ? body : body.subarray(Number(first), Number(last) + 1);
}

interface Answer {
  readonly status: number;
  readonly fields: IncomingMessage['headers'];
  readonly bytes: Buffer;
}

function ask(server: Server, { method, body }: LoadTask, { path, fields }: Asked): Promise<Answer> {
  const headers = Object.fromEntries(
    fields
      .split('\r\n')
      .filter((line) => line !== '' && !/^connection:/i.test(line))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]),
  );
  const options = { host: '127.0.0.1', port: server.port, path, method, headers };
  return new Promise((resolve, reject) => {
    const request = server.tls
      ? requestHttps({ ...options, agent: agents.tls })
      : requestHttp({ ...options, agent: agents.plain });
    request.once('error', reject).once('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk)).once('error', reject);
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, fields: response.headers, bytes: Buffer.concat(chunks) }),
      );
    });
    request.end(body);
  });
}

async function inTurns(work: readonly (() => Promise<Answer>)[], atOnce: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let each = work[next++]; each !== undefined; each = work[next++]) {
      const { status } = await each();
      if (status !== 200) throw new Error(`answered ${status}`);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
