/**
 * Removes metadata from files of pictures, films and sound without changing a pixel.
 * The orientation and the colour profile stay.
 *
 * The location can be in EXIF, XMP, IPTC, maker notes, comments, tags, tracks of
 * metadata and in data that nothing refers to, so what is kept is listed and all else
 * is removed. Formats without offsets are written anew, and read into memory for
 * that. In the others, metadata is overwritten (overwrites.ts). A file in which metadata might
 * remain is reported as unsupported or broken.
 */
import { constants, copyFile, type FileHandle, open, readFile, rm } from 'node:fs/promises';
import { type ReadableFile, type Reading, readFromFile } from '../../../src/media/reading.js';
import { keepGif } from './gif.js';
import { readIso } from './iso.js';
import { keepJpeg } from './jpeg.js';
import { readMatroska } from './matroska.js';
import { BROKEN, type InPlace, type Overwrite } from './overwrites.js';
import { keepPng } from './png.js';
import { keepWebp } from './webp.js';

export type StripOutcome =
  /** A new file was written to the target path and synced. */
  | { readonly kind: 'stripped' }
  /** The file has no metadata to remove; nothing was written. */
  | { readonly kind: 'clean' }
  /** Metadata might remain: the type, or a part of the file, is not known here. Nothing was written. */
  | { readonly kind: 'unsupported' }
  /** The file is malformed; nothing was written. */
  | { readonly kind: 'broken' }
  /** The file must be in memory and is larger than the limit; nothing was written. */
  | { readonly kind: 'too_large' };

/** The pieces of a file that are kept, in order; undefined if the file is malformed. */
type Keeper = (bytes: Buffer) => readonly Buffer[] | undefined;

const KEEPERS: Readonly<Record<string, Keeper | undefined>> = {
  'image/jpeg': keepJpeg,
  'image/png': keepPng,
  'image/apng': keepPng,
  'image/gif': keepGif,
  'image/webp': keepWebp,
};

type InPlaceReader = (fileBytes: number, memoryMaxBytes: number) => Reading<InPlace>;

const IN_PLACE: Readonly<Record<string, InPlaceReader | undefined>> = {
  'image/avif': readIso,
  'image/heic': readIso,
  'image/heif': readIso,
  'image/heic-sequence': readIso,
  'image/heif-sequence': readIso,
  'video/mp4': readIso,
  'video/quicktime': readIso,
  'video/3gpp': readIso,
  'video/3gpp2': readIso,
  'audio/mp4': readIso,
  'audio/3gpp': readIso,
  'audio/3gpp2': readIso,
  'video/webm': readMatroska,
  'video/matroska': readMatroska,
  'audio/webm': readMatroska,
  'audio/matroska': readMatroska,
};

/** The types whose metadata can be removed. */
export const STRIPPED_TYPES: readonly string[] = [...Object.keys(KEEPERS), ...Object.keys(IN_PLACE)];

/** Most parts of a file that are looked at, such as the blocks of a live recording. */
const SPANS_MAX = 1_000_000;
/** Bytes are compared and written in chunks of this size. */
const CHUNK_BYTES = 64 * 1_024;

/**
 * Reads `source`. If there is metadata to remove, writes the result to `target`, which must not exist. At most
 * `memoryMaxBytes` of the file are in memory.
 */
export async function stripMetadata(
  source: ReadableFile,
  target: string,
  mime: string,
  memoryMaxBytes: number,
  signal?: AbortSignal,
): Promise<StripOutcome> {
  const keep = KEEPERS[mime];
  if (keep !== undefined) return rewrite(source, target, keep, memoryMaxBytes, signal);
  const reader = IN_PLACE[mime];
  if (reader === undefined) return { kind: 'unsupported' };
  const limits = { spansMax: SPANS_MAX, spanMaxBytes: memoryMaxBytes };
  const change = (await readFromFile(reader(source.sizeBytes, memoryMaxBytes), source, limits, signal)) ?? BROKEN;
  if (change.kind !== 'overwritten') return change;
  return overwrite(source.path, target, change.overwrites, signal);
}

async function rewrite(
  { path, sizeBytes }: ReadableFile,
  target: string,
  keep: Keeper,
  memoryMaxBytes: number,
  signal: AbortSignal | undefined,
): Promise<StripOutcome> {
  if (sizeBytes > memoryMaxBytes) return { kind: 'too_large' };
  const bytes = await readFile(path, { ...(signal !== undefined && { signal }) });
  const kept = keep(bytes);
  if (kept === undefined) return { kind: 'broken' };
  const keptBytes = kept.reduce((sum, piece) => sum + piece.length, 0);
  if (keptBytes === bytes.length && Buffer.concat(kept).equals(bytes)) return { kind: 'clean' };
  await writeNew(
    target,
    async () => open(target, 'wx'),
    (file) => file.writev(kept),
  );
  return { kind: 'stripped' };
}

async function overwrite(
  source: string,
  target: string,
  overwrites: readonly Overwrite[],
  signal: AbortSignal | undefined,
): Promise<StripOutcome> {
  const changes = await changesOf(source, overwrites, signal);
  if (changes.length === 0) return { kind: 'clean' };
  const copy = async (): Promise<FileHandle> => {
    await copyFile(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    return open(target, 'r+');
  };
  await writeNew(target, copy, async (file) => {
    for (const { at, bytes } of changes) {
      signal?.throwIfAborted();
      await file.write(bytes, 0, bytes.length, at);
    }
  });
  return { kind: 'stripped' };
}

/** The overwrites that change a byte, in chunks. Zeros share one buffer. */
async function changesOf(
  source: string,
  overwrites: readonly Overwrite[],
  signal: AbortSignal | undefined,
): Promise<readonly { readonly at: number; readonly bytes: Buffer }[]> {
  const zeros = Buffer.alloc(CHUNK_BYTES);
  const present = Buffer.alloc(CHUNK_BYTES);
  const changes: { readonly at: number; readonly bytes: Buffer }[] = [];
  const file = await open(source, 'r');
  try {
    for (const { at, bytes, length } of overwrites) {
      for (let done = 0; done < length; done += CHUNK_BYTES) {
        signal?.throwIfAborted();
        const wanted = Math.min(CHUNK_BYTES, length - done);
        const { bytesRead } = await file.read(present, 0, wanted, at + done);
        const then = (bytes?.subarray(done) ?? zeros).subarray(0, bytesRead);
        if (!present.subarray(0, bytesRead).equals(then)) changes.push({ at: at + done, bytes: then });
      }
    }
  } finally {
    await file.close();
  }
  return changes;
}

/** Opens, writes and syncs a new file. On failure it is removed. */
async function writeNew(
  target: string,
  make: () => Promise<FileHandle>,
  write: (file: FileHandle) => Promise<unknown>,
): Promise<void> {
  let file: FileHandle | undefined;
  try {
    file = await make();
    await write(file);
    await file.sync();
  } catch (thrown) {
    await rm(target, { force: true });
    throw thrown;
  } finally {
    await file?.close();
  }
}
