/**
 * Admission for a tier whose writes cost: a key is let in only at its second
 * sign of life within memory, that is while about as many bytes were asked for
 * the first time as `rememberedBytes`. What is asked for once is never written.
 * (B. M. Maggs, R. K. Sitaraman, Algorithmic Nuggets in Content Delivery, CCR 2015,
 * section 3: cache on second hit.)
 */
import { Links, SlotQueue, SlotTable } from './slots.js';

export interface Admission {
  /** A key that is not held shows life. True: it may be written now, and is forgotten. */
  admits(key: string, weightBytes: number): boolean;
  readonly count: number;
}

/** Lets everything in. */
export const ALWAYS: Admission = { admits: () => true, count: 0 };

export function createSecondHit(rememberedBytes: number): Admission {
  const table = new SlotTable();
  const queue = new SlotQueue(table, new Links(table));
  const drop = (slot: number): void => {
    queue.remove(slot);
    table.drop(slot);
  };
  return {
    admits(key, weightBytes) {
      const seen = table.slotOf(key);
      if (seen !== undefined) {
        drop(seen);
        return true;
      }
      if (weightBytes > rememberedBytes) return false;
      for (let slot = queue.oldest; slot !== undefined; slot = queue.oldest) {
        if (table.usedBytes + weightBytes <= rememberedBytes) break;
        drop(slot);
      }
      queue.push(table.add(key, weightBytes));
      return false;
    },
    get count() {
      return table.count;
    },
  };
}
