/**
 * A stored response, as every tier keeps it: the head in memory for all tiers,
 * the body where the tier says. Instants, never ages. The stored form carries a
 * version (ENTRY_VERSION) and reads the one before.
 */
import type { EpochMs } from '../src/clock.js';
import type { HeaderList } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';

export const ENTRY_VERSION = 1;

/** Names one stored response: the normalised target and what Vary selected. Made in key.ts alone. */
export type CacheKey = string & { readonly brand: 'CacheKey' };

export interface Entry {
  readonly key: CacheKey;
  /** The normalised target without what Vary selected: the handle for invalidation. */
  readonly primaryKey: string;
  /** The media it shows, if it is media: the handle for takedown. */
  readonly mediaId: MediaId | null;
  readonly status: number;
  /** End-to-end fields as the origin sent them. */
  readonly headers: HeaderList;
  /** Request fields that selected it, normalised, by name. Empty without Vary. */
  readonly selectedBy: Readonly<Record<string, string>>;
  /** When the request for it was sent and its head received (RFC 9111 4.2.3). */
  readonly requestedAt: EpochMs;
  readonly receivedAt: EpochMs;
  /** The instant at which it would have age 0. */
  readonly bornAt: EpochMs;
  /** Fresh before, stale from this instant on. */
  readonly staleAt: EpochMs;
  /** May be served stale while revalidated, or when the origin fails, before these instants. */
  readonly revalidateUntil: EpochMs;
  readonly errorUntil: EpochMs;
  /** Must not be used from this instant on, whatever else holds (Sunset of media); Infinity where none. */
  readonly deleteAt: EpochMs;
  /** Whether it may be served without asking the gate. */
  readonly audience: 'anyone' | 'authorised';
  /** Size of the whole representation; null only while a fill of unknown length arrives. */
  readonly sizeBytes: number | null;
  /** The SHA-256 that the whole body must have, as 64 hex digits, where the origin told it. */
  readonly sha256: string | null;
}
