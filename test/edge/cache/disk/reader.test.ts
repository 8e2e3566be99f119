/** Reading bodies of the disk tier by itself: what is read, verified, remembered and given back. */
import { createHash } from 'node:crypto';
import t from 'tap';
import { BodyLost } from '../../../../edge/cache/cache.js';
import type { OpenFile } from '../../../../edge/cache/disk/files.js';
import { Pieces } from '../../../../edge/cache/disk/pieces.js';
import { DiskReader, type DiskReaderDeps } from '../../../../edge/cache/disk/reader.js';
import type { DiskRecord } from '../../../../edge/cache/disk/record.js';
import { Readers } from '../../../../edge/cache/readers.js';
import type { SizedEntry } from '../../../../edge/entry.js';
import { Budget } from '../../../../src/budget.js';
import { bytesOf, entryOf, keyOf, NEVER, readAll } from '../../../kit/edge/cache.js';
import { until } from '../../../kit/until.js';

const PIECE = 131_072;
const missing = (): Error => Object.assign(new Error('ENOENT'), { code: 'ENOENT' });

interface Options {
  readonly wholeReadBytes?: number;
  readonly wholeReadsBytes?: number;
  readonly pieceBytes?: number;
}

/** A disk in memory with one content for each body. */
function opened(options: Options = {}) {
  const contents = new Map<string, Buffer>();
  const verified = new Set<number>();
  const current = new Map<string, DiskRecord>();
  const dropped: DiskRecord[] = [];
  const errors: unknown[] = [];
  const pinned: string[] = [];
  const reads: (readonly [at: number, sizeBytes: number])[] = [];
  const state: { failure: Error | undefined; hold: Promise<void> | undefined } = {
    failure: undefined,
    hold: undefined,
  };
  let files = 0;
  let opens = 0;
  const open = async (sha256: string): Promise<OpenFile> => {
    opens += 1;
    if (state.failure !== undefined) throw state.failure;
    const content = contents.get(sha256);
    if (content === undefined) throw missing();
    files += 1;
    return {
      write: () => Promise.reject(new Error('nobody writes here')),
      async read(into, at) {
        reads.push([at, into.length]);
        await state.hold;
        return content.copy(into, 0, at);
      },
      sizeBytes: async () => content.length,
      async close() {
        files -= 1;
      },
    };
  };
  const pieces = new Pieces(options.pieceBytes ?? 0);
  const wholeReads = new Budget(options.wholeReadsBytes ?? 1_000_000);
  const readers = new Readers();
  const deps = {
    contentRefs: { open, lend: open, pieces, pin: (sha256: string) => void pinned.push(sha256) },
    index: {
      isVerified: ({ seq }: DiskRecord) => verified.has(seq),
      markVerified: (_digest: string, { seq }: DiskRecord) => void verified.add(seq),
      get: () => [...current.values()][0],
    },
    entries: { dropCorrupt: (record: DiskRecord) => void dropped.push(record) },
    readers,
    wholeReadBytes: options.wholeReadBytes ?? 100_000,
    wholeReads,
    onError: (thrown: unknown) => void errors.push(thrown),
  } as unknown as DiskReaderDeps;
  return {
    reader: new DiskReader(deps),
    contents,
    verified,
    dropped,
    errors,
    pinned,
    reads,
    state,
    readers,
    wholeReads,
    current,
    files: () => files,
    opens: () => opens,
    /** Stores a body, whose content was verified unless that is said. */
    store(bytes: Buffer, isVerified = true): DiskRecord {
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      contents.set(sha256, bytes);
      const entry = entryOf('key', bytes) as SizedEntry;
      const record = { entry, content: bytes.length === 0 ? null : sha256, weightBytes: 1, seq: 7, run: 1 };
      if (isVerified) verified.add(record.seq);
      current.set('key', record);
      return record;
    },
    damage(record: DiskRecord, bytes: Buffer | undefined): void {
      if (bytes === undefined) contents.delete(record.content ?? '');
      else contents.set(record.content ?? '', bytes);
    },
  };
}

void t.test('a small body is read in one piece, verified once, and open to nobody afterwards', async (t) => {
  const disk = opened();
  const bytes = bytesOf(50_000);
  const record = disk.store(bytes, false);
  const body = disk.reader.bodyOf(record);
  t.same([body.sizeBytes, body.whole], [50_000, undefined]);
  t.equal(await body.ensure(NEVER), 'ready');
  t.ok(body.whole?.equals(bytes));
  t.equal(await body.ensure(NEVER), 'ready');
  t.same([disk.reads, disk.files(), disk.verified.has(7), disk.pinned], [[[0, 50_000]], 0, true, [record.content]]);
  t.ok((await readAll(body.open(undefined, NEVER))).equals(bytes));
  t.ok((await readAll(body.open({ first: 5, last: 9 }, NEVER))).equals(bytes.subarray(5, 10)));
  t.equal(disk.reads.length, 1, 'what is at hand is not read again');
});

void t.test('a body that is wrong, short, long or gone is lost before a byte of it is sent', async (t) => {
  const bytes = bytesOf(50_000);
  for (const [what, damaged, isVerified] of [
    ['wrong', bytesOf(50_000, 2), false],
    ['short', bytes.subarray(1), false],
    ['short, though it was verified', bytes.subarray(1), true],
    ['long', Buffer.concat([bytes, bytes]), false],
    ['gone', undefined, true],
  ] as const) {
    const disk = opened();
    const record = disk.store(bytes, isVerified);
    disk.damage(record, damaged);
    t.equal(await disk.reader.bodyOf(record).ensure(NEVER), 'lost', what);
    t.same([disk.dropped, disk.files(), disk.errors], [[record], 0, []], what);
    t.equal(disk.verified.has(7), isVerified, what);
  }
  const disk = opened();
  const record = disk.store(bytes);
  disk.state.failure = new Error('EIO');
  t.equal(await disk.reader.bodyOf(record).ensure(NEVER), 'lost');
  t.same(
    [disk.dropped, disk.errors],
    [[], [disk.state.failure]],
    'after another failure it stays, and can be tried again',
  );
  disk.state.failure = undefined;
  t.equal(await disk.reader.bodyOf(record).ensure(NEVER), 'ready');
});

void t.test('an empty body needs no file', async (t) => {
  const disk = opened();
  const body = disk.reader.bodyOf(disk.store(Buffer.alloc(0), false));
  t.equal(await body.ensure(NEVER), 'ready');
  t.equal((await readAll(body.open(undefined, NEVER))).length, 0);
  t.equal(await disk.reader.verify(disk.store(Buffer.alloc(0), false)), true);
  t.equal(await disk.reader.rehash(disk.store(Buffer.alloc(0), false)), true);
  t.same([disk.opens(), disk.pinned], [0, []]);
});

void t.test('what several want at the same time is read once, and what comes later anew', async (t) => {
  for (const read of ['readWhole', 'verify'] as const) {
    const disk = opened();
    const record = disk.store(bytesOf(50_000), false);
    let go = (): void => undefined;
    disk.state.hold = new Promise((resolve) => (go = resolve));
    const all = [1, 2, 3].map(() => disk.reader[read](record));
    await until('it is being read', () => disk.reads.length === 1);
    go();
    for (const each of await Promise.all(all)) t.ok(each);
    t.equal(disk.opens(), 1, read);
    disk.verified.clear();
    await disk.reader[read](record);
    t.equal(disk.opens(), 2, read);
  }
});

void t.test('a large body is verified once, then read piece by piece at the pace of its reader', async (t) => {
  const disk = opened();
  const bytes = bytesOf(3 * PIECE + 100);
  const record = disk.store(bytes, false);
  const body = disk.reader.bodyOf(record);
  t.equal(await body.ensure(NEVER), 'ready');
  t.equal(body.whole, undefined);
  t.same(
    disk.reads.map(([at]) => at),
    [0, PIECE, 2 * PIECE, 3 * PIECE],
    'all of it was hashed',
  );
  disk.reads.length = 0;
  t.ok((await readAll(body.open(undefined, NEVER))).equals(bytes));
  t.same(disk.reads, [
    [0, PIECE],
    [PIECE, PIECE],
    [2 * PIECE, PIECE],
    [3 * PIECE, 100],
  ]);
  t.equal(disk.files(), 0);
  disk.reads.length = 0;
  const span = { first: PIECE - 3, last: PIECE + 2 };
  t.ok((await readAll(body.open(span, NEVER))).equals(bytes.subarray(span.first, span.last + 1)));
  t.same(disk.reads, [
    [0, PIECE],
    [PIECE, PIECE],
  ]);
  t.ok((await readAll(body.open({ first: 3 * PIECE, last: 9 * PIECE }, NEVER))).equals(bytes.subarray(3 * PIECE)));
  disk.reads.length = 0;
  const slow = body.open(undefined, NEVER);
  await slow[Symbol.asyncIterator]().next();
  for (let turns = 0; turns < 5; turns += 1) await new Promise(setImmediate);
  t.ok(disk.reads.length <= 2, 'little is read ahead');
  slow.destroy();
  await until('its file is closed', () => disk.files() === 0);
});

void t.test('a large body that is wrong is lost, also to whoever opens it without asking', async (t) => {
  const bytes = bytesOf(2 * PIECE);
  for (const [what, damaged] of [
    ['wrong', bytesOf(2 * PIECE, 2)],
    ['short', bytes.subarray(1)],
    ['long', Buffer.concat([bytes, bytes.subarray(1)])],
  ] as const) {
    const disk = opened();
    const record = disk.store(bytes, false);
    disk.damage(record, damaged);
    await t.rejects(readAll(disk.reader.bodyOf(record).open(undefined, NEVER)), new BodyLost('corrupt'), what);
    t.equal(await disk.reader.bodyOf(record).ensure(NEVER), 'lost', what);
    t.same([disk.dropped.length, disk.files(), disk.verified.size], [2, 0, 0], what);
  }
});

void t.test('a file that is cut, gone or unreadable under a reader ends it with the reason', async (t) => {
  const bytes = bytesOf(2 * PIECE);
  const cut = opened();
  const record = cut.store(bytes);
  cut.damage(record, bytes.subarray(0, PIECE + 10));
  await t.rejects(readAll(cut.reader.bodyOf(record).open(undefined, NEVER)), new BodyLost('corrupt'));
  t.same([cut.dropped, cut.files()], [[record], 0]);
  const gone = opened();
  const other = gone.store(bytes);
  gone.damage(other, undefined);
  await t.rejects(readAll(gone.reader.bodyOf(other).open(undefined, NEVER)), new BodyLost('evicted'));
  t.same(gone.errors, []);
  gone.state.failure = new Error('EIO');
  await t.rejects(readAll(gone.reader.bodyOf(other).open(undefined, NEVER)), new BodyLost('aborted'));
  t.same(gone.errors, [gone.state.failure]);
});

void t.test('a takedown ends a reader in the middle, and its file is closed', async (t) => {
  const disk = opened();
  const record = disk.store(bytesOf(4 * PIECE));
  const stream = disk.reader.bodyOf(record).open(undefined, NEVER);
  stream.read(0);
  await until('the first piece', () => stream.readableLength > 0);
  const ended = readAll(stream);
  disk.readers.breakOff(keyOf('key'), new BodyLost('taken_down'));
  await t.rejects(ended, new BodyLost('taken_down'));
  await until('its file is closed', () => disk.files() === 0);
  const left = new AbortController();
  const opening = disk.reader.bodyOf(record).open(undefined, left.signal);
  opening.on('error', () => undefined);
  opening.read(0);
  left.abort();
  await until('it is closed', () => opening.closed);
  for (let turns = 0; turns < 5; turns += 1) await new Promise(setImmediate);
  t.equal(disk.files(), 0, 'also if it was being opened then');
});

void t.test('a small span of a large body is read with its head, and is that span alone', async (t) => {
  const disk = opened();
  const bytes = bytesOf(3 * PIECE);
  const record = disk.store(bytes);
  for (const [first, last] of [
    [0, 9],
    [PIECE - 5, PIECE + 5],
    [2 * PIECE, 3 * PIECE - 1],
    [10, PIECE + 9],
  ] as const) {
    const body = disk.reader.bodyOf(record);
    t.equal(await body.ensure(NEVER, { first, last }), 'ready');
    t.ok(body.bytesOf({ first, last })?.equals(bytes.subarray(first, last + 1)), `${first}`);
    t.same([body.bytesOf({ first: first + 1, last }), body.bytesOf({ first, last: last - 1 })], [undefined, undefined]);
  }
  disk.reads.length = 0;
  const large = disk.reader.bodyOf(record);
  t.equal(await large.ensure(NEVER, { first: 0, last: PIECE }), 'ready');
  t.same([large.bytesOf({ first: 0, last: PIECE }), disk.reads], [undefined, []], 'a larger one is streamed');
  disk.damage(record, bytes.subarray(0, 10));
  t.equal(await disk.reader.bodyOf(record).ensure(NEVER, { first: 5, last: 20 }), 'lost');
  t.same([disk.dropped, disk.files()], [[record], 0]);
});

void t.test('what was read last is at hand, unless its entry has been replaced meanwhile', async (t) => {
  const disk = opened({ pieceBytes: 16 * 3 * PIECE });
  const bytes = bytesOf(3 * PIECE);
  const record = disk.store(bytes);
  await readAll(disk.reader.bodyOf(record).open(undefined, NEVER));
  disk.reads.length = 0;
  const body = disk.reader.bodyOf(record);
  for (const [first, last] of [
    [0, 9],
    [PIECE - 5, PIECE + 5],
    [3 * PIECE - 1, 3 * PIECE - 1],
  ] as const) {
    t.equal(await body.ensure(NEVER, { first, last }), 'ready');
    t.ok(body.bytesOf({ first, last })?.equals(bytes.subarray(first, last + 1)));
  }
  t.ok((await readAll(body.open(undefined, NEVER))).equals(bytes));
  t.same([disk.reads, disk.pinned], [[], []], 'it needs no disk, and nothing is kept for it');

  const small = opened({ pieceBytes: 16 * PIECE });
  const whole = small.store(bytesOf(500));
  await small.reader.readWhole(whole);
  t.ok(small.reader.bodyOf(whole).whole?.equals(bytesOf(500)), 'a whole one is there at once');
  const replaced = opened({ pieceBytes: 16 * PIECE });
  const old = replaced.store(bytesOf(500));
  replaced.current.set('key', { ...old, seq: 8 });
  await replaced.reader.readWhole(old);
  t.equal(replaced.reader.bodyOf(old).whole, undefined);
});

void t.test('bodies that are read in one piece share their memory until their clients have them', async (t) => {
  const disk = opened({ wholeReadBytes: 90_000, wholeReadsBytes: 100_000 });
  const record = disk.store(bytesOf(90_000));
  const client = new AbortController();
  const first = disk.reader.bodyOf(record);
  t.equal(await first.ensure(client.signal), 'ready');
  t.ok(first.whole);
  const second = disk.reader.bodyOf(record);
  t.equal(await second.ensure(NEVER), 'ready');
  t.equal(second.whole, undefined, 'there is no memory left: it is read piece by piece');
  t.ok((await readAll(second.open(undefined, NEVER))).equals(bytesOf(90_000)));
  client.abort();
  const third = disk.reader.bodyOf(record);
  await third.ensure(NEVER);
  t.ok(third.whole);
  const small = disk.store(bytesOf(65_536));
  const uncounted = disk.reader.bodyOf(small);
  await uncounted.ensure(NEVER);
  t.ok(uncounted.whole, 'small ones need not fit');
  const larger = disk.store(bytesOf(90_001));
  const never = disk.reader.bodyOf(larger);
  await never.ensure(NEVER);
  t.equal(never.whole, undefined, 'larger ones are never read so');
});

void t.test('a client that leaves waits for nothing, and what others want goes on', async (t) => {
  const disk = opened();
  const record = disk.store(bytesOf(50_000));
  let go = (): void => undefined;
  disk.state.hold = new Promise((resolve) => (go = resolve));
  const client = new AbortController();
  const left = disk.reader.bodyOf(record).ensure(client.signal);
  const other = disk.reader.bodyOf(record).ensure(NEVER);
  client.abort(new Error('left'));
  await t.rejects(left, { message: 'left' });
  go();
  t.equal(await other, 'ready');
});

void t.test(
  'to hash again waits after each piece, and an end that is asked for says nothing of the content',
  async (t) => {
    const disk = opened();
    const record = disk.store(bytesOf(2 * PIECE + 5), false);
    const paced: number[] = [];
    const pace = async (bytes: number): Promise<void> => void paced.push(bytes);
    t.equal(await disk.reader.rehash(record, pace), true);
    t.same([paced, disk.verified.has(7), disk.files()], [[PIECE, PIECE, 5], true, 0]);
    const ending = new AbortController();
    ending.abort();
    t.equal(await disk.reader.rehash(record, pace, ending.signal), false);
    t.same([paced.length, disk.dropped, disk.files()], [4, [], 0]);
    disk.damage(record, bytesOf(2 * PIECE + 5, 2));
    t.equal(await disk.reader.rehash(record), false);
    t.same(disk.dropped, [record]);
  },
);
