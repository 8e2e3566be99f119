/** Reports of served media: what is noted, when it is sent, and what becomes of a report that fails. */
import { PassThrough } from 'node:stream';
import t from 'tap';
import type { Outcome } from '../../edge/request.js';
import type { UpstreamRequest } from '../../edge/upstream/request.js';
import { createUseReports, useReportsSection } from '../../edge/use-reports.js';
import type { MediaId } from '../../src/ids.js';
import { parseUseReport } from '../../src/journal/use-report.js';
import { ManualClock } from '../kit/clock.js';
import { configured, testDeps } from '../kit/deps.js';

const idOf = (at: number): MediaId => `01ARZ3NDEKTSV4RRFF${String(at).padStart(8, '0')}` as MediaId;
const EVERY = 60_000;

function bench({ mediaMax = 1_000, random = 1 } = {}) {
  const clock = new ManualClock();
  const deps = testDeps();
  const sent: {
    readonly request: Pick<UpstreamRequest, 'method' | 'target' | 'headers' | 'body'>;
    readonly signal: AbortSignal;
  }[] = [];
  /** How the origin answers; a number is a status. */
  const origin = { answer: 204 as number | 'refuses' | 'hangs' };
  const reports = createUseReports({
    config: configured(useReportsSection, { mediaMax, answerWithinMs: 5_000 }),
    upstream: {
      fetchOwn: (request, signal) => {
        sent.push({ request, signal });
        const { answer } = origin;
        if (answer === 'hangs')
          return new Promise((_, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error));
          });
        if (answer === 'refuses') return Promise.reject(new Error('refused'));
        const body = new PassThrough();
        body.end('x');
        return Promise.resolve({ status: answer, headers: [], body } as never);
      },
    },
    proof: () => 'the proof',
    clock,
    random: () => random,
    log: deps.log,
    metrics: deps.metrics,
  });
  return {
    ...deps,
    clock,
    sent,
    origin,
    want: (everyMs: number | undefined) => reports.want(everyMs),
    close: () => reports.close(),
    note: (at: number | null, outcome: Outcome = 'hit_memory', status = 200) =>
      reports.note({
        kind: 'reply',
        reply: { status, headers: [], body: { kind: 'none' } },
        outcome,
        mediaId: at === null ? null : idOf(at),
      } as never),
    /** The media of each report, by how long ago they were served. */
    told: () =>
      sent.map(({ request }) =>
        Object.fromEntries((parseUseReport(String(request.body))?.uses ?? []).map(({ agoMs, ids }) => [agoMs, ids])),
      ),
    settled: async () => {
      for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
    },
  };
}

void t.test('what the origin has not seen itself is reported, each once, at the interval that it wants', async (t) => {
  const { want, note, clock, sent, told, settled, sample } = bench();
  note(1);
  want(EVERY);
  const seen: Readonly<Record<Outcome, boolean>> = {
    hit_memory: false,
    hit_disk: false,
    hit_filling: false,
    stale: false,
    revalidated: true,
    miss: true,
    pass: true,
    refused: true,
    failed: true,
    own: true,
  };
  for (const [at, outcome] of (Object.keys(seen) as Outcome[]).entries()) {
    note(10 + at, outcome);
    note(10 + at, outcome);
  }
  note(30, 'hit_memory', 399);
  note(31, 'hit_memory', 400);
  note(32, 'hit_memory', 404);
  note(null);
  clock.advance(EVERY - 1);
  t.equal(sent.length, 0);
  clock.advance(1);
  await settled();
  t.strictSame(told(), [{ 0: [10, 11, 12, 13, 30].map(idOf) }]);
  const { request } = sent[0] as (typeof sent)[number];
  t.strictSame(
    [request.method, request.target, request.headers],
    [
      'POST',
      '/internal/v1/uses',
      [
        ['content-type', 'application/json'],
        ['edge-authorization', 'the proof'],
      ],
    ],
  );
  t.equal(await sample('edge_uses_told_total'), 5);
  t.equal(await sample('edge_use_reports_total{outcome="told"}'), 1);
  clock.advance(EVERY);
  await settled();
  t.equal(sent.length, 1, 'nothing was served since');
  note(10);
  clock.advance(EVERY);
  await settled();
  t.strictSame(told()[1], { 0: [idOf(10)] });
});

void t.test('edges report at different times, never later than the origin wants', async (t) => {
  for (const [random, afterMs] of [
    [0, 45_000],
    [0.5, 52_500],
    [1, 60_000],
  ] as const) {
    const { want, note, clock, sent } = bench({ random });
    want(EVERY);
    note(1);
    clock.advance(afterMs - 1);
    t.equal(sent.length, 0);
    clock.advance(1);
    t.equal(sent.length, 1, String(random));
  }
});

void t.test('a report that fails is sent again with the time of the use, and new ones beside it', async (t) => {
  for (const answer of [300, 503, 'refuses', 'hangs'] as const) {
    const { want, note, clock, origin, told, sent, settled, sample, lines } = bench();
    want(EVERY);
    note(1);
    origin.answer = answer;
    clock.advance(EVERY);
    await settled();
    if (answer === 'hangs') {
      clock.advance(4_999);
      await settled();
      t.notOk(sent[0]?.signal.aborted);
      clock.advance(1);
      await settled();
    }
    t.equal(await sample('edge_use_reports_total{outcome="failed"}'), 1, String(answer));
    t.match(lines, [{ media: 1, msg: 'a report of served media failed; it is sent again later' }]);
    origin.answer = 204;
    note(2);
    clock.advance(EVERY);
    await settled();
    t.strictSame(told()[1], { [EVERY + (answer === 'hangs' ? 5_000 : 0)]: [idOf(1)], 0: [idOf(2)] }, String(answer));
    t.equal(await sample('edge_uses_told_total'), 2);
    clock.advance(EVERY);
    await settled();
    t.equal(sent.length, 2, 'what was accepted is not sent again');
  }
});

void t.test('a report names as many media as it may, and the next one the rest', async (t) => {
  const { want, note, clock, told, settled, sample } = bench({ mediaMax: 100_000 });
  want(EVERY);
  for (let at = 0; at < 4_100; at += 1) note(at);
  clock.advance(EVERY);
  await settled();
  t.strictSame(
    told().map((report) => report[0]?.length),
    [4_096, 4],
  );
  t.equal(await sample('edge_uses_told_total'), 4_100);
});

void t.test(
  'at half of what may wait a report is sent early, and beyond the bound uses are counted as lost',
  async (t) => {
    const { want, note, clock, origin, sent, settled, sample } = bench({ mediaMax: 1_000 });
    want(EVERY);
    origin.answer = 'hangs';
    for (let at = 0; at < 499; at += 1) note(at);
    t.equal(sent.length, 0);
    note(499);
    t.equal(sent.length, 1);
    for (let at = 500; at < 1_000; at += 1) note(at);
    t.equal(await sample('edge_uses_lost_total'), 0);
    note(999);
    t.equal(await sample('edge_uses_lost_total'), 0, 'it is noted already');
    note(1_000);
    note(1_001);
    t.equal(await sample('edge_uses_lost_total'), 2);
    t.equal(sent.length, 1, 'one report at a time');
    origin.answer = 204;
    clock.advance(5_000);
    await settled();
    clock.advance(EVERY);
    await settled();
    t.equal(await sample('edge_uses_told_total'), 1_000);
    note(1_001);
    t.equal(await sample('edge_uses_lost_total'), 2, 'and there is room again');
  },
);

void t.test('an origin that wants no reports gets none, and what was noted is forgotten', async (t) => {
  const { want, note, clock, sent, settled, close } = bench();
  want(EVERY);
  note(1);
  want(undefined);
  t.equal(clock.pending, 0);
  note(2);
  want(EVERY);
  want(EVERY);
  t.equal(clock.pending, 1);
  clock.advance(EVERY);
  await settled();
  t.equal(sent.length, 0);
  want(undefined);
  await close();
  t.equal(sent.length, 0);
});

void t.test('at the end what is left is reported in one attempt, and nothing goes on', async (t) => {
  const { want, note, clock, sent, told, origin, close } = bench();
  want(EVERY);
  note(1);
  await close();
  t.strictSame(told(), [{ 0: [idOf(1)] }]);
  t.equal(clock.pending, 0);
  note(2);
  await close();
  t.equal(sent.length, 1);
  const failing = bench();
  failing.want(EVERY);
  failing.note(1);
  failing.origin.answer = 'refuses';
  await failing.close();
  t.equal(failing.sent.length, 1);
  t.equal(failing.clock.pending, 0);
  t.equal(origin.answer, 204);
});
