/**
 * Frees what is no longer needed: blobs that no live id refers to, with their
 * thumbnails; stored bytes without a record, which a crash may leave; old files
 * on the stage. Each only after a grace period, and a blob only while no upload
 * has its hash lock (hash-locks.ts).
 *
 * The record is removed first and the bytes after it, so that no record is ever
 * without its bytes. A crash in between leaves bytes without a record.
 */
import { opendir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { EpochMs } from '../../src/clock.js';
import { errorCode } from '../../src/errors.js';
import type { BlobRecord } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
import { type BlobKey, type BlobListing, type BlobStore, mediaKey, sourceOf } from './blob-store.js';
import type { HashLocks } from './hash-locks.js';

export interface SweepDeps {
  readonly meta: Pick<MetaStore, 'unreferencedBlobs' | 'forgetBlob' | 'findBlob'>;
  readonly blobs: Pick<BlobStore, 'list' | 'remove'>;
  readonly hashLocks: Pick<HashLocks, 'tryAlone'>;
}

export interface Freed {
  readonly blobs: number;
  readonly thumbs: number;
  readonly bytes: number;
}

const NOTHING: Freed = { blobs: 0, thumbs: 0, bytes: 0 };

/** Frees up to `limit` blobs that have had no live id since before an instant. */
export async function freeUnreferenced(
  deps: SweepDeps,
  unreferencedBefore: EpochMs,
  limit: number,
  signal: AbortSignal,
): Promise<Freed> {
  let freed = NOTHING;
  for (const blob of await deps.meta.unreferencedBlobs(unreferencedBefore, limit)) {
    signal.throwIfAborted();
    freed = plus(freed, await freeBlob(deps, blob));
  }
  return freed;
}

/** Frees what was stored before an instant and has no record. Walks the whole store. */
export async function freeOrphans(deps: SweepDeps, storedBefore: EpochMs, signal: AbortSignal): Promise<Freed> {
  let freed = NOTHING;
  for await (const listed of orphans(deps, storedBefore, signal)) {
    const release = deps.hashLocks.tryAlone(sourceOf(listed.key));
    if (release === undefined) continue;
    try {
      // Asked again, now that no upload can come in between.
      if (!(await isOrphan(deps, listed.key))) continue;
      await deps.blobs.remove(listed.key, signal);
      freed = plus(freed, countOf(listed));
    } finally {
      release();
    }
  }
  return freed;
}

/** What was stored before an instant and has no record. */
export async function* orphans(
  deps: Pick<SweepDeps, 'blobs'> & { readonly meta: Pick<MetaStore, 'findBlob'> },
  storedBefore: EpochMs,
  signal: AbortSignal,
): AsyncIterable<BlobListing> {
  for (const prefix of ['media/', 'thumb/'] as const) {
    for await (const listed of deps.blobs.list(prefix, signal)) {
      if (listed.storedAt < storedBefore && (await isOrphan(deps, listed.key))) yield listed;
    }
  }
}

/** Removes all files on the stage, when nobody writes to it yet: they are of a process that died. */
export function clearLeftovers(folder: string): Promise<number> {
  return clearStage(folder, Number.POSITIVE_INFINITY, new AbortController().signal);
}

/** Removes files on the stage that were last written before an instant, and returns their number. Folders are left to whoever made them. */
export async function clearStage(folder: string, modifiedBefore: EpochMs, signal: AbortSignal): Promise<number> {
  let removed = 0;
  // A folder that somebody removed is made again when a file is to be written.
  const entries = await unlessAbsent(opendir(folder));
  for await (const entry of entries ?? []) {
    signal.throwIfAborted();
    if (!entry.isFile()) continue;
    const path = join(folder, entry.name);
    const found = await unlessAbsent(stat(path));
    if (found === undefined || found.mtimeMs >= modifiedBefore) continue;
    await rm(path, { force: true });
    removed += 1;
  }
  return removed;
}

async function freeBlob(deps: SweepDeps, blob: BlobRecord): Promise<Freed> {
  const release = deps.hashLocks.tryAlone(blob.sha256);
  if (release === undefined) return NOTHING;
  try {
    // Checked inside the transaction, now that no upload can come in between.
    if (!(await deps.meta.forgetBlob(blob.sha256))) return NOTHING;
    await deps.blobs.remove(mediaKey(blob.sha256));
    let freed: Freed = { blobs: 1, thumbs: 0, bytes: blob.sizeBytes };
    for await (const listed of deps.blobs.list(`thumb/${blob.sha256}/`)) {
      await deps.blobs.remove(listed.key);
      freed = plus(freed, countOf(listed));
    }
    return freed;
  } finally {
    release();
  }
}

async function isOrphan(deps: { readonly meta: Pick<MetaStore, 'findBlob'> }, key: BlobKey): Promise<boolean> {
  const blob = await deps.meta.findBlob(sourceOf(key));
  if (blob === undefined) return true;
  const thumb = key.split('/')[2];
  // While thumbnails are pending, those that were just stored are not recorded yet.
  if (thumb === undefined || blob.thumbs.kind === 'pending') return false;
  return blob.thumbs.kind === 'none' || !blob.thumbs.made.some(({ sha256 }) => sha256 === thumb);
}

function countOf({ key, sizeBytes }: BlobListing): Freed {
  const isThumb = key.startsWith('thumb/');
  return { blobs: isThumb ? 0 : 1, thumbs: isThumb ? 1 : 0, bytes: sizeBytes };
}

function plus(one: Freed, other: Freed): Freed {
  return { blobs: one.blobs + other.blobs, thumbs: one.thumbs + other.thumbs, bytes: one.bytes + other.bytes };
}

async function unlessAbsent<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}
