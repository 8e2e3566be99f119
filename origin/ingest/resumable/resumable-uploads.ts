/**
 * What resumable uploads share: the unfinished uploads, their locks, and the
 * sweeper that removes expired ones. Also the rules for who may begin one and who
 * may continue it.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Caller } from '../../../src/access/grant.js';
import type { Clock, Timer } from '../../../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../../../src/config/field.js';
import { Fault } from '../../../src/errors.js';
import { bugFields, type Log } from '../../../src/log.js';
import { readDeclared } from '../../../src/media/declared.js';
import type { CounterOf, Metrics } from '../../../src/metrics.js';
import type { MetaStore } from '../../meta/store.js';
import type { UploadConfig } from '../config.js';
import { readOptions, requireLifetime, type UploadOptions } from '../options.js';
import { metadataValues } from './metadata.js';
import { notPartial } from './tus.js';
import type { UnfinishedUploads } from './unfinished-uploads.js';
import { createUploadLocks, type UploadLocks } from './upload-locks.js';
import { type UnfinishedUpload, UPLOAD_ID } from './upload-record.js';
import { openUploadsInFolder } from './uploads-in-folder.js';
import { openUploadsInStore, type UploadsInStoreDeps } from './uploads-in-store.js';

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
    partSizeBytes: size({
      default: '8MiB',
      min: 65_536,
      max: 512 * 2 ** 20,
      help: 'With PostgreSQL, bytes of unfinished uploads are stored in parts of this size, from which any origin goes on. A body with a checksum is one part.',
    }),
    partEveryMs: duration({
      default: '2s',
      min: 100,
      max: 60_000,
      help: 'A part is stored this long after its first byte, whatever its size: an origin that dies loses no more.',
    }),
  },
);

export type ResumableConfig = ValueOf<typeof resumableSection>;

interface Configs {
  readonly upload: UploadConfig;
  readonly resumable: ResumableConfig;
}

export interface ResumableUploadsDeps {
  /** Where unfinished uploads are kept unless several origins share them. */
  readonly meta: UploadsInStoreDeps['meta'] & Pick<MetaStore, 'shared'>;
  readonly blobs: UploadsInStoreDeps['blobs'];
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
  const { blobs, clock, config, meta, metrics } = deps;
  const uploads =
    meta.shared === null
      ? await openUploadsInFolder(join(blobs.stageFolder, FOLDER))
      : await openUploadsInStore({ table: meta.shared.uploads, meta, blobs, clock, config: config.resumable });
  const locks = createUploadLocks();
  const endings = metrics.counter('resumable_uploads_ended_total', 'Resumable uploads that ended, by how.', ['ending']);
  const unfinished = metrics.gauge('resumable_uploads_unfinished', 'Resumable uploads that are not finished yet.');
  metrics.onCollect(() => unfinished.set(uploads.unfinished()));
  return {
    uploads,
    locks,
    endings,
    close: sweepRegularly(deps, async () => {
      for (let dropped = EXPIRED_STEP; dropped === EXPIRED_STEP; ) {
        dropped = 0;
        for (const upload of await uploads.expired(clock.now(), EXPIRED_STEP)) {
          if (locks.isLocked(upload.id) || !(await uploads.drop(upload.id))) continue;
          dropped += 1;
          if (upload.mediaId === null) endings.add(1, { ending: 'expired' });
        }
      }
    }),
  };
}

/** Uploads that are looked for at once. */
const EXPIRED_STEP = 1_000;

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

/** Begins an upload. Throws a Fault if there is one with its id, which a link may name, or if its owner, or all together, have too many unfinished ones. */
export async function createWithinLimits(
  uploads: Pick<UnfinishedUploads, 'create' | 'drop'>,
  upload: UnfinishedUpload,
  config: Configs,
): Promise<void> {
  const retryAfter = { headers: { 'retry-after': String(Math.ceil(config.upload.retryAfterMs / 1_000)) } };
  const outcome = await uploads.create(upload, config.resumable).catch(async (thrown: unknown) => {
    await uploads.drop(upload.id);
    throw thrown;
  });
  switch (outcome) {
    case 'created':
      return;
    case 'exists':
      throw new Fault('conflict', 'The upload link has begun its upload.');
    case 'full_for_owner':
      throw new Fault('rate_limited', 'Finish or delete some of your unfinished uploads first.', retryAfter);
    case 'full':
      throw new Fault('overloaded', 'Too many uploads are unfinished.', retryAfter);
  }
}

/** The upload, if it is the caller's. To everyone else it does not exist. */
export async function ownUpload(
  uploads: UnfinishedUploads,
  caller: Caller,
  id: string,
  now: number,
): Promise<UnfinishedUpload> {
  const upload = UPLOAD_ID.test(id) ? await uploads.find(id) : undefined;
  if (upload?.owner !== caller.subject) throw noSuchUpload();
  if (upload.expiresAt <= now) throw new Fault('expired', 'The upload has expired.');
  return upload;
}

export function noSuchUpload(): Fault {
  return new Fault('not_found', 'There is no such upload.');
}

export type PartialUpload = UnfinishedUpload & { readonly role: { readonly kind: 'partial' } };

/** The same for the parts of a final upload. */
export async function ownPartial(
  uploads: UnfinishedUploads,
  caller: Caller,
  id: string,
  now: number,
): Promise<PartialUpload> {
  const upload = await uploads.find(id);
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
