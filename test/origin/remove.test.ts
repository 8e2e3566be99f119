/** Takedowns by admins: delete, quarantine, what edges hear of them, and the audit log. */
import { readFile } from 'node:fs/promises';
import { get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { edgeProof } from '../../src/access/edge-proof.js';
import { CONFIRM_PATH, JOURNAL_PATH, type JournalEntry, type JournalLine, parseLine } from '../../src/journal/entry.js';
import { USES_PATH } from '../../src/journal/use-report.js';
import { TEST_SECRET } from '../kit/auth-service.js';
import { type HttpResponse, json, member } from '../kit/http/request.js';
import { png } from '../kit/media.js';
import { startOrigin, type TestOrigin } from '../kit/origin/origin.js';

const NO_THUMBS = { thumbs: { enabled: false, wait: '0ms', video: { enabled: false } } };
/** How long a takedown waits for edges. No other timer has this delay. */
const WAIT_MAX_MS = 4_321;
const UNKNOWN = '01ARZ3NDEKTSV4RRFFQ69G5FAV';
const code = (response: HttpResponse): string => `${response.status} ${String(json(response)['code'])}`;

/** Follows the journal as an edge does, but confirms only when told. */
async function follow(origin: TestOrigin, edge: string) {
  const lines: JournalLine[] = [];
  const watchers = new Set<() => void>();
  const headers = { 'edge-authorization': edgeProof(TEST_SECRET) };
  const query = new URLSearchParams({ from: '0', edge, instance: `${edge}-1` });
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(`${origin.url}${JOURNAL_PATH}?${query.toString()}`, { headers, agent: false }, resolve).on('error', reject);
  });
  response.on('error', () => undefined);
  const reading = createInterface({ input: response });
  // The reader repeats the errors of the response, which the origin ends when the edge is silent for too long.
  reading.on('error', () => undefined);
  reading.on('line', (text) => {
    const line = parseLine(text);
    if (line !== undefined) lines.push(line);
    for (const watch of watchers) watch();
  });
  return {
    status: response.statusCode,
    /** Resolves with the entry of this cause for this id. */
    entry: (cause: string, id: string): Promise<JournalEntry> =>
      new Promise((resolve) => {
        const watch = (): void => {
          for (const line of lines) {
            if (line.t === 'entry' && line.cause === cause && line.ids.some((each) => each === id)) resolve(line);
          }
        };
        watchers.add(watch);
        watch();
      }),
    confirm: (seq: number) =>
      origin.asEdge(CONFIRM_PATH, { method: 'POST', body: JSON.stringify({ edge, instance: `${edge}-1`, seq }) }),
    leave: () => response.destroy(),
  };
}

void t.test('taking media down', async (t) => {
  const origin = await startOrigin(t.testdir(), { ...NO_THUMBS, journal: { wait_max: `${WAIT_MAX_MS}ms` } });
  t.teardown(() => origin.close());
  const status = async (id: string): Promise<number> => (await origin.as('bob', `/v1/media/${id}`)).status;

  await t.test('only admins may delete; a delete covers one id and may be repeated', async (t) => {
    const bytes = png(1);
    const closed = await origin.uploaded(bytes);
    const open = await origin.uploaded(bytes, '?public=true');
    const path = `/v1/media/${closed}`;
    t.equal(code(await origin.as('alice', path, { method: 'DELETE' })), '403 forbidden', 'not even the owner may');
    t.equal((await origin.send(path, { method: 'DELETE' })).status, 401);
    t.equal(await status(closed), 200);
    for (const again of ['first', 'second']) {
      const response = await origin.asAdmin(path, { method: 'DELETE' });
      t.match([response.status, response.bytes.length], [204, 0], again);
    }
    t.equal(await status(closed), 410);
    t.equal(await status(open), 200, 'another id of the same bytes stays');
    t.equal(code(await origin.asAdmin(`/v1/media/${UNKNOWN}`, { method: 'DELETE' })), '404 not_found');
    const anew = await origin.upload(bytes);
    t.equal(anew.status, 201, 'the bytes may be uploaded again, under a new id');
    t.not(member(anew, 'id'), closed);
  });

  await t.test('a quarantine covers every id of the bytes, until it is ended', async (t) => {
    const bytes = png(2);
    const closed = await origin.uploaded(bytes);
    const open = await origin.uploaded(bytes, '?public=true');
    const path = `/v1/media/${closed}/quarantine`;
    t.equal(code(await origin.as('alice', path, { method: 'POST' })), '403 forbidden');
    for (const again of ['first', 'second']) {
      t.equal((await origin.asAdmin(`${path}?reason=abuse`, { method: 'POST' })).status, 204, again);
    }
    t.strictSame([await status(closed), await status(open)], [403, 403]);
    for (const again of ['first', 'second']) {
      t.equal((await origin.asAdmin(path, { method: 'DELETE' })).status, 204, again);
    }
    t.strictSame([await status(closed), await status(open)], [200, 200]);
    await origin.asAdmin(`/v1/media/${closed}`, { method: 'DELETE' });
    t.equal(code(await origin.asAdmin(path, { method: 'POST' })), '410 deleted');
    t.equal(code(await origin.asAdmin(path, { method: 'DELETE' })), '410 deleted');
    t.equal(code(await origin.asAdmin(`/v1/media/${UNKNOWN}/quarantine`, { method: 'POST' })), '404 not_found');
  });

  await t.test('edges get every takedown, and a caller that waits gets their number', async (t) => {
    const bytes = png(3);
    const id = await origin.uploaded(bytes);
    const twin = await origin.uploaded(bytes, '?public=true');
    const [one, two] = await Promise.all([follow(origin, 'one'), follow(origin, 'two')]);
    t.equal(one.status, 200);
    const waiting = origin.asAdmin(`/v1/media/${id}/quarantine?wait=edges`, { method: 'POST' });
    const entry = await one.entry('quarantine', id);
    t.strictSame(new Set(entry.ids), new Set([id, twin]));
    await Promise.all([one.confirm(entry.seq), two.confirm(entry.seq)]);
    t.match(await waiting, { status: 204, headers: { 'takedown-confirmed': '2/2' } });

    const deleting = origin.asAdmin(`/v1/media/${twin}?wait=edges`, { method: 'DELETE' });
    const gone = await one.entry('delete', twin);
    await one.confirm(gone.seq);
    // Edges get the takedown before the audit log is synced and the wait begins.
    await origin.clock.timerSet(WAIT_MAX_MS);
    origin.clock.advance(WAIT_MAX_MS);
    t.match(
      await deleting,
      { status: 204, headers: { 'takedown-confirmed': '1/2' } },
      'the wait ends without the edge that did not confirm',
    );
    t.equal(code(await origin.asAdmin(`/v1/media/${id}?wait=for-ever`, { method: 'DELETE' })), '400 malformed');
    for (const edge of [one, two]) edge.leave();
  });

  await t.test('an admin may list media in pages, and inspect one', async (t) => {
    const start = origin.clock.now() + 7_200_000;
    origin.clock.advance(7_200_000);
    const ids: string[] = [];
    for (const seed of [20, 21, 22]) {
      ids.push(await origin.uploaded(png(seed)));
      origin.clock.advance(1_000);
    }
    const own = member(
      await origin.as('dora', '/v1/media', { method: 'POST', body: Buffer.from('words of dora') }),
      'id',
    );
    const [first = '', second = '', third = ''] = ids;
    await origin.asAdmin(`/v1/media/${second}`, { method: 'DELETE' });
    const list = async (query: string): Promise<unknown[]> => {
      const response = await origin.asAdmin(`/v1/admin/media?${query}`);
      t.equal(response.status, 200, query);
      return (json(response)['items'] as { id: string }[]).map(({ id }) => id);
    };
    const from = `from=${new Date(start).toISOString()}`;
    t.strictSame(await list(from), [...ids, own]);
    t.strictSame(await list(`${from}&owner=alice&state=live`), [first, third]);
    t.strictSame(await list(`${from}&state=deleted`), [second]);
    t.strictSame(await list('type=text/plain'), [own]);
    t.strictSame(await list(`${from}&to=${new Date(start + 500).toISOString()}`), [first]);
    const page = json(await origin.asAdmin(`/v1/admin/media?${from}&limit=2`));
    t.strictSame(await list(`${from}&limit=2&cursor=${String(page['next'])}`), [third, own]);
    for (const query of ['state=lost', 'limit=0', 'cursor=x', 'from=today']) {
      t.equal((await origin.asAdmin(`/v1/admin/media?${query}`)).status, 400, query);
    }
    t.equal((await origin.as('alice', '/v1/admin/media')).status, 403);
    t.equal((await origin.send('/v1/admin/media')).status, 401);

    const open = await origin.uploaded(png(20), '?public=true');
    t.match(json(await origin.asAdmin(`/v1/admin/media/${first}`)), {
      id: first,
      state: 'live',
      owner: 'alice',
      mime: 'image/png',
      duplicates: [open],
      takedown: null,
      content: { quarantine: null, thumbnails: { state: 'pending' } },
    });
    t.match(json(await origin.asAdmin(`/v1/admin/media/${second}`)), {
      state: 'deleted',
      deleted_by: 'mo',
      takedown: { seq: Number, edges: [{ edge: 'one', connected: false, confirmed: false }] },
    });
    t.equal(code(await origin.asAdmin(`/v1/admin/media/${UNKNOWN}`)), '404 not_found');
  });

  await t.test('bytes can be quarantined by their hash', async (t) => {
    const upload = await origin.upload(png(30));
    const path = `/v1/admin/blobs/${member(upload, 'sha256')}/quarantine`;
    t.equal((await origin.asAdmin(path, { method: 'POST' })).status, 204);
    t.equal(await status(member(upload, 'id')), 403);
    t.equal((await origin.asAdmin(path, { method: 'DELETE' })).status, 204);
    t.equal(await status(member(upload, 'id')), 200);
    t.equal(
      code(await origin.asAdmin(`/v1/admin/blobs/${'0'.repeat(64)}/quarantine`, { method: 'POST' })),
      '404 not_found',
    );
    t.equal(code(await origin.asAdmin('/v1/admin/blobs/x/quarantine', { method: 'POST' })), '400 malformed');
  });

  await t.test('every act has a line in the audit log before its response', async (t) => {
    const id = await origin.uploaded(png(40));
    const lines = async (): Promise<Record<string, unknown>[]> =>
      (await readFile(join(origin.folder, 'audit', 'audit.jsonl'), 'utf8'))
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    const before = (await lines()).length;
    await origin.asAdmin(`/v1/media/${id}/quarantine?reason=abuse`, { method: 'POST' });
    await origin.asAdmin(`/v1/media/${id}/quarantine`, { method: 'DELETE' });
    await origin.asAdmin(`/v1/admin/media/${id}`);
    await origin.asAdmin(`/v1/media/${id}`, { method: 'DELETE' });
    await origin.as('alice', `/v1/media/${id}`, { method: 'DELETE' });
    const own = (await lines()).slice(before);
    t.match(own, [
      { act: 'quarantine', target: id, by: 'mo', outcome: 'done', reason: 'abuse', address: '127.0.0.1' },
      { act: 'restore', target: id, outcome: 'done', seq: Number, requestId: String },
      { act: 'inspect', target: id, outcome: 'live' },
      { act: 'delete', target: id, outcome: 'removed', seq: Number },
    ]);
    t.equal(own.length, 4, 'a refused act is not recorded');
  });

  await t.test('the routes for edges look to others as if they did not exist', async (t) => {
    const nothing = await origin.send('/internal/v1/nothing');
    for (const [method, path] of [
      ['GET', JOURNAL_PATH],
      ['POST', CONFIRM_PATH],
      ['GET', CONFIRM_PATH],
      ['POST', JOURNAL_PATH],
      ['POST', USES_PATH],
    ] as const) {
      const response = await origin.asAdmin(`${path}?from=0`, { method });
      t.equal(response.status, 404, `${method} ${path}`);
      t.equal(response.bytes.toString(), nothing.bytes.toString(), `${method} ${path}`);
    }
  });

  await t.test('every response is described in openapi.json', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});
