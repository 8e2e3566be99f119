/** The disk tier's index by itself: what is visible at once, what a commit makes durable, and what a failed one takes back. */
import { statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { DiskIndex } from '../../../../edge/cache/disk/disk-index.js';
import { type DiskRecord, digestOf } from '../../../../edge/cache/disk/record.js';
import type { Entry, SizedEntry } from '../../../../edge/entry.js';
import { ManualClock } from '../../../kit/clock.js';
import { bytesOf, entryOf, mediaIdOf } from '../../../kit/edge/cache.js';
import { until } from '../../../kit/until.js';

const [ONE, TWO] = ['11'.repeat(32), '22'.repeat(32)];
/** No handle of the index can be so long: a commit with this content fails. */
const IMPOSSIBLE = 'ab'.repeat(2_000);
const WITHIN_MS = 100;

interface Opened {
  readonly index: DiskIndex;
  readonly clock: ManualClock;
  readonly path: string;
  readonly put: (key: string, changes?: Partial<Entry>, content?: string | null, weightBytes?: number) => DiskRecord;
  readonly reopened: () => Promise<Opened>;
}

async function opened(t: Test, path = join(t.testdir(), 'index'), commitWithinMs = WITHIN_MS): Promise<Opened> {
  const clock = new ManualClock();
  const index = await DiskIndex.open(path, { clock, commitWithinMs });
  let closed = false;
  const close = async (): Promise<void> => {
    if (!closed) await index.close().catch(() => undefined);
    closed = true;
  };
  t.teardown(close);
  return {
    index,
    clock,
    path,
    put(key, changes = {}, content = ONE, weightBytes = 5_000) {
      const entry = entryOf(key, bytesOf(3), changes) as SizedEntry;
      const record = { entry, content, weightBytes, seq: index.takeSeq(), run: index.run };
      index.put(digestOf(key), record);
      return record;
    },
    async reopened() {
      await close();
      return opened(t, path, commitWithinMs);
    },
  };
}

const keysOf = (records: readonly DiskRecord[]): readonly string[] => records.map(({ entry }) => entry.key).sort();
const rowsOf = (index: DiskIndex, batchMax = 10) => [...index.inOrder(batchMax)].flat();

void t.test('a change is visible at once, and found by whatever names it', async (t) => {
  const { index, put, reopened } = await opened(t);
  const a = put('a', { mediaId: mediaIdOf(1), primaryKey: 'p' });
  put('b', { mediaId: mediaIdOf(1), primaryKey: 'q' }, TWO);
  put('c', { primaryKey: 'p' }, null);
  const check = (index: DiskIndex, when: string): void => {
    t.strictSame(index.get(digestOf('a')), a, when);
    t.same(keysOf(index.byMedia(mediaIdOf(1))), ['a', 'b'], when);
    t.same(index.byMedia(mediaIdOf(2)), [], when);
    t.same(keysOf(index.byPrimary('p')), ['a', 'c'], when);
    t.same(keysOf(index.byContent(ONE)), ['a'], when);
    t.equal(index.anyWithContent(TWO)?.entry.key, 'b', when);
    t.equal(index.anyWithContent('33'.repeat(32)), undefined, when);
    t.same([index.mayHaveContent(ONE), index.mayHaveContent('33'.repeat(32))], [true, false], when);
  };
  check(index, 'waiting');
  t.same(rowsOf(index), [], 'the order of storing has what is committed');
  const flushed = index.flushed();
  await Promise.resolve();
  check(index, 'being committed');
  await flushed;
  check(index, 'committed');
  t.strictSame(
    rowsOf(index),
    ['a', 'b', 'c'].map((key, at) => ({ seq: at + 1, digest: digestOf(key), weightBytes: 5_000 })),
  );
  const next = await reopened();
  check(next.index, 'read back');
  t.equal(next.index.takeSeq(), 4, 'numbers go on');
});

void t.test('a record that is replaced or removed is found by nothing of its own any more', async (t) => {
  const { index, put } = await opened(t);
  put('a', { mediaId: mediaIdOf(1), primaryKey: 'p' });
  put('gone', { mediaId: mediaIdOf(1), primaryKey: 'p' });
  await index.flushed();
  const check = (when: string): void => {
    t.same(index.byMedia(mediaIdOf(1)), [], when);
    t.same(index.byPrimary('p'), [], when);
    t.same(index.byContent(ONE), [], when);
    t.equal(index.anyWithContent(ONE), undefined, when);
    t.equal(index.get(digestOf('gone')), undefined, when);
    t.same(keysOf(index.byMedia(mediaIdOf(2))), ['a'], when);
    t.same(keysOf(index.byPrimary('q')), ['a'], when);
    t.equal(index.anyWithContent(TWO)?.entry.key, 'a', when);
  };
  put('a', { mediaId: mediaIdOf(2), primaryKey: 'q' }, TWO);
  index.remove(digestOf('gone'));
  check('waiting');
  t.equal(index.mayHaveContent(ONE), true, 'as long as it is not committed');
  await index.flushed();
  check('committed');
  t.equal(index.mayHaveContent(ONE), false);
  t.same(
    rowsOf(index).map(({ seq }) => seq),
    [3],
  );
});

void t.test('changes wait for one another, no longer than they may', async (t) => {
  const { index, put, clock } = await opened(t);
  put('a');
  put('b');
  t.equal(clock.pending, 1, 'one wait for both');
  clock.advance(WITHIN_MS - 1);
  await new Promise(setImmediate);
  t.equal(clock.pending, 1);
  clock.advance(1);
  await until('they are committed', () => rowsOf(index).length === 2);
  t.equal(clock.pending, 0);
  put('c');
  await index.flushed();
  t.equal(clock.pending, 0, 'a flush waits for nothing, and leaves no wait behind');
  t.equal(rowsOf(index).length, 3);
});

void t.test('a commit is not put off once very many changes wait, or where none may wait', async (t) => {
  const many = await opened(t);
  for (let count = 0; count < 1_023; count += 1) many.put(`${count}`, {}, null);
  t.equal(many.clock.pending, 1);
  many.put('last', {}, null);
  t.equal(many.clock.pending, 0);
  await until('they are committed', () => rowsOf(many.index, 2_000).length === 1_024);
  const none = await opened(t, join(t.testdirName, 'other'), 0);
  none.put('a');
  t.equal(none.clock.pending, 0);
  await until('it is committed', () => rowsOf(none.index).length === 1);
});

void t.test('what has settled is durable, and is not hurried', async (t) => {
  const { index, put, clock } = await opened(t);
  await index.settled();
  put('a');
  let settled = false;
  const waiting = index.settled().then(() => (settled = true));
  for (let turns = 0; turns < 10; turns += 1) await new Promise(setImmediate);
  t.equal(settled, false);
  clock.advance(WITHIN_MS);
  await waiting;
  t.equal(rowsOf(index).length, 1);
  await index.settled();
});

void t.test('a change that comes during a commit is committed by the next one', async (t) => {
  const { index, put, clock } = await opened(t);
  put('a', { primaryKey: 'old' });
  const first = index.flushed();
  await new Promise(setImmediate);
  const newer = put('a', { primaryKey: 'new' });
  put('b', { primaryKey: 'new' });
  let settled = false;
  const later = index.settled().then(() => (settled = true));
  await first;
  t.equal(settled, false, 'the commit was that of earlier changes');
  t.strictSame(index.get(digestOf('a')), newer);
  t.same(index.byPrimary('old'), []);
  await until('its wait', () => clock.pending === 1);
  clock.advance(WITHIN_MS);
  await later;
  t.same(
    rowsOf(index).map(({ seq }) => seq),
    [2, 3],
  );
  t.same(keysOf(index.byPrimary('new')), ['a', 'b']);
});

void t.test('a failed commit loses what it added, and removes later what it should have removed', async (t) => {
  const { index, put, reopened } = await opened(t);
  put('removed', { primaryKey: 'p' });
  put('replaced', { primaryKey: 'p' });
  await index.flushed();
  const lost = new Map<string, unknown>();
  index.onLost = (record, thrown) => lost.set(record.entry.key, thrown);
  index.remove(digestOf('removed'));
  put('replaced', { primaryKey: 'q' });
  put('added', {}, IMPOSSIBLE);
  let settled = false;
  void index.settled().then(() => (settled = true));
  const failure = await index.flushed().then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  t.ok(failure instanceof Error, 'whoever waits for it is told');
  t.same([lost.size, lost.get('added'), lost.get('replaced')], [2, failure, failure]);
  for (const key of ['removed', 'replaced', 'added']) t.equal(index.get(digestOf(key)), undefined, key);
  t.same([index.byPrimary('p'), index.byPrimary('q')], [[], []]);
  await until('it has settled, as well as it could', () => settled);
  index.retry();
  await index.flushed();
  const next = await reopened();
  for (const key of ['removed', 'replaced']) t.equal(next.index.get(digestOf(key)), undefined, `${key}: for good`);
});

void t.test('a change after a failed commit stands, and what it replaces is removed for good', async (t) => {
  const { index, put, reopened } = await opened(t);
  put('a', { primaryKey: 'first' });
  await index.flushed();
  const lost: string[] = [];
  index.onLost = ({ entry }) => lost.push(entry.key);
  put('a', { primaryKey: 'second' });
  put('b', {}, IMPOSSIBLE);
  await t.rejects(index.flushed());
  t.same(lost, ['a', 'b']);
  const third = put('a', { primaryKey: 'third' });
  t.strictSame(index.get(digestOf('a')), third);
  await index.flushed();
  const next = await reopened();
  t.strictSame(next.index.get(digestOf('a')), third);
  t.same([next.index.byPrimary('first'), next.index.byPrimary('second')], [[], []]);
});

void t.test(
  'so does a change during a commit that fails, and nothing of what was durable before it stays',
  async (t) => {
    const { index, put, reopened } = await opened(t);
    put('a', { primaryKey: 'first' });
    await index.flushed();
    const lost: string[] = [];
    index.onLost = ({ entry }) => lost.push(entry.key);
    let third: DiskRecord | undefined;
    // Its fields are read in the middle of the commit, which then fails.
    const headers = {
      flat() {
        third ??= put('a', { primaryKey: 'third' });
        return [];
      },
    };
    put('b', { headers: headers as unknown as Entry['headers'] }, IMPOSSIBLE);
    put('a', { primaryKey: 'second' });
    await t.rejects(index.flushed());
    t.same(lost, ['b'], 'what was replaced meanwhile is not lost by it');
    t.strictSame(index.get(digestOf('a')), third);
    await index.flushed();
    const next = await reopened();
    t.strictSame(next.index.get(digestOf('a')), third);
    t.same(
      rowsOf(next.index).flatMap(({ digest, seq }) => (digest === digestOf('a') ? [seq] : [])),
      [third?.seq],
    );
  },
);

void t.test('after a failed commit nothing is tried until something asks for it', async (t) => {
  const { index, put, clock } = await opened(t);
  put('a');
  await index.flushed();
  index.remove(digestOf('a'));
  put('b', {}, IMPOSSIBLE);
  await t.rejects(index.flushed());
  for (let turns = 0; turns < 5; turns += 1) await new Promise(setImmediate);
  t.equal(clock.pending, 0);
  index.retry();
  await until('it is', () => !rowsOf(index).some(({ digest }) => digest === digestOf('a')));
  index.retry();
  await index.settled();
  put('c');
  const flushed = index.flushed();
  await new Promise(setImmediate);
  put('d');
  await flushed;
  await until('its wait', () => clock.pending === 1);
  t.pass('after one that succeeds, changes are committed by themselves again');
});

void t.test('to clear makes everything void at once, and for good', async (t) => {
  const { index, put, reopened, clock } = await opened(t);
  put('committed', { mediaId: mediaIdOf(1), primaryKey: 'p' });
  await index.flushed();
  index.clear();
  t.equal(clock.pending, 1, 'it is committed a little later');
  put('waiting', { mediaId: mediaIdOf(1), primaryKey: 'p' });
  index.clear();
  const check = (index: DiskIndex, when: string): void => {
    for (const key of ['committed', 'waiting']) t.equal(index.get(digestOf(key)), undefined, when);
    t.same([index.byMedia(mediaIdOf(1)), index.byPrimary('p'), index.byContent(ONE)], [[], [], []], when);
    t.equal(index.anyWithContent(ONE), undefined, when);
    t.equal(index.mayHaveContent(ONE), false, when);
    t.same(rowsOf(index), [], when);
  };
  check(index, 'not committed');
  const flushed = index.flushed();
  await new Promise(setImmediate);
  check(index, 'being committed');
  put('later', { primaryKey: 'later' }, TWO);
  await flushed;
  t.same(keysOf(index.byPrimary('later')), ['later']);
  await index.flushed();
  const next = await reopened();
  for (const key of ['committed', 'waiting']) t.equal(next.index.get(digestOf(key)), undefined, 'read back');
  t.equal(next.index.mayHaveContent(ONE), false);
  t.same(keysOf(next.index.byPrimary('later')), ['later']);
});

void t.test('a commit that fails clears the next time', async (t) => {
  const { index, put, reopened } = await opened(t);
  put('old');
  await index.flushed();
  index.clear();
  put('b', {}, IMPOSSIBLE);
  await t.rejects(index.flushed());
  t.equal(index.get(digestOf('old')), undefined, 'it stays void');
  t.same(rowsOf(index), []);
  await index.flushed();
  const next = await reopened();
  t.equal(next.index.get(digestOf('old')), undefined);
});

void t.test('a content that this run has written or verified is so, and one of an earlier run is not', async (t) => {
  const first = await opened(t);
  const stored = first.put('a');
  t.equal(first.index.run, 1);
  t.equal(first.index.isVerified(stored), true);
  const second = await first.reopened();
  t.equal(second.index.run, 2);
  t.equal(second.index.isVerified(stored), false);
  second.index.markVerified(digestOf('a'), { ...stored, seq: 99 });
  t.equal(second.index.isVerified({ ...stored, seq: 99 }), false, 'another entry is under its key');
  second.index.markVerified(digestOf('a'), stored);
  t.equal(second.index.isVerified(stored), true, 'at once');
  t.equal(second.clock.pending, 1, 'it is committed a little later');
  await second.index.flushed();
  await new Promise(setImmediate);
  t.equal(second.clock.pending, 0, 'once');
  t.equal(second.index.isVerified(stored), true);
  t.strictSame(rowsOf(second.index), [{ seq: 1, digest: digestOf('a'), weightBytes: 5_000 }]);
  const third = await second.reopened();
  t.equal(third.index.isVerified(stored), false, 'in each run anew');
  third.index.markVerified(digestOf('a'), stored);
  third.index.clear();
  await third.index.flushed();
  t.same(rowsOf(third.index), [], 'what is cleared is not put back by it');
});

void t.test('a row that is discarded goes with its record', async (t) => {
  const { index, put, reopened, clock } = await opened(t);
  put('a');
  const { seq } = put('b');
  await index.flushed();
  t.equal(index.get(digestOf('b'))?.seq, seq);
  index.discard({ seq, digest: digestOf('b') });
  t.equal(clock.pending, 1, 'a little later');
  await index.flushed();
  await new Promise(setImmediate);
  t.equal(clock.pending, 0, 'once');
  t.equal(index.get(digestOf('b')), undefined);
  const next = await reopened();
  t.same(
    rowsOf(next.index).map(({ digest }) => digest),
    [digestOf('a')],
  );
});

void t.test('rows come in the order of storing, in batches, and a batch sees what has changed before it', async (t) => {
  const { index, put } = await opened(t);
  for (const key of ['e', 'd', 'c', 'b', 'a']) put(key, {}, null, key.charCodeAt(0));
  await index.flushed();
  const batches = index.inOrder(2);
  t.same(
    batches.next().value?.map(({ weightBytes }: { weightBytes: number }) => weightBytes),
    [101, 100],
  );
  index.remove(digestOf('c'));
  await index.flushed();
  t.same(
    batches.next().value?.map(({ weightBytes }: { weightBytes: number }) => weightBytes),
    [98, 97],
  );
  t.equal(batches.next().done, true);
});

void t.test('the applied position is kept with what is stored, and says nothing without it', async (t) => {
  const first = await opened(t);
  t.same(first.index.appliedBefore, { kind: 'nothing_stored' });
  const position = { journal: 'j', seq: 9, mark: 'm' };
  first.index.noteApplied(position);
  t.equal(first.clock.pending, 1, 'it is committed a little later');
  await first.index.flushed();
  await new Promise(setImmediate);
  t.equal(first.clock.pending, 0, 'once');
  const empty = await first.reopened();
  t.same(empty.index.appliedBefore, { kind: 'nothing_stored' });
  empty.put('a');
  const stored = await empty.reopened();
  t.same(stored.index.appliedBefore, { kind: 'applied', position });
  stored.put('b', {}, IMPOSSIBLE);
  stored.index.noteApplied({ ...position, seq: 10 });
  await t.rejects(stored.index.flushed());
  stored.index.noteApplied({ ...position, seq: 11 });
  const later = await stored.reopened();
  t.same(later.index.appliedBefore, { kind: 'applied', position: { ...position, seq: 11 } });

  const unknown = await opened(t, join(t.testdirName, 'unknown'));
  unknown.put('a');
  t.same((await unknown.reopened()).index.appliedBefore, { kind: 'unknown' });
});

void t.test('a position whose commit failed is written with the next one', async (t) => {
  const { index, put, reopened } = await opened(t);
  put('a');
  put('b', {}, IMPOSSIBLE);
  index.noteApplied({ journal: 'j', seq: 9, mark: null });
  await t.rejects(index.flushed());
  put('a');
  const next = await reopened();
  t.same(next.index.appliedBefore, { kind: 'applied', position: { journal: 'j', seq: 9, mark: null } });
});

void t.test('the file is accessible to this user only, and as long as its head says', async (t) => {
  const { index, put, path } = await opened(t);
  t.equal(statSync(path).mode & 0o777, 0o600);
  put('a');
  await index.flushed();
  const sizeBytes = statSync(path).size;
  truncateSync(path, sizeBytes);
  t.ok(sizeBytes % 4_096 === 0);
});

type Step =
  | { readonly kind: 'put'; readonly key: string; readonly primaryKey: string; readonly content: string }
  | { readonly kind: 'remove'; readonly key: string }
  | { readonly kind: 'clear' | 'flush' | 'turn' };

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('put' as const),
        key: fc.constantFrom('a', 'b', 'c'),
        primaryKey: fc.constantFrom('p', 'q'),
        content: fc.constantFrom(ONE, TWO),
      }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('remove' as const), key: fc.constantFrom('a', 'b', 'c') }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('flush' as const, 'turn' as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('clear' as const) }) },
  ),
  { maxLength: 15 },
);

void t.test('whatever is changed and committed, the index answers as a map does', async (t) => {
  const { index, put } = await opened(t);
  await fc.assert(
    fc.asyncProperty(steps, async (drawn) => {
      const model = new Map<string, DiskRecord>();
      index.clear();
      const flushes: Promise<void>[] = [];
      for (const step of drawn) {
        if (step.kind === 'put') model.set(step.key, put(step.key, { primaryKey: step.primaryKey }, step.content));
        else if (step.kind === 'remove') {
          index.remove(digestOf(step.key));
          model.delete(step.key);
        } else if (step.kind === 'clear') {
          index.clear();
          model.clear();
        } else if (step.kind === 'flush') flushes.push(index.flushed());
        else await new Promise(setImmediate);
        compare(index, model);
      }
      await Promise.all(flushes);
      await index.flushed();
      compare(index, model);
      const rows = rowsOf(index).map(({ digest }) => digest);
      const stored = [...model.values()].sort((one, other) => one.seq - other.seq);
      t.strictSame(
        rows,
        stored.map(({ entry }) => digestOf(entry.key)),
      );
    }),
    { numRuns: 15 },
  );
});

function compare(index: DiskIndex, model: ReadonlyMap<string, DiskRecord>): void {
  const all = [...model.values()];
  const same = (found: readonly DiskRecord[], wanted: readonly DiskRecord[]): boolean =>
    JSON.stringify(keysOf(found)) === JSON.stringify(keysOf(wanted));
  for (const key of ['a', 'b', 'c']) {
    if (index.get(digestOf(key))?.seq !== model.get(key)?.seq) throw new Error(`another ${key}`);
  }
  for (const primaryKey of ['p', 'q']) {
    const wanted = all.filter(({ entry }) => entry.primaryKey === primaryKey);
    if (!same(index.byPrimary(primaryKey), wanted)) throw new Error(`others under ${primaryKey}`);
  }
  for (const content of [ONE, TWO]) {
    const wanted = all.filter((record) => record.content === content);
    if (!same(index.byContent(content), wanted)) throw new Error('others with a content');
    const any = index.anyWithContent(content);
    if ((any === undefined) !== (wanted.length === 0) || (any !== undefined && any.content !== content))
      throw new Error('another one with a content');
    if (wanted.length > 0 && !index.mayHaveContent(content)) throw new Error('a content is denied');
  }
}
