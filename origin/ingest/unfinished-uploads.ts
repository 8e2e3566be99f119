/**
 * Uploads that come in parts, on disk: `<id>` holds the bytes so far, `<id>.json`
 * what is known of them. All records are in memory too; the files are what a
 * restart begins with.
 *
 * Promises: what was told to a client is on the disk: a record before its upload
 * is named to anyone, bytes before their offset is. The bytes of a part with a
 * checksum enter the upload only once they are verified, so no crash leaves
 * others in it. Leaves to others: who may, for how long, and one request at a
 * time for each upload.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { EpochMs } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import type { Checksum } from './checksum.js';
import { type ChunkSource, chunksOf } from './paced-body.js';
import { HEAD_MAX_BYTES, type Staged } from './stage.js';

export interface UnfinishedUpload {
  readonly id: string;
  readonly owner: string;
  /** Null until the sender says. */
  readonly sizeBytes: number | null;
  /** As the sender gave it. */
  readonly metadata: Readonly<Record<string, string | null>>;
  readonly expiresAt: EpochMs;
  /** The media that became of it; from then on there are no bytes here. */
  readonly mediaId: string | null;
}

export interface UnfinishedUploads {
  find(id: string): UnfinishedUpload | undefined;
  all(): readonly UnfinishedUpload[];
  /** Uploads that are still to be finished; `owner`: of this one alone. */
  unfinished(owner?: string): number;
  create(upload: UnfinishedUpload): Promise<void>;
  /** Puts a new record in the place of the one with its id. */
  change(upload: UnfinishedUpload): Promise<void>;
  offset(upload: UnfinishedUpload): Promise<number>;
  /**
   * Adds a part at the end, and resolves with the new offset once that is
   * durable. Where the sender breaks off, what came is kept; a part that is too
   * long or is not what its checksum says leaves nothing.
   */
  append(id: string, part: NewChunk): Promise<number>;
  /** A second name for the bytes, outside of here, for the pipeline to take. */
  stageAs(id: string, path: string): Promise<Staged>;
  /** The upload has become media: only the record is kept. */
  finish(upload: UnfinishedUpload, mediaId: string, keptUntil: EpochMs): Promise<UnfinishedUpload>;
  /** May be called twice. */
  drop(id: string): Promise<void>;
}

export interface NewChunk {
  readonly source: ChunkSource;
  /** Where the upload ends now. */
  readonly offset: number;
  readonly sizeMaxBytes: number;
  readonly checksum: Checksum | undefined;
}

/** 128 random bits. Nothing else reaches the file system as a name. */
export const UPLOAD_ID = /^[0-9a-f]{32}$/;

export async function openUnfinishedUploads(folder: string): Promise<UnfinishedUploads> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const held = await readRecords(folder);
  const pathOf = (id: string): string => join(folder, id);

  async function save(upload: UnfinishedUpload): Promise<void> {
    await writeRecord(folder, upload);
    held.set(upload.id, upload);
  }

  return {
    find: (id) => held.get(id),
    all: () => [...held.values()],
    unfinished(owner) {
      let count = 0;
      for (const upload of held.values()) {
        if (upload.mediaId === null && (owner === undefined || upload.owner === owner)) count += 1;
      }
      return count;
    },
    async create(upload) {
      const file = await open(pathOf(upload.id), 'wx', 0o600);
      await file.close();
      await save(upload);
    },
    change: save,
    async offset({ id, mediaId, sizeBytes }) {
      return mediaId === null ? (await stat(pathOf(id))).size : (sizeBytes ?? 0);
    },
    async append(id, { source, offset, sizeMaxBytes, checksum }) {
      if (checksum === undefined) return await write(source, pathOf(id), 'r+', offset, sizeMaxBytes);
      const aside = `${pathOf(id)}.part`;
      try {
        const hash = createHash(checksum.algorithm);
        await write(hashed(source, hash), aside, 'w', 0, sizeMaxBytes);
        if (!hash.digest().equals(checksum.digest)) {
          throw new Fault('checksum_mismatch', 'The part is not what Upload-Checksum says; nothing of it was kept.');
        }
        return await write(chunksOf(createReadStream(aside)), pathOf(id), 'r+', offset, sizeMaxBytes);
      } finally {
        await rm(aside, { force: true });
      }
    },
    async stageAs(id, path) {
      // A name of its own: whoever adopts a staged file may also remove it, and the upload must outlive a failure.
      await link(pathOf(id), path);
      return await hashFile(path);
    },
    async finish(upload, mediaId, keptUntil) {
      const { size } = await stat(pathOf(upload.id));
      const finished = { ...upload, sizeBytes: size, mediaId, expiresAt: keptUntil };
      await save(finished);
      await rm(pathOf(upload.id), { force: true });
      return finished;
    },
    async drop(id) {
      held.delete(id);
      // The record first: bytes without one are cleared away at the next start.
      await rm(recordPath(folder, id), { force: true });
      await rm(pathOf(id), { force: true });
    },
  };
}

function hashed(source: ChunkSource, hash: Hash): ChunkSource {
  return {
    async next() {
      const chunk = await source.next();
      if (chunk !== undefined) hash.update(chunk);
      return chunk;
    },
  };
}

export function noSuchUpload(): Fault {
  return new Fault('not_found', 'There is no such upload.');
}

export const BEYOND_THE_END = 'The part goes beyond the end of the upload.';

/** Writes to the end of the source, and hands back where that is. Synced however it ends. */
async function write(
  source: ChunkSource,
  path: string,
  flags: 'r+' | 'w',
  offset: number,
  sizeMaxBytes: number,
): Promise<number> {
  const file = await open(path, flags, 0o600);
  try {
    let at = offset;
    for (let chunk = await source.next(); chunk !== undefined; chunk = await source.next()) {
      if (at + chunk.length - offset > sizeMaxBytes) {
        await file.truncate(offset);
        throw new Fault('too_large', BEYOND_THE_END);
      }
      await writeAll(file, chunk, at);
      at += chunk.length;
    }
    return at;
  } finally {
    try {
      await file.datasync();
    } finally {
      await file.close();
    }
  }
}

/** A short write is allowed to happen and is no error. */
async function writeAll(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let written = 0; written < bytes.length; ) {
    written += (await file.write(bytes, written, bytes.length - written, at + written)).bytesWritten;
  }
}

async function hashFile(path: string): Promise<Staged> {
  const hash = createHash('sha256');
  const head: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: HEAD_MAX_BYTES }) as AsyncIterable<Buffer>) {
    if (sizeBytes < HEAD_MAX_BYTES) head.push(chunk.subarray(0, HEAD_MAX_BYTES - sizeBytes));
    sizeBytes += chunk.length;
    hash.update(chunk);
  }
  if (sizeBytes === 0) throw new Fault('empty', 'The upload has no bytes.');
  return { path, sizeBytes, sha256: hash.digest('hex') as Sha256, head: Buffer.concat(head), synced: false };
}

const RECORD = '.json';

function recordPath(folder: string, id: string): string {
  return join(folder, `${id}${RECORD}`);
}

/** Whole or not at all, and durable with the folder that names it. */
async function writeRecord(folder: string, upload: UnfinishedUpload): Promise<void> {
  const path = recordPath(folder, upload.id);
  const aside = `${path}.new`;
  const file = await open(aside, 'w', 0o600);
  try {
    await file.writeFile(JSON.stringify(upload));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(aside, path);
  const directory = await open(folder, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** What an earlier run left; whatever belongs to no record is removed. */
async function readRecords(folder: string): Promise<Map<string, UnfinishedUpload>> {
  const names = await readdir(folder);
  const held = new Map<string, UnfinishedUpload>();
  for (const name of names.filter((each) => each.endsWith(RECORD))) {
    const upload = parseRecord(await readFile(join(folder, name), 'utf8'));
    if (upload === undefined || `${upload.id}${RECORD}` !== name) continue;
    // Made, but for its bytes: nobody has been told of it.
    if (upload.mediaId === null && !names.includes(upload.id)) continue;
    held.set(upload.id, upload);
  }
  const kept = (name: string): boolean => {
    const upload = held.get(name.endsWith(RECORD) ? name.slice(0, -RECORD.length) : name);
    return upload !== undefined && (upload.mediaId === null || name.endsWith(RECORD));
  };
  for (const name of names) {
    if (!kept(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
  return held;
}

function parseRecord(text: string): UnfinishedUpload | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is UnfinishedUpload {
  if (typeof value !== 'object' || value === null) return false;
  const { id, owner, sizeBytes, metadata, expiresAt, mediaId } = value as Partial<
    Record<keyof UnfinishedUpload, unknown>
  >;
  return (
    typeof id === 'string' &&
    UPLOAD_ID.test(id) &&
    typeof owner === 'string' &&
    (sizeBytes === null || Number.isSafeInteger(sizeBytes)) &&
    typeof metadata === 'object' &&
    metadata !== null &&
    Object.values(metadata).every((each) => each === null || typeof each === 'string') &&
    Number.isSafeInteger(expiresAt) &&
    (mediaId === null || typeof mediaId === 'string')
  );
}
