/**
 * Resumable uploads (tus 1.0.0): authorize > lock > admit > tus > ingest > reply.
 * A complete upload takes the same way as every other (ingest.ts), with the
 * owner, the options and the quota of its creation.
 *
 * Promises: to anyone but its owner an upload does not exist; one request at a
 * time changes it. A newer HEAD or DELETE stops a PATCH whose body is still
 * arriving, because a client that asks has lost its connection, even if the
 * server has not noticed; a newer PATCH is refused with 409. An upload that has
 * all its bytes but could not be finished (a crash, a storage failure) is
 * finished by the next HEAD. A refusal of the content ends the upload.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Caller } from '../src/access/grant.js';
import { FAULTS, Fault, faultOf } from '../src/errors.js';
import { preflightReply } from '../src/http/browser.js';
import { wholeNumber } from '../src/http/head.js';
import { headerOf, type Reply } from '../src/http/reply.js';
import { Releases, unlessKept } from '../src/lifecycle.js';
import { essenceOf } from '../src/media/types.js';
import { requireUploader } from './authorize.js';
import { ingest, type NewUpload } from './ingest/ingest.js';
import {
  beginUpload,
  optionsIn,
  ownUpload,
  type ResumableConfig,
  type ResumableUploads,
  requireRoom,
} from './ingest/resumable-uploads.js';
import { TUS_VERSION, type TusFinish, type TusMethod, tusCapabilities } from './ingest/tus.js';
import { noSuchUpload, type UnfinishedUpload } from './ingest/unfinished-uploads.js';
import { mediaPath } from './media-json.js';
import type { OriginRequest } from './server/request.js';
import { ingestedReply, reserveQuota, type UploadDeps } from './upload.js';

export interface ResumableDeps extends UploadDeps {
  readonly resumable: ResumableUploads;
  readonly config: UploadDeps['config'] & { readonly resumable: ResumableConfig };
}

/** OPTIONS of either path: what clients and browsers may do. */
export function resumableOptions(deps: ResumableDeps, methods: readonly string[]): Reply {
  const preflight = preflightReply(methods);
  return { ...preflight, headers: [...preflight.headers, ...tusCapabilities(deps.config.upload.sizeMaxBytes)] };
}

/** POST: begins an upload, perhaps with its first bytes. */
export function createResumable(deps: ResumableDeps, request: OriginRequest): Promise<Reply> {
  return withTusVersion(async () => {
    const { uploads, locks, tus } = deps.resumable;
    const caller = await requireUploader(deps.gate, request);
    requireRoom(uploads, caller, deps.config);
    const lengthBytes = declaredLength(request);
    request.meter.admitUpload(request.body.sizeBytes);
    const taken = new Releases();
    try {
      const { quota } = taken.add(await reserveQuota(deps, caller, lengthBytes));
      taken.add(await deps.admissions.admit({ sizeBytes: lengthBytes, form: false }));
      const id = randomBytes(16).toString('hex');
      const { signal } = taken.add(await locks.take(id, 'refuse', request.signal));
      // After a failure no client knows the id, so nobody could continue the upload.
      const record = taken.add(unlessKept(() => uploads.drop(id)));
      const reply = await tus.handle({
        method: 'POST',
        id,
        request,
        signal,
        begin: (upload) => beginUpload({ ...upload, id, owner: caller.subject }, deps.config, deps.clock.now()),
        finish: () => finish(deps, { id, request, quota, json: true }),
      });
      record.keep();
      return withUploadHeaders(deps, id, reply);
    } finally {
      await taken.release();
    }
  });
}

/** HEAD, PATCH and DELETE, also as POST with X-HTTP-Method-Override (tus 1.0.0). */
export function continueResumable(deps: ResumableDeps, request: OriginRequest, id: string): Promise<Reply> {
  return withTusVersion(async () => {
    const { uploads, locks } = deps.resumable;
    const caller = await requireUploader(deps.gate, request);
    const method = methodOf(request);
    ownUpload(uploads, caller, id, deps.clock.now());
    const taken = new Releases();
    try {
      const lock = taken.add(await locks.take(id, method === 'PATCH' ? 'refuse' : 'interrupt', request.signal));
      // During the wait for the lock the upload may have been finished or removed.
      const upload = ownUpload(uploads, caller, id, deps.clock.now());
      const locked: LockedUpload = { upload, caller, request, signal: lock.signal, taken };
      switch (method) {
        case 'HEAD':
          return await head(deps, locked);
        case 'PATCH':
          return await append(deps, locked);
        case 'DELETE':
          return await terminate(deps, locked);
      }
    } finally {
      await taken.release();
    }
  });
}

interface LockedUpload {
  readonly upload: UnfinishedUpload;
  readonly caller: Caller;
  readonly request: OriginRequest;
  readonly signal: AbortSignal;
  /** Released at the end of the request. */
  readonly taken: Releases;
}

async function head(deps: ResumableDeps, { upload, caller, request, signal, taken }: LockedUpload): Promise<Reply> {
  const { uploads, tus } = deps.resumable;
  const { id, mediaId, sizeBytes } = upload;
  if (mediaId === null && sizeBytes !== null && (await uploads.offset(upload)) === sizeBytes) {
    const { quota } = taken.add(await reserveQuota(deps, caller, sizeBytes));
    await finish(deps, { id, request, quota, json: false });
  }
  return withUploadHeaders(deps, id, await tus.handle({ method: 'HEAD', id, request, signal }));
}

async function append(deps: ResumableDeps, { upload, caller, request, signal, taken }: LockedUpload): Promise<Reply> {
  const { id } = upload;
  if (upload.mediaId !== null) throw finished(upload.mediaId);
  if (essenceOf(request.header('content-type') ?? '') !== 'application/offset+octet-stream') {
    // tus 1.0.0, PATCH: 415.
    throw new Fault('type_refused', 'A PATCH has the Content-Type application/offset+octet-stream.');
  }
  const { sizeBytes: bodyBytes } = request.body;
  request.meter.admitUpload(bodyBytes);
  const { quota } = taken.add(await reserveQuota(deps, caller, upload.sizeBytes));
  // A PATCH without bytes may still declare the length or finish a complete upload.
  if (bodyBytes !== 0) taken.add(await deps.admissions.admit({ sizeBytes: bodyBytes, form: false }));
  const json = /\bapplication\/json\b/i.test(request.header('accept') ?? '');
  const reply = await deps.resumable.tus.handle({
    method: 'PATCH',
    id,
    request,
    signal,
    finish: () => finish(deps, { id, request, quota, json }),
  });
  return withUploadHeaders(deps, id, reply);
}

async function terminate(deps: ResumableDeps, { upload, request, signal }: LockedUpload): Promise<Reply> {
  if (upload.mediaId !== null) throw finished(upload.mediaId);
  const reply = await deps.resumable.tus.handle({ method: 'DELETE', id: upload.id, request, signal });
  deps.resumable.endings.add(1, { ending: 'terminated' });
  return reply;
}

interface Finishing {
  readonly id: string;
  readonly request: OriginRequest;
  readonly quota: NewUpload['quota'];
  /** Whether the reply has the body that POST of media sends. */
  readonly json: boolean;
}

/** Ingests a complete upload. It is kept after a failure that may not happen again, and dropped after any other. */
async function finish(deps: ResumableDeps, { id, request, quota, json }: Finishing): Promise<TusFinish> {
  const { uploads, endings } = deps.resumable;
  const upload = uploads.find(id);
  if (upload === undefined) throw noSuchUpload();
  const path = join(deps.blobs.stageFolder, `upload-${randomBytes(16).toString('hex')}`);
  try {
    const ingested = await ingest(
      deps,
      {
        staged: await uploads.stageAs(id, path),
        declaredType: upload.metadata['filetype'] ?? undefined,
        owner: upload.owner,
        options: optionsIn(upload),
        quota,
      },
      request.signal,
    );
    const mediaId = ingested.media.record.id;
    await uploads.finish(upload, mediaId, deps.clock.now() + deps.config.resumable.finishedKeepMs);
    endings.add(1, { ending: 'finished' });
    const { body, headers } = ingestedReply(deps, request, ingested);
    const etag = headerOf(headers, 'etag');
    return {
      headers: { 'media-location': mediaPath(mediaId), ...(etag !== undefined && { etag }) },
      body: json && body.kind === 'bytes' ? Buffer.from(body.bytes).toString() : undefined,
    };
  } catch (thrown) {
    // A client that left can come back and continue.
    if (!request.signal.aborted && !FAULTS[faultOf(thrown).code].retryable) {
      await uploads.drop(id);
      endings.add(1, { ending: 'refused' });
    }
    throw thrown;
  } finally {
    await rm(path, { force: true });
  }
}

function finished(mediaId: string): Fault {
  return new Fault('conflict', 'The upload is finished.', { headers: { 'media-location': mediaPath(mediaId) } });
}

/** Null if the length is deferred or malformed; tus refuses the latter. */
function declaredLength(request: OriginRequest): number | null {
  return wholeNumber(request.header('upload-length')) ?? null;
}

function methodOf(request: OriginRequest): Extract<TusMethod, 'HEAD' | 'PATCH' | 'DELETE'> {
  const method = request.method === 'POST' ? request.header('x-http-method-override') : request.method;
  if (method === 'HEAD' || method === 'PATCH' || method === 'DELETE') return method;
  const allow = 'HEAD, PATCH, DELETE, OPTIONS';
  throw new Fault('method_not_allowed', `The path knows ${allow}.`, { headers: { allow } });
}

/** Adds when an unfinished upload expires, or which media a finished one has become. */
function withUploadHeaders({ resumable }: ResumableDeps, id: string, reply: Reply): Reply {
  const upload = resumable.uploads.find(id);
  if (upload === undefined) return reply;
  if (upload.mediaId === null) {
    const expires = new Date(upload.expiresAt).toUTCString();
    return { ...reply, headers: [...reply.headers, ['upload-expires', expires]] };
  }
  if (headerOf(reply.headers, 'media-location') !== undefined) return reply;
  return { ...reply, headers: [...reply.headers, ['media-location', mediaPath(upload.mediaId)]] };
}

/** tus 1.0.0: every response names the version, refusals too. */
async function withTusVersion(handle: () => Promise<Reply>): Promise<Reply> {
  try {
    return await handle();
  } catch (thrown) {
    const { code, detail, headers, members, cause } = faultOf(thrown);
    throw new Fault(code, detail, { headers: { ...headers, 'tus-resumable': TUS_VERSION }, members, cause });
  }
}
