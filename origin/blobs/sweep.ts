/**
 * Frees what is no longer needed: blobs that no live id refers to, with their
 * thumbnails; what is in the trash, parts of uploads among it; stored bytes that were left behind by a crash;
 * old files on the stage. Each only after a grace period.
 *
 * The record is removed first and the bytes after it, so that no record is ever
 * without its bytes. In between their keys are in the trash, so that a crash leaves
 * nothing. No upload has to be waited for: it stores its bytes in another place.
 */
import { opendir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { EpochMs } from '../../src/clock.js';
import { errorCode } from '../../src/errors.js';
import { type BlobRecord, keysOf } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
import { BLOB_KINDS, type BlobKey, type BlobListing, type BlobStore, type ListPrefix } from './blob-store.js';

export interface SweepDeps {
  readonly meta: Pick<MetaStore, 'unreferencedBlobs' | 'forgetBlob' | 'leftBehind' | 'trash' | 'emptied'>;
  readonly blobs: Pick<BlobStore, 'list' | 'remove'>;
}

export interface Freed {
  readonly blobs: number;
  readonly thumbs: number;
  /** Of unfinished uploads. */
  readonly parts: number;
  readonly bytes: number;
}

const NOTHING: Freed = { blobs: 0, thumbs: 0, parts: 0, bytes: 0 };

/** Frees up to `limit` blobs that have had no live id since before an instant. */
export async function freeUnreferenced(
  deps: SweepDeps,
  unreferencedBefore: EpochMs,
  limit: number,
  signal: AbortSignal,
): Promise<Freed> {
  const { meta, blobs } = deps;
  const removed: Pick<BlobListing, 'key' | 'sizeBytes'>[] = [];
  try {
    for (const blob of await meta.unreferencedBlobs(unreferencedBefore, limit)) {
      signal.throwIfAborted();
      const sizes = sizesOf(blob);
      // Whether it may be freed is decided again inside the transaction.
      for (const key of (await meta.forgetBlob(blob.sha256)) ?? []) {
        await blobs.remove(key);
        removed.push({ key, sizeBytes: sizes.get(key) ?? 0 });
      }
    }
    return removed.reduce((freed, one) => plus(freed, countOf(one)), NOTHING);
  } finally {
    // Once for all of them: each call costs a sync.
    await meta.emptied(removed.map(({ key }) => key));
  }
}

/** Removes the bytes of up to `limit` keys that no record has named since before an instant. */
export async function emptyTrash(
  { meta, blobs }: Pick<SweepDeps, 'meta' | 'blobs'>,
  trashedBefore: EpochMs,
  limit: number,
  signal: AbortSignal,
): Promise<Freed> {
  const removed: BlobKey[] = [];
  const failures: unknown[] = [];
  for (const key of await meta.trash(trashedBefore, limit)) {
    if (signal.aborted) break;
    // One that cannot be removed does not keep the others.
    await blobs.remove(key).then(
      () => removed.push(key),
      (thrown: unknown) => failures.push(thrown),
    );
  }
  await meta.emptied(removed);
  if (failures.length > 0) throw failures[0];
  return removed.reduce((freed, key) => plus(freed, countOf({ key, sizeBytes: 0 })), NOTHING);
}

/** Prefixes that divide the whole store into parts, by the first digits of the hashes and ids. */
export const WALK_PARTS: readonly ListPrefix[] = BLOB_KINDS.flatMap((kind) =>
  Array.from({ length: 256 }, (_, n): ListPrefix => `${kind}/${n.toString(16).padStart(2, '0')}`),
);

const WHOLE: readonly ListPrefix[] = BLOB_KINDS.map((kind): ListPrefix => `${kind}/`);

/** Frees what was stored before an instant and was left behind, in these parts of the store. */
export async function freeOrphans(
  deps: SweepDeps,
  storedBefore: EpochMs,
  signal: AbortSignal,
  parts: readonly ListPrefix[] = WHOLE,
): Promise<Freed> {
  let freed = NOTHING;
  for await (const listed of orphans(deps, storedBefore, signal, parts)) {
    // No record will ever name it: only what is intended can be recorded.
    await deps.blobs.remove(listed.key, signal);
    freed = plus(freed, countOf(listed));
  }
  return freed;
}

/** How many keys are looked up at once. */
const LOOK_UP_MAX = 1_000;

/** What was stored before an instant and was left behind. */
export async function* orphans(
  { meta, blobs }: { readonly meta: Pick<MetaStore, 'leftBehind'>; readonly blobs: Pick<BlobStore, 'list'> },
  storedBefore: EpochMs,
  signal: AbortSignal,
  parts: readonly ListPrefix[] = WHOLE,
): AsyncIterable<BlobListing> {
  for (const part of parts) {
    let found: BlobListing[] = [];
    for await (const listed of blobs.list(part, signal)) {
      if (listed.storedAt >= storedBefore) continue;
      found.push(listed);
      if (found.length < LOOK_UP_MAX) continue;
      yield* await leftOf(meta, found);
      found = [];
    }
    yield* await leftOf(meta, found);
  }
}

async function leftOf(
  meta: Pick<MetaStore, 'leftBehind'>,
  found: readonly BlobListing[],
): Promise<readonly BlobListing[]> {
  const left = new Set(await meta.leftBehind(found.map(({ key }) => key)));
  return found.filter(({ key }) => left.has(key));
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

function sizesOf(blob: BlobRecord): ReadonlyMap<BlobKey, number> {
  const made = blob.thumbs.kind === 'ready' ? blob.thumbs.made : [];
  const sizes = [blob.sizeBytes, ...made.map(({ sizeBytes }) => sizeBytes)];
  return new Map(keysOf(blob).map((key, at) => [key, sizes[at] ?? 0]));
}

function countOf({ key, sizeBytes }: Pick<BlobListing, 'key' | 'sizeBytes'>): Freed {
  const counted = (kind: (typeof BLOB_KINDS)[number]): number => (key.startsWith(`${kind}/`) ? 1 : 0);
  return { blobs: counted('media'), thumbs: counted('thumb'), parts: counted('part'), bytes: sizeBytes };
}

function plus(one: Freed, other: Freed): Freed {
  return {
    blobs: one.blobs + other.blobs,
    thumbs: one.thumbs + other.thumbs,
    parts: one.parts + other.parts,
    bytes: one.bytes + other.bytes,
  };
}

async function unlessAbsent<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}
