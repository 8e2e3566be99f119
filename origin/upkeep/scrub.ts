/**
 * Reads every stored blob and compares its hash with its name, at a limited rate.
 * A blob that is wrong is checked a second time, then reported and marked: an
 * original as rotten, which withholds it until the same bytes are uploaded again;
 * a thumbnail to be made again.
 *
 * It only reads, and marks through `marks`: in the process that has the store open
 * these write to the store, otherwise they are requests to the running origin. It
 * can be interrupted at any time and goes on from the last hash that it reported.
 */
import { createHash } from 'node:crypto';
import { type Clock, sleep } from '../../src/clock.js';
import { duration, section, size, type ValueOf } from '../../src/config/field.js';
import type { Sha256 } from '../../src/ids.js';
import { type BlobKey, type BlobStore, sourceOf } from '../blobs/blob-store.js';
import { type ExpectedBlob, expectedBlobs } from '../blobs/transfer.js';
import type { BlobRecord } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';

export const scrubSection = section('Scrub: checking every stored byte.', {
  rateBytes: size({ default: '20MB', min: 1_000, help: 'Bytes read per second, at most.' }),
  againMs: duration({
    default: '2s',
    max: 60_000,
    help: 'How long after a blob was found wrong it is checked again, before it is marked.',
  }),
});

export type ScrubConfig = ValueOf<typeof scrubSection>;

export interface ScrubMarks {
  rotten(sha256: Sha256, reason: string): Promise<void>;
  redoThumbs(sha256: Sha256): Promise<void>;
}

export interface ScrubDeps {
  readonly config: ScrubConfig;
  readonly meta: Pick<MetaStore, 'blobsAfter' | 'findBlob' | 'isUnreferenced'>;
  readonly blobs: Pick<BlobStore, 'read'>;
  readonly marks: ScrubMarks;
  readonly clock: Clock;
}

export interface ScrubFinding {
  readonly kind: 'rotten' | 'cut' | 'missing' | 'unreadable';
  readonly key: BlobKey;
  readonly detail: string;
}

export interface ScrubProgress {
  /** The hash to go on from. */
  readonly after: Sha256;
  readonly blobs: number;
  readonly bytes: number;
}

export interface ScrubOptions {
  /** The last hash that an earlier scrub reported; null: from the start. */
  readonly after: Sha256 | null;
  readonly signal: AbortSignal;
  onFinding(finding: ScrubFinding): void;
  onProgress(progress: ScrubProgress): void;
}

export interface ScrubReport {
  readonly blobs: number;
  readonly thumbs: number;
  readonly bytes: number;
  readonly findings: number;
}

/** Writes the marks to the store. */
export function localMarks(meta: Pick<MetaStore, 'quarantine' | 'redoThumbs'>, clock: Pick<Clock, 'now'>): ScrubMarks {
  return {
    async rotten(sha256, reason) {
      await meta.quarantine(sha256, { at: clock.now(), by: 'scrub', reason, cause: 'rot' });
    },
    async redoThumbs(sha256) {
      await meta.redoThumbs(sha256, 'backfill', clock.now());
    },
  };
}

const PAGE = 64;
/** Shorter waits are added up, because timers are not finer. */
const WAIT_MIN_MS = 20;

export async function scrub(deps: ScrubDeps, options: ScrubOptions): Promise<ScrubReport> {
  const { meta, clock, config } = deps;
  const { signal } = options;
  const pace = createPace(config.rateBytes, clock);
  let report: ScrubReport = { blobs: 0, thumbs: 0, bytes: 0, findings: 0 };
  let after = options.after;
  for (;;) {
    const page = await meta.blobsAfter(after, PAGE);
    for (const blob of page.blobs) {
      signal.throwIfAborted();
      const done = await scrubBlob({ ...deps, pace, ...options }, blob);
      report = {
        blobs: report.blobs + 1,
        thumbs: report.thumbs + done.thumbs,
        bytes: report.bytes + done.bytes,
        findings: report.findings + done.findings,
      };
      options.onProgress({ after: blob.sha256, blobs: report.blobs, bytes: report.bytes });
    }
    if (page.next === null) return report;
    after = page.next;
  }
}

interface ScrubWork extends ScrubDeps, ScrubOptions {
  readonly pace: Pace;
}

type CheckResult =
  | { readonly kind: 'right'; readonly bytes: number }
  | { readonly kind: ScrubFinding['kind']; readonly bytes: number; readonly detail: string };

async function scrubBlob(work: ScrubWork, blob: BlobRecord): Promise<Omit<ScrubReport, 'blobs'>> {
  const { sha256 } = blob;
  const [original, ...thumbs] = expectedBlobs(blob);
  const isKnownRot = blob.quarantine?.cause === 'rot';
  let bytes = 0;
  let findings = 0;

  /** False if a blob is wrong at both checks. */
  const isRight = async (expected: ExpectedBlob): Promise<boolean> => {
    const result = await checkTwice(work, expected);
    bytes += result.bytes;
    if (result.kind === 'right' || !(await isRecorded(work, expected.key))) return true;
    findings += 1;
    work.onFinding({ kind: result.kind, key: expected.key, detail: result.detail });
    // A failure to read does not show whether the bytes are right.
    return result.kind === 'unreadable';
  };

  if (!isKnownRot && !(await isRight(original))) {
    await work.marks.rotten(sha256, 'its bytes are not what they were');
  }
  let redo = false;
  for (const thumb of thumbs) if (!(await isRight(thumb))) redo = true;
  if (redo) await work.marks.redoThumbs(sha256);
  return { thumbs: thumbs.length, bytes, findings };
}

/** A blob may be swept or healed while it is read, so it is wrong only if it stays wrong. */
async function checkTwice(work: ScrubWork, expected: ExpectedBlob): Promise<CheckResult> {
  const first = await check(work, expected);
  if (first.kind === 'right') return first;
  await sleep(work.clock, work.config.againMs, work.signal);
  const second = await check(work, expected);
  return { ...second, bytes: first.bytes + second.bytes };
}

async function check(work: ScrubWork, { key, sha256, sizeBytes }: ExpectedBlob): Promise<CheckResult> {
  const hash = createHash('sha256');
  let bytes = 0;
  try {
    const read = await work.blobs.read(key, undefined, work.signal);
    if (read.kind !== 'found') return { kind: 'missing', bytes, detail: 'nothing is stored' };
    for await (const chunk of read.body as AsyncIterable<Buffer>) {
      hash.update(chunk);
      bytes += chunk.length;
      await work.pace.spend(chunk.length, work.signal);
    }
  } catch (thrown) {
    work.signal.throwIfAborted();
    return { kind: 'unreadable', bytes, detail: thrown instanceof Error ? thrown.message : String(thrown) };
  }
  if (bytes !== sizeBytes) return { kind: 'cut', bytes, detail: `${bytes} of ${sizeBytes} bytes are stored` };
  const found = hash.digest('hex');
  return found === sha256 ? { kind: 'right', bytes } : { kind: 'rotten', bytes, detail: `its bytes hash to ${found}` };
}

/** Whether a record still names the key. Meanwhile its blob may have been swept, or its thumbnails replaced. */
async function isRecorded({ meta }: ScrubWork, key: BlobKey): Promise<boolean> {
  const source = sourceOf(key);
  const blob = await meta.findBlob(source);
  if (blob === undefined || (await meta.isUnreferenced(source))) return false;
  return expectedBlobs(blob).some((expected) => expected.key === key);
}

interface Pace {
  /** Resolves when the rate allows so many bytes more. */
  spend(bytes: number, signal: AbortSignal): Promise<void>;
}

/** Unused time does not allow a higher rate later. */
function createPace(rateBytes: number, clock: Clock): Pace {
  let dueAtMs = clock.monotonicMs();
  return {
    async spend(bytes, signal) {
      dueAtMs = Math.max(dueAtMs, clock.monotonicMs()) + (bytes * 1_000) / rateBytes;
      const waitMs = dueAtMs - clock.monotonicMs();
      if (waitMs >= WAIT_MIN_MS) await sleep(clock, waitMs, signal);
    },
  };
}
