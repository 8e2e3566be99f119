/** Bringing files of another store in: lists and their faults, the map that a run goes on from, and what is sent to a service. */
import { appendFileSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import t from 'tap';
import { originSection } from '../../../origin/config.js';
import { readCsv } from '../../../origin/import/csv.js';
import { type EntryDefaults, type Read, readEntry } from '../../../origin/import/entry.js';
import { type ImportDeps, type ImportWords, runImport } from '../../../origin/import/import.js';
import { noCounts, progressLine, resultLine } from '../../../origin/import/progress.js';
import { openResults, readDone } from '../../../origin/import/results.js';
import { judge } from '../../../origin/import/send.js';
import { openSource, readList } from '../../../origin/import/source.js';
import type { Clock } from '../../../src/clock.js';
import { accessConfig } from '../../kit/auth-service.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { json } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { startOrigin, type TestOrigin } from '../../kit/origin/origin.js';
import { sha256Of } from '../../kit/origin/stores.js';

const DEFAULTS: EntryDefaults = { owner: 'alice', public: false };
const HASH = sha256Of('any');

void t.test('an entry is read with its defaults, and refused with every fault of it', async (t) => {
  t.same(readEntry({ path: 'a/b.png' }, 'row 2', DEFAULTS), {
    kind: 'entry',
    entry: {
      id: 'a/b.png',
      path: 'a/b.png',
      owner: 'alice',
      name: null,
      type: null,
      sha256: null,
      public: false,
      created: null,
    },
  });
  const whole = { path: 'a', id: 7, owner: '@bo:chat', name: 'x\ny', type: 'image/png', sha256: HASH.toUpperCase() };
  t.match(readEntry({ ...whole, public: 't', created: '1600000000000' }, 'row 2', DEFAULTS), {
    kind: 'entry',
    entry: { id: '7', owner: '@bo:chat', name: 'x y', sha256: HASH, public: true, created: '2020-09-13T12:26:40.000Z' },
  });
  const created = (value: unknown) => readEntry({ path: 'a', created: value }, 'row 2', DEFAULTS);
  t.match(created(1_600_000_000), { entry: { created: '2020-09-13T12:26:40.000Z' } });
  t.match(created('2020-09-13T14:26:40+02:00'), { entry: { created: '2020-09-13T12:26:40.000Z' } });
  const long = `${'a'.repeat(254)}😀`;
  t.match(readEntry({ path: 'a', name: long }, '', DEFAULTS), { entry: { name: 'a'.repeat(254) } });

  const faults: readonly (readonly [Readonly<Record<string, unknown>>, RegExp])[] = [
    [{}, /there is no path/],
    [{ path: '' }, /there is no path/],
    [{ path: {} }, /path is no text; there is no path/],
    ...['../a', '/etc/passwd', 'a/../../b', '.', 'a/..', 'a\0b'].map((path) => [{ path }, /leads out/] as const),
    [{ path: 'a', owner: 'x\ny' }, /the owner is no text/],
    [{ path: 'a', sha256: 'abc' }, /sha256 is no SHA-256/],
    [{ path: 'a', public: 'maybe' }, /public is neither/],
    [{ path: 'a', created: 'once' }, /created is no instant/],
    [{ path: 'a', id: 'x'.repeat(1_025) }, /the id is longer/],
  ];
  for (const [record, detail] of faults) {
    t.match(readEntry(record, 'row 2', DEFAULTS), { kind: 'refused', refusal: { code: 'malformed', detail } });
  }
  t.match(readEntry({ path: 'a' }, '', { owner: null, public: false }), { refusal: { detail: /give --owner/ } });
});

void t.test('CSV is read back as it was written, however it is cut into pieces', async () => {
  const field = fc.string({ unit: fc.constantFrom('a', '"', ',', '\n', ' ', 'é') });
  // A line of one empty field is an empty line, which is left out.
  const rows = fc.array(fc.array(field, { minLength: 2, maxLength: 4 }), { maxLength: 5 });
  const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;
  await fc.assert(
    fc.asyncProperty(rows, fc.integer({ min: 1, max: 9 }), fc.constantFrom('\n', '\r\n'), async (rows, size, end) => {
      const text = rows.map((fields) => fields.map(quoted).join(',') + end).join('');
      const pieces = text.match(new RegExp(`.{1,${size}}`, 'gsu')) ?? [];
      const read: (readonly string[])[] = [];
      for await (const fields of readCsv(Readable.from(pieces))) read.push(fields);
      return JSON.stringify(read) === JSON.stringify(rows);
    }),
  );
});

async function listed(text: string | Buffer, pieceBytes = 7): Promise<readonly Read[]> {
  const bytes = Buffer.from(text);
  const pieces = Array.from({ length: Math.ceil(bytes.length / pieceBytes) }, (_, n) =>
    bytes.subarray(n * pieceBytes, (n + 1) * pieceBytes),
  );
  const all: Read[] = [];
  for await (const read of readList(Readable.from(pieces), DEFAULTS)) all.push(read);
  return all;
}

void t.test('a list is CSV with names, or JSON lines; a line that cannot be read costs itself alone', async (t) => {
  t.match(await listed('\ufeffPath,id\r\na.png,1\r\n"b ""x"", é.png",2\n\nc,3,4\n'), [
    { kind: 'entry', entry: { path: 'a.png', id: '1' } },
    { kind: 'entry', entry: { path: 'b "x", é.png', id: '2' } },
    { kind: 'refused', path: 'row 4', refusal: { detail: 'there are 3 fields, not 2.' } },
  ]);
  t.match(await listed('{"path":"a.png","public":true}\n\n[1]\n{"path":\n{"path":"é"}'), [
    { kind: 'entry', entry: { path: 'a.png', public: true } },
    { kind: 'refused', path: 'line 3', refusal: { code: 'malformed', detail: 'the line is no JSON object.' } },
    { kind: 'refused', path: 'line 4' },
    { kind: 'entry', entry: { path: 'é' } },
  ]);
  t.same(await listed(''), []);
  await t.rejects(listed('id,owner\n1,2\n'), { message: /the first line of a CSV list names its columns/ });
  await t.rejects(listed('path\n"a'), { message: /not closed/ });
});

async function walked(folder: string): Promise<readonly string[]> {
  const found: string[] = [];
  const source = await openSource({ source: folder, base: undefined, defaults: DEFAULTS });
  for await (const read of source.entries()) {
    if (read.kind === 'entry') found.push(`${read.entry.id} ${read.entry.path} ${read.entry.name}`);
  }
  t.equal(await source.count(new AbortController().signal), found.length);
  return found;
}

void t.test('every file of a folder is an entry, links are not, and of Synapse only what its users sent', async (t) => {
  const folder = t.testdir({ b: { 'two.png': '2' }, 'a.png': '1', 'b.txt': '3' });
  symlinkSync('/etc', join(folder, 'link'));
  t.same(await walked(folder), ['a.png a.png a.png', 'b/two.png b/two.png two.png', 'b.txt b.txt b.txt']);
  const synapse = join(folder, 'media_store');
  put(synapse, 'local_content/aB/cD/rest', 'x');
  put(synapse, 'local_thumbnails/aB/cD/rest/32-32', 'x');
  put(synapse, 'remote_content/other.example/aB/cD/rest', 'x');
  t.same(await walked(synapse), ['aBcDrest local_content/aB/cD/rest null']);
});

function put(folder: string, path: string, bytes: string | Uint8Array): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), bytes);
}

const MAPPED = { media: 'M', url: 'U', sha256: HASH, owner: 'alice', path: 'p', created: null, duplicate: false };

void t.test('the map is gone on from: a line that a crash cut is left out, and a damaged one is told', async (t) => {
  const folder = t.testdir();
  const open = () => openResults(folder, () => 'name');
  t.same(await readDone(folder), new Set());
  const first = await open();
  await Promise.all(['1', '2'].map((id) => first.store({ id, ...MAPPED })));
  await first.refuse({ id: '3', path: 'p', code: 'empty', detail: 'D' });
  await t.rejects(open(), { message: /^the results of an import in .* is in use/ });
  await first.close();
  await first.close();
  appendFileSync(first.mapPath, '{"id":"4","med');
  t.same(await readDone(folder), new Set(['1', '2']));

  const second = await open();
  t.same(
    ['1', '2', '3', '4'].map((id) => second.isDone(id)),
    [true, true, false, false],
  );
  t.equal(readFileSync(second.refusedPath, 'utf8'), '', 'what was refused before is tried again');
  await second.store({ id: '4', ...MAPPED });
  await second.close();
  t.same(await readDone(folder), new Set(['1', '2', '4']));

  appendFileSync(first.mapPath, 'no JSON\n');
  await t.rejects(open(), { message: /has a line that is damaged/ });
  writeFileSync(first.mapPath, '{"format":"another"}\n');
  await t.rejects(open(), { message: /is no map of an import by this release/ });
});

void t.test('an answer means stored, refused, again, or that nothing can succeed', async (t) => {
  const answer = (status: number, body: object = {}, retryAfter?: string) =>
    judge({ kind: 'answered', status, retryAfter, body: { ...body } }, 'http://service');
  const stored = { id: 'I', url: 'U', etag: `"sha256:${HASH}"` };
  t.same(answer(201, stored), { kind: 'stored', media: { id: 'I', url: 'U', sha256: HASH, duplicate: false } });
  t.match(answer(200, { ...stored, duplicate: true }), { media: { duplicate: true } });
  for (const [status, code] of [
    [400, 'digest_mismatch'],
    [403, 'quarantined'],
    [413, 'too_large'],
    [415, 'type_refused'],
    [429, 'quota_exceeded'],
  ] as const) {
    t.same(answer(status, { code, detail: 'D' }, '3600'), { kind: 'refused', refusal: { code, detail: 'D' } });
  }
  t.match(answer(429, { code: 'rate_limited' }, '7'), { kind: 'again', afterMs: 7_000 });
  t.match(answer(503, { code: 'overloaded' }), { kind: 'again', afterMs: 1_000 });
  t.match(answer(503, { code: 'overloaded' }, '86400'), { kind: 'again', afterMs: 60_000 });
  t.match(answer(502), { kind: 'again', afterMs: null, reason: '502 status_502' });
  t.match(judge({ kind: 'broken', reason: 'ECONNRESET' }, ''), { kind: 'again', afterMs: null });
  t.match(judge({ kind: 'unreadable', reason: 'R' }, ''), { kind: 'refused', refusal: { code: 'unreadable' } });
  t.throws(() => answer(200, { id: 'I' }), /does not answer as a media service/);
  t.throws(() => answer(401, { code: 'link_expired' }), /does not accept upload links of this configuration/);
  t.throws(() => answer(301), /There is no media service at http:\/\/service: it answers 301/);
  t.throws(() => answer(507, { code: 'storage_full', detail: 'Full.' }), /has no room left. Full./);
});

void t.test('progress and result are lines for a person', async (t) => {
  const counts = { ...noCounts(), stored: 30, duplicates: 2, skipped: 10, bytes: 12_300_000 };
  counts.refused.set('empty', 1).set('type_refused', 7);
  t.equal(
    progressLine(counts, 1_000, 20_000),
    '50 of 1000 (5 %) files, 8 refused; 2.0 files and 615 KB a second, about 8 min left',
  );
  t.equal(progressLine(noCounts(), null, 0), '0 files, 0 refused; 0.0 files and 0 B a second');
  t.equal(progressLine(noCounts(), 0, 0), '0 of 0 files, 0 refused; 0.0 files and 0 B a second');
  t.equal(
    resultLine(counts, 'imported'),
    '30 imported (12.3 MB), 2 were there already, 10 done before; 8 refused (type_refused 7, empty 1)',
  );
});

interface Bench {
  readonly folder: string;
  readonly printed: string[];
  run(words?: Partial<ImportWords>): Promise<number>;
  lines(name: 'map' | 'refused'): readonly Readonly<Record<string, unknown>>[];
}

function openBench(folder: string, url: string, clock: Clock, signal = new AbortController().signal): Bench {
  const files = join(folder, 'files');
  mkdirSync(files);
  const printed: string[] = [];
  const say = (line: string): void => void printed.push(line);
  const standard = configured(originSection, {});
  const config: ImportDeps['config'] = {
    access: accessConfig(),
    origin: { ...standard, upload: { ...standard.upload, sizeMaxBytes: 300_000 } },
  };
  return {
    folder: files,
    printed,
    run: (words = {}) =>
      runImport(
        { ...testDeps(), clock, config, signal, print: say, complain: say, progress: () => undefined },
        {
          source: files,
          base: undefined,
          defaults: DEFAULTS,
          results: join(folder, 'results'),
          urls: [url],
          jobs: 3,
          check: false,
          statesTypes: true,
          ...words,
        },
      ),
    lines: (name) =>
      readFileSync(join(folder, 'results', `${name}.jsonl`), 'utf8')
        .split('\n')
        .filter((line) => line.includes('"id"'))
        .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>),
  };
}

function sorted(words: readonly unknown[]): string {
  return words
    .map(String)
    .sort((one, other) => (one < other ? -1 : 1))
    .join(' ');
}

async function recordOf(origin: TestOrigin, id: unknown): Promise<Readonly<Record<string, unknown>>> {
  return json(await origin.asAdmin(`/v1/admin/media/${String(id)}`));
}

void t.test(
  'a list is imported in the names of its owners, once, and a check says before what is refused',
  async (t) => {
    const folder = t.testdir();
    const origin = await startOrigin(join(folder, 'origin'), {
      thumbs: { enabled: false },
      upload: { size_max: '300KB' },
    });
    const bench = openBench(folder, origin.url, origin.clock);
    try {
      for (const [name, bytes] of Object.entries({
        one: png(1),
        same: png(1),
        two: png(2),
        empty: '',
        large: 'x'.repeat(300_001),
      })) {
        put(bench.folder, name, bytes);
      }
      put(bench.folder, 'unknown', Buffer.from([1, 2, 3, 4]));
      symlinkSync('/etc/hosts', join(bench.folder, 'link'));
      const rows = [
        { path: 'one', id: 'A', owner: '@ann:chat', name: 'ann.png', type: 'image/png', sha256: sha256Of(png(1)) },
        { path: 'same', id: 'B', owner: '@bob:chat' },
        { path: 'two', id: 'C', public: true, created: '2020-01-02T03:04:05Z' },
        { path: 'two', id: 'C' },
        { path: 'two', id: 'D', type: 'image/gif' },
        { path: 'two', id: 'E', sha256: sha256Of('other') },
        ...['empty', 'large', 'unknown', 'link', 'gone', '../out'].map((path) => ({ path })),
      ];
      const source = join(bench.folder, 'list.jsonl');
      writeFileSync(source, rows.map((row) => JSON.stringify(row)).join('\n'));
      const refused = 'digest_mismatch empty malformed missing too_large type_mismatch type_refused unreadable';

      t.equal(await bench.run({ source, check: true }), 1);
      t.match(bench.printed.at(-1), /^3 would be imported .*1 done before; 8 refused /);
      t.same(sorted(bench.printed.slice(0, -1).map((line) => line.split(': ')[1])), refused);
      t.same(json(await origin.asAdmin('/v1/admin/media'))['items'], [], 'a check sends nothing');

      t.equal(await bench.run({ source, jobs: 1 }), 1);
      t.match(bench.printed.at(-1), /^2 imported \(.*, 1 were there already, 1 done before; 8 refused/);
      t.same(sorted(bench.lines('refused').map(({ code }) => code)), refused);
      const [one, same, two] = bench.lines('map');
      t.match(
        [one, same, two],
        [
          { id: 'A', owner: '@ann:chat', sha256: sha256Of(png(1)), duplicate: false },
          { id: 'B', media: one?.['media'], duplicate: true },
          { id: 'C', created: '2020-01-02T03:04:05.000Z' },
        ],
      );
      t.match(await recordOf(origin, one?.['media']), { owner: '@ann:chat', filename: 'ann.png', public: false });
      t.match(await recordOf(origin, two?.['media']), { owner: 'alice', public: true, mime: 'image/png' });

      t.equal(await bench.run({ source, statesTypes: false }), 1);
      t.match(bench.printed.at(-1), /^1 imported .*4 done before; 7 refused/, 'what was refused is tried again');
      t.equal(bench.lines('map').length, 4);
    } finally {
      await origin.close();
    }
  },
);

interface FakeService {
  readonly url: string;
  /** How many bytes of a body came with each upload. */
  readonly uploads: number[];
  close(): Promise<void>;
}

/** Answers uploads in turn with these; where there are no more, with a 201. A body is asked for only before a 201. */
async function openService(replies: ((response: ServerResponse) => void)[]): Promise<FakeService> {
  const uploads: number[] = [];
  const server = createServer();
  server.on('checkContinue', (request, response: ServerResponse) => {
    const reply = replies.shift();
    const at = uploads.push(0) - 1;
    request.on('error', () => undefined);
    if (reply !== undefined) return reply(response);
    response.writeContinue();
    request.on('data', (piece: Buffer) => {
      uploads[at] = (uploads[at] ?? 0) + piece.length;
    });
    request.on('end', () =>
      response.writeHead(201).end(JSON.stringify({ id: `M${at}`, url: 'U', etag: `"sha256:${HASH}"` })),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    uploads,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Its timers end at the next turn, but for the one that bounds the wait for 100. */
function hastyClock(): { readonly clock: Clock; readonly waits: number[] } {
  const waits: number[] = [];
  const manual = new ManualClock();
  return {
    waits,
    clock: {
      now: () => manual.now(),
      monotonicMs: () => manual.monotonicMs(),
      after(delayMs, run) {
        if (delayMs === 1_500) return { cancel: () => undefined };
        waits.push(delayMs);
        const handle = setImmediate(run);
        return { cancel: () => clearImmediate(handle) };
      },
    },
  };
}

const problem =
  (status: number, code: string, retryAfter = '1') =>
  (response: ServerResponse) =>
    void response.writeHead(status, { 'retry-after': retryAfter }).end(JSON.stringify({ code, detail: 'D' }));
const breakOff = (response: ServerResponse): void => void response.socket?.destroy();

void t.test('a busy, failing or breaking service is tried again, and a refused file is never sent', async (t) => {
  const service = await openService([
    problem(429, 'rate_limited', '3'),
    breakOff,
    problem(500, 'internal'),
    problem(503, 'overloaded', '5'),
  ]);
  const { clock, waits } = hastyClock();
  const bench = openBench(t.testdir(), service.url, clock);
  put(bench.folder, 'one', 'x'.repeat(300_000));
  t.equal(await bench.run(), 0);
  t.same(waits, [3_000, 500, 1_000, 5_000]);
  t.same(service.uploads, [0, 0, 0, 0, 300_000]);
  t.match(bench.lines('map'), [{ id: 'one', media: 'M4' }]);
  await service.close();

  put(bench.folder, 'two', 'y');
  await t.rejects(bench.run(), { message: `The service at ${service.url} takes no uploads: ECONNREFUSED.` });
  t.match(
    bench.printed.at(-1),
    /^0 imported .*1 done before; 0 refused; not all was tried. Run the same command again/,
  );
});

void t.test('a file that becomes shorter while it is sent is refused', async (t) => {
  const shorten = (response: ServerResponse): void => {
    truncateSync(join(bench.folder, 'one'), 10);
    response.writeContinue();
  };
  const service = await openService([shorten]);
  const bench = openBench(t.testdir(), service.url, hastyClock().clock);
  put(bench.folder, 'one', 'x'.repeat(1_000));
  t.equal(await bench.run(), 1);
  t.match(bench.lines('refused'), [{ code: 'unreadable', detail: 'The file became shorter while it was read.' }]);
  await service.close();
});

void t.test('with several addresses a file goes to the next one when one fails', async (t) => {
  const service = await openService([]);
  const { clock } = hastyClock();
  const bench = openBench(t.testdir(), service.url, clock);
  for (const name of ['one', 'two', 'three']) put(bench.folder, name, name);
  t.equal(await bench.run({ urls: ['http://127.0.0.1:1', service.url], jobs: 1 }), 0);
  t.equal(bench.lines('map').length, 3);
  await service.close();
});

void t.test('a run that is stopped keeps what is done, and the next goes on', async (t) => {
  const stopping = new AbortController();
  const stop = (): void => stopping.abort(new Error('stopped by SIGINT'));
  const service = await openService([problem(415, 'type_refused'), stop, stop, stop]);
  const { clock } = hastyClock();
  const bench = openBench(t.testdir(), service.url, clock, stopping.signal);
  for (const name of ['a', 'b', 'c', 'd']) put(bench.folder, name, name);
  await t.rejects(bench.run(), { message: 'stopped by SIGINT' });
  t.match(bench.printed, [/not all was tried/]);
  await service.close();
});
