/** Bodies of senders that are quick, slow, silent or gone. The test moves the clock. */
import { PassThrough, Readable } from 'node:stream';
import t from 'tap';
import { chunksOf, heldChunks, pacedChunks } from '../../../origin/ingest/paced-body.js';
import { ManualClock } from '../../kit/clock.js';
import { chunkSource, drained } from '../../kit/origin/chunks.js';

/** 10 s for one wait; 4 s for all, and a second more for every 1,000 bytes. */
const PACE = { idleMs: 10_000, graceMs: 4_000, rateMinBytes: 1_000 };

function setUp(pace = PACE) {
  const clock = new ManualClock();
  const body = new PassThrough();
  const gone = new AbortController();
  const counted: number[] = [];
  let opened = 0;
  const open = () => {
    opened += 1;
    return body;
  };
  const request = { body: { open }, meter: { uploaded: (sizeBytes: number) => void counted.push(sizeBytes) } };
  const source = pacedChunks(request, pace, clock, gone.signal);
  /** Waits for the next piece while `ms` pass, and then sends so many bytes. */
  const arrives = async (ms: number, sizeBytes: number): Promise<void> => {
    const next = source.next();
    clock.advance(ms);
    body.write(Buffer.alloc(sizeBytes));
    await next;
  };
  return { clock, body, gone, counted, source, arrives, opened: () => opened };
}

const LATE = { code: 'request_timeout', message: 'The body arrives too slowly.' };

void t.test('a body is given piece by piece, and every byte of it is counted', async (t) => {
  const { body, counted, source, clock, opened } = setUp();
  body.write('one');
  t.equal(String(await source.next()), 'one');
  const second = source.next();
  t.equal(clock.pending, 1, 'it waits for no longer than it may');
  body.end('second');
  t.equal(String(await second), 'second');
  t.equal(clock.pending, 0);
  t.equal(await source.next(), undefined);
  t.equal(await source.next(), undefined, 'it has ended for good');
  t.same(
    counted.filter((bytes) => bytes > 0),
    [3, 6],
  );
  t.equal(opened(), 1);
});

void t.test('a sender may be silent for the longest single wait, and no longer', async (t) => {
  const { source, clock, body } = setUp({ ...PACE, graceMs: 60_000 });
  const next = source.next();
  clock.advance(9_999);
  t.equal(clock.pending, 1, 'it still waits');
  clock.advance(1);
  await t.rejects(next, LATE);
  t.equal(clock.pending, 0);
  t.notOk(body.destroyed, 'the refusal goes out on the same connection');
});

void t.test('all waits together may take the grace and the time for the bytes that have come', async (t) => {
  const { source, clock, arrives } = setUp();
  await arrives(1_500, 500);
  clock.advance(1e9);
  await arrives(1_500, 2_500);
  // 4 s of grace and 3 s for the bytes, of which 3 s are used up. The time between two waits does not count.
  const next = source.next();
  clock.advance(3_999);
  t.equal(clock.pending, 1, 'it still waits');
  clock.advance(1);
  await t.rejects(next, LATE);
});

void t.test('a client that leaves ends the wait for its body', async (t) => {
  const { source, clock, gone, body } = setUp();
  const next = source.next();
  const reason = new Error('the client has left');
  gone.abort(reason);
  await t.rejects(next, reason);
  t.equal(clock.pending, 0);
  t.notOk(body.destroyed);
  await t.rejects(source.next(), reason, 'nor does a later one begin');
});

void t.test('a body that breaks off is no whole one, whether it is waited for or not', async (t) => {
  const BROKEN = { code: 'malformed', message: 'The body ended before it was complete.' };
  const waited = setUp();
  const next = waited.source.next();
  waited.body.destroy(new Error('reset'));
  await t.rejects(next, { ...BROKEN, cause: new Error('reset') });
  await t.rejects(waited.source.next(), { ...BROKEN, cause: new Error('reset') });
  t.equal(waited.clock.pending, 0);

  const closed = setUp();
  const unfinished = closed.source.next();
  closed.body.destroy();
  await t.rejects(unfinished, { ...BROKEN, cause: new Error('closed before its end') });

  const before = setUp();
  before.body.destroy(new Error('reset'));
  await new Promise((resolve) => before.body.once('close', resolve));
  await t.rejects(before.source.next(), { ...BROKEN, cause: new Error('reset') });
});

void t.test('a stream without a pace gives the same, and says how it ended', async (t) => {
  t.equal(String(await drained(chunksOf(Readable.from(['one', 'two'], { objectMode: false })))), 'onetwo');
  const ended = new PassThrough();
  ended.end();
  ended.resume();
  await new Promise((resolve) => ended.once('end', resolve));
  t.equal(await chunksOf(ended).next(), undefined, 'what has ended already ends at once');
  const broken = new PassThrough();
  const source = chunksOf(broken);
  broken.write('one');
  t.equal(String(await source.next()), 'one');
  const next = source.next();
  broken.destroy();
  await t.rejects(next, { code: 'malformed' });
  const slow = new PassThrough();
  const waiting = chunksOf(slow).next();
  slow.write('late');
  t.equal(String(await waiting), 'late');
});

void t.test('room for a piece is reserved before it is given on', async (t) => {
  const held: number[] = [];
  let grant: () => void = () => undefined;
  const granted = new Promise<void>((resolve) => {
    grant = resolve;
  });
  const hold = (bytes: number) => {
    held.push(bytes);
    if (bytes === 9) throw new Error('no room');
    return bytes === 5 ? granted : undefined;
  };
  const source = heldChunks(chunkSource(['abc', 'de', 'fghi'].map((text) => Buffer.from(text))), { hold });
  t.equal(String(await source.next()), 'abc');
  let given = false;
  const second = source.next().then((piece) => {
    given = true;
    return piece;
  });
  await new Promise(setImmediate);
  t.notOk(given, 'it waits for its room');
  grant();
  t.equal(String(await second), 'de');
  await t.rejects(source.next(), { message: 'no room' });
  t.same(held, [3, 5, 9]);
});
