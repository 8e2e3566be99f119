/** When content files come and go: what waits for what, and what is given back whatever fails. */
import t from 'tap';
import { ContentRefs, type ContentRefsDeps } from '../../../../edge/cache/disk/content-refs.js';
import { until } from '../../../kit/until.js';

interface Step {
  readonly what: string;
  readonly go: () => void;
  readonly fail: (error: Error) => void;
}

/** A content store and an index whose every operation waits for the test. */
function opened() {
  const steps: Step[] = [];
  const log: string[] = [];
  const used = new Set<string>();
  const errors: unknown[] = [];
  let removingBytes = 0;
  let settles = 0;
  let settled = Promise.resolve();
  const step = (what: string) => new Promise<void>((go, fail) => steps.push({ what, go, fail }));
  const deps = {
    contentStore: {
      publish: (path: string, sha256: string) => step(`publish ${path} ${sha256}`),
      write: (bytes: Buffer, sha256: string, path: string) => step(`write ${bytes.length} ${sha256} ${path}`),
      remove: (sha256: string) => step(`remove ${sha256}`),
      forget: (sha256: string) => void log.push(`forget ${sha256}`),
    },
    index: {
      anyWithContent: (sha256: string) => (used.has(sha256) ? {} : undefined),
      settled() {
        settles += 1;
        return settled;
      },
      flushed: () => Promise.resolve(),
    },
    room: {
      removing(bytes: number) {
        removingBytes += bytes;
      },
      removed(bytes: number) {
        removingBytes -= bytes;
      },
    },
    onError: (thrown: unknown) => void errors.push(thrown),
  } as unknown as ContentRefsDeps;
  return {
    refs: new ContentRefs(deps),
    steps,
    log,
    used,
    errors,
    removingBytes: () => removingBytes,
    settles: () => settles,
    holdIndex: (): (() => void) => {
      let go = (): void => undefined;
      settled = new Promise((resolve) => (go = resolve));
      return () => {
        settled = Promise.resolve();
        go();
      };
    },
    step: async (what: string): Promise<Step> => {
      await until(what, () => steps.length > 0);
      const next = steps.shift();
      t.equal(next?.what, what);
      if (next === undefined) throw new Error(what);
      return next;
    },
  };
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
};
const record = (content: string | null, sizeBytes = 100) => ({ content, entry: { sizeBytes } });

void t.test('a content is in its place before its entry is entered', async (t) => {
  const { refs, step } = opened();
  for (const [bytes, what] of [
    [undefined, 'publish /spool a'],
    [Buffer.alloc(3), 'write 3 a /spool'],
  ] as const) {
    for (const outcome of [true, false]) {
      let entered = false;
      const published = refs.publish('/spool', 'a', bytes, () => {
        entered = true;
        return outcome;
      });
      const next = await step(what);
      t.equal(entered, false);
      next.go();
      t.equal(await published, outcome);
      t.equal(entered, true);
    }
  }
});

void t.test(
  'steps on one content follow one another, also after one that failed, and others do not wait',
  async (t) => {
    const { refs, steps, step } = opened();
    const enter = (): boolean => true;
    const first = refs.publish('/1', 'a', undefined, enter);
    first.catch(() => undefined);
    const second = refs.removeIfUnused('a');
    const other = refs.publish('/2', 'b', undefined, enter);
    await turns();
    t.same(
      steps.map(({ what }) => what),
      ['publish /1 a', 'publish /2 b'],
    );
    (await step('publish /1 a')).fail(new Error('EIO'));
    (await step('publish /2 b')).go();
    await t.rejects(first, { message: 'EIO' });
    (await step('remove a')).go();
    t.same([await second, await other], [true, true]);
  },
);

void t.test('a content that an entry needs is not removed', async (t) => {
  const { refs, steps, used } = opened();
  used.add('a');
  t.equal(await refs.removeIfUnused('a'), false);
  t.same(steps, []);
});

void t.test('what an entry releases is removed after its row, and counts as being removed until then', async (t) => {
  const { refs, steps, step, log, removingBytes, holdIndex, settles } = opened();
  refs.release(record(null));
  t.same([removingBytes(), log], [0, []], 'an empty body has no file');
  const settled = holdIndex();
  refs.release(record('a', 5_000));
  t.same([removingBytes(), log], [8_192, ['forget a']]);
  refs.release(record('b', 1));
  await turns();
  t.same([steps, removingBytes()], [[], 12_288], 'the row is not gone for good');
  settled();
  (await step('remove a')).go();
  await until('it is given back', () => removingBytes() === 4_096);
  (await step('remove b')).go();
  await refs.removalsDone();
  t.same([removingBytes(), settles()], [0, 2]);
});

void t.test('a file that cannot be removed gives its room back all the same', async (t) => {
  const { refs, step, removingBytes, errors } = opened();
  refs.release(record('a'));
  (await step('remove a')).fail(new Error('EROFS'));
  await refs.removalsDone();
  t.equal(removingBytes(), 0);
  t.match(errors, [{ message: 'EROFS' }]);
});

void t.test('four files are removed at once', async (t) => {
  const { refs, steps, holdIndex, removingBytes } = opened();
  const settled = holdIndex();
  refs.release(record('first'));
  await turns();
  for (const name of ['a', 'b', 'c', 'd', 'e', 'f']) refs.release(record(name));
  settled();
  await until('the first', () => steps.length === 1);
  steps.shift()?.go();
  await until('four of them', () => steps.length === 4);
  await turns();
  t.equal(steps.length, 4);
  for (let left = 6; left > 0; left -= 1) {
    await until('one', () => steps.length > 0);
    steps.shift()?.go();
  }
  await refs.removalsDone();
  t.equal(removingBytes(), 0);
});

void t.test('a content that somebody is about to read stays until the second ageing', async (t) => {
  const { refs, steps, step, removingBytes } = opened();
  refs.pin('a');
  refs.release(record('a'));
  refs.release(record('b'));
  (await step('remove b')).go();
  await turns();
  refs.agePins();
  await turns();
  t.same([steps, removingBytes()], [[], 4_096]);
  refs.agePins();
  (await step('remove a')).go();
  await until('it is gone', () => removingBytes() === 0);
  refs.pin('c');
  refs.release(record('c'));
  await turns();
  t.equal(steps.length, 0);
  const done = refs.removalsDone();
  (await step('remove c')).go();
  await done;
  t.equal(removingBytes(), 0, 'at the end nothing is waited for');
});
