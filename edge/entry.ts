/**
 * The head of a stored response, in the same form for every tier; the tier knows
 * where the body is. It holds instants, never ages. Its stored form carries
 * ENTRY_VERSION.
 */
import type { EpochMs } from '../src/clock.js';
import type { HeaderList } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';

export const ENTRY_VERSION = 1;

/** Names one stored response: the normalised target, and what Vary selected. Made in key.ts alone. */
export type CacheKey = string & { readonly brand: 'CacheKey' };

export interface Entry {
  readonly key: CacheKey;
  /** The normalised target without what Vary selected. Invalidation finds the entry by it. */
  readonly primaryKey: string;
  /** The media that it shows, if any. A takedown finds the entry by it. */
  readonly mediaId: MediaId | null;
  readonly status: number;
  /** End-to-end fields as the origin sent them. */
  readonly headers: HeaderList;
  /** The normalised request fields that Vary names, by name. Empty without Vary. */
  readonly selectedBy: Readonly<Record<string, string>>;
  /** When its request was sent and when its head was received (RFC 9111 4.2.3). */
  readonly requestedAt: EpochMs;
  readonly receivedAt: EpochMs;
  /** The instant at which its age is 0. */
  readonly bornAt: EpochMs;
  /** Fresh before this instant, stale from then on. */
  readonly staleAt: EpochMs;
  /** A stale entry may be served before these instants: while it is revalidated, and when the origin fails. */
  readonly revalidateUntil: EpochMs;
  readonly errorUntil: EpochMs;
  /** Must not be used from this instant on, for any reason (Sunset of media). Infinity without such an end. */
  readonly deleteAt: EpochMs;
  /** `anyone`: may be served without asking the gate. */
  readonly audience: 'anyone' | 'authorised';
  /** Size of the whole representation. Null only during a fill of unknown length. */
  readonly sizeBytes: number | null;
  /** The SHA-256 that the whole body must have, as 64 hex digits, if the origin stated it. */
  readonly sha256: string | null;
}

/** An entry whose size is known. */
export type SizedEntry = Entry & { readonly sizeBytes: number };
