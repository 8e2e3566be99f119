/**
 * LRU: the victim is the entry whose last use is longest ago. What all others
 * are measured against; one scan of things asked for once empties it.
 * (P. J. Denning, The working set model for program behavior, CACM 11(5), 1968.)
 */
import type { Policy } from './policy.js';
import { Links, SlotQueue, SlotTable } from './slots.js';

export function createLru(capacityBytes: number): Policy {
  return createQueue('lru', capacityBytes, (queue, slot) => queue.renew(slot));
}

/** FIFO: the victim is the entry that came first, used or not. */
export function createFifo(capacityBytes: number): Policy {
  return createQueue('fifo', capacityBytes, () => undefined);
}

/** One queue, told apart by what a use does to an entry's place in it. */
function createQueue(name: string, capacityBytes: number, onUse: (queue: SlotQueue, slot: number) => void): Policy {
  const table = new SlotTable();
  const queue = new SlotQueue(table, new Links(table));

  const drop = (slot: number): void => {
    queue.remove(slot);
    table.drop(slot);
  };
  const remove = (key: string): void => {
    const slot = table.slotOf(key);
    if (slot !== undefined) drop(slot);
  };

  const shrink = (toBytes: number, evict: (victim: string) => void): void => {
    for (let slot = queue.oldest; slot !== undefined && table.usedBytes > toBytes; slot = queue.oldest) {
      const victim = table.keyAt(slot);
      drop(slot);
      evict(victim);
    }
  };

  return {
    name,
    capacityBytes,
    touch(key) {
      const slot = table.slotOf(key);
      if (slot !== undefined) onUse(queue, slot);
    },
    admit(key, weightBytes, evict) {
      remove(key);
      if (weightBytes > capacityBytes) return false;
      shrink(capacityBytes - weightBytes, evict);
      queue.push(table.add(key, weightBytes));
      return true;
    },
    shrink,
    remove,
    has: (key) => table.has(key),
    get usedBytes() {
      return table.usedBytes;
    },
    get count() {
      return table.count;
    },
  };
}
