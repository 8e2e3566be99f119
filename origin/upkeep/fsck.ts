/**
 * Compares the metadata with what is stored, in both directions: records with
 * their indexes, jobs and journal (meta/verify.ts), blobs and thumbnails with
 * their bytes, and stored bytes with their records. Repairs what is safe:
 *
 * - what can be derived from intact data is derived again: indexes, jobs, notes;
 * - a blob whose bytes are missing or cut is marked as rotten, so that the next
 *   upload of the same bytes heals it; thumbnails are made again;
 * - a blob whose record is lost is recorded again from its bytes; if those are
 *   lost too, the ids that refer to it become deleted;
 * - bytes without a record are removed once they are older than the grace period.
 *
 * With the embedded store it needs that for itself, while the origin is stopped. With PostgreSQL it goes through the
 * records in pages while origins serve: what it finds is looked at again before it counts.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import {
  type BlobKey,
  type BlobListing,
  type BlobStore,
  mediaKey,
  type Place,
  partsOf,
  thumbKey,
} from '../blobs/blob-store.js';
import { orphans } from '../blobs/sweep.js';
import { detectType, pictureFacts } from '../ingest/identify.js';
import { chunksOf } from '../ingest/paced-body.js';
import { stage } from '../ingest/stage.js';
import { type BlobRecord, keysOf, type MediaRecord } from '../meta/media.js';
import type { MetaFindingKind, MetaStore } from '../meta/store.js';

export type FsckFindingKind =
  | MetaFindingKind
  /** Live ids refer to a blob without a record. */
  | 'blob_unknown'
  | 'bytes_missing'
  | 'bytes_cut'
  | 'thumb_missing'
  /** Stored bytes without a record. */
  | 'orphan';

export interface FsckFinding {
  readonly kind: FsckFindingKind;
  /** The table and key, the key of the blob, or the hash. */
  readonly subject: string;
  readonly detail: string;
  readonly repaired: boolean;
}

export interface FsckDeps {
  readonly meta: MetaStore;
  readonly blobs: BlobStore;
  /** Whether thumbnails are made of media of this type. */
  readonly makesThumbs: (mime: string) => boolean;
  readonly clock: Clock;
  /** Stored bytes younger than this may belong to an upload. */
  readonly graceMs: number;
}

export interface FsckOptions {
  readonly repair: boolean;
  readonly signal: AbortSignal;
  onFinding(finding: FsckFinding): void;
  onProgress(progress: { readonly step: string; readonly seen: number }): void;
}

export interface FsckReport {
  readonly findings: number;
  readonly repaired: number;
}

/** Blobs that are checked at once. */
const AT_ONCE = 16;

interface Check extends FsckDeps, FsckOptions {
  /** Hash of a blob without a record -> the ids that refer to it. */
  readonly unknown: Map<Sha256, MediaId[]>;
  found(finding: Omit<FsckFinding, 'repaired'>, repair: () => Promise<boolean>): Promise<void>;
}

const STEPS: readonly ((check: Check) => Promise<void>)[] = [checkMeta, checkUnknown, checkStored, checkOrphans];

export async function fsck(deps: FsckDeps, options: FsckOptions): Promise<FsckReport> {
  let findings = 0;
  let repaired = 0;
  const onFinding = (finding: FsckFinding): void => {
    findings += 1;
    if (finding.repaired) repaired += 1;
    options.onFinding(finding);
  };
  const check: Check = {
    ...deps,
    ...options,
    onFinding,
    unknown: new Map(),
    async found(finding, repair) {
      onFinding({ ...finding, repaired: options.repair && (await repair()) });
    },
  };
  for (const step of STEPS) {
    options.signal.throwIfAborted();
    await step(check);
  }
  return { findings, repaired };
}

async function checkMeta(check: Check): Promise<void> {
  await check.meta.verify({
    repair: check.repair,
    now: check.clock.now(),
    signal: check.signal,
    onFinding: ({ kind, table, key, detail, repaired }) =>
      check.onFinding({ kind, subject: `${table} ${key}`, detail, repaired }),
    onBlobUnknown: ({ sha256, id }: MediaRecord) => {
      check.unknown.set(sha256, [...(check.unknown.get(sha256) ?? []), id]);
    },
    onProgress: ({ table, seen }) => check.onProgress({ step: table, seen }),
  });
}

async function checkUnknown(check: Check): Promise<void> {
  for (const [sha256, ids] of check.unknown) {
    const detail = `${ids.join(', ')} ${ids.length > 1 ? 'refer' : 'refers'} to it, but it has no record`;
    await check.found({ kind: 'blob_unknown', subject: sha256, detail }, async () => {
      const blob = await rebuild(check, sha256);
      if (blob !== undefined) return check.meta.recordBlob(blob);
      // Somebody may have uploaded these bytes meanwhile.
      if ((await check.meta.findBlob(sha256)) !== undefined) return false;
      for (const id of ids) await check.meta.remove(id, 'fsck', check.clock.now());
      return true;
    });
  }
}

/** Makes the record of a blob from its bytes, in whichever place; undefined if they are missing or have another hash. */
async function rebuild(check: Check, sha256: Sha256): Promise<BlobRecord | undefined> {
  const stored: BlobListing[] = [];
  for await (const listed of check.blobs.list(`media/${sha256}`, check.signal)) stored.push(listed);
  for (const { key } of stored) {
    const parts = partsOf(key);
    const blob = parts?.sha256 === sha256 ? await rebuildFrom(check, sha256, parts.place) : undefined;
    if (blob !== undefined) return blob;
  }
  return undefined;
}

async function rebuildFrom(
  { blobs, clock, makesThumbs, signal }: Check,
  sha256: Sha256,
  place: Place,
): Promise<BlobRecord | undefined> {
  const read = await blobs.read(mediaKey({ sha256, place }), undefined, signal);
  if (read.kind !== 'found') return undefined;
  const path = join(blobs.stageFolder, `fsck-${randomUUID()}`);
  try {
    const staged = await stage(chunksOf(read.body), path, { sizeMaxBytes: read.sizeBytes, sync: false });
    if (staged.sha256 !== sha256) return undefined;
    const mime = await detectType(staged);
    return {
      sha256,
      place,
      sizeBytes: staged.sizeBytes,
      mime,
      storedAt: clock.now(),
      picture: await pictureFacts(staged),
      thumbs: makesThumbs(mime) ? { kind: 'pending' } : { kind: 'none', reason: 'unsupported_type' },
      quarantine: null,
    };
  } finally {
    read.body.destroy();
    await rm(path, { force: true });
  }
}

/** Checks that every recorded blob and thumbnail is stored with its size. */
async function checkStored(check: Check): Promise<void> {
  let seen = 0;
  for (let after: Sha256 | null = null; ; ) {
    const page = await check.meta.blobsAfter(after, AT_ONCE);
    await Promise.all(page.blobs.map((blob) => checkBlob(check, blob)));
    seen += page.blobs.length;
    check.onProgress({ step: 'stored blobs', seen });
    check.signal.throwIfAborted();
    if (page.next === null) return;
    after = page.next;
  }
}

async function checkBlob(check: Check, blob: BlobRecord): Promise<void> {
  const { blobs, meta, signal } = check;
  const { sha256 } = blob;
  const sizeBytes = await blobs.stat(mediaKey(blob), signal);
  if (
    sizeBytes !== blob.sizeBytes &&
    blob.quarantine?.cause !== 'rot' &&
    (await isNamed(check, sha256, mediaKey(blob)))
  ) {
    const kind = sizeBytes === undefined ? 'bytes_missing' : 'bytes_cut';
    const detail = sizeBytes === undefined ? 'nothing is stored' : `${sizeBytes} of ${blob.sizeBytes} bytes are stored`;
    await check.found({ kind, subject: mediaKey(blob), detail }, () => markRotten(check, blob, detail));
  }
  if (blob.thumbs.kind !== 'ready') return;
  for (const made of blob.thumbs.made) {
    const key = thumbKey(sha256, made);
    const stored = await blobs.stat(key, signal);
    if (stored === made.sizeBytes || !(await isNamed(check, sha256, key))) continue;
    const detail = stored === undefined ? 'nothing is stored' : `${stored} of ${made.sizeBytes} bytes are stored`;
    await check.found({ kind: 'thumb_missing', subject: key, detail }, () =>
      meta.redoThumbs(sha256, 'backfill', check.clock.now()),
    );
  }
}

/** Whether the record still names a key. While the service runs, a blob may be swept or healed, and its thumbnails made again. */
async function isNamed({ meta }: Check, sha256: Sha256, key: BlobKey): Promise<boolean> {
  const blob = await meta.findBlob(sha256);
  return blob !== undefined && keysOf(blob).includes(key);
}

/** An unreferenced blob is forgotten instead, because nothing needs it. The mark of an admin is kept. */
async function markRotten({ meta, clock }: Check, blob: BlobRecord, reason: string): Promise<boolean> {
  if (await meta.isUnreferenced(blob.sha256)) return (await meta.forgetBlob(blob.sha256)) !== undefined;
  const mark = { at: clock.now(), by: 'fsck', reason, cause: 'rot' } as const;
  return (await meta.quarantine(blob.sha256, mark)).kind === 'done';
}

async function checkOrphans(check: Check): Promise<void> {
  let seen = 0;
  for await (const { key, sizeBytes } of orphans(check, check.clock.now() - check.graceMs, check.signal)) {
    seen += 1;
    check.onProgress({ step: 'orphans', seen });
    await check.found({ kind: 'orphan', subject: key, detail: `these ${sizeBytes} bytes have no record` }, async () => {
      await check.blobs.remove(key, check.signal);
      return true;
    });
  }
}
