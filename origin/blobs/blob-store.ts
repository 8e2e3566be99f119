/**
 * Where bytes rest: one interface, one contract suite, several adaptors.
 *
 * A write is staged as a file below `stageFolder` by whoever receives it, and
 * `adopt` makes it durable in one step: after it resolves the blob is whole and
 * synced under its key, or it rejects and nothing is there. Adopting a key that
 * exists is no error and keeps the copy that stands.
 */
import type { Readable } from 'node:stream';
import type { Sha256 } from '../../src/ids.js';

/** `media/<sha256>` for originals, `thumb/<sha256 of the source>/<sha256>` for thumbnails. */
export type BlobKey = string & { readonly brand: 'BlobKey' };

export function mediaKey(sha256: Sha256): BlobKey {
  return `media/${sha256}` as BlobKey;
}

export function thumbKey(source: Sha256, sha256: Sha256): BlobKey {
  return `thumb/${source}/${sha256}` as BlobKey;
}

/** First and last byte, both included. */
export interface ByteSpan {
  readonly first: number;
  readonly last: number;
}

export type ReadOutcome =
  | {
      readonly kind: 'found';
      /** Size of the whole blob. */
      readonly sizeBytes: number;
      /** Must be read to its end or destroyed. */
      readonly body: Readable;
    }
  | { readonly kind: 'missing' }
  | { readonly kind: 'unsatisfiable'; readonly sizeBytes: number };

export interface BlobListing {
  readonly key: BlobKey;
  readonly sizeBytes: number;
  readonly storedAt: number;
}

export interface BlobStore {
  readonly kind: 'local' | 's3';
  /** The region, with S3. */
  readonly region: string | null;
  /** A local folder on which staged files can be made and adopted cheaply. */
  readonly stageFolder: string;

  /** Makes a staged file durable under a key. The file is gone from the stage afterwards, whatever happens. */
  adopt(
    stagedPath: string,
    key: BlobKey,
    facts: { sizeBytes: number; sha256: Sha256 },
    signal?: AbortSignal,
  ): Promise<void>;
  read(key: BlobKey, span?: ByteSpan, signal?: AbortSignal): Promise<ReadOutcome>;
  /** Size, or undefined where there is none. */
  stat(key: BlobKey, signal?: AbortSignal): Promise<number | undefined>;
  /** No error where there is none. */
  remove(key: BlobKey, signal?: AbortSignal): Promise<void>;
  /** All keys that start so, in no promised order. */
  list(prefix: 'media/' | 'thumb/' | `thumb/${string}/`, signal?: AbortSignal): AsyncIterable<BlobListing>;
  /** A real write, read and delete. Rejects with the reason. */
  probe(signal?: AbortSignal): Promise<void>;
  /** Free bytes for blobs, or null where there is no such limit. */
  freeBytes(): Promise<number | null>;
  close(): Promise<void>;
}
