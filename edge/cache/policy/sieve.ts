/**
 * SIEVE: a FIFO whose hand walks from old to new, spares once what was used
 * since it last came by, and evicts the first that was not. Spared entries stay
 * where they are, so new ones are sifted quickly.
 * (Y. Zhang et al., SIEVE is Simpler than LRU, NSDI 2024.)
 */
import type { Policy } from './policy.js';
import { Links, SlotQueue, SlotTable } from './slots.js';

export function createSieve(capacityBytes: number): Policy {
  const table = new SlotTable();
  const queue = new SlotQueue(table, new Links(table));
  const used = table.bytes();
  let hand: number | undefined;

  const drop = (slot: number): void => {
    if (slot === hand) hand = queue.newerThan(slot);
    queue.remove(slot);
    table.drop(slot);
  };
  const remove = (key: string): void => {
    const slot = table.slotOf(key);
    if (slot !== undefined) drop(slot);
  };

  /** The hand comes to rest on the next victim. The queue must not be empty. */
  const seekVictim = (): number | undefined => {
    let slot = hand ?? queue.oldest;
    while (slot !== undefined && used.get(slot) === 1) {
      used.set(slot, 0);
      slot = queue.newerThan(slot) ?? queue.oldest;
    }
    hand = slot;
    return slot;
  };

  const shrink = (toBytes: number, evict: (victim: string) => void): void => {
    while (table.usedBytes > toBytes) {
      const slot = seekVictim();
      if (slot === undefined) break;
      const victim = table.keyAt(slot);
      drop(slot);
      evict(victim);
    }
  };

  return {
    name: 'sieve',
    capacityBytes,
    touch(key) {
      const slot = table.slotOf(key);
      if (slot !== undefined) used.set(slot, 1);
    },
    admit(key, weightBytes, evict) {
      remove(key);
      if (weightBytes > capacityBytes) return false;
      shrink(capacityBytes - weightBytes, evict);
      const slot = table.add(key, weightBytes);
      used.set(slot, 0);
      queue.push(slot);
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
