/**
 * An edge of two workers whose configuration changes to and fro while clients fetch: sizes and policies of both tiers, and
 * rules. No request fails, the counters go on, and the tiers end below their new bounds.
 */
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { Agent, createServer, get, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { json, sendRequest } from '../../kit/http/request.js';
import { ownPort } from '../../kit/ports.js';
import { openProcesses } from '../../kit/processes.js';
import { untilAsync } from '../../kit/until.js';

const OBJECTS = 200;
const CLIENTS = 6;
const BODY_BYTES = 40_000;

const bodyOf = (path: string): Buffer => Buffer.alloc(BODY_BYTES + path.length, path);

const LARGE = {
  cache: { memory: { size: '40MB', policy: 'gdsf' }, disk: { size: '100MB', policy: 's3-fifo', min_free: '0B' } },
  rules: [],
};
const SMALL = {
  cache: {
    memory: { size: '4MB', policy: 'w-tinylfu' },
    disk: { size: '6MB', fill_room: '2MB', policy: 'sieve', admission: 'second_hit', min_free: '0B' },
  },
  rules: [{ type: 'image/*', ttl: '1h' }, { tiers: 'memory' }],
};

t.setTimeout(120_000);
void t.test(
  'no request fails while the cache is resized, its policies are exchanged and its rules change',
  async (t) => {
    const server = createServer((request, response) => {
      const path = request.url ?? '';
      const type = path.endsWith('0') ? 'image/png' : 'video/mp4';
      response.writeHead(200, { 'content-type': type, 'cache-control': 'public, max-age=600', etag: '"x"' });
      response.end(bodyOf(path));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const processes = await openProcesses(t.testdir());
    const agent = new Agent({ keepAlive: true, maxSockets: CLIENTS });
    try {
      const operatorsPort = await ownPort();
      const launched = await processes.launch('edge', {
        access: 'off',
        workers: 2,
        operators: { port: operatorsPort },
        upstream: { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` },
        ...LARGE,
      });
      const url = await launched.ready;
      const operators = `http://127.0.0.1:${operatorsPort}`;
      const stats = async () =>
        json(await sendRequest(`${operators}/stats`)) as unknown as {
          readonly cache: Readonly<Record<'memory' | 'disk', { used_bytes: number; capacity_bytes: number }>>;
          readonly requests: { readonly outcomes: Readonly<Record<string, { readonly requests: number }>> };
        };
      let sent = 0;
      const failures: string[] = [];
      const fetchOne = async (n: number): Promise<void> => {
        const path = `/${n}`;
        sent += 1;
        const request = get(url + path, { agent });
        const [response] = (await once(request, 'response')) as [IncomingMessage];
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        const whole = Buffer.concat(chunks).equals(bodyOf(path));
        if (response.statusCode !== 200 || !whole) failures.push(`${path}: ${response.statusCode}, whole: ${whole}`);
      };
      const stopping = new AbortController();
      const clients = Array.from({ length: CLIENTS }, async (_, client) => {
        // Half of the requests are for a few objects.
        for (let k = 0; !stopping.signal.aborted; k += 1)
          await fetchOne(k % 2 === 0 ? (7 * k + client) % OBJECTS : (k * k + client) % 20);
      });
      const change = async (keys: object): Promise<void> => {
        const config = JSON.parse(await readFile(launched.configPath, 'utf8')) as { readonly edge: object };
        await writeFile(launched.configPath, JSON.stringify({ ...config, edge: { ...config.edge, ...keys } }));
        const answer = await sendRequest(`${operators}/reload`, { method: 'POST' });
        t.equal(answer.status, 200, answer.bytes.toString());
      };
      const more = async (requests: number): Promise<void> => {
        const before = sent;
        await untilAsync('more requests', async () => sent >= before + requests);
      };
      await more(2 * OBJECTS);
      t.ok((await stats()).cache.disk.used_bytes > 4_000_000, 'more is stored than the smaller bound allows');
      for (let round = 0; round < 3; round += 1) {
        await change(SMALL);
        await more(150);
        await change(LARGE);
        await more(150);
      }
      await change(SMALL);
      await untilAsync('both tiers to be below their bounds', async () => {
        const { memory, disk } = (await stats()).cache;
        return memory.used_bytes <= 4_000_000 && disk.used_bytes <= 4_000_000 && memory.capacity_bytes === 4_000_000;
      });
      await more(50);
      stopping.abort();
      await Promise.all(clients);
      t.same(failures, []);
      const { outcomes } = (await stats()).requests;
      const counted = Object.values(outcomes).reduce((sum, { requests }) => sum + requests, 0);
      t.equal(counted, sent, 'every request was counted');
      t.ok((outcomes['hit_memory']?.requests ?? 0) > OBJECTS, JSON.stringify(outcomes));
    } finally {
      agent.destroy();
      await processes.close();
      server.close();
    }
  },
);
