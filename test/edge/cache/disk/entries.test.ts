/** The entries of the disk tier by themselves: policy, index and content files agree, whatever happens to an entry. */
import { PassThrough } from 'node:stream';
import t from 'tap';
import { BodyLost } from '../../../../edge/cache/cache.js';
import type { OrderRow } from '../../../../edge/cache/disk/disk-index.js';
import { DiskEntries, type DiskEntriesDeps } from '../../../../edge/cache/disk/entries.js';
import { type DiskRecord, digestOf, type KeyDigest } from '../../../../edge/cache/disk/record.js';
import { recover } from '../../../../edge/cache/disk/recovery.js';
import { Readers } from '../../../../edge/cache/readers.js';
import type { SizedEntry } from '../../../../edge/entry.js';
import { testDeps } from '../../../kit/deps.js';
import { bytesOf, cacheConfig, entryOf, keyOf, NEVER } from '../../../kit/edge/cache.js';

const CAPACITY = 100;

/** An index in memory. `earlier`: what an earlier run has stored, in its order. */
function opened(earlier: readonly (readonly [key: string, weightBytes: number])[] = []) {
  const { log, lines } = testDeps();
  const records = new Map<KeyDigest, DiskRecord>();
  const released: (string | null)[] = [];
  const forgotten: string[] = [];
  const discarded: OrderRow[] = [];
  const errors: unknown[] = [];
  const readers = new Readers();
  let seq = 0;
  const recordOf = (key: string, weightBytes: number, content: string | null = `content of ${key}`): DiskRecord => {
    seq += 1;
    return { entry: entryOf(key, bytesOf(1)) as SizedEntry, content, weightBytes, seq, run: 1 };
  };
  for (const [key, weightBytes] of earlier) records.set(digestOf(key), recordOf(key, weightBytes));
  const rows = (): readonly OrderRow[] =>
    [...records].map(([digest, record]) => ({ seq: record.seq, digest, weightBytes: record.weightBytes }));
  const index = {
    onLost: (_record: DiskRecord, _thrown: unknown): void => undefined,
    get: (digest: KeyDigest) => records.get(digest),
    put: (digest: KeyDigest, record: DiskRecord) => void records.set(digest, record),
    remove: (digest: KeyDigest) => void records.delete(digest),
    discard: (row: OrderRow) => void discarded.push(row),
    clear: () => records.clear(),
    takeSeq() {
      seq += 1;
      return seq;
    },
    byContent: (content: string) => [...records.values()].filter((record) => record.content === content),
    *inOrder() {
      yield rows();
    },
  };
  const entries = new DiskEntries({
    index,
    contentRefs: {
      release: ({ content }: DiskRecord) => void released.push(content),
      forget: (sha256: string) => void forgotten.push(sha256),
    },
    readers,
    log,
    policy: () => ({ name: 'lru', capacityBytes: CAPACITY, parameters: cacheConfig('').policies }),
    onEvicted: () => undefined,
    onError: (thrown: unknown) => void errors.push(thrown),
  } as unknown as DiskEntriesDeps);
  /** Stores an entry as a store does. */
  const store = (key: string, weightBytes: number, content: string | null = `content of ${key}`): boolean => {
    const pending = entries.begin(keyOf(key));
    const admitted = entries.admit(pending, weightBytes);
    if (admitted) entries.enter(pending, { entry: entryOf(key, bytesOf(1)) as SizedEntry, content, weightBytes }, 1);
    entries.end(pending);
    return admitted;
  };
  return { entries, index, records, rows, released, forgotten, discarded, errors, readers, lines, store, recordOf };
}

const keysOf = (records: ReadonlyMap<KeyDigest, DiskRecord>): readonly string[] =>
  [...records.values()].map(({ entry }) => entry.key);

void t.test('an entry is found once it is entered, and what it evicts is released', (t) => {
  const { entries, records, released, store } = opened();
  entries.endRecovery();
  t.ok(store('a', 60));
  t.equal(entries.find(keyOf('a'))?.entry.key, 'a');
  t.equal(entries.find(keyOf('b')), undefined);
  t.same([entries.count, entries.usedBytes, entries.evictions], [1, 60, 0]);
  t.ok(store('b', 60));
  t.same([keysOf(records), released, entries.count, entries.evictions], [['b'], ['content of a'], 1, 1]);
  t.notOk(store('large', 101), 'it never fits');
  t.same([keysOf(records), entries.count, entries.usedBytes], [['b'], 1, 60]);
  t.ok(store('b', 30), 'a newer one replaces the older');
  t.same([released, entries.usedBytes, entries.count], [['content of a', 'content of b'], 30, 1]);
  entries.remove(keyOf('b'));
  t.same([keysOf(records), released.length, entries.usedBytes], [[], 3, 0]);
  entries.remove(keyOf('b'));
  t.equal(released.length, 3, 'what is gone is not released again');
  t.end();
});

void t.test('a use keeps an entry', (t) => {
  const { entries, records, store } = opened();
  entries.endRecovery();
  store('a', 40);
  store('b', 40);
  entries.touch(keyOf('a'));
  store('c', 40);
  t.same(keysOf(records), ['a', 'c']);
  t.end();
});

void t.test('an entry that is being written is cancelled by what comes meanwhile, and leaves nothing', (t) => {
  const ways: readonly (readonly [what: string, act: (test: ReturnType<typeof opened>) => void])[] = [
    ['a removal', ({ entries }) => entries.remove(keyOf('a'))],
    ['a newer one', ({ entries }) => void entries.begin(keyOf('a'))],
    ['an eviction', ({ store }) => void store('b', 100)],
    ['the end', ({ entries }) => entries.cancelPending()],
    ['a purge of all', ({ entries }) => void entries.clear()],
  ];
  for (const [what, act] of ways) {
    const test = opened();
    test.entries.endRecovery();
    const pending = test.entries.begin(keyOf('a'));
    test.entries.admit(pending, 60);
    t.equal(test.entries.usedBytes, 60);
    t.equal(test.entries.find(keyOf('a')), undefined, `${what}: it is not found before it is entered`);
    act(test);
    t.equal(pending.state, 'cancelled', what);
    test.entries.end(pending);
    t.equal(test.entries.find(keyOf('a')), undefined, what);
  }
  const open = opened();
  open.entries.endRecovery();
  const pending = open.entries.begin(keyOf('a'));
  open.entries.admit(pending, 60);
  open.entries.end(pending);
  t.equal(open.entries.usedBytes, 0, 'nor does one that was never entered');
  t.end();
});

void t.test('a newer head keeps the body, its size and its hash', (t) => {
  const { entries, store, records } = opened();
  entries.endRecovery();
  store('a', 60);
  const { entry, seq } = records.get(digestOf('a')) as DiskRecord;
  t.equal(entries.refresh({ ...entryOf('a', bytesOf(9)), status: 203, sizeBytes: 9, sha256: null }), true);
  const fresh = records.get(digestOf('a'));
  t.same(
    [fresh?.entry.status, fresh?.entry.sizeBytes, fresh?.entry.sha256, fresh?.seq],
    [203, entry.sizeBytes, entry.sha256, seq],
  );
  t.equal(entries.refresh(entryOf('b', bytesOf(1))), false);
  t.end();
});

void t.test('entries of an earlier run are found before they are recovered, and counted once', async (t) => {
  const test = opened([
    ['a', 30],
    ['b', 30],
  ]);
  const { entries, index } = test;
  t.equal(entries.recovered, false);
  t.equal(entries.find(keyOf('b'))?.entry.key, 'b');
  t.same([entries.count, entries.recoveredEntries], [1, 1]);
  t.equal(await recover(index as never, entries, NEVER), true);
  t.same([entries.count, entries.recoveredEntries, entries.recovered, entries.usedBytes], [2, 2, true, 60]);
  const ending = new AbortController();
  ending.abort();
  const other = opened([['a', 30]]);
  t.equal(await recover(other.index as never, other.entries, ending.signal), false);
  t.same([other.entries.recovered, other.entries.count], [false, 0]);
});

void t.test('what no longer fits after a start is removed, and a row without a record is discarded', async (t) => {
  const test = opened([
    ['a', 60],
    ['b', 60],
    ['large', 101],
  ]);
  await recover(test.index as never, test.entries, NEVER);
  t.same(
    [keysOf(test.records), test.released, test.entries.evictions],
    [['b'], ['content of a', 'content of large'], 1],
  );
  const row = { seq: 9, digest: digestOf('none'), weightBytes: 101 };
  test.entries.recover(row);
  t.match(test.discarded, [{ seq: 9, digest: row.digest }]);
  const known = test.rows()[0] as OrderRow;
  test.entries.discard(known);
  t.same([test.discarded.length, test.entries.count], [2, 0]);
  const pending = test.entries.begin(keyOf('p'));
  test.entries.discard({ seq: 1, digest: pending.digest, weightBytes: 1 });
  t.equal(test.discarded.length, 2, 'one that is being written is left alone');
});

void t.test('an entry whose record is gone, or is of another key, is not found', (t) => {
  const { entries, records, store, recordOf } = opened();
  store('a', 60);
  records.delete(digestOf('a'));
  t.equal(entries.find(keyOf('a')), undefined);
  t.equal(entries.usedBytes, 0, 'and takes no room');
  records.set(digestOf('b'), recordOf('another', 10));
  t.equal(entries.find(keyOf('b')), undefined);
  t.end();
});

void t.test('to clear forgets everything and says how much it was', (t) => {
  const { entries, store, records, released } = opened();
  store('a', 60);
  store('b', 20);
  t.equal(entries.clear(), 80);
  t.same([entries.count, entries.usedBytes, records.size, released], [0, 0, 0, []]);
  t.end();
});

void t.test('to shrink evicts in the order of the policy, as far as it is asked to', (t) => {
  const { entries, store, records } = opened();
  for (const key of ['a', 'b', 'c']) store(key, 30);
  entries.shrink(60);
  t.same([keysOf(records), entries.evictions], [['b', 'c'], 1]);
  t.end();
});

void t.test('a wrong content takes every entry that shows it, and ends their readers', async (t) => {
  const { entries, store, records, forgotten, readers, lines, released } = opened();
  store('a', 20, 'shared');
  store('b', 20, 'shared');
  store('c', 20, 'other');
  const streams = ['a', 'b', 'c'].map((key) => {
    const stream = new PassThrough();
    const ended = { reason: 'none' };
    stream.on('error', (error) => {
      ended.reason = error instanceof BodyLost ? error.reason : 'other';
    });
    readers.add(keyOf(key), stream);
    return ended;
  });
  const record = records.get(digestOf('a')) as DiskRecord;
  entries.dropCorrupt({ ...record, seq: record.seq + 100 });
  t.same([records.size, forgotten, entries.corrupt], [3, ['shared'], 0], 'a newer one is under its key');
  entries.dropCorrupt({ ...record, content: null });
  t.equal(records.size, 3, 'an empty body cannot be wrong');
  entries.dropCorrupt(record);
  t.same([keysOf(records), entries.corrupt, released], [['c'], 2, ['shared', 'shared']]);
  await new Promise(setImmediate);
  t.same(
    streams.map(({ reason }) => reason),
    ['corrupt', 'corrupt', 'none'],
  );
  t.equal(lines.filter(({ level }) => level === 'warn').length, 2);
});

void t.test('a record that could not be committed takes no room, and its content is released', (t) => {
  const { entries, store, records, index, released, errors } = opened();
  store('a', 60);
  const record = records.get(digestOf('a')) as DiskRecord;
  const failure = new Error('ENOSPC');
  index.onLost(record, failure);
  t.same([entries.usedBytes, released, errors], [0, ['content of a'], [failure]]);
  t.end();
});
