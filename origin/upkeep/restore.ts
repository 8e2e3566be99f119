/**
 * Puts a backup back into the configured storage, a folder or a bucket, while no
 * origin runs. Blobs come first. The metadata come last, in one step: before it
 * nothing refers to the blobs, and after it every record has its bytes. A restore
 * that was interrupted can be run again.
 *
 * The hash of every blob is verified. A blob that is in the storage already is
 * kept if it is right, and otherwise replaced from the backup. If an original is
 * right in neither place, the metadata are not put in place, unless an incomplete
 * restore is asked for: then missing originals are marked as rotten, and so
 * withheld until the same bytes are uploaded again. Missing thumbnails are made
 * again.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import type { BlobKey, BlobStore } from '../blobs/blob-store.js';
import { type ExpectedBlob, expectedBlobs, type TransferFault, transfer } from '../blobs/transfer.js';
import type { BlobRecord } from '../meta/media.js';
import type { RestoredMeta } from '../meta/restore-into.js';

export interface RestoreDeps {
  /** The blobs of the backup. */
  readonly source: Pick<BlobStore, 'read'>;
  readonly target: BlobStore;
  /** The metadata of the backup, before they are put in place. */
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
  /** Blobs and thumbnails that are stored and right. */
  readonly blobs: number;
  /** How many of them were copied. */
  readonly copied: number;
  readonly copiedBytes: number;
  readonly originalsMissing: number;
  readonly thumbsMissing: number;
  /** Originals that were marked as rotten when the backup was made, and are not in it. */
  readonly withheld: number;
  /** Whether the metadata are in place. */
  readonly published: boolean;
}

const PAGE = 64;
/** Blobs that are restored at once, because each needs several requests to a bucket. */
const AT_ONCE = 4;

interface RestoreWork extends RestoreDeps, RestoreOptions {
  readonly counts: { -readonly [K in Exclude<keyof RestoreReport, 'published'>]: number };
}

export async function restore(deps: RestoreDeps, options: RestoreOptions): Promise<RestoreReport> {
  const counts = { blobs: 0, copied: 0, copiedBytes: 0, originalsMissing: 0, thumbsMissing: 0, withheld: 0 };
  const work: RestoreWork = { ...deps, ...options, counts };
  const { store } = deps.incoming;
  for (let after: Sha256 | null = null; ; ) {
    const page = await store.blobsAfter(after, PAGE);
    await eachOf(page.blobs, (blob) => restoreBlob(work, blob));
    options.onProgress({ blobs: counts.blobs, copiedBytes: counts.copiedBytes });
    if (page.next === null) break;
    after = page.next;
  }
  options.signal.throwIfAborted();
  const published = counts.originalsMissing === 0 || options.incomplete;
  if (published) await deps.incoming.publish();
  return { ...counts, published };
}

/** Does the work for a few items at once. After a failure no more begin, and all have ended when this ends. */
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

async function restoreBlob(work: RestoreWork, blob: BlobRecord): Promise<void> {
  const [original, ...thumbs] = expectedBlobs(blob);
  const fault = await restoreOne(work, original);
  if (fault !== undefined && blob.quarantine?.cause === 'rot') {
    work.counts.withheld += 1;
  } else if (fault !== undefined) {
    work.counts.originalsMissing += 1;
    work.onFinding({ key: original.key, ...fault });
    await withhold(work, blob.sha256, fault.detail);
  }
  let redo = false;
  for (const thumb of thumbs) {
    const missing = await restoreOne(work, thumb);
    if (missing === undefined) continue;
    work.counts.thumbsMissing += 1;
    work.onFinding({ key: thumb.key, ...missing });
    redo = true;
  }
  if (redo) await work.incoming.store.redoThumbs(blob.sha256, 'backfill', work.clock.now());
}

/** Makes sure that the right bytes are stored under the key. Returns why not if neither side has them. */
async function restoreOne(work: RestoreWork, expected: ExpectedBlob): Promise<Omit<RestoreFinding, 'key'> | undefined> {
  const { source, target, signal, counts } = work;
  signal.throwIfAborted();
  const stored = await checkStored(target, expected, signal);
  if (stored !== 'right') {
    const fault = await copyFromBackup(expected, { source, target, replace: stored === 'wrong', signal });
    if (fault !== undefined) return fault;
    counts.copied += 1;
    counts.copiedBytes += expected.sizeBytes;
  }
  counts.blobs += 1;
  return undefined;
}

/** A file of the backup that cannot be read to its end is a finding, like a missing one. */
async function copyFromBackup(
  expected: ExpectedBlob,
  options: Pick<RestoreDeps, 'source' | 'target'> & { readonly replace: boolean; readonly signal: AbortSignal },
): Promise<Omit<RestoreFinding, 'key'> | undefined> {
  try {
    return await transfer(expected, { ...options, name: 'restore' });
  } catch (thrown) {
    options.signal.throwIfAborted();
    if (!(thrown instanceof Fault) || thrown.code !== 'malformed') throw thrown;
    return { kind: 'unreadable', detail: thrown.cause instanceof Error ? thrown.cause.message : thrown.detail };
  }
}

async function checkStored(
  target: BlobStore,
  expected: ExpectedBlob,
  signal: AbortSignal,
): Promise<'absent' | 'right' | 'wrong'> {
  const sizeBytes = await target.stat(expected.key, signal);
  if (sizeBytes === undefined) return 'absent';
  if (sizeBytes !== expected.sizeBytes) return 'wrong';
  const read = await target.read(expected.key, undefined, signal);
  if (read.kind !== 'found') return 'absent';
  const hash = createHash('sha256');
  for await (const chunk of read.body as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest('hex') === expected.sha256 ? 'right' : 'wrong';
}

/** An unreferenced blob is forgotten instead, because nothing needs it. */
async function withhold({ incoming, clock }: RestoreWork, sha256: Sha256, reason: string): Promise<void> {
  const { store } = incoming;
  if (await store.isUnreferenced(sha256)) await store.forgetBlob(sha256);
  else await store.quarantine(sha256, { at: clock.now(), by: 'restore', reason, cause: 'rot' });
}
