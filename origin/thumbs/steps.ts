/**
 * The steps of a job that touch files and the blob store: fetching the original
 * into the job's folder, reading its head, adopting what a child made.
 */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { lstat, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { invariant } from '../../src/errors.js';
import { parseSha256, type Sha256 } from '../../src/ids.js';
import { type Dimensions, HEAD_BYTES, readDimensions } from '../../src/media/dimensions.js';
import { type BlobStore, mediaKey, thumbKey } from '../blobs/blob-store.js';
import type { BlobRecord, ThumbMade } from '../meta/media.js';
import type { RenderedThumb } from './protocol.js';

/** Undefined where the store has no such bytes. */
export async function fetchOriginal(
  blobs: BlobStore,
  blob: BlobRecord,
  folder: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const found = await blobs.read(mediaKey(blob.sha256), undefined, signal);
  if (found.kind !== 'found') return undefined;
  const path = join(folder, 'original');
  await pipeline(found.body, createWriteStream(path, { flags: 'wx' }), { signal });
  return path;
}

/** The child's word is taken for the picture only: size and hash are read here, and of a plain file. */
export async function adoptThumb(
  blobs: BlobStore,
  source: Sha256,
  { file, ...thumb }: RenderedThumb,
  folder: string,
  signal: AbortSignal,
): Promise<ThumbMade> {
  const path = join(folder, file);
  invariant((await lstat(path)).isFile(), 'a child writes plain files');
  const bytes = await readFile(path);
  const sha256 = parseSha256(createHash('sha256').update(bytes).digest('hex'));
  invariant(sha256 !== undefined, 'a digest is a SHA-256');
  const sizeBytes = bytes.length;
  await blobs.adopt(path, thumbKey(source, sha256), { sizeBytes, sha256 }, signal);
  return { ...thumb, sha256, sizeBytes };
}

export async function readHead(path: string): Promise<Dimensions | undefined> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return readDimensions(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}

/** Of several pictures in one file, the primary one is the one of the size that the header gives. */
export async function findSized(paths: readonly string[], header: Dimensions): Promise<string | undefined> {
  for (const path of paths) {
    const found = await readHead(path);
    if (found?.width === header.width && found.height === header.height) return path;
  }
  return undefined;
}
