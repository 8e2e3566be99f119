/** The background work of the disk tier by itself: what is read again, how fast, and when it ends. */
import t from 'tap';
import type { DiskRecord, KeyDigest } from '../../../../edge/cache/disk/record.js';
import { sweep } from '../../../../edge/cache/disk/recovery.js';
import { type ScrubDeps, scrub } from '../../../../edge/cache/disk/scrub.js';
import { ManualClock } from '../../../kit/clock.js';
import { bytesOf, entryOf, NEVER } from '../../../kit/edge/cache.js';
import { until } from '../../../kit/until.js';

/** An index with rows of the given records; undefined: a row that leads to none. */
function opened(records: readonly (Partial<DiskRecord> | undefined)[], bytesPerSecond = 4_096) {
  const clock = new ManualClock();
  const ending = new AbortController();
  const done: string[] = [];
  let contentBytes = 0;
  const rows = records.map((_, at) => ({ seq: at + 1, digest: String(at) as KeyDigest, weightBytes: 1 }));
  const deps = {
    index: {
      get(digest: KeyDigest) {
        const record = records[Number(digest)];
        return record && { entry: entryOf(`key ${digest}`, bytesOf(1)), seq: Number(digest) + 1, ...record };
      },
      *inOrder() {
        yield rows;
      },
    },
    entries: {
      discard: ({ seq }: { seq: number }) => void done.push(`discard ${seq}`),
      remove: (key: string) => void done.push(`remove ${key}`),
    },
    reader: {
      async rehash({ seq }: DiskRecord, pace: (bytes: number) => Promise<void>, signal: AbortSignal) {
        done.push(`rehash ${seq}`);
        if (contentBytes > 0) await pace(contentBytes);
        done.push(signal.aborted ? 'aborted' : `rehashed ${seq}`);
      },
    },
    clock,
    bytesPerSecond,
    signal: ending.signal,
  } as unknown as ScrubDeps;
  return {
    clock,
    ending,
    done,
    deps,
    setContent: (bytes: number): void => {
      contentBytes = bytes;
    },
  };
}

void t.test('each row is read again, removed where it is expired, and discarded where it leads nowhere', async (t) => {
  const now = new ManualClock().now();
  const { deps, done, clock, ending } = opened([
    {},
    undefined,
    { entry: { ...entryOf('expired', bytesOf(1)), deleteAt: now + 1_000, sizeBytes: 1 } },
    { entry: { ...entryOf('soon', bytesOf(1)), deleteAt: now + 10_000, sizeBytes: 1 } },
    { seq: 99 },
  ]);
  const ended = scrub(deps);
  for (let row = 0; row < 5; row += 1) {
    await clock.timerSet(1_000);
    await clock.advanceAsync(1_000);
  }
  t.same(
    done,
    ['rehash 1', 'rehashed 1', 'discard 2', 'remove expired', 'rehash 4', 'rehashed 4'],
    'a row that was replaced is left to the newer one',
  );
  ending.abort();
  await ended;
});

void t.test('reading keeps to its rate, and a round lasts a minute at least', async (t) => {
  const { deps, done, clock, ending, setContent } = opened([{}], 2_048);
  setContent(10_240);
  const ended = scrub(deps);
  await clock.timerSet(5_000);
  t.same(done, ['rehash 1']);
  await clock.advanceAsync(5_000);
  await clock.timerSet(2_000);
  t.same(done, ['rehash 1', 'rehashed 1']);
  await clock.advanceAsync(2_000);
  await clock.timerSet(53_000);
  await clock.advanceAsync(52_999);
  t.equal(done.length, 2);
  await clock.advanceAsync(1);
  await until('the next round', () => done.length === 3);
  ending.abort();
  await ended;
  t.same(done.at(-1), 'aborted');
  t.equal(clock.pending, 0, 'it waits for nothing any more');
});

void t.test('a round that took longer than a minute is followed by the next at once', async (t) => {
  const { deps, done, clock, ending } = opened([{}], 1);
  const ended = scrub(deps);
  await clock.timerSet(4_096_000);
  await clock.advanceAsync(4_096_000);
  await clock.advanceAsync(0);
  await until('the next round', () => done.length >= 3);
  t.same(done.slice(0, 3), ['rehash 1', 'rehashed 1', 'rehash 1']);
  ending.abort();
  await ended;
});

void t.test('an end between two rows reads no more', async (t) => {
  const { deps, done, clock, ending } = opened([{}, {}, {}]);
  const ended = scrub(deps);
  await clock.timerSet(1_000);
  ending.abort();
  await ended;
  t.same(done, ['rehash 1', 'rehashed 1']);
  const before = opened([{}]);
  before.ending.abort();
  await scrub(before.deps);
  t.same(before.done, []);
});

void t.test('the sweep removes the files that no entry has, and what was discarded before', async (t) => {
  const calls: string[] = [];
  const ending = new AbortController();
  const run = (signal: AbortSignal, removes = true) =>
    sweep(
      { mayHaveContent: (sha256: string) => sha256.startsWith('used') } as never,
      {
        emptyTrash: async () => void calls.push('trash'),
        async *list() {
          yield ['used 1', 'free 1', 'free 2'];
          if (signal === ending.signal) ending.abort();
          yield ['free 3'];
        },
      } as never,
      {
        async removeIfUnused(sha256: string) {
          calls.push(sha256);
          return removes;
        },
      } as never,
      signal,
    );
  t.equal(await run(NEVER), 3);
  t.same(calls.splice(0), ['trash', 'free 1', 'free 2', 'free 3']);
  t.equal(await run(NEVER, false), 0, 'what is needed by then is not counted');
  calls.length = 0;
  t.equal(await run(ending.signal), 2, 'it ends early');
  t.same(calls, ['trash', 'free 1', 'free 2']);
});
