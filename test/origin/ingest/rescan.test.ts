/** What becomes of uploads that await the scanner: when they are tried, in which order, and what the verdict does. */

import { mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import { sourceOf } from '../../../origin/blobs/blob-store.js';
import { openRescan, type Rescan, type RescanDeps } from '../../../origin/ingest/rescan.js';
import type { ScanVerdict } from '../../../origin/ingest/scan.js';
import type { BlobRecord, Quarantine } from '../../../origin/meta/media.js';
import { ownDuties } from '../../../origin/meta/origins/duties.js';
import type { Sha256 } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { mediaKey, PLACE } from '../../kit/origin/keys.js';
import { until } from '../../kit/until.js';

const MINUTE = 60_000;
const shaOf = (index: number): Sha256 => index.toString(16).padStart(64, '0') as Sha256;
const blobOf = (index: number): BlobRecord =>
  ({ sha256: shaOf(index), place: PLACE, sizeBytes: 5, mime: 'image/png' }) as unknown as BlobRecord;
const AWAIT: ScanVerdict = { kind: 'await_scan' };

interface Parts {
  /** The blobs that wait, by number. */
  readonly waiting: number[];
  readonly verdict: (path: string, signal: AbortSignal) => ScanVerdict | Promise<ScanVerdict>;
  readonly blobs?: Partial<RescanDeps['blobs']>;
  readonly random?: () => number;
}

async function setUp(t: Test, { waiting, verdict, blobs, random = () => 1 }: Parts) {
  const clock = new ManualClock();
  const { log, metrics, sample, lines } = testDeps();
  const [resolved, pages, scanned]: [(readonly [number, Quarantine | null])[], unknown[], string[]] = [[], [], []];
  const numberOf = (sha256: Sha256): number => Number.parseInt(sha256, 16);
  const rescan: Rescan = openRescan({
    config: { retryMs: MINUTE, retryMaxMs: 5 * MINUTE },
    scanner: {
      scan: async (path, signal) => {
        scanned.push(path);
        return verdict(path, signal);
      },
    },
    meta: {
      duties: ownDuties(),
      blobsAwaitingScan: async (after, limit) => {
        const from = after === null ? -1 : numberOf(after.sha256);
        pages.push([after === null ? null : from, limit]);
        return waiting
          .filter((each) => each > from)
          .slice(0, limit)
          .map(blobOf);
      },
      resolveScan: async (sha256, mark, now) => {
        t.equal(now, clock.now());
        const at = waiting.indexOf(numberOf(sha256));
        if (at < 0) return false;
        waiting.splice(at, 1);
        resolved.push([numberOf(sha256), mark]);
        return true;
      },
    },
    blobs: {
      fileOf: (key) => `/blobs/${sourceOf(key)}`,
      stat: async () => 5,
      read: async () => ({ kind: 'missing' }),
      stageFolder: '/none',
      ...blobs,
    },
    clock,
    log,
    metrics,
    random,
  });
  t.teardown(() => rescan.close());
  /** The end of a round is a timer for the next one. */
  const roundEnds = (): Promise<void> => until('a round ends', () => clock.pending === 1);
  return { clock, rescan, resolved, pages, scanned, sample, lines, roundEnds };
}

void t.test('the first round begins at once, and each upload is released or quarantined', async (t) => {
  const verdicts: readonly ScanVerdict[] = [
    { kind: 'admit' },
    { kind: 'quarantine', reason: 'Some.Virus' },
    AWAIT,
    { kind: 'admit' },
  ];
  const numberIn = (path: string): number => Number.parseInt(path.slice(-64), 16);
  const { clock, resolved, scanned, sample, roundEnds, pages } = await setUp(t, {
    waiting: [0, 1, 2, 3],
    verdict: (path) => verdicts[numberIn(path)] ?? AWAIT,
    blobs: { fileOf: (key) => `/blobs/${sourceOf(key)}` },
  });
  await roundEnds();
  t.same(resolved, [
    [0, null],
    [1, { at: clock.now(), by: 'scanner', reason: 'Some.Virus', cause: 'admin' }],
    [3, null],
  ]);
  t.same(scanned.map(numberIn), [0, 1, 2, 3]);
  t.equal(await sample('held_uploads_total{verdict="free"}'), 2);
  t.equal(await sample('held_uploads_total{verdict="quarantined"}'), 1);
  t.same(pages, [[null, 100]]);
});

void t.test('rounds follow each other after a minute, and later while nothing answers', async (t) => {
  const waiting = [1];
  let verdict: ScanVerdict = AWAIT;
  const { clock, scanned, roundEnds } = await setUp(t, { waiting, verdict: () => verdict });
  await roundEnds();
  for (const minutes of [2, 4, 5, 5]) {
    const before = scanned.length;
    clock.advance(minutes * MINUTE - 1);
    t.equal(clock.pending, 1, `not before ${minutes} minutes`);
    clock.advance(1);
    await until('the next round begins', () => scanned.length > before);
    await roundEnds();
  }
  verdict = { kind: 'admit' };
  clock.advance(5 * MINUTE);
  await roundEnds();
  t.same(waiting, []);
  waiting.push(2);
  clock.advance(MINUTE);
  await until('after an answer the next round comes after a minute', () => waiting.length === 0);
});

void t.test('the time between rounds is shortened by chance, by half at the most', async (t) => {
  const waiting: number[] = [];
  const { clock, pages, roundEnds } = await setUp(t, { waiting, verdict: () => AWAIT, random: () => 0 });
  await roundEnds();
  clock.advance(MINUTE / 2 - 1);
  t.equal(clock.pending, 1);
  clock.advance(1);
  await until('the next round begins', () => pages.length === 2);
});

void t.test(
  'after three scans in a row without an answer a round ends, and the next one goes on behind them',
  async (t) => {
    const { clock, scanned, roundEnds } = await setUp(t, { waiting: [1, 2, 3, 4, 5], verdict: () => AWAIT });
    await roundEnds();
    const numbers = (): readonly number[] => scanned.map((path) => Number.parseInt(path.slice(-1), 16));
    t.same(numbers(), [1, 2, 3]);
    clock.advance(2 * MINUTE);
    await until('the rest is tried', () => scanned.length === 5);
    await roundEnds();
    t.same(numbers(), [1, 2, 3, 4, 5]);
    clock.advance(4 * MINUTE);
    await until('then all again', () => scanned.length === 8);
    t.same(numbers().slice(5), [1, 2, 3]);
  },
);

void t.test('an answer between two that fail to come lets the round go on', async (t) => {
  let scans = 0;
  const { scanned, roundEnds } = await setUp(t, {
    waiting: [1, 2, 3, 4, 5, 6],
    verdict: () => {
      scans += 1;
      return scans === 3 ? { kind: 'admit' } : AWAIT;
    },
  });
  await roundEnds();
  t.equal(scanned.length, 6);
});

void t.test('more uploads than a page holds are scanned in one round', async (t) => {
  const waiting = Array.from({ length: 150 }, (_, index) => index);
  const { pages, resolved, roundEnds } = await setUp(t, { waiting, verdict: () => ({ kind: 'admit' }) });
  await roundEnds();
  t.equal(resolved.length, 150);
  t.same(pages, [
    [null, 100],
    [99, 100],
  ]);
});

void t.test('bytes that are not in the store are not scanned, and continue to wait', async (t) => {
  const waiting = [1];
  const verdict = (): ScanVerdict => ({ kind: 'admit' });
  const local = await setUp(t, { waiting, verdict, blobs: { stat: async () => undefined } });
  await local.roundEnds();
  t.same([waiting, local.scanned], [[1], []]);
  t.match(local.lines, [{ sha256: shaOf(1) }]);
  const remote = await setUp(t, { waiting, verdict, blobs: { fileOf: () => undefined } });
  await remote.roundEnds();
  t.same([waiting, remote.scanned], [[1], []]);
});

void t.test('without local files the bytes are copied for the scanner, and the copy is removed', async (t) => {
  const stageFolder = await mkdtemp(join(t.testdir({}), 'stage-'));
  let seen = '';
  const { scanned, roundEnds, resolved } = await setUp(t, {
    waiting: [7],
    verdict: async (path) => {
      seen = await readFile(path, 'utf8');
      return { kind: 'admit' };
    },
    blobs: {
      fileOf: () => undefined,
      stageFolder,
      stat: async () => undefined,
      read: async (key) => {
        t.equal(key, mediaKey(shaOf(7)));
        return { kind: 'found', sizeBytes: 5, body: Readable.from([Buffer.from('by'), Buffer.from('tes')]) };
      },
    },
  });
  await roundEnds();
  t.equal(seen, 'bytes');
  t.ok(scanned[0]?.startsWith(`${stageFolder}/`));
  t.same(await readdir(stageFolder), []);
  t.same(resolved, [[7, null]]);
});

void t.test('a local file stays where it is', async (t) => {
  const path = join(t.testdir({}), 'blob');
  await writeFile(path, 'bytes');
  const { roundEnds, scanned } = await setUp(t, {
    waiting: [1],
    verdict: () => ({ kind: 'admit' }),
    blobs: { fileOf: () => path },
  });
  await roundEnds();
  t.same(scanned, [path]);
  t.equal(await readFile(path, 'utf8'), 'bytes');
});

void t.test('a round that fails is logged, and tried again later', async (t) => {
  let fails = true;
  const { clock, lines, roundEnds, resolved } = await setUp(t, {
    waiting: [1],
    verdict: () => ({ kind: 'admit' }),
    blobs: {
      stat: async () => {
        if (fails) throw new Error('the store is away');
        return 5;
      },
    },
  });
  await roundEnds();
  t.match(lines, [{ level: /error/ }]);
  fails = false;
  clock.advance(MINUTE);
  t.equal(clock.pending, 1, 'not after the usual time');
  clock.advance(MINUTE);
  await until('the upload is scanned', () => resolved.length === 1);
});

void t.test('closing ends a scan in progress, waits for it, and leaves no timer', async (t) => {
  let ended = false;
  const { clock, rescan, scanned, lines } = await setUp(t, {
    waiting: [1],
    verdict: (_path, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () =>
          setImmediate(() => {
            ended = true;
            reject(signal.reason as Error);
          }),
        );
      }),
  });
  await until('the scan begins', () => scanned.length === 1);
  await rescan.close();
  t.ok(ended);
  t.equal(clock.pending, 0);
  t.same(lines, [], 'and is no failure');
  const idle = await setUp(t, { waiting: [], verdict: () => AWAIT });
  await idle.roundEnds();
  await idle.rescan.close();
  t.equal(idle.clock.pending, 0);
});
