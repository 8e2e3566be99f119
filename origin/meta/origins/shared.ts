/**
 * What several origins share in the database beside the records of media: unfinished uploads and the audit log. A store
 * of one process has none of it: there they are files of its machine.
 */
import type { EpochMs } from '../../../src/clock.js';
import type { BlobKey } from '../../blobs/blob-store.js';

export interface SharedTables {
  readonly uploads: UploadTable;
  readonly audit: AuditTable;
}

/** An unfinished upload, or one that was finished a while ago. */
export interface UploadRow {
  readonly id: string;
  readonly owner: string;
  readonly sizeBytes: number | null;
  readonly expiresAt: EpochMs;
  /** The media that it became. */
  readonly mediaId: string | null;
  /** All of it, in a form that the table does not read. */
  readonly record: string;
}

/** Some bytes of an unfinished upload, in the blob store. */
export interface UploadPart {
  readonly uploadId: string;
  /** Where they begin in the upload. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly key: BlobKey;
}

export interface UploadLimits {
  readonly unfinishedMax: number;
  readonly unfinishedMaxPerSubject: number;
}

export type Creating = 'created' | 'exists' | 'full' | 'full_for_owner';

/** Each method is one transaction. The bytes of parts that an upload loses are in the trash from the same transaction on. */
export interface UploadTable {
  find(id: string): Promise<{ readonly record: string; readonly offset: number } | undefined>;
  /** Records of up to `limit` uploads that end at `now` or before, the oldest first. */
  expired(now: EpochMs, limit: number): Promise<readonly string[]>;
  /** How many uploads are not finished yet, of all owners or of one. */
  unfinished(owner?: string): Promise<number>;
  /** Uploads that begin at the same instant may exceed a limit by their number. */
  create(upload: UploadRow, limits: UploadLimits): Promise<Creating>;
  /** Replaces the record. False if the upload is gone or finished, or has more bytes than its size allows. */
  change(upload: UploadRow): Promise<boolean>;
  /**
   * Adds a part whose key was intended, if the upload ends where the part begins: that comparison is the lock between
   * origins. `moved`: it ends elsewhere, is gone, finished or too short for it; the part is in the trash then.
   * `not_intended`: nothing was changed.
   */
  extend(part: UploadPart): Promise<'extended' | 'moved' | 'not_intended'>;
  /** Removes the parts behind an offset, if the upload ends where the caller believes. */
  cut(id: string, offset: number, end: number): Promise<void>;
  /** In the order of their offsets. */
  parts(id: string): Promise<readonly UploadPart[]>;
  /** Records that uploads have become media, all or none of them, and adds those that were never begun. A finished one stays as it is. */
  finish(uploads: readonly UploadRow[]): Promise<void>;
  /** False if there was none. */
  drop(id: string): Promise<boolean>;
}

export interface AuditTable {
  /** Resolves when the lines are durable. */
  append(lines: readonly AuditLine[]): Promise<void>;
}

/** What is written down of a change, in its own transaction. Pure: it may be asked several times. */
export type Note<T> = (outcome: T) => AuditLine;

export interface AuditLine {
  readonly at: EpochMs;
  /** JSON. */
  readonly line: string;
}
