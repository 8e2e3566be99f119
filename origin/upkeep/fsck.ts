/**
 * Compares what the metadata says with what is stored, both ways: records with
 * their indexes, jobs and journal (meta/verify.ts), blobs and thumbnails with
 * their bytes, stored bytes with their records. Repairs what it safely can:
 *
 * - what follows from something whole is derived anew: indexes, jobs, notes;
 * - bytes that are missing or cut are marked as rotten, so that the next upload
 *   of the same bytes heals them; thumbnails are made again;
 * - a blob whose record is lost is recorded again from its bytes; where those are
 *   lost too, the ids over it end as deleted;
 * - bytes without any record are removed once they are older than the grace.
 *
 * It needs the store to itself: run it while the origin is stopped.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import { type BlobStore, mediaKey, thumbKey } from '../blobs/blob-store.js';
import { orphans } from '../blobs/sweep.js';
import { detectType, pictureFacts } from '../ingest/identify.js';
import { chunksOf } from '../ingest/paced-body.js';
import { stage } from '../ingest/stage.js';
import type { BlobRecord, MediaRecord } from '../meta/media.js';
import type { MetaFindingKind, MetaStore } from '../meta/store.js';

export type FsckFindingKind =
  | MetaFindingKind
  /** Live ids over a blob without a record. */
  | 'blob_unknown'
  | 'bytes_missing'
  | 'bytes_cut'
  | 'thumb_missing'
  /** Stored bytes that no record names. */
  | 'orphan';

export interface FsckFinding {
  readonly kind: FsckFindingKind;
  /** The table and key, the blob's key or the hash that it concerns. */
  readonly subject: string;
  readonly detail: string;
  readonly repaired: boolean;
}

export interface FsckParts {
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

/** Blobs looked at together. */
const AT_ONCE = 16;

interface Check extends FsckParts, FsckOptions {
  /** By hash, the ids over blobs without a record. */
  readonly unknown: Map<Sha256, MediaId[]>;
  found(finding: Omit<FsckFinding, 'repaired'>, repair: () => Promise<boolean>): Promise<void>;
}

const STEPS: readonly ((check: Check) => Promise<void>)[] = [checkMeta, checkUnknown, checkStored, checkOrphans];

export async function fsck(parts: FsckParts, options: FsckOptions): Promise<FsckReport> {
  let findings = 0;
  let repaired = 0;
  const onFinding = (finding: FsckFinding): void => {
    findings += 1;
    if (finding.repaired) repaired += 1;
    options.onFinding(finding);
  };
  const check: Check = {
    ...parts,
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
    const detail = `${ids.join(', ')} ${ids.length > 1 ? 'need' : 'needs'} it, and it has no record`;
    await check.found({ kind: 'blob_unknown', subject: sha256, detail }, async () => {
      const blob = await rebuild(check, sha256);
      if (blob !== undefined) return check.meta.recordBlob(blob);
      for (const id of ids) await check.meta.remove(id, 'fsck', check.clock.now());
      return true;
    });
  }
}

/** The record of a blob as its bytes tell it; undefined where they are gone or no longer those bytes. */
async function rebuild({ blobs, clock, makesThumbs, signal }: Check, sha256: Sha256): Promise<BlobRecord | undefined> {
  const read = await blobs.read(mediaKey(sha256), undefined, signal);
  if (read.kind !== 'found') return undefined;
  const path = join(blobs.stageFolder, `fsck-${randomUUID()}`);
  try {
    const staged = await stage(chunksOf(read.body), path, { sizeMaxBytes: read.sizeBytes, sync: false });
    if (staged.sha256 !== sha256) return undefined;
    const mime = await detectType(staged);
    return {
      sha256,
      sizeBytes: staged.sizeBytes,
      mime,
      storedAt: clock.now(),
      picture: pictureFacts(staged),
      thumbs: makesThumbs(mime) ? { kind: 'pending' } : { kind: 'none', reason: 'unsupported_type' },
      quarantine: null,
    };
  } finally {
    read.body.destroy();
    await rm(path, { force: true });
  }
}

/** Every recorded blob and thumbnail is stored, in its size. */
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
  const sizeBytes = await blobs.stat(mediaKey(sha256), signal);
  if (sizeBytes !== blob.sizeBytes && blob.quarantine?.cause !== 'rot') {
    const kind = sizeBytes === undefined ? 'bytes_missing' : 'bytes_cut';
    const detail = sizeBytes === undefined ? 'nothing is stored' : `${sizeBytes} of ${blob.sizeBytes} bytes are stored`;
    await check.found({ kind, subject: mediaKey(sha256), detail }, () => markRotten(check, blob, detail));
  }
  if (blob.thumbs.kind !== 'ready') return;
  for (const made of blob.thumbs.made) {
    const key = thumbKey(sha256, made.sha256);
    const stored = await blobs.stat(key, signal);
    if (stored === made.sizeBytes) continue;
    const detail = stored === undefined ? 'nothing is stored' : `${stored} of ${made.sizeBytes} bytes are stored`;
    await check.found({ kind: 'thumb_missing', subject: key, detail }, async () => {
      // What stands in the way of the new one goes first.
      await blobs.remove(key, signal);
      return meta.redoThumbs(sha256, 'backfill', check.clock.now());
    });
  }
}

/** A blob that nobody holds is forgotten instead: there is nothing to heal. An admin's mark stays. */
async function markRotten({ meta, clock }: Check, blob: BlobRecord, reason: string): Promise<boolean> {
  if (await meta.isUnreferenced(blob.sha256)) return meta.forgetBlob(blob.sha256);
  const mark = { at: clock.now(), by: 'fsck', reason, cause: 'rot' } as const;
  return (await meta.quarantine(blob.sha256, mark)).kind === 'done';
}

async function checkOrphans(check: Check): Promise<void> {
  let seen = 0;
  for await (const { key, sizeBytes } of orphans(check, check.clock.now() - check.graceMs, check.signal)) {
    seen += 1;
    check.onProgress({ step: 'orphans', seen });
    await check.found(
      { kind: 'orphan', subject: key, detail: `no record names these ${sizeBytes} bytes` },
      async () => {
        await check.blobs.remove(key, check.signal);
        return true;
      },
    );
  }
}
