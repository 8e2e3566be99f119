/** Sizes and policies that change while a cache is in use: nothing is lost for an exchange alone, and no step is large. */
import * as fc from 'fast-check';
import t from 'tap';
import { openCache } from '../../../edge/cache/open.js';
import { POLICY_NAMES, type PolicyName } from '../../../edge/cache/policy/registry.js';
import { type PolicySettings, RenewablePolicy } from '../../../edge/cache/policy/renewable.js';
import { type Rule, rulesField } from '../../../edge/fetch/rules.js';
import { createHeldRules } from '../../../edge/held-rules.js';
import { freshnessSection } from '../../../edge/rfc9111/freshness.js';
import { storable } from '../../../edge/rfc9111/storable.js';
import { processContext } from '../../../src/config/load.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { BOTH, bytesOf, cacheConfig, entryOf, keyOf, writeAll } from '../../kit/edge/cache.js';

const PARAMETERS = { smallShare: 0.1, promoteAt: 1, windowShare: 0.1 };
/** What one step may evict (renewable.ts). */
const STEP_BYTES = 2_097_152;
const UNIT = 100_000;

const settingsOf = (name: PolicyName, capacityBytes: number, smallShare = 0.1): PolicySettings => ({
  name,
  capacityBytes,
  parameters: { ...PARAMETERS, smallShare },
});

const anySettings = fc
  .tuple(fc.constantFrom(...POLICY_NAMES), fc.integer({ min: 0, max: 100 }), fc.constantFrom(0.1, 0.5))
  .map(([name, units, share]) => settingsOf(name, units * UNIT, share));
const anyKey = fc.integer({ min: 0, max: 40 }).map((n) => `k${n}`);
const anyAct = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ verb: fc.constant('admit' as const), key: anyKey, units: fc.integer({ min: 1, max: 30 }) }),
  },
  { weight: 5, arbitrary: fc.record({ verb: fc.constant('use' as const), key: anyKey }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('remove' as const), key: anyKey }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('renew' as const), settings: anySettings }) },
  { weight: 3, arbitrary: fc.constant({ verb: 'step' as const }) },
);

void t.test(
  'whatever changes meanwhile, a policy has what it has not named as a victim, and ends below its capacity',
  (t) => {
    fc.assert(
      fc.property(anySettings, fc.array(anyAct, { maxLength: 150 }), (first, acts) => {
        const policy = new RenewablePolicy(first);
        const stored = new Map<string, { bytes: number; handle: number }>();
        let evictedBytes = 0;
        const evict = (key: string): void => {
          evictedBytes += stored.get(key)?.bytes ?? Number.NaN;
          stored.delete(key);
        };
        const moved = (key: string, handle: number): void => {
          const known = stored.get(key);
          if (known === undefined) throw new Error(`${key} was moved and is not stored`);
          known.handle = handle;
        };
        const step = (): boolean => {
          evictedBytes = 0;
          const largest = Math.max(0, ...[...stored.values()].map(({ bytes }) => bytes));
          const settled = policy.step(evict, moved);
          if (!(evictedBytes <= STEP_BYTES + largest)) throw new Error(`one step evicted ${evictedBytes}`);
          return settled;
        };
        const agrees = (): void => {
          const bytes = [...stored.values()].reduce((sum, each) => sum + each.bytes, 0);
          if (policy.count !== stored.size || policy.usedBytes !== bytes) throw new Error('another sum');
          if (bytes > policy.allowedBytes) throw new Error(`${bytes} of ${policy.allowedBytes} are allowed`);
          for (const key of stored.keys()) if (!policy.has(key)) throw new Error(`${key} is missing`);
        };
        for (const act of acts) {
          switch (act.verb) {
            case 'admit': {
              const bytes = act.units * UNIT;
              // The policy knows no more of a key that is replaced.
              stored.delete(act.key);
              policy.remove(act.key);
              if (policy.admit(act.key, bytes, evict))
                stored.set(act.key, { bytes, handle: policy.handleOf(act.key) ?? -1 });
              break;
            }
            case 'use': {
              const known = stored.get(act.key);
              if (known !== undefined) policy.use(act.key, known.handle);
              break;
            }
            case 'remove':
              policy.remove(act.key);
              stored.delete(act.key);
              break;
            case 'renew': {
              const before = stored.size;
              policy.renew(act.settings);
              if (stored.size !== before) throw new Error('renewing evicted');
              break;
            }
            case 'step':
              step();
              break;
          }
          agrees();
        }
        for (let steps = 0; !step(); steps += 1) if (steps > 1_000) throw new Error('it does not settle');
        agrees();
        return policy.usedBytes <= policy.capacityBytes && policy.allowedBytes === policy.capacityBytes;
      }),
      { numRuns: 300 },
    );
    t.end();
  },
);

const noVictim = (key: string): void => {
  throw new Error(`${key} was evicted`);
};

/** The keys in the order in which they would be evicted. */
function orderOf(policy: RenewablePolicy): readonly string[] {
  const order: string[] = [];
  policy.shrink(0, (key) => void order.push(key));
  return order;
}

void t.test(
  'another policy takes over all keys, and evicts first what the one before would have evicted first',
  (t) => {
    for (const before of POLICY_NAMES) {
      for (const after of POLICY_NAMES) {
        if (before === after) continue;
        const policy = new RenewablePolicy(settingsOf(before, 3_000));
        const reference = new RenewablePolicy(settingsOf(before, 3_000));
        for (const each of [policy, reference]) {
          for (let n = 0; n < 1_100; n += 1) each.admit(`k${n}`, 1, noVictim);
          each.touch('k5');
          each.touch('k1090');
        }
        t.ok(policy.renew(settingsOf(after, 3_000)));
        let steps = 1;
        while (!policy.step(noVictim, () => undefined)) steps += 1;
        t.ok(steps > 2, 'in several steps');
        t.equal(policy.count, 1_100, `${before} to ${after} loses nothing`);
        const [order, wanted] = [orderOf(policy), orderOf(reference)];
        // W-TinyLFU guesses uses, so it knows of other keys too that they were used.
        const unused = (keys: readonly string[]) => keys.filter((key) => key !== 'k5' && key !== 'k1090');
        if (before !== 'w-tinylfu' && after !== 'w-tinylfu')
          t.equal(unused(order).join(), unused(wanted).join(), `${before} to ${after}`);
      }
    }
    t.end();
  },
);

void t.test('uses are carried over where both policies count them', (t) => {
  for (const after of ['gdsf', 's3-fifo', 'w-tinylfu'] as const) {
    const policy = new RenewablePolicy(settingsOf('gdsf', 1_000));
    for (let n = 0; n < 500; n += 1) policy.admit(`k${n}`, 1, noVictim);
    for (let use = 0; use < 5; use += 1) policy.touch('k3');
    policy.renew(settingsOf(after, 1_000, 0.2));
    while (!policy.step(noVictim, () => undefined));
    t.equal(orderOf(policy).at(-1), 'k3', after);
  }
  t.end();
});

void t.test(
  'a cache in use becomes smaller step by step, larger at once, and changes its policies without a loss',
  async (t) => {
    const config = cacheConfig(t.testdir(), { memory: { sizeBytes: 20_000_000 } });
    const deps = testDeps();
    const cache = await openCache(config, { log: deps.log, metrics: deps.metrics, clock: new ManualClock() });
    try {
      for (let n = 0; n < 120; n += 1) {
        const bytes = bytesOf(100_000 + n);
        const fill = cache.fill(entryOf(`k${n}`, bytes), BOTH);
        await writeAll(fill, bytes);
        t.match(await fill.end(), { kind: 'stored', tiers: ['memory', 'disk'] });
      }
      const stored = (): readonly string[] =>
        Array.from({ length: 120 }, (_, n) => `k${n}`).filter((key) => cache.peek(keyOf(key)) !== undefined);
      const { memory, disk } = config as {
        memory: { sizeBytes: number; policy: PolicyName };
        disk: { sizeBytes: number; policy: PolicyName };
      };
      for (const policy of POLICY_NAMES) {
        memory.policy = policy;
        disk.policy = policy;
        await cache.renew();
        t.equal(stored().length, 120, policy);
        t.match(cache.stats(), { memory: { entries: 120, evictions: 0 }, disk: { entries: 120, evictions: 0 } });
      }
      memory.policy = 'lru';
      disk.policy = 'lru';
      await cache.renew();
      for (let n = 119; n >= 0; n -= 1) cache.get(keyOf(`k${n}`));
      memory.sizeBytes = 5_000_000;
      disk.sizeBytes = 12_000_000;
      const renewing = cache.renew();
      const during = cache.stats();
      t.ok(during.memory.usedBytes > memory.sizeBytes, 'what is too much goes step by step');
      t.equal(during.memory.capacityBytes, memory.sizeBytes);
      t.ok(stored().length > 90, 'and is served meanwhile');
      await renewing;
      const smaller = cache.stats();
      t.ok(smaller.memory.usedBytes <= 5_000_000, String(smaller.memory.usedBytes));
      t.ok(smaller.disk.usedBytes <= 6_000_000, String(smaller.disk.usedBytes));
      t.equal(cache.peek(keyOf('k0'))?.tier, 'memory', 'what was used last stays');
      t.not(cache.peek(keyOf('k119'))?.tier, 'memory');

      memory.sizeBytes = 20_000_000;
      disk.sizeBytes = 40_000_000;
      await cache.renew();
      t.match(cache.stats(), { memory: { capacityBytes: 20_000_000 }, disk: { capacityBytes: 20_000_000 } });
      disk.sizeBytes = 0;
      await cache.renew();
      t.match(cache.stats(), { disk: { entries: 0, capacityBytes: 0 } });
      t.equal(cache.diskState, 'off');
      disk.sizeBytes = 40_000_000;
      await cache.renew();
      t.equal(cache.diskState, 'in_use');
      const bytes = bytesOf(100_000);
      const fill = cache.fill(entryOf('again', bytes), BOTH);
      await writeAll(fill, bytes);
      t.match(await fill.end(), { tiers: ['memory', 'disk'] });
    } finally {
      await cache.close();
    }
  },
);

void t.test('a disk tier that is switched on by a reload is opened then, and is empty', async (t) => {
  const config = cacheConfig(t.testdir(), { disk: { sizeBytes: 0 } });
  const deps = testDeps();
  const cache = await openCache(config, { log: deps.log, metrics: deps.metrics, clock: new ManualClock() });
  try {
    t.equal(cache.diskState, 'off');
    await cache.probe();
    (config.disk as { sizeBytes: number }).sizeBytes = 40_000_000;
    await cache.renew();
    t.equal(cache.diskState, 'in_use');
    t.match(cache.stats(), { disk: { entries: 0, capacityBytes: 20_000_000 } });
  } finally {
    await cache.close();
  }
});

void t.test('changed rules hold for what is stored already: how long it is fresh, and where it may be', async (t) => {
  const clock = new ManualClock();
  const deps = testDeps();
  let rules: readonly Rule[] = [];
  const change = (...given: readonly object[]): void => {
    rules = rulesField.schema(processContext).parse(given);
  };
  const storing = {
    mode: 'off',
    freshness: configured(freshnessSection),
    setCookie: 'if_shared',
    incomplete: true,
  } as const;
  const held = createHeldRules(() => rules, storing);
  const config = cacheConfig(t.testdir(), {});
  const cache = await openCache(config, { log: deps.log, metrics: deps.metrics, clock, held });
  try {
    const now = clock.now();
    const response = {
      status: 200,
      headers: [
        ['content-type', 'image/png'],
        ['cache-control', 'max-age=60, stale-if-error=30'],
        ['age', '10'],
        ['etag', '"x"'],
      ] as const,
      requestedAt: now,
      receivedAt: now,
    };
    const stored = storable({ request: { method: 'GET', header: () => undefined }, response, now, rules: storing });
    if (stored.kind !== 'store') throw new Error('it may be stored');
    const newEntry = (key: string) => ({
      ...stored.head,
      key: keyOf(key),
      primaryKey: key,
      sizeBytes: 1_000,
      sha256: null,
    });
    const bytes = bytesOf(1_000);
    for (const key of ['one', 'two']) {
      const fill = cache.fill(newEntry(key), BOTH);
      await writeAll(fill, bytes);
      t.match(await fill.end(), { tiers: ['memory', 'disk'] });
    }
    const fresh = (key: string): number | undefined => {
      const entry = cache.get(keyOf(key))?.entry;
      return entry === undefined ? undefined : (entry.staleAt - now) / 1_000;
    };
    const before = cache.peek(keyOf('one'))?.entry;
    t.equal(fresh('one'), 50);
    change({ type: 'image/*', ttl: '5m', stale_if_error: '1h' });
    t.equal(fresh('one'), 290, 'from its birth on');
    t.equal(cache.peek(keyOf('one'))?.entry, cache.get(keyOf('one'))?.entry, 'what is stored is changed once');
    change({ type: 'video/*', ttl: '5m' });
    t.equal(fresh('one'), 50, 'the former rule leaves nothing');
    t.match(cache.peek(keyOf('one'))?.entry, { ...before });

    change({ type: 'image/*', tiers: 'disk' });
    t.equal(cache.peek(keyOf('one'))?.tier, 'disk');
    await cache.renew();
    t.match(
      cache.stats(),
      { memory: { entries: 0 }, disk: { entries: 2 } },
      'also what nobody asks for leaves the tier',
    );
    change({ type: 'image/*', tiers: 'none' });
    t.equal(cache.get(keyOf('one')), undefined);
    t.equal(cache.fates.recall(keyOf('one'))?.fate, 'no_tier');
    await cache.renew();
    t.match(cache.stats(), { memory: { entries: 0 }, disk: { entries: 0 } });
  } finally {
    await cache.close();
  }
});
