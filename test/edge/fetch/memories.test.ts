/** What the edge remembers beside its copies: heads whose bodies are wanted, what cannot be shared, and ids that are not there. */
import t from 'tap';
import { createAbsences } from '../../../edge/fetch/absences.js';
import { applyRules, applyRulesTo, type Rule, type RuleResult, rulesField } from '../../../edge/fetch/rules.js';
import { createUncacheableMemory } from '../../../edge/fetch/uncacheable.js';
import { createWarmMarks, type WarmConfig, warmSection } from '../../../edge/fetch/warm-marks.js';
import { processContext } from '../../../src/config/load.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { bytesOf, entryOf, keyOf, mediaIdOf } from '../../kit/edge/cache.js';

const NO_RULE = applyRules([], { pathKind: 'other', headers: [], sizeBytes: 1 });

function marks(changes: Partial<WarmConfig> = {}) {
  const deps = testDeps();
  const config = configured(warmSection, { maxBytes: 100, concurrentMax: 2, marksMax: 2, ...changes });
  return { ...deps, marks: createWarmMarks(() => config, deps.metrics) };
}

const sized = (sizeBytes: number | null) => entryOf('a', bytesOf(1), { sizeBytes });

void t.test('a body is fetched at once if it is small and there is room, and marked otherwise', async (t) => {
  const { marks: all, sample } = marks();
  t.same(
    [100, 101, null, 0].map((size) => all.decide(sized(size), NO_RULE)),
    ['now', 'mark', 'mark', 'now'],
  );
  all.started(keyOf('x'));
  t.equal(all.hasRoom(), true);
  t.equal(all.decide(sized(1), NO_RULE), 'now');
  all.started(keyOf('y'));
  t.equal(all.hasRoom(), false);
  t.equal(all.decide(sized(1), NO_RULE), 'mark', 'too many are being fetched');
  all.ended(keyOf('x'), true);
  t.equal(all.hasRoom(), true);
  all.started(keyOf('z'));
  t.equal(all.hasRoom(), false, 'one has ended, and one has begun');
  t.equal(await sample('edge_warm_decisions_total{decision="now"}'), 3);
  t.equal(await sample('edge_warm_decisions_total{decision="mark"}'), 3);
});

void t.test('a rule says what to do in place of the settings', (t) => {
  const rule = (warm: RuleResult['warm']): RuleResult => ({ ...NO_RULE, warm });
  for (const mode of ['off', 'mark', 'now'] as const) {
    const { marks: all } = marks({ mode });
    t.same([all.modeOf(NO_RULE), all.decide(sized(1), NO_RULE)], [mode, mode]);
    for (const other of ['off', 'mark', 'now'] as const) {
      t.same([all.modeOf(rule(other)), all.decide(sized(1), rule(other))], [other, other]);
    }
  }
  t.end();
});

void t.test('marks are taken once, and the oldest go first', (t) => {
  const { marks: all } = marks();
  t.equal(all.takeMark(keyOf('a')), false);
  for (const key of ['a', 'b', 'c']) all.mark(keyOf(key));
  t.same(
    ['a', 'b', 'c', 'c'].map((key) => all.takeMark(keyOf(key))),
    [false, true, true, false],
  );
  t.end();
});

void t.test('a body that was fetched because of a HEAD is counted at its first use', async (t) => {
  const { marks: all, sample } = marks();
  const used = () => sample('edge_warm_used_total');
  all.used(keyOf('unknown'));
  t.equal(await used(), 0);
  for (const key of ['a', 'b', 'c']) all.started(keyOf(key));
  all.used(keyOf('a'));
  t.equal(await used(), 0, 'the oldest are forgotten');
  all.used(keyOf('b'));
  all.used(keyOf('b'));
  t.equal(await used(), 1);
  all.ended(keyOf('b'), true);
  all.started(keyOf('kept'));
  all.ended(keyOf('kept'), true);
  all.used(keyOf('kept'));
  t.equal(await used(), 2, 'a body that is stored is used later');
  all.ended(keyOf('c'), false);
  all.used(keyOf('c'));
  t.equal(await used(), 2, 'what was not stored is not used');
  t.same(
    [
      await sample('edge_warm_bodies_total{outcome="kept"}'),
      await sample('edge_warm_bodies_total{outcome="not_kept"}'),
    ],
    [2, 1],
  );
});

void t.test('that a response cannot be shared is remembered for a while, the latest of them', (t) => {
  const clock = new ManualClock();
  const memory = createUncacheableMemory(() => ({ aloneMax: 2, aloneMs: 1_000 }), clock);
  memory.remember('a', 'private');
  memory.remember('b', 'large');
  memory.remember('a', 'large');
  t.same([memory.recall('a'), memory.recall('b'), memory.recall('c')], ['large', 'large', undefined]);
  memory.remember('c', 'private');
  t.same([memory.recall('a'), memory.recall('b'), memory.recall('c')], ['large', undefined, 'private']);
  clock.advance(999);
  t.equal(memory.recall('c'), 'private');
  memory.remember('c', 'private');
  clock.advance(1);
  t.same([memory.recall('a'), memory.recall('c')], [undefined, 'private']);
  memory.forget('c');
  t.equal(memory.recall('c'), undefined);
  let aloneMs = 1_000;
  const changed = createUncacheableMemory(() => ({ aloneMax: 2, aloneMs }), clock);
  changed.remember('a', 'private');
  changed.remember('b', 'private');
  aloneMs = 0;
  for (const key of ['c', 'd', 'a']) changed.remember(key, 'private');
  t.same(
    ['a', 'b', 'c', 'd'].map((key) => changed.recall(key)),
    [undefined, 'private', undefined, undefined],
    'what is not remembered takes no room',
  );
  t.end();
});

void t.test('that an id is not there is remembered for a moment, and what says more is not replaced by less', (t) => {
  const clock = new ManualClock();
  let absentMs = 1_000;
  const absences = createAbsences(() => ({ absentMax: 2, absentMs }), clock);
  const [one, two, three] = [mediaIdOf(1), mediaIdOf(2), mediaIdOf(3)];
  absences.remember(one, 'closed');
  absences.remember(two, 'unknown');
  absences.remember(two, 'closed');
  t.same([absences.recall(one), absences.recall(two), absences.recall(three)], ['closed', 'unknown', undefined]);
  absences.remember(one, 'unknown');
  t.equal(absences.recall(one), 'unknown');
  absences.remember(three, 'closed');
  t.same([absences.recall(one), absences.recall(two), absences.recall(three)], ['unknown', undefined, 'closed']);
  clock.advance(999);
  t.equal(absences.recall(three), 'closed');
  clock.advance(1);
  t.same([absences.recall(one), absences.recall(three)], [undefined, undefined]);
  absences.remember(one, 'unknown');
  absences.remember(two, 'unknown');
  absences.forget(one);
  t.same([absences.recall(one), absences.recall(two)], [undefined, 'unknown']);
  absences.clear();
  t.equal(absences.recall(two), undefined);
  absences.remember(one, 'unknown');
  absences.remember(three, 'unknown');
  absentMs = 0;
  for (const id of [two, mediaIdOf(4), one]) absences.remember(id, 'unknown');
  t.same(
    [absences.recall(one), absences.recall(two), absences.recall(three)],
    [undefined, undefined, 'unknown'],
    'what is not remembered takes no room',
  );
  t.end();
});

const readRules = (rules: readonly object[]): readonly Rule[] => rulesField.schema(processContext).parse(rules);

void t.test('the first rule that matches decides, by path, type and size', (t) => {
  const image = [['content-type', 'Image/PNG; charset=x']] as const;
  const matches = (rule: object, subject: Partial<Parameters<typeof applyRules>[1]>): boolean => {
    const rules = readRules([{ ...rule, ttl: '7s' }]);
    return applyRules(rules, { pathKind: 'original', headers: image, sizeBytes: 10, ...subject }).ttlMs === 7_000;
  };
  const cases: readonly (readonly [what: string, rule: object, subject: object, matches: boolean])[] = [
    ['everything', {}, {}, true],
    ['its kind of path', { path: 'original' }, {}, true],
    ['another kind of path', { path: 'thumb' }, {}, false],
    ['its type, whatever its case and parameters', { type: 'image/png' }, {}, true],
    ['a longer type', { type: 'image/pn' }, {}, false],
    ['any image', { type: 'image/*' }, {}, true],
    ['any video', { type: 'video/*' }, {}, false],
    ['any type, without one', { type: '*/*' }, { headers: [] }, true],
    ['an image, without a type', { type: 'image/*' }, { headers: [] }, false],
    ['from its size', { from: '10B' }, {}, true],
    ['from a byte more', { from: '11B' }, {}, false],
    ['to its size', { to: '10B' }, {}, true],
    ['to a byte less', { to: '9B' }, {}, false],
    ['from a size, of unknown size', { from: '1GB' }, { sizeBytes: null }, true],
    ['to a size, of unknown size', { to: '1B' }, { sizeBytes: null }, true],
  ];
  for (const [what, rule, subject, wanted] of cases) t.equal(matches(rule, subject), wanted, what);
  const rules = readRules([{ path: 'thumb', ttl: '1s' }, { ttl: '2s' }, { ttl: '3s' }]);
  t.equal(applyRules(rules, { pathKind: 'original', headers: [], sizeBytes: 1 }).ttlMs, 2_000);
  t.end();
});

void t.test('a rule says all that it sets, and leaves the rest to the origin', (t) => {
  const of = (rule: object): RuleResult =>
    applyRules(readRules([rule]), { pathKind: 'other', headers: [], sizeBytes: 1 });
  const nothing = { ttlMs: null, staleWhileRevalidateMs: null, staleIfErrorMs: null, warm: 'as_set' };
  const both = { memory: true, disk: true };
  t.strictSame(NO_RULE, { ...nothing, tiers: both } as RuleResult);
  t.strictSame(of({}), { ...nothing, tiers: both } as RuleResult);
  t.strictSame(
    of({
      ttl: '1s',
      stale_while_revalidate: '2s',
      stale_if_error: '3s',
      tiers: 'memory',
      admission: 'second_hit',
      warm: 'off',
    }),
    {
      ttlMs: 1_000,
      staleWhileRevalidateMs: 2_000,
      staleIfErrorMs: 3_000,
      tiers: { memory: true, disk: false, admission: 'second_hit' },
      warm: 'off',
    },
  );
  t.strictSame(of({ tiers: 'disk' }).tiers, { memory: false, disk: true });
  t.strictSame(of({ tiers: 'none' }).tiers, { memory: false, disk: false });
  t.end();
});

void t.test('a stored response is matched by its own path, type and size', (t) => {
  const rules = readRules([{ path: 'thumb', type: 'image/webp', from: '5B', to: '6B', ttl: '1s' }]);
  const id = mediaIdOf(1);
  const thumb = entryOf('k', bytesOf(5), {
    mediaId: id,
    primaryKey: `/v1/media/${id}/thumb?w=1&h=1#webp`,
    headers: [['content-type', 'image/webp']],
  });
  const ttl = (entry: typeof thumb): number | null => applyRulesTo(entry, rules).ttlMs;
  t.equal(ttl(thumb), 1_000);
  t.equal(ttl({ ...thumb, primaryKey: `/v1/media/${id}` }), null, 'the original');
  t.equal(ttl({ ...thumb, mediaId: null }), null, 'no media');
  t.equal(ttl({ ...thumb, headers: [] }), null);
  t.equal(ttl({ ...thumb, sizeBytes: 7 }), null);
  t.end();
});
