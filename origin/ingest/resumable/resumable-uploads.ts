/**
 * What resumable uploads share: the unfinished uploads, their locks, and the
 * sweeper that removes expired ones. Also the rules for who may begin one and who
 * may continue it.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Caller } from '../../../src/access/grant.js';
import type { Clock, Timer } from '../../../src/clock.js';
import { duration, integer, section, type ValueOf } from '../../../src/config/field.js';
import { Fault } from '../../../src/errors.js';
import { bugFields, type Log } from '../../../src/log.js';
import { readDeclared } from '../../../src/media/declared.js';
import type { CounterOf, Metrics } from '../../../src/metrics.js';
import type { UploadConfig } from '../config.js';
import { readOptions, requireLifetime, type UploadOptions } from '../options.js';
import { metadataValues } from './metadata.js';
import { notPartial } from './tus.js';
import { openUnfinishedUploads, type UnfinishedUploads } from './unfinished-uploads.js';
import { createUploadLocks, type UploadLocks } from './upload-locks.js';
import { type UnfinishedUpload, UPLOAD_ID } from './upload-record.js';

export const resumableSection = section(
  'Resumable uploads (tus). Their size, rate and number at once are limited by `upload`.',
  {
    expiresAfterMs: duration({
      default: '24h',
      min: 60_000,
      help: 'Time in which an upload must be finished, counted from its creation.',
    }),
    finishedKeepMs: duration({
      default: '1h',
      min: 60_000,
      help: 'How long a finished upload still answers HEAD with its Media-Location.',
    }),
    unfinishedMax: integer({ default: 10_000, min: 1, max: 1_000_000, help: 'Unfinished uploads at once.' }),
    unfinishedMaxPerSubject: integer({
      default: 100,
      min: 1,
      max: 1_000_000,
      help: 'Unfinished uploads of one subject at once.',
    }),
    sweepEveryMs: duration({
      default: '1m',
      min: 1_000,
      max: 86_400_000,
      help: 'How often expired uploads are removed.',
    }),
  },
);

export type ResumableConfig = ValueOf<typeof resumableSection>;

interface Configs {
  readonly upload: UploadConfig;
  readonly resumable: ResumableConfig;
}

export interface ResumableUploadsDeps {
  readonly stageFolder: string;
  readonly config: Configs;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface ResumableUploads {
  readonly uploads: UnfinishedUploads;
  readonly locks: UploadLocks;
  readonly endings: CounterOf<'ending'>;
  close(): Promise<void>;
}

/** Inside the stage folder, so that a finished upload can be renamed into place as any other. */
const FOLDER = 'resumable';

export async function openResumableUploads(deps: ResumableUploadsDeps): Promise<ResumableUploads> {
  const { clock, metrics } = deps;
  const uploads = await openUnfinishedUploads(join(deps.stageFolder, FOLDER));
  const locks = createUploadLocks();
  const endings = metrics.counter('resumable_uploads_ended_total', 'Resumable uploads that ended, by how.', ['ending']);
  const unfinished = metrics.gauge('resumable_uploads_unfinished', 'Resumable uploads that are not finished yet.');
  metrics.onCollect(() => unfinished.set(uploads.unfinished()));
  return {
    uploads,
    locks,
    endings,
    close: sweepRegularly(deps, async () => {
      for (const upload of uploads.all()) {
        if (upload.expiresAt > clock.now() || locks.isLocked(upload.id)) continue;
        await uploads.drop(upload.id);
        if (upload.mediaId === null) endings.add(1, { ending: 'expired' });
      }
    }),
  };
}

/** The next sweep begins some time after the last one has ended. The function returned ends it, and waits for a sweep in progress. */
function sweepRegularly({ config, clock, log }: ResumableUploadsDeps, sweep: () => Promise<void>): () => Promise<void> {
  let closed = false;
  let sweeping: Promise<void> = Promise.resolve();
  let timer = begin();

  function begin(): Timer {
    return clock.after(config.resumable.sweepEveryMs, () => {
      sweeping = run();
    });
  }

  async function run(): Promise<void> {
    try {
      await sweep();
    } catch (thrown) {
      log.error(bugFields(thrown), 'expired resumable uploads could not be removed');
    }
    if (!closed) timer = begin();
  }

  return async () => {
    closed = true;
    timer.cancel();
    await sweeping;
  };
}

/** Throws a Fault if the caller, or all callers together, have too many unfinished uploads. */
export function requireRoom(uploads: UnfinishedUploads, caller: Caller, config: Configs): void {
  const { unfinishedMax, unfinishedMaxPerSubject } = config.resumable;
  const retryAfter = { headers: { 'retry-after': String(Math.ceil(config.upload.retryAfterMs / 1_000)) } };
  if (uploads.unfinished(caller.subject) >= unfinishedMaxPerSubject) {
    throw new Fault('rate_limited', 'Finish or delete some of your unfinished uploads first.', retryAfter);
  }
  if (uploads.unfinished() >= unfinishedMax) {
    throw new Fault('overloaded', 'Too many uploads are unfinished.', retryAfter);
  }
}

/** The upload, if it is the caller's. To everyone else it does not exist. */
export function ownUpload(uploads: UnfinishedUploads, caller: Caller, id: string, now: number): UnfinishedUpload {
  const upload = UPLOAD_ID.test(id) ? uploads.find(id) : undefined;
  if (upload?.owner !== caller.subject) throw noSuchUpload();
  if (upload.expiresAt <= now) throw new Fault('expired', 'The upload has expired.');
  return upload;
}

export function noSuchUpload(): Fault {
  return new Fault('not_found', 'There is no such upload.');
}

export type PartialUpload = UnfinishedUpload & { readonly role: { readonly kind: 'partial' } };

/** The same for the parts of a final upload. */
export function ownPartial(uploads: UnfinishedUploads, caller: Caller, id: string, now: number): PartialUpload {
  const upload = uploads.find(id);
  if (upload === undefined || upload.owner !== caller.subject || upload.expiresAt <= now || !isPartial(upload)) {
    throw notPartial();
  }
  return upload;
}

function isPartial(upload: UnfinishedUpload): upload is PartialUpload {
  return upload.role.kind === 'partial';
}

/** The record of an upload that begins, with a new id unless one is given. Throws a Fault for metadata that would be refused at its end. */
export function newUpload(
  upload: Pick<UnfinishedUpload, 'owner' | 'sizeBytes' | 'metadata' | 'role'> & { readonly id?: string | undefined },
  config: Configs,
  now: number,
): UnfinishedUpload {
  const filetype = declaredTypeIn(upload);
  requireLifetime(optionsIn(upload), config.upload);
  if (readDeclared(filetype).kind === 'malformed') {
    throw new Fault('malformed', 'filetype is no media type.');
  }
  const id = upload.id ?? randomBytes(16).toString('hex');
  return { ...upload, id, expiresAt: now + config.resumable.expiresAfterMs, mediaId: null };
}

export function optionsIn({ metadata }: Pick<UnfinishedUpload, 'metadata'>): UploadOptions {
  return readOptions(metadataValues(metadata));
}

/** Undefined if the metadata name no type. */
export function declaredTypeIn({ metadata }: Pick<UnfinishedUpload, 'metadata'>): string | undefined {
  return metadataValues(metadata).get('filetype');
}
