/**
 * Where resumable uploads are until they are finished: one interface, one contract suite, two adaptors. In a folder of
 * one machine (uploads-in-folder.ts) they end with its disk. In the database and the blob store (uploads-in-store.ts)
 * any origin goes on with what another one began. A finished upload keeps its record for a while, without bytes, so that
 * a client can still learn which media it became.
 *
 * Promises: what a client was told is durable: the record before the id of the upload, the bytes before their offset, a
 * removal before its confirmation. A body with a checksum is appended only after it was verified. Leaves to others who
 * may use an upload, for how long, and that of one origin one request at a time does.
 */
import type { Fault } from '../../../src/errors.js';
import type { Creating, UploadLimits } from '../../meta/origins/shared.js';
import type { ChunkSource } from '../paced-body.js';
import type { Staged } from '../stage.js';
import type { Checksum } from './checksum.js';
import type { UnfinishedUpload } from './upload-record.js';

export interface UnfinishedUploads {
  find(id: string): Promise<UnfinishedUpload | undefined>;
  /** Up to `limit` or more uploads that end at `now` or before. */
  expired(now: number, limit: number): Promise<readonly UnfinishedUpload[]>;
  /** How many uploads of all owners are not finished yet, as far as this process knows without asking. */
  unfinished(): number;
  /** `full`, `full_for_owner`: there are as many as allowed. `exists`: there is one with this id. The upload counts from the call on. If this rejects, the caller drops it. */
  create(upload: UnfinishedUpload, limits: UploadLimits): Promise<Creating>;
  /** Replaces the record with the same id. */
  change(upload: UnfinishedUpload): Promise<void>;
  offset(upload: UnfinishedUpload): Promise<number>;
  /**
   * Appends a body and resolves with the new offset once it is durable. If the
   * sender breaks off, the bytes that arrived are kept. A body that is too long, or
   * does not match its checksum, is dropped as a whole.
   */
  append(id: string, body: AppendBody): Promise<number>;
  /** The bytes of one upload, or of several in this order, in a file of their own. The caller removes it. */
  stage(ids: readonly string[], options: StagingOptions): Promise<Staged>;
  /** Records that uploads have become media, and removes their bytes. The first may be one that was never begun. */
  finish(uploads: readonly FinishedUpload[]): Promise<void>;
  /** May be called twice. False if there was none. */
  drop(id: string): Promise<boolean>;
}

export type FinishedUpload = UnfinishedUpload & { readonly mediaId: string };

export interface AppendBody {
  readonly source: ChunkSource;
  /** The current end of the upload. */
  readonly offset: number;
  readonly sizeMaxBytes: number;
  /** The Fault for a longer body. */
  beyond(): Fault;
  readonly checksum: Checksum | undefined;
}

export interface StagingOptions {
  readonly sizeMaxBytes: number;
  /** Whether joined bytes are synced to the disk while they are written. */
  readonly sync: boolean;
  readonly signal: AbortSignal;
}
