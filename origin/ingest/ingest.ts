/**
 * The pipeline from a staged file to a committed record: identify > scan >
 * strip location > classify > commit. Every upload passes it, whether it came as a
 * plain body, in a form or resumable.
 */
import { rm } from 'node:fs/promises';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { IdSource } from '../../src/ids.js';
import { cleanFilename } from '../../src/media/disposition.js';
import { childSpan, type SpanDeps } from '../../src/tracing/tracer.js';
import { abandon } from '../blobs/abandon.js';
import { type BlobStore, mediaKey } from '../blobs/blob-store.js';
import { type Media, type PictureFacts, type Quarantine, refusesUpload, SCANNER } from '../meta/media.js';
import type { CommitOutcome, MetaStore, NewMedia, UploadOnce, UploadQuota } from '../meta/store.js';
import type { Quotas } from '../quota.js';
import { decideExpiry, type RetentionConfig } from '../retention-rules.js';
import type { Thumbs } from '../thumbs/engine.js';
import { classify, publish } from './commit.js';
import type { UploadConfig } from './config.js';
import { identify, pictureFacts } from './identify.js';
import type { UploadOptions } from './options.js';
import type { Scanner } from './scan.js';
import { type Staged, writeOut } from './stage.js';
import { stripLocation } from './strip-location.js';
import { linkUsed } from './terms.js';

export interface IngestDeps extends SpanDeps {
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly meta: Pick<MetaStore, 'findBlob' | 'findBlobBySent' | 'intend' | 'withdraw' | 'commitUpload'>;
  readonly blobs: Pick<BlobStore, 'kind' | 'stat' | 'adopt' | 'put' | 'remove'>;
  readonly thumbs: Pick<Thumbs, 'accepts'>;
  readonly quotas: Pick<Quotas, 'retryAfterMs'>;
  readonly scanner: Scanner;
  readonly config: { readonly upload: UploadConfig; readonly retention: RetentionConfig };
}

export interface NewUpload {
  readonly staged: Staged;
  readonly declaredType: string | undefined;
  readonly owner: string;
  readonly options: UploadOptions;
  readonly quota: UploadQuota | undefined;
  /** The link by which it is uploaded. */
  readonly once?: UploadOnce | undefined;
}

/** What the sender of an upload said and sent. */
export interface Sent {
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly mime: string;
  readonly filename: string | null;
}

export interface Ingested {
  readonly media: Media;
  readonly duplicate: boolean;
  readonly sent: Sent;
  /** No file is left in the stage: it was moved into the blob store, or there was none. */
  readonly adopted: boolean;
}

/** Where a small body is wanted: a scanner and the removal of metadata read files, and so do other blob stores. */
export function wantedSmall({ blobs, config: { upload } }: Pick<IngestDeps, 'blobs' | 'config'>): 'file' | 'memory' {
  const asFile = blobs.put === undefined || upload.scan.by !== 'off' || upload.stripOriginals.enabled;
  return asFile ? 'file' : 'memory';
}

export async function ingest(deps: IngestDeps, upload: NewUpload, signal: AbortSignal): Promise<Ingested> {
  const { config } = deps;
  const mime = await identify(upload.staged, upload.declaredType, config.upload.types);
  const mark = await scan(deps, upload.staged, signal);
  const { staged: sent } = upload;
  if (mark?.cause === 'admin' || !(await wantsStripped(deps, sent))) {
    return await store(deps, upload, { staged: sent, mime, mark }, signal);
  }
  const path = `${sent.path}-stripped`;
  try {
    const file = await writeOut(sent, deps.blobs.kind === 'local');
    const staged = await stripLocation(file, mime, path, config.upload.stripOriginals, signal);
    return await store(deps, upload, { staged, mime, mark }, signal);
  } finally {
    await rm(path, { force: true });
  }
}

/** Whether to store a stripped form of the bytes. Bytes that are known keep the form that they have (find-sent.ts). */
async function wantsStripped({ meta, config }: IngestDeps, sent: Staged): Promise<boolean> {
  const known = await meta.findBlobBySent(sent.sha256);
  if (known !== undefined && refusesUpload(known)) throw quarantined();
  return known === undefined ? config.upload.stripOriginals.enabled : known.sha256 !== sent.sha256;
}

interface Identified {
  readonly staged: Staged;
  readonly mime: string;
  /** How the scanner's verdict marks the bytes. */
  readonly mark: Quarantine | undefined;
}

/** Classifies, publishes and commits; again, if the bytes that it found were removed meanwhile. */
async function store(
  deps: IngestDeps,
  upload: NewUpload,
  identified: Identified,
  signal: AbortSignal,
): Promise<Ingested> {
  const { staged, mark } = identified;
  const media = newMedia(deps, upload, identified, await pictureFacts(staged));
  const { sha256, sizeBytes } = upload.staged;
  const sent = { sha256, sizeBytes, mime: media.mime, filename: media.filename };
  for (let attempt = 1; ; attempt += 1) {
    const classified = await classify(deps, staged, signal);
    if (classified.kind === 'quarantined') throw quarantined();
    const bytes = await publish(deps, staged, classified, signal);
    const outcome = await commit(deps, { ...media, bytes });
    if (outcome.kind !== 'bytes_gone') {
      const hadFile = bytes.kind === 'found' && staged.inMemory !== true;
      const adopted = staged === upload.staged && !hadFile;
      return { ...mediaIn(outcome, mark, deps), sent, adopted };
    }
    // Bytes that were stored just now are gone only if storing them took longer than an intent lasts.
    if (bytes.kind === 'stored' || attempt === ATTEMPTS_MAX) throw bytesGone();
  }
}

/** Most attempts at an upload whose bytes are removed by others each time. */
const ATTEMPTS_MAX = 5;

/** Bytes that the upload stored and that were not needed are removed. */
async function commit(deps: IngestDeps, media: NewMedia): Promise<CommitOutcome> {
  const { sha256, bytes } = media;
  const own = bytes.kind === 'stored' ? mediaKey({ sha256, place: bytes.place }) : undefined;
  let unneeded = own;
  try {
    const outcome = await childSpan(deps, 'metadata commit', {}, () => deps.meta.commitUpload(media));
    if ('media' in outcome && own === mediaKey(outcome.media.blob)) unneeded = undefined;
    return outcome;
  } finally {
    if (unneeded !== undefined) await abandon(deps, [unneeded]);
  }
}

function mediaIn(
  outcome: Exclude<CommitOutcome, { kind: 'bytes_gone' }>,
  mark: Quarantine | undefined,
  { quotas }: Pick<IngestDeps, 'quotas'>,
): Pick<Ingested, 'media' | 'duplicate'> {
  switch (outcome.kind) {
    case 'created':
      return { media: outcome.media, duplicate: false };
    case 'duplicate':
      return { media: outcome.media, duplicate: true };
    case 'quarantined':
      throw mark?.cause === 'admin' ? infected() : quarantined();
    case 'link_used':
      throw linkUsed();
    case 'over_quota':
      throw overQuota(quotas.retryAfterMs());
  }
}

function newMedia(
  deps: IngestDeps,
  upload: NewUpload,
  { staged, mime, mark }: Identified,
  picture: PictureFacts,
): Omit<NewMedia, 'bytes'> {
  const now = deps.clock.now();
  const { public: isPublic = false, expiresInSeconds, filename } = upload.options;
  const facts = { mime, sizeBytes: staged.sizeBytes, public: isPublic };
  const expiresInMs = expiresInSeconds === undefined ? null : expiresInSeconds * 1_000;
  return {
    ...facts,
    id: deps.ids(),
    sha256: staged.sha256,
    sentSha256: upload.staged.sha256,
    owner: upload.owner,
    filename: filename === undefined ? null : cleanFilename(filename),
    expiresAt: decideExpiry(deps.config.retention.rules, facts, expiresInMs, now),
    picture,
    thumbs: deps.thumbs.accepts(mime) ? { kind: 'queue' } : { kind: 'none', reason: 'unsupported_type' },
    ...(upload.quota !== undefined && { quota: upload.quota }),
    ...(upload.once !== undefined && { once: upload.once }),
    ...(mark !== undefined && { quarantine: mark }),
    now,
  };
}

/**
 * The mark for the scanner's verdict. Infected bytes are stored and withheld, so that an admin can examine them; bytes
 * that were not scanned are withheld until they are. Undefined: the bytes are clean.
 */
async function scan(deps: IngestDeps, staged: Staged, signal: AbortSignal): Promise<Quarantine | undefined> {
  const verdict = await deps.scanner.scan(staged.path, signal);
  switch (verdict.kind) {
    case 'admit':
      return undefined;
    case 'await_scan':
      return { at: deps.clock.now(), by: SCANNER, reason: null, cause: 'held' };
    case 'quarantine':
      return { at: deps.clock.now(), by: 'scanner', reason: verdict.reason, cause: 'admin' };
  }
}

export function overQuota(retryAfterMs: number): Fault {
  return new Fault('quota_exceeded', 'The quota of this period is used up.', {
    headers: { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) },
  });
}

function infected(): Fault {
  return new Fault('quarantined', 'The virus scanner rejected these bytes.');
}

function quarantined(): Fault {
  return new Fault('quarantined', 'These bytes are quarantined.');
}

function bytesGone(): Fault {
  return new Fault('storage_unavailable', 'The upload could not be recorded. Send it again.', {
    cause: new Error('the bytes of an upload were removed before it was recorded'),
  });
}
