/** Media as JSON: the response to an upload, and the core of what admins see. */
import type { EpochMs } from '../../src/clock.js';
import type { Sent } from '../ingest/ingest.js';
import type { Media } from '../meta/media.js';
import { mediaEtag } from './media-reply.js';

/** Instants are in RFC 3339. Null: not known, or none. */
export interface MediaDocument {
  readonly id: string;
  readonly url: string;
  readonly thumb_url: string | null;
  readonly etag: string;
  readonly sha256: string;
  readonly size: number;
  readonly mime: string;
  readonly public: boolean;
  readonly width: number | null;
  readonly height: number | null;
  /** Seconds. */
  readonly duration: number | null;
  readonly thumbhash: string | null;
  readonly filename: string | null;
  /** Null for the sender of a duplicate who may not read it. */
  readonly created_at: string | null;
  readonly expires_at: string | null;
}

export function mediaPath(id: string): string {
  return `/v1/media/${id}`;
}

export function describeMedia({ record, blob }: Media, baseUri: string): MediaDocument {
  const url = baseUri + mediaPath(record.id);
  return {
    id: record.id,
    url,
    thumb_url: blob.thumbs.kind === 'none' ? null : `${url}/thumb`,
    etag: mediaEtag(blob.sha256),
    sha256: blob.sha256,
    size: blob.sizeBytes,
    mime: blob.mime,
    public: record.public,
    width: blob.picture.width,
    height: blob.picture.height,
    duration: blob.picture.durationMs === null ? null : blob.picture.durationMs / 1_000,
    thumbhash: blob.picture.thumbhash,
    filename: record.filename,
    created_at: instantText(record.createdAt),
    expires_at: record.expiresAt === null ? null : instantText(record.expiresAt),
  };
}

/**
 * The media as the sender of the same bytes may see it. The name is the
 * sender's own. With a token that may not read it: where it is, and what was
 * sent; the rest would tell of whoever sent it first.
 */
export function describeDuplicate(media: Media, sent: Sent, readable: boolean, baseUri: string): MediaDocument {
  const known = { ...describeMedia(media, baseUri), filename: sent.filename };
  if (readable) return known;
  return {
    ...known,
    thumb_url: null,
    sha256: sent.sha256,
    size: sent.sizeBytes,
    mime: sent.mime,
    width: null,
    height: null,
    duration: null,
    thumbhash: null,
    created_at: null,
    expires_at: null,
  };
}

export function instantText(at: EpochMs): string {
  return new Date(at).toISOString();
}
