/**
 * The steps of a job that use files and the blob store: fetching the original
 * into the folder of the job, preparing it for a converter, and storing what a child made.
 */
import { createHash } from 'node:crypto';
import { constants, createWriteStream } from 'node:fs';
import { chmod, copyFile, open } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { errorCode, invariant } from '../../src/errors.js';
import { parseSha256, type Sha256 } from '../../src/ids.js';
import { HEAD_BYTES } from '../../src/media/dimensions.js';
import { type HeifPicture, readHeif, withPrimaryAlone } from '../../src/media/heif.js';
import { abandon } from '../blobs/abandon.js';
import { type BlobStore, mediaKey, type Place, thumbKey } from '../blobs/blob-store.js';
import type { BlobRecord, ThumbMade } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
import type { RenderedThumb } from './render/protocol.js';

/** The original as a file: the store's own file if it has files, otherwise a copy in the folder. Undefined: there is none. */
export async function fetchOriginal(
  blobs: BlobStore,
  blob: BlobRecord,
  folder: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const key = mediaKey(blob);
  const own = blobs.fileOf(key);
  if (own !== undefined) return (await blobs.stat(key, signal)) === undefined ? undefined : own;
  const found = await blobs.read(key, undefined, signal);
  if (found.kind !== 'found') return undefined;
  const path = join(folder, 'original');
  await pipeline(found.body, createWriteStream(path, { flags: 'wx' }), { signal });
  return path;
}

/** What a run made, and where it is stored. */
export interface ThumbRun {
  readonly source: Sha256;
  readonly place: Place;
  /** Where a child wrote the files. */
  readonly folder: string;
}

export interface StoreThumbsDeps {
  readonly meta: Pick<MetaStore, 'intend' | 'withdraw'>;
  readonly blobs: BlobStore;
}

/** Stores all thumbnails of a run, or none. The caller records them, or abandons their keys. */
export async function storeThumbs(
  { meta, blobs }: StoreThumbsDeps,
  run: ThumbRun,
  rendered: readonly RenderedThumb[],
  signal: AbortSignal,
): Promise<readonly ThumbMade[]> {
  const thumbs = await Promise.all(
    rendered.map(async (thumb) => {
      const { bytes: _bytes, ...made } = await readThumb(thumb, run);
      return { made, file: join(run.folder, thumb.file), key: thumbKey(run.source, made) };
    }),
  );
  const keys = thumbs.map(({ key }) => key);
  await meta.intend(keys);
  const stored = await Promise.allSettled(thumbs.map(({ made, file, key }) => blobs.adopt(file, key, made, signal)));
  const failed = stored.find((end) => end.status === 'rejected');
  if (failed !== undefined) {
    await abandon({ meta, blobs }, keys);
    throw failed.reason;
  }
  return thumbs.map(({ made }) => made);
}

/** A thumbnail that is shown before its job ends. It is stored under the same hash when the job ends. */
export interface EarlyThumb extends ThumbMade {
  readonly bytes: Buffer;
}

export async function readThumbs(thumbs: readonly RenderedThumb[], run: ThumbRun): Promise<readonly EarlyThumb[]> {
  return Promise.all(thumbs.map((thumb) => readThumb(thumb, run)));
}

/** A child is not trusted with size and hash: they are computed here, from a plain file. */
async function readThumb({ file, ...thumb }: RenderedThumb, { folder, place }: ThumbRun): Promise<EarlyThumb> {
  const bytes = await readPlainFile(join(folder, file));
  const sha256 = parseSha256(createHash('sha256').update(bytes).digest('hex'));
  invariant(sha256 !== undefined, 'a digest is a SHA-256');
  return { ...thumb, sha256, place, sizeBytes: bytes.length, bytes };
}

/** A link, nothing, and a socket. */
const NOT_PLAIN: ReadonlySet<string> = new Set(['ELOOP', 'ENOENT', 'ENXIO']);

/** Refuses a link, which would lead elsewhere, and a pipe, which could block for ever. */
async function readPlainFile(path: string): Promise<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (thrown: unknown) => {
      // It is the child's doing, and no failure of the storage, after which the picture would be tried again and again.
      if (NOT_PLAIN.has(errorCode(thrown) ?? '')) throw new Error('a child names no plain file', { cause: thrown });
      throw thrown;
    },
  );
  try {
    const found = await file.stat();
    invariant(found.isFile(), 'a child writes plain files');
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(found.size), 0, found.size, 0);
    invariant(bytesRead === found.size, 'a child has finished the files that it names');
    return buffer;
  } finally {
    await file.close();
  }
}

/** Writes the original into the folder with one picture to convert, the primary one, and returns what its header says. */
export async function isolatePicture(original: string, copy: string): Promise<HeifPicture | undefined> {
  const head = await readHead(original);
  const picture = readHeif(head);
  if (picture === undefined) return undefined;
  await copyFile(original, copy, constants.COPYFILE_FICLONE);
  await chmod(copy, 0o600);
  const file = await open(copy, 'r+');
  try {
    await file.write(withPrimaryAlone(head), 0, head.length, 0);
  } finally {
    await file.close();
  }
  return picture;
}

async function readHead(path: string): Promise<Buffer> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
