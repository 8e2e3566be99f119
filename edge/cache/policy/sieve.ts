/**
 * SIEVE: a FIFO queue and a hand that moves from old to new. The hand spares each
 * key that was used since it last came by, and evicts the first that was not.
 * Spared keys keep their place, so new keys are judged soon.
 * (Y. Zhang et al., SIEVE is Simpler than LRU, NSDI 2024.)
 */
import type { Policy } from './policy.js';
import { type EvictSlot, Links, SlotQueue, SlotTable, slotPolicy } from './slots.js';

export function createSieve(capacityBytes: number): Policy {
  const limit = { bytes: capacityBytes };
  const table = new SlotTable();
  const queue = new SlotQueue(table, new Links(table));
  const used = table.bytes();
  let hand: number | undefined;

  /** Moves the hand to the next victim. Undefined only for an empty queue. */
  const seekVictim = (): number | undefined => {
    let slot = hand ?? queue.oldest;
    while (slot !== undefined && used.get(slot) === 1) {
      used.set(slot, 0);
      slot = queue.newerThan(slot) ?? queue.oldest;
    }
    hand = slot;
    return slot;
  };

  const shrink = (toBytes: number, evict: EvictSlot): void => {
    while (table.usedBytes > toBytes) {
      const slot = seekVictim();
      if (slot === undefined) break;
      evict(slot);
    }
  };

  return slotPolicy(table, {
    limit,
    touch: (slot) => used.set(slot, 1),
    admit(key, weightBytes, evict) {
      if (weightBytes > limit.bytes) return false;
      shrink(limit.bytes - weightBytes, evict);
      const slot = table.add(key, weightBytes);
      used.set(slot, 0);
      queue.push(slot);
      return true;
    },
    shrink,
    adopt({ key, weightBytes, uses }) {
      const slot = table.add(key, weightBytes);
      used.set(slot, uses > 1 ? 1 : 0);
      queue.push(slot);
    },
    // The hand has spared those that were used: they come later.
    usesOf: () => 1,
    unlink(slot) {
      if (slot === hand) hand = queue.newerThan(slot);
      queue.remove(slot);
    },
  });
}
