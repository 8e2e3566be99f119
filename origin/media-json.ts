/** Media as JSON: the response to an upload, and the core of what admins see. */
import type { EpochMs } from '../src/clock.js';
import { mediaEtag } from './media-reply.js';
import type { Media } from './meta/media.js';

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
  readonly created_at: string;
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

export function instantText(at: EpochMs): string {
  return new Date(at).toISOString();
}
