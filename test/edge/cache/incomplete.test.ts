/** Incomplete responses at their bounds: what is found, what is forgotten, and what each takes and gives back. */
import t from 'tap';
import { BodyLost, type DropReason } from '../../../edge/cache/cache.js';
import { type IncompleteLimits, IncompleteTier } from '../../../edge/cache/incomplete.js';
import { ENTRY_OVERHEAD_BYTES, headBytes } from '../../../edge/cache/memory.js';
import { Readers } from '../../../edge/cache/readers.js';
import type { Entry } from '../../../edge/entry.js';
import { ManualClock } from '../../kit/clock.js';
import { bytesOf, entryOf, keyOf, mediaIdOf, NEVER, readAll } from '../../kit/edge/cache.js';

const BYTES = bytesOf(1_000);
const all = (): boolean => true;

function opened(limits: Partial<IncompleteLimits> = {}) {
  const clock = new ManualClock();
  const readers = new Readers();
  const tier = new IncompleteTier(
    { sizeBytes: 100_000, maxObjectBytes: 10_000, spansMax: 4, ...limits },
    readers,
    clock,
  );
  return { tier, clock, readers };
}

const sized = (key: string, changes: Partial<Entry> = {}): Entry =>
  entryOf(key, BYTES, { headers: [['etag', '"x"']], sha256: null, ...changes });

/** What one response takes, without its chunks. */
const headOf = (entry: Entry): number => ENTRY_OVERHEAD_BYTES + headBytes(entry);
const CHUNK = 128;

void t.test('each chunk takes its bytes and some more, and all of it comes back', (t) => {
  const { tier } = opened();
  const entry = sized('a', { mediaId: mediaIdOf(1) });
  const writer = tier.open(entry);
  t.equal(tier.stats().usedBytes, headOf(entry));
  writer?.write(0, BYTES.subarray(0, 10));
  writer?.write(20, BYTES.subarray(20, 50));
  t.equal(tier.stats().usedBytes, headOf(entry) + 10 + 30 + 2 * CHUNK);
  writer?.write(0, BYTES.subarray(0, 60));
  t.equal(tier.stats().usedBytes, headOf(entry) + 60 + 4 * CHUNK, 'the two gaps alone');
  t.same(tier.find('a', all)?.spans, [{ first: 0, last: 59 }]);
  tier.drop(keyOf('a'), 'replaced');
  t.same([tier.stats().usedBytes, tier.keysOfMedia(mediaIdOf(1)), tier.keysOfPrimary('a')], [0, [], []]);
  tier.drop(keyOf('a'), 'replaced');
  t.equal(tier.stats().usedBytes, 0);
  t.end();
});

void t.test('bytes are read as they were written, in whatever pieces and order they came', async (t) => {
  const orders = [
    [0, 1, 2, 3, 4],
    [4, 3, 2, 1, 0],
    [2, 0, 4, 1, 3],
  ];
  for (const order of orders) {
    const { tier } = opened({ spansMax: 5 });
    const writer = tier.open(sized('a'));
    for (const part of order) writer?.write(200 * part, BYTES.subarray(200 * part, 200 * (part + 1)));
    const found = tier.find('a', all);
    for (const [first, last] of [
      [0, 999],
      [199, 200],
      [150, 850],
      [400, 599],
      [999, 999],
    ] as const) {
      const wanted = BYTES.subarray(first, last + 1);
      const pieces = found?.read({ first, last }) ?? [];
      t.ok(Buffer.concat(pieces).equals(wanted), `${order.join()} ${first}`);
      t.ok(pieces.every(({ length }) => length > 0));
      const stream = found?.body.open({ first, last }, NEVER);
      t.ok(stream && (await readAll(stream)).equals(wanted), `${order.join()} ${first}`);
    }
  }
});

void t.test('a chunk that overlaps what is there adds what is missing, from its own place', (t) => {
  const { tier } = opened();
  const writer = tier.open(sized('a'));
  writer?.write(100, BYTES.subarray(100, 200));
  t.equal(writer?.write(50, BYTES.subarray(50, 300)), true);
  const found = tier.find('a', all);
  t.same(found?.spans, [{ first: 50, last: 299 }]);
  t.ok(Buffer.concat(found?.read({ first: 50, last: 299 }) ?? []).equals(BYTES.subarray(50, 300)));
  t.equal(writer?.write(500, Buffer.alloc(0)), true, 'an empty chunk is nothing');
  t.same(tier.find('a', all)?.spans.length, 1);
  t.end();
});

void t.test('a response that fills the limit exactly is stored, and one byte more is not', (t) => {
  const entry = sized('a');
  const exact = headOf(entry) + 100 + CHUNK;
  for (const [sizeBytes, fits] of [
    [exact, true],
    [exact - 1, false],
  ] as const) {
    const { tier } = opened({ sizeBytes });
    t.equal(tier.open(entry)?.write(0, BYTES.subarray(0, 100)), fits, `${sizeBytes}`);
    t.equal(tier.stats().refused, fits ? 0 : 1);
  }
  t.equal(opened({ sizeBytes: headOf(entry) }).tier.open(entry) !== undefined, true);
  t.equal(opened({ sizeBytes: headOf(entry) - 1 }).tier.open(entry), undefined);
  t.equal(opened({ sizeBytes: 0 }).tier.open(entry), undefined);
  t.end();
});

void t.test('two responses share the limit to its last byte, and the older one goes first', (t) => {
  const [a, b] = [sized('a'), sized('b')];
  const both = headOf(a) + headOf(b);
  const { tier } = opened({ sizeBytes: both });
  tier.open(a);
  tier.open(b);
  t.same([tier.stats().entries, tier.stats().evictions, tier.stats().usedBytes], [2, 0, both]);
  tier.open(a);
  t.equal(tier.open(b)?.write(0, BYTES.subarray(0, 1)), true);
  t.same([tier.find('a', all), tier.stats().evictions], [undefined, 1], 'the one that grows stays');
  const again = opened({ sizeBytes: both });
  again.tier.open(a);
  again.tier.open(b);
  again.tier.open(a);
  again.tier.open(sized('c'));
  t.same([...again.tier.keysWhere(all)], ['a', 'c'], 'to add to a response is a use');
  const self = opened({ sizeBytes: headOf(a) + 200 + CHUNK });
  const writer = self.tier.open(a);
  t.equal(writer?.write(0, BYTES.subarray(0, 200)), true);
  t.equal(writer?.write(200, BYTES.subarray(200, 300)), false, 'a response evicts no part of itself');
  t.same([self.tier.stats().entries, self.tier.stats().evictions], [1, 0]);
  t.end();
});

void t.test('a takedown, a purge and corruption end the readers, and no other reason does', async (t) => {
  const reasons: readonly (readonly [reason: DropReason, ends: boolean])[] = [
    ['taken_down', true],
    ['purged', true],
    ['corrupt', true],
    ['invalidated', false],
    ['expired', false],
    ['replaced', false],
  ];
  for (const [reason, ends] of reasons) {
    const { tier } = opened();
    tier.open(sized('a'))?.write(0, BYTES.subarray(0, 100));
    const found = tier.find('a', all);
    tier.drop(keyOf('a'), reason);
    t.equal(await found?.body.ensure(NEVER), ends ? 'lost' : 'ready', reason);
    const stream = found?.body.open({ first: 0, last: 99 }, NEVER);
    if (stream === undefined) return;
    if (ends) await t.rejects(readAll(stream), new BodyLost(reason), reason);
    else t.ok((await readAll(stream)).equals(BYTES.subarray(0, 100)), reason);
    t.equal(tier.open(sized('a'))?.write(0, BYTES.subarray(0, 1)), true, 'and it can be stored anew');
  }
});

void t.test('readers are known by their key, so that a takedown reaches them', async (t) => {
  const { tier, readers } = opened();
  tier.open(sized('a'))?.write(0, BYTES.subarray(0, 100));
  const stream = tier.find('a', all)?.body.open({ first: 0, last: 99 }, NEVER);
  readers.breakOff(keyOf('a'), new BodyLost('taken_down'));
  t.ok(stream?.destroyed);
  if (stream) await t.rejects(readAll(stream));
  const left = new AbortController();
  const other = tier.find('a', all)?.body.open({ first: 0, last: 99 }, left.signal);
  other?.on('error', () => undefined);
  left.abort();
  t.ok(other?.destroyed, 'and so does the end of its client');
});

void t.test('what is past its end is forgotten when it is looked for, and what does not suit is left alone', (t) => {
  const { tier, clock } = opened();
  const deleteAt = clock.now() + 10;
  tier.open(sized('p 1', { primaryKey: 'p', deleteAt, bornAt: 9 }));
  tier.open(sized('p 2', { primaryKey: 'p', bornAt: 5 }));
  tier.open(sized('p 3', { primaryKey: 'p', bornAt: 5 }));
  t.equal(tier.find('p', all)?.entry.key, 'p 1', 'the newest');
  clock.advance(10);
  t.equal(
    tier.find('p', ({ key }) => key !== 'p 1')?.entry.key,
    'p 2',
    'of two that are as new, the one that was there first',
  );
  t.equal(tier.stats().entries, 3);
  t.equal(tier.find('p', all)?.entry.key, 'p 2');
  t.equal(tier.stats().entries, 2);
  t.end();
});

void t.test('another representation replaces what is stored, and gives its room back', (t) => {
  const { tier } = opened();
  const first = tier.open(sized('a', { mediaId: mediaIdOf(1) }));
  first?.write(0, BYTES.subarray(0, 500));
  const entry = sized('a', { headers: [['etag', '"other"']], mediaId: mediaIdOf(2) });
  tier.open(entry);
  t.same([tier.stats().entries, tier.stats().usedBytes], [1, headOf(entry)]);
  t.same([tier.keysOfMedia(mediaIdOf(1)), tier.keysOfMedia(mediaIdOf(2))], [[], ['a']]);
  t.equal(first?.write(0, BYTES.subarray(0, 10)), false);
  t.equal(tier.stats().evictions, 0);
  t.end();
});
