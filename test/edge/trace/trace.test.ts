/** The trace of an edge: what a record has, which keys are sampled, and what becomes of records when the disk is slow or full. */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { edgeSection } from '../../../edge/config.js';
import type { Entry } from '../../../edge/entry.js';
import type { Exchanged, Outcome } from '../../../edge/request.js';
import { readTraces, type TraceFacts } from '../../../edge/simulate/read-trace.js';
import { nodeDisk, type TraceDisk } from '../../../edge/trace/files.js';
import {
  createRecordReader,
  decodeHeader,
  encodeHeader,
  encodeResponse,
  LISTS,
  RECORD_BYTES,
  TRACED_TYPES,
  type TracedResponse,
  writeRequest,
} from '../../../edge/trace/format.js';
import { openTrace, type Trace } from '../../../edge/trace/trace.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { bytesOf, diskFull, entryOf, mediaIdOf } from '../../kit/edge/cache.js';
import { FILE_HANGS_AFTER_MS } from '../../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const { trace: DEFAULTS, freshness } = configured(edgeSection, {});
const ID = mediaIdOf(1);
const THUMB = `/v1/media/${ID}/thumb?w=1&h=1#webp`;

interface Traced {
  readonly trace: Trace;
  readonly folder: string;
  readonly clock: ManualClock;
  /** Records that were written, and that were dropped. */
  readonly counted: () => Promise<readonly [number, number]>;
}

async function openTraced(
  t: Test,
  changes: Partial<typeof DEFAULTS> = {},
  disk: TraceDisk = nodeDisk,
  folder = join(t.testdir(), 'trace'),
): Promise<Traced> {
  const deps = testDeps();
  const clock = new ManualClock();
  const config = { ...DEFAULTS, folder, ...changes };
  const trace = await openTrace({ config, edgeName: 'north', freshness, ...deps, clock, disk });
  return {
    trace,
    folder,
    clock,
    async counted() {
      const { text } = await deps.metrics.render();
      const of = (dropped: string): number =>
        Number(new RegExp(`edge_trace_records_total\\{dropped="${dropped}"\\} (\\d+)`).exec(text)?.[1]);
      return [of('no'), of('yes')];
    },
  };
}

function ended(outcome: Outcome, entry: Entry | undefined, changes: Partial<Exchanged> = {}): Exchanged {
  const reply = { status: 200, headers: [], body: { kind: 'none' } } as never;
  const answer = { kind: 'reply', reply, outcome, mediaId: entry?.mediaId ?? null, entry } as const;
  const rest = { status: 200, sentBytes: 10, complete: true, tookMs: 0, decidedMs: 0 };
  return { outcome, answer, ...rest, ...changes };
}

const GET = { method: 'GET', path: '/x' };
const readAll = (folder: string, sampleShare = 1) =>
  readTraces([folder], { sampleShare, signal: new AbortController().signal, progress: () => undefined });
const traceFiles = async (folder: string): Promise<string[]> =>
  (await readdir(folder)).filter((name) => name.endsWith('.trace')).sort();

void t.test(
  'a record has the facts by which rules and tiers decide, and nothing that names media or callers',
  async (t) => {
    const { trace, folder, clock } = await openTraced(t);
    const headers = [
      ['content-type', 'IMAGE/webp; q=1'],
      ['cdn-cache-control', 'max-age=3600, stale-while-revalidate=60'],
      ['etag', '"v1"'],
    ] as const;
    const receivedAt = clock.now();
    const entry = entryOf(THUMB, bytesOf(1_234), { mediaId: ID, headers, receivedAt, bornAt: receivedAt - 5_000 });
    trace.note({ method: 'HEAD', path: '/v1/media/secret' }, ended('hit_disk', entry, { sentBytes: 77 }));
    clock.advance(2_000);
    trace.note(
      GET,
      ended('revalidated', entry, { answer: { ...ended('revalidated', entry).answer, reason: 'request' } as never }),
    );
    trace.warmed(entry);
    trace.dropped(entry.key);
    trace.dropped('all');
    for (const outcome of ['pass', 'refused', 'own'] as const) trace.note(GET, ended(outcome, undefined));
    await trace.close();
    const read = await readAll(folder);
    t.same(
      [...read.kinds].map((kind) => read.steps[kind]),
      [
        { event: 'request', outcome: 'hit_disk', head: true, demanded: false },
        { event: 'request', outcome: 'revalidated', head: false, demanded: true },
        ...['warmed', 'dropped', 'emptied'].map((event) => ({
          event,
          outcome: 'hit_memory',
          head: false,
          demanded: false,
        })),
      ],
      'what is passed on or refused is none of the cache',
    );
    t.same(Array.from(read.times.slice(0, 2)), [receivedAt, receivedAt + 2_000]);
    t.equal(read.sentBytes[0], 77);
    const { content, object, memoryHeadBytes, diskHeadBytes, ...facts } = read.facts[0] as TraceFacts;
    t.same(facts, {
      cacheable: true,
      path: 'thumb',
      type: 'image/webp',
      sizeBytes: 1_234,
      ageMs: 5_000,
      stated: {
        lifetimeMs: 3_600_000,
        staleWhileRevalidateMs: 60_000,
        staleIfErrorMs: null,
        provisional: false,
        neverFresh: false,
        forbidsStale: false,
      },
    });
    t.ok(memoryHeadBytes > 0 && diskHeadBytes > 0 && content > 0 && object === 0);
    const [name = ''] = await traceFiles(folder);
    t.match(name, /^north\.\d{8}T\d{6}\.\d{3}Z\.000001\.trace$/);
    const bytes = await readFile(join(folder, name));
    for (const word of [ID, 'secret', 'thumb?', 'v1"', 'north'])
      t.notOk(bytes.includes(word), `it does not have ${word}`);
    t.equal((await stat(join(folder, name))).mode & 0o777, 0o600);
    t.notOk(bytes.includes(await readFile(join(folder, 'trace.key'))), 'nor the key of the hashes');
  },
);

void t.test('requests are in the order in which the cache was asked, however long they took', async (t) => {
  const { trace, folder, clock } = await openTraced(t);
  const [slow, quick] = [entryOf('/slow', bytesOf(10)), entryOf('/quick', bytesOf(20))];
  const begun = clock.now();
  clock.advance(100);
  trace.note(GET, ended('hit_memory', quick));
  clock.advance(400);
  trace.note(GET, ended('miss', slow, { tookMs: 500 }));
  await trace.close();
  const { rows, facts, times } = await readAll(folder);
  t.same(
    [...rows].map((row) => facts[row]?.sizeBytes),
    [10, 20],
  );
  t.same([...times], [begun, begun + 100]);
});

void t.test('what was not stored is recorded by the hash of its path, as what can only be missed', async (t) => {
  const { trace, folder } = await openTraced(t);
  for (const path of ['/a', '/a', `/v1/media/${ID}/thumb`])
    trace.note({ method: 'GET', path }, ended('miss', undefined));
  await trace.close();
  const { rows, facts } = await readAll(folder);
  t.same(
    [...rows].map((row) => [facts[row]?.cacheable, facts[row]?.path]),
    [
      [false, 'other'],
      [false, 'other'],
      [false, 'thumb'],
    ],
  );
  t.equal(facts.length, 2);
});

void t.test('of a body whose size is unknown while it arrives, what was sent counts', async (t) => {
  const { trace, folder } = await openTraced(t);
  trace.note(GET, ended('miss', entryOf('/a', bytesOf(1), { sizeBytes: null }), { sentBytes: 4_321 }));
  await trace.close();
  t.equal((await readAll(folder)).facts[0]?.sizeBytes, 4_321);
});

void t.test('all requests of a sampled key are recorded, and a smaller sample is part of a larger one', async (t) => {
  const folder = join(t.testdir(), 'trace');
  const { trace } = await openTraced(t, { sampleShare: 0.5 }, nodeDisk, folder);
  for (let key = 0; key < 400; key += 1) {
    const entry = entryOf(`/${key}`, bytesOf(10));
    for (const outcome of ['miss', 'hit_memory', 'hit_disk'] as const) trace.note(GET, ended(outcome, entry));
    trace.dropped(entry.key);
  }
  await trace.close();
  const half = await readAll(folder);
  t.ok(half.keys.length > 120 && half.keys.length < 280, `${half.keys.length} of 400 keys`);
  t.equal(half.count, 4 * half.keys.length);
  t.equal(half.sampleShare, 0.5);
  const tenth = await readAll(folder, 0.1);
  t.ok(tenth.keys.length > 10 && tenth.keys.length < 80, `${tenth.keys.length} of 400 keys`);
  t.equal(tenth.sampleShare, 0.1);
  t.ok(tenth.keys.every((key) => half.keys.includes(key)));
});

void t.test('a key has the same hash after a restart, and another one at another edge', async (t) => {
  const folder = join(t.testdir(), 'one');
  const other = join(t.testdir(), 'two');
  for (const each of [folder, folder, other]) {
    const { trace, clock } = await openTraced(t, {}, nodeDisk, each);
    clock.advance((await traceFiles(each)).length + 1);
    trace.note(GET, ended('miss', entryOf('/a', bytesOf(10))));
    await trace.close();
  }
  const read = await readAll(folder);
  t.same([read.count, read.keys.length], [2, 1]);
  const both = readTraces([folder, other], {
    sampleShare: 1,
    signal: new AbortController().signal,
    progress: () => undefined,
  });
  await t.rejects(both, /another key than .*only files of one edge/);
});

void t.test('a full file is followed by the next one, and the oldest are removed; files of others stay', async (t) => {
  const { trace, folder, clock } = await openTraced(t, { fileSizeBytes: 200_000, filesMax: 3 });
  await writeFile(join(folder, 'north-2.20260101T000000.000Z.000001.trace'), '');
  const entry = entryOf('/a', bytesOf(10));
  for (let count = 0; count < 20 * 1_024; count += 1) {
    if (count % 1_024 === 0) {
      await trace.flushed();
      clock.advance(1_000);
    }
    trace.note(GET, ended('hit_memory', entry));
  }
  await trace.close();
  const files = await traceFiles(folder);
  t.same(
    files.map((name) => name.slice(-12)),
    ['000001.trace', '000005.trace', '000006.trace', '000007.trace'],
  );
  t.ok(files[0]?.startsWith('north-2'));
  for (const name of files.slice(1)) t.ok((await stat(join(folder, name))).size <= 200_000);
});

void t.test('records are written within their time, and all of them at the end', async (t) => {
  const { trace, folder, clock, counted } = await openTraced(t, { writeWithinMs: 500 });
  trace.note(GET, ended('hit_memory', entryOf('/a', bytesOf(10))));
  t.equal((await traceFiles(folder)).length, 0);
  clock.advance(500);
  t.equal(clock.pending, 0);
  await trace.flushed();
  t.equal((await readAll(folder)).count, 1);
  trace.note(GET, ended('hit_memory', entryOf('/b', bytesOf(10))));
  await trace.close();
  t.equal((await readAll(folder)).count, 2);
  t.same(await counted(), [2, 0]);
});

void t.test('no request waits for a slow disk: what finds no room is dropped and counted', async (t) => {
  let goOn: () => void = () => undefined;
  const slow = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const disk: TraceDisk = { ...nodeDisk, create: async (path) => slow.then(() => nodeDisk.create(path)) };
  const { trace, folder, counted } = await openTraced(t, { waitingMaxBytes: 2 * 1_024 * RECORD_BYTES }, disk);
  const entry = entryOf('/a', bytesOf(10));
  for (let count = 0; count < 5 * 1_024; count += 1) trace.note(GET, ended('hit_memory', entry));
  t.same(await counted(), [2 * 1_024, 3 * 1_024]);
  goOn();
  await trace.close();
  t.equal((await readAll(folder)).count, 2 * 1_024);
});

void t.test('after a disk that was full, a new file begins, and both can be read', async (t) => {
  let full = false;
  const disk: TraceDisk = {
    ...nodeDisk,
    async create(path) {
      const file = await nodeDisk.create(path);
      const write = async (bytes: Buffer, at: number) => {
        if (!full) return file.write(bytes, at);
        await file.write(bytes, at, 7);
        throw diskFull();
      };
      return { write, close: () => file.close() } as never;
    },
  };
  const { trace, folder, clock, counted } = await openTraced(t, {}, disk);
  const noteOne = async (): Promise<void> => {
    trace.note(GET, ended('hit_memory', entryOf('/a', bytesOf(10))));
    clock.advance(1_000);
    await trace.flushed();
  };
  await noteOne();
  full = true;
  await noteOne();
  full = false;
  await noteOne();
  await trace.close();
  t.same(await counted(), [2, 1]);
  t.equal((await traceFiles(folder)).length, 2);
  t.equal((await readAll(folder)).count, 2, 'the rest of a record at the end of the first file is left out');
});

void t.test('a response is read as it was written, whatever it is', async (t) => {
  const reader = createRecordReader(LISTS);
  const seconds = fc.integer({ min: 0, max: 4_000_000_000 }).map((each) => each * 1_000);
  const response: fc.Arbitrary<TracedResponse> = fc.record({
    cacheable: fc.boolean(),
    path: fc.constantFrom('original', 'thumb', 'info', 'other'),
    type: fc.constantFrom(...TRACED_TYPES),
    sizeBytes: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
    memoryHeadBytes: fc.integer({ min: 0, max: 65_535 }),
    diskHeadBytes: fc.integer({ min: 0, max: 65_535 }),
    content: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    ageMs: seconds,
    stated: fc.record({
      lifetimeMs: seconds,
      staleWhileRevalidateMs: fc.oneof(seconds, fc.constant(null)),
      staleIfErrorMs: fc.constant(null),
      provisional: fc.boolean(),
      neverFresh: fc.boolean(),
      forbidsStale: fc.boolean(),
    }),
  });
  fc.assert(
    fc.property(response, (given) => {
      const record = encodeResponse(Buffer.alloc(8, 3), given);
      writeRequest(record, 0, 2 ** 48 - 1, { outcome: 'stale', head: true, demanded: true, sentBytes: 2 ** 50 });
      return JSON.stringify(reader.responseAt(record, 0)) === JSON.stringify(given);
    }),
    { numRuns: 200 },
  );
  const typed = (type: string) => reader.responseAt(encodeResponse(Buffer.alloc(8), { ...known(), type }), 0)?.type;
  t.same(['image/x-mine', 'application/vnd.x', 'model/stl', ''].map(typed), [
    'image/other',
    'application/other',
    'other/other',
    'other/other',
  ]);
});

function known(): TracedResponse {
  return {
    cacheable: true,
    path: 'other',
    type: 'image/png',
    sizeBytes: 1,
    memoryHeadBytes: 1,
    diskHeadBytes: 1,
    content: 1,
    ageMs: 0,
    stated: {
      lifetimeMs: 1,
      staleWhileRevalidateMs: null,
      staleIfErrorMs: null,
      provisional: false,
      neverFresh: false,
      forbidsStale: false,
    },
  };
}

void t.test('what is no trace, or one of another version, is said to be so', async (t) => {
  const header = { keyId: 'k', sampleShare: 1, lists: LISTS };
  const line = encodeHeader(header).toString();
  t.same(decodeHeader(Buffer.from(line)), { kind: 'read', header, bytes: line.length });
  for (const [text, why] of [
    ['', /not a trace/],
    ['{"a":1}\n', /not a trace/],
    ['null\n', /not a trace/],
    ['nonsense\n', /not a trace/],
    [line.trimEnd(), /not a trace/],
    [line.replace('"trace":1', '"trace":9'), /of version 9, and this release reads 1/],
    [line.replace('"sampled":1', '"sampled":7'), /first line is damaged/],
    [line.replace('"events":[', '"events":[1,'), /first line is damaged/],
  ] as const) {
    const read = decodeHeader(Buffer.from(text));
    t.match(read.kind === 'unreadable' ? read.why : 'it was read', why, text.slice(0, 40));
  }
  const folder = t.testdir({ 'a.trace': line + 'x'.repeat(RECORD_BYTES + 5) });
  t.same([(await readAll(folder)).count, (await readAll(folder)).skipped], [0, 1], 'a record that names nothing known');
});
