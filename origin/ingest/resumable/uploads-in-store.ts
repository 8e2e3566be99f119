/**
 * Unfinished uploads in the database and the blob store, where any origin goes on with what another one began. Their
 * bytes are parts, each an object of its own; a row says where the upload ends, and moving that end, by comparison with
 * what it was, is the only lock between origins.
 *
 * Promises: the key of a part is intended before its first byte is stored, and enters a row in one transaction. So a
 * process that ends at any moment leaves nothing that the sweep does not find. A body with a checksum is one part.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../../src/clock.js';
import { Fault } from '../../../src/errors.js';
import { abandon } from '../../blobs/abandon.js';
import { type BlobStore, newPlace, partKey } from '../../blobs/blob-store.js';
import { storageFault } from '../../blobs/storage-fault.js';
import type { UploadPart, UploadRow, UploadTable } from '../../meta/origins/shared.js';
import type { MetaStore } from '../../meta/store.js';
import type { ChunkSource } from '../paced-body.js';
import { stage } from '../stage.js';
import { checked } from './checksum.js';
import { cutIntoParts, type PartSize } from './cut-body.js';
import type { AppendBody, UnfinishedUploads } from './unfinished-uploads.js';
import { readRecord, type UnfinishedUpload, writeRecord } from './upload-record.js';

export interface UploadsInStoreDeps {
  readonly table: UploadTable;
  readonly meta: Pick<MetaStore, 'intend' | 'withdraw'>;
  readonly blobs: Pick<BlobStore, 'kind' | 'stageFolder' | 'adopt' | 'read' | 'remove'>;
  readonly clock: Clock;
  readonly config: PartSize;
}

export async function openUploadsInStore(deps: UploadsInStoreDeps): Promise<UnfinishedUploads> {
  const { table } = deps;
  let known = await table.unfinished();
  return {
    async find(id) {
      const found = await table.find(id);
      return found === undefined ? undefined : uploadOf(found.record);
    },
    async expired(now, limit) {
      // Asked for by every sweep, so the number is never much older.
      known = await table.unfinished();
      return (await table.expired(now, limit)).map(uploadOf);
    },
    unfinished: () => known,
    async create(upload, limits) {
      const made = await table.create(rowOf(upload), limits);
      if (made === 'created') known += 1;
      return made;
    },
    async change(upload) {
      if (!(await table.change(rowOf(upload)))) throw moved();
    },
    async offset({ id, mediaId, sizeBytes }) {
      if (mediaId !== null) return sizeBytes ?? 0;
      const found = await table.find(id);
      if (found === undefined) throw gone();
      return found.offset;
    },
    append: (id, body) =>
      body.checksum === undefined ? appendParts(deps, id, body) : appendChecked(deps, id, body, body.checksum),
    async stage(ids, { sizeMaxBytes, sync, signal }) {
      const path = stagePath(deps);
      const parts: UploadPart[] = [];
      for (const id of ids) parts.push(...(await table.parts(id)));
      const bytes = bytesOf(deps, parts, signal);
      try {
        return await stage({ next: async () => (await bytes.next()).value ?? undefined }, path, { sizeMaxBytes, sync });
      } finally {
        await bytes.return(undefined);
      }
    },
    async finish(uploads) {
      await table.finish(uploads.map(rowOf));
      known = Math.max(0, known - uploads.length);
    },
    async drop(id) {
      const dropped = await table.drop(id);
      if (dropped && known > 0) known -= 1;
      return dropped;
    },
  };
}

async function appendParts(deps: UploadsInStoreDeps, id: string, body: AppendBody): Promise<number> {
  const { offset, sizeMaxBytes } = body;
  const tooLong = body.beyond();
  const parts = cutIntoParts(limited(body.source, sizeMaxBytes, tooLong), deps.config, deps.clock);
  let end = offset;
  try {
    while (await parts.more()) {
      end += await addPart(deps, id, end, parts.part(), sizeMaxBytes);
    }
    parts.requireWhole();
  } catch (thrown) {
    if (thrown === tooLong && end > offset) await deps.table.cut(id, offset, end);
    throw thrown;
  }
  return end;
}

/** Nothing is added before all of it was verified, however long it is. */
async function appendChecked(
  deps: UploadsInStoreDeps,
  id: string,
  body: AppendBody,
  checksum: NonNullable<AppendBody['checksum']>,
): Promise<number> {
  const { offset, sizeMaxBytes } = body;
  const bytes = checked(limited(body.source, sizeMaxBytes, body.beyond()), checksum);
  const first = await bytes.next();
  if (first === undefined) return offset;
  return offset + (await addPart(deps, id, offset, startingWith(first, bytes), sizeMaxBytes));
}

/** Stores bytes and adds them to the upload. Returns how many they were: at least one. */
async function addPart(
  deps: UploadsInStoreDeps,
  uploadId: string,
  offset: number,
  source: ChunkSource,
  sizeMaxBytes: number,
): Promise<number> {
  const { table, meta, blobs } = deps;
  const path = stagePath(deps);
  const key = partKey(uploadId, offset, newPlace());
  try {
    const staged = await stage(source, path, { sizeMaxBytes, sync: blobs.kind === 'local' });
    const { sizeBytes } = staged;
    await meta.intend([key]);
    await blobs.adopt(path, key, staged);
    switch (await table.extend({ uploadId, offset, sizeBytes, key })) {
      case 'extended':
        return sizeBytes;
      case 'moved':
        throw moved();
      case 'not_intended':
        throw new Fault('storage_unavailable', 'The bytes could not be stored.', {
          cause: new Error(`the intent of ${key} was lost before its bytes were stored`),
        });
    }
  } catch (thrown) {
    // A key that has entered a row, or the trash, is no longer intended, and stays as it is.
    await abandon({ meta, blobs }, [key]);
    throw thrown;
  } finally {
    await rm(path, { force: true });
  }
}

async function* bytesOf(
  { blobs }: UploadsInStoreDeps,
  parts: readonly UploadPart[],
  signal: AbortSignal,
): AsyncGenerator<Buffer, undefined> {
  for (const { key, sizeBytes } of parts) {
    const read = await blobs.read(key, undefined, signal);
    // Somebody else has finished or removed the upload meanwhile, or the storage has lost its bytes.
    if (read.kind !== 'found' || read.sizeBytes !== sizeBytes) {
      if (read.kind === 'found') read.body.destroy();
      throw new Fault('storage_unavailable', 'The bytes of the upload cannot be read.', {
        cause: new Error(`${key} is not stored with ${sizeBytes} bytes`),
      });
    }
    try {
      for await (const chunk of read.body as AsyncIterable<Buffer>) yield chunk;
    } catch (thrown) {
      throw storageFault(thrown, signal);
    }
  }
  return undefined;
}

/** The same bytes; throws `tooLong` once there are more than allowed. */
function limited(source: ChunkSource, sizeMaxBytes: number, tooLong: Fault): ChunkSource {
  let bytes = 0;
  return {
    async next() {
      const chunk = await source.next();
      bytes += chunk?.length ?? 0;
      if (bytes > sizeMaxBytes) throw tooLong;
      return chunk;
    },
  };
}

function startingWith(first: Buffer, rest: ChunkSource): ChunkSource {
  let next: Buffer | undefined = first;
  return {
    async next() {
      const given = next;
      next = undefined;
      return given ?? (await rest.next());
    },
  };
}

function rowOf(upload: UnfinishedUpload): UploadRow {
  const { id, owner, sizeBytes, expiresAt, mediaId } = upload;
  return { id, owner, sizeBytes, expiresAt, mediaId, record: writeRecord(upload) };
}

function uploadOf(record: string): UnfinishedUpload {
  const upload = readRecord(record);
  if (upload === undefined) throw new Error('the record of an unfinished upload cannot be read');
  return upload;
}

function stagePath({ blobs }: UploadsInStoreDeps): string {
  return join(blobs.stageFolder, `resumable-${randomBytes(16).toString('hex')}`);
}

function moved(): Fault {
  return new Fault('conflict', 'The upload was continued or ended by another request.');
}

function gone(): Fault {
  return new Fault('not_found', 'There is no such upload.');
}
