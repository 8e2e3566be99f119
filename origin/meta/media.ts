/**
 * What the origin knows: one record per id, one per blob. An id carries who may
 * see it and for how long; the blob carries what the bytes are, their
 * thumbnails and whether they are quarantined, because those are the same for
 * every id over the same bytes.
 */
import type { EpochMs } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';

export interface MediaRecord {
  readonly id: MediaId;
  /** Of what is stored and served. */
  readonly sha256: Sha256;
  /** Of what the uploader sent, by which duplicates are found: another one where something was taken out before storing. */
  readonly sentSha256: Sha256;
  readonly public: boolean;
  readonly owner: string;
  readonly filename: string | null;
  readonly createdAt: EpochMs;
  readonly expiresAt: EpochMs | null;
  /** Last time anyone was known to fetch it; for `unused_for` retention. */
  readonly usedAt: EpochMs;
  readonly state: MediaState;
}

/** A record that is gone is a tombstone until retention forgets it. */
export type MediaState =
  | { readonly kind: 'live' }
  | { readonly kind: 'deleted'; readonly at: EpochMs; readonly by: string }
  | { readonly kind: 'expired'; readonly at: EpochMs };

export interface BlobRecord {
  readonly sha256: Sha256;
  readonly sizeBytes: number;
  /** Detected, never the declared one. */
  readonly mime: string;
  readonly storedAt: EpochMs;
  readonly picture: PictureFacts;
  readonly thumbs: ThumbState;
  readonly quarantine: Quarantine | null;
}

/** What is known of the content; null where it is not (yet) known or has none. Upright, after orientation. */
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
 * Why the bytes are withheld. `admin`: somebody decided so, and the same bytes
 * are refused from everybody. `rot`: the stored copy is lost or no longer has its
 * hash; the same bytes are welcome, and their upload lifts the mark. `held`: no
 * scanner has seen them yet; its verdict lifts the mark or makes it the admin's.
 */
export const QUARANTINE_CAUSES = ['admin', 'rot', 'held'] as const;
export type QuarantineCause = (typeof QUARANTINE_CAUSES)[number];

export interface Quarantine {
  readonly at: EpochMs;
  readonly by: string;
  readonly reason: string | null;
  readonly cause: QuarantineCause;
}

/** Whether an upload of these bytes is refused. */
export function refusesUpload(blob: BlobRecord): boolean {
  return blob.quarantine?.cause === 'admin';
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
  readonly sizeBytes: number;
  readonly width: number;
  readonly height: number;
  readonly animated: boolean;
}

/** A record with its blob: all that a request for it needs. */
export interface Media {
  readonly record: MediaRecord;
  readonly blob: BlobRecord;
}

/** What a look at an id may find, at an instant. Expiry needs no message: the instant decides. */
export type Found =
  | { readonly kind: 'live'; readonly media: Media }
  | { readonly kind: 'quarantined'; readonly media: Media }
  | { readonly kind: 'deleted'; readonly record: MediaRecord }
  | { readonly kind: 'expired'; readonly record: MediaRecord }
  | { readonly kind: 'unknown' };
