/**
 * POST of media: authorize > admit > receive > identify > settle > commit >
 * reply. All that can be decided without the body is decided before it is read.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Caller, Gate } from '../src/access/grant.js';
import { Fault } from '../src/errors.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import type { CounterOf, Metrics } from '../src/metrics.js';
import { requireUploader } from './authorize.js';
import type { BlobStore } from './blobs/blob-store.js';
import type { Admissions } from './ingest/admit.js';
import type { UploadConfig } from './ingest/config.js';
import { type IngestDeps, type Ingested, ingest, overQuota } from './ingest/ingest.js';
import { bodyShape, receive } from './ingest/receive.js';
import { describeMedia, mediaPath } from './media-json.js';
import { mediaEtag } from './media-reply.js';
import type { Quotas, Reservation } from './quota.js';
import type { OriginRequest } from './server/request.js';

export interface UploadDeps extends IngestDeps {
  readonly gate: Gate;
  readonly blobs: BlobStore;
  readonly admissions: Admissions;
  readonly quotas: Quotas;
  readonly counts: UploadCounts;
  readonly baseUri: string;
}

/** As given in the query; a form's fields may say the same. */
export interface UploadOptions {
  readonly public: boolean | undefined;
  readonly expiresInSeconds: number | undefined;
  readonly filename: string | undefined;
}

export interface UploadCounts {
  readonly uploads: CounterOf<'outcome'>;
  readonly bytes: CounterOf<'outcome'>;
}

export function uploadCounts(metrics: Metrics): UploadCounts {
  return {
    uploads: metrics.counter('uploads_total', 'Uploads that were stored, or found to be.', ['outcome']),
    bytes: metrics.counter('uploads_bytes_total', 'Their bytes.', ['outcome']),
  };
}

/** Reads the options of a form's fields by the rules of the query's. */
export type ReadFields = (fields: ReadonlyMap<string, string>) => UploadOptions;

export async function upload(
  deps: UploadDeps,
  request: OriginRequest,
  wish: UploadOptions,
  readFields: ReadFields,
): Promise<Reply> {
  const caller = await requireUploader(deps.gate, request);
  const shape = bodyShape(request);
  requireLifetime(wish, deps.config.upload);
  const { sizeBytes } = request.body;
  request.meter.admitUpload(sizeBytes);
  const reservation = await reserveQuota(deps, caller, sizeBytes);
  const path = join(deps.blobs.stageFolder, `upload-${randomUUID()}`);
  /** Whether something of this may lie there still. */
  let staged = true;
  try {
    const admission = await deps.admissions.admit({ sizeBytes, form: shape.kind === 'form' });
    try {
      const receiving = { config: deps.config.upload, clock: deps.clock, sync: deps.blobs.kind === 'local' };
      const received = await receive(receiving, request, shape, path);
      const options = { ...wish, ...given(readFields(received.fields)) };
      requireLifetime(options, deps.config.upload);
      const ingested = await ingest(
        deps,
        {
          staged: received.staged,
          declaredType: received.declaredType,
          owner: caller.subject,
          public: options.public ?? false,
          expiresInMs: options.expiresInSeconds === undefined ? null : options.expiresInSeconds * 1_000,
          filename: options.filename ?? received.filename,
          quota: reservation.quota,
        },
        request.signal,
      );
      staged = !ingested.adopted;
      return ingestedReply(deps, request, ingested);
    } finally {
      admission.release();
    }
  } finally {
    reservation.release();
    if (staged) await rm(path, { force: true });
  }
}

/** `sizeBytes`: what the sender announces, or null. The caller releases it. */
export async function reserveQuota(
  deps: Pick<UploadDeps, 'quotas'>,
  caller: Caller,
  sizeBytes: number | null,
): Promise<Reservation> {
  const outcome = await deps.quotas.reserve(caller.subject, sizeBytes);
  if (outcome.kind === 'reserved') return outcome.reservation;
  throw overQuota(outcome.retryAfterMs);
}

export function requireLifetime(wish: UploadOptions, config: UploadConfig): void {
  if (wish.expiresInSeconds === undefined || config.expiresInMaxMs === null) return;
  if (wish.expiresInSeconds * 1_000 <= config.expiresInMaxMs) return;
  throw new Fault('malformed', `expires_in is at most ${Math.floor(config.expiresInMaxMs / 1_000)} seconds.`);
}

/** Only what was given, so that it may be laid over what was given elsewhere. */
function given(wish: UploadOptions): Partial<UploadOptions> {
  return Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== undefined));
}

export function ingestedReply(deps: UploadDeps, request: OriginRequest, { media, duplicate }: Ingested): Reply {
  const outcome = duplicate ? 'duplicate' : 'created';
  deps.counts.uploads.add(1, { outcome });
  deps.counts.bytes.add(media.blob.sizeBytes, { outcome });
  request.note({ media: media.record.id, mime: media.blob.mime, size: media.blob.sizeBytes, outcome });
  return jsonReply(duplicate ? 200 : 201, { ...describeMedia(media, deps.baseUri), duplicate }, [
    ['location', mediaPath(media.record.id)],
    ['etag', mediaEtag(media.blob.sha256)],
  ]);
}
