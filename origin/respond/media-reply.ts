/**
 * Responses with media: an original or a thumbnail, as 200, 206 or 304. Their
 * headers are the same for GET and HEAD. The storage is opened only when the
 * body is sent.
 */

import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { EpochMs } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import { MEDIA_CORS_HEADERS } from '../../src/http/browser.js';
import { evaluateConditions, type RequestHead } from '../../src/http/conditional.js';
import { formatHttpDate } from '../../src/http/date.js';
import { formatDigest } from '../../src/http/digest.js';
import { multipartBody, multipartPlan } from '../../src/http/multipart.js';
import { type ByteSpan, contentRange, planRange, spanLength, unsatisfiedRange } from '../../src/http/range.js';
import { emptyReply, type HeaderList, type Reply } from '../../src/http/reply.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import { MEDIA_ID } from '../../src/wire.js';
import type { BlobKey, BlobStore } from '../blobs/blob-store.js';
import type { BlobRecord } from '../meta/media.js';
import type { ThumbsConfig } from '../thumbs/config.js';
import { cacheHeaders, type Lifetime } from './lifetime.js';

/** The bytes that a URL stands for, and their metadata as one viewer gets them. */
export interface Representation {
  readonly mediaId: MediaId;
  readonly key: BlobKey;
  readonly sha256: Sha256;
  readonly sizeBytes: number;
  readonly contentType: string;
  /** Null: not known. */
  readonly lastModifiedAt: EpochMs | null;
  /** Fields that not every representation has. */
  readonly headers: HeaderList;
  readonly lifetime: Lifetime;
}

export function mediaEtag(sha256: Sha256): string {
  return `"sha256:${sha256}"`;
}

/** Whether the thumbnail engine has yet to add facts about these bytes. */
export function awaitsFacts(blob: BlobRecord, thumbs: Pick<ThumbsConfig, 'enabled'>): boolean {
  return thumbs.enabled && blob.thumbs.kind === 'pending';
}

/** A store of one representation whose bytes are in memory. */
export function inMemory(bytes: Buffer): Pick<BlobStore, 'read'> {
  return {
    read: async (_key, span = { first: 0, last: bytes.length - 1 }) => ({
      kind: 'found',
      sizeBytes: bytes.length,
      body: Readable.from([bytes.subarray(span.first, span.last + 1)], { objectMode: false }),
    }),
  };
}

/** conditions > range > stream. The caller has decided who may read. */
export function mediaReply(
  blobs: Pick<BlobStore, 'read'>,
  request: RequestHead,
  representation: Representation,
  now: EpochMs,
  limits: { readonly rangesMax: number },
): Reply {
  const validators = { etag: mediaEtag(representation.sha256), lastModifiedAt: representation.lastModifiedAt };
  const head = representationHeaders(representation, validators.etag, now);
  switch (evaluateConditions(request, validators)) {
    case 'precondition_failed':
      throw new Fault('precondition_failed', 'The media does not match the condition of the request.');
    case 'not_modified':
      return emptyReply(304, head);
    case 'proceed':
      break;
  }
  const plan = planRange(request, validators, representation.sizeBytes, limits);
  switch (plan.kind) {
    case 'whole':
      return {
        status: 200,
        headers: [...head, ['content-type', representation.contentType]],
        body: {
          kind: 'stream',
          sizeBytes: representation.sizeBytes,
          open: (signal) => readSpan(blobs, representation, undefined, signal),
        },
      };
    case 'single': {
      const { span } = plan;
      return {
        status: 206,
        headers: [
          ...head,
          ['content-type', representation.contentType],
          ['content-range', contentRange(span, representation.sizeBytes)],
        ],
        body: {
          kind: 'stream',
          sizeBytes: spanLength(span),
          open: (signal) => readSpan(blobs, representation, span, signal),
        },
      };
    }
    case 'several': {
      // RFC 9110 14.6: the uploader of the bytes cannot foresee the boundary.
      const frame = multipartPlan(
        plan.spans,
        representation.sizeBytes,
        representation.contentType,
        randomBytes(18).toString('hex'),
      );
      return {
        status: 206,
        headers: [...head, ['content-type', frame.contentType]],
        body: multipartBody(frame, (span, signal) => readSpan(blobs, representation, span, signal)),
      };
    }
    case 'unsatisfiable':
      throw new Fault('range_not_satisfiable', `The media has ${representation.sizeBytes} bytes.`, {
        headers: { 'content-range': unsatisfiedRange(representation.sizeBytes), etag: validators.etag },
      });
  }
}

function representationHeaders(representation: Representation, etag: string, now: EpochMs): HeaderList {
  return [
    ['etag', etag],
    ...(representation.lastModifiedAt === null
      ? []
      : ([['last-modified', formatHttpDate(representation.lastModifiedAt)]] as const)),
    ['accept-ranges', 'bytes'],
    ['repr-digest', formatDigest(representation.sha256)],
    ...representation.headers,
    ...cacheHeaders(representation.lifetime, now),
    ...MEDIA_CORS_HEADERS,
    ...(representation.lifetime.edge === null ? [] : ([[MEDIA_ID, representation.mediaId]] as const)),
  ];
}

async function readSpan(
  blobs: Pick<BlobStore, 'read'>,
  representation: Representation,
  span: ByteSpan | undefined,
  signal: AbortSignal,
): Promise<Readable> {
  const outcome = await blobs.read(representation.key, span, signal);
  if (outcome.kind === 'found' && outcome.sizeBytes === representation.sizeBytes) return outcome.body;
  if (outcome.kind === 'found') outcome.body.destroy();
  // A bucket may lack for a moment what it has stored.
  throw new Fault('storage_unavailable', 'The media cannot be read at the moment.', {
    cause: new Error(`blob ${representation.key} is ${outcome.kind === 'found' ? 'of another size' : outcome.kind}`),
  });
}
