/**
 * S3-FIFO: new keys enter a small queue; those that are used there move to the
 * main queue, the others are evicted. Evicted keys are remembered for a while as
 * ghosts; a ghost that returns goes straight to the main queue. The sizes of all
 * three are in bytes.
 * (J. Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023.)
 */
import type { Policy } from './policy.js';
import { RememberedKeys } from './remembered-keys.js';
import { type EvictSlot, Links, SlotQueue, SlotTable, slotPolicy } from './slots.js';

const FREQUENCY_MAX = 3;
const IN_SMALL = 0;
const IN_MAIN = 1;

export interface S3FifoParameters {
  /** The small queue's share of the capacity. */
  readonly smallShare: number;
  /** This many uses in the small queue move a key to the main queue. */
  readonly promoteAt: number;
}

export function createS3Fifo(capacityBytes: number, { smallShare, promoteAt }: S3FifoParameters): Policy {
  const limit = { bytes: capacityBytes };
  const mainBytes = (): number => limit.bytes * (1 - smallShare);
  const table = new SlotTable();
  const links = new Links(table);
  const small = new SlotQueue(table, links);
  const main = new SlotQueue(table, links);
  const place = table.bytes();
  const frequency = table.bytes();
  const ghosts = new RememberedKeys(mainBytes());

  const queueOf = (slot: number): SlotQueue => (place.get(slot) === IN_SMALL ? small : main);

  const add = (key: string, weightBytes: number, where: number, uses: number): void => {
    const slot = table.add(key, weightBytes);
    frequency.set(slot, uses);
    place.set(slot, where);
    queueOf(slot).push(slot);
  };

  /** One step towards room: a key moves to the main queue, is spared, or is evicted. */
  const sift = (evict: EvictSlot): void => {
    const oldestInSmall = small.oldest;
    if (oldestInSmall === undefined || main.usedBytes > mainBytes()) siftMain(evict);
    else siftSmall(oldestInSmall, evict);
  };
  const siftSmall = (slot: number, evict: EvictSlot): void => {
    if (frequency.get(slot) >= promoteAt) {
      small.remove(slot);
      place.set(slot, IN_MAIN);
      frequency.set(slot, 0);
      main.push(slot);
      return;
    }
    ghosts.add(table.keyAt(slot), table.weightAt(slot));
    evict(slot);
  };
  const siftMain = (evict: EvictSlot): void => {
    const slot = main.oldest;
    if (slot === undefined) return;
    const uses = frequency.get(slot);
    if (uses > 0) {
      frequency.set(slot, uses - 1);
      main.renew(slot);
      return;
    }
    evict(slot);
  };

  const shrink = (toBytes: number, evict: EvictSlot): void => {
    while (table.usedBytes > toBytes && table.count > 0) sift(evict);
  };

  return slotPolicy(table, {
    limit,
    resized: () => ghosts.resize(mainBytes()),
    touch: (slot) => frequency.set(slot, Math.min(frequency.get(slot) + 1, FREQUENCY_MAX)),
    admit(key, weightBytes, evict) {
      if (weightBytes > limit.bytes) return false;
      const returns = ghosts.take(key);
      shrink(limit.bytes - weightBytes, evict);
      add(key, weightBytes, returns ? IN_MAIN : IN_SMALL, 0);
      return true;
    },
    shrink,
    adopt({ key, weightBytes, uses }) {
      if (uses > promoteAt) add(key, weightBytes, IN_MAIN, 0);
      else add(key, weightBytes, IN_SMALL, Math.min(uses - 1, FREQUENCY_MAX));
    },
    usesOf: (slot) => (place.get(slot) === IN_MAIN ? promoteAt + 1 : 1 + frequency.get(slot)),
    unlink: (slot) => queueOf(slot).remove(slot),
  });
}
