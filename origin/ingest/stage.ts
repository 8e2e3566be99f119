/**
 * Takes bytes into a file of the stage, counted and hashed as they flow. Either
 * the file is whole or it is gone. Where the blob store keeps files of this
 * machine, the bytes are synced as they come: the disk works while the network
 * does, and adopting the file needs no second opening. What fits into one write
 * touches the disk once it is whole, and is synced by that write.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { closeBare, openBare, writeBare } from '../blobs/bare-files.js';
import { tooLarge } from './admit.js';
import type { ChunkSource } from './paced-body.js';

export interface Staged {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: Sha256;
  /** The first bytes, all of them where there are fewer than HEAD_MAX_BYTES. */
  readonly head: Buffer;
  /** The bytes are on the disk; the file's name need not be. */
  readonly synced: boolean;
}

export interface StageOptions {
  readonly sizeMaxBytes: number;
  /** Whether the bytes are to be on the disk when this is done. */
  readonly sync: boolean;
}

/** Enough for every signature, and for the header of nearly every picture. */
export const HEAD_MAX_BYTES = 256 * 1_024;
/** One write gathers so much: fewer, larger calls, while the next bytes are hashed. */
const WRITE_BYTES = 512 * 1_024;
/** Written so much, the disk is told to begin: often enough to keep it busy, seldom enough for long, even writes. */
const SYNC_BYTES = 2 * 1_024 * 1_024;
/**
 * Syncs ahead of the end at once. Node gives all files of a process four threads: these leave two for the writing.
 * Where many uploads run, the disk is busy anyhow.
 */
const SYNCS_AHEAD_MAX = 2;
let syncsAhead = 0;

export async function stage(source: ChunkSource, path: string, options: StageOptions): Promise<Staged> {
  const file = new StagedFile(path, options.sync);
  try {
    return await copy(source, file, options.sizeMaxBytes);
  } catch (thrown) {
    await file.discard();
    throw thrown;
  }
}

async function copy(source: ChunkSource, file: StagedFile, sizeMaxBytes: number): Promise<Staged> {
  const hash: Hash = createHash('sha256');
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
      hash.update(chunk);
      gathered.push(chunk);
      gatheredBytes += chunk.length;
      if (gatheredBytes < WRITE_BYTES) continue;
      await writing;
      writing = file.write(gathered, gatheredBytes);
      // Its failure is met at the next await; until then it must not count as unhandled.
      writing.catch(() => undefined);
      gathered = [];
      gatheredBytes = 0;
    }
  } finally {
    // The file is closed after this, so nothing may be writing to it.
    await writing.catch(() => undefined);
    await file.rest();
  }
  await writing;
  if (sizeBytes === 0) throw new Fault('empty', 'The upload has no bytes.');
  const synced = await file.finish(gathered, gatheredBytes);
  return { path: file.path, sizeBytes, sha256: hash.digest('hex') as Sha256, head: Buffer.concat(head), synced };
}

/** A new file, which nobody has made before. */
const NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
/** Each write ends when its bytes are on the disk (POSIX: synchronized I/O data integrity completion). */
const NEW_SYNCED = NEW | constants.O_DSYNC;
const FILE_MODE = 0o600;

/** A file that is written from front to back, and synced behind the writing. It is made by the first write. */
class StagedFile {
  readonly path: string;
  readonly #sync: boolean;
  #file: FileHandle | undefined;
  /** It is ours to remove. */
  #made = false;
  #unsyncedBytes = 0;
  /** The sync under way, if one is. */
  #syncing: Promise<void> | undefined;
  #failure: { readonly thrown: unknown } | undefined;

  constructor(path: string, sync: boolean) {
    this.path = path;
    this.#sync = sync;
  }

  async write(buffers: Buffer[], bytes: number): Promise<void> {
    this.#file ??= await open(this.path, NEW, FILE_MODE);
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
      // The kernel tells of a failed write once: whoever asks next would hear that all is well.
      this.#failure = { thrown };
    } finally {
      syncsAhead -= 1;
      this.#syncing = undefined;
    }
  }

  /** Waits until nothing of this is under way, so that the file may be closed. Never rejects. */
  async rest(): Promise<void> {
    await this.#syncing;
  }

  /** Writes what is left. Whether all bytes are on the disk; rejects when they were to be and are not. */
  async finish(buffers: Buffer[], bytes: number): Promise<boolean> {
    if (this.#file === undefined) {
      const descriptor = await openBare(this.path, this.#sync ? NEW_SYNCED : NEW, FILE_MODE);
      this.#made = true;
      await writeWhole(descriptor, Buffer.concat(buffers));
      return this.#sync;
    }
    await this.write(buffers, bytes);
    await this.rest();
    if (this.#sync && this.#failure === undefined && this.#unsyncedBytes > 0) await this.#file.datasync();
    if (this.#failure !== undefined) throw this.#failure.thrown;
    await this.#file.close();
    return this.#sync;
  }

  /** Leaves nothing of ours behind, however far this came. */
  async discard(): Promise<void> {
    await this.#file?.close().catch(() => undefined);
    if (this.#made) await rm(this.path, { force: true });
  }
}

/** All of a small file, which is closed then. A write may be a short one; an error says why. */
async function writeWhole(descriptor: number, bytes: Buffer): Promise<void> {
  try {
    for (let written = 0; written < bytes.length; ) {
      written += (await writeBare(descriptor, bytes, written)).bytesWritten;
    }
  } finally {
    await closeBare(descriptor);
  }
}

async function writeAll(file: FileHandle, buffers: Buffer[], bytes: number): Promise<void> {
  if (bytes === 0) return;
  const { bytesWritten } = await file.writev(buffers);
  if (bytesWritten === bytes) return;
  // A short write is allowed to happen and is no error; what is left is tried once more, and then says why.
  const rest = Buffer.concat(buffers).subarray(bytesWritten);
  for (let written = 0; written < rest.length; ) {
    written += (await file.write(rest, written)).bytesWritten;
  }
}
