/** The reason of a miss, by what became of the key before. Pure. */
import { unreachable } from '../../src/errors.js';
import type { Fate } from '../cache/cache.js';
import type { MissReason } from '../request.js';

export function missOf(fate: Fate | undefined): MissReason {
  switch (fate) {
    case undefined:
      return 'never_seen';
    case 'evicted':
    case 'expired':
    case 'purged':
    case 'taken_down':
    case 'invalidated':
    case 'corrupt':
      return fate;
    // It was stored, and whatever removed it left no note: a disk tier that is away, or a slot that another key has taken.
    case 'stored':
    case 'replaced':
      return 'evicted';
    case 'too_large':
    case 'not_admitted':
    case 'disk_full':
    case 'no_tier':
    case 'large':
    case 'method':
    case 'status':
    case 'request_no_store':
    case 'no_store':
    case 'private':
    case 'set_cookie':
    case 'authorization':
    case 'vary':
    case 'no_freshness':
    case 'no_use':
    case 'partial':
    case 'ended':
      return 'not_stored';
    default:
      return unreachable(fate);
  }
}
