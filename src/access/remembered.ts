/** The tokens that were judged lately, by their SHA-256: the most recently used ones, within a number. */
import { LRUCache } from 'lru-cache';
import type { EpochMs } from '../clock.js';
import type { Grant } from './grant.js';
import type { PublishedKey } from './jwks.js';

export interface RememberedToken {
  readonly grant: Grant;
  /** What it was verified by: once withdrawn, the grant no longer holds. */
  readonly key: PublishedKey;
  /** From this instant on it has expired. */
  readonly endsAt: EpochMs;
  /** From this instant on it must be judged again. */
  readonly askAgainAt: EpochMs;
}

export interface TokenMemory {
  get(digest: string): RememberedToken | undefined;
  set(digest: string, remembered: RememberedToken): void;
  delete(digest: string): void;
  readonly size: number;
}

export function createTokenMemory(tokensMax: number): TokenMemory {
  return new LRUCache<string, RememberedToken>({ max: tokensMax });
}
