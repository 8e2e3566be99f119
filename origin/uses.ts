/**
 * Notes which media were fetched, for retention by `unused_for`. Coarse: once an
 * hour and media, written in batches. What edges serve from their copies is not
 * seen here, and need not be: a copy is asked for again when its lifetime is
 * over, and `unused_for` is longer than that.
 */
import type { Clock, EpochMs, Timer } from '../src/clock.js';
import type { MediaId } from '../src/ids.js';
import { errorFields, type Log } from '../src/log.js';
import type { MediaRecord } from './meta/media.js';
import type { MetaStore } from './meta/store.js';

export interface Uses {
  note(record: Pick<MediaRecord, 'id' | 'usedAt'>, now: EpochMs): void;
  /** Writes what is noted. May be called twice. */
  close(): Promise<void>;
}

export interface UsesParts {
  readonly meta: Pick<MetaStore, 'markUsed'>;
  readonly clock: Clock;
  readonly log: Log;
  /** False: nobody asks for it, so nothing is written. */
  readonly noted: boolean;
}

const AGAIN_AFTER_MS = 3_600_000;
const WRITE_EVERY_MS = 10_000;
const BATCH_MAX = 1_000;

export function createUses({ meta, clock, log, noted }: UsesParts): Uses {
  let fresh = new Set<MediaId>();
  let writing: Promise<void> = Promise.resolve();
  let timer: Timer | undefined;

  function write(): Promise<void> {
    timer?.cancel();
    timer = undefined;
    const ids = [...fresh];
    fresh = new Set();
    if (ids.length > 0) {
      writing = writing
        .then(() => meta.markUsed(ids, clock.now()))
        .catch((thrown: unknown) => log.warn(errorFields(thrown), 'the use of media could not be noted'));
    }
    return writing;
  }

  return {
    note(record, now) {
      if (!noted || now - record.usedAt < AGAIN_AFTER_MS) return;
      fresh.add(record.id);
      if (fresh.size >= BATCH_MAX) void write();
      else timer ??= clock.after(WRITE_EVERY_MS, () => void write());
    },
    close: () => write(),
  };
}
