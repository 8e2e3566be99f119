/**
 * From a staged file to a committed record: identify > settle > commit. Every
 * way in ends here, whether the body came at once, in a form or in parts.
 */
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { IdSource } from '../../src/ids.js';
import { readDimensions } from '../../src/media/dimensions.js';
import { cleanFilename } from '../../src/media/disposition.js';
import type { BlobStore } from '../blobs/blob-store.js';
import type { InFlight } from '../blobs/in-flight.js';
import { type Media, NO_FACTS, type PictureFacts } from '../meta/media.js';
import type { MetaStore, UploadQuota } from '../meta/store.js';
import type { Quotas } from '../quota.js';
import { decideExpiry, type RetentionConfig } from '../retention.js';
import type { Thumbs } from '../thumbs/engine.js';
import { commit } from './commit.js';
import type { UploadConfig } from './config.js';
import { identify } from './identify.js';
import { settle } from './settle.js';
import type { Staged } from './stage.js';

export interface IngestParts {
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly meta: Pick<MetaStore, 'findBlob' | 'commitUpload'>;
  readonly blobs: Pick<BlobStore, 'stat' | 'adopt' | 'remove'>;
  readonly inFlight: Pick<InFlight, 'hold'>;
  readonly thumbs: Pick<Thumbs, 'accepts'>;
  readonly quotas: Pick<Quotas, 'retryAfterMs'>;
  readonly config: { readonly upload: UploadConfig; readonly retention: RetentionConfig };
}

export interface NewUpload {
  readonly staged: Staged;
  readonly declaredType: string | undefined;
  readonly owner: string;
  readonly public: boolean;
  readonly expiresInMs: number | null;
  readonly filename: string | undefined;
  readonly quota: UploadQuota | undefined;
}

export interface Ingested {
  readonly media: Media;
  readonly duplicate: boolean;
}

export async function ingest(parts: IngestParts, upload: NewUpload, signal: AbortSignal): Promise<Ingested> {
  const { config } = parts;
  const { staged } = upload;
  const mime = await identify(staged, upload.declaredType, new Set(config.upload.types));

  const release = await parts.inFlight.hold(staged.sha256, signal);
  try {
    const settled = await settle(parts, staged, signal);
    if (settled.kind === 'quarantined') throw quarantined();

    const now = parts.clock.now();
    const kept = { mime, sizeBytes: staged.sizeBytes, public: upload.public };
    const outcome = await commit(
      parts,
      staged,
      settled,
      {
        ...kept,
        id: parts.ids(),
        sha256: staged.sha256,
        owner: upload.owner,
        filename: upload.filename === undefined ? null : cleanFilename(upload.filename),
        expiresAt: decideExpiry(config.retention.rules, kept, upload.expiresInMs, now),
        picture: factsOf(staged),
        thumbs: parts.thumbs.accepts(mime) ? { kind: 'queue' } : { kind: 'none', reason: 'unsupported_type' },
        ...(upload.quota !== undefined && { quota: upload.quota }),
        now,
      },
      signal,
    );
    switch (outcome.kind) {
      case 'created':
        return { media: outcome.media, duplicate: false };
      case 'duplicate':
        return { media: outcome.media, duplicate: true };
      case 'quarantined':
        throw quarantined();
      case 'over_quota':
        throw overQuota(parts.quotas.retryAfterMs());
    }
  } finally {
    release();
  }
}

export function overQuota(retryAfterMs: number): Fault {
  return new Fault('quota_exceeded', 'The quota of this period is used up.', {
    headers: { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) },
  });
}

function quarantined(): Fault {
  return new Fault('quarantined', 'These bytes are quarantined.');
}

/** What the header tells at once; the thumbnail engine learns the rest. */
function factsOf(staged: Staged): PictureFacts {
  const size = readDimensions(staged.head);
  if (size === undefined) return NO_FACTS;
  const { width, height, frames, orientation } = size;
  return { ...NO_FACTS, width, height, frames, orientation };
}
