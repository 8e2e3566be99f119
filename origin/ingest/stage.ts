/**
 * Takes bytes into a file of the stage, counted and hashed as they flow. Either
 * the file is whole or it is gone; making it durable is the blob store's part.
 */
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { tooLarge } from './admit.js';
import type { ChunkSource } from './pace.js';

export interface Staged {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: Sha256;
  /** The first bytes, all of them where there are fewer than HEAD_MAX_BYTES. */
  readonly head: Buffer;
}

/** Enough for every signature, and for the header of nearly every picture. */
export const HEAD_MAX_BYTES = 256 * 1_024;
/** One write gathers so much: fewer, larger calls, while the next bytes are hashed. */
const WRITE_BYTES = 256 * 1_024;

export async function stage(source: ChunkSource, path: string, sizeMaxBytes: number): Promise<Staged> {
  const file = await open(path, 'wx', 0o600);
  try {
    const staged = await copy(source, file, path, sizeMaxBytes);
    await file.close();
    return staged;
  } catch (thrown) {
    await file.close().catch(() => undefined);
    await rm(path, { force: true });
    throw thrown;
  }
}

async function copy(source: ChunkSource, file: FileHandle, path: string, sizeMaxBytes: number): Promise<Staged> {
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
      writing = writeAll(file, gathered, gatheredBytes);
      // Its failure is met at the next await; until then it must not count as unhandled.
      writing.catch(() => undefined);
      gathered = [];
      gatheredBytes = 0;
    }
  } finally {
    // The file is closed after this, so nothing may be writing to it.
    await writing.catch(() => undefined);
  }
  await writing;
  await writeAll(file, gathered, gatheredBytes);
  if (sizeBytes === 0) throw new Fault('empty', 'The upload has no bytes.');
  return { path, sizeBytes, sha256: hash.digest('hex') as Sha256, head: Buffer.concat(head) };
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
