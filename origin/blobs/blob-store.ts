/**
 * Where the bytes of media are stored: one interface, one contract suite,
 * several adaptors.
 *
 * Whoever receives bytes writes them to a file in `stageFolder`. `adopt` makes
 * that file durable in one step: it resolves when the blob is whole and synced
 * under its key, or it rejects and nothing new is stored.
 *
 * No key is used twice: each upload and each run of a thumbnail job makes a new
 * place, even for bytes that are stored already. So whatever is removed under a key
 * can never be the bytes of a later upload, whoever removes it and however late.
 * Which places count is decided by the metadata store alone (meta/store.ts).
 *
 * Every failure is a Fault: `storage_full`, or `storage_unavailable` with its
 * cause.
 */
import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { EpochMs } from '../../src/clock.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { Sha256 } from '../../src/ids.js';

/**
 * `media/<sha256>/<place>` for originals, `thumb/<sha256 of the source>/<sha256>/<place>` for thumbnails. Without
 * `/<place>` if the place is empty. `part/<id>/<offset>-<place>` for a part of an unfinished upload, whose hash matters
 * to nobody.
 */
export type BlobKey = string & { readonly brand: 'BlobKey' };

/** Tells stored copies of the same bytes apart. */
export type Place = string & { readonly brand: 'Place' };

/** The place of what was stored before there were places. Nothing new is stored there. */
export const NO_PLACE = '' as Place;

/** Bytes of a place: enough for one that was never used before with the same hash. */
const PLACE_BYTES = 8;
const PLACE = /^(?:[0-9a-f]{16})?$/;

export function newPlace(): Place {
  return randomBytes(PLACE_BYTES).toString('hex') as Place;
}

export function parsePlace(text: string): Place | undefined {
  return PLACE.test(text) ? (text as Place) : undefined;
}

/** Some bytes, and where they are stored. */
export interface Placed {
  readonly sha256: Sha256;
  readonly place: Place;
}

export function mediaKey({ sha256, place }: Placed): BlobKey {
  return `media/${sha256}${place === NO_PLACE ? '' : `/${place}`}` as BlobKey;
}

export function thumbKey(source: Sha256, { sha256, place }: Placed): BlobKey {
  return `thumb/${source}/${sha256}${place === NO_PLACE ? '' : `/${place}`}` as BlobKey;
}

export function partKey(uploadId: string, offset: number, place: Place): BlobKey {
  return `part/${uploadId}/${offset}-${place}` as BlobKey;
}

const PART_KEY = /^part\/[0-9a-f]{32}\/\d{1,16}-[0-9a-f]{16}$/;

export function isPartKey(text: string): boolean {
  return PART_KEY.test(text);
}

/** What the key of an original or a thumbnail says. */
export interface KeyFields extends Placed {
  readonly kind: 'media' | 'thumb';
  /** The hash of the original: of a thumbnail, another one than its own. */
  readonly source: Sha256;
}

const KEY = /^(?:media\/([0-9a-f]{64})|thumb\/([0-9a-f]{64})\/([0-9a-f]{64}))(?:\/([0-9a-f]{16}))?$/;

/** Undefined for any other text. */
export function partsOf(text: string): KeyFields | undefined {
  const [, original, source, thumb, place = NO_PLACE] = KEY.exec(text) ?? [];
  if (original !== undefined) {
    return { kind: 'media', source: original as Sha256, sha256: original as Sha256, place: place as Place };
  }
  if (source === undefined || thumb === undefined) return undefined;
  return { kind: 'thumb', source: source as Sha256, sha256: thumb as Sha256, place: place as Place };
}

/** Reads a key from a listing or an operator. */
export function parseBlobKey(text: string): BlobKey | undefined {
  return partsOf(text) === undefined && !isPartKey(text) ? undefined : (text as BlobKey);
}

/** The hash of the original that a key belongs to. Of the key of a part it is no hash, but the id of its upload. */
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

export type ListPrefix = `${BlobKind}/${Sha256 | string}`;

/** What a store consists of: the beginning of each key. */
export const BLOB_KINDS = ['media', 'thumb', 'part'] as const;
type BlobKind = (typeof BLOB_KINDS)[number];

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
  /**
   * All keys with this prefix, in any order. With the first digits of a hash, two at least, or a whole one: those of
   * sources whose hash begins like that.
   */
  list(prefix: ListPrefix, signal?: AbortSignal): AsyncIterable<BlobListing>;
  /** Writes, reads and removes a real object. Rejects with the reason. */
  probe(signal?: AbortSignal): Promise<void>;
  /** Free bytes for blobs, or null if the storage has no such limit. */
  freeBytes(): Promise<number | null>;
  close(): Promise<void>;
}
