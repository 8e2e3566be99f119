/**
 * LRU: the victim is the least recently used key. The other policies are compared
 * with it; one scan of keys that are used only once replaces everything in it.
 * (P. J. Denning, The working set model for program behavior, CACM 11(5), 1968.)
 */
import type { Policy } from './policy.js';
import { type EvictSlot, Links, SlotQueue, SlotTable, slotPolicy } from './slots.js';

export function createLru(capacityBytes: number): Policy {
  return createQueue(capacityBytes, (queue, slot) => queue.renew(slot));
}

/** FIFO: the victim is the key that was admitted first, used or not. */
export function createFifo(capacityBytes: number): Policy {
  return createQueue(capacityBytes, () => undefined);
}

/** One queue. The two policies differ in what a use does to a key's place in it. */
function createQueue(capacityBytes: number, onUse: (queue: SlotQueue, slot: number) => void): Policy {
  const limit = { bytes: capacityBytes };
  const table = new SlotTable();
  const queue = new SlotQueue(table, new Links(table));

  const shrink = (toBytes: number, evict: EvictSlot): void => {
    for (let slot = queue.oldest; slot !== undefined && table.usedBytes > toBytes; slot = queue.oldest) evict(slot);
  };

  return slotPolicy(table, {
    limit,
    touch: (slot) => onUse(queue, slot),
    admit(key, weightBytes, evict) {
      if (weightBytes > limit.bytes) return false;
      shrink(limit.bytes - weightBytes, evict);
      queue.push(table.add(key, weightBytes));
      return true;
    },
    shrink,
    adopt: ({ key, weightBytes }) => queue.push(table.add(key, weightBytes)),
    usesOf: () => 1,
    unlink: (slot) => queue.remove(slot),
  });
}
