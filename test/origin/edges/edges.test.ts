/** What edges ask for: rules with a clock that the test moves. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import t from 'tap';
import { journalSection, openOriginJournal } from '../../../origin/edges/origin-journal.js';
import { createEdgeRoutes } from '../../../origin/edges/routes.js';
import { createUseReports } from '../../../origin/edges/use-reports.js';
import { ownDuties } from '../../../origin/meta/origins/duties.js';
import { ONE_ORIGIN } from '../../../origin/meta/origins.js';
import { Fault } from '../../../src/errors.js';
import { emptyReply } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
import { ALWAYS_CURRENT } from '../../../src/journal/source.js';
import type { UseReport } from '../../../src/journal/use-report.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';

const never = new AbortController().signal;
const idOf = (n: number): MediaId => n.toString().padStart(26, '0') as MediaId;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function reports(given: { readonly enabled?: boolean; readonly failing?: boolean } = {}) {
  const clock = new ManualClock(1_000_000);
  const marked: (readonly [number, number])[] = [];
  const { log, metrics, lines, sample } = testDeps();
  const uses = createUseReports({
    meta: {
      markUsed: async (ids, at) => {
        if (given.failing === true) throw new Error('no database');
        marked.push([ids.length, at]);
      },
    },
    clock,
    log,
    metrics,
    stepMs: 100,
    enabled: given.enabled ?? true,
  });
  const note = (n: number, sinceMs = 100): void =>
    uses.note({ id: idOf(n), usedAt: clock.now() - sinceMs }, clock.now());
  return { uses, clock, marked, lines, sample, note };
}

void t.test('fetches are written down in batches, and once for each of a time', async (t) => {
  const { uses, clock, marked, note } = reports();
  note(1, 99);
  t.equal(clock.pending, 0, 'it was used a moment ago');
  note(1);
  note(1);
  note(2);
  await clock.advanceAsync(9_999);
  t.same(marked, []);
  await clock.advanceAsync(1);
  t.same(marked, [[2, 1_010_000]]);
  t.equal(clock.pending, 0);
  for (let n = 0; n < 999; n += 1) note(n);
  await turn();
  t.equal(marked.length, 1);
  note(999);
  await turn();
  t.same(marked[1], [1_000, 1_010_000], 'a full batch is written at once');
  t.equal(clock.pending, 0);
  note(5);
  await uses.close();
  t.same(marked[2], [1, 1_010_000]);
  t.equal(clock.pending, 0);
  await uses.close();
  t.equal(marked.length, 3);
});

void t.test('what edges report is as old as they say, and counted', async (t) => {
  const report: UseReport = {
    uses: [
      { agoMs: 5, ids: [idOf(1), idOf(2)] },
      { agoMs: 0, ids: [idOf(3)] },
    ],
  };
  const { uses, marked, sample } = reports();
  await uses.noteReport(report);
  t.same(marked, [
    [2, 999_995],
    [1, 1_000_000],
  ]);
  t.equal(await sample('uses_reported_total'), 3);
  const off = reports({ enabled: false });
  await off.uses.noteReport(report);
  off.note(1);
  await off.uses.close();
  t.same([off.marked, off.clock.pending], [[], 0], 'nothing is written where retention does not need it');
  const failing = reports({ failing: true });
  await t.rejects(failing.uses.noteReport(report), { message: 'no database' }, 'the edge sends it again');
  failing.note(1);
  await failing.uses.close();
  t.match(failing.lines, [{ msg: 'the use of media could not be stored' }], 'a fetch is not worth more');
});

void t.test('only edges find the paths of edges', async (t) => {
  const stored: UseReport[] = [];
  const routes = createEdgeRoutes({
    journal: { follow: async () => undefined, confirm: async () => emptyReply(204) },
    useReports: { noteReport: async (report) => void stored.push(report) },
    isEdge: (proof) => proof === 'the proof',
  });
  const ask = (method: string, url: string, body = '', proof = 'the proof') => {
    const raw = Object.assign(Readable.from([Buffer.from(body)]), {
      method,
      url,
      headers: { 'edge-authorization': proof },
    });
    return routes(raw as unknown as IncomingMessage, {} as ServerResponse, never);
  };
  for (const [method, url] of [
    ['POST', '/internal/v1/journal'],
    ['GET', '/internal/v1/journal/confirm'],
    ['GET', '/internal/v1/uses'],
    ['GET', '/internal/v1/other'],
    ['GET', '/'],
  ] as const) {
    t.equal(ask(method, url), undefined, `${method} ${url}`);
  }
  t.equal(await ask('GET', '/internal/v1/journal?from=1'), undefined, 'the stream writes its own response');
  t.ok(ask('GET', '/internal/v1/journal') instanceof Promise);
  t.same(await ask('POST', '/internal/v1/journal/confirm?x'), emptyReply(204));
  const report = { uses: [{ agoMs: 5, ids: ['01ARZ3NDEKTSV4RRFFQ69G5FAV'] }] };
  const body = JSON.stringify(report);
  t.same(await ask('POST', '/internal/v1/uses', body), {
    status: 204,
    headers: [['cache-control', 'no-store']],
    body: { kind: 'none' },
  });
  t.same(stored, [report]);
  const refused = async (...of: Parameters<typeof ask>): Promise<string> =>
    await Promise.resolve(ask(...of)).then(
      () => 'taken',
      (thrown: unknown) => (thrown instanceof Fault ? thrown.code : String(thrown)),
    );
  t.equal(await refused('POST', '/internal/v1/uses', body, 'no proof'), 'not_found');
  t.equal(await refused('POST', '/internal/v1/uses', '{}'), 'malformed');
  t.equal(await refused('POST', '/internal/v1/uses', `${body}${' '.repeat(200_000)}`), 'too_large');
  t.equal(stored.length, 1);
});

void t.test('old entries of the journal are removed regularly, also after a failure', async (t) => {
  const HOUR = 3_600_000;
  const opened = async (keepMs: number) => {
    const clock = new ManualClock(100 * HOUR);
    const trimmed: number[] = [];
    const state = { failing: false };
    const { log, metrics, lines } = testDeps();
    const stream = await openOriginJournal({
      origins: ONE_ORIGIN,
      shared: null,
      journal: {
        name: 'n',
        proof: ALWAYS_CURRENT,
        oldest: () => 1,
        newest: () => 0,
        refresh: async () => undefined,
        onReset: () => () => undefined,
        markOf: () => '',
        read: async () => [],
        subscribe: () => () => undefined,
        trim: async (before) => {
          trimmed.push(before - clock.now());
          if (state.failing) throw new Error('no database');
          return 3;
        },
      },
      duties: ownDuties(),
      config: { ...configured(journalSection), edgesFile: null, keepMs },
      isEdge: () => false,
      usesEveryMs: undefined,
      clock,
      log,
      metrics,
    });
    return { clock, trimmed, state, lines, stream };
  };
  const { clock, trimmed, state, lines, stream } = await opened(5 * HOUR);
  await clock.advanceAsync(HOUR - 1);
  t.same(trimmed, []);
  await clock.advanceAsync(1);
  t.same(trimmed, [-5 * HOUR]);
  t.match(lines.at(-1), { dropped: 3 });
  state.failing = true;
  await clock.advanceAsync(HOUR);
  t.match(lines.at(-1), { msg: 'the journal could not be trimmed' });
  state.failing = false;
  await clock.advanceAsync(HOUR);
  t.equal(trimmed.length, 3);
  await stream.close();
  t.equal(clock.pending, 0);
  const short = await opened(60_000);
  await short.clock.advanceAsync(60_000);
  t.same(short.trimmed, [-60_000], 'more often where less is kept');
  await short.stream.close();
});
