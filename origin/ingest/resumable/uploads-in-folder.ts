/**
 * Unfinished uploads in a folder of this machine: the file `<id>` has the bytes
 * so far, `<id>.end` up to where they are certain, `<id>.json` the record. All records
 * are also in memory; the files serve a restart. A finished upload keeps its record for a while, without bytes, so that
 * a client can still learn which media it became.
 *
 * Promises: what a client was told is on the disk: the record before the id of the
 * upload, the bytes before their offset, a removal before its confirmation. A body
 * with a checksum is appended only after it was verified, so no crash leaves
 * unverified bytes. What a process that died has left behind is removed at the next
 * start.
 */

import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, link, open, readdir, readFile, rename, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode, Fault } from '../../../src/errors.js';
import type { Sha256 } from '../../../src/ids.js';
import { openPrivateFolder } from '../../../src/private-folder.js';
import { inFolder, syncPath } from '../../blobs/files.js';
import type { ChunkSource } from '../paced-body.js';
import { HEAD_MAX_BYTES, type Staged, stage } from '../stage.js';
import { checked } from './checksum.js';
import { readMark, writeMark } from './end-mark.js';
import type { AppendBody, UnfinishedUploads } from './unfinished-uploads.js';
import { readRecord, type UnfinishedUpload, writeRecord } from './upload-record.js';

export async function openUploadsInFolder(folder: string): Promise<UnfinishedUploads> {
  await openPrivateFolder(folder);
  const uploads = await readRecords(folder);
  const pathOf = (id: string): string => join(folder, id);

  async function save(upload: UnfinishedUpload): Promise<void> {
    await saveRecord(folder, upload);
    uploads.set(upload.id, upload);
  }

  /** Of all owners, or of one. */
  function unfinished(owner?: string): number {
    let count = 0;
    for (const upload of uploads.values()) {
      if (upload.mediaId === null && (owner === undefined || upload.owner === owner)) count += 1;
    }
    return count;
  }

  return {
    find: async (id) => uploads.get(id),
    async expired(now) {
      return [...uploads.values()].filter(({ expiresAt }) => expiresAt <= now);
    },
    unfinished,
    async create(upload, { unfinishedMax, unfinishedMaxPerSubject }) {
      if (uploads.has(upload.id)) return 'exists';
      if (unfinished(upload.owner) >= unfinishedMaxPerSubject) return 'full_for_owner';
      if (unfinished() >= unfinishedMax) return 'full';
      // Nothing was waited for since it was counted.
      uploads.set(upload.id, upload);
      const file = await inFolder(folder, () => open(pathOf(upload.id), 'wx', 0o600));
      await file.close();
      await writeMark(markPath(folder, upload.id), 0);
      await saveRecord(folder, upload);
      return 'created';
    },
    change: save,
    async offset({ id, mediaId, sizeBytes }) {
      if (mediaId !== null) return sizeBytes ?? 0;
      try {
        return (await stat(pathOf(id))).size;
      } catch (thrown) {
        if (errorCode(thrown) !== 'ENOENT') throw thrown;
        // Somebody removed its bytes. They cannot be completed, so the client has to begin again.
        uploads.delete(id);
        throw new Fault('not_found', 'There is no such upload.', { cause: thrown });
      }
    },
    async append(id, body) {
      const { source, checksum } = body;
      const mark = (offset: number): Promise<void> => writeMark(markPath(folder, id), offset);
      if (checksum === undefined) return await write(pathOf(id), 'r+', body, source, body.offset, mark);
      const aside = `${pathOf(id)}.part`;
      try {
        await write(aside, 'w', body, checked(source, checksum), 0);
        return await fromFiles([aside], undefined, (bytes) => write(pathOf(id), 'r+', body, bytes, body.offset, mark));
      } finally {
        await rm(aside, { force: true });
      }
    },
    async stage(ids, options) {
      const path = join(folder, `${randomBytes(16).toString('hex')}.stage`);
      const [only, ...more] = ids;
      try {
        if (only === undefined || more.length > 0) {
          return await fromFiles(ids.map(pathOf), options.signal, (bytes) => stage(bytes, path, options));
        }
        // The pipeline may remove a staged file. The upload must remain if it fails.
        await link(pathOf(only), path);
        return await hashFile(path);
      } catch (thrown) {
        await rm(path, { force: true });
        throw thrown;
      }
    },
    async finish(finished) {
      for (const upload of finished) {
        await save(upload);
        await rm(pathOf(upload.id), { force: true });
        await rm(markPath(folder, upload.id), { force: true });
      }
    },
    async drop(id) {
      const known = uploads.delete(id);
      // The record goes first: bytes without a record are removed at the next start.
      await rm(recordPath(folder, id), { force: true });
      await rm(pathOf(id), { force: true });
      await rm(markPath(folder, id), { force: true });
      await inFolder(folder, () => syncPath(folder));
      return known;
    },
  };
}

/** Gives `use` the bytes of several files, one after another. The open file is closed however `use` ends. */
async function fromFiles<T>(
  paths: readonly string[],
  signal: AbortSignal | undefined,
  use: (source: ChunkSource) => Promise<T>,
): Promise<T> {
  const chunks = bytesOf(paths, signal);
  try {
    return await use({ next: async () => (await chunks.next()).value ?? undefined });
  } finally {
    await chunks.return(undefined);
  }
}

async function* bytesOf(paths: readonly string[], signal: AbortSignal | undefined): AsyncGenerator<Buffer, undefined> {
  for (const path of paths) {
    for await (const chunk of createReadStream(path, { highWaterMark: HEAD_MAX_BYTES }) as AsyncIterable<Buffer>) {
      signal?.throwIfAborted();
      yield chunk;
    }
  }
  return undefined;
}

/** After so many bytes of a long body they are synced and marked: a process that dies loses no more. */
const SYNC_BYTES = 8 * 1_024 * 1_024;

/**
 * Writes the whole source from `start` on, and returns the offset after it. The file is synced even on failure. `mark`
 * is told up to where it is.
 */
async function write(
  path: string,
  flags: 'r+' | 'w',
  { sizeMaxBytes, beyond }: Pick<AppendBody, 'sizeMaxBytes' | 'beyond'>,
  source: ChunkSource,
  start: number,
  mark: (offset: number) => Promise<void> = async () => undefined,
): Promise<number> {
  const file = await open(path, flags, 0o600);
  let at = start;
  let syncedAt = start;
  async function sync(): Promise<void> {
    await file.datasync();
    await mark(at);
    syncedAt = at;
  }
  try {
    for (let chunk = await source.next(); chunk !== undefined; chunk = await source.next()) {
      if (at + chunk.length - start > sizeMaxBytes) {
        await file.truncate(start);
        at = start;
        throw beyond();
      }
      await writeAll(file, chunk, at);
      at += chunk.length;
      if (at - syncedAt >= SYNC_BYTES) await sync();
    }
    return at;
  } finally {
    try {
      await sync();
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
const MARK = '.end';

function markPath(folder: string, id: string): string {
  return join(folder, `${id}${MARK}`);
}

function recordPath(folder: string, id: string): string {
  return join(folder, `${id}${RECORD}`);
}

/** Writes a record whole or not at all, and makes it durable together with its name in the folder. */
async function saveRecord(folder: string, upload: UnfinishedUpload): Promise<void> {
  const path = recordPath(folder, upload.id);
  const aside = `${path}.new`;
  const file = await inFolder(folder, () => open(aside, 'w', 0o600));
  try {
    await file.writeFile(writeRecord(upload));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(aside, path);
  await syncPath(folder);
}

/** Reads the records of an earlier run and removes all files that belong to none. */
async function readRecords(folder: string): Promise<Map<string, UnfinishedUpload>> {
  const names = await readdir(folder);
  const present = new Set(names);
  const uploads = new Map<string, UnfinishedUpload>();
  for (const name of names.filter((each) => each.endsWith(RECORD))) {
    const upload = readRecord(await readFile(join(folder, name), 'utf8'));
    if (upload === undefined || `${upload.id}${RECORD}` !== name) continue;
    // The file of bytes was never created, so no client knows the upload.
    if (upload.mediaId === null && !present.has(upload.id)) continue;
    uploads.set(upload.id, upload);
  }
  const kept = (name: string): boolean => {
    const upload = uploads.get(name.replace(/\.(json|end)$/, ''));
    return upload !== undefined && (upload.mediaId === null || name.endsWith(RECORD));
  };
  for (const name of names) {
    if (!kept(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
  for (const { id, mediaId } of uploads.values()) if (mediaId === null) await cutUncertain(folder, id);
  return uploads;
}

/** Removes the bytes that were written and may not have reached the disk before a power cut. */
async function cutUncertain(folder: string, id: string): Promise<void> {
  const path = join(folder, id);
  const { size } = await stat(path);
  const mark = await readMark(markPath(folder, id));
  if (mark === undefined) {
    await writeMark(markPath(folder, id), size);
    await syncPath(folder);
  } else if (mark < size) {
    await truncate(path, mark);
  }
}
