/**
 * Answers that carry media: an original or a thumbnail, whole, in part or only
 * confirmed. The head is the same for GET, HEAD, 206 and 304; storage is opened
 * when the body is sent and not before.
 */

import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { EpochMs } from '../src/clock.js';
import { Fault } from '../src/errors.js';
import { MEDIA_CORS_HEADERS } from '../src/http/browser.js';
import { evaluateConditions, type RequestHead } from '../src/http/conditional.js';
import { formatHttpDate } from '../src/http/date.js';
import { formatDigest } from '../src/http/digest.js';
import {
  type ByteSpan,
  contentRange,
  type MultipartPlan,
  multipartPlan,
  planRange,
  unsatisfiedRange,
} from '../src/http/range.js';
import { emptyReply, type HeaderList, type Reply } from '../src/http/reply.js';
import type { MediaId, Sha256 } from '../src/ids.js';
import { MEDIA_ID } from '../src/wire.js';
import type { BlobKey, BlobStore } from './blobs/blob-store.js';

/** What stands behind an address for one viewer: bytes, and what is said of them. */
export interface Representation {
  readonly mediaId: MediaId;
  readonly key: BlobKey;
  readonly sha256: Sha256;
  readonly sizeBytes: number;
  readonly contentType: string;
  readonly lastModifiedAt: EpochMs;
  /** Fields beyond those that every representation has. */
  readonly headers: HeaderList;
  readonly lifetime: Lifetime;
}

/** How long copies may be used, and by whom. */
export interface Lifetime {
  readonly public: boolean;
  /** No copy may be used from here on; null: no end. */
  readonly endsAt: EpochMs | null;
  readonly clientMaxAgeMs: number;
  /** Set for edges only. */
  readonly edge: EdgeLifetime | null;
}

export interface EdgeLifetime {
  readonly maxAgeMs: number;
  /** Whether that is short because the head may change, so that no rule of the edge's may prolong it. */
  readonly provisional: boolean;
  readonly staleWhileRevalidateMs: number;
  readonly staleIfErrorMs: number;
}

export function mediaEtag(sha256: Sha256): string {
  return `"sha256:${sha256}"`;
}

/** conditional > range > stream. Access has been decided; nothing here asks again. */
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
      throw new Fault('precondition_failed', 'The media is not as the request supposes.');
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
          sizeBytes: span.last - span.first + 1,
          open: (signal) => readSpan(blobs, representation, span, signal),
        },
      };
    }
    case 'several': {
      // RFC 9110 14.6: nobody who chose the bytes can foresee the boundary.
      const frame = multipartPlan(
        plan.spans,
        representation.sizeBytes,
        representation.contentType,
        randomBytes(18).toString('hex'),
      );
      return {
        status: 206,
        headers: [...head, ['content-type', frame.contentType]],
        body: {
          kind: 'stream',
          sizeBytes: frame.sizeBytes,
          open: (signal) => Readable.from(readParts(blobs, representation, frame, signal), { objectMode: false }),
        },
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
    ['last-modified', formatHttpDate(representation.lastModifiedAt)],
    ['accept-ranges', 'bytes'],
    ['repr-digest', formatDigest(representation.sha256)],
    ...representation.headers,
    ...cacheHeaders(representation.lifetime, now),
    ...MEDIA_CORS_HEADERS,
    ...(representation.lifetime.edge === null ? [] : ([[MEDIA_ID, representation.mediaId]] as const)),
  ];
}

/** Copies end with the media: every lifetime is cut to what is left of it, the stale ones to what is left after that. */
export function cacheHeaders(lifetime: Lifetime, now: EpochMs): HeaderList {
  const leftMs = lifetime.endsAt === null ? Number.POSITIVE_INFINITY : Math.max(0, lifetime.endsAt - now);
  const seconds = (ms: number): number => Math.floor(ms / 1_000);
  const audience = lifetime.public ? 'public' : 'private';
  const headers: [string, string][] = [
    ['cache-control', `${audience}, max-age=${seconds(Math.min(lifetime.clientMaxAgeMs, leftMs))}`],
  ];
  if (lifetime.edge !== null) {
    const maxAgeMs = Math.min(lifetime.edge.maxAgeMs, leftMs);
    const staleMs = (wishedMs: number): number => seconds(Math.min(wishedMs, leftMs - maxAgeMs));
    const directives = [
      ...(lifetime.public ? ['public'] : []),
      `max-age=${seconds(maxAgeMs)}`,
      `stale-while-revalidate=${staleMs(lifetime.edge.staleWhileRevalidateMs)}`,
      `stale-if-error=${staleMs(lifetime.edge.staleIfErrorMs)}`,
      ...(lifetime.edge.provisional ? ['provisional'] : []),
    ];
    headers.push(['cdn-cache-control', directives.join(', ')]);
  }
  if (lifetime.endsAt !== null) headers.push(['sunset', formatHttpDate(lifetime.endsAt)]);
  return headers;
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
  throw new Fault('internal', 'The media cannot be read at the moment.', {
    cause: new Error(`blob ${representation.key} is ${outcome.kind === 'found' ? 'of another size' : outcome.kind}`),
  });
}

async function* readParts(
  blobs: Pick<BlobStore, 'read'>,
  representation: Representation,
  frame: MultipartPlan,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  for (const { head, span } of frame.parts) {
    yield head;
    // Leaving the loop early destroys the part's stream.
    for await (const chunk of await readSpan(blobs, representation, span, signal)) yield chunk as Buffer;
  }
  yield frame.tail;
}
