/** Token buckets: what each attempt costs, says and leaves, and a comparison with points that are counted one by one. */
import fc from 'fast-check';
import t from 'tap';
import { type Buckets, createBuckets } from '../../../src/server/token-buckets.js';

type Attempt = readonly [verb: keyof Buckets, points: number, nowMs: number];
type Said = readonly [admitted: boolean, left: number, fullInMs: number, retryInMs: number];

/** Ten points a second: a point comes back each 100 ms. */
const TEN = { pointsMax: 10, windowMs: 1_000, keysMax: 100 };

void t.test('an attempt is told what is left, when all is back, and when it may come again', async (t) => {
  const courses: Readonly<Record<string, readonly (readonly [Attempt, Said])[]>> = {
    'all at once, and then no more than the rate allows': [
      [
        ['take', 1, 0],
        [true, 9, 100, 0],
      ],
      [
        ['take', 9, 0],
        [true, 0, 1_000, 0],
      ],
      [
        ['take', 1, 0],
        [false, 0, 1_000, 100],
      ],
      [
        ['take', 1, 99],
        [false, 0, 901, 1],
      ],
      [
        ['take', 1, 100],
        [true, 0, 1_000, 0],
      ],
      [
        ['take', 3, 350],
        [false, 2, 750, 50],
      ],
      [
        ['take', 10, 1_100],
        [true, 0, 1_000, 0],
      ],
    ],
    'more than a bucket holds is never taken': [
      [
        ['take', 11, 0],
        [false, 10, 0, 100],
      ],
      [
        ['take', 10, 0],
        [true, 0, 1_000, 0],
      ],
    ],
    'one point is enough to owe many, which come back first': [
      [
        ['owe', 25, 0],
        [true, 0, 2_500, 0],
      ],
      [
        ['owe', 1, 1_599],
        [false, 0, 901, 1],
      ],
      [
        ['take', 1, 1_600],
        [true, 0, 1_000, 0],
      ],
    ],
    'what has happened is always charged': [
      [
        ['charge', 30, 0],
        [true, 0, 3_000, 0],
      ],
      [
        ['charge', 5, 0],
        [true, 0, 3_500, 0],
      ],
      [
        ['take', 1, 2_500],
        [false, 0, 1_000, 100],
      ],
    ],
    'a clock that has passed the instant of all points begins anew': [
      [
        ['take', 4, 0],
        [true, 6, 400, 0],
      ],
      [
        ['take', 4, 5_000],
        [true, 6, 400, 0],
      ],
    ],
  };
  for (const [name, course] of Object.entries(courses)) {
    const buckets = createBuckets(TEN);
    for (const [[verb, points, nowMs], [admitted, left, fullInMs, retryInMs]] of course) {
      const said = buckets[verb]('a', points, nowMs);
      t.strictSame(said, { admitted, left, fullInMs, retryInMs }, `${name}: ${verb} ${points} at ${nowMs}`);
    }
  }
});

void t.test('keys have buckets of their own, and beyond the bound the one used longest ago is forgotten', async (t) => {
  const buckets = createBuckets({ ...TEN, keysMax: 2 });
  const leftOf = (key: string, points = 0): number => buckets.charge(key, points, 0).left;
  t.equal(leftOf('a', 5), 5);
  t.equal(leftOf('b', 6), 4);
  t.equal(leftOf('a'), 5, 'it was used again');
  t.equal(leftOf('c', 7), 3);
  t.equal(leftOf('a'), 5);
  t.equal(leftOf('c'), 3);
  t.equal(leftOf('b'), 10, 'it was forgotten');
  t.equal(leftOf('a'), 5, 'a key with all its points takes no place');
});

void t.test('a refused attempt takes nothing, however often it is repeated', async () => {
  const attempts = fc.array(
    fc.record({
      verb: fc.constantFrom('take' as const, 'owe' as const, 'charge' as const),
      points: fc.nat({ max: 14 }),
      afterMs: fc.nat({ max: 700 }),
    }),
    { maxLength: 20 },
  );
  fc.assert(
    fc.property(attempts, (drawn) => {
      const buckets = createBuckets(TEN);
      // Hundredths of a point: one comes back each millisecond.
      let hundredths = 1_000;
      let nowMs = 0;
      for (const { verb, points, afterMs } of drawn) {
        nowMs += afterMs;
        hundredths = Math.min(1_000, hundredths + afterMs);
        const needed = verb === 'take' ? points * 100 : verb === 'owe' ? 100 : Number.NEGATIVE_INFINITY;
        const admitted = hundredths >= needed;
        const retryInMs = admitted ? 0 : needed - hundredths;
        if (admitted) hundredths -= points * 100;
        const said = buckets[verb]('a', points, nowMs);
        const close = (one: number, other: number): boolean => Math.abs(one - other) < 1e-3;
        if (said.admitted !== admitted || said.left !== Math.max(0, Math.floor(hundredths / 100))) return false;
        if (!close(said.fullInMs, 1_000 - hundredths) || !close(said.retryInMs, retryInMs)) return false;
      }
      return true;
    }),
    { numRuns: 200 },
  );
});
