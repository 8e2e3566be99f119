/**
 * Copies everything into a folder while the origin serves: `blobs` in the form of
 * the local adaptor, `meta` in the form of the metadata store. restore.ts puts it
 * back. An origin with local blobs can also use the two folders directly.
 *
 * The metadata are copied between two passes over the blobs. So the copy has the
 * bytes of every record in it: what the sweep frees in between was copied in the
 * first pass, what was uploaded in between is copied in the second. Each blob is
 * hashed on its way, and a wrong one is reported and left out. A later backup
 * into the same folder copies only what is new, and at its end removes what no
 * record needs any more.
 */

import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import { openPrivateFolder } from '../../src/private-folder.js';
import { type BlobKey, type BlobStore, sourceOf } from '../blobs/blob-store.js';
import { syncPath } from '../blobs/files.js';
import { type ExpectedBlob, expectedBlobs, type TransferFault, transfer } from '../blobs/transfer.js';
import { FILE_NAME as META_FILE } from '../meta/lmdb.js';
import type { MetaStore } from '../meta/store.js';

export interface BackupDeps {
  /** The store of the running origin, or a reader of it. */
  readonly meta: Pick<MetaStore, 'blobsAfter' | 'backup'>;
  readonly blobs: Pick<BlobStore, 'read'>;
  readonly clock: Clock;
  /** Opens a blob store below a folder of the backup. */
  openBlobs(folder: string, stageFolder: string): Promise<BlobStore>;
  /** Opens the copied metadata for reading. */
  openMeta(folder: string): Promise<Pick<MetaStore, 'blobsAfter' | 'findBlob' | 'close'>>;
}

export interface BackupFinding extends TransferFault {
  readonly key: BlobKey;
}

export interface BackupOptions {
  readonly folder: string;
  readonly signal: AbortSignal;
  onFinding(finding: BackupFinding): void;
  onProgress(progress: { readonly step: BackupStep; readonly blobs: number; readonly copiedBytes: number }): void;
}

export type BackupStep = 'copy' | 'metadata' | 'complete' | 'prune';

export interface BackupReport {
  /** Blobs and thumbnails that the records of the backup name. */
  readonly blobs: number;
  readonly copied: number;
  readonly copiedBytes: number;
  /** Blobs and thumbnails of older backups that were removed. */
  readonly pruned: number;
  readonly findings: number;
}

const PAGE = 64;

interface BackupWork extends BackupDeps, BackupOptions {
  readonly target: BlobStore;
  readonly counts: { copied: number; copiedBytes: number; findings: number };
}

export async function backup(deps: BackupDeps, options: BackupOptions): Promise<BackupReport> {
  const { folder, signal } = options;
  await openPrivateFolder(folder);
  const nextFolder = join(folder, 'meta.next');
  await rm(nextFolder, { recursive: true, force: true });
  const target = await deps.openBlobs(join(folder, 'blobs'), join(folder, 'stage'));
  const work: BackupWork = { ...deps, ...options, target, counts: { copied: 0, copiedBytes: 0, findings: 0 } };
  try {
    // A blob that cannot be copied now may have been swept. Only the second pass reports what is missing.
    await copyAll(work, deps.meta, 'copy', () => undefined);
    options.onProgress({ step: 'metadata', blobs: 0, copiedBytes: work.counts.copiedBytes });
    await deps.meta.backup(nextFolder);
    const copy = await deps.openMeta(nextFolder);
    try {
      const blobs = await copyAll(work, copy, 'complete', (finding) => {
        work.counts.findings += 1;
        options.onFinding(finding);
      });
      await publishMeta(folder, nextFolder, signal);
      const pruned = await prune(work, copy);
      await writeNote(folder, deps.clock, { blobs, ...work.counts });
      return { blobs, ...work.counts, pruned };
    } finally {
      await copy.close();
    }
  } finally {
    await target.close();
    await rm(nextFolder, { recursive: true, force: true });
    await rm(join(folder, 'stage'), { recursive: true, force: true });
  }
}

/** Copies what the records name and the target lacks. Returns how many blobs and thumbnails the records name. */
async function copyAll(
  work: BackupWork,
  meta: Pick<MetaStore, 'blobsAfter'>,
  step: BackupStep,
  onFinding: (finding: BackupFinding) => void,
): Promise<number> {
  let blobs = 0;
  for (let after: Sha256 | null = null; ; ) {
    const page = await meta.blobsAfter(after, PAGE);
    for (const expected of page.blobs.flatMap(expectedBlobs)) {
      work.signal.throwIfAborted();
      blobs += 1;
      const finding = await copyOne(work, expected);
      if (finding !== undefined) onFinding({ key: expected.key, ...finding });
    }
    work.onProgress({ step, blobs, copiedBytes: work.counts.copiedBytes });
    if (page.next === null) return blobs;
    after = page.next;
  }
}

async function copyOne(work: BackupWork, expected: ExpectedBlob): Promise<TransferFault | undefined> {
  const { target, blobs, signal } = work;
  // Its hash was checked when it was copied.
  if ((await target.stat(expected.key, signal)) === expected.sizeBytes) return undefined;
  const fault = await transfer(expected, { source: blobs, target, name: 'backup', signal });
  if (fault !== undefined) return fault;
  work.counts.copied += 1;
  work.counts.copiedBytes += expected.sizeBytes;
  return undefined;
}

/**
 * Puts the new metadata in the place of those of an older backup, in one step: a power cut leaves the one or the other.
 * What is copied is on the disk already.
 */
async function publishMeta(folder: string, nextFolder: string, signal: AbortSignal): Promise<void> {
  const current = join(folder, 'meta');
  signal.throwIfAborted();
  await openPrivateFolder(current);
  await rename(join(nextFolder, META_FILE), join(current, META_FILE));
  await syncPath(current);
}

/** Removes what only older backups needed. */
async function prune(work: BackupWork, copy: Pick<MetaStore, 'findBlob'>): Promise<number> {
  let pruned = 0;
  for (const prefix of ['media/', 'thumb/'] as const) {
    for await (const { key } of work.target.list(prefix, work.signal)) {
      const blob = await copy.findBlob(sourceOf(key));
      if (blob !== undefined && expectedBlobs(blob).some((expected) => expected.key === key)) continue;
      await work.target.remove(key, work.signal);
      pruned += 1;
      work.onProgress({ step: 'prune', blobs: pruned, copiedBytes: work.counts.copiedBytes });
    }
  }
  return pruned;
}

async function writeNote(folder: string, clock: Clock, counts: Readonly<Record<string, number>>): Promise<void> {
  const note = { made_at: new Date(clock.now()).toISOString(), ...counts };
  await writeFile(join(folder, 'backup.json'), `${JSON.stringify(note, undefined, 2)}\n`, { flush: true });
}
