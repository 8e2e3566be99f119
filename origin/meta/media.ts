/**
 * The metadata records: one for each media id and one for each blob. The record
 * of an id says who may see it and for how long. The record of a blob says what
 * the bytes are, which thumbnails exist and whether the bytes are quarantined,
 * because that is the same for every id that refers to these bytes.
 */
import type { EpochMs } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import { type BlobKey, mediaKey, type Place, thumbKey } from '../blobs/blob-store.js';

export interface MediaRecord {
  readonly id: MediaId;
  /** Of the stored and served bytes. */
  readonly sha256: Sha256;
  /** Of the bytes as uploaded, by which duplicates are found. Another one if metadata was stripped (find-sent.ts). */
  readonly sentSha256: Sha256;
  readonly public: boolean;
  readonly owner: string;
  readonly filename: string | null;
  readonly createdAt: EpochMs;
  readonly expiresAt: EpochMs | null;
  /** The last known use; for `unused_for` retention. */
  readonly usedAt: EpochMs;
  readonly state: MediaState;
}

/** A record that is not live is a tombstone until retention forgets it. */
export type MediaState =
  | { readonly kind: 'live' }
  | { readonly kind: 'deleted'; readonly at: EpochMs; readonly by: string }
  | { readonly kind: 'expired'; readonly at: EpochMs };

export interface BlobRecord {
  readonly sha256: Sha256;
  /** Where the blob store has the bytes. */
  readonly place: Place;
  readonly sizeBytes: number;
  /** Detected from the bytes; never the declared type. */
  readonly mime: string;
  readonly storedAt: EpochMs;
  readonly picture: PictureFacts;
  readonly thumbs: ThumbState;
  readonly quarantine: Quarantine | null;
}

/** Facts about the content; null if unknown or not applicable. Width and height are those after orientation is applied. */
export interface PictureFacts {
  readonly width: number | null;
  readonly height: number | null;
  readonly durationMs: number | null;
  readonly frames: number | null;
  /** EXIF orientation 1–8 as found in the original. */
  readonly orientation: number | null;
  /** base64 */
  readonly thumbhash: string | null;
}

export const NO_FACTS: PictureFacts = {
  width: null,
  height: null,
  durationMs: null,
  frames: null,
  orientation: null,
  thumbhash: null,
};

/**
 * Why the bytes are withheld.
 * - `admin`: an admin or the scanner decided so. Uploads of the same bytes are refused.
 * - `rot`: the stored copy is lost or damaged. An upload of the same bytes repairs it and lifts the mark.
 * - `held`: the bytes await the scanner. Its verdict lifts the mark or turns it into `admin`.
 */
export const QUARANTINE_CAUSES = ['admin', 'rot', 'held'] as const;
export type QuarantineCause = (typeof QUARANTINE_CAUSES)[number];

/** `by` of a mark that the scanner has set. */
export const SCANNER = 'scanner';

export interface Quarantine {
  readonly at: EpochMs;
  readonly by: string;
  readonly reason: string | null;
  readonly cause: QuarantineCause;
}

/** Whether uploads of these bytes are refused. */
export function refusesUpload(blob: BlobRecord): boolean {
  return blob.quarantine?.cause === 'admin';
}

/** Whether these bytes are withheld until a scanner has seen them. */
export function awaitsScan(blob: BlobRecord): boolean {
  return blob.quarantine?.cause === 'held';
}

export const THUMB_REFUSALS = [
  'unsupported_type',
  'broken_image',
  'too_many_pixels',
  'too_expensive',
  'failed',
] as const;
export type ThumbRefusal = (typeof THUMB_REFUSALS)[number];

export type ThumbState =
  | { readonly kind: 'pending' }
  | { readonly kind: 'ready'; readonly made: readonly ThumbMade[] }
  | { readonly kind: 'none'; readonly reason: ThumbRefusal };

export type ThumbFormat = 'webp' | 'jpeg' | 'png' | 'avif';

/** One stored thumbnail: a configured variant in one format. */
export interface ThumbMade {
  /** Name of the variant in the configuration. */
  readonly variant: string;
  readonly format: ThumbFormat;
  readonly sha256: Sha256;
  readonly place: Place;
  readonly sizeBytes: number;
  readonly width: number;
  readonly height: number;
  readonly animated: boolean;
}

/** The keys that a record names: that of the original first, then those of its thumbnails. */
export function keysOf(blob: BlobRecord): readonly [BlobKey, ...BlobKey[]] {
  const made = blob.thumbs.kind === 'ready' ? blob.thumbs.made : [];
  return [mediaKey(blob), ...made.map((thumb) => thumbKey(blob.sha256, thumb))];
}

/** The record of an id with the record of its blob. */
export interface Media {
  readonly record: MediaRecord;
  readonly blob: BlobRecord;
}

/** What is known of an id at an instant. Media expires at its instant, whether or not the sweep has marked it yet. */
export type Found =
  | { readonly kind: 'live'; readonly media: Media }
  | { readonly kind: 'quarantined'; readonly media: Media }
  | { readonly kind: 'deleted'; readonly record: MediaRecord }
  | { readonly kind: 'expired'; readonly record: MediaRecord }
  | { readonly kind: 'unknown' };
