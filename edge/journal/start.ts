/** Where an edge begins to follow the journal, from its position file and from the cache's own position. Pure. */
import type { JournalPosition } from '../../src/journal/entry.js';
import type { AppliedToCache } from '../cache/cache.js';
import type { PositionRead } from './position.js';

export type JournalStart =
  | { readonly kind: 'continue'; readonly position: JournalPosition }
  /** Takedowns may be missing in what is stored. */
  | {
      readonly kind: 'empty_cache';
      readonly why: 'no_position' | 'damaged' | 'cache_without_position' | 'other_journal';
    };

/**
 * The cache's own position counts, whether the file's is lower or higher: it was committed together with
 * what is stored, and the origin compares its mark. The file may belong to another state of the cache
 * folder: one that was away for a start, or was put back from a copy.
 */
export function whereToStart(file: PositionRead, cache: AppliedToCache): JournalStart {
  if (file.kind === 'absent') return { kind: 'empty_cache', why: 'no_position' };
  if (file.kind === 'damaged') return { kind: 'empty_cache', why: 'damaged' };
  switch (cache.kind) {
    case 'nothing_stored':
      return { kind: 'continue', position: file.position };
    case 'unknown':
      return { kind: 'empty_cache', why: 'cache_without_position' };
    case 'applied':
      return cache.position.journal === file.position.journal
        ? { kind: 'continue', position: cache.position }
        : { kind: 'empty_cache', why: 'other_journal' };
  }
}
