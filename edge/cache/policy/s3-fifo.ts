/**
 * S3-FIFO: a small queue sifts what is asked for once, a main queue keeps what
 * is asked for again, a ghost queue remembers keys that the small one let go,
 * so that their return counts as proof. Weights are bytes in all three.
 * (J. Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023.)
 */
import type { Policy } from './policy.js';
import { Links, SlotQueue, SlotTable } from './slots.js';

const FREQUENCY_MAX = 3;
const IN_SMALL = 0;
const IN_MAIN = 1;

export interface S3FifoParameters {
  /** The small queue's share of the capacity. */
  readonly smallShare: number;
  /** So many uses in the small queue make an entry worth keeping. */
  readonly promoteAt: number;
}

export function createS3Fifo(capacityBytes: number, { smallShare, promoteAt }: S3FifoParameters): Policy {
  const mainBytes = capacityBytes * (1 - smallShare);
  const table = new SlotTable();
  const links = new Links(table);
  const small = new SlotQueue(table, links);
  const main = new SlotQueue(table, links);
  const place = table.bytes();
  const frequency = table.bytes();
  const ghosts = createGhosts(mainBytes);

  const queueOf = (slot: number): SlotQueue => (place.get(slot) === IN_SMALL ? small : main);
  const drop = (slot: number): void => {
    queueOf(slot).remove(slot);
    table.drop(slot);
  };
  const remove = (key: string): void => {
    const slot = table.slotOf(key);
    if (slot !== undefined) drop(slot);
  };

  /** One step towards room: an entry changes queue, is spared, or goes. */
  const sift = (evict: (victim: string) => void): void => {
    const oldestInSmall = small.oldest;
    if (oldestInSmall === undefined || main.usedBytes > mainBytes) siftMain(evict);
    else siftSmall(oldestInSmall, evict);
  };
  const siftSmall = (slot: number, evict: (victim: string) => void): void => {
    if (frequency.get(slot) >= promoteAt) {
      small.remove(slot);
      place.set(slot, IN_MAIN);
      frequency.set(slot, 0);
      main.push(slot);
      return;
    }
    const victim = table.keyAt(slot);
    ghosts.add(victim, table.weightAt(slot));
    drop(slot);
    evict(victim);
  };
  const siftMain = (evict: (victim: string) => void): void => {
    const slot = main.oldest;
    if (slot === undefined) return;
    const uses = frequency.get(slot);
    if (uses > 0) {
      frequency.set(slot, uses - 1);
      main.renew(slot);
      return;
    }
    const victim = table.keyAt(slot);
    drop(slot);
    evict(victim);
  };

  const shrink = (toBytes: number, evict: (victim: string) => void): void => {
    while (table.usedBytes > toBytes && table.count > 0) sift(evict);
  };

  return {
    name: 's3-fifo',
    capacityBytes,
    touch(key) {
      const slot = table.slotOf(key);
      if (slot !== undefined) frequency.set(slot, Math.min(frequency.get(slot) + 1, FREQUENCY_MAX));
    },
    admit(key, weightBytes, evict) {
      remove(key);
      if (weightBytes > capacityBytes) return false;
      const returns = ghosts.take(key);
      shrink(capacityBytes - weightBytes, evict);
      const slot = table.add(key, weightBytes);
      frequency.set(slot, 0);
      place.set(slot, returns ? IN_MAIN : IN_SMALL);
      queueOf(slot).push(slot);
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

interface Ghosts {
  add(key: string, weightBytes: number): void;
  /** Whether it was remembered; it no longer is. */
  take(key: string): boolean;
}

/** Keys without bytes, first in first out, as many as would have filled `capacityBytes`. */
function createGhosts(capacityBytes: number): Ghosts {
  const table = new SlotTable();
  const queue = new SlotQueue(table, new Links(table));
  const drop = (slot: number): void => {
    queue.remove(slot);
    table.drop(slot);
  };
  return {
    add(key, weightBytes) {
      if (weightBytes > capacityBytes) return;
      for (let slot = queue.oldest; slot !== undefined; slot = queue.oldest) {
        if (table.usedBytes + weightBytes <= capacityBytes) break;
        drop(slot);
      }
      queue.push(table.add(key, weightBytes));
    },
    take(key) {
      const slot = table.slotOf(key);
      if (slot === undefined) return false;
      drop(slot);
      return true;
    },
  };
}
