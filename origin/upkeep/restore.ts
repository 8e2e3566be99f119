/**
 * A backup put back into the storage that the configuration names, a folder or a
 * bucket, while no origin runs. Blobs come first and the metadata last, in one
 * step: until then nothing believes in what has come, and after it every record
 * has its bytes. Whoever breaks off runs it again.
 *
 * Every blob's hash is verified, also of what stands in the storage already: that
 * is kept where it is right, and gives way to the backup's bytes where it is not.
 * Originals that are right in neither place keep the metadata out, unless they
 * are to be put in without: then those are marked as rotten, so that they are
 * withheld until the same bytes are uploaded again. Thumbnails are made anew.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import type { BlobKey, BlobStore } from '../blobs/blob-store.js';
import { type ExpectedBlob, expectedBlobs, type TransferFault, transfer } from '../blobs/transfer.js';
import type { BlobRecord } from '../meta/media.js';
import type { RestoredMeta } from '../meta/restore-into.js';

export interface RestoreParts {
  /** The backup's blobs. */
  readonly source: Pick<BlobStore, 'read'>;
  readonly target: BlobStore;
  /** The backup's metadata, on their way. */
  readonly incoming: RestoredMeta;
  readonly clock: Pick<Clock, 'now'>;
}

export interface RestoreFinding {
  readonly kind: TransferFault['kind'] | 'unreadable';
  readonly key: BlobKey;
  readonly detail: string;
}

export interface RestoreOptions {
  /** Whether the metadata are put in place although originals are missing. */
  readonly incomplete: boolean;
  readonly signal: AbortSignal;
  onFinding(finding: RestoreFinding): void;
  onProgress(progress: { readonly blobs: number; readonly copiedBytes: number }): void;
}

export interface RestoreReport {
  /** Blobs and thumbnails that are in the storage and right. */
  readonly blobs: number;
  /** Of them, those that were not before. */
  readonly copied: number;
  readonly copiedBytes: number;
  readonly originalsMissing: number;
  readonly thumbsMissing: number;
  /** Withheld as rotten when the backup was made, and not in it. */
  readonly withheld: number;
  /** Whether the metadata are in place. */
  readonly published: boolean;
}

const PAGE = 64;
/** Blobs under way together: a bucket is far, and each is a few requests. */
const AT_ONCE = 4;

interface Restoring extends RestoreParts, RestoreOptions {
  readonly counts: { -readonly [K in Exclude<keyof RestoreReport, 'published'>]: number };
}

export async function restore(parts: RestoreParts, options: RestoreOptions): Promise<RestoreReport> {
  const counts = { blobs: 0, copied: 0, copiedBytes: 0, originalsMissing: 0, thumbsMissing: 0, withheld: 0 };
  const work: Restoring = { ...parts, ...options, counts };
  const { store } = parts.incoming;
  for (let after: Sha256 | null = null; ; ) {
    const page = await store.blobsAfter(after, PAGE);
    await eachOf(page.blobs, (blob) => restoreBlob(work, blob));
    options.onProgress({ blobs: counts.blobs, copiedBytes: counts.copiedBytes });
    if (page.next === null) break;
    after = page.next;
  }
  options.signal.throwIfAborted();
  const published = counts.originalsMissing === 0 || options.incomplete;
  if (published) await parts.incoming.publish();
  return { ...counts, published };
}

/** A few at once; the first failure keeps the others from beginning, and all have ended when this does. */
async function eachOf<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const failures: unknown[] = [];
  const worker = async (): Promise<void> => {
    for (const item of queue) {
      if (failures.length > 0) return;
      await work(item).catch((thrown: unknown) => failures.push(thrown));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (failures.length > 0) throw failures[0];
}

async function restoreBlob(work: Restoring, blob: BlobRecord): Promise<void> {
  const [original, ...thumbs] = expectedBlobs(blob);
  const fault = await bring(work, original);
  if (fault !== undefined && blob.quarantine?.cause === 'rot') {
    work.counts.withheld += 1;
  } else if (fault !== undefined) {
    work.counts.originalsMissing += 1;
    work.onFinding({ key: original.key, ...fault });
    await withhold(work, blob.sha256, fault.detail);
  }
  let redo = false;
  for (const thumb of thumbs) {
    const missing = await bring(work, thumb);
    if (missing === undefined) continue;
    work.counts.thumbsMissing += 1;
    work.onFinding({ key: thumb.key, ...missing });
    redo = true;
  }
  if (redo) await work.incoming.store.redoThumbs(blob.sha256, 'backfill', work.clock.now());
}

/** Sees to it that the right bytes stand under the key; why they do not, where neither side has them. */
async function bring(work: Restoring, wanted: ExpectedBlob): Promise<Omit<RestoreFinding, 'key'> | undefined> {
  const { source, target, signal, counts } = work;
  signal.throwIfAborted();
  const standing = await look(target, wanted, signal);
  if (standing !== 'right') {
    const fault = await transferred(wanted, { source, target, replace: standing === 'wrong', signal });
    if (fault !== undefined) return fault;
    counts.copied += 1;
    counts.copiedBytes += wanted.sizeBytes;
  }
  counts.blobs += 1;
  return undefined;
}

/** A file of the backup that cannot be read to its end is told like one that is not there. */
async function transferred(
  wanted: ExpectedBlob,
  options: Pick<RestoreParts, 'source' | 'target'> & { readonly replace: boolean; readonly signal: AbortSignal },
): Promise<Omit<RestoreFinding, 'key'> | undefined> {
  try {
    return await transfer(wanted, { ...options, name: 'restore' });
  } catch (thrown) {
    options.signal.throwIfAborted();
    if (!(thrown instanceof Fault) || thrown.code !== 'malformed') throw thrown;
    return { kind: 'unreadable', detail: thrown.cause instanceof Error ? thrown.cause.message : thrown.detail };
  }
}

async function look(
  target: BlobStore,
  wanted: ExpectedBlob,
  signal: AbortSignal,
): Promise<'absent' | 'right' | 'wrong'> {
  const sizeBytes = await target.stat(wanted.key, signal);
  if (sizeBytes === undefined) return 'absent';
  if (sizeBytes !== wanted.sizeBytes) return 'wrong';
  const read = await target.read(wanted.key, undefined, signal);
  if (read.kind !== 'found') return 'absent';
  const hash = createHash('sha256');
  for await (const chunk of read.body as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest('hex') === wanted.sha256 ? 'right' : 'wrong';
}

/** A blob that nobody holds is forgotten instead: there is nothing to heal. */
async function withhold({ incoming, clock }: Restoring, sha256: Sha256, reason: string): Promise<void> {
  const { store } = incoming;
  if (await store.isUnreferenced(sha256)) await store.forgetBlob(sha256);
  else await store.quarantine(sha256, { at: clock.now(), by: 'restore', reason, cause: 'rot' });
}
