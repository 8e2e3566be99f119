/** The bounds of the cache's parts, and what each gives back: room on disk, incomplete responses, copies into memory. */
import t from 'tap';
import { BodyLost } from '../../../edge/cache/cache.js';
import { DiskRoom } from '../../../edge/cache/disk/room.js';
import { type IncompleteLimits, IncompleteTier } from '../../../edge/cache/incomplete.js';
import { headBytes, MemoryTier } from '../../../edge/cache/memory.js';
import { Promoter, type PromoterDeps } from '../../../edge/cache/promote.js';
import { Readers } from '../../../edge/cache/readers.js';
import type { Entry, SizedEntry } from '../../../edge/entry.js';
import { ManualClock } from '../../kit/clock.js';
import { bytesOf, cacheConfig, entryOf, keyOf, mediaIdOf, NEVER, readAll } from '../../kit/edge/cache.js';
import { until } from '../../kit/until.js';

void t.test('room on disk: entries, arriving bodies and files being removed share the size', (t) => {
  let entries = 50;
  const room = new DiskRoom({ sizeBytes: 100, fillRoomBytes: 40, minFreeBytes: 10 }, () => entries);
  t.equal(room.tryReserve(41), false, 'more than may arrive at once');
  t.equal(room.mayHave(41), false);
  t.equal(room.mayHave(40), true);
  t.equal(room.tryReserve(30), true);
  t.equal(room.tryReserve(11), false);
  room.removing(15);
  t.equal(room.tryReserve(6), false, 'files that are being removed still take their room');
  t.equal(room.tryReserve(5), true);
  room.removed(15);
  t.equal(room.tryReserve(5), true);
  t.equal(room.tryReserve(1), false);
  room.release(40);
  entries = 100;
  t.equal(room.tryReserve(1), false);
  entries = 99;
  t.equal(room.tryReserve(1), true);
  t.end();
});

void t.test('room on disk: what was stored before recovery ended counts until the policy knows it', (t) => {
  const room = new DiskRoom({ sizeBytes: 100, fillRoomBytes: 50, minFreeBytes: 0 }, () => 0);
  t.ok(room.tryReserve(50));
  room.stored(50);
  t.equal(room.tryReserve(1), false);
  room.endRecovery();
  t.ok(room.tryReserve(50));
  room.stored(50);
  t.ok(room.tryReserve(50), 'after recovery the policy counts it at once');
  t.end();
});

void t.test('room on disk: nothing is reserved below the free-disk floor', (t) => {
  const room = new DiskRoom({ sizeBytes: 1_000, fillRoomBytes: 500, minFreeBytes: 100 }, () => 0);
  t.equal(room.shortBytes, 0, 'nothing is known yet');
  room.observeFree(150);
  t.equal(room.mayHave(50), true);
  t.equal(room.mayHave(51), false);
  t.equal(room.tryReserve(51), false);
  t.equal(room.tryReserve(50), true);
  t.equal(room.tryReserve(1), false, 'what was reserved is not free any more');
  room.observeFree(70);
  t.equal(room.shortBytes, 30);
  room.removing(20);
  t.equal(room.shortBytes, 10);
  room.removing(20);
  t.equal(room.shortBytes, 0);
  t.end();
});

void t.test('room on disk: a body waits for files that are being removed, and for nothing else', async (t) => {
  const room = new DiskRoom({ sizeBytes: 100, fillRoomBytes: 60, minFreeBytes: 0 }, () => 50);
  t.equal(await room.reserve(51), false, 'nothing is being removed');
  room.removing(30);
  t.equal(await room.reserve(61), false, 'it would never fit');
  let waits = true;
  const largest = room.reserve(60).then((has) => {
    waits = false;
    return has;
  });
  await new Promise(setImmediate);
  t.equal(waits, true, 'all that may arrive at once fits later');
  room.removed(30);
  t.equal(await largest, false, 'or not, when all is removed and it still does not');
  room.removing(30);
  const outcomes: boolean[] = [];
  const waiting = [room.reserve(40), room.reserve(10)].map((each) => each.then((has) => outcomes.push(has)));
  for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
  t.same(outcomes, [true], 'the small one has its room, the large one waits');
  room.removed(30);
  await Promise.all(waiting);
  t.same(outcomes, [true, true]);
  room.removing(5);
  room.observeFree(-1);
  t.equal(await room.reserve(1), false, 'below the floor nobody waits');
});

const LIMITS: IncompleteLimits = { sizeBytes: 50_000, maxObjectBytes: 8_000, spansMax: 3 };
const HEADERS = [['etag', '"one"']] as const;

function incompleteTier(limits: Partial<IncompleteLimits> = {}) {
  const clock = new ManualClock();
  return { tier: new IncompleteTier({ ...LIMITS, ...limits }, new Readers(), clock), clock };
}

function sized(key: string, changes: Partial<Entry> = {}): Entry {
  return { ...entryOf(key, Buffer.alloc(0), { headers: HEADERS, ...changes }), sizeBytes: 20_000, sha256: null };
}

const spansOf = (tier: IncompleteTier, key: string) => tier.find(key, () => true)?.spans;

void t.test('incomplete responses: each has at most so many ranges and bytes', (t) => {
  const { tier } = incompleteTier();
  const bytes = bytesOf(20_000);
  const writer = tier.open(sized('a'));
  const write = (at: number, length: number) => writer?.write(at, bytes.subarray(at, at + length));
  t.same([write(0, 10), write(20, 10), write(40, 10)], [true, true, true]);
  t.equal(write(60, 10), false, 'a fourth range');
  t.equal(write(10, 10), true, 'what closes a gap is none');
  t.equal(write(60, 10), true);
  t.equal(write(70, 7_940), true);
  t.equal(write(8_010, 11), false, 'more bytes than one may have');
  t.equal(write(0, 30), true, 'what is there already is not counted again');
  t.equal(write(8_010, 10), true);
  t.equal(tier.stats().refused, 2);
  t.equal(write(100, 0), true, 'an empty chunk is nothing');
  t.same(spansOf(tier, 'a'), [
    { first: 0, last: 29 },
    { first: 40, last: 49 },
    { first: 60, last: 8_019 },
  ]);
  t.end();
});

void t.test('incomplete responses: all together have a limit, and each gives its share back', (t) => {
  const { tier } = incompleteTier();
  const bytes = bytesOf(8_000);
  for (let number = 0; number < 20; number += 1) {
    const mediaId = mediaIdOf(number);
    t.equal(tier.open(sized(`key ${number}`, { mediaId }))?.write(0, bytes), true);
    t.ok(tier.stats().usedBytes <= LIMITS.sizeBytes);
  }
  const { entries, evictions } = tier.stats();
  t.equal(entries + evictions, 20);
  t.ok(entries >= 4 && evictions >= 12, `${entries} stay`);
  t.equal(
    tier.find('key 0', () => true),
    undefined,
    'the oldest is gone',
  );
  t.same(tier.keysOfMedia(mediaIdOf(0)), []);
  t.same(tier.keysOfMedia(mediaIdOf(19)), ['key 19']);
  for (const key of tier.keysWhere(() => true)) tier.drop(key, 'purged');
  t.match(tier.stats(), { entries: 0, usedBytes: 0 });
  t.same([tier.keysOfPrimary('key 19'), tier.keysOfMedia(mediaIdOf(19))], [[], []]);
  const none = incompleteTier({ sizeBytes: 0 }).tier;
  t.equal(none.open(sized('a')), undefined);
  t.equal(tier.open({ ...sized('a'), sizeBytes: null }), undefined, 'without a size there are no ranges');
  const tiny = incompleteTier({ sizeBytes: 100 }).tier;
  t.equal(tiny.open(sized('a')), undefined, 'not even its head fits');
  t.equal(tiny.stats().entries, 0);
  t.end();
});

void t.test('incomplete responses: the one that was used last stays', (t) => {
  const { tier } = incompleteTier({ sizeBytes: 25_000 });
  for (const key of ['used', 'idle']) tier.open(sized(key))?.write(0, bytesOf(8_000));
  t.not(
    tier.find('used', () => true),
    undefined,
  );
  t.equal(
    tier.find('idle', () => false),
    undefined,
    'what does not suit is not used',
  );
  tier.open(sized('third'))?.write(0, bytesOf(8_000));
  t.same([...tier.keysWhere(() => true)].sort(), ['third', 'used']);
  t.end();
});

void t.test(
  'incomplete responses: another validator replaces the bytes, and an old writer writes no more',
  async (t) => {
    const { tier, clock } = incompleteTier();
    const old = tier.open(sized('a'));
    old?.write(0, Buffer.from('old'));
    const before = tier.find('a', () => true);
    const newer = tier.open(sized('a', { headers: [['etag', '"two"']] }));
    t.equal(old?.write(3, Buffer.from('old')), false);
    newer?.write(0, Buffer.from('new bytes'));
    const found = tier.find('a', () => true);
    t.same(found?.spans, [{ first: 0, last: 8 }]);
    t.equal(
      (await readAll(before?.body.open({ first: 0, last: 2 }, NEVER) as never)).toString(),
      'old',
      'a reader may finish',
    );
    const same = tier.open(
      sized('a', {
        headers: [
          ['etag', '"two"'],
          ['x', 'y'],
        ],
      }),
    );
    same?.write(9, Buffer.from('!'));
    t.same(spansOf(tier, 'a'), [{ first: 0, last: 9 }], 'the same validator keeps them');
    t.equal(found?.entry.headers.length, 2, 'under the newer head');
    await t.rejects(readAll(found?.body.open({ first: 0, last: 30 }, NEVER) as never), new BodyLost('evicted'));
    const reading = found?.body.open({ first: 0, last: 8 }, NEVER);
    tier.drop(keyOf('a'), 'taken_down');
    await t.rejects(readAll(reading as never), new BodyLost('taken_down'));
    t.equal(await found?.body.ensure(NEVER), 'lost');
    tier.open(sized('b', { deleteAt: clock.now() + 10 }))?.write(0, Buffer.from('b'));
    clock.advance(10);
    t.equal(
      tier.find('b', () => true),
      undefined,
    );
    t.equal(tier.stats().entries, 0);
  },
);

void t.test('incomplete responses: bytes in any order are read in theirs, and counted as what they take', async (t) => {
  const { tier } = incompleteTier();
  const bytes = bytesOf(30);
  const entry = { ...sized('a'), sizeBytes: 30 };
  const writer = tier.open(entry);
  for (const at of [20, 0, 10]) writer?.write(at, bytes.subarray(at, at + 10));
  const found = tier.find('a', () => true);
  t.equal(await found?.body.ensure(NEVER), 'ready');
  t.ok((await readAll(found?.body.open(undefined, NEVER) as never)).equals(bytes));
  t.ok((await readAll(found?.body.open({ first: 5, last: 25 }, NEVER) as never)).equals(bytes.subarray(5, 26)));

  const used = (key: string, length: number): number => {
    const before = tier.stats().usedBytes;
    tier.open(sized(key))?.write(0, bytesOf(length));
    return tier.stats().usedBytes - before;
  };
  t.equal(used('1000 bytes', 1_000) - used('10 bytes..', 10), 990);
  const before = tier.stats().usedBytes;
  const grown = { ...entry, headers: [...entry.headers, ['x', 'y']] as const };
  tier.open(grown);
  t.equal(tier.stats().usedBytes - before, headBytes(grown) - headBytes(entry), 'a larger head takes more');
});

void t.test('incomplete responses: of several that suit, the newest is found', (t) => {
  const { tier } = incompleteTier();
  for (const [key, bornAt] of [
    ['p 1', 5],
    ['p 2', 9],
    ['p 3', 7],
  ] as const)
    tier.open(sized(key, { primaryKey: 'p', bornAt }))?.write(0, Buffer.from('x'));
  t.equal(tier.find('p', () => true)?.entry.key, 'p 2');
  t.equal(tier.find('p', ({ key }) => key !== 'p 2')?.entry.key, 'p 3');
  t.equal(
    tier.find('other', () => true),
    undefined,
  );
  t.end();
});

void t.test('copies into memory: each once at a time, few at once, and only what may and fits', async (t) => {
  const memory = new MemoryTier(
    { name: 'lru', capacityBytes: 1_000_000, parameters: cacheConfig('').policies },
    100_000,
    new Readers(),
  );
  const waiting = new Map<string, () => void>();
  let promoted = 0;
  let may = true;
  const readWhole: PromoterDeps['disk']['readWhole'] = (key) =>
    new Promise((resolve) => {
      waiting.set(key, () => resolve({ entry: entryOf(key, bytesOf(10)) as SizedEntry, bytes: bytesOf(10) }));
    });
  const promoter = new Promoter({
    memory,
    disk: { readWhole } as PromoterDeps['disk'],
    maxObjectBytes: () => 10,
    concurrencyMax: 2,
    mayPromote: () => may,
    promotions: {
      add() {
        promoted += 1;
      },
    },
  });
  const entry = (key: string, sizeBytes = 10): SizedEntry => ({ ...entryOf(key, bytesOf(10)), sizeBytes });
  await promoter.promote(entry('large', 11));
  may = false;
  await promoter.promote(entry('unwanted'));
  may = true;
  const first = promoter.promote(entry('a'));
  await promoter.promote(entry('a'));
  const second = promoter.promote(entry('b'));
  await promoter.promote(entry('c'));
  t.same([...waiting.keys()], ['a', 'b'], 'the others are copied after a later hit');
  for (const key of ['a', 'b']) waiting.get(key)?.();
  await Promise.all([first, second]);
  t.equal(promoted, 2);
  const third = promoter.promote(entry('c'));
  await until('its place', () => waiting.has('c'));
  memory.put(entry('c'), bytesOf(10));
  waiting.get('c')?.();
  await third;
  t.equal(promoted, 2, 'what is in memory by then is not put there again');
  const refused = promoter.promote(entry('k'.repeat(600_000)));
  await until('its place', () => waiting.size === 4);
  [...waiting.values()].at(-1)?.();
  await refused;
  t.equal(promoted, 2, 'what memory refuses is not counted');
});
