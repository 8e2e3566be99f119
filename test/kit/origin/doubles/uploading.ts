/** What uploads need, without sockets: real stores in a folder, and doubles that tell what was taken and given back. */
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { Test } from 'tap';
import type { Arrival } from '../../../../origin/ingest/admit.js';
import { uploadSection } from '../../../../origin/ingest/config.js';
import { openResumableUploads, resumableSection } from '../../../../origin/ingest/resumable/resumable-uploads.js';
import type { ScanVerdict } from '../../../../origin/ingest/scan.js';
import type { ResumableDeps } from '../../../../origin/resumable.js';
import { retentionSection } from '../../../../origin/retention-rules.js';
import type { OriginRequest } from '../../../../origin/server/request.js';
import { uploadCounts } from '../../../../origin/upload.js';
import type { Grant } from '../../../../src/access/grant.js';
import type { Reply } from '../../../../src/http/reply.js';
import { createIdSource } from '../../../../src/ids.js';
import { ManualClock } from '../../clock.js';
import { configured, testDeps } from '../../deps.js';
import { openStores } from '../stores.js';
import { gateOf, granted, requestOf } from './request.js';

export interface Uploading {
  readonly grant?: Grant;
  readonly sizeMaxBytes?: number;
  readonly expiresInMaxMs?: number;
  readonly scan?: (signal: AbortSignal) => Promise<ScanVerdict>;
  readonly quotaLeft?: boolean;
  /** Throws what an admission is refused with. */
  readonly admit?: () => void;
  readonly unfinishedMaxPerSubject?: number;
}

export async function openUploading(t: Test, given: Uploading = {}) {
  const { sizeMaxBytes = 1_000, scan = async () => ({ kind: 'admit' }) as const } = given;
  const folder = t.testdir({});
  const clock = new ManualClock();
  const { log, metrics, sample } = testDeps();
  const stores = await openStores(folder, clock, { log });
  const config = {
    upload: configured(uploadSection, { sizeMaxBytes, expiresInMaxMs: given.expiresInMaxMs ?? null }),
    retention: configured(retentionSection),
    resumable: configured(resumableSection, { unfinishedMaxPerSubject: given.unfinishedMaxPerSubject ?? 100 }),
  };
  const { stageFolder } = stores.blobs;
  const resumable = await openResumableUploads({ meta: stores.meta, blobs: stores.blobs, config, clock, log, metrics });
  t.teardown(async () => {
    await resumable.close();
    await stores.close();
  });
  /** What was taken and not given back. */
  const held = { quotas: 0, admissions: 0 };
  const asked: unknown[] = [];
  const failures: unknown[] = [];
  const deps: ResumableDeps = {
    gate: gateOf(given.grant ?? granted()),
    clock,
    ids: createIdSource(clock),
    meta: stores.meta,
    blobs: stores.blobs,
    thumbs: { accepts: () => false, hashOfUpload: async () => null },
    scanner: { scan: (_path, signal) => scan(signal) },
    baseUri: 'https://media.example',
    counts: uploadCounts(metrics),
    config,
    resumable,
    quotas: {
      retryAfterMs: () => 7_000,
      async reserve(owner, sizeBytes, files) {
        asked.push(['quota', owner, sizeBytes, files]);
        if (given.quotaLeft === false) return { kind: 'refused', retryAfterMs: 7_000 };
        held.quotas += 1;
        const release = (): void => {
          held.quotas -= 1;
        };
        return { kind: 'reserved', reservation: { quota: undefined, release } };
      },
    },
    admissions: {
      async admit(arrival: Arrival) {
        asked.push(['admit', arrival]);
        given.admit?.();
        held.admissions += 1;
        const hold = (receivedBytes: number): undefined => void asked.push(['hold', receivedBytes]);
        const release = (): void => {
          held.admissions -= 1;
        };
        return { hold, release };
      },
      requireRoom: async () => void asked.push(['room']),
      failed: (thrown) => void failures.push(thrown),
    },
  };
  return { deps, stores, resumable, clock, sample, held, asked, failures, folder: join(stageFolder, 'resumable') };
}

export interface Sent {
  readonly method?: string;
  readonly fields?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string | Readable;
  /** Null for a body that does not say its size. */
  readonly sizeBytes?: number | null;
  readonly signal?: AbortSignal;
}

/** A request with a body. */
export function sentRequest({ method = 'POST', fields = {}, body = '', sizeBytes, signal }: Sent = {}) {
  const { request, counted } = requestOf({ method, fields });
  const stream = body instanceof Readable ? body : Readable.from([Buffer.from(body)], { objectMode: false });
  const announced = body instanceof Readable ? null : Buffer.from(body).length;
  const sent: OriginRequest = {
    ...request,
    ...(signal !== undefined && { signal }),
    body: { sizeBytes: sizeBytes === undefined ? announced : sizeBytes, open: () => stream },
  };
  return { request: sent, counted };
}

/** The status, the fields and the JSON of a reply. */
export function told({ status, headers, body }: Reply) {
  const json: unknown = body.kind === 'bytes' ? JSON.parse(Buffer.from(body.bytes).toString()) : undefined;
  return { status, fields: Object.fromEntries(headers), json };
}
