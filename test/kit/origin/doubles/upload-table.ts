/** Unfinished uploads, intents and the trash as one database has them, in memory. Several adaptors may share one. */
import type { BlobKey } from '../../../../origin/blobs/blob-store.js';
import type { UploadPart, UploadRow, UploadTable } from '../../../../origin/meta/origins/shared.js';

export interface MemoryUploads {
  readonly table: UploadTable;
  readonly meta: {
    readonly intend: (keys: readonly BlobKey[]) => Promise<void>;
    readonly withdraw: (keys: readonly BlobKey[]) => Promise<readonly BlobKey[]>;
  };
  readonly intents: Set<BlobKey>;
  readonly trash: Set<BlobKey>;
}

interface Row {
  upload: UploadRow;
  offset: number;
  parts: UploadPart[];
}

export function memoryUploads(): MemoryUploads {
  const rows = new Map<string, Row>();
  const intents = new Set<BlobKey>();
  const trash = new Set<BlobKey>();
  const open = (id: string): Row | undefined => {
    const row = rows.get(id);
    return row?.upload.mediaId === null ? row : undefined;
  };
  const discard = (parts: readonly UploadPart[]): void => {
    for (const { key } of parts) trash.add(key);
  };
  const count = (owner?: string): number =>
    [...rows.values()].filter(({ upload }) => upload.mediaId === null && (owner ?? upload.owner) === upload.owner)
      .length;
  return {
    intents,
    trash,
    meta: {
      async intend(keys) {
        for (const key of keys) intents.add(key);
      },
      withdraw: async (keys) => keys.filter((key) => intents.delete(key)),
    },
    table: {
      async find(id) {
        const row = rows.get(id);
        return row === undefined ? undefined : { record: row.upload.record, offset: row.offset };
      },
      expired: async (now, limit) =>
        [...rows.values()]
          .map(({ upload }) => upload)
          .filter(({ expiresAt }) => expiresAt <= now)
          .sort((a, b) => a.expiresAt - b.expiresAt)
          .slice(0, limit)
          .map(({ record }) => record),
      unfinished: async (owner) => count(owner),
      async create(upload, { unfinishedMax, unfinishedMaxPerSubject }) {
        if (rows.has(upload.id)) return 'exists';
        if (count(upload.owner) >= unfinishedMaxPerSubject) return 'full_for_owner';
        if (count() >= unfinishedMax) return 'full';
        rows.set(upload.id, { upload, offset: 0, parts: [] });
        return 'created';
      },
      async change(upload) {
        const row = open(upload.id);
        if (row === undefined || row.offset > (upload.sizeBytes ?? row.offset)) return false;
        row.upload = upload;
        return true;
      },
      async extend(part) {
        const { uploadId, offset, sizeBytes, key } = part;
        if (!intents.delete(key)) return 'not_intended';
        const row = open(uploadId);
        const end = offset + sizeBytes;
        if (row?.offset !== offset || end > (row.upload.sizeBytes ?? end)) {
          trash.add(key);
          return 'moved';
        }
        row.offset = end;
        row.parts.push(part);
        return 'extended';
      },
      async cut(id, offset, end) {
        const row = open(id);
        if (row?.offset !== end) return;
        row.offset = offset;
        discard(row.parts.filter((part) => part.offset >= offset));
        row.parts = row.parts.filter((part) => part.offset < offset);
      },
      parts: async (id) => [...(rows.get(id)?.parts ?? [])],
      async finish(uploads) {
        for (const upload of uploads) {
          const row = rows.get(upload.id);
          discard(row?.parts ?? []);
          const kept = row === undefined || row.upload.mediaId === null ? upload : row.upload;
          rows.set(upload.id, { upload: kept, offset: kept.sizeBytes ?? 0, parts: [] });
        }
      },
      async drop(id) {
        discard(rows.get(id)?.parts ?? []);
        return rows.delete(id);
      },
    },
  };
}
