/** The most recently used tokens, by their SHA-256, with the grant that each came to. */
import { LRUCache } from 'lru-cache';
import type { EpochMs } from '../clock.js';
import type { Grant } from './grant.js';
import type { PublishedKey } from './jwks.js';

export interface RememberedToken {
  readonly grant: Grant;
  /** The key that verified it: once that is withdrawn, the grant is no longer valid. */
  readonly key: PublishedKey;
  /** When it expires. */
  readonly endsAt: EpochMs;
  /** When it must be checked again. */
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
