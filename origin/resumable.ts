/**
 * Resumable uploads (tus 1.0.0): authorize > protocol > lock > admit > append >
 * ingest > reply. A complete upload takes the same way as every other (ingest.ts),
 * with the owner, the options and the quota of its creation.
 *
 * Promises: to anyone but its owner an upload does not exist; one request of an
 * origin at a time changes it, and of those at several origins the one that comes first. A newer HEAD or DELETE stops a PATCH whose body is still
 * arriving, because a client that asks has lost its connection, even if the
 * server has not noticed; a newer PATCH is refused with 409. An upload that has
 * all its bytes but could not be finished (a crash, a storage failure) is
 * finished by the next HEAD. A refusal of the content ends the upload.
 *
 * A final upload is joined from partial ones within its POST. They have become
 * the same media then: their bytes are gone, and the same POST again, by a client
 * that lost the answer, gets the same final upload.
 */
import { rm } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Caller } from '../src/access/grant.js';
import { FAULTS, Fault, faultOf } from '../src/errors.js';
import { preflightReply } from '../src/http/browser.js';
import { emptyReply, type HeaderList, headerOf, type Reply } from '../src/http/reply.js';
import { Releases, unlessKept } from '../src/lifecycle.js';
import { requireUploader } from './authorize.js';
import { type Admission, tooLarge } from './ingest/admit.js';
import { type Ingested, ingest, type NewUpload } from './ingest/ingest.js';
import { heldChunks, pacedChunks } from './ingest/paced-body.js';
import {
  createWithinLimits,
  declaredTypeIn,
  newUpload,
  noSuchUpload,
  optionsIn,
  ownPartial,
  ownUpload,
  type PartialUpload,
  type ResumableConfig,
  type ResumableUploads,
} from './ingest/resumable/resumable-uploads.js';
import {
  type Appending,
  beyond,
  type Creation,
  isComplete,
  lengthField,
  metadataFields,
  methodOf,
  notPartial,
  partialIdsIn,
  readAppending,
  readCreation,
  requireVersion,
  stateFields,
  TUS_VERSION,
  tusCapabilities,
  UPLOADS_PATH,
} from './ingest/resumable/tus.js';
import type { UnfinishedUpload, UploadRole } from './ingest/resumable/upload-record.js';
import { onceOf, optionsWithin, requireUnused, withinTerms } from './ingest/terms.js';
import { mediaPath } from './respond/media-json.js';
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

/** POST: begins an upload, perhaps with its first bytes, or joins partial uploads. */
export function createResumable(all: ResumableDeps, request: OriginRequest): Promise<Reply> {
  return withTusVersion(all, async () => {
    const caller = await requireUploader(all.gate, request);
    const deps = withinTerms(all, caller.uploadLink);
    requireVersion(request);
    if (methodOf(request) !== 'POST') throw unknownMethod('POST, OPTIONS');
    const creation = readCreation(request, deps.config.upload.sizeMaxBytes);
    if (caller.uploadLink !== undefined && creation.kind !== 'whole') {
      throw new Fault('forbidden', 'An upload link opens one upload, which has no parts.');
    }
    await requireUnused(deps.meta, caller.uploadLink);
    return creation.kind === 'final'
      ? await join(deps, caller, request, creation)
      : await begin(deps, caller, request, creation);
  });
}

/** HEAD, PATCH and DELETE, also as POST with X-HTTP-Method-Override. */
export function continueResumable(all: ResumableDeps, request: OriginRequest, id: string): Promise<Reply> {
  return withTusVersion(all, async () => {
    const caller = await requireUploader(all.gate, request);
    const deps = withinTerms(all, caller.uploadLink);
    const { uploads, locks } = deps.resumable;
    requireVersion(request);
    const method = methodOf(request);
    if (method !== 'HEAD' && method !== 'PATCH' && method !== 'DELETE') {
      throw unknownMethod('HEAD, PATCH, DELETE, OPTIONS');
    }
    if (caller.uploadLink !== undefined && caller.uploadLink.id !== id) throw noSuchUpload();
    await ownUpload(uploads, caller, id, deps.clock.now());
    const taken = new Releases();
    try {
      const lock = taken.add(await locks.take(id, method === 'PATCH' ? 'refuse' : 'interrupt', request.signal));
      // During the wait for the lock the upload may have been finished or removed.
      const upload = await ownUpload(uploads, caller, id, deps.clock.now());
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
  /** Ends the reading of the body: the client is gone, or a newer request interrupts this one. */
  readonly signal: AbortSignal;
  /** Released at the end of the request. */
  readonly taken: Releases;
}

async function begin(
  deps: ResumableDeps,
  caller: Caller,
  request: OriginRequest,
  creation: Extract<Creation, { kind: 'whole' | 'partial' }>,
): Promise<Reply> {
  const { uploads, locks } = deps.resumable;
  const { sizeBytes, metadata, kind, first } = creation;
  const role: UploadRole = kind === 'partial' ? { kind, finalId: null } : { kind };
  const fields = { owner: caller.subject, sizeBytes, metadata, role, id: caller.uploadLink?.id };
  const upload = newUpload(fields, deps.config, deps.clock.now());
  request.meter.admitUpload(request.body.sizeBytes);
  const taken = new Releases();
  try {
    const { quota } = taken.add(await reserveQuota(deps, caller, sizeBytes, filesOf(role)));
    // A partial upload may be empty: a client that cuts a file into equal parts need not look at its length.
    const admission = kind === 'whole' || sizeBytes !== 0 ? taken.add(await admit(deps, caller, sizeBytes)) : NO_BODY;
    if (admission === NO_BODY) await deps.admissions.requireRoom();
    const { signal } = taken.add(await locks.take(upload.id, 'refuse', request.signal));
    await createWithinLimits(uploads, upload, deps.config);
    // After a failure no client knows the id, so nobody could continue the upload.
    const record = taken.add(unlessKept(async () => void (await uploads.drop(upload.id))));
    const begun = { upload, offset: 0 };
    const progress =
      first === undefined ? begun : await receive(deps, begun, first, { request, caller, signal, quota, admission });
    record.keep();
    return createdReply(progress, caller.uploadLink === undefined ? '' : `?${request.query}`);
  } finally {
    await taken.release();
  }
}

/** For a request whose body has no bytes. */
const NO_BODY: Pick<Admission, 'hold'> = { hold: () => undefined };

function admit({ admissions }: ResumableDeps, { subject }: Caller, sizeBytes: number | null): Promise<Admission> {
  return admissions.admit({ subject, sizeBytes, form: false });
}

/** Concatenation. */
async function join(
  deps: ResumableDeps,
  caller: Caller,
  request: OriginRequest,
  { partialIds, concat, metadata }: Extract<Creation, { kind: 'final' }>,
): Promise<Reply> {
  const { locks } = deps.resumable;
  const fields = { owner: caller.subject, metadata, role: { kind: 'final', concat } } as const;
  // Before a lock is taken: it would interrupt a PATCH of an upload that is not complete, or not the caller's.
  const { sizeBytes } = await completePartials(deps, caller, partialIds);
  const upload = newUpload({ ...fields, sizeBytes }, deps.config, deps.clock.now());
  const taken = new Releases();
  try {
    // In the same order for every request, so that no two wait for each other.
    for (const id of partialIds.toSorted()) taken.add(await locks.take(id, 'interrupt', request.signal));
    const { partials } = await completePartials(deps, caller, partialIds);
    const earlier = await joinedBefore(deps, partials, partialIds);
    if (earlier !== undefined) return createdReply({ upload: earlier, offset: sizeBytes }, '');
    const { quota } = taken.add(await reserveQuota(deps, caller, sizeBytes));
    taken.add(await admit(deps, caller, sizeBytes));
    return createdReply(await finish(deps, upload, partials, { request, caller, quota }), '');
  } finally {
    await taken.release();
  }
}

async function completePartials(
  deps: ResumableDeps,
  caller: Caller,
  ids: readonly string[],
): Promise<{ readonly partials: readonly PartialUpload[]; readonly sizeBytes: number }> {
  const { uploads } = deps.resumable;
  const partials: PartialUpload[] = [];
  for (const id of ids) partials.push(await ownPartial(uploads, caller, id, deps.clock.now()));
  let sizeBytes = 0;
  for (const partial of partials) {
    const offset = await uploads.offset(partial);
    if (!isComplete(partial, offset)) throw notPartial();
    sizeBytes += offset;
  }
  const { sizeMaxBytes } = deps.config.upload;
  if (sizeBytes > sizeMaxBytes) throw tooLarge(sizeMaxBytes);
  return { partials, sizeBytes };
}

/** The final upload that was made of the same partial ones. Throws a Fault if some of them were used otherwise. */
async function joinedBefore(
  { resumable }: ResumableDeps,
  partials: readonly PartialUpload[],
  ids: readonly string[],
): Promise<UnfinishedUpload | undefined> {
  const finalId = partials.find(({ mediaId }) => mediaId !== null)?.role.finalId;
  if (finalId === undefined) return undefined;
  const final = finalId === null ? undefined : await resumable.uploads.find(finalId);
  if (final?.role.kind !== 'final' || !isDeepStrictEqual(partialIdsIn(final.role.concat), ids)) throw notPartial();
  return final;
}

async function head(deps: ResumableDeps, { upload, caller, request, taken }: LockedUpload): Promise<Reply> {
  const offset = await deps.resumable.uploads.offset(upload);
  let progress: Progress = { upload, offset };
  if (mayFinish(progress)) {
    const { quota } = taken.add(await reserveQuota(deps, caller, offset));
    progress = await finish(deps, upload, [], { request, caller, quota });
  }
  return emptyReply(200, [...fieldsOf(progress), lengthField(progress.upload), ...metadataFields(progress.upload)]);
}

async function append(deps: ResumableDeps, { upload, caller, request, signal, taken }: LockedUpload): Promise<Reply> {
  // tus 1.0.0, Concatenation: 403.
  if (upload.role.kind === 'final') throw new Fault('forbidden', 'A final upload cannot be changed.');
  const offset = await deps.resumable.uploads.offset(upload);
  const { sizeBytes: bodyBytes } = request.body;
  // No bytes behind the last one change nothing, and tell a client that lost the answer how the upload has ended.
  if (upload.mediaId !== null && bodyBytes !== 0) throw finished(upload.mediaId, offset);
  const appending = readAppending(request, upload, offset, deps.config.upload.sizeMaxBytes);
  if (upload.mediaId !== null) return emptyReply(204, fieldsOf({ upload, offset }));
  request.meter.admitUpload(bodyBytes);
  const { quota } = taken.add(await reserveQuota(deps, caller, upload.sizeBytes, filesOf(upload.role)));
  // A PATCH without bytes may still declare the length or finish a complete upload.
  const admission = bodyBytes === 0 ? NO_BODY : taken.add(await admit(deps, caller, bodyBytes));
  const receiving = { request, caller, signal, quota, admission };
  const progress = await receive(deps, { upload, offset }, appending, receiving);
  const json = /\bapplication\/json\b/i.test(request.header('accept') ?? '');
  // tus 1.0.0 answers PATCH with 204. With a body it must be 200.
  return json && progress.media !== undefined
    ? describingReply(200, fieldsOf(progress), progress.media)
    : emptyReply(204, fieldsOf(progress));
}

async function terminate(deps: ResumableDeps, { upload }: LockedUpload): Promise<Reply> {
  const { uploads, endings } = deps.resumable;
  if (upload.mediaId !== null) throw finished(upload.mediaId, await uploads.offset(upload));
  await uploads.drop(upload.id);
  endings.add(1, { ending: 'terminated' });
  return emptyReply(204, [
    ['tus-resumable', TUS_VERSION],
    ['cache-control', 'no-store'],
  ]);
}

/** An upload after a request. */
interface Progress {
  readonly upload: UnfinishedUpload;
  readonly offset: number;
  /** If the request has finished it: the reply that POST of media would send. */
  readonly media?: Reply;
}

interface Finishing {
  readonly request: OriginRequest;
  readonly caller: Caller;
  readonly quota: NewUpload['quota'];
}

/** How many files of a quota the upload becomes. */
function filesOf({ kind }: UploadRole): 0 | 1 {
  return kind === 'partial' ? 0 : 1;
}

/** A partial upload waits for the final one. */
function mayFinish({ upload, offset }: Progress): boolean {
  return upload.mediaId === null && upload.role.kind !== 'partial' && isComplete(upload, offset);
}

/** Appends the body of a request, and finishes the upload if it is complete then. */
async function receive(
  deps: ResumableDeps,
  { upload, offset }: Progress,
  { sizeBytes, roomBytes, checksum }: Appending,
  receiving: Finishing & { readonly signal: AbortSignal; readonly admission: Pick<Admission, 'hold'> },
): Promise<Progress> {
  const { uploads } = deps.resumable;
  const { upload: config } = deps.config;
  const declared = { ...upload, sizeBytes };
  if (sizeBytes !== upload.sizeBytes) await uploads.change(declared);
  const end = await uploads.append(upload.id, {
    source: heldChunks(pacedChunks(receiving.request, config, deps.clock, receiving.signal), receiving.admission),
    offset,
    sizeMaxBytes: roomBytes,
    beyond: () => beyond(sizeBytes, config.sizeMaxBytes),
    checksum,
  });
  const progress = { upload: declared, offset: end };
  return mayFinish(progress) ? await finish(deps, declared, [], receiving) : progress;
}

/**
 * Ingests a complete upload, or the partial ones that a final upload is made of. They are kept after a failure that may
 * not happen again, and dropped after any other.
 */
async function finish(
  deps: ResumableDeps,
  upload: UnfinishedUpload,
  partials: readonly PartialUpload[],
  finishing: Finishing,
): Promise<Progress> {
  const { uploads, endings } = deps.resumable;
  const { request, caller } = finishing;
  const ids = (partials.length === 0 ? [upload] : partials).map(({ id }) => id);
  try {
    const ingested = await ingestStaged(deps, upload, ids, finishing);
    const mediaId = ingested.media.record.id;
    const ended = { mediaId, expiresAt: deps.clock.now() + deps.config.resumable.finishedKeepMs };
    const done = { ...upload, ...ended };
    const role = { kind: 'partial', finalId: upload.id } as const;
    await uploads.finish([done, ...partials.map((partial) => ({ ...partial, ...ended, role }))]);
    endings.add(1, { ending: 'finished' });
    endings.add(partials.length, { ending: 'joined' });
    return { upload: done, offset: upload.sizeBytes ?? 0, media: await ingestedReply(deps, request, caller, ingested) };
  } catch (thrown) {
    // A client that left can come back and continue.
    if (!request.signal.aborted && !FAULTS[faultOf(thrown).code].retryable) {
      for (const id of ids) await uploads.drop(id);
      endings.add(ids.length, { ending: 'refused' });
    }
    throw thrown;
  }
}

async function ingestStaged(
  deps: ResumableDeps,
  upload: UnfinishedUpload,
  ids: readonly string[],
  { request, caller, quota }: Finishing,
): Promise<Ingested> {
  const { signal } = request;
  const { sizeMaxBytes } = deps.config.upload;
  const staged = await deps.resumable.uploads.stage(ids, { sizeMaxBytes, sync: deps.blobs.kind === 'local', signal });
  try {
    const declaredType = declaredTypeIn(upload);
    const options = optionsWithin(optionsIn(upload), caller.uploadLink);
    const once = onceOf(caller.uploadLink);
    return await ingest(deps, { staged, declaredType, owner: upload.owner, options, quota, once }, signal);
  } finally {
    await rm(staged.path, { force: true });
  }
}

function finished(mediaId: string, offset: number): Fault {
  const headers = { 'media-location': mediaPath(mediaId), 'upload-offset': String(offset) };
  return new Fault('conflict', 'The upload is finished.', { headers });
}

function unknownMethod(allow: string): Fault {
  return new Fault('method_not_allowed', `The path knows ${allow}.`, { headers: { allow } });
}

/** `query`: the upload link, which opens the new path too. */
function createdReply(progress: Progress, query: string): Reply {
  const { upload } = progress;
  const location = `${UPLOADS_PATH}/${upload.id}${query}`;
  const fields: HeaderList = [['location', location], ...fieldsOf(progress), lengthField(upload)];
  return progress.media === undefined ? emptyReply(201, fields) : describingReply(201, fields, progress.media);
}

function fieldsOf({ upload, offset, media }: Progress): HeaderList {
  const etag = media === undefined ? undefined : headerOf(media.headers, 'etag');
  return [
    ...stateFields(upload, offset),
    ...(upload.mediaId === null ? [] : ([['media-location', mediaPath(upload.mediaId)]] as const)),
    ...(etag === undefined ? [] : ([['etag', etag]] as const)),
  ];
}

/** With the description of the media as its body. */
function describingReply(status: number, fields: HeaderList, { headers, body }: Reply): Reply {
  const type = headerOf(headers, 'content-type') ?? 'application/json';
  return { status, headers: [['content-type', type], ...fields], body };
}

/** tus 1.0.0: every response names the version, refusals too. */
async function withTusVersion(
  { admissions }: Pick<ResumableDeps, 'admissions'>,
  handle: () => Promise<Reply>,
): Promise<Reply> {
  try {
    return await handle();
  } catch (thrown) {
    admissions.failed(thrown);
    const { code, detail, headers, members, cause } = faultOf(thrown);
    throw new Fault(code, detail, { headers: { ...headers, 'tus-resumable': TUS_VERSION }, members, cause });
  }
}
