import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { BodyLost, type EdgeCache, type FillOutcome } from '../../../edge/cache/cache.js';
import { keepBeginning } from '../../../edge/fetch/complete.js';
import type { ByteSpan } from '../../../src/http/range.js';
import {
  BOTH,
  bytesOf,
  cacheConfig,
  diskFull,
  entryOf,
  FaultyFiles,
  keyOf,
  mediaIdOf,
  NEVER,
  openTestCache,
  put,
  readAll,
  type TestCache,
  writeAll,
} from '../../kit/edge/cache.js';
import { until } from '../../kit/until.js';

const BLOCK_BYTES = 65_536;
const turn = (): Promise<void> => new Promise(setImmediate);

async function opened(t: Test, sections: Parameters<typeof cacheConfig>[1] = {}): Promise<TestCache> {
  const test = await openTestCache(cacheConfig(t.testdir(), sections));
  t.teardown(() => test.cache.close());
  return test;
}

/** Reads in the background: the bytes so far, and how the stream ended. */
function follow(stream: Readable): { readonly bytes: () => Buffer; readonly ended: Promise<'complete' | BodyLost> } {
  const pieces: Buffer[] = [];
  stream.on('data', (piece: Buffer) => pieces.push(piece));
  const ended = new Promise<'complete' | BodyLost>((resolve) => {
    stream.once('end', () => resolve('complete'));
    stream.once('error', (error: BodyLost) => resolve(error));
  });
  return { bytes: () => Buffer.concat(pieces), ended };
}

void t.test('the last byte is withheld until length and hash have been checked', async (t) => {
  const { cache } = await opened(t);
  for (const [name, sizeBytes] of [
    ['in memory', 1_000],
    ['through a file', 500_000],
  ] as const) {
    const bytes = bytesOf(sizeBytes);
    const fill = cache.fill(entryOf(name, bytes), BOTH);
    const whole = follow(fill.open(undefined, NEVER));
    const tail = follow(fill.open({ first: sizeBytes - 10, last: sizeBytes - 1 }, NEVER));
    const middle = follow(fill.open({ first: 5, last: 9 }, NEVER));
    await writeAll(fill, bytes);
    await until(`${name}: all bytes but the last`, () => whole.bytes().length === sizeBytes - 1);
    t.equal(await middle.ended, 'complete', `${name}: a range without the last byte may finish`);
    t.same(middle.bytes(), bytes.subarray(5, 10));
    t.ok(tail.bytes().length <= 9, `${name}: a range with the last byte waits too`);
    t.equal((await fill.end()).kind, 'stored');
    t.equal(await whole.ended, 'complete');
    t.ok(whole.bytes().equals(bytes), `${name}: byte for byte`);
    t.equal(await tail.ended, 'complete');
  }
});

void t.test('a body of a wrong length or hash is complete for no reader and is not stored', async (t) => {
  const { cache, files } = await opened(t);
  const bytes = bytesOf(300_000);
  const cases: readonly {
    readonly name: string;
    readonly changes: Parameters<typeof entryOf>[2];
    readonly end: (cache: EdgeCache, key: string) => Promise<FillOutcome>;
    readonly outcome: FillOutcome;
  }[] = [
    {
      name: 'too short',
      changes: { sizeBytes: 300_001 },
      end: async (cache, key) => fillAnd(cache, key, bytes, { sizeBytes: 300_001 }),
      outcome: { kind: 'corrupt', what: 'length' },
    },
    {
      name: 'too long',
      changes: { sizeBytes: 299_999 },
      end: async (cache, key) => fillAnd(cache, key, bytes, { sizeBytes: 299_999 }),
      outcome: { kind: 'corrupt', what: 'length' },
    },
    {
      name: 'of another hash',
      changes: { sha256: 'ab'.repeat(32) },
      end: async (cache, key) => fillAnd(cache, key, bytes, { sha256: 'ab'.repeat(32) }),
      outcome: { kind: 'corrupt', what: 'sha256' },
    },
    {
      name: 'of another hash and unknown length',
      changes: {},
      end: async (cache, key) => fillAnd(cache, key, bytes, { sha256: 'ab'.repeat(32), sizeBytes: null }),
      outcome: { kind: 'corrupt', what: 'sha256' },
    },
  ];
  async function fillAnd(cache: EdgeCache, key: string, bytes: Buffer, changes: Parameters<typeof entryOf>[2]) {
    const fill = cache.fill(entryOf(key, bytes, changes), BOTH);
    const reader = follow(fill.open(undefined, NEVER));
    await writeAll(fill, bytes);
    const outcome = await fill.end();
    t.match(await reader.ended, { name: 'BodyLost', reason: 'corrupt' }, `${key}: its reader`);
    t.equal(fill.failed, true);
    t.equal(await fill.ensure(NEVER), 'lost');
    t.match(await follow(fill.open(undefined, NEVER)).ended, { reason: 'corrupt' }, `${key}: a later reader`);
    return outcome;
  }
  for (const { name, end, outcome } of cases) {
    t.same(await end(cache, name), outcome, name);
    t.equal(cache.get(keyOf(name)), undefined, `${name}: nothing is stored`);
  }
  t.equal(cache.stats().corrupt, cases.length);
  t.ok(files instanceof FaultyFiles);
});

void t.test('a reader that stalls or leaves does not affect the others', async (t) => {
  const { cache, files } = await opened(t);
  const bytes = bytesOf(5_000_000);
  const fill = cache.fill(entryOf('a', bytes), BOTH);
  const stalled = fill.open(undefined, NEVER);
  stalled.read(0);
  const leavingClient = new AbortController();
  const leaving = follow(fill.open(undefined, leavingClient.signal));
  const quick = follow(fill.open(undefined, NEVER));
  await writeAll(fill, bytes.subarray(0, 1_000_000));
  leavingClient.abort();
  t.match(await leaving.ended, { name: 'AbortError' });
  await writeAll(fill, bytes.subarray(1_000_000));
  t.same(await fill.end(), { kind: 'stored', tiers: ['disk'] });
  t.equal(await quick.ended, 'complete');
  t.ok(quick.bytes().equals(bytes));
  t.ok(stalled.readableLength <= BLOCK_BYTES + 1, 'the stalled reader buffers little');
  t.equal(files.openFiles, 1, 'the file stays open for it');
  t.ok((await readAll(stalled)).equals(bytes), 'and it gets everything when it goes on');
  await until('the file is closed after the last reader', () => files.openFiles === 0);
});

void t.test('a body that fits in no tier is passed at the pace of the slowest reader', async (t) => {
  const { cache } = await opened(t, { disk: { sizeBytes: 0 } });
  const bytes = bytesOf(2_000_000);
  const fill = cache.fill(entryOf('a', bytes), BOTH);
  const quick = follow(fill.open(undefined, NEVER));
  const slow = fill.open(undefined, NEVER);
  let written = 0;
  const writing = (async () => {
    for (let at = 0; at < bytes.length; at += 50_000) {
      await fill.write(bytes.subarray(at, at + 50_000));
      written = at + 50_000;
    }
  })();
  await until('the writer waits', () => quick.bytes().length > 8 * BLOCK_BYTES);
  for (let turns = 0; turns < 20; turns += 1) await turn();
  t.ok(written < 12 * BLOCK_BYTES, 'no more blocks are kept than allowed');
  t.equal(fill.passing, false, 'its first bytes are still there for the slow reader');
  const slowly = readAll(slow);
  await writing;
  t.same(await fill.end(), { kind: 'not_kept', reason: 'too_large' });
  t.ok((await slowly).equals(bytes));
  t.equal(await quick.ended, 'complete');
  t.equal(fill.passing, true);
  t.match(await follow(fill.open(undefined, NEVER)).ended, { reason: 'passed' }, 'a late reader must fetch it again');
});

void t.test('a passing body without readers is not kept', async (t) => {
  const { cache } = await opened(t, { disk: { sizeBytes: 0 } });
  const bytes = bytesOf(2_000_000);
  const fill = cache.fill(entryOf('a', bytes), BOTH);
  await writeAll(fill, bytes);
  t.same(await fill.end(), { kind: 'not_kept', reason: 'too_large' });
  t.equal(fill.passing, true);
});

void t.test('when the disk fills up during a body, its readers still get everything', async (t) => {
  const { cache, files, sample } = await opened(t);
  const bytes = bytesOf(3_000_000);
  let left = 10;
  files.before = (verb) => {
    if (verb === 'write' && left-- <= 0) throw diskFull();
  };
  const fill = cache.fill(entryOf('a', bytes, { sizeBytes: null }), BOTH);
  const reader = follow(fill.open(undefined, NEVER));
  await writeAll(fill, bytes);
  t.same(await fill.end(), { kind: 'not_kept', reason: 'disk_full' });
  t.equal(await reader.ended, 'complete');
  t.ok(reader.bytes().equals(bytes));
  t.equal(cache.get(keyOf('a')), undefined);
  t.same(await put(cache, entryOf('b', bytes.subarray(0, 90_000)), bytes.subarray(0, 90_000)), {
    kind: 'stored',
    tiers: ['memory'],
  });
  t.equal(await sample('cache_disk_errors_total'), 1, 'only failed operations are counted');
  files.before = () => undefined;
  t.same(
    await put(cache, entryOf('a', bytes), bytes),
    { kind: 'stored', tiers: ['disk'] },
    'it is stored again once there is room',
  );
});

void t.test('what abort, takedown and invalidation do to a fill', async (t) => {
  const { cache } = await opened(t);
  const bytes = bytesOf(400_000);
  const begin = async (key: string) => {
    const fill = cache.fill(entryOf(key, bytes, { mediaId: mediaIdOf(1) }), BOTH);
    const reader = follow(fill.open(undefined, NEVER));
    await writeAll(fill, bytes.subarray(0, 200_000));
    return { filling: fill, reader };
  };

  const aborted = await begin('aborted');
  aborted.filling.abort(new Error('the origin went away'));
  t.match(await aborted.reader.ended, { reason: 'aborted' });
  t.same(await aborted.filling.end(), { kind: 'aborted', reason: 'aborted: the origin went away' });

  const taken = await begin('taken');
  t.equal(await cache.takeDown(mediaIdOf(1)), 1);
  t.match(await taken.reader.ended, { reason: 'taken_down' });
  await taken.filling.write(bytes.subarray(200_000));
  t.same(await taken.filling.end(), { kind: 'aborted', reason: 'taken_down' });

  const invalid = await begin('invalid');
  cache.drop(keyOf('invalid'), 'invalidated');
  await writeAll(invalid.filling, bytes.subarray(200_000));
  t.same(await invalid.filling.end(), { kind: 'not_kept', reason: 'invalidated' });
  t.equal(await invalid.reader.ended, 'complete', 'its reader may finish');

  const late = await begin('late');
  await writeAll(late.filling, bytes.subarray(200_000));
  const slow = late.filling.open(undefined, NEVER);
  slow.read(0);
  const broken = new Promise((resolve) => slow.once('error', resolve));
  t.equal((await late.filling.end()).kind, 'stored');
  await cache.takeDown(mediaIdOf(1));
  t.match(await broken, { reason: 'taken_down' }, 'also a reader after the end of the fill');
  for (const key of ['aborted', 'taken', 'invalid', 'late']) t.equal(cache.get(keyOf(key)), undefined, key);
  t.equal(cache.stats().fills, 0);
});

void t.test(
  'the beginning of a broken fill is kept as an incomplete response, unless it was invalidated',
  async (t) => {
    const { cache } = await opened(t);
    const bytes = bytesOf(100_000);
    for (const key of ['broken', 'invalidated']) {
      const fill = cache.fill(entryOf(key, bytes), BOTH);
      await fill.write(bytes.subarray(0, 40_000));
      if (key === 'invalidated') cache.drop(keyOf(key), 'invalidated');
      await keepBeginning({ cache }, fill);
      fill.abort(new Error('the origin went away'));
    }
    t.same(cache.incomplete.find('broken', () => true)?.spans, [{ first: 0, last: 39_999 }]);
    t.equal(
      cache.incomplete.find('invalidated', () => true),
      undefined,
    );
  },
);

void t.test('arriving bodies share the fill memory; beyond it they go through a file', async (t) => {
  const { cache, files } = await opened(t, { fill: { memoryBytes: 150_000 } });
  let created = 0;
  files.before = (verb) => {
    if (verb === 'create') created += 1;
  };
  const bytes = bytesOf(100_000);
  const first = cache.fill(entryOf('first', bytes), { memory: true, disk: false });
  const second = cache.fill(entryOf('second', bytes), { memory: true, disk: false });
  await writeAll(first, bytes);
  await writeAll(second, bytes);
  t.same(await first.end(), { kind: 'stored', tiers: ['memory'] });
  t.same(await second.end(), { kind: 'not_kept', reason: 'too_large' });
  t.equal(created, 1);
  const third = cache.fill(entryOf('third', bytes), { memory: true, disk: false });
  await writeAll(third, bytes);
  t.same(await third.end(), { kind: 'stored', tiers: ['memory'] }, 'a fill that has ended gives its memory back');
});

interface ReaderPlan {
  readonly joinAt: number;
  readonly span: readonly [number, number] | undefined;
  readonly turnsBetween: number;
  /** Leaves after so many chunks. */
  readonly abortsAfter: number | undefined;
}

interface Plan {
  readonly sizeBytes: number;
  readonly known: boolean;
  readonly sha256: 'right' | 'wrong' | 'none';
  readonly lengthOffBytes: number;
  readonly chunks: readonly number[];
  readonly readers: readonly ReaderPlan[];
  readonly fault:
    | { readonly kind: 'none' }
    | { readonly kind: 'disk'; readonly afterWrites: number }
    | { readonly kind: 'abort' | 'takedown'; readonly atChunk: number };
}

const plans: fc.Arbitrary<Plan> = fc.record({
  sizeBytes: fc.oneof(fc.integer({ min: 0, max: 3_000 }), fc.integer({ min: 0, max: 900_000 })),
  known: fc.boolean(),
  sha256: fc.constantFrom('right', 'right', 'right', 'none', 'wrong'),
  lengthOffBytes: fc.constantFrom(0, 0, 0, 0, 1, -1),
  chunks: fc.array(fc.integer({ min: 1, max: 150_000 }), { minLength: 1, maxLength: 8 }),
  readers: fc.array(
    fc.record({
      joinAt: fc.integer({ min: 0, max: 12 }),
      span: fc.option(
        fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
        {
          nil: undefined,
        },
      ),
      turnsBetween: fc.integer({ min: 0, max: 2 }),
      abortsAfter: fc.option(fc.integer({ min: 0, max: 5 }), { nil: undefined, freq: 4 }),
    }),
    { maxLength: 5 },
  ),
  fault: fc.oneof(
    { weight: 4, arbitrary: fc.constant({ kind: 'none' as const }) },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('disk' as const), afterWrites: fc.integer({ min: 0, max: 8 }) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constantFrom('abort' as const, 'takedown' as const),
        atChunk: fc.integer({ min: 0, max: 10 }),
      }),
    },
  ),
});

interface ReadResult {
  readonly bytes: Buffer;
  readonly ending: 'complete' | 'left' | BodyLost;
  readonly span: ByteSpan | undefined;
}

async function readBy(stream: Readable, plan: ReaderPlan, span: ByteSpan | undefined): Promise<ReadResult> {
  const pieces: Buffer[] = [];
  try {
    for await (const piece of stream) {
      pieces.push(piece as Buffer);
      for (let turns = 0; turns < plan.turnsBetween; turns += 1) await turn();
      if (plan.abortsAfter !== undefined && pieces.length > plan.abortsAfter) {
        return { bytes: Buffer.concat(pieces), ending: 'left', span };
      }
    }
    return { bytes: Buffer.concat(pieces), ending: 'complete', span };
  } catch (thrown) {
    if (!(thrown instanceof BodyLost)) throw thrown;
    return { bytes: Buffer.concat(pieces), ending: thrown, span };
  }
}

async function play(
  test: TestCache,
  plan: Plan,
  run: number,
): Promise<{ outcome: FillOutcome; reads: readonly ReadResult[] }> {
  const { cache, files } = test;
  const source = bytesOf(plan.sizeBytes, run);
  const sha256 = { right: entryOf('', source).sha256, wrong: 'cd'.repeat(32), none: null }[plan.sha256];
  const sizeBytes = plan.known ? Math.max(0, plan.sizeBytes + plan.lengthOffBytes) : null;
  const fill = cache.fill(entryOf(`run${run}`, source, { mediaId: mediaIdOf(run), sizeBytes, sha256 }), BOTH);
  let writesLeft = plan.fault.kind === 'disk' ? plan.fault.afterWrites : Number.POSITIVE_INFINITY;
  files.before = (verb) => {
    if (verb === 'write' && writesLeft-- <= 0) throw diskFull();
  };
  const reads: Promise<ReadResult>[] = [];
  const join = (chunk: number): void => {
    for (const reader of plan.readers.filter(({ joinAt }) => joinAt === chunk)) {
      const ends = reader.span
        ?.map((share) => Math.floor(share * Math.max(0, plan.sizeBytes - 1)))
        .sort((a, b) => a - b);
      const span = ends === undefined || plan.sizeBytes === 0 ? undefined : { first: ends[0] ?? 0, last: ends[1] ?? 0 };
      reads.push(readBy(fill.open(span, NEVER), reader, span));
    }
  };
  let chunk = 0;
  for (let at = 0; at < source.length; chunk += 1) {
    join(chunk);
    if (plan.fault.kind === 'abort' && plan.fault.atChunk === chunk) fill.abort(new Error('as planned'));
    if (plan.fault.kind === 'takedown' && plan.fault.atChunk === chunk) await cache.takeDown(mediaIdOf(run));
    const size = plan.chunks[chunk % plan.chunks.length] ?? 1;
    await fill.write(source.subarray(at, at + size));
    at += size;
  }
  for (; chunk <= 12; chunk += 1) join(chunk);
  const outcome = await fill.end();
  return { outcome, reads: await Promise.all(reads) };
}

/** Checks what must be true for every reader, whatever happened. */
function checkReads(
  plan: Plan,
  run: number,
  outcome: FillOutcome,
  reads: readonly ReadResult[],
  diskOff: boolean,
): void {
  const source = bytesOf(plan.sizeBytes, run);
  const good = outcome.kind === 'stored' || outcome.kind === 'not_kept';
  for (const { bytes, ending, span } of reads) {
    const wanted = span === undefined ? source : source.subarray(span.first, span.last + 1);
    if (!bytes.equals(wanted.subarray(0, bytes.length))) throw new Error('a reader got other bytes than were written');
    const mayPass = diskOff || plan.fault.kind === 'disk';
    if (ending === 'complete') {
      if (bytes.length !== wanted.length) throw new Error(`a reader ended at ${bytes.length} of ${wanted.length}`);
      const reachesEnd = span === undefined || span.last === plan.sizeBytes - 1;
      if (!good && reachesEnd)
        throw new Error(`a body that ended as ${JSON.stringify(outcome)} was complete for a reader`);
    } else if (ending !== 'left' && good && !(mayPass && ending.reason === 'passed')) {
      throw new Error(`a reader of a correct body failed: ${ending.reason}`);
    }
  }
}

void t.test('with any readers, faults and ends, every completed read equals the source', async (t) => {
  for (const diskOff of [false, true]) {
    const test = await opened(t, {
      memory: { maxObjectBytes: 100_000 },
      disk: { sizeBytes: diskOff ? 0 : 40_000_000 },
    });
    let run = 0;
    const kinds = new Set<string>();
    async function check(plan: Plan): Promise<void> {
      run += 1;
      const { outcome, reads } = await play(test, plan, run);
      checkReads(plan, run, outcome, reads, diskOff);
      kinds.add(outcome.kind);
      const stored = test.cache.get(keyOf(`run${run}`));
      if ((stored !== undefined) !== (outcome.kind === 'stored'))
        throw new Error('the outcome is wrong about what is stored');
      if (stored === undefined) return;
      const kept = await readAll(stored.body.open(undefined, NEVER));
      if (!kept.equals(bytesOf(plan.sizeBytes, run))) throw new Error('other bytes are stored than were written');
      test.cache.drop(keyOf(`run${run}`), 'replaced');
    }
    await fc.assert(fc.asyncProperty(plans, check), { numRuns: 60 });
    // Sixty draws may leave out a rare outcome.
    for (const plan of fc.sample(plans, 500)) if (kinds.size < 4) await check(plan);
    t.same([...kinds].sort(), ['aborted', 'corrupt', 'not_kept', 'stored'].sort(), 'every outcome occurred');
    t.equal(test.cache.stats().fills, 0);
    test.files.before = () => undefined;
    if (diskOff) continue;
    const spools = join(t.testdirName, 'spool');
    while ((await readdir(spools)).length > 0) await turn();
    const large = bytesOf(19_000_000);
    t.equal((await put(test.cache, entryOf('large', large), large)).kind, 'stored', 'all room was released');
  }
});

void t.test('a whole body at once is found in memory before the end of its fill has been waited for', async (t) => {
  const { cache } = await opened(t);
  const bytes = bytesOf(20_000);
  const fill = cache.fill(entryOf('a', bytes), BOTH);
  const early = follow(fill.open({ first: 3, last: 20_000 }, NEVER));
  t.ok(fill.takeWhole(bytes));
  t.equal(cache.peek(keyOf('a')), undefined, 'not before its end');
  const ending = fill.end();
  t.ok(cache.peek(keyOf('a'))?.body.whole?.equals(bytes));
  t.equal(await early.ended, 'complete');
  t.ok(early.bytes().equals(bytes.subarray(3)));
  t.same(await ending, { kind: 'stored', tiers: ['memory', 'disk'] });
});

void t.test('nothing is taken of a whole body that is wrong or too large for memory', async (t) => {
  const { cache } = await opened(t);
  const bytes = bytesOf(20_000);
  for (const [name, entry, given] of [
    ['shorter', entryOf('a', bytes), bytes.subarray(1)],
    ['longer', entryOf('a', bytes), Buffer.concat([bytes, bytes.subarray(0, 1)])],
    ['other bytes', entryOf('a', bytes), bytesOf(20_000, 2)],
    ['of unknown size', entryOf('a', bytes, { sizeBytes: null }), bytes],
    ['for the disk alone', entryOf('a', bytesOf(300_000)), bytesOf(300_000)],
  ] as const) {
    const fill = cache.fill(entry, BOTH);
    t.notOk(fill.takeWhole(given), name);
    t.equal(fill.receivedBytes, 0, name);
    t.notOk(fill.failed, name);
    fill.abort(new Error('no more'));
  }
  t.equal(cache.peek(keyOf('a')), undefined);
});

void t.test('nothing is taken of a whole body that is not sure to be stored in memory', async (t) => {
  const bytes = bytesOf(20_000);
  const disk = { sizeBytes: 0 };
  for (const [name, sections, tiers] of [
    ['a rule for the disk alone', {}, { memory: false, disk: true }],
    ['a rule for no tier', {}, { memory: false, disk: false }],
    ['larger than the tier', { disk, memory: { sizeBytes: 10_000 } }, BOTH],
    ['the tier is off', { disk, memory: { sizeBytes: 0 } }, BOTH],
    ['a policy that may refuse it', { disk, memory: { policy: 'w-tinylfu' } }, BOTH],
  ] as const) {
    const { cache } = await opened(t, sections);
    const fill = cache.fill(entryOf('a', bytes), tiers);
    t.notOk(fill.takeWhole(bytes), name);
    fill.abort(new Error('no more'));
    await cache.close();
  }
  const { cache } = await opened(t);
  const fill = cache.fill(entryOf('a', bytes), BOTH);
  cache.drop(keyOf('a'), 'invalidated');
  t.notOk(fill.takeWhole(bytes), 'it was invalidated');
  fill.abort(new Error('no more'));
});
