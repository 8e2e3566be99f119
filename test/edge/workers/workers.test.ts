import { once } from 'node:events';
import { PassThrough, Readable, Writable } from 'node:stream';
import fc from 'fast-check';
import t from 'tap';
import { edgeFaults, edgeSection } from '../../../edge/config.js';
import { type Applied, fence } from '../../../edge/journal/fence.js';
import { createTraffic } from '../../../edge/ops/traffic.js';
import { workerCount } from '../../../edge/workers/count.js';
import { failuresAfter, forwardLines, outputTo, restartPauseMs } from '../../../edge/workers/crew.js';
import type { WorkerFigures } from '../../../edge/workers/messages.js';
import { ownerOf, shareOf } from '../../../edge/workers/share.js';
import {
  furthestBehind,
  sumOfCaches,
  sumOfCounts,
  sumOfFirstBytes,
  sumOfUpstreams,
} from '../../../edge/workers/sums.js';
import type { JournalEntry } from '../../../src/journal/entry.js';
import { readPosition, writePosition } from '../../../src/journal/position-field.js';
import { createMetrics, renderTogether } from '../../../src/metrics.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';

const NEVER = new AbortController().signal;

void t.test('each worker has a name and a folder of its own, and together they have what the edge has', async (t) => {
  const whole = configured(edgeSection, { name: 'north' });
  const [first, second] = [1, 2].map((number) => shareOf(whole, { number, of: 2 }));
  t.same([first?.name, second?.name], ['north-1', 'north-2']);
  t.not(first?.cache.folder, second?.cache.folder, 'one process at a time may use a folder');
  t.equal(first?.operators.enabled, false, 'the parent answers operators');
  t.equal(first?.listen.port, whole.listen.port);
  t.equal(first?.rateLimits.enabled, whole.rateLimits.enabled);
  for (const [name, of] of Object.entries<(config: typeof whole) => number>({
    memory: ({ cache }) => cache.memory.sizeBytes,
    disk: ({ cache }) => cache.disk.sizeBytes,
    'bodies that arrive': ({ cache }) => cache.fill.memoryBytes,
    'room for fills': ({ cache }) => cache.disk.fillRoomBytes,
    'parts of bodies': ({ cache }) => cache.parts.sizeBytes,
    stores: ({ cache }) => cache.disk.storesMax,
    verification: ({ cache }) => cache.disk.verifyPerSecondBytes,
    connections: ({ listen }) => listen.limits.connectionsMax,
    'connections to the origin': ({ upstream }) => upstream.connectionsMax,
    'requests that wait': ({ upstream }) => upstream.waitingMax,
    'slow clients': ({ upstream }) => upstream.slowMax,
    'bytes ahead': ({ upstream }) => upstream.ahead.totalBytes,
    fetches: ({ fill }) => fill.concurrentMax,
    warming: ({ warm }) => warm.concurrentMax,
    passing: ({ pass }) => pass.concurrentMax,
    'places of admins': ({ pass }) => pass.reservedMax,
    drains: ({ pass }) => pass.drainsMax,
    'files of a trace': ({ trace }) => trace.filesMax,
    'records that wait': ({ trace }) => trace.waitingMaxBytes,
  })) {
    t.equal(first && of(first), of(whole) / 2, name);
  }
  const odd = shareOf(configured(edgeSection, {}), { number: 1, of: 3 });
  t.ok(3 * odd.listen.limits.connectionsMax >= whole.listen.limits.connectionsMax, 'a share of a number is rounded up');
  t.ok(3 * odd.cache.memory.sizeBytes <= whole.cache.memory.sizeBytes, 'and one of bytes down');
});

void t.test('a cache that is off stays off for each worker', async (t) => {
  const whole = configured(edgeSection, {});
  const { cache } = shareOf(
    { ...whole, cache: { ...whole.cache, memory: { ...whole.cache.memory, sizeBytes: 0 } } },
    { number: 1, of: 4 },
  );
  t.equal(cache.memory.sizeBytes, 0);
});

void t.test('the number of workers', async (t) => {
  t.equal(workerCount({ workers: 3 }), 3);
  t.ok(workerCount({ workers: 'auto' }) >= 1);
  const named = (length: number, workers: number) =>
    edgeFaults(configured(edgeSection, { name: 'x'.repeat(length), workers })).map(({ path }) => path);
  t.same(named(64, 1), []);
  t.same(named(61, 2), []);
  t.same(named(62, 2), ['edge.name'], 'the number of a worker is added to the name');
});

void t.test(
  'every target has one owner, the same for all that is stored under it, and owners have equal shares',
  async (t) => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 1, max: 64 }), (target, of) => {
        const owner = ownerOf(target, of);
        return (
          Number.isInteger(owner) &&
          owner >= 1 &&
          owner <= of &&
          (target.includes('#') || ownerOf(`${target}#webp`, of) === owner)
        );
      }),
    );
    for (const of of [2, 3, 8]) {
      const counts = new Map<number, number>();
      for (let at = 0; at < 8_000; at += 1) {
        const owner = ownerOf(`/v1/media/01M8FYZH2PHKEG0MEAVHADX${at.toString(32).padStart(3, '0').toUpperCase()}`, of);
        counts.set(owner, (counts.get(owner) ?? 0) + 1);
      }
      for (const [owner, count] of counts) t.ok(Math.abs(count - 8_000 / of) < 800 / of, `${owner} of ${of}: ${count}`);
    }
  },
);

void t.test('a position in the journal survives its way as a field', async (t) => {
  const position = fc.record({
    journal: fc.string({ minLength: 1 }),
    seq: fc.nat(),
    mark: fc.option(fc.string({ minLength: 1 })),
  });
  fc.assert(
    fc.property(position, (each) => {
      t.same(readPosition(writePosition(each)), each);
    }),
    { numRuns: 50 },
  );
  for (const text of ['', 'a', 'a/1', 'a/x/m', 'a/-1/m', 'a/1/m/n', 'a//m', '%/1/m', `a/${'9'.repeat(16)}/m`]) {
    t.equal(readPosition(text), undefined, text);
  }
});

class FakeApplied implements Applied {
  name = 'journal';
  seq = 5;
  readonly marks = new Map([[5, 'five']]);
  readonly listeners = new Set<(entry: JournalEntry) => void>();
  newest = () => this.seq;
  markOf = (seq: number) => this.marks.get(seq);
  subscribe(listener: (entry: JournalEntry) => void) {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
  apply(seq: number, mark: string): void {
    this.seq = seq;
    this.marks.set(seq, mark);
    for (const listener of this.listeners) listener({ seq, mark, at: 0, cause: 'delete', ids: [] });
  }
}

void t.test('a worker answers another one once it is as far in the journal', async (t) => {
  const asking = (value: string | undefined) => ({ header: () => value });
  const at = (seq: number, mark: string | null = null, journal = 'journal') =>
    asking(writePosition({ journal, seq, mark }));
  const refused = { code: 'misdirected', status: 421 };

  await t.test('at once where it is', async (t) => {
    const applied = new FakeApplied();
    const clock = new ManualClock();
    for (const request of [at(5, 'five'), at(5), at(3, 'forgotten here'), at(0)]) {
      t.equal(
        fence(applied, request, clock, () => NEVER),
        undefined,
      );
    }
    t.equal(
      fence(null, asking(undefined), clock, () => NEVER),
      undefined,
      'without a journal',
    );
  });

  await t.test('never where the histories differ, or the position is missing', async (t) => {
    const applied = new FakeApplied();
    for (const request of [at(5, 'other'), at(5, null, 'elsewhere'), asking(undefined), asking('x')]) {
      t.throws(() => fence(applied, request, new ManualClock(), () => NEVER), refused);
    }
  });

  await t.test('after it has caught up', async (t) => {
    const applied = new FakeApplied();
    const waiting = fence(applied, at(7, 'seven'), new ManualClock(), () => NEVER);
    let isThrough = false;
    void waiting?.then(() => (isThrough = true));
    applied.apply(6, 'six');
    await new Promise(setImmediate);
    t.notOk(isThrough, 'one entry is missing');
    applied.apply(7, 'seven');
    await waiting;
    t.ok(isThrough);
    t.equal(applied.listeners.size, 0);
  });

  await t.test('not where it catches up with another history, is late, or nobody waits any more', async (t) => {
    const applied = new FakeApplied();
    const clock = new ManualClock();
    const other = t.rejects(fence(applied, at(6, 'six'), clock, () => NEVER) ?? Promise.resolve(), refused);
    applied.apply(6, 'another six');
    await other;
    const late = t.rejects(fence(applied, at(9), clock, () => NEVER) ?? Promise.resolve(), refused);
    await clock.advanceAsync(500);
    await late;
    const leaving = new AbortController();
    const left = t.rejects(fence(applied, at(9), clock, () => leaving.signal) ?? Promise.resolve(), {
      message: 'gone',
    });
    leaving.abort(new Error('gone'));
    await left;
    t.equal(applied.listeners.size, 0);
  });
});

const TIER = { entries: 1, usedBytes: 10, capacityBytes: 100, evictions: 3, refused: 2 };

void t.test('the figures of workers become those of one edge', async (t) => {
  const counts = sumOfCounts([]);
  t.equal(counts.hit_memory.requests, 0);
  const one = { ...counts, hit_memory: { requests: 2, bytes: 20 }, miss: { requests: 1, bytes: 5 } };
  t.match(sumOfCounts([one, one]), { hit_memory: { requests: 4, bytes: 40 }, miss: { requests: 2, bytes: 10 } });
  const cache = { memory: TIER, disk: TIER, incomplete: TIER, fills: 1, corrupt: 2, recovered: 4, openFiles: 5 };
  const doubled = { entries: 2, usedBytes: 20, capacityBytes: 200, evictions: 6, refused: 4 };
  const times = { ...createTraffic(testDeps().metrics).firstByte(), miss: [1, 2], failed: [0, 1] };
  t.match(sumOfFirstBytes([times, times]), { miss: [2, 4], failed: [0, 2], pass: [0, 0] });
  t.same(sumOfCaches([cache, cache]), {
    memory: doubled,
    disk: doubled,
    incomplete: doubled,
    fills: 2,
    corrupt: 4,
    recovered: 8,
    openFiles: 10,
  });
  const origin = { url: 'http://origin:9000', state: 'up', followed: false, requests: 2, failures: 3 } as const;
  const upstream = { breaker: 'closed', inFlight: 1, requests: 2, failures: 3, origins: [origin] } as const;
  const away = { ...upstream, breaker: 'open', origins: [{ ...origin, state: 'down', followed: true }] } as const;
  t.same(sumOfUpstreams([upstream, away]), {
    breaker: 'open',
    inFlight: 2,
    requests: 4,
    failures: 6,
    origins: [{ ...origin, state: 'down', followed: true, requests: 4, failures: 6 }],
  });
  t.equal(sumOfUpstreams([upstream, upstream]).breaker, 'closed');
});

void t.test('the journal and the lease shown are those of the worker that is furthest behind', async (t) => {
  const figures = (link: string, lease: string, applied: number | null) =>
    ({ journal: { link, applied }, lease: { state: { kind: lease } } }) as unknown as WorkerFigures;
  const cases: readonly (readonly [string, readonly WorkerFigures[]])[] = [
    ['not connected', [figures('current', 'held', 9), figures('waiting', 'held', 99)]],
    ['without a lease', [figures('current', 'held', 9), figures('current', 'lapsed', 99)]],
    ['a lower number', [figures('current', 'held', 9), figures('current', 'held', 8)]],
    ['no number yet', [figures('current', 'held', 9), figures('current', 'held', null)]],
  ];
  for (const [name, [other, behind]] of cases) {
    for (const all of [
      [other, behind],
      [behind, other],
    ] as readonly (readonly WorkerFigures[])[]) {
      t.same(furthestBehind(all), { journal: behind?.journal, lease: behind?.lease }, name);
    }
  }
  t.same(furthestBehind([]), { journal: null, lease: null });
});

void t.test('metrics of several processes are added up, or the least or the most is taken', async (t) => {
  const snapshots = await Promise.all(
    [3, 5].map(async (value) => {
      const metrics = createMetrics('x_');
      metrics.counter('events_total', 'Events.', ['kind']).add(value, { kind: 'a' });
      for (const across of ['sum', 'min', 'max'] as const) metrics.gauge(across, 'A gauge.', [], across).set(value);
      metrics.gauge('read', 'Set when it is read.');
      metrics.histogram('took', 'A time.', [4]).observe(value);
      return await metrics.snapshot();
    }),
  );
  const { text, contentType } = await renderTogether(snapshots);
  t.match(contentType, /^text\/plain/);
  for (const line of [
    'x_events_total{kind="a"} 8',
    'x_sum 8',
    'x_min 3',
    'x_max 5',
    'x_took_bucket{le="4"} 1',
    'x_took_count 2',
  ]) {
    t.ok(text.split('\n').includes(line), line);
  }
});

void t.test('lines of a worker are passed on whole', async (t) => {
  const [from, written] = [new PassThrough(), [] as string[]];
  let goOn = (): void => undefined;
  const to = new Writable({
    highWaterMark: 1,
    write(chunk: Buffer, _encoding, done) {
      written.push(chunk.toString());
      goOn = done;
    },
  });
  forwardLines(from, to);
  from.write('{"a":');
  await new Promise(setImmediate);
  t.same(written, [], 'half a line waits');
  from.write('1}\n{"b":2}\n{"c"');
  await new Promise(setImmediate);
  t.same(written, ['{"a":1}\n{"b":2}\n']);
  t.ok(from.isPaused(), 'while the output is slow, the worker waits');
  goOn();
  await once(from, 'resume');
  from.end(':3}');
  await once(from, 'end');
  await new Promise(setImmediate);
  t.same(written.slice(1), ['{"c":3}'], 'the rest comes at the end');
});

void t.test('a stream that ends with a whole line has no rest', async (t) => {
  const written: string[] = [];
  const to = new Writable({
    write(chunk: Buffer, _encoding, done) {
      written.push(chunk.toString());
      done();
    },
  });
  const from = Readable.from([Buffer.from('a\n')]);
  forwardLines(from, to);
  await once(from, 'end');
  await new Promise(setImmediate);
  t.same(written, ['a\n']);
});

void t.test(
  'a worker that ends at once again and again is started ever later, and one that ran well at once',
  async (t) => {
    let failures = 0;
    const pauses: number[] = [];
    for (const ranMs of [60_001, 10, 10, 60_000, 10, 10, 10, 10, 60_001, 10]) {
      failures = failuresAfter(failures, ranMs);
      pauses.push(restartPauseMs(failures));
    }
    t.same(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 500, 1_000]);
    t.equal(restartPauseMs(5_000), 30_000, 'never later than the longest pause');
  },
);

void t.test('a target keeps its owner over releases, so that what its disk has is found', async (t) => {
  const owners = ['/v1/media/01KDX', '/v1/media/01KDY', '/a?b=c', ''].map((target) => ownerOf(target, 1_000));
  t.same(owners, [734, 887, 482, 365]);
});

void t.test(
  'lines of workers go into the log of their parent, in the combined format each to its own place',
  async (t) => {
    const given: unknown[] = [];
    const log = { lines: (...line: readonly unknown[]) => void given.push(line) };
    outputTo(log, 'json').write(Buffer.from('{"a":1}\n{"b":2}\n'));
    outputTo(log, 'combined').write(Buffer.from('192.0.2.1 - - "GET / HTTP/1.1"\n{"b":2}\n'));
    t.same(given, [
      ['{"a":1}\n{"b":2}\n', 'requests'],
      ['192.0.2.1 - - "GET / HTTP/1.1"\n', 'requests'],
      ['{"b":2}\n', 'others'],
    ]);
  },
);
