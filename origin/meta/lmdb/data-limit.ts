/**
 * Whether uploads may be recorded: `data_max`, and the reserve on the disk. The size
 * of the data is counted in pages, which become free only when all records of one
 * are gone. So at the limit each medium that is forgotten makes room for one
 * upload, whose records fill the same pages.
 */
import type { LmdbConfig } from '../config.js';
import type { Database } from '../database.js';
import type { RecordsRoom } from '../store.js';

export interface DataLimit {
  room(when: 'lately' | 'now'): RecordsRoom;
  /** So many media have been forgotten, tombstones included. */
  forgot(media: number): void;
  /** A medium has been recorded. */
  added(): void;
}

export function createDataLimit(
  { usedBytes, reserve }: Pick<Database, 'usedBytes' | 'reserve'>,
  { dataMaxBytes }: LmdbConfig,
): DataLimit {
  let replaceable = 0;

  function isAbove(when: 'lately' | 'now'): boolean {
    const above = usedBytes(when) > dataMaxBytes;
    if (!above) replaceable = 0;
    return above;
  }

  return {
    room(when) {
      if (!reserve.whole) return 'no_reserve';
      return isAbove(when) && replaceable === 0 ? 'data_max' : 'enough';
    },
    forgot(media) {
      if (isAbove('lately')) replaceable += media;
    },
    added() {
      replaceable = Math.max(0, replaceable - 1);
    },
  };
}
