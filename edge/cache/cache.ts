/**
 * The tiers as one thing, as the engine sees them: bodies that can be read
 * whole or in part, whether they rest in memory, rest on disk or still arrive.
 */
import type { Readable } from 'node:stream';
import type { ByteSpan } from '../../src/http/range.js';
import type { MediaId } from '../../src/ids.js';
import type { CacheKey, Entry } from '../entry.js';
import type { AdmissionName } from './policy/registry.js';

export type TierName = 'memory' | 'disk';

/**
 * Why a body can be read no further. `passed`: it is read by others as it
 * arrives and is kept nowhere, so that its beginning is gone; another request
 * to the origin is needed.
 */
export type LossReason = DropReason | 'evicted' | 'aborted' | 'passed';

/** What a reader's stream fails with. */
export class BodyLost extends Error {
  override readonly name = 'BodyLost';
  readonly reason: LossReason;

  constructor(reason: LossReason, cause?: unknown) {
    super(`the body is lost: ${reason}`, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}

export interface Body {
  /** Total size, or null while it is not known. */
  readonly sizeBytes: number | null;
  /** All of it at once, where it lies complete in memory: the hot path needs no stream. */
  readonly whole: Buffer | undefined;
  /**
   * Makes sure that a body on disk is there and right before a byte or a head
   * of it goes out: verifies it where this run has not yet, and reads it in one
   * piece if it is small (`whole` is then set). `lost`: dropped and counted by
   * now; treat it as a miss. At once `ready` for bodies in memory or arriving.
   */
  ensure(signal: AbortSignal): Promise<'ready' | 'lost'>;
  /**
   * The bytes of a span (all without one), at the reader's own pace, waiting for
   * those that still arrive. Fails with BodyLost when the body ends badly or is
   * taken down; it never ends short without an error. While the body arrives,
   * its last byte is held back until length and hash have agreed.
   */
  open(span: ByteSpan | undefined, signal: AbortSignal): Readable;
}

export interface Stored {
  readonly entry: Entry;
  readonly tier: TierName;
  readonly body: Body;
}

/** Where a response may be kept once it is whole; chosen by rules of the configuration. */
export interface Tiers {
  readonly memory: boolean;
  readonly disk: boolean;
  /** Whether the disk takes it at once or at its second sign of life; left out: as the tier does. */
  readonly admission?: AdmissionName;
}

/** `disk_full`: no room within the tier's size, below the free-disk floor, or the file system said so. */
export type NotKeptReason = 'too_large' | 'not_admitted' | 'disk_full' | 'placement' | 'invalidated';

export type FillOutcome =
  | { readonly kind: 'stored'; readonly tiers: readonly TierName[] }
  /** Whole and right, but nowhere to keep it, or made invalid while it arrived. */
  | { readonly kind: 'not_kept'; readonly reason: NotKeptReason }
  /** Wrong length or hash: dropped, and every reader saw a broken transfer. */
  | { readonly kind: 'corrupt'; readonly what: 'length' | 'sha256' }
  /** Taken down, purged or aborted while it arrived. */
  | { readonly kind: 'aborted'; readonly reason: string };

/** A response that arrives. One writer, any number of readers, each at its own offset. */
export interface Fill extends Body {
  readonly entry: Entry;
  readonly receivedBytes: number;
  readonly readers: number;
  /** True once bytes have gone that a new reader would need: the body is only passed to those who read it. */
  readonly passing: boolean;
  /** True once it failed: readers get BodyLost, nothing will be kept. */
  readonly failed: boolean;
  /**
   * Takes a chunk; resolves when the next may come; at once and without effect
   * after the fill has failed. Waits for no reader while the body can be kept.
   * A body too large for every tier, or for which no room is left, is passed:
   * its readers get all of it at the pace of the slowest, and those who come
   * when its beginning is gone get BodyLost `passed`.
   */
  write(chunk: Buffer): Promise<void>;
  /** The origin's answer is complete: checks size and hash, then publishes. Readers at the end finish only after that check. */
  end(): Promise<FillOutcome>;
  /** Readers fail, nothing is kept. */
  abort(reason: Error): void;
}

export type DropReason = 'taken_down' | 'purged' | 'invalidated' | 'corrupt' | 'expired' | 'replaced';

/** A response of which a part has come: never answered whole, nor by its head alone (RFC 9111 3.3). */
export interface IncompleteResponse {
  readonly entry: Entry & { readonly sizeBytes: number };
  /** What is here, ascending and apart. */
  readonly spans: readonly ByteSpan[];
  /** Opens spans that are here; others fail with BodyLost. */
  readonly body: Body;
  /** The bytes of a span, as far as they are here. */
  read(span: ByteSpan): readonly Buffer[];
}

export interface IncompleteWriter {
  /** Takes bytes that begin at `at`; copies them. False once no more of it is kept. */
  write(at: number, chunk: Buffer): boolean;
}

export interface IncompleteResponses {
  /** The newest part under a primary key that suits. Counts as a use. */
  find(primaryKey: string, suits: (entry: Entry) => boolean): IncompleteResponse | undefined;
  keysOfPrimary(primaryKey: string): readonly CacheKey[];
  /** To add to what is held of this very representation, or to begin one. Undefined where nothing of it can be kept. */
  open(entry: Entry): IncompleteWriter | undefined;
  drop(key: CacheKey, reason: DropReason): void;
}

export interface EdgeCache {
  /** What is held of responses that are not whole. Takedown, purge and drop reach it too. */
  readonly incomplete: IncompleteResponses;
  /** Finds and counts as a use. Memory first. Never an entry past its `deleteAt`. */
  get(key: CacheKey): Stored | undefined;
  /** Finds without counting. */
  peek(key: CacheKey): Stored | undefined;
  /** Every stored response under a primary key, for Vary and invalidation. */
  variantsOf(primaryKey: string): readonly Entry[];
  /** Starts to take a response; `entry.sizeBytes` null: of unknown length. Rejects nothing: limits show in the outcome. */
  fill(entry: Entry, tiers: Tiers): Fill;
  /** A newer head over the same body (304, HEAD). False where the key is gone. */
  refresh(entry: Entry): boolean;
  /** `taken_down`, `purged` and `corrupt` also break off readers and fills; `invalidated` lets them finish, but keeps no fill. */
  drop(key: CacheKey, reason: DropReason): void;
  /** Forgets all that shows this media, also what is arriving, and breaks off its readers. Resolves when no disk entry could bring it back after a restart; rejects where the disk does not let itself be written: gone for this run all the same. */
  takeDown(id: MediaId): Promise<number>;
  /** Drops by primary-key prefix, or everything. Resolves like takeDown. */
  purge(which: { readonly prefix: string } | { readonly all: true }): Promise<number>;
  stats(): CacheStats;
  /** True once entries of earlier runs are all known again. */
  readonly recovered: boolean;
  /** A real write, read and delete in the cache folder. */
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
  readonly fills: number;
  readonly corrupt: number;
  readonly recovered: number;
}
