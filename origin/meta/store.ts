/**
 * The origin's memory, as an interface that LMDB (lmdb.ts) fills today and a
 * database server may fill tomorrow: asynchronous throughout, no handles leak.
 *
 * Promises: a resolved write is synced to disk; each method is one transaction
 * (record, indexes, job and journal entry together, or nothing); a read sees
 * every write that was resolved before it.
 */
import type { EpochMs } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import type { JournalCause, JournalEntry } from '../../src/journal/entry.js';
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

export interface MetaStore {
  /** What stands under an id at `now`. */
  find(id: MediaId, now: EpochMs): Promise<Found>;
  /** The live id over bytes that were sent so, with this visibility, if there is one. */
  findDuplicate(sentSha256: Sha256, isPublic: boolean, now: EpochMs): Promise<Media | undefined>;
  findBlob(sha256: Sha256): Promise<BlobRecord | undefined>;
  /** The blob in which bytes that were sent so stand by now; one that is withheld by an admin before any other. */
  findBlobBySent(sentSha256: Sha256): Promise<BlobRecord | undefined>;
  /** Up to `limit` blobs that wait for the scanner, the longest wait first; those after one of them. */
  blobsAwaitingScan(after: BlobRecord | null, limit: number): Promise<readonly BlobRecord[]>;
  /** The scanner's verdict on a held blob: null gives it free. False: it is not held any more. */
  resolveScan(sha256: Sha256, mark: Quarantine | null, now: EpochMs): Promise<boolean>;

  /** Records an upload whose blob is in place. Decides duplicate and quarantine again, inside the transaction. */
  commitUpload(upload: NewMedia): Promise<CommitOutcome>;
  /** Marks one id as deleted and writes the journal. */
  remove(id: MediaId, by: string, now: EpochMs): Promise<RemoveOutcome>;
  /** Quarantines the bytes, and so every id over them. */
  quarantine(target: MediaId | Sha256, mark: Quarantine): Promise<QuarantineOutcome>;
  restore(target: MediaId | Sha256, now: EpochMs): Promise<QuarantineOutcome>;

  /** Marks up to `limit` ids whose instant has passed as expired, with their journal entries. */
  expireDue(now: EpochMs, limit: number): Promise<readonly MediaId[]>;
  /** Forgets up to `limit` tombstones older than `before`. */
  forgetTombstones(before: EpochMs, limit: number): Promise<number>;
  /** Blobs that no live id holds and that nobody quarantined, each stored before `before`. */
  unreferencedBlobs(before: EpochMs, limit: number): Promise<readonly BlobRecord[]>;
  /** Whether a blob has a record, no live id over it, and nobody withholds it. */
  isUnreferenced(sha256: Sha256): Promise<boolean>;
  /** Forgets a blob record, if it still is unreferenced; false: somebody holds it again, or makes its thumbnails. */
  forgetBlob(sha256: Sha256): Promise<boolean>;
  /** Marks up to `limit` live ids not used since `before` as expired, with their journal entries; for `unused_for`. */
  expireUnused(before: EpochMs, now: EpochMs, limit: number): Promise<readonly MediaId[]>;
  /** Notes that ids were fetched; coarse, for `unused_for`. */
  markUsed(ids: readonly MediaId[], at: EpochMs): Promise<void>;

  /**
   * The outcome of a thumbnail job: all that is made now and what was learnt, or
   * why nothing was. Facts that are null leave what was known before.
   */
  finishThumbs(sha256: Sha256, outcome: ThumbOutcome): Promise<void>;
  /** Has the thumbnails of a blob made anew; false where there is no such blob. */
  redoThumbs(sha256: Sha256, priority: JobPriority, now: EpochMs): Promise<boolean>;

  list(query: ListQuery): Promise<ListPage>;
  /** Blob records in the order of their hashes, those after `after`; for scrub, fsck and backup. */
  blobsAfter(after: Sha256 | null, limit: number): Promise<BlobPage>;
  /** Every id over these bytes, live or not. */
  idsOver(sha256: Sha256): Promise<readonly MediaId[]>;
  /** The newest journal entry that took this id or its bytes down, or gave them back; 0 where none did. */
  takedownOf(id: MediaId): Promise<number>;

  /** What a subject has stored in the period that began at `periodStartAt`. */
  usage(owner: string, periodStartAt: EpochMs): Promise<Usage>;
  /** Forgets usage of periods that began before. */
  forgetUsage(before: EpochMs): Promise<number>;

  readonly journal: Journal;
  readonly jobs: JobQueue;

  /**
   * Checks the store against itself, and repairs it where asked. Repair only
   * while nothing else uses the store: it may give the journal a new name.
   */
  verify(options: VerifyOptions): Promise<VerifyReport>;
  /** Records a blob whose record was lost; false where there is one. For fsck, which knows its bytes. */
  recordBlob(blob: BlobRecord): Promise<boolean>;

  /** Resolves when the store can be read and written. Rejects with the reason. */
  probe(): Promise<void>;
  /** A consistent copy into a folder, while serving. */
  backup(folder: string): Promise<void>;
  /** Bytes that records and indexes take up. */
  usedBytes(): number;
  close(): Promise<void>;
}

export interface NewMedia {
  readonly id: MediaId;
  readonly sha256: Sha256;
  /** Of what was sent; left out: what is stored. */
  readonly sentSha256?: Sha256;
  readonly sizeBytes: number;
  readonly mime: string;
  readonly public: boolean;
  readonly owner: string;
  readonly filename: string | null;
  readonly expiresAt: EpochMs | null;
  readonly picture: PictureFacts;
  /** Whether a thumbnail job is to be queued for a new blob; otherwise the refusal that stands instead. */
  readonly thumbs: { readonly kind: 'queue' } | { readonly kind: 'none'; readonly reason: ThumbRefusal };
  /**
   * Withholds the bytes from the moment they are recorded. The outcome is then `quarantined`, but for a mark of `held`:
   * that one is as good as any upload, and leaves bytes alone that are to be seen already.
   */
  readonly quarantine?: Quarantine;
  /** The subject's limit, checked and counted in the same transaction; left out: not counted. */
  readonly quota?: UploadQuota;
  readonly now: EpochMs;
}

/** Only what was stored counts: no duplicates, and bytes only where the blob is new. */
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
  /** The existing id; its expiry is now the later of the two. */
  | { readonly kind: 'duplicate'; readonly media: Media }
  | { readonly kind: 'quarantined' }
  | { readonly kind: 'over_quota'; readonly usage: Usage };

export type RemoveOutcome =
  | { readonly kind: 'removed'; readonly seq: number; readonly blobFree: Sha256 | null }
  | { readonly kind: 'already'; readonly seq: number }
  | { readonly kind: 'unknown' };

export type QuarantineOutcome =
  | { readonly kind: 'done'; readonly seq: number; readonly ids: readonly MediaId[] }
  /** It already is as asked. `seq`: the entry that made it so, 0 where none did. */
  | { readonly kind: 'already'; readonly seq: number }
  | { readonly kind: 'gone'; readonly state: 'deleted' | 'expired' }
  | { readonly kind: 'unknown' };

export type ThumbOutcome =
  | { readonly kind: 'made'; readonly made: readonly ThumbMade[]; readonly picture: PictureFacts }
  | { readonly kind: 'refused'; readonly reason: ThumbRefusal; readonly picture: PictureFacts };

export interface ListQuery {
  readonly owner?: string;
  readonly mime?: string;
  /** `held` are those that wait for the scanner; `quarantined` all others that are withheld. */
  readonly state?: 'live' | 'deleted' | 'expired' | 'quarantined' | 'held';
  readonly createdFrom?: EpochMs;
  readonly createdTo?: EpochMs;
  /** Ids sort by creation; the page starts after this one. */
  readonly after?: MediaId;
  readonly limit: number;
  readonly now: EpochMs;
}

export interface ListPage {
  readonly found: readonly Exclude<Found, { kind: 'unknown' }>[];
  readonly next: MediaId | null;
}

export type MetaFindingKind =
  /** It cannot be read, or lies under a foreign key: set aside. */
  | 'damaged'
  | 'index_missing'
  | 'index_stray'
  /** The blob's note of whether a live id holds it is wrong. */
  | 'reference_wrong'
  | 'job_missing'
  | 'job_stray'
  /** The journal has a gap or an entry that cannot be read: it gets a new name. */
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
  /** A live id over a blob that has no record. Only the bytes can tell what to do. */
  onBlobUnknown(record: MediaRecord): void;
  onProgress(progress: { readonly table: string; readonly seen: number }): void;
}

export interface VerifyReport {
  readonly records: number;
  readonly findings: number;
  readonly repaired: number;
}

export interface BlobPage {
  readonly blobs: readonly BlobRecord[];
  /** Where the next page starts after; null: this is the last. */
  readonly next: Sha256 | null;
}

/** The takedown journal: numbered from 1 without gaps, kept for as long as config says. */
export interface Journal {
  /** A random name made with the journal, so that an edge notices another one. */
  readonly name: string;
  newest(): number;
  /** The oldest number still held; newest + 1 where it holds none. */
  oldest(): number;
  /** Entries with a number greater than `after`, in order. */
  read(after: number, limit: number): Promise<readonly JournalEntry[]>;
  /** Called for every entry, in order, once it is synced. */
  subscribe(listener: (entry: JournalEntry) => void): () => void;
  append(cause: JournalCause, ids: readonly MediaId[], at: EpochMs): Promise<JournalEntry>;
  /** Drops entries older than `before`, never the newest. */
  trim(before: EpochMs): Promise<number>;
}
