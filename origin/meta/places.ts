/**
 * Where the bytes of a blob are, as the records say it, and what becomes of places
 * that no record names any more.
 *
 * Promises: records of blobs are written here alone. A key that leaves a record is in
 * the trash from the same transaction on, until its bytes are removed. Any other key
 * under which there are bytes is intended by somebody who is storing them, or was
 * left behind by a process that died.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import { type BlobKey, sourceOf } from '../blobs/blob-store.js';
import type { Change } from './database.js';
import { keysOf } from './media.js';
import type { StoredBlob } from './records.js';
import { BLOBS, before, type Reader, read, TRASH, targets, write } from './tables.js';

/** Sets the record of a blob, or removes it if `next` is undefined. */
export function writeBlob(change: Change, sha256: Sha256, next: StoredBlob | undefined): void {
  const { writer, now } = change;
  const stored = read(writer, BLOBS, sha256);
  const former: readonly BlobKey[] = stored === undefined ? [] : keysOf(stored.blob);
  const named: readonly BlobKey[] = next === undefined ? [] : keysOf(next.blob);
  for (const key of former) if (!named.includes(key)) write(writer, TRASH, key, { key, at: now });
  change.placed.push(...named.filter((key) => !former.includes(key)));
  write(writer, BLOBS, sha256, next);
}

/** Up to `limit` keys that have been in the trash since before an instant, the oldest first. */
export function trashedBefore(reader: Reader, at: EpochMs, limit: number): readonly BlobKey[] {
  return [...targets<BlobKey>(reader, 'trash_order', { ...before(at), limit })];
}

/** Takes keys out of the trash, because their bytes are removed. */
export function forgetTrash({ writer }: Change, keys: readonly BlobKey[]): void {
  for (const key of keys) write(writer, TRASH, key, undefined);
}

export function isNamed(reader: Reader, key: BlobKey): boolean {
  const stored = read(reader, BLOBS, sourceOf(key));
  return stored !== undefined && keysOf(stored.blob).includes(key);
}

export function isTrashed(reader: Reader, key: BlobKey): boolean {
  return read(reader, TRASH, key) !== undefined;
}

/**
 * Keys under which somebody is storing bytes that no record names yet. An intent is made before the first byte is stored,
 * and ends with the transaction that records the key, or when whoever made it gives up.
 *
 * They are kept in memory, so they cost no write: one process writes to the store, and uploads and jobs in progress end
 * with it.
 */
export interface Intents {
  add(keys: readonly BlobKey[]): void;
  has(key: BlobKey): boolean;
  /** Ends intents, and returns those that there were. */
  end(keys: readonly BlobKey[]): readonly BlobKey[];
}

export function createIntents(): Intents {
  const intended = new Set<BlobKey>();
  return {
    add(keys) {
      for (const key of keys) intended.add(key);
    },
    has: (key) => intended.has(key),
    end: (keys) => keys.filter((key) => intended.delete(key)),
  };
}
