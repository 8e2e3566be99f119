/** Where readers of an arriving body find its bytes: in memory as long as there is budget, or else in the file. */
import t from 'tap';
import { GrowingBody, type Spool } from '../../../edge/cache/growing-body.js';
import { BytesBody } from '../../../edge/cache/memory.js';
import { Readers } from '../../../edge/cache/readers.js';
import { Budget } from '../../../src/budget.js';
import { bytesOf, keyOf, NEVER, readAll } from '../../kit/edge/cache.js';

const BLOCK_BYTES = 65_536;
const BYTES = bytesOf(32 * BLOCK_BYTES + 5);

/** A file in memory that counts how often it is read. */
class CountingSpool implements Spool {
  reads = 0;
  readonly #written: Buffer[] = [];

  get writtenBytes(): number {
    return Buffer.concat(this.#written).length;
  }

  async append(block: Buffer): Promise<void> {
    this.#written.push(Buffer.from(block));
  }

  async read(into: Buffer, at: number): Promise<number> {
    this.reads += 1;
    return Buffer.concat(this.#written).copy(into, 0, at);
  }

  async close(): Promise<void> {}
}

function inFile(budgetBytes: number) {
  const spool = new CountingSpool();
  const budget = new Budget(budgetBytes);
  const body = new GrowingBody(BYTES.length, {
    memoryMaxBytes: BLOCK_BYTES,
    budget,
    openSpool: () => spool,
    onSpoolFailure: (thrown) => t.fail(String(thrown)),
    onClosed: () => undefined,
  });
  const isFree = (): boolean => {
    const free = budget.tryTake(budgetBytes);
    if (free) budget.giveBack(budgetBytes);
    return free;
  };
  return { spool, body, isFree };
}

async function write(body: GrowingBody): Promise<void> {
  for (let at = 0; at < BYTES.length; at += 50_000) await body.append(BYTES.subarray(at, at + 50_000));
  body.complete();
  t.ok(await body.flushed());
}

void t.test('readers of a body in a file get it from memory while half of the budget is left', async (t) => {
  const { spool, body, isFree } = inFile(80 * BLOCK_BYTES);
  const slow = body.open(undefined, NEVER);
  const fast = readAll(body.open(undefined, NEVER));
  await write(body);
  t.ok((await fast).equals(BYTES));
  t.notOk(isFree(), 'the blocks that the slow one needs count');
  t.ok((await readAll(slow)).equals(BYTES));
  t.equal(spool.reads, 0);
  t.ok(isFree(), 'without readers it keeps nothing');
  t.ok((await readAll(body.open(undefined, NEVER))).equals(BYTES));
  t.not(spool.reads, 0, 'a reader that comes later reads the file');
  body.release();
});

void t.test('readers that are further behind read the file, and keep nothing in memory', async (t) => {
  const { spool, body, isFree } = inFile(40 * BLOCK_BYTES);
  const slow = body.open(undefined, NEVER);
  await write(body);
  t.ok(isFree(), 'the reader is more than half of the budget behind');
  t.ok((await readAll(slow)).equals(BYTES));
  t.not(spool.reads, 0);
  body.release();
});

void t.test('the budget is back when the body has failed and its readers are gone', async (t) => {
  const { body, isFree } = inFile(80 * BLOCK_BYTES);
  const slow = body.open(undefined, NEVER);
  await write(body);
  t.notOk(isFree());
  slow.destroy();
  body.release();
  await new Promise(setImmediate);
  t.ok(isFree());
});

void t.test('pieces that are at hand are not joined, which would copy them', async (t) => {
  const { body } = inFile(80 * BLOCK_BYTES);
  const arriving = body.open(undefined, NEVER);
  await write(body);
  const stored = new BytesBody(keyOf('a'), BYTES, new Readers()).open(undefined, NEVER);
  for (const stream of [arriving, stored]) {
    const sizes: number[] = [];
    for await (const piece of stream as AsyncIterable<Buffer>) sizes.push(piece.length);
    t.equal(Math.max(...sizes), BLOCK_BYTES);
  }
  body.release();
});
