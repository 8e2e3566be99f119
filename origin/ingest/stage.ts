/**
 * Writes bytes to a file in the stage folder, and counts and hashes them meanwhile.
 * On failure the file is removed.
 *
 * With `sync`, for a blob store of local files, the bytes are on the disk at the
 * end. Large files are synced while they are written, so that disk and network work
 * at the same time. A body that fits into one write is written when it is complete,
 * and synced by that write; or it stays in memory, for a blob store that takes it from
 * there.
 */
import { createHash, type Hash, hash as hashOf } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { FILE_MODE, inFolder, NEW, openNew, writeWhole } from '../blobs/files.js';
import { tooLarge } from './admit.js';
import type { ChunkSource } from './paced-body.js';

export interface Staged {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: Sha256;
  /** The first HEAD_MAX_BYTES bytes, or all of them. */
  readonly head: Buffer;
  /** The bytes are on the disk. The file's name in the folder may not be. */
  readonly synced: boolean;
  /** There is no file (see writeOut): `head` has all bytes. */
  readonly inMemory?: true;
}

export interface StageOptions {
  readonly sizeMaxBytes: number;
  /** Whether to sync the bytes to the disk. */
  readonly sync: boolean;
  /** A body of up to HEAD_MAX_BYTES: in a `file`, as every other, or only in `memory`. */
  readonly small?: 'file' | 'memory';
}

/** How much of the beginning is kept: enough for every signature, and for the header of nearly every picture. */
export const HEAD_MAX_BYTES = 256 * 1_024;
/** Bytes are gathered to writes of this size. Large writes need fewer calls, and run while the next bytes are hashed. */
const WRITE_BYTES = 512 * 1_024;
/** After this many bytes a sync begins: often enough to keep the disk busy, rarely enough to allow long writes. */
const SYNC_BYTES = 2 * 1_024 * 1_024;
/**
 * Most syncs in progress at once before files are complete. Node uses four threads for all file operations of a
 * process, so two remain for writes. With more uploads than that, the disk is busy anyway.
 */
const SYNCS_AHEAD_MAX = 2;
let syncsAhead = 0;

/** Stages the bytes of `source` in a new file at `path`. Throws a Fault for no bytes or too many. */
export async function stage(source: ChunkSource, path: string, options: StageOptions): Promise<Staged> {
  const file = new StagedFile(path, options.sync);
  try {
    return await copy(source, file, options);
  } catch (thrown) {
    await file.discard();
    throw thrown;
  }
}

/** Writes the file of a body that is in memory, for whoever needs a file. */
export async function writeOut(staged: Staged, sync: boolean): Promise<Staged> {
  const { inMemory, ...facts } = staged;
  if (inMemory !== true) return staged;
  const file = new StagedFile(staged.path, sync);
  try {
    return { ...facts, synced: await file.finish([staged.head], staged.sizeBytes) };
  } catch (thrown) {
    await file.discard();
    throw thrown;
  }
}

async function copy(source: ChunkSource, file: StagedFile, { sizeMaxBytes, small }: StageOptions): Promise<Staged> {
  /** Of what is more than a head. */
  let hash: Hash | undefined;
  const head: Buffer[] = [];
  let sizeBytes = 0;
  let gathered: Buffer[] = [];
  let gatheredBytes = 0;
  let writing: Promise<void> = Promise.resolve();
  try {
    for (let chunk = await source.next(); chunk !== undefined; chunk = await source.next()) {
      if (sizeBytes < HEAD_MAX_BYTES) head.push(chunk.subarray(0, HEAD_MAX_BYTES - sizeBytes));
      sizeBytes += chunk.length;
      if (sizeBytes > sizeMaxBytes) throw tooLarge(sizeMaxBytes);
      gathered.push(chunk);
      gatheredBytes += chunk.length;
      if (hash !== undefined) hash.update(chunk);
      else if (sizeBytes > HEAD_MAX_BYTES) hash = hashing(gathered);
      if (gatheredBytes < WRITE_BYTES) continue;
      await writing;
      writing = file.write(gathered, gatheredBytes);
      // A failure is thrown by the next `await writing`. Until then it must not be an unhandled rejection.
      writing.catch(() => undefined);
      gathered = [];
      gatheredBytes = 0;
    }
  } finally {
    // The caller closes the file next, so no write may be in progress.
    await writing.catch(() => undefined);
    await file.rest();
  }
  await writing;
  if (sizeBytes === 0) throw new Fault('empty', 'The upload has no bytes.');
  const facts = { path: file.path, sizeBytes, head: joined(head) };
  if (hash === undefined) {
    const sha256 = hashOf('sha256', facts.head) as Sha256;
    if (small === 'memory') return { ...facts, sha256, synced: false, inMemory: true };
    return { ...facts, sha256, synced: await file.finish([facts.head], sizeBytes) };
  }
  const synced = await file.finish(gathered, gatheredBytes);
  return { ...facts, sha256: hash.digest('hex') as Sha256, synced };
}

function hashing(pieces: readonly Buffer[]): Hash {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash;
}

function joined(pieces: readonly Buffer[]): Buffer {
  const [first] = pieces;
  return first !== undefined && pieces.length === 1 ? first : Buffer.concat(pieces);
}

/** A file that is written from front to back and synced meanwhile. The first write creates it. */
class StagedFile {
  readonly path: string;
  readonly #sync: boolean;
  #file: FileHandle | undefined;
  /** This object created the file, so it may remove it. */
  #made = false;
  #unsyncedBytes = 0;
  /** The sync in progress, if any. */
  #syncing: Promise<void> | undefined;
  #failure: { readonly thrown: unknown } | undefined;

  constructor(path: string, sync: boolean) {
    this.path = path;
    this.#sync = sync;
  }

  async write(buffers: Buffer[], bytes: number): Promise<void> {
    this.#file ??= await inFolder(dirname(this.path), () => open(this.path, NEW, FILE_MODE));
    this.#made = true;
    await writeAll(this.#file, buffers, bytes);
    this.#unsyncedBytes += bytes;
    if (!this.#sync || this.#unsyncedBytes < SYNC_BYTES || this.#syncing !== undefined) return;
    if (syncsAhead < SYNCS_AHEAD_MAX) this.#syncing = this.#syncAhead(this.#file);
  }

  async #syncAhead(file: FileHandle): Promise<void> {
    syncsAhead += 1;
    this.#unsyncedBytes = 0;
    try {
      await file.datasync();
    } catch (thrown) {
      // The kernel reports a failed write only once: a later sync would succeed.
      this.#failure = { thrown };
    } finally {
      syncsAhead -= 1;
      this.#syncing = undefined;
    }
  }

  /** Waits for the sync in progress, so that the file can be closed. Never rejects. */
  async rest(): Promise<void> {
    await this.#syncing;
  }

  /** Writes the last bytes and closes the file. Returns whether all bytes are synced; rejects if a sync failed. */
  async finish(buffers: Buffer[], bytes: number): Promise<boolean> {
    if (this.#file === undefined) {
      const descriptor = await inFolder(dirname(this.path), () => openNew(this.path, this.#sync));
      this.#made = true;
      await writeWhole(descriptor, joined(buffers));
      return this.#sync;
    }
    await this.write(buffers, bytes);
    await this.rest();
    if (this.#sync && this.#failure === undefined && this.#unsyncedBytes > 0) await this.#file.datasync();
    if (this.#failure !== undefined) throw this.#failure.thrown;
    await this.#file.close();
    return this.#sync;
  }

  /** Closes the file and removes it, if this object created it. */
  async discard(): Promise<void> {
    await this.#file?.close().catch(() => undefined);
    if (this.#made) await rm(this.path, { force: true });
  }
}

async function writeAll(file: FileHandle, buffers: Buffer[], bytes: number): Promise<void> {
  if (bytes === 0) return;
  const { bytesWritten } = await file.writev(buffers);
  if (bytesWritten === bytes) return;
  // A single write may write fewer bytes, which is not an error. If there is a cause, the next write fails with it.
  const rest = Buffer.concat(buffers).subarray(bytesWritten);
  for (let written = 0; written < rest.length; ) {
    written += (await file.write(rest, written)).bytesWritten;
  }
}
