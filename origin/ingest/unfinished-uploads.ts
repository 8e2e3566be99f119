/**
 * Resumable uploads on disk, until they are finished: the file `<id>` has the bytes
 * so far, `<id>.json` the record. All records are also in memory; the files serve a
 * restart. A finished upload keeps its record for a while, without bytes, so that
 * a client can still learn which media it became.
 *
 * Promises: what a client was told is on the disk: the record before the id of the
 * upload, the bytes before their offset. A body with a checksum is appended only
 * after it was verified, so no crash leaves unverified bytes. Leaves to others who
 * may use an upload, for how long, and that one request at a time does.
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
  /** Null while the client has not given the length. */
  readonly sizeBytes: number | null;
  /** As the client gave it. */
  readonly metadata: Readonly<Record<string, string | null>>;
  readonly expiresAt: EpochMs;
  /** The media that it became, once it is finished; from then on there is no file of bytes. */
  readonly mediaId: string | null;
}

export interface UnfinishedUploads {
  find(id: string): UnfinishedUpload | undefined;
  all(): readonly UnfinishedUpload[];
  /** How many uploads are not finished yet, of all owners or of one. */
  unfinished(owner?: string): number;
  create(upload: UnfinishedUpload): Promise<void>;
  /** Replaces the record with the same id. */
  change(upload: UnfinishedUpload): Promise<void>;
  offset(upload: UnfinishedUpload): Promise<number>;
  /**
   * Appends a body and resolves with the new offset once it is durable. If the
   * sender breaks off, the bytes that arrived are kept. A body that is too long, or
   * does not match its checksum, is dropped as a whole.
   */
  append(id: string, body: AppendBody): Promise<number>;
  /** Links the bytes to a second path, from which the ingest pipeline takes them. */
  stageAs(id: string, path: string): Promise<Staged>;
  /** Records that the upload has become media, and removes its bytes. */
  finish(upload: UnfinishedUpload, mediaId: string, keptUntil: EpochMs): Promise<UnfinishedUpload>;
  /** May be called twice. */
  drop(id: string): Promise<void>;
}

export interface AppendBody {
  readonly source: ChunkSource;
  /** The current end of the upload. */
  readonly offset: number;
  readonly sizeMaxBytes: number;
  readonly checksum: Checksum | undefined;
}

/** 128 random bits. Only such ids are used as file names. */
export const UPLOAD_ID = /^[0-9a-f]{32}$/;

export async function openUnfinishedUploads(folder: string): Promise<UnfinishedUploads> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const uploads = await readRecords(folder);
  const pathOf = (id: string): string => join(folder, id);

  async function save(upload: UnfinishedUpload): Promise<void> {
    await writeRecord(folder, upload);
    uploads.set(upload.id, upload);
  }

  return {
    find: (id) => uploads.get(id),
    all: () => [...uploads.values()],
    unfinished(owner) {
      let count = 0;
      for (const upload of uploads.values()) {
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
          throw new Fault('checksum_mismatch', 'The body does not match Upload-Checksum; nothing of it was stored.');
        }
        return await write(chunksOf(createReadStream(aside)), pathOf(id), 'r+', offset, sizeMaxBytes);
      } finally {
        await rm(aside, { force: true });
      }
    },
    async stageAs(id, path) {
      // The pipeline may remove a staged file. The upload must remain if it fails.
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
      uploads.delete(id);
      // The record goes first: bytes without a record are removed at the next start.
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

export const BEYOND_THE_END = 'The body goes beyond the end of the upload.';

/** Writes the whole source from `offset` on, and returns the offset after it. The file is synced even on failure. */
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

/** Writes all bytes. A single write may write fewer, which is not an error. */
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

/** Writes a record whole or not at all, and makes it durable together with its name in the folder. */
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

/** Reads the records of an earlier run and removes all files that belong to none. */
async function readRecords(folder: string): Promise<Map<string, UnfinishedUpload>> {
  const names = await readdir(folder);
  const uploads = new Map<string, UnfinishedUpload>();
  for (const name of names.filter((each) => each.endsWith(RECORD))) {
    const upload = parseRecord(await readFile(join(folder, name), 'utf8'));
    if (upload === undefined || `${upload.id}${RECORD}` !== name) continue;
    // The file of bytes was never created, so no client knows the upload.
    if (upload.mediaId === null && !names.includes(upload.id)) continue;
    uploads.set(upload.id, upload);
  }
  const kept = (name: string): boolean => {
    const upload = uploads.get(name.endsWith(RECORD) ? name.slice(0, -RECORD.length) : name);
    return upload !== undefined && (upload.mediaId === null || name.endsWith(RECORD));
  };
  for (const name of names) {
    if (!kept(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
  return uploads;
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
