import * as fc from 'fast-check';
import t from 'tap';
import {
  agreement,
  CONTESTANTS,
  compareSingle,
  DEFAULT_TIERS,
  SECOND_HIT_TIERS,
  tierRatios,
} from '../../../bench/policy/compare.js';
import { clairvoyant, infinite } from '../../../bench/policy/simulate.js';
import { readBaselines, readTierBaselines, readTrace, traceFolder } from '../../../bench/policy/trace.js';
import { FrequencySketch } from '../../../edge/cache/policy/frequency-sketch.js';
import type { Policy } from '../../../edge/cache/policy/policy.js';
import { createAdmission, createPolicy, POLICY_NAMES, type PolicyName } from '../../../edge/cache/policy/registry.js';

const CAPACITY = 100;
const PARAMETERS = { smallShare: 0.1, promoteAt: 1, windowShare: 0.1 };

type Step =
  | { readonly verb: 'touch' | 'remove'; readonly key: string }
  | { readonly verb: 'admit'; readonly key: string; readonly weight: number };

const keys = fc.integer({ min: 0, max: 14 }).map((n) => `k${n}`);
const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ verb: fc.constant('touch' as const), key: keys }) },
    {
      weight: 6,
      arbitrary: fc.record({ verb: fc.constant('admit' as const), key: keys, weight: fc.integer({ min: 1, max: 45 }) }),
    },
    { weight: 1, arbitrary: fc.record({ verb: fc.constant('remove' as const), key: keys }) },
    {
      weight: 1,
      arbitrary: fc.record({ verb: fc.constant('admit' as const), key: keys, weight: fc.constant(CAPACITY + 1) }),
    },
  ),
  { minLength: 1, maxLength: 120 },
);

/** A simple model of a policy: an array from the oldest to the newest, without regard to speed. */
interface Naive {
  touch(key: string): void;
  /** The victims in order, or undefined if the key is refused. */
  admit(key: string, weight: number): readonly string[] | undefined;
  remove(key: string): void;
  readonly stored: ReadonlyMap<string, number>;
}

interface Item {
  readonly key: string;
  readonly weight: number;
  uses: number;
  priority: number;
  order: number;
}

const item = (key: string, weight: number): Item => ({ key, weight, uses: 0, priority: 0, order: 0 });
const total = (items: readonly Item[]): number => items.reduce((sum, { weight }) => sum + weight, 0);

abstract class NaiveArray implements Naive {
  items: Item[] = [];
  get stored(): ReadonlyMap<string, number> {
    return new Map(this.items.map(({ key, weight }) => [key, weight]));
  }
  admit(key: string, weight: number): readonly string[] | undefined {
    this.remove(key);
    if (weight > CAPACITY) return undefined;
    const victims: string[] = [];
    while (total(this.items) + weight > CAPACITY) {
      const victim = this.victim();
      victims.push(victim);
      this.remove(victim);
    }
    this.items.push(item(key, weight));
    return victims;
  }
  remove(key: string): void {
    this.items = this.items.filter((stored) => stored.key !== key);
  }
  victim(): string {
    return this.items[0]?.key ?? '';
  }
  abstract touch(key: string): void;
}

class NaiveFifo extends NaiveArray {
  touch(): void {}
}

class NaiveLru extends NaiveArray {
  touch(key: string): void {
    this.items = [
      ...this.items.filter((stored) => stored.key !== key),
      ...this.items.filter((stored) => stored.key === key),
    ];
  }
}

class NaiveSieve extends NaiveArray {
  hand: string | undefined;
  touch(key: string): void {
    for (const stored of this.items) if (stored.key === key) stored.uses = 1;
  }
  override victim(): string {
    let at = Math.max(
      0,
      this.items.findIndex(({ key }) => key === this.hand),
    );
    while (this.items[at]?.uses === 1) {
      const spared = this.items[at];
      if (spared !== undefined) spared.uses = 0;
      at = (at + 1) % this.items.length;
    }
    this.hand = this.items[at]?.key;
    return this.hand ?? '';
  }
  override remove(key: string): void {
    if (key === this.hand) this.hand = this.items[this.items.findIndex((stored) => stored.key === key) + 1]?.key;
    super.remove(key);
  }
}

class NaiveGdsf extends NaiveArray {
  inflation = 0;
  order = 0;
  override admit(key: string, weight: number): readonly string[] | undefined {
    const victims = super.admit(key, weight);
    if (victims !== undefined) this.touch(key);
    return victims;
  }
  touch(key: string): void {
    for (const stored of this.items) {
      if (stored.key !== key) continue;
      stored.uses += 1;
      stored.order = ++this.order;
      stored.priority = this.inflation + stored.uses / stored.weight;
    }
  }
  override victim(): string {
    const [least] = [...this.items].sort((a, b) => a.priority - b.priority || a.order - b.order);
    this.inflation = least?.priority ?? 0;
    return least?.key ?? '';
  }
}

class NaiveS3Fifo implements Naive {
  small: Item[] = [];
  main: Item[] = [];
  ghosts: Item[] = [];
  get stored(): ReadonlyMap<string, number> {
    return new Map([...this.small, ...this.main].map(({ key, weight }) => [key, weight]));
  }
  touch(key: string): void {
    for (const stored of [...this.small, ...this.main])
      if (stored.key === key) stored.uses = Math.min(3, stored.uses + 1);
  }
  remove(key: string): void {
    this.small = this.small.filter((stored) => stored.key !== key);
    this.main = this.main.filter((stored) => stored.key !== key);
  }
  admit(key: string, weight: number): readonly string[] | undefined {
    this.remove(key);
    if (weight > CAPACITY) return undefined;
    const returns = this.ghosts.some((ghost) => ghost.key === key);
    this.ghosts = this.ghosts.filter((ghost) => ghost.key !== key);
    const victims: string[] = [];
    while (total(this.small) + total(this.main) + weight > CAPACITY) {
      const victim = total(this.main) > 90 || this.small.length === 0 ? this.#siftMain() : this.#siftSmall();
      if (victim !== undefined) victims.push(victim);
    }
    (returns ? this.main : this.small).push(item(key, weight));
    return victims;
  }
  #siftMain(): string | undefined {
    const oldest = this.main.shift();
    if (oldest === undefined || oldest.uses === 0) return oldest?.key;
    this.main.push({ ...oldest, uses: oldest.uses - 1 });
    return undefined;
  }
  #siftSmall(): string | undefined {
    const oldest = this.small.shift();
    if (oldest === undefined) return undefined;
    if (oldest.uses >= PARAMETERS.promoteAt) {
      this.main.push({ ...oldest, uses: 0 });
      return undefined;
    }
    if (oldest.weight <= 90) {
      while (total(this.ghosts) + oldest.weight > 90) this.ghosts.shift();
      this.ghosts.push(oldest);
    }
    return oldest.key;
  }
}

/** With exact counts: so few keys and uses have one counter each in the sketch, and are not halved. */
class NaiveWTinyLfu implements Naive {
  window: Item[] = [];
  probation: Item[] = [];
  guarded: Item[] = [];
  counts = new Map<string, number>();
  get stored(): ReadonlyMap<string, number> {
    return new Map([...this.window, ...this.probation, ...this.guarded].map(({ key, weight }) => [key, weight]));
  }
  touch(key: string): void {
    if (!this.stored.has(key)) return;
    this.#count(key);
    const last = (a: Item, b: Item): number => Number(a.key === key) - Number(b.key === key);
    this.window.sort(last);
    this.guarded.sort(last);
    this.guarded.push(...this.probation.filter((stored) => stored.key === key));
    this.probation = this.probation.filter((stored) => stored.key !== key);
    while (total(this.guarded) > 72) this.probation.push(...this.guarded.splice(0, 1));
  }
  remove(key: string): void {
    const others = (stored: Item): boolean => stored.key !== key;
    this.window = this.window.filter(others);
    this.probation = this.probation.filter(others);
    this.guarded = this.guarded.filter(others);
  }
  admit(key: string, weight: number): readonly string[] | undefined {
    this.remove(key);
    this.#count(key);
    if (weight > CAPACITY) return undefined;
    this.window.push(item(key, weight));
    const victims: string[] = [];
    while (total(this.window) > 10) {
      const [candidate] = this.window.splice(0, 1);
      if (candidate === undefined) break;
      const losers = this.#losersTo(candidate);
      if (losers !== undefined) this.probation.push(candidate);
      for (const loser of losers ?? [candidate.key]) {
        victims.push(loser);
        this.remove(loser);
      }
    }
    return victims.includes(key) ? undefined : victims;
  }
  #count(key: string): void {
    this.counts.set(key, Math.min(15, (this.counts.get(key) ?? 0) + 1));
  }
  #losersTo({ key, weight }: Item): readonly string[] | undefined {
    const losers: string[] = [];
    let room = 90 - total(this.probation) - total(this.guarded);
    for (const { key: other, weight: freed } of [...this.probation, ...this.guarded]) {
      if (room >= weight) break;
      if ((this.counts.get(other) ?? 0) >= (this.counts.get(key) ?? 0)) return undefined;
      losers.push(other);
      room += freed;
    }
    return room >= weight ? losers : undefined;
  }
}

const NAIVE: Readonly<Record<PolicyName, () => Naive>> = {
  'w-tinylfu': () => new NaiveWTinyLfu(),
  fifo: () => new NaiveFifo(),
  lru: () => new NaiveLru(),
  sieve: () => new NaiveSieve(),
  gdsf: () => new NaiveGdsf(),
  's3-fifo': () => new NaiveS3Fifo(),
};

/** The keys that the policy must have, by its own answers; compared with it after every step. */
class Recount {
  readonly weights = new Map<string, number>();
  readonly #name: PolicyName;
  #touches = 0;

  constructor(name: PolicyName) {
    this.#name = name;
  }

  /** In both ways, which must come to the same. */
  #touch(policy: Policy, key: string): void {
    this.#touches += 1;
    const handle = policy.handleOf(key);
    if (handle === undefined || this.#touches % 2 === 0) policy.touch(key);
    else policy.touchHandle(handle);
  }

  apply(policy: Policy, step: Step): readonly string[] | undefined {
    switch (step.verb) {
      case 'touch':
        this.#touch(policy, step.key);
        return [];
      case 'remove':
        policy.remove(step.key);
        this.weights.delete(step.key);
        return [];
      case 'admit': {
        const victims: string[] = [];
        const taken = policy.admit(step.key, step.weight, (victim) => victims.push(victim));
        this.weights.delete(step.key);
        for (const victim of victims) {
          if (!this.weights.delete(victim)) throw new Error(`${this.#name} named ${victim}, which it did not have`);
        }
        if (taken) this.weights.set(step.key, step.weight);
        return taken ? victims : undefined;
      }
    }
  }

  check(policy: Policy): void {
    const sum = [...this.weights.values()].reduce((total, weight) => total + weight, 0);
    if (policy.usedBytes !== sum) throw new Error(`${this.#name} counts ${policy.usedBytes} instead of ${sum} bytes`);
    if (policy.usedBytes > policy.capacityBytes) throw new Error(`${this.#name} exceeds its capacity`);
    if (policy.count !== this.weights.size) throw new Error(`${this.#name} miscounts its keys`);
    for (const key of Array.from({ length: 15 }, (_, n) => `k${n}`)) {
      if (policy.has(key) !== this.weights.has(key)) throw new Error(`${this.#name} is wrong about ${key}`);
    }
  }
}

void t.test('after every step a policy has the keys that it admitted, within its capacity', async (t) => {
  for (const name of POLICY_NAMES) {
    t.doesNotThrow(
      () =>
        fc.assert(
          fc.property(steps, (steps) => {
            const policy = createPolicy(name, CAPACITY, PARAMETERS);
            const recount = new Recount(name);
            for (const step of steps) {
              recount.apply(policy, step);
              recount.check(policy);
            }
            for (const toBytes of [Math.floor(policy.usedBytes / 2), 0]) {
              policy.shrink(toBytes, (victim) => {
                if (!recount.weights.delete(victim)) throw new Error(`${name} named ${victim}, which it did not have`);
              });
              recount.check(policy);
              if (policy.usedBytes > toBytes) throw new Error(`${name} did not shrink to ${toBytes}`);
            }
          }),
          { numRuns: 200 },
        ),
      name,
    );
  }
});

void t.test('a policy names the victims that its naive model names', async (t) => {
  for (const [name, makeNaive] of Object.entries(NAIVE)) {
    t.doesNotThrow(
      () =>
        fc.assert(
          fc.property(steps, (steps) => {
            const policy = createPolicy(name as PolicyName, CAPACITY, PARAMETERS);
            const naive = makeNaive();
            const recount = new Recount(name as PolicyName);
            for (const step of steps) {
              const victims = recount.apply(policy, step);
              const expected = step.verb === 'admit' ? naive.admit(step.key, step.weight) : [];
              if (step.verb !== 'admit') naive[step.verb](step.key);
              if (JSON.stringify(victims) !== JSON.stringify(expected)) {
                throw new Error(`${JSON.stringify(step)}: ${String(victims)} instead of ${String(expected)}`);
              }
              recount.check(policy);
              if (naive.stored.size !== policy.count) throw new Error('the model has another number of keys');
            }
          }),
          { numRuns: 300 },
        ),
      name,
    );
  }
});

void t.test('W-TinyLFU keeps popular keys during a scan of keys that are used once', async (t) => {
  const policy = createPolicy('w-tinylfu', CAPACITY, PARAMETERS);
  const gone: string[] = [];
  for (let n = 0; n < 8; n += 1) policy.admit(`often${n}`, 10, (victim) => gone.push(victim));
  for (let round = 0; round < 5; round += 1) for (let n = 0; n < 8; n += 1) policy.touch(`often${n}`);
  for (let n = 0; n < 200; n += 1) policy.admit(`once${n}`, 10, (victim) => gone.push(victim));
  t.equal(gone.filter((victim) => victim.startsWith('often')).length, 0);
});

void t.test('a sketch never estimates too low, even after it grows, and halves its counters', async (t) => {
  const sketch = new FrequencySketch();
  const seen = Array.from({ length: 300 }, (_, n) => ({ key: `key${n}`, times: n % 7 }));
  for (const { key, times } of seen) for (let n = 0; n < times; n += 1) sketch.add(key);
  const before = seen.map(({ key }) => sketch.estimate(key));
  t.ok(seen.every(({ times }, at) => (before[at] ?? -1) >= times));
  t.ok(seen.filter(({ times }, at) => before[at] === times).length > 280, 'and seldom too high');
  sketch.fit(5_000);
  t.same(
    seen.map(({ key }) => sketch.estimate(key)),
    before,
    'growing changes no estimate',
  );
  for (let n = 0; n < 20_000; n += 1) sketch.add(`other${n}`);
  t.ok(sketch.estimate('key6') < 6, 'old uses count less');
});

void t.test('second_hit admits what was seen recently, and remembers a bounded number of bytes', async (t) => {
  const admission = createAdmission('second_hit', 100);
  t.equal(admission.admits('a', 40), false);
  t.equal(admission.admits('a', 40), true, 'the second time');
  t.equal(admission.admits('a', 40), false, 'it is forgotten when it is admitted');
  t.equal(admission.admits('b', 40), false);
  t.equal(admission.admits('c', 40), false, 'a is forgotten for c');
  t.equal(admission.admits('b', 40), true);
  t.equal(admission.admits('a', 40), false, 'a forgotten key is seen for the first time again');
  t.equal(admission.admits('huge', 101), false);
  t.equal(admission.admits('huge', 101), false, 'a key that is too large to remember is never admitted');
  t.same([admission.admits('c', 40), admission.admits('a', 40)], [true, true], 'and the last two are remembered');
  t.equal(createAdmission('always', 100).admits('x', 1), true);
});

const folder = traceFolder();
void t.test(
  'hit ratios agree with the published ones on the smallest trace',
  { skip: folder === undefined && 'there is no ../shared/traces' },
  async (t) => {
    if (folder === undefined) return;
    const trace = readTrace(folder, 'web-bu98.csv.gz');
    const published = readBaselines(folder).filter((row) => row.trace === trace.name);
    for (const fraction of [0.01, 0.1]) {
      const rows = published.filter((row) => row.fraction === fraction);
      const capacityBytes = rows[0]?.capacityBytes ?? 0;
      let compared = 0;
      for (const { label, ratios, baseline } of compareSingle(trace, capacityBytes, rows)) {
        if (baseline === undefined) continue;
        compared += 1;
        const { agrees, difference } = agreement(ratios, baseline);
        t.ok(agrees, `${label} at ${fraction} is off by ${difference.toFixed(4)}`);
      }
      t.equal(compared, CONTESTANTS.filter(({ baseline }) => baseline !== undefined).length);
    }
    const tiers = tierRatios(trace, 0.01, 0.1, DEFAULT_TIERS);
    const baseline = readTierBaselines(folder).find(
      (row) => row.trace === trace.name && row.memoryFraction === 0.01 && row.policies === 'GDSF+S3FIFO1',
    );
    t.ok(baseline !== undefined && agreement(tiers, baseline).agrees, 'the default tiers too');
    const sparing = tierRatios(trace, 0.01, 0.1, SECOND_HIT_TIERS);
    t.ok(sparing.writtenPerRequested < tiers.writtenPerRequested / 5, 'second_hit writes at most a fifth');
    const ceiling = infinite(trace);
    const capacityBytes = Math.floor(trace.footprintBytes * 0.1);
    t.ok(clairvoyant(trace, capacityBytes).objectHitRatio > tiers.objectHitRatio, 'a clairvoyant policy does better');
    t.ok(
      ceiling.objectHitRatio >= clairvoyant(trace, capacityBytes).objectHitRatio,
      'and no better than an infinite cache',
    );
  },
);
