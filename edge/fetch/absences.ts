/**
 * Remembers for a moment which ids the origin did not know, or did not show to
 * callers without a credential, so that asking again does not reach it. Bounded:
 * the oldest goes first. Takedowns and purges make it forget.
 */
import type { Clock } from '../../src/clock.js';
import type { MediaId } from '../../src/ids.js';
import type { FillConfig } from './config.js';

/** `unknown`: there is no such media. `closed`: without a credential it is private, gone or unknown. */
export type Absence = 'unknown' | 'closed';

export interface Absences {
  remember(id: MediaId, absence: Absence): void;
  recall(id: MediaId): Absence | undefined;
  forget(id: MediaId): void;
  clear(): void;
}

export function createAbsences(
  limits: () => Pick<FillConfig, 'absentMax' | 'absentMs'>,
  clock: Pick<Clock, 'monotonicMs'>,
): Absences {
  const known = new Map<MediaId, { readonly absence: Absence; readonly untilMs: number }>();
  return {
    remember(id, absence) {
      const { absentMax, absentMs } = limits();
      // What a caller with a credential has learnt says more.
      if (absence === 'closed' && known.get(id)?.absence === 'unknown') return;
      known.delete(id);
      if (absentMs === 0) return;
      known.set(id, { absence, untilMs: clock.monotonicMs() + absentMs });
      for (const oldest of known.keys()) {
        if (known.size <= absentMax) break;
        known.delete(oldest);
      }
    },
    recall(id) {
      const found = known.get(id);
      if (found === undefined) return undefined;
      if (clock.monotonicMs() < found.untilMs) return found.absence;
      known.delete(id);
      return undefined;
    },
    forget: (id) => void known.delete(id),
    clear: () => known.clear(),
  };
}
