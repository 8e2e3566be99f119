/** The tiers together, over a disk tier of the test: who is asked first, what is removed where, and what waits for what. */
import { PassThrough } from 'node:stream';
import t, { type Test } from 'tap';
import { BodyLost, type DropReason, type FillOutcome, type Stored, type Tiers } from '../../../edge/cache/cache.js';
import type { StoreOutcome, StoreRequest } from '../../../edge/cache/disk/stores.js';
import type { DiskSlot } from '../../../edge/cache/disk-slot.js';
import { FateTable } from '../../../edge/cache/fates.js';
import { IncompleteTier } from '../../../edge/cache/incomplete.js';
import { MemoryTier } from '../../../edge/cache/memory.js';
import { Readers } from '../../../edge/cache/readers.js';
import { TieredCache } from '../../../edge/cache/tiered.js';
import type { CacheKey, Entry } from '../../../edge/entry.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import {
  BOTH,
  bytesOf,
  cacheConfig,
  entryOf,
  keyOf,
  mediaIdOf,
  NEVER,
  readAll,
  writeAll,
} from '../../kit/edge/cache.js';

const BYTES = bytesOf(1_000);

/** A disk tier that keeps heads alone, says what it was asked, and waits where the test holds it. */
class DiskDouble {
  readonly entries = new Map<CacheKey, Entry>();
  readonly calls: string[] = [];
  readonly stored: StoreRequest[] = [];
  flushes: Promise<void> = Promise.resolve();
  outcome: StoreOutcome | Promise<StoreOutcome> = 'stored';
  largestBytes = 1_000_000;
  would: unknown = true;
  promotions: Promise<void> = Promise.resolve();
  recovered = false;
  recoveredEntries = 3;
  corruptEntries = 2;
  openFiles = 4;
  appliedBefore = { kind: 'unknown' };
  wouldCalls: unknown[] = [];

  #found(key: CacheKey): Stored | undefined {
    const entry = this.entries.get(key);
    return entry && ({ entry, tier: 'disk', body: { sizeBytes: 1, whole: undefined } } as unknown as Stored);
  }

  get(key: CacheKey): Stored | undefined {
    this.calls.push(`get ${key}`);
    return this.#found(key);
  }

  peek(key: CacheKey): Stored | undefined {
    this.calls.push(`peek ${key}`);
    return this.#found(key);
  }

  entriesOfPrimary(primaryKey: string): readonly Entry[] {
    return [...this.entries.values()].filter((entry) => entry.primaryKey === primaryKey);
  }

  keysOfMedia(id: string): readonly CacheKey[] {
    return [...this.entries.values()].filter((entry) => entry.mediaId === id).map(({ key }) => key);
  }

  async *keysWhere(matches: (entry: Entry) => boolean): AsyncGenerator<CacheKey> {
    for (const [key, entry] of new Map(this.entries)) if (matches(entry)) yield key;
  }

  refresh(entry: Entry): boolean {
    const known = this.entries.has(entry.key);
    if (known) this.entries.set(entry.key, entry);
    return known;
  }

  remove(key: CacheKey): void {
    this.calls.push(`remove ${key}`);
    this.entries.delete(key);
  }

  async removeAll(): Promise<void> {
    this.calls.push('remove all');
    this.entries.clear();
    await this.flushes;
  }

  flushed(): Promise<void> {
    this.calls.push('flushed');
    return this.flushes;
  }

  takes(sizeBytes: number): boolean {
    return sizeBytes <= this.largestBytes;
  }

  wouldStore(entry: Entry, admission: unknown, reserved: boolean): unknown {
    this.wouldCalls.push([entry.key, admission, reserved]);
    return this.would;
  }

  createSpool(): undefined {
    return undefined;
  }

  async store(request: StoreRequest): Promise<StoreOutcome> {
    this.stored.push(request);
    const outcome = await this.outcome;
    if (outcome === 'stored') this.entries.set(request.entry.key, request.entry);
    return outcome;
  }

  stats() {
    return { entries: this.entries.size, usedBytes: 5, capacityBytes: 6, evictions: 7, refused: 8 };
  }
}

interface Options {
  readonly disk?: 'none' | 'away';
  readonly memoryBytes?: number;
  readonly policy?: 'lru' | 'w-tinylfu';
  readonly ownsDisk?: (primaryKey: string) => boolean;
}

function opened(t: Test, options: Options = {}) {
  const deps = testDeps();
  const clock = new ManualClock();
  const readers = new Readers();
  const config = cacheConfig(t.testdirName);
  const disk = new DiskDouble();
  const promoted: string[] = [];
  const slotCalls: unknown[] = [];
  const slot = {
    state: options.disk === 'away' ? 'away' : 'in_use',
    tier: options.disk === 'away' ? undefined : disk,
    promoter:
      options.disk === 'away'
        ? undefined
        : {
            promote({ key }: Entry) {
              promoted.push(key);
              return disk.promotions;
            },
          },
    noteApplied: (position: unknown) => void slotCalls.push(position),
    probe: async () => void slotCalls.push('probe'),
    close: async () => void slotCalls.push('close'),
  };
  const capacityBytes = options.memoryBytes ?? 1_000_000;
  const memory = new MemoryTier(
    { name: options.policy ?? 'lru', capacityBytes, parameters: config.policies },
    200_000,
    readers,
  );
  const incomplete = new IncompleteTier(config.parts, readers, clock);
  const dropped: string[] = [];
  const cache = new TieredCache({
    config,
    log: deps.log,
    clock,
    memory,
    incomplete,
    disk: options.disk === 'none' ? undefined : (slot as unknown as DiskSlot),
    readers,
    fates: new FateTable(1_024, clock),
    ownsDisk: options.ownsDisk ?? (() => true),
    onDropped: (key) => dropped.push(key),
  });
  const fill = async (entry: Entry, bytes: Buffer, tiers: Tiers = BOTH): Promise<FillOutcome> => {
    const filling = cache.fill(entry, tiers);
    await writeAll(filling, bytes);
    return filling.end();
  };
  return { ...deps, cache, clock, disk, memory, incomplete, readers, promoted, slotCalls, dropped, fill };
}

const turns = async (count = 5): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise(setImmediate);
};

void t.test('memory is asked first, and what is found on disk is copied into memory', async (t) => {
  const { cache, disk, memory, promoted } = opened(t);
  memory.put(entryOf('a', BYTES), BYTES);
  disk.entries.set(keyOf('b'), entryOf('b', BYTES));
  t.equal(cache.get(keyOf('a'))?.tier, 'memory');
  t.same([disk.calls, promoted], [[], []]);
  t.equal(cache.get(keyOf('b'))?.tier, 'disk');
  t.same([disk.calls, promoted], [['get b'], ['b']]);
  t.equal(cache.peek(keyOf('b'))?.tier, 'disk');
  t.equal(cache.peek(keyOf('a'))?.tier, 'memory');
  t.same([disk.calls, promoted], [['get b', 'peek b'], ['b']], 'a look counts as no use and copies nothing');
  t.same([cache.get(keyOf('c')), cache.peek(keyOf('c'))], [undefined, undefined]);
});

void t.test('an entry past its end is found nowhere, and is removed everywhere', async (t) => {
  for (const look of ['get', 'peek'] as const) {
    const { cache, disk, memory, incomplete, clock, promoted } = opened(t);
    const deleteAt = clock.now() + 10;
    memory.put(entryOf('a', BYTES, { deleteAt }), BYTES);
    disk.entries.set(keyOf('a'), entryOf('a', BYTES, { deleteAt: Number.POSITIVE_INFINITY }));
    disk.entries.set(keyOf('b'), entryOf('b', BYTES, { deleteAt }));
    incomplete.open({ ...entryOf('b', BYTES), headers: [['etag', '"x"']] })?.write(0, BYTES.subarray(0, 10));
    clock.advance(9);
    t.ok(cache[look](keyOf('a')) && cache[look](keyOf('b')), look);
    promoted.length = 0;
    clock.advance(1);
    t.equal(cache[look](keyOf('a')), undefined, look);
    t.equal(cache[look](keyOf('b')), undefined, look);
    t.same([memory.stats().entries, disk.entries.size, incomplete.stats().entries, promoted], [0, 0, 0, []], look);
  }
});

void t.test('variants are those of both tiers, each once, without those past their end', async (t) => {
  const { cache, disk, memory, clock } = opened(t);
  const of = (key: string, changes: Partial<Entry> = {}) => entryOf(key, BYTES, { primaryKey: 'p', ...changes });
  memory.put(of('a', { status: 201 }), BYTES);
  memory.put(of('gone', { deleteAt: clock.now() }), BYTES);
  disk.entries.set(keyOf('a'), of('a'));
  disk.entries.set(keyOf('b'), of('b'));
  disk.entries.set(keyOf('other'), of('other', { primaryKey: 'q' }));
  t.same(
    cache.variantsOf('p').map(({ key, status }) => [key, status]),
    [
      ['a', 201],
      ['b', 200],
    ],
  );
});

void t.test('a newer head is put over the body in each tier that has it', async (t) => {
  const { cache, disk, memory } = opened(t);
  memory.put(entryOf('a', BYTES), BYTES);
  disk.entries.set(keyOf('a'), entryOf('a', BYTES));
  disk.entries.set(keyOf('b'), entryOf('b', BYTES));
  memory.put(entryOf('c', BYTES), BYTES);
  for (const [key, known] of [
    ['a', true],
    ['b', true],
    ['c', true],
    ['d', false],
  ] as const)
    t.equal(cache.refresh(entryOf(key, BYTES, { staleAt: 99 })), known, key);
  t.same(
    [
      memory.peek(keyOf('a'))?.entry.staleAt,
      disk.entries.get(keyOf('a'))?.staleAt,
      memory.peek(keyOf('c'))?.entry.staleAt,
    ],
    [99, 99, 99],
  );
});

void t.test('each reason to drop removes what is stored; some end the readers and the fills too', async (t) => {
  const reasons: readonly (readonly [reason: DropReason, ends: boolean, invalidates: boolean])[] = [
    ['taken_down', true, false],
    ['purged', true, false],
    ['corrupt', true, false],
    ['invalidated', false, true],
    ['expired', false, false],
    ['replaced', false, false],
  ];
  for (const [reason, ends, invalidates] of reasons) {
    const { cache, disk, memory, incomplete, readers, dropped } = opened(t);
    memory.put(entryOf('a', BYTES), BYTES);
    disk.entries.set(keyOf('a'), entryOf('a', BYTES));
    incomplete.open({ ...entryOf('a', BYTES), headers: [['etag', '"x"']] })?.write(0, BYTES.subarray(0, 10));
    const [fill, other] = [cache.fill(entryOf('a', BYTES), BOTH), cache.fill(entryOf('b', BYTES), BOTH)];
    const stream = new PassThrough();
    let lost: unknown;
    stream.on('error', (error) => (lost = error));
    readers.add(keyOf('a'), stream);
    cache.drop(keyOf('a'), reason);
    await turns();
    t.same([memory.stats().entries, disk.entries.size, incomplete.stats().entries], [0, 0, 0], reason);
    t.same([fill.failed, fill.invalidated, other.failed, other.invalidated], [ends, invalidates, false, false], reason);
    t.equal(lost instanceof BodyLost ? lost.reason : undefined, ends ? reason : undefined, reason);
    cache.drop(keyOf('not stored'), reason);
    t.same(dropped, reason === 'replaced' ? [] : ['a'], `${reason}: what was removed for good is told`);
    await cache.close();
  }
});

void t.test('a takedown counts each key once, and waits until the disk has let go', async (t) => {
  const { cache, disk, memory, incomplete } = opened(t);
  const of = (key: string) => entryOf(key, BYTES, { mediaId: mediaIdOf(1) });
  memory.put(of('a'), BYTES);
  disk.entries.set(keyOf('a'), of('a'));
  disk.entries.set(keyOf('b'), of('b'));
  disk.entries.set(keyOf('other'), entryOf('other', BYTES, { mediaId: mediaIdOf(2) }));
  incomplete.open({ ...of('c'), headers: [['etag', '"x"']] });
  const fills = ['d', 'failed'].map((key) => cache.fill(of(key), BOTH));
  const unrelated = cache.fill(entryOf('e', BYTES, { mediaId: mediaIdOf(2) }), BOTH);
  fills[1]?.abort(new Error('before'));
  let go = (): void => undefined;
  disk.flushes = new Promise((resolve) => (go = resolve));
  let dropped: number | undefined;
  const taking = cache.takeDown(mediaIdOf(1)).then((count) => (dropped = count));
  t.same(
    [memory.stats().entries, [...disk.entries.keys()], incomplete.stats().entries, fills[0]?.failed],
    [0, ['other'], 0, true],
    'gone at once',
  );
  await turns();
  t.equal(dropped, undefined);
  go();
  await taking;
  t.equal(dropped, 4);
  t.equal(unrelated.failed, false);
  const broken = new Error('the disk cannot be written');
  disk.flushes = Promise.reject(broken);
  disk.flushes.catch(() => undefined);
  await t.rejects(cache.takeDown(mediaIdOf(9)), broken);
  await cache.close();
});

void t.test('a purge counts what it removes in all tiers, and waits until the disk has let go', async (t) => {
  for (const which of [{ prefix: '/a' }, { all: true }] as const) {
    const { cache, disk, memory, incomplete, readers, dropped } = opened(t);
    memory.put(entryOf('/a1', BYTES), BYTES);
    memory.put(entryOf('/b1', BYTES), BYTES);
    for (const key of ['/a1', '/a2', '/a3', '/b2']) disk.entries.set(keyOf(key), entryOf(key, BYTES));
    incomplete.open({ ...entryOf('/a4', BYTES), headers: [['etag', '"x"']] });
    const fill = cache.fill(entryOf('/a5', BYTES), BOTH);
    const kept = cache.fill(entryOf('/b5', BYTES), BOTH);
    cache.fill(entryOf('/a6', BYTES), BOTH).abort(new Error('before'));
    const stream = new PassThrough().on('error', () => undefined);
    readers.add(keyOf('/elsewhere'), stream);
    let go = (): void => undefined;
    disk.flushes = new Promise((resolve) => (go = resolve));
    let purged: number | undefined;
    const purging = cache.purge(which).then((count) => (purged = count));
    await turns();
    t.equal(purged, undefined);
    go();
    await purging;
    const all = 'all' in which;
    t.equal(purged, all ? 5 : 5, JSON.stringify(which));
    t.same(
      [memory.stats().entries, [...disk.entries.keys()], incomplete.stats().entries],
      all ? [0, [], 0] : [1, ['/b2'], 0],
    );
    t.same([fill.failed, kept.failed, stream.destroyed], [true, all, all]);
    t.ok(dropped.includes('/a1'), 'what was removed is told');
    t.equal(dropped.includes('all'), all);
    await cache.close();
  }
  const few = opened(t);
  for (const key of ['/1', '/2', '/3']) few.disk.entries.set(keyOf(key), entryOf(key, BYTES));
  t.equal(await few.cache.purge({ all: true }), 3, 'as many as the disk had');
  const none = opened(t, { disk: 'none' });
  none.memory.put(entryOf('/a', BYTES), BYTES);
  t.equal(await none.cache.purge({ all: true }), 1);
});

void t.test('a response is stored in the tiers that its rules name, and replaces what was there', async (t) => {
  const { disk, memory, incomplete, fill } = opened(t);
  const old = bytesOf(10, 9);
  const cases: readonly (readonly [tiers: Tiers, wanted: FillOutcome, inMemory: boolean, onDisk: boolean])[] = [
    [BOTH, { kind: 'stored', tiers: ['memory', 'disk'] }, true, true],
    [{ memory: true, disk: false }, { kind: 'stored', tiers: ['memory'] }, true, false],
    [{ memory: false, disk: true, admission: 'always' }, { kind: 'stored', tiers: ['disk'] }, false, true],
    [{ memory: false, disk: false }, { kind: 'not_kept', reason: 'no_tier' }, false, false],
  ];
  for (const [tiers, wanted, inMemory, onDisk] of cases) {
    memory.put(entryOf('a', old), old);
    disk.entries.set(keyOf('a'), entryOf('a', old));
    incomplete.open({ ...entryOf('a', old), headers: [['etag', '"x"']] });
    disk.stored.length = 0;
    const what = JSON.stringify(tiers);
    t.same(await fill(entryOf('a', BYTES), BYTES, tiers), wanted, what);
    t.same(
      [memory.peek(keyOf('a')) !== undefined, disk.entries.has(keyOf('a')), incomplete.stats().entries],
      [inMemory, onDisk, 0],
      what,
    );
    if (!onDisk) continue;
    const [request] = disk.stored;
    t.same(
      [request?.entry.key, request?.sha256, request?.admission],
      ['a', entryOf('a', BYTES).sha256, tiers.admission],
      what,
    );
    t.ok(request?.source.kind === 'bytes' && request.source.bytes.equals(BYTES), what);
    t.equal(request?.isCancelled(), false, what);
  }
});

void t.test('why a response is kept nowhere', async (t) => {
  const onDisk: Tiers = { memory: false, disk: true };
  for (const [outcome, reason] of [
    ['too_large', 'too_large'],
    ['not_admitted', 'not_admitted'],
    ['disk_full', 'disk_full'],
    ['cancelled', 'not_admitted'],
  ] as const) {
    const { disk, fill } = opened(t);
    disk.outcome = outcome;
    t.same(await fill(entryOf('a', BYTES), BYTES, onDisk), { kind: 'not_kept', reason }, outcome);
    t.same(
      await fill(entryOf('a', BYTES), BYTES),
      { kind: 'stored', tiers: ['memory'] },
      `${outcome}: memory takes it all the same`,
    );
  }
  const large = bytesOf(300_000);
  const passed = opened(t);
  t.same(await passed.fill(entryOf('a', large), large), { kind: 'not_kept', reason: 'disk_full' }, 'it had no file');
  passed.disk.largestBytes = 299_999;
  t.same(await passed.fill(entryOf('a', large), large), { kind: 'not_kept', reason: 'too_large' });
  t.same(await passed.fill(entryOf('a', large), large, { memory: true, disk: false }), {
    kind: 'not_kept',
    reason: 'too_large',
  });
  const full = opened(t, { memoryBytes: 2_000 });
  t.same(await full.fill(entryOf('a', BYTES), BYTES, { memory: true, disk: false }), {
    kind: 'not_kept',
    reason: 'not_admitted',
  });
  const others = opened(t, { ownsDisk: (primaryKey) => primaryKey === 'own' });
  t.same(await others.fill(entryOf('own', BYTES), BYTES), { kind: 'stored', tiers: ['memory', 'disk'] });
  t.same(
    await others.fill(entryOf('a', BYTES), BYTES),
    { kind: 'stored', tiers: ['memory'] },
    'another worker has its disk',
  );
  for (const disk of ['none', 'away'] as const)
    t.same(
      await opened(t, { disk }).fill(entryOf('a', BYTES), BYTES, onDisk),
      { kind: 'not_kept', reason: 'no_tier' },
      disk,
    );
});

void t.test('what became invalid while it is written is not what was stored', async (t) => {
  const { cache, disk } = opened(t);
  let go = (_outcome: StoreOutcome): void => undefined;
  disk.outcome = new Promise((resolve) => (go = resolve));
  const fill = cache.fill(entryOf('a', BYTES), { memory: false, disk: true });
  await writeAll(fill, BYTES);
  const ended = fill.end();
  await turns();
  t.equal(disk.stored[0]?.isCancelled(), false);
  cache.drop(keyOf('a'), 'invalidated');
  t.equal(disk.stored[0]?.isCancelled(), true);
  go('cancelled');
  t.same(await ended, { kind: 'not_kept', reason: 'invalidated' });
  const early = cache.fill(entryOf('b', BYTES), BOTH);
  await writeAll(early, BYTES);
  cache.drop(keyOf('b'), 'invalidated');
  t.same(await early.end(), { kind: 'not_kept', reason: 'invalidated' });
  t.equal(disk.stored.length, 1);
});

void t.test('whether a fill may be kept, as far as it is known', async (t) => {
  const { cache, disk } = opened(t, { memoryBytes: 5_000 });
  const may = (sizeBytes: number | null, tiers: Tiers): boolean => {
    const fill = cache.fill(entryOf('a', BYTES, { sizeBytes }), tiers);
    const kept = fill.mayBeKept;
    fill.abort(new Error('enough'));
    return kept;
  };
  const [inMemory, onDisk] = [
    { memory: true, disk: false },
    { memory: false, disk: true },
  ];
  t.same([may(1_000, inMemory), may(9_000, inMemory), may(null, inMemory)], [true, false, true]);
  t.same(disk.wouldCalls, []);
  t.same(
    [may(1_000, onDisk), may(9_000, BOTH), may(1_000, { ...onDisk, admission: 'second_hit' })],
    [true, true, true],
  );
  t.same(disk.wouldCalls, [
    ['a', undefined, false],
    ['a', undefined, false],
    ['a', 'second_hit', false],
  ]);
  disk.would = false;
  t.same([may(1_000, onDisk), may(9_000, BOTH), may(1_000, BOTH)], [false, false, true]);
  t.equal(may(250_000, BOTH), false, 'it is being passed');
  t.equal(may(1_000, { memory: false, disk: false }), false);
  const none = opened(t, { disk: 'none' });
  t.equal(none.cache.fill(entryOf('a', BYTES), onDisk).mayBeKept, false);
});

void t.test('figures are those of all tiers, and there are some without a disk', async (t) => {
  const { cache, memory, disk, fill, slotCalls } = opened(t);
  memory.put(entryOf('a', BYTES), BYTES);
  const open = cache.fill(entryOf('b', BYTES), BOTH);
  t.match(cache.stats(), {
    memory: { entries: 1 },
    disk: { usedBytes: 5 },
    incomplete: { entries: 0 },
    fills: 1,
    corrupt: 2,
    recovered: 3,
    openFiles: 4,
  });
  open.abort(new Error('enough'));
  await fill(entryOf('c', BYTES, { sha256: 'ab'.repeat(32) }), BYTES);
  t.match(cache.stats(), { fills: 0, corrupt: 3 });
  t.same([cache.diskState, cache.recovered, cache.appliedBefore], ['in_use', false, { kind: 'unknown' }]);
  disk.recovered = true;
  t.equal(cache.recovered, true);
  const position = { journal: 'j', seq: 1, mark: null };
  cache.noteApplied(position);
  await cache.probe();
  t.same(slotCalls, [position, 'probe']);

  for (const [disk, state] of [
    ['none', 'off'],
    ['away', 'away'],
  ] as const) {
    const without = opened(t, { disk });
    t.same(
      [without.cache.diskState, without.cache.recovered, without.cache.appliedBefore],
      [state, true, { kind: 'nothing_stored' }],
    );
    t.strictSame(without.cache.stats().disk, { entries: 0, usedBytes: 0, capacityBytes: 0, evictions: 0, refused: 0 });
    t.match(without.cache.stats(), { corrupt: 0, recovered: 0, openFiles: 0 });
    without.cache.noteApplied(position);
    await without.cache.probe();
    t.equal(await without.cache.takeDown(mediaIdOf(1)), 0);
    await without.cache.close();
  }
});

void t.test('work in the background that fails is logged, and the end waits for what is under way', async (t) => {
  const { cache, disk, readers, slotCalls, lines } = opened(t);
  disk.entries.set(keyOf('a'), entryOf('a', BYTES));
  disk.promotions = Promise.reject(new Error('EIO'));
  disk.promotions.catch(() => undefined);
  cache.get(keyOf('a'));
  await turns();
  t.match(lines.at(-1), { level: 'warn', msg: 'background work of the cache failed' });
  let go = (): void => undefined;
  disk.promotions = new Promise((resolve) => (go = resolve));
  cache.get(keyOf('a'));
  let stored = (_outcome: StoreOutcome): void => undefined;
  disk.outcome = new Promise((resolve) => (stored = resolve));
  const ending = cache.fill(entryOf('b', BYTES), { memory: false, disk: true });
  await writeAll(ending, BYTES);
  const ended = ending.end();
  const arriving = cache.fill(entryOf('c', BYTES), BOTH);
  const reader = readAll(arriving.open(undefined, NEVER));
  reader.catch(() => undefined);
  const stream = new PassThrough().on('error', () => undefined);
  readers.add(keyOf('x'), stream);
  const closed = cache.close();
  t.equal(cache.close(), closed, 'it closes once');
  t.equal(arriving.failed, true, 'what is still arriving is given up');
  await t.rejects(reader, new BodyLost('aborted'));
  await turns();
  t.same([slotCalls, stream.destroyed], [[], false], 'what has arrived is being stored');
  stored('stored');
  t.same(await ended, { kind: 'stored', tiers: ['disk'] });
  await turns();
  t.same([slotCalls, stream.destroyed], [[], true], 'a copy is being made');
  go();
  await closed;
  t.same(slotCalls, ['close']);
});
