/**
 * Scans uploads that were accepted while the scanner did not answer. It tries again
 * at growing intervals, and then releases or quarantines each upload. The metadata
 * store knows which blobs await the scanner, so a restart loses none.
 */
import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Clock, Timer } from '../../src/clock.js';
import { bugFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import { type BlobStore, mediaKey } from '../blobs/blob-store.js';
import { type BlobRecord, type Quarantine, SCANNER } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
import type { ScanConfig, Scanner, ScanVerdict } from './scan.js';

export interface RescanDeps {
  readonly config: Pick<ScanConfig, 'retryMs' | 'retryMaxMs'>;
  readonly scanner: Scanner;
  readonly meta: Pick<MetaStore, 'blobsAwaitingScan' | 'resolveScan' | 'duties'>;
  readonly blobs: Pick<BlobStore, 'fileOf' | 'stat' | 'read' | 'stageFolder'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** From 0 up to 1, for jitter. */
  readonly random?: () => number;
}

export interface Rescan {
  close(): Promise<void>;
}

/** Most blob records read at once. */
const PAGE = 100;
/** After so many scans in a row without an answer, the round ends. */
const UNANSWERED_MAX = 3;

/** Begins the first round at once, because an earlier run may have left uploads unscanned. */
export function openRescan(deps: RescanDeps): Rescan {
  const { config, clock, log } = deps;
  const random = deps.random ?? Math.random;
  const scanned = deps.metrics.counter('held_uploads_total', 'Uploads that waited for the scanner, by its verdict.', [
    'verdict',
  ]);
  const closing = new AbortController();
  let failures = 0;
  /** The next round starts after this blob. Otherwise blobs without an answer at the start would end every round. */
  let reached: BlobRecord | null = null;
  let alarm: Timer | undefined;
  let running = round();

  async function round(): Promise<void> {
    try {
      if (await deps.meta.duties.take('rescan', config.retryMaxMs)) await scanRound();
    } catch (thrown) {
      if (closing.signal.aborted) return;
      failures += 1;
      log.error(bugFields(thrown), 'scanning uploads that await the scanner failed');
    }
    if (closing.signal.aborted) return;
    const delayMs = Math.min(config.retryMaxMs, config.retryMs * 2 ** Math.min(failures, 30));
    alarm = clock.after(Math.round(delayMs * (0.5 + random() / 2)), () => {
      running = round();
    });
  }

  async function scanRound(): Promise<void> {
    const end = await scanAll(deps, reached, (verdict) => scanned.add(1, { verdict }), closing.signal);
    reached = end.reached;
    failures = end.answered ? 0 : failures + 1;
  }

  return {
    async close() {
      closing.abort(new Error('the origin closes'));
      alarm?.cancel();
      await running;
    },
  };
}

interface RoundEnd {
  /** False if the scanner still does not answer. */
  readonly answered: boolean;
  /** The last blob that was tried; null if the round reached the end. */
  readonly reached: BlobRecord | null;
}

async function scanAll(
  deps: RescanDeps,
  from: BlobRecord | null,
  count: (verdict: 'free' | 'quarantined') => void,
  signal: AbortSignal,
): Promise<RoundEnd> {
  const { meta, clock, log } = deps;
  let reached = from;
  let unanswered = 0;
  for (;;) {
    const blobs = await meta.blobsAwaitingScan(reached, PAGE);
    for (const blob of blobs) {
      reached = blob;
      const verdict = await scanStored(deps, blob, signal);
      unanswered = verdict.kind === 'await_scan' ? unanswered + 1 : 0;
      if (unanswered === UNANSWERED_MAX) return { answered: false, reached };
      if (verdict.kind === 'await_scan') continue;
      const mark = markOf(verdict, clock);
      if (!(await meta.resolveScan(blob.sha256, mark, clock.now()))) continue;
      count(mark === null ? 'free' : 'quarantined');
      log.info({ sha256: blob.sha256, reason: mark?.reason ?? null }, 'an upload that awaited the scanner was scanned');
    }
    if (blobs.length < PAGE) return { answered: unanswered === 0, reached: null };
  }
}

function markOf(verdict: Exclude<ScanVerdict, { kind: 'await_scan' }>, clock: Clock): Quarantine | null {
  if (verdict.kind === 'admit') return null;
  return { at: clock.now(), by: SCANNER, reason: verdict.reason, cause: 'admin' };
}

/** Scans a stored blob. If its bytes are not available, it continues to wait. */
async function scanStored(
  { blobs, scanner, log }: RescanDeps,
  blob: BlobRecord,
  signal: AbortSignal,
): Promise<ScanVerdict> {
  const key = mediaKey(blob);
  const own = blobs.fileOf(key);
  const path = own ?? join(blobs.stageFolder, `rescan-${randomUUID()}`);
  try {
    if (own === undefined) {
      const found = await blobs.read(key, undefined, signal);
      if (found.kind !== 'found') return { kind: 'await_scan' };
      await pipeline(found.body, createWriteStream(path, { flags: 'wx' }), { signal });
    } else if ((await blobs.stat(key, signal)) === undefined) {
      log.warn({ sha256: blob.sha256 }, 'the bytes of an upload that awaits the scanner are not in the store');
      return { kind: 'await_scan' };
    }
    return await scanner.scan(path, signal);
  } finally {
    if (own === undefined) await rm(path, { force: true });
  }
}
