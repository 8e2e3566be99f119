/** The memory tier by itself: what is found by what, what each entry weighs, and bodies in slices. */
import t from 'tap';
import { BodyLost } from '../../../edge/cache/cache.js';
import { BytesBody, ENTRY_OVERHEAD_BYTES, headBytes, MemoryTier } from '../../../edge/cache/memory.js';
import type { PolicyName } from '../../../edge/cache/policy/registry.js';
import { Readers } from '../../../edge/cache/readers.js';
import type { Entry } from '../../../edge/entry.js';
import { bytesOf, cacheConfig, entryOf, keyOf, mediaIdOf, NEVER, readAll } from '../../kit/edge/cache.js';

const BYTES = bytesOf(1_000);
const weightOf = (entry: Entry, sizeBytes = 1_000): number => ENTRY_OVERHEAD_BYTES + headBytes(entry) + sizeBytes;

const opened = (capacityBytes = 1_000_000, maxObjectBytes = 10_000, policy: PolicyName = 'lru') =>
  new MemoryTier({ name: policy, capacityBytes, parameters: cacheConfig('').policies }, maxObjectBytes, new Readers());

const found = (tier: MemoryTier) => ({
  media: tier.keysOfMedia(mediaIdOf(1)),
  primary: tier.keysOfPrimary('p'),
  all: tier.keysWhere(() => true),
  entries: tier.stats().entries,
});

void t.test('an entry is found by its key, its media and its primary key, until it is removed', (t) => {
  const tier = opened();
  const plain = entryOf('p', BYTES, { mediaId: mediaIdOf(1) });
  const variant = entryOf('p 1', BYTES, { primaryKey: 'p', mediaId: mediaIdOf(1) });
  for (const entry of [plain, variant, entryOf('other', BYTES)]) t.equal(tier.put(entry, BYTES), 'stored');
  t.same(found(tier), { media: ['p', 'p 1'], primary: ['p', 'p 1'], all: ['p', 'p 1', 'other'], entries: 3 });
  t.equal(
    tier.stats().usedBytes,
    [plain, variant, entryOf('other', BYTES)].reduce((sum, entry) => sum + weightOf(entry), 0),
  );
  t.same([tier.remove(keyOf('p')), tier.remove(keyOf('p'))], [true, false]);
  t.same(found(tier), { media: ['p 1'], primary: ['p 1'], all: ['p 1', 'other'], entries: 2 });
  t.same([tier.peek(keyOf('p')), tier.get(keyOf('p'))], [undefined, undefined]);
  tier.remove(keyOf('p 1'));
  tier.remove(keyOf('other'));
  t.same([found(tier), tier.stats().usedBytes], [{ media: [], primary: [], all: [], entries: 0 }, 0]);
  t.end();
});

void t.test('a newer response replaces the older, even if it is refused', (t) => {
  const tier = opened(5_000);
  tier.put(entryOf('a', BYTES, { mediaId: mediaIdOf(1) }), BYTES);
  t.equal(tier.put(entryOf('a', BYTES, { mediaId: mediaIdOf(2) }), BYTES), 'stored');
  t.same([tier.keysOfMedia(mediaIdOf(1)), tier.keysOfMedia(mediaIdOf(2)), tier.stats().entries], [[], ['a'], 1]);
  t.equal(tier.put(entryOf('a', BYTES), bytesOf(10_001)), 'too_large');
  t.same([tier.peek(keyOf('a')), tier.stats().entries, tier.stats().refused], [undefined, 0, 0]);
  tier.put(entryOf('a', BYTES), BYTES);
  t.equal(tier.put(entryOf('a', BYTES), bytesOf(9_000)), 'not_admitted');
  t.same([tier.peek(keyOf('a')), tier.stats().entries, tier.stats().refused], [undefined, 0, 1]);
  t.end();
});

void t.test('what is evicted is found by nothing, and counted', (t) => {
  const entry = (key: string) => entryOf(key, BYTES, { primaryKey: 'p', mediaId: mediaIdOf(1) });
  const tier = opened(2 * weightOf(entry('a')));
  for (const key of ['a', 'b']) tier.put(entry(key), BYTES);
  tier.get(keyOf('a'));
  tier.put(entry('c'), BYTES);
  t.same(found(tier), { media: ['a', 'c'], primary: ['a', 'c'], all: ['a', 'c'], entries: 2 });
  t.equal(tier.stats().evictions, 1);
  t.end();
});

void t.test('a newer head keeps the body, its size, its hash and its place', (t) => {
  const tier = opened();
  tier.put(entryOf('a', BYTES, { mediaId: mediaIdOf(1) }), BYTES);
  const fresh = entryOf('a', BYTES, { mediaId: mediaIdOf(2), status: 203, sizeBytes: 7, sha256: null });
  t.same([tier.refresh(fresh), tier.refresh(entryOf('b', BYTES))], [true, false]);
  const stored = tier.peek(keyOf('a'));
  t.same(
    [stored?.entry.status, stored?.entry.sizeBytes, stored?.entry.sha256],
    [203, 1_000, entryOf('a', BYTES).sha256],
  );
  t.ok(stored?.body.whole?.equals(BYTES));
  t.same([tier.keysOfMedia(mediaIdOf(1)), tier.keysOfMedia(mediaIdOf(2)), tier.stats().entries], [[], ['a'], 1]);
  tier.remove(keyOf('a'));
  t.equal(tier.stats().usedBytes, 0);
  t.end();
});

void t.test('whether a body can be stored is known by its size and its weight', (t) => {
  const tier = opened(20_000);
  const sized = (sizeBytes: number | null): Entry => entryOf('a', BYTES, { sizeBytes });
  t.same([tier.takes(sized(10_000)), tier.takes(sized(10_001)), tier.takes(sized(null))], [true, false, true]);
  const exact = weightOf(sized(5_000), 5_000);
  t.equal(opened(exact).takes(sized(5_000)), true);
  t.equal(opened(exact - 1).takes(sized(5_000)), false);
  t.same([tier.surelyTakes(sized(10_000)), tier.surelyTakes(sized(10_001))], [true, false]);
  t.equal(opened(20_000, 10_000, 'w-tinylfu').surelyTakes(sized(10_000)), false, 'its policy may refuse it');
  t.equal(
    headBytes({ key: keyOf('abc'), headers: [['name', 'value']] }),
    6 + 2 * 9 + headBytes({ key: keyOf(''), headers: [['', '']] }),
  );
  t.end();
});

void t.test('a body is read in slices, whole or by range, and can be broken off', async (t) => {
  const readers = new Readers();
  const bytes = bytesOf(150_000);
  const body = new BytesBody(keyOf('a'), bytes, readers);
  t.same([body.sizeBytes, await body.ensure()], [150_000, 'ready']);
  const sizes: number[] = [];
  for await (const slice of body.open(undefined, NEVER)) sizes.push((slice as Buffer).length);
  t.same(sizes, [65_536, 65_536, 18_928]);
  for (const [first, last] of [
    [0, 0],
    [65_535, 65_536],
    [149_999, 149_999],
    [10, 140_000],
  ] as const)
    t.ok((await readAll(body.open({ first, last }, NEVER))).equals(bytes.subarray(first, last + 1)), `${first}`);
  t.ok((await readAll(body.open({ first: 149_990, last: 999_999 }, NEVER))).equals(bytes.subarray(149_990)));
  const stream = body.open(undefined, NEVER);
  readers.breakOff(keyOf('a'), new BodyLost('taken_down'));
  await t.rejects(readAll(stream), new BodyLost('taken_down'));
  const left = new AbortController();
  const other = body.open(undefined, left.signal);
  left.abort();
  await t.rejects(readAll(other), { name: 'AbortError' });
});
