/** A body while it arrives, by itself: where its bytes are, who waits for whom, and what it gives back. */
import type { Readable } from 'node:stream';
import t from 'tap';
import { BodyLost } from '../../../edge/cache/cache.js';
import { GrowingBody, type Spool } from '../../../edge/cache/growing-body.js';
import { Budget } from '../../../src/budget.js';
import { bytesOf, NEVER, readAll } from '../../kit/edge/cache.js';
import { until } from '../../kit/until.js';

const BLOCK_BYTES = 65_536;

/** A spool in memory, whose operations wait while the test holds them. */
class HeldSpool implements Spool {
  bytes = Buffer.alloc(0);
  reads: (readonly [at: number, sizeBytes: number])[] = [];
  appends = 0;
  closed = 0;
  closeFailure: Error | undefined;
  readFailure: Error | undefined;
  #next: { readonly go: () => void; readonly fail: (error: Error) => void }[] = [];
  held = false;

  get writtenBytes(): number {
    return this.bytes.length;
  }

  async append(block: Buffer): Promise<void> {
    this.appends += 1;
    if (this.held) await new Promise<void>((go, fail) => this.#next.push({ go, fail }));
    this.bytes = Buffer.concat([this.bytes, block]);
  }

  async read(into: Buffer, at: number): Promise<number> {
    this.reads.push([at, into.length]);
    if (this.readFailure !== undefined) throw this.readFailure;
    return this.bytes.copy(into, 0, at);
  }

  async close(): Promise<void> {
    this.closed += 1;
    if (this.closeFailure !== undefined) throw this.closeFailure;
  }

  get waiting(): number {
    return this.#next.length;
  }

  /** Lets the append that waits end, or fail. */
  let(failure?: Error): void {
    const next = this.#next.shift();
    if (failure === undefined) next?.go();
    else next?.fail(failure);
  }
}

interface Options {
  readonly memoryMaxBytes?: number;
  readonly budgetBytes?: number;
  readonly budget?: Budget;
  readonly spool?: HeldSpool | null;
}

function grow(sizeBytes: number | null, options: Options = {}) {
  const budget = options.budget ?? new Budget(options.budgetBytes ?? 1_000_000);
  const spool = options.spool === undefined ? new HeldSpool() : options.spool;
  const failures: unknown[] = [];
  const asked: (number | null)[] = [];
  let closed = 0;
  const body = new GrowingBody(sizeBytes, {
    memoryMaxBytes: options.memoryMaxBytes ?? 200_000,
    budget,
    openSpool(size) {
      asked.push(size);
      return spool ?? undefined;
    },
    onSpoolFailure: (thrown) => void failures.push(thrown),
    onClosed() {
      closed += 1;
    },
  });
  return { body, budget, spool: spool ?? new HeldSpool(), failures, asked, closed: () => closed };
}

/** What is left of a budget. */
function leftOf(budget: Budget, mostBytes = 1_000_000): number {
  for (let bytes = mostBytes; bytes > 0; bytes -= 1) {
    if (!budget.tryTake(bytes)) continue;
    budget.giveBack(bytes);
    return bytes;
  }
  return 0;
}

/** Reads only as much as it is asked for. */
async function pull(reader: Readable, sizeBytes: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let got = 0;
  await until(`${sizeBytes} bytes`, () => {
    const piece = reader.read(Math.min(sizeBytes - got, reader.readableLength) || undefined) as Buffer | null;
    if (piece !== null) {
      pieces.push(piece);
      got += piece.length;
    }
    return got >= sizeBytes;
  });
  return Buffer.concat(pieces);
}

void t.test('a body of known size takes that much memory, and gives it back after its last reader', async (t) => {
  const bytes = bytesOf(1_000);
  const { body, budget, asked, closed } = grow(1_000, { budgetBytes: 1_500 });
  t.same([body.place, leftOf(budget), asked], ['memory', 500, []]);
  t.equal(body.append(bytes.subarray(0, 600)), undefined, 'in memory the writer never waits');
  t.equal(body.append(bytes.subarray(600)), undefined);
  t.equal(body.whole, undefined, 'it is not complete');
  body.complete();
  t.ok(body.whole?.equals(bytes));
  const reader = body.open(undefined, NEVER);
  body.release();
  t.same([leftOf(budget), closed()], [500, 0], 'somebody reads');
  t.ok((await readAll(reader)).equals(bytes));
  await until('it is closed', () => closed() === 1);
  t.equal(leftOf(budget), 1_500);
  body.release();
  t.same([leftOf(budget, 2_000_000), closed()], [1_500, 1], 'it gives back once');
});

void t.test('a body that is too large for memory, or finds none, goes to a file of its size', async (t) => {
  for (const [what, size, options, place] of [
    ['as large as may be', 200_000, {}, 'memory'],
    ['larger', 200_001, {}, 'file'],
    ['all that is left', 1_000, { budgetBytes: 1_000 }, 'memory'],
    ['more than is left', 1_000, { budgetBytes: 999 }, 'file'],
    ['without room for a file', 200_001, { spool: null }, 'passing'],
  ] as const) {
    const { body, asked, budget } = grow(size, options);
    t.equal(body.place, place, what);
    t.same(asked, place === 'memory' ? [] : [size], what);
    if (place !== 'memory') t.equal(leftOf(budget), 'budgetBytes' in options ? options.budgetBytes : 1_000_000, what);
  }
  const empty = grow(0);
  empty.body.complete();
  t.equal(empty.body.whole?.length ?? 0, 0);
  t.equal(empty.body.place, 'memory');
});

void t.test('a body of unknown size takes memory block by block, and none once it has left', async (t) => {
  const { body, budget, asked, spool } = grow(null, { budgetBytes: 2 * BLOCK_BYTES + 7, memoryMaxBytes: 500_000 });
  t.equal(leftOf(budget), 2 * BLOCK_BYTES + 7, 'nothing before its first byte');
  void body.append(bytesOf(1));
  t.equal(leftOf(budget), BLOCK_BYTES + 7);
  void body.append(bytesOf(2 * BLOCK_BYTES - 1));
  t.same([body.place, leftOf(budget), asked], ['memory', 7, []]);
  void body.append(bytesOf(1));
  t.same([body.place, leftOf(budget), asked], ['file', 2 * BLOCK_BYTES + 7, [null]]);
  await body.append(bytesOf(2 * BLOCK_BYTES));
  await until('its full blocks are in the file', () => spool.writtenBytes === 4 * BLOCK_BYTES);
  t.same(
    [body.place, leftOf(budget), asked],
    ['file', 2 * BLOCK_BYTES + 7, [null]],
    'one file, and no memory of the budget',
  );

  const limited = grow(null, { memoryMaxBytes: 2 * BLOCK_BYTES });
  void limited.body.append(bytesOf(2 * BLOCK_BYTES));
  t.equal(limited.body.place, 'memory', 'as many blocks as fit into the limit');
  void limited.body.append(bytesOf(1));
  t.equal(limited.body.place, 'file');

  const small = grow(null, { memoryMaxBytes: 100 });
  void small.body.append(bytesOf(BLOCK_BYTES));
  t.equal(small.body.place, 'memory', 'one block in any case');
  small.body.complete();
  t.equal(small.body.whole?.length, BLOCK_BYTES);
});

void t.test('the whole has exactly the bytes that arrived, however they came', async (t) => {
  for (const size of [1, 999, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 150_001]) {
    for (const known of [true, false]) {
      const { body } = grow(known ? size : null);
      const bytes = bytesOf(size);
      const early = body.open(undefined, NEVER);
      for (let at = 0; at < size; at += 40_000) void body.append(bytes.subarray(at, at + 40_000));
      t.equal(body.receivedBytes, size);
      body.complete();
      t.ok(body.whole?.equals(bytes), `${size}`);
      t.ok((await readAll(early)).equals(bytes), `${size}`);
      const tail = body.open({ first: size - 1, last: size - 1 }, NEVER);
      t.ok((await readAll(tail)).equals(bytes.subarray(size - 1)), `${size}`);
    }
  }
  const file = grow(200_001);
  void file.body.append(bytesOf(200_001));
  file.body.complete();
  t.equal(file.body.whole, undefined, 'a body in a file is nowhere whole');
});

void t.test('the writer waits for the file once more than four blocks are not in it, and no longer', async (t) => {
  const spool = new HeldSpool();
  spool.held = true;
  const { body } = grow(2_000_000, { spool });
  t.equal(body.append(bytesOf(4 * BLOCK_BYTES)), undefined, 'four blocks may wait');
  const waits: string[] = [];
  const first = body.append(bytesOf(1))?.then(() => waits.push('first'));
  const second = body.append(bytesOf(BLOCK_BYTES))?.then(() => waits.push('second'));
  t.equal(spool.appends, 1, 'one block at a time is written');
  t.ok(first !== undefined && second !== undefined);
  spool.let();
  await until('the next block', () => spool.waiting === 1 && spool.appends === 2);
  t.same(waits, [], 'one byte more than four blocks is still missing');
  spool.let();
  await Promise.all([first, second]);
  t.same(waits, ['first', 'second']);
  spool.let();
  await until('the next block', () => spool.appends === 4);
  t.equal(spool.writtenBytes, 3 * BLOCK_BYTES);
});

void t.test('the newest blocks of a body in a file are read from memory, the older ones from the file', async (t) => {
  const size = 10 * BLOCK_BYTES;
  const bytes = bytesOf(size);
  const { body, spool } = grow(size);
  for (let at = 0; at < 6 * BLOCK_BYTES; at += BLOCK_BYTES) await body.append(bytes.subarray(at, at + BLOCK_BYTES));
  await until('they are in the file', () => spool.writtenBytes === 6 * BLOCK_BYTES);
  const spanOf = (first: number, last: number): Promise<Buffer> => readAll(body.open({ first, last }, NEVER));
  t.ok((await spanOf(4 * BLOCK_BYTES, 6 * BLOCK_BYTES - 1)).equals(bytes.subarray(4 * BLOCK_BYTES, 6 * BLOCK_BYTES)));
  t.same(spool.reads, [], 'the last two need no file');
  t.ok(
    (await spanOf(4 * BLOCK_BYTES - 1, 4 * BLOCK_BYTES)).equals(
      bytes.subarray(4 * BLOCK_BYTES - 1, 4 * BLOCK_BYTES + 1),
    ),
  );
  t.ok(spool.reads.length > 0, 'the one before them does');
  spool.reads = [];
  t.ok((await spanOf(10, 10)).equals(bytes.subarray(10, 11)));
  t.same(spool.reads, [[10, 1]], 'only what is asked for');
  spool.reads = [];
  t.ok((await spanOf(7, 3 * BLOCK_BYTES)).equals(bytes.subarray(7, 3 * BLOCK_BYTES + 1)));
  t.ok(
    spool.reads.every(([, sizeBytes]) => sizeBytes <= BLOCK_BYTES),
    'in pieces of one block at most',
  );
  t.equal(body.passing, false);
});

void t.test('a body without a file follows its slowest reader, and the writer waits for it', async (t) => {
  const bytes = bytesOf(30 * BLOCK_BYTES);
  const { body } = grow(bytes.length, { spool: null });
  const slow = body.open(undefined, NEVER);
  const quick = body.open(undefined, NEVER);
  t.equal(body.append(bytes.subarray(0, 8 * BLOCK_BYTES)), undefined, 'eight blocks may wait for readers');
  let goesOn = false;
  const wait = body.append(bytes.subarray(8 * BLOCK_BYTES, 9 * BLOCK_BYTES))?.then(() => (goesOn = true));
  t.ok(wait !== undefined, 'a ninth not');
  t.ok((await pull(quick, 9 * BLOCK_BYTES)).equals(bytes.subarray(0, 9 * BLOCK_BYTES)));
  t.same([goesOn, body.passing], [false, false], 'the quick one does not count');
  t.ok((await pull(slow, BLOCK_BYTES)).equals(bytes.subarray(0, BLOCK_BYTES)));
  await wait;
  t.equal(goesOn, true, 'the slow one has taken a block');
  t.equal(body.passing, true, 'the first bytes are gone');
  await t.rejects(readAll(body.open(undefined, NEVER)), { name: 'BodyLost', reason: 'passed' });

  const again = body.append(bytes.subarray(9 * BLOCK_BYTES, 19 * BLOCK_BYTES));
  t.ok(again !== undefined);
  slow.destroy();
  quick.destroy();
  await again;
  t.pass('the last reader that leaves lets the writer go on');
});

void t.test(
  'a body without a file and without readers keeps its first eight blocks for one that comes soon',
  async (t) => {
    const bytes = bytesOf(30 * BLOCK_BYTES);
    const { body } = grow(bytes.length, { spool: null });
    t.equal(body.append(bytes.subarray(0, 8 * BLOCK_BYTES)), undefined);
    t.equal(body.passing, false);
    const soon = body.open({ first: 0, last: 99 }, NEVER);
    t.ok((await readAll(soon)).equals(bytes.subarray(0, 100)));
    t.equal(body.append(bytes.subarray(8 * BLOCK_BYTES, 10 * BLOCK_BYTES)), undefined, 'nobody is waited for');
    t.equal(body.passing, true);
  },
);

void t.test('when the file fails, what it has is read from there and the rest passes', async (t) => {
  const spool = new HeldSpool();
  const bytes = bytesOf(12 * BLOCK_BYTES);
  const { body, failures } = grow(bytes.length, { spool });
  await body.append(bytes.subarray(0, 3 * BLOCK_BYTES));
  await until('three blocks are in the file', () => spool.writtenBytes === 3 * BLOCK_BYTES);
  spool.held = true;
  const reader = body.open(undefined, NEVER);
  const wait = body.append(bytes.subarray(3 * BLOCK_BYTES, 8 * BLOCK_BYTES + 1));
  const full = new Error('ENOSPC');
  await until('a write', () => spool.waiting === 1);
  spool.let(full);
  await wait;
  t.same(failures, [full]);
  t.equal(body.place, 'passing');
  t.equal(body.passing, false, 'the first bytes are in the file');
  const all = readAll(reader);
  await body.append(bytes.subarray(8 * BLOCK_BYTES + 1));
  t.equal(await body.flushed(), false);
  body.complete();
  t.equal(await body.flushed(), false, 'the file has not the whole');
  t.ok((await all).equals(bytes));
  t.equal(spool.appends, 4, 'and is not written to again');
});

void t.test('a body is in its file once that has the rest of it too', async (t) => {
  const { body, spool } = grow(300_000);
  const bytes = bytesOf(300_000);
  await body.append(bytes);
  t.equal(await body.flushed(), false, 'the rest is less than a block');
  t.equal(spool.writtenBytes, 4 * BLOCK_BYTES);
  body.complete();
  t.equal(await body.flushed(), true);
  t.ok(spool.bytes.equals(bytes));
  body.fail(new BodyLost('purged'));
  t.equal(await body.flushed(), false, 'a body that failed is nowhere');
  const inMemory = grow(10);
  void inMemory.body.append(bytesOf(10));
  inMemory.body.complete();
  t.equal(await inMemory.body.flushed(), false);
});

void t.test('a failure ends every reader with its reason, and lets the writer go on', async (t) => {
  const spool = new HeldSpool();
  spool.held = true;
  const { body } = grow(2_000_000, { spool });
  const reader = readAll(body.open(undefined, NEVER));
  const wait = body.append(bytesOf(5 * BLOCK_BYTES));
  t.ok(wait !== undefined);
  body.fail(new BodyLost('taken_down'));
  body.fail(new BodyLost('aborted'));
  await wait;
  await t.rejects(reader, { name: 'BodyLost', reason: 'taken_down' });
  await t.rejects(
    readAll(body.open(undefined, NEVER)),
    { name: 'BodyLost', reason: 'taken_down' },
    'and those that come later',
  );
  t.equal(body.append(bytesOf(10)), undefined);
  t.equal(body.receivedBytes, 5 * BLOCK_BYTES, 'nothing is taken any more');
  body.complete();
  t.equal(body.whole, undefined);
  t.equal(body.failure?.reason, 'taken_down');
  spool.let();
  await body.flushed();
  t.equal(spool.appends, 1, 'no further block is written');
});

void t.test('the last byte is withheld until the body is complete, unless its size is unknown', async (t) => {
  const known = grow(100);
  void known.body.append(bytesOf(100));
  const reader = known.body.open(undefined, NEVER);
  t.equal((await pull(reader, 99)).length, 99);
  t.equal(reader.read(), null);
  known.body.complete();
  t.ok((await pull(reader, 1)).equals(bytesOf(100).subarray(99)));
  const unknown = grow(null);
  void unknown.body.append(bytesOf(100));
  t.ok((await readAll(unknown.body.open({ first: 90, last: 99 }, NEVER))).equals(bytesOf(100).subarray(90)));
});

void t.test('a reader that waits is woken by what arrives, and reads no further than its span', async (t) => {
  const bytes = bytesOf(1_000);
  const { body } = grow(1_000);
  const span = readAll(body.open({ first: 100, last: 299 }, NEVER));
  const beyond = readAll(body.open({ first: 900, last: 5_000 }, NEVER));
  for (let at = 0; at < 1_000; at += 50) {
    void body.append(bytes.subarray(at, at + 50));
    await new Promise(setImmediate);
  }
  t.ok((await span).equals(bytes.subarray(100, 300)));
  body.complete();
  t.ok((await beyond).equals(bytes.subarray(900)), 'a span that is longer than the body ends with it');
});

void t.test('a file that is shorter, or cannot be read, loses its readers and nobody else', async (t) => {
  const bytes = bytesOf(10 * BLOCK_BYTES);
  const { body, spool } = grow(bytes.length);
  for (let at = 0; at < 6 * BLOCK_BYTES; at += BLOCK_BYTES) await body.append(bytes.subarray(at, at + BLOCK_BYTES));
  await until('they are in the file', () => spool.writtenBytes === 6 * BLOCK_BYTES);
  const broken = new Error('EIO');
  spool.readFailure = broken;
  await t.rejects(readAll(body.open({ first: 0, last: 9 }, NEVER)), {
    name: 'BodyLost',
    reason: 'aborted',
    cause: broken,
  });
  spool.readFailure = new BodyLost('evicted');
  await t.rejects(readAll(body.open({ first: 0, last: 9 }, NEVER)), { name: 'BodyLost', reason: 'evicted' });
  spool.readFailure = undefined;
  const whole = spool.bytes;
  spool.bytes = Buffer.alloc(0);
  Object.defineProperty(spool, 'writtenBytes', { value: whole.length });
  await t.rejects(readAll(body.open({ first: 0, last: 9 }, NEVER)), { name: 'BodyLost', reason: 'corrupt' });
  t.equal(body.failure, undefined);
  t.ok((await readAll(body.open({ first: 5 * BLOCK_BYTES, last: 5 * BLOCK_BYTES }, NEVER))).length === 1);
});

void t.test('the file is closed once: after the owner, the last reader and the last write', async (t) => {
  const spool = new HeldSpool();
  spool.held = true;
  const { body, closed } = grow(300_000, { spool });
  void body.append(bytesOf(BLOCK_BYTES));
  const reader = body.open(undefined, NEVER);
  body.release();
  reader.destroy();
  await until('it has left', () => reader.closed);
  t.same([spool.closed, closed()], [0, 0], 'a block is still being written');
  spool.let();
  await until('it is closed', () => closed() === 1);
  body.release();
  t.same([spool.closed, closed()], [1, 1]);

  const read = grow(300_000);
  const last = read.body.open(undefined, NEVER);
  read.body.release();
  t.equal(read.spool.closed, 0, 'somebody reads');
  last.destroy();
  await until('it is closed', () => read.closed() === 1);
  t.equal(read.spool.closed, 1);

  const failing = grow(300_000);
  failing.spool.closeFailure = new Error('EIO');
  failing.body.release();
  await until('the failure is told', () => failing.failures.length === 1);
  t.same(failing.failures, [failing.spool.closeFailure]);
});
