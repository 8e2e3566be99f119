/** What policies are built of: the sketch of frequencies, the memory of a second hit, tables that grow, and the order in which a tier is emptied. */
import t from 'tap';
import { FrequencySketch } from '../../../edge/cache/policy/frequency-sketch.js';
import {
  ADMISSION_NAMES,
  createAdmission,
  createPolicy,
  POLICY_NAMES,
  type PolicyName,
} from '../../../edge/cache/policy/registry.js';
import { RememberedKeys } from '../../../edge/cache/policy/remembered-keys.js';

const PARAMETERS = { smallShare: 0.1, promoteAt: 1, windowShare: 0.1 };

/** Adds `count` times, other keys than those of the tests, none of them more often than is counted. */
function fill(sketch: FrequencySketch, name: string, count: number): void {
  for (let at = 0; at < count; at += 1) sketch.add(`${name}${Math.floor(at / 15)}`);
}

void t.test(
  'a sketch counts to 15, and halves all counts after two additions for each key that it has room for',
  async (t) => {
    for (const [keys, period] of [
      [0, 2_048],
      [1_024, 2_048],
      [1_025, 4_096],
      [4_000, 8_192],
    ] as const) {
      const sketch = new FrequencySketch();
      sketch.fit(keys);
      t.equal(sketch.estimate('a'), 0);
      for (let at = 0; at < 10; at += 1) sketch.add('a');
      for (let at = 0; at < 40; at += 1) sketch.add('b');
      t.strictSame([sketch.estimate('a'), sketch.estimate('b')], [10, 15]);
      fill(sketch, 'o', period - 10 - 15 - 1);
      t.strictSame([sketch.estimate('a'), sketch.estimate('b')], [10, 15], `before ${period}`);
      sketch.add('c');
      t.strictSame([sketch.estimate('a'), sketch.estimate('b'), sketch.estimate('c')], [5, 7, 0], `at ${period}`);
      fill(sketch, 'p', period / 2 - 1);
      t.strictSame([sketch.estimate('a'), sketch.estimate('b')], [5, 7], 'what was halved counts half as an addition');
      sketch.add('c');
      t.strictSame([sketch.estimate('a'), sketch.estimate('b')], [2, 3]);
    }
  },
);

void t.test('keys that have uses in common are told apart, in whatever order they were seen', async (t) => {
  const sketch = new FrequencySketch();
  const names = ['', 'a', 'b', 'ab', 'ba', 'aa', 'a0', '0a', 'aé', 'é', '\u0000', 'a\u0000'];
  names.forEach((name, at) => {
    for (let n = 0; n <= at; n += 1) sketch.add(name);
  });
  t.strictSame(
    names.map((name) => sketch.estimate(name)),
    names.map((_, at) => at + 1),
  );
});

void t.test('a sketch that gets wider keeps what it counted, and most keys have a count of their own', async (t) => {
  const sketch = new FrequencySketch();
  const names = Array.from({ length: 500 }, (_, at) => `key ${at}`);
  for (const name of names) sketch.add(name);
  const counts = names.map((name) => sketch.estimate(name));
  t.equal(counts.filter((count) => count < 1).length, 0, 'no key is counted less often than it was seen');
  // Of four independent rows that are half full, each meets another key with a chance of 0.39: 0.39 to the fourth of 500.
  t.ok(counts.filter((count) => count > 1).length <= 20);
  sketch.fit(4_000);
  t.strictSame(
    names.map((name) => sketch.estimate(name)),
    counts,
  );
  const more = names.map((name) => `another ${name}`);
  for (const name of more) sketch.add(name);
  t.equal([...names, ...more].filter((name) => sketch.estimate(name) < 1).length, 0);
});

void t.test('a sketch grows no wider than it may, whatever it has to fit', async (t) => {
  for (const [keys, period] of [
    [2_048, 4_096],
    [2_049, 8_192],
    [4_096, 8_192],
    [100_000, 8_192],
  ] as const) {
    const sketch = new FrequencySketch(4_096);
    sketch.fit(keys);
    for (let at = 0; at < 10; at += 1) sketch.add('a');
    fill(sketch, 'o', period - 10 - 1);
    t.equal(sketch.estimate('a'), 10, `before ${period}`);
    sketch.add('c');
    t.equal(sketch.estimate('a'), 5, `at ${period}`);
  }
});

void t.test('keys are remembered first in first out, as many as fit by their weights', async (t) => {
  const remembered = new RememberedKeys(100);
  remembered.add('a', 60);
  remembered.add('b', 40);
  t.strictSame(
    ['a', 'b'].map((key) => remembered.has(key)),
    [true, true],
    'exactly full',
  );
  remembered.add('c', 1);
  t.strictSame(
    ['a', 'b', 'c'].map((key) => remembered.has(key)),
    [false, true, true],
  );
  remembered.add('d', 101);
  t.strictSame(
    ['b', 'c', 'd'].map((key) => remembered.has(key)),
    [true, true, false],
    'one that never fits forgets nothing',
  );
  t.strictSame([remembered.take('b'), remembered.take('b')], [true, false]);
  remembered.add('e', 99);
  t.strictSame(
    ['c', 'e'].map((key) => remembered.has(key)),
    [true, true],
  );
  remembered.add('f', 100);
  t.strictSame(
    ['c', 'e', 'f'].map((key) => remembered.has(key)),
    [false, false, true],
  );
});

void t.test('second_hit says what it would do without remembering the question', async (t) => {
  const admission = createAdmission('second_hit', 100);
  t.strictSame([admission.wouldAdmit('a'), admission.wouldAdmit('a')], [false, false]);
  admission.admits('a', 1);
  t.strictSame([admission.wouldAdmit('a'), admission.wouldAdmit('a')], [true, true]);
  t.ok(admission.admits('a', 1));
  t.notOk(admission.wouldAdmit('a'));
  const always = createAdmission('always', 0);
  for (const name of ADMISSION_NAMES) t.type(createAdmission(name, 1).admits('b', 1), 'boolean', name);
  t.strictSame([always.wouldAdmit('a'), always.admits('a', 9)], [true, true]);
});

const LARGE = 1_000;
const keysOf = (count: number): readonly string[] => Array.from({ length: count }, (_, at) => `k${at}`);

void t.test('a policy with many keys knows each of them, also where their places were used before', async (t) => {
  for (const name of POLICY_NAMES) {
    const policy = createPolicy(name, LARGE, { ...PARAMETERS, windowShare: 0.5, smallShare: 0.5 });
    t.equal(policy.capacityBytes, LARGE);
    const gone = new Set<string>();
    const evict = (victim: string): void => void gone.add(victim);
    for (const key of keysOf(300)) t.ok(policy.admit(key, 2, evict), key);
    for (const key of keysOf(300)) if (Number(key.slice(1)) % 3 === 0) policy.remove(key);
    for (const key of keysOf(500).slice(300)) policy.admit(key, 2, evict);
    const stored = keysOf(500).filter((key) => policy.has(key));
    const expected = keysOf(500).filter((key, at) => !gone.has(key) && (at >= 300 || at % 3 !== 0));
    t.strictSame(stored, expected, name);
    t.strictSame([policy.count, policy.usedBytes], [stored.length, 2 * stored.length], name);
    t.equal(gone.size, 0, `${name}: there was room for all`);
  }
});

void t.test('many keys leave in the order of their policy', async (t) => {
  const used = [...keysOf(200)].filter((_, at) => at % 2 === 1);
  const unused = [...keysOf(200)].filter((_, at) => at % 2 === 0);
  const orders: Readonly<Record<Exclude<PolicyName, 'w-tinylfu'>, readonly string[]>> = {
    fifo: keysOf(200),
    lru: [...unused, ...used],
    sieve: [...unused, ...used],
    's3-fifo': [...unused, ...used],
    gdsf: [...unused, ...used],
  };
  for (const [name, order] of Object.entries(orders)) {
    const policy = createPolicy(name as PolicyName, LARGE, PARAMETERS);
    for (const key of keysOf(200)) policy.admit(key, 5, () => undefined);
    for (const key of used) policy.touch(key);
    const gone: string[] = [];
    policy.shrink(500, (victim) => gone.push(victim));
    t.strictSame(gone, order.slice(0, 100), name);
    policy.shrink(0, (victim) => gone.push(victim));
    t.strictSame(gone, order, name);
    t.strictSame([policy.count, policy.usedBytes], [0, 0], name);
    policy.shrink(0, () => t.fail('there is nothing left'));
  }
});

void t.test('W-TinyLFU gives up what is on probation first, then its window, then what is protected', async (t) => {
  const policy = createPolicy('w-tinylfu', 100, PARAMETERS);
  for (const key of ['a', 'b', 'c', 'd']) policy.admit(key, 10, () => t.fail('there is room'));
  policy.touch('b');
  const gone: string[] = [];
  policy.shrink(30, (victim) => gone.push(victim));
  t.strictSame(gone, ['a']);
  policy.shrink(11, (victim) => gone.push(victim));
  t.strictSame(gone, ['a', 'c', 'd']);
  policy.shrink(10, (victim) => gone.push(victim));
  t.equal(gone.length, 3, 'exactly so much may stay');
  policy.shrink(0, (victim) => gone.push(victim));
  t.strictSame(gone, ['a', 'c', 'd', 'b']);
});

void t.test('a key that weighs as much as the capacity fits alone, and one that weighs more never', async (t) => {
  for (const name of POLICY_NAMES) {
    const policy = createPolicy(name, 100, PARAMETERS);
    policy.admit('a', 5, () => undefined);
    const gone: string[] = [];
    const taken = policy.admit('all', 100, (victim) => gone.push(victim));
    // W-TinyLFU compares it with what would have to go.
    t.strictSame([taken, gone], name === 'w-tinylfu' ? [false, []] : [true, ['a']], name);
    t.notOk(
      policy.admit('more', 101, () => t.fail('nothing has to go for it')),
      name,
    );
    policy.touch('unknown');
    policy.remove('unknown');
    t.equal(policy.count, 1, name);
  }
});

void t.test('a key that takes the place of another has none of its uses, and a table grows no further', async (t) => {
  for (const name of POLICY_NAMES) {
    const policy = createPolicy(name, 100, PARAMETERS);
    const gone: string[] = [];
    const evict = (victim: string): void => void gone.push(victim);
    policy.admit('before', 10, evict);
    for (let uses = 0; uses < 3; uses += 1) policy.touch('before');
    policy.remove('before');
    policy.admit('first', 10, evict);
    policy.admit('second', 10, evict);
    policy.touch('second');
    policy.shrink(10, evict);
    t.strictSame(gone, ['first'], name);
    for (const key of keysOf(500)) {
      policy.admit(key, 10, evict);
      t.ok((policy.handleOf(key) ?? 0) < 20, `${name}: ten keys need no more than twenty places`);
      if (policy.count > 5) policy.remove(key);
    }
  }
});

void t.test('a policy that is asked for more than it has gives up all of it', async (t) => {
  for (const name of POLICY_NAMES) {
    const policy = createPolicy(name, 100, PARAMETERS);
    const gone: string[] = [];
    policy.shrink(-1, () => t.fail('there is nothing'));
    for (const key of ['a', 'b', 'c']) policy.admit(key, 10, () => t.fail('there is room'));
    policy.touch('c');
    policy.shrink(-1, (victim) => gone.push(victim));
    t.strictSame([gone.toSorted(), policy.count, policy.usedBytes], [['a', 'b', 'c'], 0, 0], name);
    t.ok(policy.admit('a', 100, () => undefined) || policy.mayRefuse, `${name} goes on afterwards`);
    t.equal(policy.mayRefuse, name === 'w-tinylfu');
  }
});

void t.test('GDSF keeps one byte longer than two, whichever came first', async (t) => {
  for (const order of [
    ['one', 'two'],
    ['two', 'one'],
  ]) {
    const policy = createPolicy('gdsf', 100, PARAMETERS);
    const gone: string[] = [];
    for (const key of order) policy.admit(key, key === 'one' ? 1 : 2, () => t.fail('there is room'));
    policy.shrink(2, (victim) => gone.push(victim));
    t.strictSame(gone, ['two']);
  }
});

void t.test('S3-FIFO takes from its small queue until the main one has more than its share', async (t) => {
  for (const [main, victims] of [
    [45, ['small']],
    [45.5, ['first']],
  ] as const) {
    const policy = createPolicy('s3-fifo', 100, PARAMETERS);
    const gone: string[] = [];
    for (const key of ['first', 'next']) policy.admit(key, main, () => t.fail('there is room'));
    for (const key of ['first', 'next']) policy.touch(key);
    policy.admit('small', 9, () => t.fail('there is room'));
    // The two move to the main queue, and now it is full to its share, or beyond.
    policy.admit('last', 9, (victim) => gone.push(victim));
    t.strictSame(gone, victims, `two of ${main} in the main queue`);
  }
});

void t.test('W-TinyLFU evicts for a key what was asked for less often, what is protected last', async (t) => {
  for (const [weight, wins] of [
    [50, [2, ['probation']]],
    [51, [3, ['probation', 'protected']]],
    [90, [3, ['probation', 'protected']]],
    [91, [null, []]],
  ] as const) {
    const policy = createPolicy('w-tinylfu', 100, PARAMETERS);
    for (const key of ['protected', 'probation']) policy.admit(key, 40, () => t.fail('there is room'));
    policy.touch('protected');
    const gone: string[] = [];
    let asked = 1;
    while (asked <= 5 && !policy.admit('key', weight, (victim) => gone.push(victim))) {
      t.strictSame(gone, [], 'who is refused takes nobody along');
      asked += 1;
    }
    t.strictSame([asked > 5 ? null : asked, gone], wins, `a key of ${weight}`);
  }
});

void t.test(
  'W-TinyLFU protects four fifths of its main part, and puts what is beyond on probation again',
  async (t) => {
    for (const [weight, first] of [
      [36, 'last'],
      [36.5, 'first'],
    ] as const) {
      const policy = createPolicy('w-tinylfu', 100, PARAMETERS);
      for (const key of ['first', 'next']) policy.admit(key, weight, () => t.fail('there is room'));
      for (const key of ['first', 'next']) policy.touch(key);
      policy.admit('last', 17, () => t.fail('there is room'));
      const gone: string[] = [];
      policy.shrink(73, (victim) => gone.push(victim));
      t.equal(gone[0], first, `two of ${weight} were used again`);
    }
  },
);

void t.test('W-TinyLFU lets go from its window what was used least recently there', async (t) => {
  const policy = createPolicy('w-tinylfu', 100, { ...PARAMETERS, windowShare: 0.5 });
  for (const key of ['used', 'unused']) policy.admit(key, 20, () => t.fail('there is room'));
  policy.touch('used');
  policy.admit('last', 20, () => t.fail('there is room'));
  policy.shrink(40, (victim) => t.equal(victim, 'unused', 'it is on probation, and goes first'));
  t.equal(policy.count, 2);
});
