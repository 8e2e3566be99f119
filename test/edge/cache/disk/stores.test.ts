/** Storing on disk by itself: each outcome, and that nothing but `stored` leaves anything behind. */
import t from 'tap';
import type { Pending } from '../../../../edge/cache/disk/entries.js';
import { NoRoom, type SpoolFile } from '../../../../edge/cache/disk/spool.js';
import { DiskStores, type DiskStoresDeps, type StoreRequest } from '../../../../edge/cache/disk/stores.js';
import type { SizedEntry } from '../../../../edge/entry.js';
import { bytesOf, entryOf, keyOf } from '../../../kit/edge/cache.js';
import { until } from '../../../kit/until.js';

const BYTES = bytesOf(1_000);

interface World {
  admits: boolean;
  /** Calls `enter`, or rejects. */
  publish: (enter: () => boolean) => Promise<boolean>;
  room: boolean;
  /** The run of the entry that has the content already. */
  shared: number | undefined;
  verified: boolean;
}

function opened(over: Partial<DiskStoresDeps> = {}) {
  const log: string[] = [];
  const errors: unknown[] = [];
  const pendings: Pending[] = [];
  const entered: { readonly content: string | null; readonly run: number }[] = [];
  const world: World = {
    admits: true,
    publish: async (enter) => enter(),
    room: true,
    shared: undefined,
    verified: true,
  };
  const spoolOf = (name: string): SpoolFile =>
    ({
      path: `/${name}`,
      becameContent: () => void log.push(`${name} became content`),
      discard: async () => void log.push(`${name} discarded`),
    }) as unknown as SpoolFile;
  const stores = new DiskStores({
    index: {
      run: 5,
      anyWithContent: () => (world.shared === undefined ? undefined : { run: world.shared }),
      isVerified: () => world.verified,
    },
    entries: {
      begin(key: string) {
        const pending = { digest: key, state: 'open' } as unknown as Pending;
        pendings.push(pending);
        return pending;
      },
      admit: () => world.admits,
      enter(pending: Pending, { content }: { content: string | null }, run: number) {
        pending.state = 'entered';
        entered.push({ content, run });
      },
      end: ({ state }: Pending) => void log.push(`end ${state}`),
    },
    contentRefs: {
      publish(path: string, _sha256: string, bytes: Buffer | undefined, enter: () => boolean) {
        log.push(`publish ${path}${bytes === undefined ? '' : ' with bytes'}`);
        return world.publish(enter);
      },
      release: () => void log.push('release'),
    },
    spools: { createWhenRoom: async () => (world.room ? spoolOf('made') : undefined) },
    capacityBytes: 100_000,
    maxObjectBytes: 10_000,
    admission: 'always',
    storesMax: 2,
    onError: (thrown: unknown) => void errors.push(thrown),
    ...over,
  } as unknown as DiskStoresDeps);
  const request = (more: Partial<StoreRequest> = {}, bytes = BYTES): StoreRequest => {
    const entry = entryOf('key', bytes) as SizedEntry;
    const sha256 = entry.sha256 ?? '';
    return { entry, sha256, source: { kind: 'bytes', bytes }, admission: undefined, isCancelled: () => false, ...more };
  };
  return { stores, world, log, errors, pendings, entered, request, spoolOf };
}

void t.test('bytes are written into their place, and a file is moved there', async (t) => {
  const bytes = opened();
  t.equal(await bytes.stores.store(bytes.request()), 'stored');
  t.same(bytes.log, ['publish /made with bytes', 'made became content', 'made discarded', 'end entered']);
  t.same(bytes.entered, [{ content: bytes.request().sha256, run: 5 }]);
  const file = opened();
  const source = { kind: 'spool', spool: file.spoolOf('own') } as const;
  t.equal(await file.stores.store(file.request({ source })), 'stored');
  t.same(file.log, ['publish /own', 'own became content', 'end entered', 'own discarded']);
});

void t.test('an empty body has no content, and one that is there is not written again', async (t) => {
  const empty = opened();
  t.equal(await empty.stores.store(empty.request({}, Buffer.alloc(0))), 'stored');
  t.same([empty.log, empty.entered], [['end entered'], [{ content: null, run: 5 }]]);
  for (const [verified, run] of [
    [true, 5],
    [false, 3],
  ] as const) {
    const shared = opened();
    Object.assign(shared.world, { shared: 3, verified });
    t.equal(await shared.stores.store(shared.request()), 'stored');
    t.same(
      [shared.log, shared.entered],
      [['end entered'], [{ content: shared.request().sha256, run }]],
      'it is as verified as the other',
    );
  }
});

void t.test('what is not stored leaves nothing behind, and says why', async (t) => {
  const nothing = ['end open'];
  const made = ['made discarded', 'end open'];
  const tried = ['publish /made with bytes', ...made];
  const cases: readonly (readonly [
    what: string,
    change: Partial<World>,
    outcome: string,
    log: readonly string[],
    errors: number,
  ])[] = [
    ['the policy refuses it', { admits: false }, 'not_admitted', made, 0],
    ['the policy refuses a shared one', { admits: false, shared: 3 }, 'not_admitted', nothing, 0],
    ['there is no room', { room: false }, 'disk_full', nothing, 0],
    ['the disk fails', { publish: () => Promise.reject(new Error('EIO')) }, 'disk_full', tried, 1],
    ['its room is used up', { publish: () => Promise.reject(new NoRoom('none')) }, 'disk_full', tried, 0],
  ];
  for (const [what, change, outcome, log, errors] of cases) {
    const test = opened();
    Object.assign(test.world, change);
    t.equal(await test.stores.store(test.request()), outcome, what);
    t.same([test.log, test.entered, test.errors.length], [log, [], errors], what);
    t.equal(test.stores.refused, outcome === 'not_admitted' ? 1 : 0, what);
  }
  const large = opened({ maxObjectBytes: 999 });
  t.equal(await large.stores.store(large.request()), 'too_large');
  t.same([large.log, large.pendings, large.stores.takes(999), large.stores.takes(1_000)], [[], [], true, false]);
});

void t.test('a store that is cancelled is stored nowhere, at whatever step that happens', async (t) => {
  const early = opened();
  t.equal(await early.stores.store(early.request({ isCancelled: () => true })), 'cancelled');
  t.same(early.log, ['end open']);
  for (const at of [2, 3]) {
    const test = opened();
    let looks = 0;
    const isCancelled = (): boolean => {
      looks += 1;
      return looks >= at;
    };
    t.equal(await test.stores.store(test.request({ isCancelled })), 'cancelled', `${at}`);
    t.same([test.log, test.entered], [['made discarded', 'end open'], []], `${at}`);
  }
  const late = opened();
  late.world.publish = async (enter) => {
    for (const pending of late.pendings) pending.state = 'cancelled';
    return enter();
  };
  t.equal(await late.stores.store(late.request()), 'cancelled');
  t.same(
    [late.log, late.entered],
    [['publish /made with bytes', 'made became content', 'release', 'made discarded', 'end cancelled'], []],
    'its content is released',
  );
  const shared = opened();
  shared.world.shared = 3;
  t.equal(await shared.stores.store(shared.request({ isCancelled: () => true })), 'cancelled');
  t.same(shared.entered, []);
});

void t.test('so many wait or are written at once, and each gives its place back', async (t) => {
  const { stores, world, request } = opened();
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  let publishing = 0;
  world.publish = async (enter) => {
    publishing += 1;
    await held;
    return enter();
  };
  const of = (seed: number) => request({}, bytesOf(1_000, seed));
  const waiting = [stores.store(of(1)), stores.store(of(2))];
  await until('both are written', () => publishing === 2);
  t.equal(stores.wouldAdmit(keyOf('key'), undefined), false);
  t.equal(await stores.store(of(3)), 'not_admitted');
  t.equal(stores.refused, 1);
  let ended = false;
  const all = stores.ended().then(() => (ended = true));
  await new Promise(setImmediate);
  t.equal(ended, false);
  go();
  t.same(await Promise.all(waiting), ['stored', 'stored']);
  await all;
  t.equal(stores.wouldAdmit(keyOf('key'), undefined), true);
  t.equal(await stores.store(of(3)), 'stored');
});

void t.test('a body that is being written is waited for, and then shared, or written if that failed', async (t) => {
  for (const fails of [false, true]) {
    const { stores, world, log, request } = opened();
    let go = (): void => undefined;
    const held = new Promise<void>((resolve) => (go = resolve));
    world.publish = async (enter) => {
      world.publish = async (next) => next();
      await held;
      if (fails) throw new Error('EIO');
      world.shared = 5;
      return enter();
    };
    const first = stores.store(request());
    await until('it is being written', () => log.length === 1);
    const second = stores.store(request());
    for (let turns = 0; turns < 5; turns += 1) await new Promise(setImmediate);
    t.equal(log.length, 1, 'the second one waits');
    go();
    t.same(await Promise.all([first, second]), [fails ? 'disk_full' : 'stored', 'stored']);
    t.equal(log.filter((line) => line.startsWith('publish')).length, fails ? 2 : 1);
  }
});

void t.test('at the second fetch alone, where that is asked for', async (t) => {
  const tier = opened({ admission: 'second_hit' });
  t.equal(tier.stores.wouldAdmit(keyOf('key'), undefined), false);
  t.equal(await tier.stores.store(tier.request()), 'not_admitted');
  t.equal(tier.stores.wouldAdmit(keyOf('key'), undefined), true);
  tier.stores.forgetAdmissions();
  t.equal(tier.stores.wouldAdmit(keyOf('key'), undefined), false, 'after a purge nothing counts');
  t.equal(await tier.stores.store(tier.request()), 'not_admitted');
  t.equal(await tier.stores.store(tier.request()), 'stored');
  t.equal(await tier.stores.store(tier.request({ admission: 'always' })), 'stored');
  t.equal(tier.stores.refused, 2);
});
