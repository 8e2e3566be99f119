/** What edges ask for, and how clients are limited: rules with a clock that the test moves. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import t from 'tap';
import { journalSection, openOriginJournal } from '../../../origin/edges/origin-journal.js';
import { createEdgeRoutes } from '../../../origin/edges/routes.js';
import { createUseReports } from '../../../origin/edges/use-reports.js';
import {
  createRateLimits,
  type Meter,
  NO_RATE_LIMITS,
  type RateLimitsConfig,
  rateLimitsSection,
} from '../../../origin/server/rate-limits.js';
import { Fault } from '../../../src/errors.js';
import { emptyReply } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
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
      journal: {
        name: 'n',
        oldest: () => 1,
        newest: () => 0,
        markOf: () => '',
        read: async () => [],
        subscribe: () => () => undefined,
        trim: async (before) => {
          trimmed.push(before - clock.now());
          if (state.failing) throw new Error('no database');
          return 3;
        },
      },
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

// Limits of rates.

const NO_LIMITS = { requestsMax: 0, uploadedMaxBytes: 0, downloadedMaxBytes: 0 };

function limited(given: Partial<RateLimitsConfig>) {
  const clock = new ManualClock();
  const { metrics, sample } = testDeps();
  const config = {
    ...configured(rateLimitsSection),
    subject: NO_LIMITS,
    address: NO_LIMITS,
    windowMs: 10_000,
    ...given,
  };
  const limits = createRateLimits(config, clock, metrics);
  return { limits, clock, sample, meter: (address = '192.0.2.1') => limits.meter(address) };
}

const admits = (act: () => void): string => {
  try {
    act();
    return 'yes';
  } catch (thrown) {
    return thrown instanceof Fault ? `${thrown.code} ${thrown.headers?.['retry-after']}` : String(thrown);
  }
};

void t.test('requests are counted for the address and for the subject, each by itself', async (t) => {
  const { meter, clock, sample } = limited({
    subject: { ...NO_LIMITS, requestsMax: 2 },
    address: { ...NO_LIMITS, requestsMax: 4 },
  });
  const ask = (name: string, address?: string): string => {
    const one = meter(address);
    return `${admits(() => one.address())}, ${admits(() => one.subject(name))}`;
  };
  t.equal(ask('ada'), 'yes, yes');
  t.equal(ask('ada'), 'yes, yes');
  t.equal(ask('ada'), 'yes, rate_limited 5');
  t.equal(ask('bob'), 'yes, yes');
  t.equal(ask('bob'), 'rate_limited 3, yes', 'the address has used up its own');
  t.equal(ask('eve', '192.0.2.2'), 'yes, yes');
  t.equal(await sample('rate_limited_total{limit="subject"}'), 1);
  t.equal(await sample('rate_limited_total{limit="address"}'), 1);
  clock.advance(5_000);
  t.equal(ask('ada', '192.0.2.3'), 'yes, yes', 'half of a window gives half of it back');
  t.equal(ask('ada', '192.0.2.3'), 'yes, rate_limited 5');
  clock.advance(4_999);
  t.match(ask('ada', '192.0.2.3'), /rate_limited 1$/, 'never less than a second');
});

void t.test('an upload counts as announced, or as it arrives, and one may exceed what is left', (t) => {
  const uploads = { subject: { ...NO_LIMITS, uploadedMaxBytes: 100 } };
  const { meter } = limited(uploads);
  const of = (name: string): Meter => {
    const one = meter();
    one.subject(name);
    return one;
  };
  const ada = of('ada');
  t.equal(
    admits(() => ada.admitUpload(150)),
    'yes',
  );
  ada.uploaded(150);
  t.equal(
    admits(() => of('ada').admitUpload(1)),
    'rate_limited 6',
    'what was announced is counted once',
  );
  const bob = of('bob');
  t.equal(
    admits(() => bob.admitUpload(null)),
    'yes',
  );
  bob.uploaded(60);
  t.equal(
    admits(() => of('bob').admitUpload(1)),
    'yes',
  );
  bob.uploaded(60);
  t.equal(
    admits(() => of('bob').admitUpload(1)),
    'rate_limited 3',
  );
  const nobody = meter();
  t.equal(
    admits(() => nobody.admitUpload(1_000)),
    'yes',
    'without a subject there is none to count for',
  );
  t.end();
});

void t.test('downloads are counted by what is sent', (t) => {
  const { meter } = limited({ address: { ...NO_LIMITS, downloadedMaxBytes: 100 } });
  t.equal(
    admits(() => meter().admitDownload()),
    'yes',
  );
  meter().downloaded(100);
  t.equal(
    admits(() => meter().admitDownload()),
    'rate_limited 1',
  );
  t.equal(
    admits(() => meter('2001:db8::1').admitDownload()),
    'yes',
  );
  meter('2001:db8::1').downloaded(300);
  t.equal(
    admits(() => meter('2001:db8::ffff:2').admitDownload()),
    'rate_limited 21',
    'a network of IPv6 is one address',
  );
  t.equal(
    admits(() => meter('2001:db8:0:1::1').admitDownload()),
    'yes',
  );
  t.end();
});

void t.test('what is left of a limit is told once a tenth of it is used', (t) => {
  const { meter, clock } = limited({
    windowMs: 10_500,
    subject: { ...NO_LIMITS, uploadedMaxBytes: 1_000 },
    address: { ...NO_LIMITS, requestsMax: 10, downloadedMaxBytes: 20 },
  });
  const one = meter();
  t.same(one.headers(), [], 'nothing was counted');
  one.address();
  t.same(one.headers(), [
    ['ratelimit-policy', '"address";q=10;w=11'],
    ['ratelimit', '"address";r=9;t=2'],
  ]);
  one.subject('ada');
  one.admitUpload(99);
  t.equal(one.headers()[0]?.[1], '"address";q=10;w=11', 'less than a tenth');
  one.admitUpload(1);
  one.downloaded(5);
  t.same(one.headers(), [
    [
      'ratelimit-policy',
      '"address";q=10;w=11, "subject-bytes";q=1000;w=11;qu="content-bytes", "address-download-bytes";q=20;w=11;qu="content-bytes"',
    ],
    ['ratelimit', '"address";r=9;t=2, "subject-bytes";r=900;t=2, "address-download-bytes";r=15;t=3'],
  ]);
  clock.advance(100_000);
  const later = meter();
  later.downloaded(0);
  t.same(later.headers(), []);
  t.end();
});

void t.test('without limits nothing is counted', (t) => {
  const { limits } = limited({});
  t.equal(limits, NO_RATE_LIMITS);
  for (const one of [
    limits.meter('192.0.2.1'),
    limits.unlimited,
    limited({ address: { ...NO_LIMITS, requestsMax: 1 } }).limits.unlimited,
  ]) {
    for (let n = 0; n < 3; n += 1) {
      t.equal(
        admits(() => {
          one.address();
          one.subject('ada');
          one.admitUpload(1e9);
          one.uploaded(1e9);
          one.admitDownload();
          one.downloaded(1e9);
        }),
        'yes',
      );
    }
    t.same(one.headers(), []);
  }
  t.end();
});
