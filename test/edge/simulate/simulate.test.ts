/** Traces that are simulated: the figures are those of the live edge, and follow the configuration. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { runSimulate, type SimulateWords } from '../../../edge/simulate/command.js';
import { sweepPage, sweepSvg } from '../../../edge/simulate/draw.js';
import { readTraces } from '../../../edge/simulate/read-trace.js';
import { replay } from '../../../edge/simulate/replay.js';
import { caveatsOf, simulatedEdge } from '../../../edge/simulate/settings.js';
import { sweep } from '../../../edge/simulate/sweep.js';
import type { Tally } from '../../../edge/simulate/tally.js';
import {
  encodeHeader,
  encodeResponse,
  LISTS,
  type TracedRequest,
  type TracedResponse,
  type TraceEvent,
  writeEvent,
  writeRequest,
} from '../../../edge/trace/format.js';
import { configOf, type EdgeKeys, readTracesIn, serveTraced } from '../../kit/edge/traced-edge.js';
import { seeded } from '../../kit/random.js';
import { FILE_HANGS_AFTER_MS } from '../../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const NEVER = new AbortController().signal;
const quiet = { skip: 0, signal: NEVER, progress: () => undefined };

void t.test('a trace that is replayed with the same configuration has the hit ratios of the live edge', async (t) => {
  const folder = t.testdir();
  const keys: EdgeKeys = {
    cache: {
      memory: { size: '200KB', max_object: '10KB' },
      disk: { size: '700KB', fill_room: '200KB', min_free: '0B', commit_within: '0ms' },
    },
    rules: [
      { type: 'video/*', tiers: 'disk' },
      { type: 'application/pdf', from: '2KB', tiers: 'none' },
    ],
  };
  const load = { seed: 1, requests: 700, objects: 250, sizeMaxBytes: 16_000, clients: 1 };
  const live = await serveTraced(folder, keys, load);
  t.ok(live.evictions.memory > 0 && live.evictions.disk > 0, 'both tiers evicted something');
  const tally = await replay(await readTracesIn(folder), simulatedEdge(configOf(keys)), quiet);
  t.equal(tally.requests, load.requests, 'every request was recorded');
  t.same(tally.recordedRatios, { requests: live.objects, bytes: live.bytes }, 'as the edge counts them');
  t.ok(Math.abs((tally.ratios.requests ?? 0) - live.objects) < 0.005, `${tally.ratios.requests} for ${live.objects}`);
  t.ok(Math.abs((tally.ratios.bytes ?? 0) - live.bytes) < 0.005, `${tally.ratios.bytes} for ${live.bytes}`);
});

const BEGIN = Date.UTC(2026, 0, 1);
const HOUR = 3_600_000;

type Step = Partial<TracedResponse> &
  Partial<TracedRequest> & { readonly key: string; readonly atMs?: number; readonly event?: TraceEvent };

const RESPONSE: TracedResponse = {
  cacheable: true,
  path: 'original',
  type: 'image/png',
  sizeBytes: 1_000,
  content: 1,
  ageMs: 0,
  memoryHeadBytes: 100,
  diskHeadBytes: 100,
  stated: {
    lifetimeMs: HOUR,
    staleWhileRevalidateMs: null,
    staleIfErrorMs: null,
    provisional: false,
    neverFresh: false,
    forbidsStale: false,
  },
};

/** A file of such events. */
function traceOf(steps: readonly Step[], sampleShare = 1): Buffer {
  const records = steps.map(({ key, atMs = 0, event = 'request', ...facts }) => {
    const response = {
      ...RESPONSE,
      ...facts,
      stated: {
        ...RESPONSE.stated,
        ...facts.stated,
      },
    } as TracedResponse;
    const hash = Buffer.alloc(8);
    hash.write(key, 3);
    const record = encodeResponse(hash, response);
    const { outcome = 'miss', head = false, demanded = false, sentBytes = response.sizeBytes } = facts;
    if (event === 'request') writeRequest(record, 0, BEGIN + atMs, { outcome, head, demanded, sentBytes });
    else writeEvent(record, 0, BEGIN + atMs, event);
    return record;
  });
  return Buffer.concat([encodeHeader({ keyId: 'k', sampleShare, lists: LISTS }), ...records]);
}

async function simulated(folder: string, steps: readonly Step[], keys: EdgeKeys = {}, sampleShare = 1): Promise<Tally> {
  const path = join(folder, 'steps.trace');
  await writeFile(path, traceOf(steps, sampleShare));
  const trace = await readTraces([path], { sampleShare: 1, signal: NEVER, progress: () => undefined });
  return replay(trace, simulatedEdge(configOf(keys)), quiet);
}

/** How often each ending came, and what the origin sent. */
function endings(tally: Tally): string {
  const of = (outcome: 'hit_memory' | 'hit_disk' | 'stale' | 'revalidated' | 'miss'): number =>
    Math.round((tally.share([outcome], 'requests', 'simulated') ?? 0) * tally.requests);
  const counts = (['hit_memory', 'hit_disk', 'stale', 'revalidated', 'miss'] as const).map(of);
  return `${counts.join(' ')}, ${tally.originRequests} of ${tally.originBytes} B`;
}

void t.test('what the simulated cache does with each kind of event', async (t) => {
  const age = (ms: number, stated: Partial<TracedResponse['stated']> = {}): readonly Step[] => [
    { key: 'a', stated: stated as never },
    { key: 'a', atMs: ms, stated: stated as never },
  ];
  const rows: readonly (readonly [what: string, endings: string, steps: readonly Step[], keys?: EdgeKeys])[] = [
    ['a fresh response is a hit', '1 0 0 0 1, 1 of 1000 B', age(HOUR - 1)],
    ['a stale one is revalidated', '0 0 0 1 1, 2 of 1000 B', age(HOUR)],
    [
      'one that came with an age is stale earlier',
      '0 0 0 1 1, 2 of 1000 B',
      age(HOUR - 2_000).map((each) => ({ ...each, ageMs: 3_000 })),
    ],
    [
      'it may be stale while it is revalidated',
      '0 0 1 0 1, 2 of 1000 B',
      age(HOUR, { staleWhileRevalidateMs: 60_000 }),
    ],
    ['or by the configuration', '0 0 1 0 1, 2 of 1000 B', age(HOUR), { freshness: { stale_while_revalidate: '1m' } }],
    [
      'a rule makes it fresh for longer',
      '1 0 0 0 1, 1 of 1000 B',
      age(2 * HOUR),
      { rules: [{ type: 'image/*', ttl: '3h' }] },
    ],
    [
      'a rule for another kind does not',
      '0 0 0 1 1, 2 of 1000 B',
      age(2 * HOUR),
      { rules: [{ path: 'thumb', ttl: '3h' }] },
    ],
    [
      'nor what is provisional',
      '0 0 0 1 1, 2 of 1000 B',
      age(2 * HOUR, { provisional: true }),
      { rules: [{ ttl: '3h' }] },
    ],
    [
      'other content is fetched when the copy is stale',
      '0 0 0 0 2, 2 of 2000 B',
      age(HOUR).map((each, at) => ({ ...each, content: at })),
    ],
    ['a client may demand a newer one', '0 0 0 1 1, 2 of 1000 B', [{ key: 'a' }, { key: 'a', demanded: true }]],
    [
      'a HEAD that misses fetches no body',
      '0 0 0 0 2, 2 of 1000 B',
      [{ key: 'a', head: true, sentBytes: 0 }, { key: 'a' }],
    ],
    ['a body that was warmed is there', '1 0 0 0 0, 1 of 1000 B', [{ key: 'a', event: 'warmed' }, { key: 'a' }]],
    ['and is warmed once', '1 0 0 0 1, 1 of 1000 B', [{ key: 'a' }, { key: 'a', event: 'warmed' }, { key: 'a' }]],
    [
      'what was dropped is missed',
      '1 0 0 0 2, 2 of 2000 B',
      [{ key: 'a' }, { key: 'b', event: 'dropped' }, { key: 'a' }, { key: 'a', event: 'dropped' }, { key: 'a' }],
    ],
    [
      'so is all that was purged',
      '0 0 0 0 4, 4 of 4000 B',
      [{ key: 'a' }, { key: 'b' }, { key: '', event: 'emptied' }, { key: 'a' }, { key: 'b' }],
    ],
    [
      'what could not be stored is missed',
      '0 0 0 0 2, 2 of 14 B',
      [
        { key: 'a', cacheable: false, sentBytes: 7 },
        { key: 'a', cacheable: false, sentBytes: 7 },
      ],
    ],
    [
      'a rule may keep it out of both tiers',
      '0 0 0 0 2, 2 of 2000 B',
      age(1),
      { rules: [{ type: 'image/png', tiers: 'none' }] },
    ],
    ['or out of memory', '0 1 0 0 1, 1 of 1000 B', age(1), { rules: [{ from: '1KB', tiers: 'disk' }] }],
    [
      'the largest body counts in each tier',
      '0 1 0 0 1, 1 of 1000 B',
      age(1),
      { cache: { memory: { max_object: '999B' } } },
    ],
    [
      'and for fills',
      '0 0 0 0 2, 2 of 4000 B',
      age(1).map((each) => ({ ...each, sizeBytes: 2_000 })),
      { fill: { object_max: '1999B' } },
    ],
    [
      'without memory, the disk answers',
      '0 2 0 0 1, 1 of 1000 B',
      [...age(1), { key: 'a', atMs: 2 }],
      { cache: { memory: { size: '0B' } } },
    ],
    [
      'a tier that is too small answers nothing',
      '0 0 0 0 2, 2 of 2000 B',
      age(1),
      { cache: { memory: { size: '2KB' }, disk: { size: '0B' } } },
    ],
    [
      'on disk at the second request only',
      '0 1 0 0 2, 2 of 2000 B',
      [...age(1), { key: 'a', atMs: 2 }],
      { cache: { memory: { size: '0B' }, disk: { admission: 'second_hit' } } },
    ],
    [
      'a rule may say so too',
      '0 1 0 0 2, 2 of 2000 B',
      [...age(1), { key: 'a', atMs: 2 }],
      { rules: [{ tiers: 'disk', admission: 'second_hit' }] },
    ],
    [
      'what was found on disk is in memory then',
      '1 1 0 0 3, 3 of 3000 B',
      ['a', 'b', 'c', 'a', 'a'].map((key) => ({ key })),
      { cache: { memory: { size: '5KB', policy: 'lru' } } },
    ],
  ];
  const folder = t.testdir();
  for (const [what, wanted, steps, keys] of rows) t.equal(endings(await simulated(folder, steps, keys)), wanted, what);
});

void t.test('the sizes of tiers follow the sample, and totals are those of all keys', async (t) => {
  // Room for ten of them in memory: for five, of a sample of half.
  const twice = Array.from({ length: 16 }, (_, at) => ({ key: `k${at % 8}` }));
  const keys: EdgeKeys = { cache: { memory: { size: '34KB', policy: 'fifo' }, disk: { size: '0B' } } };
  const folder = t.testdir();
  t.equal(endings(await simulated(folder, twice, keys)), '8 0 0 0 8, 8 of 8000 B');
  t.equal(endings(await simulated(folder, twice, keys, 0.5)), '0 0 0 0 16, 16 of 16000 B');
});

void t.test('what a simulation cannot show is said', async (t) => {
  const edge = simulatedEdge(configOf({ rules: [{ type: 'image/png' }, { type: 'model/stl' }, { type: 'model/*' }] }));
  t.match(caveatsOf(edge, 1), [/^rule 2 selects model\/stl/]);
  t.match(caveatsOf(edge, 0.01).slice(1), [/memory tier/]);
  t.equal(caveatsOf(edge, 0.5).length, 1);
});

/** Requests of which the lower numbers come more often. */
function someSteps(count: number): readonly Step[] {
  const random = seeded(3);
  return Array.from({ length: count }, (_, atMs) => ({ key: `k${Math.floor(60 ** random())}`, atMs }));
}

void t.test('a sweep draws each policy in its own look, with axes, units and figures', async (t) => {
  const folder = t.testdir({ 'a.trace': traceOf(someSteps(400)) });
  const trace = await readTraces([folder], { sampleShare: 1, signal: NEVER, progress: () => undefined });
  const config = configOf({ cache: { memory: { size: '20KB' }, disk: { size: '0B' } } });
  const swept = await sweep(trace, { config, today: config, tier: 'memory', ...quiet });
  for (const { policy, points } of swept.curves) {
    t.ok((points.at(-1)?.objects ?? 0) > 0.8, `${policy}: the largest tier has room for everything`);
    t.ok((points[0]?.objects ?? 1) < 0.5, `${policy}: the smallest has not`);
    t.equal(points.length, swept.curves[0]?.points.length);
  }
  const svg = sweepSvg(swept);
  for (const word of [
    'Object hit ratio, %',
    'Byte hit ratio, %',
    'size of the memory tier',
    'kB<',
    'today, new',
    'no disk tier',
  ]) {
    t.ok(svg.includes(word), word);
  }
  const marks = new Set(
    [...svg.matchAll(/class="mark" transform="translate\(22 0\)" d="([^"]+)"/g)].map(([, mark]) => mark),
  );
  t.equal(marks.size, swept.curves.length, 'each policy has another mark');
  t.notMatch(svg + sweepPage(swept, []), /NaN|undefined|<script|href=/);
  t.match(sweepPage(swept, ['a <note>']), /a &lt;note&gt;[\s\S]*<caption>Byte hit ratio/);
  t.equal(sweepPage(swept, []).match(/<tr>/g)?.length, 2 * (1 + (swept.curves[0]?.points.length ?? 0)));
});

void t.test('the command compares two configurations, and says in a sentence what is wrong', async (t) => {
  const folder = t.testdir({
    'a.trace': traceOf(someSteps(400)),
    'empty.trace': traceOf([]),
    'other.trace': 'no trace',
    'small.yaml': 'edge: { cache: { memory: { size: 20KB }, disk: { size: 0B } }, operators: { token: env:NOT_HERE } }',
    'wrong.yaml': 'edge: { cache: { memory: { polcy: lru } } }',
    none: {},
  });
  const run = async (changes: Partial<SimulateWords>, signal = NEVER) => {
    const printed: string[] = [];
    const words = { traces: [join(folder, 'a.trace')], config: undefined, today: join(folder, 'small.yaml') };
    const rest = { skip: '0', sample: '1', json: false, sweep: undefined, tier: undefined };
    const say = (line: string): void => void printed.push(line);
    const tools = { print: say, complain: say, progress: () => undefined, signal };
    return { code: await runSimulate(tools, { ...words, ...rest, ...changes }), text: printed.join('\n') };
  };
  const plain = await run({});
  t.equal(plain.code, 0);
  t.match(plain.text, /trace: 400 requests for \d+ keys, 400 kB sent, 2026-01-01T00:00:00/);
  t.match(plain.text, /object hit ratio +0\.00 % +\d+\.\d\d % +8\d\.\d\d %/);
  const data = JSON.parse((await run({ json: true, skip: '50%' })).text) as Record<string, Record<string, number>>;
  t.equal(data['requests'], 200, 'what fills the caches is not counted');
  t.ok((data['new']?.['object_hit_ratio'] ?? 0) > (data['today']?.['object_hit_ratio'] ?? 1));
  const path = join(folder, 'drawn');
  t.match(await run({ sweep: path }), { code: 0, text: /drawn\.svg and .*drawn\.html: .* of the disk tier/ });
  t.match(await readFile(`${path}.svg`, 'utf8'), /^<svg /);
  t.match(await readFile(`${path}.html`, 'utf8'), /^<!doctype html>/);
  for (const [changes, code, says] of [
    [{ traces: [join(folder, 'missing')] }, 1, /no such file or directory/],
    [{ traces: [join(folder, 'none')] }, 1, /There is no file \*\.trace in /],
    [{ traces: [join(folder, 'other.trace')] }, 1, /other\.trace cannot be read: it is not a trace\./],
    [{ traces: [join(folder, 'empty.trace')] }, 1, /The trace has no requests\./],
    [{ skip: 'most' }, 1, /--skip most: must be a share such as 20% or 0\.2\./],
    [{ skip: '101%' }, 1, /--skip 101%/],
    [{ sample: '0' }, 1, /Nothing would be left/],
    [
      { config: join(folder, 'wrong.yaml') },
      2,
      /wrong\.yaml cannot be used:\n.*`polcy` is not a key.*did you mean `policy`/,
    ],
    [{ sweep: join(folder, 'not', 'there') }, 1, /no such file or directory/],
  ] as const) {
    const { code: ended, text } = await run(changes);
    t.equal(ended, code, text);
    t.match(text, says);
  }
  const stopped = new AbortController();
  stopped.abort(new Error('stopped'));
  await t.rejects(run({}, stopped.signal), /stopped/);
});
