/**
 * Reads every stored byte again and compares its hash with its name, at a
 * bounded rate. What is wrong is looked at twice, then told, and marked: an
 * original as rotten, which withholds it until the same bytes are uploaded again;
 * a thumbnail to be made anew.
 *
 * It only reads, and marks through `marks`: inside the origin those are the store
 * itself, in a process of its own they are requests to the origin that runs. It
 * can be broken off at any time and go on from the hash that it last told.
 */
import { createHash } from 'node:crypto';
import { type Clock, sleep } from '../../src/clock.js';
import { duration, section, size, type ValueOf } from '../../src/config/field.js';
import type { Sha256 } from '../../src/ids.js';
import { type BlobKey, type BlobStore, mediaKey, thumbKey } from '../blobs/blob-store.js';
import type { BlobRecord } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';

export const scrubSection = section('Scrub: reading every stored byte again.', {
  rateBytes: size({ default: '20MB', min: 1_000, help: 'Bytes read per second, at most.' }),
  againMs: duration({
    default: '2s',
    max: 60_000,
    help: 'How long after a blob was found wrong it is looked at again, before it is marked.',
  }),
});

export type ScrubConfig = ValueOf<typeof scrubSection>;

export interface ScrubMarks {
  rotten(sha256: Sha256, reason: string): Promise<void>;
  redoThumbs(sha256: Sha256): Promise<void>;
}

export interface ScrubParts {
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
  /** Where to go on from. */
  readonly after: Sha256;
  readonly blobs: number;
  readonly bytes: number;
}

export interface ScrubOptions {
  /** A hash that an earlier scrub told; null: from the start. */
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

/** Marks made where the store is open. */
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
/** Waits shorter than this are saved up: timers are not finer. */
const WAIT_MIN_MS = 20;

export async function scrub(parts: ScrubParts, options: ScrubOptions): Promise<ScrubReport> {
  const { meta, clock, config } = parts;
  const { signal } = options;
  const pace = createPace(config.rateBytes, clock);
  let report: ScrubReport = { blobs: 0, thumbs: 0, bytes: 0, findings: 0 };
  let after = options.after;
  for (;;) {
    const page = await meta.blobsAfter(after, PAGE);
    for (const blob of page.blobs) {
      signal.throwIfAborted();
      const done = await scrubBlob({ ...parts, pace, ...options }, blob);
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

interface Scrubbing extends ScrubParts, ScrubOptions {
  readonly pace: Pace;
}

interface Wanted {
  readonly key: BlobKey;
  readonly sha256: string;
  readonly sizeBytes: number;
}

type Looked =
  | { readonly kind: 'right'; readonly bytes: number }
  | { readonly kind: ScrubFinding['kind']; readonly bytes: number; readonly detail: string };

async function scrubBlob(work: Scrubbing, blob: BlobRecord): Promise<Omit<ScrubReport, 'blobs'>> {
  const { sha256, sizeBytes } = blob;
  const known = blob.quarantine?.cause === 'rot';
  const thumbs = blob.thumbs.kind === 'ready' ? blob.thumbs.made : [];
  let bytes = 0;
  let findings = 0;

  /** False where it is wrong, and still is after a while. */
  const isRight = async (wanted: Wanted): Promise<boolean> => {
    const looked = await lookTwice(work, wanted);
    bytes += looked.bytes;
    if (looked.kind === 'right' || !(await isWanted(work, sha256, wanted.key))) return true;
    findings += 1;
    work.onFinding({ kind: looked.kind, key: wanted.key, detail: looked.detail });
    // What could not be read just now says nothing of the bytes.
    return looked.kind === 'unreadable';
  };

  if (!known && !(await isRight({ key: mediaKey(sha256), sha256, sizeBytes }))) {
    await work.marks.rotten(sha256, 'its bytes are not what they were');
  }
  let redo = false;
  for (const made of thumbs) {
    const wanted = { key: thumbKey(sha256, made.sha256), sha256: made.sha256, sizeBytes: made.sizeBytes };
    if (!(await isRight(wanted))) redo = true;
  }
  if (redo) await work.marks.redoThumbs(sha256);
  return { thumbs: thumbs.length, bytes, findings };
}

/** A blob may be swept or healed while it is read; only what stays wrong is wrong. */
async function lookTwice(work: Scrubbing, wanted: Wanted): Promise<Looked> {
  const first = await look(work, wanted);
  if (first.kind === 'right') return first;
  await sleep(work.clock, work.config.againMs, work.signal);
  const second = await look(work, wanted);
  return { ...second, bytes: first.bytes + second.bytes };
}

async function look(work: Scrubbing, { key, sha256, sizeBytes }: Wanted): Promise<Looked> {
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

/** Whether a record still names it: the sweep takes the bytes before the record, and thumbnails are replaced. */
async function isWanted({ meta }: Scrubbing, source: Sha256, key: BlobKey): Promise<boolean> {
  const blob = await meta.findBlob(source);
  if (blob === undefined || (await meta.isUnreferenced(source))) return false;
  if (key === mediaKey(source)) return true;
  return blob.thumbs.kind === 'ready' && blob.thumbs.made.some((made) => thumbKey(source, made.sha256) === key);
}

interface Pace {
  /** Resolves when so many bytes more are within the rate. */
  spend(bytes: number, signal: AbortSignal): Promise<void>;
}

/** Time that passed unused is not made up for. */
function createPace(rateBytes: number, clock: Clock): Pace {
  let dueAtMs = clock.monotonicMs();
  return {
    async spend(bytes, signal) {
      dueAtMs = Math.max(dueAtMs, clock.monotonicMs()) + (bytes * 1_000) / rateBytes;
      const aheadMs = dueAtMs - clock.monotonicMs();
      if (aheadMs >= WAIT_MIN_MS) await sleep(clock, aheadMs, signal);
    },
  };
}
