/**
 * Frees what nobody needs any more: blobs that no live id holds, with their
 * thumbnails; stored bytes that no record knows, as a crash leaves them; files
 * forgotten on the stage. Each only after a grace period, and a blob only while
 * no upload counts on it (hash-locks.ts).
 *
 * The record goes first and the bytes after it, so that no record is ever without
 * its bytes: what is cut off in between leaves bytes without a record.
 */
import { opendir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { EpochMs } from '../../src/clock.js';
import { errorCode } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import type { BlobRecord } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
import { type BlobKey, type BlobListing, type BlobStore, mediaKey } from './blob-store.js';
import type { HashLocks } from './hash-locks.js';

export interface SweepParts {
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

/** Frees up to `limit` blobs that have been without a live id since before an instant. */
export async function freeUnreferenced(
  parts: SweepParts,
  unreferencedBefore: EpochMs,
  limit: number,
  signal: AbortSignal,
): Promise<Freed> {
  let freed = NOTHING;
  for (const blob of await parts.meta.unreferencedBlobs(unreferencedBefore, limit)) {
    signal.throwIfAborted();
    freed = plus(freed, await freeBlob(parts, blob));
  }
  return freed;
}

/** Frees stored bytes, stored before an instant, that no record names. Walks the whole store. */
export async function freeOrphans(parts: SweepParts, storedBefore: EpochMs, signal: AbortSignal): Promise<Freed> {
  let freed = NOTHING;
  for await (const listed of orphans(parts, storedBefore, signal)) {
    const release = parts.hashLocks.tryAlone(sourceOf(listed.key));
    if (release === undefined) continue;
    try {
      // Asked again now that no upload can come in between.
      if (!(await isOrphan(parts, listed.key))) continue;
      await parts.blobs.remove(listed.key, signal);
      freed = plus(freed, countOf(listed));
    } finally {
      release();
    }
  }
  return freed;
}

/** Stored bytes that no record names. */
export async function* orphans(
  parts: Pick<SweepParts, 'blobs'> & { readonly meta: Pick<MetaStore, 'findBlob'> },
  storedBefore: EpochMs,
  signal: AbortSignal,
): AsyncIterable<BlobListing> {
  for (const prefix of ['media/', 'thumb/'] as const) {
    for await (const listed of parts.blobs.list(prefix, signal)) {
      if (listed.storedAt < storedBefore && (await isOrphan(parts, listed.key))) yield listed;
    }
  }
}

/** Removes files that lie on the stage since before an instant; answers how many. Folders belong to whoever made them. */
export async function clearStage(folder: string, modifiedBefore: EpochMs, signal: AbortSignal): Promise<number> {
  let removed = 0;
  for await (const entry of await opendir(folder)) {
    signal.throwIfAborted();
    if (!entry.isFile()) continue;
    const path = join(folder, entry.name);
    const modifiedAt = await modifiedAtOf(path);
    if (modifiedAt === undefined || modifiedAt >= modifiedBefore) continue;
    await rm(path, { force: true });
    removed += 1;
  }
  return removed;
}

async function freeBlob(parts: SweepParts, blob: BlobRecord): Promise<Freed> {
  const release = parts.hashLocks.tryAlone(blob.sha256);
  if (release === undefined) return NOTHING;
  try {
    // Asked inside the transaction, now that no upload can come in between.
    if (!(await parts.meta.forgetBlob(blob.sha256))) return NOTHING;
    await parts.blobs.remove(mediaKey(blob.sha256));
    let freed: Freed = { blobs: 1, thumbs: 0, bytes: blob.sizeBytes };
    for await (const listed of parts.blobs.list(`thumb/${blob.sha256}/`)) {
      await parts.blobs.remove(listed.key);
      freed = plus(freed, countOf(listed));
    }
    return freed;
  } finally {
    release();
  }
}

async function isOrphan(parts: { readonly meta: Pick<MetaStore, 'findBlob'> }, key: BlobKey): Promise<boolean> {
  const blob = await parts.meta.findBlob(sourceOf(key));
  if (blob === undefined) return true;
  const thumb = key.split('/')[2];
  // While thumbnails are pending, those that were just stored are not yet on record.
  if (thumb === undefined || blob.thumbs.kind === 'pending') return false;
  return blob.thumbs.kind === 'none' || !blob.thumbs.made.some(({ sha256 }) => sha256 === thumb);
}

/** The hash of the original that a key belongs to. */
function sourceOf(key: BlobKey): Sha256 {
  return (key.split('/')[1] ?? '') as Sha256;
}

function countOf({ key, sizeBytes }: BlobListing): Freed {
  const isThumb = key.startsWith('thumb/');
  return { blobs: isThumb ? 0 : 1, thumbs: isThumb ? 1 : 0, bytes: sizeBytes };
}

function plus(one: Freed, other: Freed): Freed {
  return { blobs: one.blobs + other.blobs, thumbs: one.thumbs + other.thumbs, bytes: one.bytes + other.bytes };
}

async function modifiedAtOf(path: string): Promise<EpochMs | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}
