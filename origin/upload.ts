/**
 * POST of media: authorize > admit > receive > ingest > reply. Every check
 * that does not need the body is done before the body is read.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Caller, type Gate, mayRead } from '../src/access/grant.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import { Releases, unlessKept } from '../src/lifecycle.js';
import type { CounterOf, HistogramOf, Metrics } from '../src/metrics.js';
import { requireUploader } from './authorize.js';
import type { BlobStore } from './blobs/blob-store.js';
import { type Admissions, tooLarge } from './ingest/admit.js';
import { type IngestDeps, type Ingested, ingest, overQuota, wantedSmall } from './ingest/ingest.js';
import { readOptions, requireLifetime, type UploadOptions, withDefaults } from './ingest/options.js';
import { bodyShape, receive } from './ingest/receive.js';
import { onceOf, optionsWithin, requireUnused, withinTerms } from './ingest/terms.js';
import type { Media } from './meta/media.js';
import type { MetaStore } from './meta/store.js';
import type { Quotas, Reservation } from './quota.js';
import { describeDuplicate, describeMedia, mediaPath } from './respond/media-json.js';
import { mediaEtag } from './respond/media-reply.js';
import type { OriginRequest } from './server/request.js';
import type { Thumbs } from './thumbs/engine.js';

export interface UploadDeps extends IngestDeps {
  readonly thumbs: Pick<Thumbs, 'accepts' | 'hashOfUpload'>;
  readonly gate: Gate;
  readonly blobs: BlobStore;
  readonly meta: IngestDeps['meta'] & Pick<MetaStore, 'usage'>;
  readonly admissions: Admissions;
  readonly quotas: Quotas;
  readonly counts: UploadCounts;
  readonly baseUri: string;
}

export interface UploadCounts {
  readonly uploads: CounterOf<'outcome'>;
  readonly bytes: CounterOf<'outcome'>;
  readonly sizes: HistogramOf<never>;
  readonly seconds: HistogramOf<never>;
}

const SIZES = [4_096, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864, 268_435_456, 1_073_741_824];
const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300];

export function uploadCounts(metrics: Metrics): UploadCounts {
  return {
    uploads: metrics.counter('uploads_total', 'Uploads that were stored, and duplicates.', ['outcome']),
    bytes: metrics.counter('uploads_bytes_total', 'Bytes of these uploads.', ['outcome']),
    sizes: metrics.histogram('upload_bytes', 'Sizes of these uploads.', SIZES),
    seconds: metrics.histogram('upload_seconds', 'Time from the head of an upload until it is durable.', SECONDS),
  };
}

/** `query`: the options of the query. A form's fields win over them. */
export async function upload(deps: UploadDeps, request: OriginRequest, query: UploadOptions): Promise<Reply> {
  const caller = await requireUploader(deps.gate, request);
  const startedMs = deps.clock.monotonicMs();
  const ingested = await takeIn(deps, request, caller, query);
  deps.counts.seconds.observe((deps.clock.monotonicMs() - startedMs) / 1_000);
  return ingestedReply(deps, request, caller, ingested);
}

/** admit > receive > ingest. What it holds is free again at the end. */
async function takeIn(
  all: UploadDeps,
  request: OriginRequest,
  caller: Caller,
  query: UploadOptions,
): Promise<Ingested> {
  const terms = caller.uploadLink;
  const deps = withinTerms(all, terms);
  await requireUnused(deps.meta, terms);
  const { config, blobs, clock } = deps;
  const shape = bodyShape(request);
  requireLifetime(query, config.upload);
  const { sizeBytes } = request.body;
  const roomBytes = config.upload.sizeMaxBytes + (shape.kind === 'form' ? config.upload.form.overheadMaxBytes : 0);
  // The limit of every upload is that of admissions.
  if (terms !== undefined && sizeBytes !== null && sizeBytes > roomBytes) throw tooLarge(config.upload.sizeMaxBytes);
  request.meter.admitUpload(sizeBytes);
  const taken = new Releases();
  try {
    const { quota } = taken.add(await reserveQuota(deps, caller, sizeBytes));
    const arrival = { subject: caller.subject, sizeBytes, form: shape.kind === 'form' };
    const admission = taken.add(await deps.admissions.admit(arrival));
    const path = join(blobs.stageFolder, `upload-${randomUUID()}`);
    const file = taken.add(unlessKept(() => rm(path, { force: true })));
    const receiving = {
      config: config.upload,
      clock,
      sync: blobs.kind === 'local',
      small: wantedSmall(deps),
      admission,
    };
    const received = await receive(receiving, request, shape, path);
    const options = optionsWithin(withDefaults(readOptions(received.fields), query), terms);
    requireLifetime(options, config.upload);
    const ingested = await ingest(
      deps,
      {
        staged: received.staged,
        declaredType: received.declaredType,
        owner: caller.subject,
        options: { ...options, filename: options.filename ?? received.filename },
        quota,
        once: onceOf(terms),
      },
      request.signal,
    );
    if (ingested.adopted) file.keep();
    return ingested;
  } catch (thrown) {
    deps.admissions.failed(thrown);
    throw thrown;
  } finally {
    await taken.release();
  }
}

/** As Quotas.reserve, which the caller releases; throws a Fault if it is refused. */
export async function reserveQuota(
  { quotas }: Pick<UploadDeps, 'quotas'>,
  caller: Caller,
  sizeBytes: number | null,
  files: 0 | 1 = 1,
): Promise<Reservation> {
  const outcome = await quotas.reserve(caller.subject, sizeBytes, files);
  if (outcome.kind === 'reserved') return outcome.reservation;
  throw overQuota(outcome.retryAfterMs);
}

export async function ingestedReply(
  deps: UploadDeps,
  request: OriginRequest,
  caller: Caller,
  { media: stored, duplicate, sent }: Ingested,
): Promise<Reply> {
  const media = duplicate ? stored : await withThumbhash(deps, stored, request.signal);
  const outcome = duplicate ? 'duplicate' : 'created';
  deps.counts.uploads.add(1, { outcome });
  deps.counts.bytes.add(media.blob.sizeBytes, { outcome });
  deps.counts.sizes.observe(media.blob.sizeBytes);
  request.note({ media: media.record.id, mime: media.blob.mime, size: media.blob.sizeBytes, outcome });
  const readable = mayRead({ kind: 'caller', caller }, media.record.public);
  const document = duplicate
    ? describeDuplicate(media, sent, readable, deps.baseUri)
    : describeMedia(media, deps.baseUri);
  return jsonReply(duplicate ? 200 : 201, { ...document, duplicate }, [
    ['location', mediaPath(media.record.id)],
    ['etag', mediaEtag(media.blob.sha256)],
  ]);
}

/** The media with its thumbhash, if that is known soon. The upload has succeeded, whatever becomes of the wait. */
async function withThumbhash({ thumbs }: UploadDeps, media: Media, signal: AbortSignal): Promise<Media> {
  const { blob } = media;
  if (blob.picture.thumbhash !== null || blob.thumbs.kind !== 'pending') return media;
  const thumbhash = await thumbs.hashOfUpload(blob, signal).catch(() => null);
  return { ...media, blob: { ...blob, picture: { ...blob.picture, thumbhash } } };
}
