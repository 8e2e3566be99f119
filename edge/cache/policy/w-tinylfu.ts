/**
 * W-TinyLFU: new keys enter a small LRU window. A key that leaves the window
 * enters the main part only if it was asked for more often than each key that
 * would be evicted for it. The main part is a segmented LRU: keys are on
 * probation until they are used again, then protected.
 * (G. Einziger, O. Eytan, R. Friedman, B. Manes, TinyLFU: A Highly Efficient Cache
 * Admission Policy, ACM ToS 13(4), 2017. Sizes as in Lightweight Robust Size Aware
 * Cache Management, ACM ToS 18(3), 2022: the candidate is compared with each
 * victim in turn, and no victim is evicted before it has won against all of them.)
 */
import { COUNT_MAX, FrequencySketch } from './frequency-sketch.js';
import type { Policy } from './policy.js';
import { type EvictSlot, Links, SlotQueue, SlotTable, slotPolicy } from './slots.js';

const IN_WINDOW = 0;
const ON_PROBATION = 1;
const PROTECTED = 2;
/** The protected segment's share of the main part. */
const PROTECTED_SHARE = 0.8;

export interface WTinyLfuParameters {
  /** The window's share of the capacity. */
  readonly windowShare: number;
}

export function createWTinyLfu(capacityBytes: number, { windowShare }: WTinyLfuParameters): Policy {
  const limit = { bytes: capacityBytes };
  const windowBytes = (): number => limit.bytes * windowShare;
  const mainBytes = (): number => limit.bytes - windowBytes();
  const protectedBytes = (): number => mainBytes() * PROTECTED_SHARE;
  const table = new SlotTable();
  const links = new Links(table);
  const window = new SlotQueue(table, links);
  const probation = new SlotQueue(table, links);
  const guarded = new SlotQueue(table, links);
  const place = table.bytes();
  const sketch = new FrequencySketch();

  const queueOf = (slot: number): SlotQueue => [window, probation, guarded][place.get(slot)] ?? window;
  const move = (slot: number, to: number): void => {
    queueOf(slot).remove(slot);
    place.set(slot, to);
    queueOf(slot).push(slot);
  };

  /** The main part in the order in which it is evicted. */
  function* inMain(): Generator<number> {
    for (const queue of [probation, guarded]) {
      for (let slot = queue.oldest; slot !== undefined; slot = queue.newerThan(slot)) yield slot;
    }
  }

  /** The keys that would be evicted for the candidate, or undefined if it does not win against all of them. */
  const losersTo = (candidate: number): readonly number[] | undefined => {
    const weight = table.weightAt(candidate);
    const frequency = sketch.estimate(table.keyAt(candidate));
    const losers: number[] = [];
    let room = mainBytes() - probation.usedBytes - guarded.usedBytes;
    for (const slot of inMain()) {
      if (room >= weight) break;
      if (sketch.estimate(table.keyAt(slot)) >= frequency) return undefined;
      losers.push(slot);
      room += table.weightAt(slot);
    }
    return room >= weight ? losers : undefined;
  };

  /** The candidate moves from the window to the main part, or is evicted. */
  const leaveWindow = (candidate: number, evict: EvictSlot): void => {
    const losers = losersTo(candidate);
    if (losers === undefined) {
      evict(candidate);
      return;
    }
    for (const loser of losers) evict(loser);
    move(candidate, ON_PROBATION);
  };

  const useInMain = (slot: number): void => {
    if (place.get(slot) === PROTECTED) guarded.renew(slot);
    else move(slot, PROTECTED);
    for (let oldest = guarded.oldest; oldest !== undefined; oldest = guarded.oldest) {
      if (guarded.usedBytes <= protectedBytes()) break;
      move(oldest, ON_PROBATION);
    }
  };

  const shrink = (toBytes: number, evict: EvictSlot): void => {
    while (table.usedBytes > toBytes) {
      const slot = probation.oldest ?? window.oldest ?? guarded.oldest;
      if (slot === undefined) break;
      evict(slot);
    }
  };

  /** Where a key of another policy begins: in the main part while that has room. */
  const placeFor = (weightBytes: number, uses: number): number => {
    if (probation.usedBytes + guarded.usedBytes + weightBytes > mainBytes()) return IN_WINDOW;
    return uses > 1 && guarded.usedBytes + weightBytes <= protectedBytes() ? PROTECTED : ON_PROBATION;
  };

  return slotPolicy(table, {
    limit,
    mayRefuse: true,
    touch(slot) {
      sketch.add(table.keyAt(slot));
      if (place.get(slot) === IN_WINDOW) window.renew(slot);
      else useInMain(slot);
    },
    admit(key, weightBytes, evict) {
      sketch.add(key);
      if (weightBytes > limit.bytes) return false;
      const slot = table.add(key, weightBytes);
      sketch.fit(table.count);
      place.set(slot, IN_WINDOW);
      window.push(slot);
      let refused = false;
      const evictOrRefuse = (loser: number): void => {
        if (loser !== slot) {
          evict(loser);
          return;
        }
        refused = true;
        window.remove(slot);
        table.drop(slot);
      };
      for (let oldest = window.oldest; oldest !== undefined; oldest = window.oldest) {
        if (window.usedBytes <= windowBytes()) break;
        leaveWindow(oldest, evictOrRefuse);
      }
      // After a smaller capacity the main part may still be larger than its share.
      shrink(limit.bytes, evictOrRefuse);
      return !refused;
    },
    shrink,
    adopt({ key, weightBytes, uses }) {
      sketch.fit(table.count + 1);
      for (let use = 0; use < Math.min(uses, COUNT_MAX); use += 1) sketch.add(key);
      const slot = table.add(key, weightBytes);
      place.set(slot, placeFor(weightBytes, uses));
      queueOf(slot).push(slot);
    },
    usesOf: (slot) => Math.max(1, sketch.estimate(table.keyAt(slot))),
    unlink: (slot) => queueOf(slot).remove(slot),
  });
}
