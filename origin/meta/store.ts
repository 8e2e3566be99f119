/**
 * The interface of the metadata store. lmdb.ts implements it; a database server
 * could as well, so every method is asynchronous.
 *
 * Promises: takedowns, and what frees room, are written on a full disk too. A resolved write is synced to disk. Each method is one transaction:
 * record, indexes, job and journal entry change together or not at all. A read
 * sees every write that resolved before it.
 */
import type { EpochMs } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import type { JournalProof, JournalSource } from '../../src/journal/source.js';
import type { BlobKey, Place } from '../blobs/blob-store.js';
import type { JobPriority, JobQueue } from './jobs.js';
import type {
  BlobRecord,
  Found,
  Media,
  MediaRecord,
  PictureFacts,
  Quarantine,
  ThumbMade,
  ThumbRefusal,
} from './media.js';
import type { Duties } from './origins/duties.js';
import type { Note, SharedTables } from './origins/shared.js';
import type { SharedEdges } from './origins/shared-edges.js';
import type { Origins } from './origins.js';
import type { Outbox } from './outbox/outbox.js';

export interface MetaStore {
  /** The media with this id, as of `now`. */
  find(id: MediaId, now: EpochMs): Promise<Found>;
  findBlob(sha256: Sha256): Promise<BlobRecord | undefined>;
  /** The blob that stores bytes uploaded with this hash (find-sent.ts). One whose uploads are refused comes first. */
  findBlobBySent(sentSha256: Sha256): Promise<BlobRecord | undefined>;
  /** Up to `limit` blobs that await the scanner, longest wait first, starting after `after`. */
  blobsAwaitingScan(after: BlobRecord | null, limit: number): Promise<readonly BlobRecord[]>;
  /** Applies the scanner's verdict to a blob; null releases the blob. False if it no longer awaits the scanner. */
  resolveScan(sha256: Sha256, mark: Quarantine | null, now: EpochMs): Promise<boolean>;

  /** Whether uploads can be recorded. */
  room(): Promise<RecordsRoom>;
  /** Free bytes in the file system of the records, or null if there is no such limit. */
  freeBytes(): Promise<number | null>;
  /** Says that bytes are about to be stored under these keys. The blob store must not be asked before this resolves. */
  intend(keys: readonly BlobKey[]): Promise<void>;
  /** Gives up keys that were intended. Returns those that no record names, whose bytes the caller removes. */
  withdraw(keys: readonly BlobKey[]): Promise<readonly BlobKey[]>;
  /** Those of these keys whose bytes were left behind: no record names them, nobody intends them, and they are not in the trash. */
  leftBehind(keys: readonly BlobKey[]): Promise<readonly BlobKey[]>;
  /** Up to `limit` keys that no record has named since before `before`, and whose bytes were not removed yet. */
  trash(before: EpochMs, limit: number): Promise<readonly BlobKey[]>;
  /** Takes keys out of the trash, because their bytes are removed. */
  emptied(keys: readonly BlobKey[]): Promise<void>;
  /**
   * Records an upload whose blob is in place. Checks duplicate, quarantine and quota inside the transaction. A place
   * that the upload made and that is not in the outcome is to be withdrawn.
   */
  commitUpload(upload: NewMedia): Promise<CommitOutcome>;
  /** Marks one id as deleted. A note goes into the audit table, where `shared` has one. */
  remove(id: MediaId, by: string, now: EpochMs, note?: Note<RemoveOutcome>): Promise<RemoveOutcome>;
  /** Quarantines a blob, and with it every id that refers to it. */
  quarantine(target: MediaId | Sha256, mark: Quarantine, note?: Note<QuarantineOutcome>): Promise<QuarantineOutcome>;
  restore(target: MediaId | Sha256, now: EpochMs, note?: Note<QuarantineOutcome>): Promise<QuarantineOutcome>;

  /** A step of a walk over all media of an owner: of the next `limit` records, those that an act would change. */
  owned(query: OwnedQuery): Promise<OwnedPage>;
  /** Does an act to these media of an owner, in one transaction. Leaves out those that it does not change any more. */
  takeDownOwned(owner: string, ids: readonly MediaId[], act: OwnerAct, now: EpochMs): Promise<OwnedOutcome>;

  /** Marks up to `limit` ids whose expiry has passed as expired. */
  expireDue(now: EpochMs, limit: number): Promise<readonly MediaId[]>;
  /** Forgets up to `limit` tombstones older than `before`. */
  forgetTombstones(before: EpochMs, limit: number): Promise<number>;
  /** Up to `limit` blobs that no live id has referred to since `before`, without those an admin quarantined. */
  unreferencedBlobs(before: EpochMs, limit: number): Promise<readonly BlobRecord[]>;
  /** Whether a blob has a record, no live id refers to it, and no admin quarantined it. */
  isUnreferenced(sha256: Sha256): Promise<boolean>;
  /**
   * Forgets an unreferenced blob, and returns its keys, which are in the trash now. Undefined if it is referenced
   * again, or if its thumbnails are being made.
   */
  forgetBlob(sha256: Sha256): Promise<readonly BlobKey[] | undefined>;
  /** Marks up to `limit` live ids not used since `before` as expired; for `unused_for`. */
  expireUnused(before: EpochMs, now: EpochMs, limit: number): Promise<readonly MediaId[]>;
  /** Records that ids were used. Coarse: uses close together count as one; for `unused_for`. */
  markUsed(ids: readonly MediaId[], at: EpochMs): Promise<void>;

  /**
   * Records the outcome of a thumbnail job and removes the job. Facts that are
   * null in the outcome leave the known ones unchanged. False, and nothing is
   * recorded, if there is no such blob, if a thumbnail in a new place was not
   * intended, or if a named leaseholder has lost the job.
   */
  finishThumbs(sha256: Sha256, outcome: ThumbOutcome, leaseholder?: string): Promise<boolean>;
  /** Queues the thumbnails of a blob to be made again. False if there is no such blob. */
  redoThumbs(sha256: Sha256, priority: JobPriority, now: EpochMs): Promise<boolean>;

  list(query: ListQuery): Promise<ListPage>;
  /** A page of blob records in the order of their hashes; for scrub, fsck and backup. */
  blobsAfter(after: Sha256 | null, limit: number): Promise<BlobPage>;
  /** Every id that refers to this blob, live or not. */
  idsOfBlob(sha256: Sha256): Promise<readonly MediaId[]>;
  /** The number of the newest journal entry that took down or restored this id or its blob; 0 if there is none. */
  takedownSeqOf(id: MediaId): Promise<number>;

  /** What a subject has stored in the period that began at `periodStartAt`. */
  usage(owner: string, periodStartAt: EpochMs): Promise<Usage>;
  /** Forgets the usage of periods that began before `before`. Returns how many records. */
  forgetUsage(before: EpochMs): Promise<number>;

  readonly journal: Journal;
  readonly jobs: JobQueue;
  readonly origins: Origins;
  /** Null: there are no other origins. */
  readonly edges: SharedEdges | null;
  readonly duties: Duties;
  /** What several origins share beside; null in a store of one process, which has it in files. */
  readonly shared: SharedTables | null;
  /** Events for the chat server. */
  readonly outbox: Outbox;

  /**
   * Checks that the records agree with each other, and repairs them if asked.
   * Repair only while nothing else uses the store: the journal may get a new name.
   */
  verify(options: VerifyOptions): Promise<void>;
  /** Records a blob whose record was lost. False if it has a record. For fsck, which knows the bytes. */
  recordBlob(blob: BlobRecord): Promise<boolean>;

  /** Resolves if the store can be read and written, else rejects with the reason. */
  probe(): Promise<void>;
  /** Writes a consistent copy to a folder while the store is in use. */
  backup(folder: string): Promise<void>;
  close(): Promise<void>;
}

/** Another process has the store open for writing. Its message says which, and what to do. */
export class StoreInUse extends Error {}

/** `data_max`: the records have reached their limit. `no_reserve`: the disk lacks the room that takedowns may need. */
export type RecordsRoom = 'enough' | 'data_max' | 'no_reserve';

/** Where the bytes of an upload are. */
export type UploadBytes =
  /** Somebody stored them before. They were in their place when the uploader looked. */
  | { readonly kind: 'found' }
  /** The upload stored them in a new place. `damaged`: the place whose bytes were lost or wrong when it looked. */
  | { readonly kind: 'stored'; readonly place: Place; readonly damaged: Place | null };

export interface NewMedia {
  readonly id: MediaId;
  readonly sha256: Sha256;
  /** The hash of the bytes as uploaded; `sha256` if left out. */
  readonly sentSha256?: Sha256;
  readonly bytes: UploadBytes;
  readonly sizeBytes: number;
  readonly mime: string;
  readonly public: boolean;
  readonly owner: string;
  readonly filename: string | null;
  readonly expiresAt: EpochMs | null;
  readonly picture: PictureFacts;
  /** For a new blob: whether to queue a thumbnail job, or why there will be no thumbnails. */
  readonly thumbs: { readonly kind: 'queue' } | { readonly kind: 'none'; readonly reason: ThumbRefusal };
  /**
   * Withholds the bytes as soon as they are recorded. With the cause `admin` the outcome is `quarantined`. With `held`
   * the upload succeeds, and bytes that are already visible stay visible.
   */
  readonly quarantine?: Quarantine;
  /** The subject's limit, checked and counted in the same transaction. Left out: the upload is not counted. */
  readonly quota?: UploadQuota;
  /** The link by which it is uploaded, marked as used in the same transaction. */
  readonly once?: UploadOnce;
  readonly now: EpochMs;
}

/** An upload link. It is remembered as used at least until `until`. */
export interface UploadOnce {
  readonly link: string;
  readonly until: EpochMs;
}

/** Counts only what is stored: duplicates do not count, and bytes count only if the blob is new. */
export interface UploadQuota {
  readonly periodStartAt: EpochMs;
  /** Infinity: no limit. */
  readonly bytesMax: number;
  readonly filesMax: number;
}

export interface Usage {
  readonly bytes: number;
  readonly files: number;
}

export type CommitOutcome =
  | { readonly kind: 'created'; readonly media: Media }
  /** The existing id. It expires at the later of its own expiry and that of the upload. */
  | { readonly kind: 'duplicate'; readonly media: Media }
  | { readonly kind: 'quarantined' }
  | { readonly kind: 'over_quota' }
  /** The upload link was used before. */
  | { readonly kind: 'link_used' }
  /** The bytes are gone from where they were, or are damaged. Nothing was recorded; they have to be stored again. */
  | { readonly kind: 'bytes_gone' };

export type RemoveOutcome =
  | { readonly kind: 'removed'; readonly seq: number }
  | { readonly kind: 'already'; readonly seq: number }
  | { readonly kind: 'unknown' };

export type QuarantineOutcome =
  | { readonly kind: 'done'; readonly seq: number }
  /** Nothing to change. `seq`: the entry of the latest change, 0 if there is none. */
  | { readonly kind: 'already'; readonly seq: number }
  | { readonly kind: 'gone'; readonly state: 'deleted' | 'expired' }
  | { readonly kind: 'unknown' };

/** What is done to all live media of an owner. */
export type OwnerAct =
  | { readonly kind: 'delete'; readonly by: string }
  /** Covers the bytes, so all ids that refer to them, whoever uploaded those. */
  | { readonly kind: 'quarantine'; readonly mark: Quarantine }
  /** Lifts the marks of admins, and none of the scanner or of damage. */
  | { readonly kind: 'restore' };

export interface OwnedQuery {
  readonly owner: string;
  readonly act: OwnerAct['kind'];
  /** The step starts after this id. */
  readonly after: MediaId | null;
  readonly limit: number;
  readonly now: EpochMs;
}

export interface OwnedPage {
  readonly ids: readonly MediaId[];
  /** Pass it as `after` for the next step; null if this one was the last. */
  readonly next: MediaId | null;
}

/** How many media of the owner, and how many of others, were changed. */
export interface OwnedOutcome {
  readonly media: number;
  readonly others: number;
}

export type ThumbOutcome =
  | { readonly kind: 'made'; readonly made: readonly ThumbMade[]; readonly picture: PictureFacts }
  | { readonly kind: 'refused'; readonly reason: ThumbRefusal; readonly picture: PictureFacts };

export interface ListQuery {
  readonly owner?: string;
  readonly mime?: string;
  /** `held` are those that await the scanner; `quarantined` are all others that are withheld. */
  readonly state?: 'live' | 'deleted' | 'expired' | 'quarantined' | 'held';
  readonly createdFrom?: EpochMs;
  readonly createdTo?: EpochMs;
  /** The page starts after this id. Ids sort by creation. */
  readonly after?: MediaId;
  readonly limit: number;
  readonly now: EpochMs;
}

export interface ListPage {
  readonly found: readonly Exclude<Found, { kind: 'unknown' }>[];
  readonly next: MediaId | null;
}

export type MetaFindingKind =
  /** A record that cannot be read or has another key than it says. Repair moves it to the table `lost`. */
  | 'damaged'
  | 'index_missing'
  | 'index_stray'
  /** The blob's record is wrong about whether a live id refers to it. */
  | 'reference_wrong'
  | 'job_missing'
  | 'job_stray'
  /** The journal has a gap or an entry that cannot be read. Repair gives it a new name. */
  | 'journal_broken';

export interface MetaFinding {
  readonly kind: MetaFindingKind;
  readonly table: string;
  readonly key: string;
  readonly detail: string;
  readonly repaired: boolean;
}

export interface VerifyOptions {
  readonly repair: boolean;
  readonly now: EpochMs;
  readonly signal: AbortSignal;
  onFinding(finding: MetaFinding): void;
  /** A live id whose blob has no record. What to do depends on the bytes, so the caller decides. */
  onBlobUnknown(record: MediaRecord): void;
  onProgress(progress: { readonly table: string; readonly seen: number }): void;
}

export interface BlobPage {
  readonly blobs: readonly BlobRecord[];
  /** Pass it as `after` for the next page; null if this page is the last. */
  readonly next: Sha256 | null;
}

/** The takedown journal: entries are numbered from 1 without gaps and kept for a configured time. */
export interface Journal extends JournalSource {
  /** Since when others may have added entries that are not known here. */
  readonly proof: JournalProof;
  /** Calls `listener` when entries that were told before are not in the journal any more. Returns how to unsubscribe. */
  onReset(listener: () => void): () => void;
  /**
   * Drops entries older than `before`, except the last of them: an edge that has applied it needs its
   * mark, and misses nothing. Returns how many.
   */
  trim(before: EpochMs): Promise<number>;
}
