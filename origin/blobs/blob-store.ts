/**
 * Where bytes rest: one interface, one contract suite, several adaptors.
 *
 * A write is staged as a file below `stageFolder` by whoever receives it, and
 * `adopt` makes it durable in one step: after it resolves the blob is whole and
 * synced under its key, or it rejects and nothing new is there. Adopting a key
 * that exists is no error: equal keys mean equal bytes, and a copy of another
 * size is replaced.
 *
 * What fails is a Fault: `storage_full`, or `storage_unavailable` with its cause.
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

/** Checks what a listing or an operator names; anything but a key as made above is undefined. */
export function parseBlobKey(text: string): BlobKey | undefined {
  const [folder, first = '', second = '', ...rest] = text.split('/');
  if (rest.length > 0 || parseSha256(first) === undefined) return undefined;
  const fits = folder === 'media' ? second === '' && !text.endsWith('/') : folder === 'thumb' && parseSha256(second);
  return fits ? (text as BlobKey) : undefined;
}

export type ReadOutcome =
  | {
      readonly kind: 'found';
      /** Size of the whole blob. */
      readonly sizeBytes: number;
      /** Of exactly the bytes asked for, or it errors. Must be read to its end or destroyed. */
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
  /** A local folder on which staged files can be made and adopted cheaply. */
  readonly stageFolder: string;

  /**
   * Makes a staged file durable under a key. The file is gone from the stage afterwards, whatever happens. `synced`:
   * its bytes are on the disk already, and as many as said.
   */
  adopt(
    stagedPath: string,
    key: BlobKey,
    facts: { sizeBytes: number; sha256: Sha256; synced?: boolean },
    signal?: AbortSignal,
  ): Promise<void>;
  /** A span that begins inside the blob is cut to its end. The signal ends the body too. */
  read(key: BlobKey, span?: ByteSpan, signal?: AbortSignal): Promise<ReadOutcome>;
  /**
   * Where the bytes of a key lie, or would lie, as a plain file of this machine, for programs that need one: to be
   * read, never written. Undefined where they lie elsewhere.
   */
  fileOf(key: BlobKey): string | undefined;
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
