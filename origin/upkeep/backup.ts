/**
 * A copy of everything in a folder, while the origin serves: `blobs` as the local
 * adaptor keeps them, `meta` as the metadata store does. restore.ts puts it back;
 * over local blobs the two may as well be put in place by hand.
 *
 * The metadata are copied after a first pass over the blobs and before a second,
 * so that every record of the copy has its bytes in it: what the sweep frees in
 * between was copied before. Each blob is hashed on its way, and what is not what
 * it should be is told and left out. A later backup into the same folder copies
 * only what is new, and drops what no record needs any more once it is whole.
 */
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.js';
import { errorCode } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import type { BlobKey, BlobStore } from '../blobs/blob-store.js';
import { syncPath } from '../blobs/files.js';
import { type ExpectedBlob, expectedBlobs, type TransferFault, transfer } from '../blobs/transfer.js';
import type { MetaStore } from '../meta/store.js';

export interface BackupParts {
  /** The store that serves, or a reader of it. */
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
  /** Blobs and thumbnails that the backup holds for its records. */
  readonly blobs: number;
  readonly copied: number;
  readonly copiedBytes: number;
  /** What older backups held and no record needs. */
  readonly pruned: number;
  readonly findings: number;
}

const PAGE = 64;

interface Backing extends BackupParts, BackupOptions {
  readonly target: BlobStore;
  readonly counts: { copied: number; copiedBytes: number; findings: number };
}

export async function backup(parts: BackupParts, options: BackupOptions): Promise<BackupReport> {
  const { folder, signal } = options;
  await mkdir(folder, { recursive: true });
  const nextFolder = join(folder, 'meta.next');
  await rm(nextFolder, { recursive: true, force: true });
  const target = await parts.openBlobs(join(folder, 'blobs'), join(folder, 'stage'));
  const work: Backing = { ...parts, ...options, target, counts: { copied: 0, copiedBytes: 0, findings: 0 } };
  try {
    // What cannot be copied now may have been swept meanwhile; the second pass says what is amiss.
    await copyAll(work, parts.meta, 'copy', () => undefined);
    options.onProgress({ step: 'metadata', blobs: 0, copiedBytes: work.counts.copiedBytes });
    await parts.meta.backup(nextFolder);
    const copy = await parts.openMeta(nextFolder);
    try {
      const blobs = await copyAll(work, copy, 'complete', (finding) => {
        work.counts.findings += 1;
        options.onFinding(finding);
      });
      await publish(folder, nextFolder, signal);
      const pruned = await prune(work, copy);
      await writeNote(folder, parts.clock, { blobs, ...work.counts });
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

/** Copies what the target lacks of all that the records name; answers how many that is. */
async function copyAll(
  work: Backing,
  meta: Pick<MetaStore, 'blobsAfter'>,
  step: BackupStep,
  onFinding: (finding: BackupFinding) => void,
): Promise<number> {
  let blobs = 0;
  for (let after: Sha256 | null = null; ; ) {
    const page = await meta.blobsAfter(after, PAGE);
    for (const wanted of page.blobs.flatMap(expectedBlobs)) {
      work.signal.throwIfAborted();
      blobs += 1;
      const finding = await copyOne(work, wanted);
      if (finding !== undefined) onFinding({ key: wanted.key, ...finding });
    }
    work.onProgress({ step, blobs, copiedBytes: work.counts.copiedBytes });
    if (page.next === null) return blobs;
    after = page.next;
  }
}

async function copyOne(work: Backing, wanted: ExpectedBlob): Promise<TransferFault | undefined> {
  const { target, blobs, signal } = work;
  // It was hashed when it came here.
  if ((await target.stat(wanted.key, signal)) === wanted.sizeBytes) return undefined;
  const fault = await transfer(wanted, { source: blobs, target, name: 'backup', signal });
  if (fault !== undefined) return fault;
  work.counts.copied += 1;
  work.counts.copiedBytes += wanted.sizeBytes;
  return undefined;
}

/** The new metadata take the place of those of an older backup. */
async function publish(folder: string, nextFolder: string, signal: AbortSignal): Promise<void> {
  const current = join(folder, 'meta');
  const older = join(folder, 'meta.older');
  signal.throwIfAborted();
  await rm(older, { recursive: true, force: true });
  await rename(current, older).catch(ignoreMissing);
  await rename(nextFolder, current);
  await syncPath(folder);
  await rm(older, { recursive: true, force: true });
}

/** Drops what only older backups needed. */
async function prune(work: Backing, copy: Pick<MetaStore, 'findBlob'>): Promise<number> {
  let pruned = 0;
  for (const prefix of ['media/', 'thumb/'] as const) {
    for await (const { key } of work.target.list(prefix, work.signal)) {
      const [, source = ''] = key.split('/');
      const blob = await copy.findBlob(source as Sha256);
      if (blob !== undefined && expectedBlobs(blob).some((wanted) => wanted.key === key)) continue;
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

function ignoreMissing(thrown: unknown): void {
  if (errorCode(thrown) !== 'ENOENT') throw thrown;
}
