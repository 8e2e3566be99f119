/**
 * Resumable uploads (tus 1.0.0): authorize > own > hold > admit > tus > ingest >
 * reply. What is finished goes the way of every upload (ingest.ts), with the
 * owner, the options and the quota of its creation.
 *
 * Promises: to anyone but its owner an upload does not exist; one request at a
 * time changes it. A newer HEAD or DELETE breaks off a part that is still
 * arriving, because a client that asks has lost its connection, whether or not
 * we have noticed; a newer PATCH is refused with 409. An upload whose bytes are
 * all here, but which could not be finished (a crash, a storage that was away),
 * is finished by the next HEAD. A refusal of the content ends the upload.
 */

import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Caller } from '../src/access/grant.js';
import type { Clock } from '../src/clock.js';
import { duration, integer, section, type ValueOf } from '../src/config/field.js';
import { FAULTS, Fault, faultOf } from '../src/errors.js';
import { preflightReply } from '../src/http/browser.js';
import { wholeNumber } from '../src/http/head.js';
import { headerOf, type Reply } from '../src/http/reply.js';
import { bugFields, type Log } from '../src/log.js';
import { essenceOf } from '../src/media/types.js';
import type { CounterOf, Metrics } from '../src/metrics.js';
import { requireUploader } from './authorize.js';
import type { UploadConfig } from './ingest/config.js';
import { ingest, type NewUpload } from './ingest/ingest.js';
import { createTus, TUS_VERSION, type Tus, type TusFinish, type TusMethod, tusCapabilities } from './ingest/tus.js';
import {
  openUnfinishedUploads,
  type UnfinishedUpload,
  type UnfinishedUploads,
  UPLOAD_ID,
} from './ingest/unfinished-uploads.js';
import { createUploadLocks, type UploadLocks } from './ingest/upload-locks.js';
import { mediaPath } from './media-json.js';
import type { OriginRequest } from './server/request.js';
import { ingestedReply, type ReadFields, requireLifetime, reserveQuota, type UploadDeps } from './upload.js';

export const resumableSection = section(
  'Resumable uploads (tus). Their size, pace and number at once are those of `upload`.',
  {
    expiresAfterMs: duration({
      default: '24h',
      min: 60_000,
      help: 'Time from the creation of an upload to its end, if it is not finished by then.',
    }),
    finishedKeepMs: duration({
      default: '1h',
      min: 60_000,
      help: 'How long a finished upload still answers HEAD with its Media-Location.',
    }),
    unfinishedMax: integer({ default: 10_000, min: 1, max: 1_000_000, help: 'Unfinished uploads that are kept.' }),
    unfinishedMaxPerSubject: integer({ default: 100, min: 1, max: 1_000_000, help: 'The same, of one subject.' }),
    sweepEveryMs: duration({ default: '1m', min: 1_000, max: 86_400_000, help: 'How often expired ones are removed.' }),
  },
);

export type ResumableConfig = ValueOf<typeof resumableSection>;

export interface OpenResumableDeps {
  readonly stageFolder: string;
  readonly config: { readonly upload: UploadConfig; readonly resumable: ResumableConfig };
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Resumable {
  readonly partials: UnfinishedUploads;
  readonly tus: Tus;
  readonly holds: UploadLocks;
  readonly endings: CounterOf<'ending'>;
  close(): Promise<void>;
}

/** They are held in memory for as long as the upload is. */
const METADATA_MAX_CHARACTERS = 4_096;

/** Below the stage, so that a finished upload is renamed into place like any other. */
const FOLDER = 'resumable';

export async function openResumable(deps: OpenResumableDeps): Promise<Resumable> {
  const { clock, log, metrics } = deps;
  const partials = await openUnfinishedUploads(join(deps.stageFolder, FOLDER));
  const holds = createUploadLocks();
  const endings = metrics.counter('resumable_uploads_ended_total', 'Resumable uploads that ended, by how.', ['ending']);
  const unfinished = metrics.gauge('resumable_uploads_unfinished', 'Resumable uploads that are to be finished.');
  metrics.onCollect(() => unfinished.set(partials.unfinished()));

  async function sweep(): Promise<void> {
    for (const upload of partials.all()) {
      if (upload.expiresAt > clock.now() || holds.isLocked(upload.id)) continue;
      await partials.drop(upload.id);
      if (upload.mediaId === null) endings.add(1, { ending: 'expired' });
    }
  }
  let sweeping: Promise<void> = Promise.resolve();
  const everyMs = deps.config.resumable.sweepEveryMs;
  const run = (): void => {
    sweeping = sweep().catch((thrown: unknown) =>
      log.error(bugFields(thrown), 'expired resumable uploads could not be removed'),
    );
    timer = clock.after(everyMs, run);
  };
  let timer = clock.after(everyMs, run);

  return {
    partials,
    holds,
    endings,
    tus: createTus({ uploads: partials, config: deps.config.upload, clock }),
    async close() {
      timer.cancel();
      await sweeping;
    },
  };
}

export interface ResumeDeps extends UploadDeps {
  readonly resumable: Resumable;
  readonly config: UploadDeps['config'] & { readonly resumable: ResumableConfig };
}

/** OPTIONS of either path: what a client, or its browser, may do. */
export function resumableOptions(deps: ResumeDeps, methods: readonly string[]): Reply {
  const preflight = preflightReply(methods);
  return { ...preflight, headers: [...preflight.headers, ...tusCapabilities(deps.config.upload.sizeMaxBytes)] };
}

/** POST: a new upload, perhaps with its first bytes. */
export function createResumable(deps: ResumeDeps, request: OriginRequest, readFields: ReadFields): Promise<Reply> {
  return asTus(async () => {
    const caller = await requireUploader(deps.gate, request);
    requireRoom(deps, caller);
    const lengthBytes = declaredLength(request);
    const { sizeBytes: bodyBytes } = request.body;
    request.meter.admitUpload(bodyBytes);
    const reservation = await reserveQuota(deps, caller, lengthBytes);
    try {
      const admission = await deps.admissions.admit({ sizeBytes: lengthBytes, form: false });
      const id = randomBytes(16).toString('hex');
      const hold = await deps.resumable.holds.take(id, 'refuse', request.signal);
      try {
        const reply = await deps.resumable.tus.handle({
          method: 'POST',
          id,
          request,
          signal: hold.signal,
          begin: ({ sizeBytes, metadata }) => newUpload(deps, readFields, { id, caller, sizeBytes, metadata }),
          finish: () => finish(deps, { id, request, readFields, quota: reservation.quota, document: true }),
        });
        return dressed(deps, id, reply);
      } catch (thrown) {
        // Whoever made it never learns where it is.
        await deps.resumable.partials.drop(id);
        throw thrown;
      } finally {
        hold.release();
        admission.release();
      }
    } finally {
      reservation.release();
    }
  });
}

/** HEAD, PATCH and DELETE, also where POST stands for them (tus 1.0.0, X-HTTP-Method-Override). */
export function continueResumable(
  deps: ResumeDeps,
  request: OriginRequest,
  id: string,
  readFields: ReadFields,
): Promise<Reply> {
  return asTus(async () => {
    const caller = await requireUploader(deps.gate, request);
    const method = meantMethod(request);
    ownUpload(deps, caller, id);
    const hold = await deps.resumable.holds.take(id, method === 'PATCH' ? 'refuse' : 'break_off', request.signal);
    try {
      // Looked at anew: waiting for the hold may have taken until it was finished, or gone.
      const upload = ownUpload(deps, caller, id);
      const errand: Errand = { upload, caller, request, readFields, signal: hold.signal };
      switch (method) {
        case 'HEAD':
          return await ask(deps, errand);
        case 'PATCH':
          return await extend(deps, errand);
        case 'DELETE':
          return await terminate(deps, errand);
      }
    } finally {
      hold.release();
    }
  });
}

interface Errand {
  readonly upload: UnfinishedUpload;
  readonly caller: Caller;
  readonly request: OriginRequest;
  readonly readFields: ReadFields;
  readonly signal: AbortSignal;
}

async function ask(deps: ResumeDeps, { upload, caller, request, readFields, signal }: Errand): Promise<Reply> {
  const { partials, tus } = deps.resumable;
  const { id, mediaId, sizeBytes } = upload;
  if (mediaId === null && sizeBytes !== null && (await partials.offset(upload)) === sizeBytes) {
    const reservation = await reserveQuota(deps, caller, sizeBytes);
    try {
      await finish(deps, { id, request, readFields, quota: reservation.quota, document: false });
    } finally {
      reservation.release();
    }
  }
  const reply = await tus.handle({ method: 'HEAD', id, request, signal, begin: neverBegins, finish: neverFinishes });
  return dressed(deps, id, reply);
}

async function extend(deps: ResumeDeps, { upload, caller, request, readFields, signal }: Errand): Promise<Reply> {
  const { id } = upload;
  if (upload.mediaId !== null) throw finished(upload.mediaId);
  if (essenceOf(request.header('content-type') ?? '') !== 'application/offset+octet-stream') {
    // tus 1.0.0, PATCH: 415.
    throw new Fault('type_refused', 'A part has the Content-Type application/offset+octet-stream.');
  }
  const { sizeBytes: bodyBytes } = request.body;
  request.meter.admitUpload(bodyBytes);
  const reservation = await reserveQuota(deps, caller, upload.sizeBytes);
  try {
    // A part without bytes may still say the length, or finish what is complete.
    const admission = bodyBytes === 0 ? undefined : await deps.admissions.admit({ sizeBytes: bodyBytes, form: false });
    try {
      const document = /\bapplication\/json\b/i.test(request.header('accept') ?? '');
      const reply = await deps.resumable.tus.handle({
        method: 'PATCH',
        id,
        request,
        signal,
        begin: neverBegins,
        finish: () => finish(deps, { id, request, readFields, quota: reservation.quota, document }),
      });
      return dressed(deps, id, reply);
    } finally {
      admission?.release();
    }
  } finally {
    reservation.release();
  }
}

async function terminate(deps: ResumeDeps, { upload, request, signal }: Errand): Promise<Reply> {
  if (upload.mediaId !== null) throw finished(upload.mediaId);
  const { id } = upload;
  const reply = await deps.resumable.tus.handle({
    method: 'DELETE',
    id,
    request,
    signal,
    begin: neverBegins,
    finish: neverFinishes,
  });
  deps.resumable.endings.add(1, { ending: 'terminated' });
  return reply;
}

function neverBegins(): never {
  throw new Error('only POST begins an upload');
}

function neverFinishes(): never {
  throw new Error('only POST and PATCH finish an upload');
}

interface Finishing {
  readonly id: string;
  readonly request: OriginRequest;
  readonly readFields: ReadFields;
  readonly quota: NewUpload['quota'];
  /** Whether the answer is to hold what POST of media answers. */
  readonly document: boolean;
}

/** The way of every upload. What may succeed another time is kept for it; what never will is dropped. */
async function finish(deps: ResumeDeps, { id, request, readFields, quota, document }: Finishing): Promise<TusFinish> {
  const { partials, endings } = deps.resumable;
  const upload = partials.find(id);
  if (upload === undefined) throw new Fault('not_found', 'There is no such upload.');
  const path = join(deps.blobs.stageFolder, `upload-${randomBytes(16).toString('hex')}`);
  try {
    const wish = readFields(fieldsOf(upload.metadata));
    const ingested = await ingest(
      deps,
      {
        staged: await partials.stageAs(id, path),
        declaredType: upload.metadata['filetype'] ?? undefined,
        owner: upload.owner,
        public: wish.public ?? false,
        expiresInMs: wish.expiresInSeconds === undefined ? null : wish.expiresInSeconds * 1_000,
        filename: wish.filename,
        quota,
      },
      request.signal,
    );
    const keptUntil = deps.clock.now() + deps.config.resumable.finishedKeepMs;
    await partials.finish(upload, ingested.media.record.id, keptUntil);
    endings.add(1, { ending: 'finished' });
    const { body, headers } = ingestedReply(deps, request, ingested);
    const etag = headerOf(headers, 'etag');
    return {
      headers: { 'media-location': mediaPath(ingested.media.record.id), ...(etag !== undefined && { etag }) },
      body: document && body.kind === 'bytes' ? Buffer.from(body.bytes).toString() : undefined,
    };
  } catch (thrown) {
    // A client that leaves here finds its upload again.
    if (!request.signal.aborted && !FAULTS[faultOf(thrown).code].retryable) {
      await partials.drop(id);
      endings.add(1, { ending: 'refused' });
    }
    throw thrown;
  } finally {
    await rm(path, { force: true });
  }
}

function newUpload(
  deps: ResumeDeps,
  readFields: ReadFields,
  wish: {
    readonly id: string;
    readonly caller: Caller;
    readonly sizeBytes: number | null;
    readonly metadata: UnfinishedUpload['metadata'];
  },
): UnfinishedUpload {
  const { id, caller, sizeBytes, metadata } = wish;
  if (JSON.stringify(metadata).length > METADATA_MAX_CHARACTERS) {
    throw new Fault('malformed', `Upload-Metadata has at most ${METADATA_MAX_CHARACTERS} characters.`);
  }
  requireLifetime(readFields(fieldsOf(metadata)), deps.config.upload);
  const filetype = metadata['filetype'] ?? '';
  if (filetype !== '' && essenceOf(filetype) === undefined) throw new Fault('malformed', 'filetype is no media type.');
  const expiresAt = deps.clock.now() + deps.config.resumable.expiresAfterMs;
  return { id, owner: caller.subject, sizeBytes, metadata, expiresAt, mediaId: null };
}

/** A key without a value says nothing. */
function fieldsOf(metadata: UnfinishedUpload['metadata']): ReadonlyMap<string, string> {
  return new Map(Object.entries(metadata).flatMap(([key, value]) => (value === null ? [] : [[key, value]])));
}

function requireRoom({ resumable, config }: ResumeDeps, caller: Caller): void {
  const { unfinishedMax, unfinishedMaxPerSubject } = config.resumable;
  const retryAfter = { headers: { 'retry-after': String(Math.ceil(config.upload.retryAfterMs / 1_000)) } };
  if (resumable.partials.unfinished(caller.subject) >= unfinishedMaxPerSubject) {
    throw new Fault('rate_limited', 'Finish or delete some of your unfinished uploads first.', retryAfter);
  }
  if (resumable.partials.unfinished() >= unfinishedMax) {
    throw new Fault('overloaded', 'Too many uploads are unfinished.', retryAfter);
  }
}

/** To whoever is not its owner it looks as if it never was. */
function ownUpload({ resumable, clock }: ResumeDeps, caller: Caller, id: string): UnfinishedUpload {
  const upload = UPLOAD_ID.test(id) ? resumable.partials.find(id) : undefined;
  if (upload === undefined || upload.owner !== caller.subject) {
    throw new Fault('not_found', 'There is no such upload.');
  }
  if (upload.expiresAt <= clock.now()) throw new Fault('expired', 'The upload has expired.');
  return upload;
}

function finished(mediaId: string): Fault {
  return new Fault('conflict', 'The upload is finished.', { headers: { 'media-location': mediaPath(mediaId) } });
}

/** Null where the length is deferred, or not one that tus takes: then tus says so. */
function declaredLength(request: OriginRequest): number | null {
  return wholeNumber(request.header('upload-length')) ?? null;
}

function meantMethod(request: OriginRequest): Extract<TusMethod, 'HEAD' | 'PATCH' | 'DELETE'> {
  const meant = request.method === 'POST' ? request.header('x-http-method-override') : request.method;
  if (meant === 'HEAD' || meant === 'PATCH' || meant === 'DELETE') return meant;
  const allow = 'HEAD, PATCH, DELETE, OPTIONS';
  throw new Fault('method_not_allowed', `The path knows ${allow}.`, { headers: { allow } });
}

/** What every answer about an upload says of its end, whichever that is. */
function dressed({ resumable }: ResumeDeps, id: string, reply: Reply): Reply {
  const upload = resumable.partials.find(id);
  if (upload === undefined) return reply;
  if (upload.mediaId === null) {
    const expires = new Date(upload.expiresAt).toUTCString();
    return { ...reply, headers: [...reply.headers, ['upload-expires', expires]] };
  }
  if (headerOf(reply.headers, 'media-location') !== undefined) return reply;
  return { ...reply, headers: [...reply.headers, ['media-location', mediaPath(upload.mediaId)]] };
}

/** tus 1.0.0: every answer says the version, refusals too. */
async function asTus(story: () => Promise<Reply>): Promise<Reply> {
  try {
    return await story();
  } catch (thrown) {
    const { code, detail, headers, members, cause } = faultOf(thrown);
    throw new Fault(code, detail, { headers: { ...headers, 'tus-resumable': TUS_VERSION }, members, cause });
  }
}
