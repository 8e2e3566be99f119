/**
 * The cache as the rest of the edge sees it: stored responses by key, the
 * incomplete ones beside them, and fills. A body can be read whole or by range,
 * whether it is in memory, on disk or still arriving.
 */
import type { Readable } from 'node:stream';
import type { EpochMs } from '../../src/clock.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { MediaId } from '../../src/ids.js';
import type { JournalPosition } from '../../src/journal/entry.js';
import type { CacheKey, Entry, SizedEntry } from '../entry.js';
import type { StoreRefusal } from '../rfc9111/storable.js';
import type { AdmissionName } from './policy/registry.js';

export type TierName = 'memory' | 'disk';

/** Why a stored response is removed. */
export type DropReason = 'taken_down' | 'purged' | 'invalidated' | 'corrupt' | 'expired' | 'replaced';

/**
 * Why a body can be read no further. `passed`: the body goes to its readers as
 * it arrives and is stored nowhere, so its first bytes are gone. Whoever needs
 * them has to send another request to the origin.
 */
export type LossReason = DropReason | 'evicted' | 'aborted' | 'passed';

/** The error that a reader's stream ends with. */
export class BodyLost extends Error {
  override readonly name = 'BodyLost';
  readonly reason: LossReason;

  constructor(reason: LossReason, cause?: unknown) {
    super(`the body is lost: ${reason}`, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}

export interface Body {
  /** Total size, or null while it is unknown. */
  readonly sizeBytes: number | null;
  /** The whole body, where it is complete in memory: a hit then needs no stream. */
  readonly whole: Buffer | undefined;
  /**
   * Makes sure that a body on disk exists and is correct before its head or its
   * first byte is sent. Verifies it, unless that was done since the process
   * started, and reads a small body in one piece, which sets `whole`. Of a large
   * one it reads a small `span` that will be opened next. `lost`:
   * the entry has been dropped and counted; treat it as a miss. Bodies in memory
   * and arriving bodies are `ready` at once.
   */
  ensure(signal: AbortSignal, span?: ByteSpan): Promise<'ready' | 'lost'>;
  /** The bytes of a span, if they are in memory. A body on disk has those of the span that `ensure` was given. */
  bytesOf?(span: ByteSpan): Buffer | undefined;
  /**
   * Streams a span, or everything without one, at the reader's pace, and waits
   * for bytes that have not arrived yet. Fails with BodyLost if the body fails
   * or is taken down; never ends early without an error. The last byte of an
   * arriving body is withheld until its length and hash have been checked.
   */
  open(span: ByteSpan | undefined, signal: AbortSignal): Readable;
}

export interface Stored {
  readonly entry: Entry;
  readonly tier: TierName;
  readonly body: Body;
}

/** The tiers that may store a response, as the operator's rules choose them. */
export interface Tiers {
  readonly memory: boolean;
  readonly disk: boolean;
  /** When the disk tier stores it: at the first fill, or at the second. Absent: as the disk tier is configured. */
  readonly admission?: AdmissionName;
}

/** The operator's rules as they are now, for what is stored already. */
export interface HeldRules {
  /** The entry as the rules have it: the same object if they change nothing; undefined if this tier may not have it. */
  judge(entry: Entry, tier: TierName): Entry | undefined;
  /** Whether this tier may have it. */
  allows(entry: Entry, tier: TierName): boolean;
  /** The same value while the rules stay. */
  version(): unknown;
}

/** `disk_full`: no room within the tier's size, below the free-disk floor, or reported by the file system. */
export type NotKeptReason = 'too_large' | 'not_admitted' | 'disk_full' | 'no_tier' | 'invalidated';

/** What became of a key. `large`: its body is larger than anything that is stored. */
export type Fate = 'stored' | 'evicted' | 'large' | DropReason | NotKeptReason | StoreRefusal;

export interface KnownFate {
  readonly fate: Fate;
  readonly at: EpochMs;
}

export interface Fates {
  note(key: string, fate: Fate): void;
  recall(key: string): KnownFate | undefined;
}

export type FillOutcome =
  | { readonly kind: 'stored'; readonly tiers: readonly TierName[] }
  /** The body is complete and correct, but no tier took it, or it was invalidated while it arrived. */
  | { readonly kind: 'not_kept'; readonly reason: NotKeptReason }
  /** Wrong length or hash: dropped, and the streams of all readers failed. */
  | { readonly kind: 'corrupt'; readonly what: 'length' | 'sha256' }
  /** Taken down, purged or aborted while it arrived. */
  | { readonly kind: 'aborted'; readonly reason: string };

/** Writes a response into the cache. Any number of readers follow it, each at its own offset. */
export interface Fill extends Body {
  readonly entry: Entry;
  readonly receivedBytes: number;
  /** True once the first bytes are gone: new readers cannot get the whole body any more. */
  readonly passing: boolean;
  /** True once it failed: readers get BodyLost, and nothing is stored. */
  readonly failed: boolean;
  /**
   * False once it is known that nothing of it will be stored: no tier takes a body of this size, none
   * admits it or has room, or it was invalidated.
   */
  readonly mayBeKept: boolean;
  /** True once the response was invalidated: its readers go on, but nothing of it may be stored. */
  readonly invalidated: boolean;
  /**
   * Takes a chunk. Resolves when the next chunk may come; after a failure it
   * does nothing and resolves at once. Waits for no reader as long as the body
   * can be stored. A body that is too large for every tier, or finds no room, is
   * passed: it arrives at the pace of its slowest reader, and readers who come
   * after its first bytes are gone get BodyLost `passed`.
   */
  write(chunk: Buffer): Promise<void>;
  /**
   * Takes the whole body at once, in place of `write`: `end` then makes it available before it returns. False, and
   * nothing is taken, if it is wrong or is not sure to be stored in memory.
   */
  takeWhole(bytes: Buffer): boolean;
  /** The body has ended: checks its size and hash, then stores it. Readers receive the last byte after the check. */
  end(): Promise<FillOutcome>;
  /** Fails the readers and stores nothing. */
  abort(reason: Error): void;
}

/** A stored response of which only some ranges are present. Its head alone answers no request (RFC 9111 3.3). */
export interface IncompleteResponse {
  readonly entry: SizedEntry;
  /** The ranges that are present, ascending; no two touch or overlap. */
  readonly spans: readonly ByteSpan[];
  /** Opens spans that are present; for all others the stream fails with BodyLost. */
  readonly body: Body;
  /** The bytes of a span that are present. */
  read(span: ByteSpan): readonly Buffer[];
}

export interface IncompleteWriter {
  /** Copies bytes whose offset is `at`. False: no more bytes of this response are stored. */
  write(at: number, chunk: Buffer): boolean;
}

export interface IncompleteResponses {
  /** The newest one under a primary key that suits. Counts as a use. */
  find(primaryKey: string, suits: (entry: Entry) => boolean): IncompleteResponse | undefined;
  keysOfPrimary(primaryKey: string): readonly CacheKey[];
  /**
   * Adds to what is stored of this representation, or starts a new one. Undefined where nothing of it
   * can be stored.
   */
  open(entry: Entry): IncompleteWriter | undefined;
  drop(key: CacheKey, reason: DropReason): void;
}

/** How far the takedown journal was applied to what earlier runs have stored. */
export type AppliedToCache =
  | { readonly kind: 'nothing_stored' }
  /** Something is stored, and nothing says how far. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'applied'; readonly position: JournalPosition };

/** `away`: the configuration asks for a disk tier, and it cannot be used. */
export type DiskState = 'off' | 'in_use' | 'away';

export interface EdgeCache {
  /** Takedowns, purges and `drop` reach these too. */
  readonly incomplete: IncompleteResponses;
  /** Finds a stored response and counts a use. Looks in memory first. Never returns an entry past its `deleteAt`. */
  get(key: CacheKey): Stored | undefined;
  /** Like `get`, but counts no use. */
  peek(key: CacheKey): Stored | undefined;
  /** Every stored response under a primary key: for Vary and for invalidation. */
  variantsOf(primaryKey: string): readonly Entry[];
  /** Starts a fill. With `entry.sizeBytes` null its length is unknown. Never refuses: limits show in the outcome. */
  fill(entry: Entry, tiers: Tiers): Fill;
  /** Puts a newer head over the stored body (after a 304 or a HEAD). False if the key is not stored. */
  refresh(entry: Entry): boolean;
  /**
   * Removes a stored response. `taken_down`, `purged` and `corrupt` also end its
   * readers and fills; `invalidated` lets them finish, but the fills store nothing.
   */
  drop(key: CacheKey, reason: DropReason): void;
  /**
   * Removes everything that shows this media, fills included, and ends its
   * readers. Resolves with the number of keys once no entry on disk could come
   * back after a restart. Rejects if the disk cannot be written: the entries are
   * then gone until the next restart only.
   */
  takeDown(id: MediaId): Promise<number>;
  /** Removes what is under a prefix of the primary key, or everything. Resolves like `takeDown`. */
  purge(which: { readonly prefix: string } | { readonly all: true }): Promise<number>;
  /** Read when the cache was opened. */
  readonly appliedBefore: AppliedToCache;
  /** Notes with what is stored that the journal is applied up to here. It is durable a little later. */
  noteApplied(position: JournalPosition): void;
  /** What became of keys that are not stored. */
  readonly fates: Fates;
  stats(): CacheStats;
  /** True once all entries of earlier runs have been read back. */
  readonly recovered: boolean;
  readonly diskState: DiskState;
  /** Writes, reads and deletes a file in the cache folder. Rejects too while the disk tier is away. */
  probe(): Promise<void>;
  close(): Promise<void>;
}

export interface TierStats {
  readonly entries: number;
  readonly usedBytes: number;
  readonly capacityBytes: number;
  readonly evictions: number;
  readonly refused: number;
}

export interface CacheStats {
  readonly memory: TierStats;
  readonly disk: TierStats;
  readonly incomplete: TierStats;
  /** Fills that have not ended. */
  readonly fills: number;
  readonly corrupt: number;
  /** Entries of earlier runs that have been read back. */
  readonly recovered: number;
  /** Content files that are kept open for the next reader. */
  readonly openFiles: number;
}
