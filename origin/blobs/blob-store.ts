/**
 * Where the bytes of media are stored: one interface, one contract suite,
 * several adaptors.
 *
 * Whoever receives bytes writes them to a file in `stageFolder`. `adopt` makes
 * that file durable in one step: it resolves when the blob is whole and synced
 * under its key, or it rejects and nothing new is stored. To adopt a key that
 * exists is no error: equal keys mean equal bytes, and a stored blob of another
 * size is replaced.
 *
 * Every failure is a Fault: `storage_full`, or `storage_unavailable` with its
 * cause.
 */
import type { Readable } from 'node:stream';
import type { EpochMs } from '../../src/clock.js';
import type { ByteSpan } from '../../src/http/range.js';
import { parseSha256, type Sha256 } from '../../src/ids.js';

/** `media/<sha256>` for originals, `thumb/<sha256 of the source>/<sha256>` for thumbnails. */
export type BlobKey = string & { readonly brand: 'BlobKey' };

export function mediaKey(sha256: Sha256): BlobKey {
  return `media/${sha256}` as BlobKey;
}

export function thumbKey(source: Sha256, sha256: Sha256): BlobKey {
  return `thumb/${source}/${sha256}` as BlobKey;
}

/** Reads a key from a listing or an operator. Undefined for a text that the functions above do not make. */
export function parseBlobKey(text: string): BlobKey | undefined {
  const [folder, first = '', second = '', ...rest] = text.split('/');
  if (rest.length > 0 || parseSha256(first) === undefined) return undefined;
  const fits = folder === 'media' ? second === '' && !text.endsWith('/') : folder === 'thumb' && parseSha256(second);
  return fits ? (text as BlobKey) : undefined;
}

/** The hash of the original that a key belongs to. */
export function sourceOf(key: BlobKey): Sha256 {
  return (key.split('/')[1] ?? '') as Sha256;
}

export type ReadOutcome =
  | {
      readonly kind: 'found';
      /** Size of the whole blob. */
      readonly sizeBytes: number;
      /** Gives exactly the requested bytes, or errors. Must be read to its end or destroyed. */
      readonly body: Readable;
    }
  | { readonly kind: 'missing' }
  | { readonly kind: 'unsatisfiable'; readonly sizeBytes: number };

export interface BlobListing {
  readonly key: BlobKey;
  readonly sizeBytes: number;
  readonly storedAt: EpochMs;
}

export interface BlobStore {
  readonly kind: 'local' | 's3';
  /** The region, with S3. */
  readonly region: string | null;
  /** A local folder for staged files, from which they can be adopted cheaply. */
  readonly stageFolder: string;

  /**
   * Makes a staged file durable under a key. The file is gone from the stage afterwards, even after a failure. `synced`
   * says that its bytes are on the disk already, and that they are `sizeBytes`.
   */
  adopt(
    stagedPath: string,
    key: BlobKey,
    facts: { sizeBytes: number; sha256: Sha256; synced?: boolean },
    signal?: AbortSignal,
  ): Promise<void>;
  /**
   * The same for a small body that is in memory, without a file in the stage; undefined in stores that need one. `taken`:
   * something is stored under the key already, which `adopt` replaces.
   */
  put?(key: BlobKey, bytes: Buffer, signal?: AbortSignal): Promise<'put' | 'taken'>;
  /** A span that begins inside the blob is cut to the end of the blob. The signal ends the body too. */
  read(key: BlobKey, span?: ByteSpan, signal?: AbortSignal): Promise<ReadOutcome>;
  /**
   * The local file that has, or would have, the bytes of a key, for programs that need a file. It must not be written
   * to. Undefined if the store has no such files.
   */
  fileOf(key: BlobKey): string | undefined;
  /** The size of a blob, or undefined if there is none. */
  stat(key: BlobKey, signal?: AbortSignal): Promise<number | undefined>;
  /** Resolves too if there is none. */
  remove(key: BlobKey, signal?: AbortSignal): Promise<void>;
  /** All keys with this prefix, in any order. */
  list(prefix: 'media/' | 'thumb/' | `thumb/${string}/`, signal?: AbortSignal): AsyncIterable<BlobListing>;
  /** Writes, reads and removes a real object. Rejects with the reason. */
  probe(signal?: AbortSignal): Promise<void>;
  /** Free bytes for blobs, or null if the storage has no such limit. */
  freeBytes(): Promise<number | null>;
  close(): Promise<void>;
}
