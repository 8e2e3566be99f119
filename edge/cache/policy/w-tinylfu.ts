/**
 * W-TinyLFU: new entries pass through a small LRU window; who leaves it enters
 * the main part only if it was asked for more often than those who would have
 * to go for it. The main part is a segmented LRU: on probation until used again,
 * then protected.
 * (G. Einziger, O. Eytan, R. Friedman, B. Manes, TinyLFU: A Highly Efficient Cache
 * Admission Policy, ACM ToS 13(4), 2017; sizes as in Lightweight Robust Size Aware
 * Cache Management, ACM ToS 18(3), 2022: the candidate is weighed against each
 * victim in turn, and none goes before the candidate has won against all it needs.)
 */
import { FrequencySketch } from './frequency-sketch.js';
import type { Policy } from './policy.js';
import { Links, SlotQueue, SlotTable } from './slots.js';

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
  const windowBytes = capacityBytes * windowShare;
  const mainBytes = capacityBytes - windowBytes;
  const protectedBytes = mainBytes * PROTECTED_SHARE;
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
  const drop = (slot: number): void => {
    queueOf(slot).remove(slot);
    table.drop(slot);
  };
  const remove = (key: string): void => {
    const slot = table.slotOf(key);
    if (slot !== undefined) drop(slot);
  };
  const evictSlot = (slot: number, evict: (victim: string) => void): void => {
    const victim = table.keyAt(slot);
    drop(slot);
    evict(victim);
  };

  /**
   * The oldest of the main part that would have to go, or undefined where the candidate wins against
   * none or one of them.
   */
  const losersTo = (candidate: number): readonly number[] | undefined => {
    const weight = table.weightAt(candidate);
    const frequency = sketch.estimate(table.keyAt(candidate));
    const losers: number[] = [];
    let room = mainBytes - probation.usedBytes - guarded.usedBytes;
    let slot = probation.oldest ?? guarded.oldest;
    let inProbation = probation.oldest !== undefined;
    while (room < weight) {
      if (slot === undefined) {
        if (!inProbation) return undefined;
        inProbation = false;
        slot = guarded.oldest;
        continue;
      }
      if (sketch.estimate(table.keyAt(slot)) >= frequency) return undefined;
      losers.push(slot);
      room += table.weightAt(slot);
      slot = (inProbation ? probation : guarded).newerThan(slot);
    }
    return losers;
  };

  /** The oldest of the window goes on probation, or goes. */
  const leaveWindow = (candidate: number, evict: (victim: string) => void): void => {
    const losers = losersTo(candidate);
    if (losers === undefined) {
      evictSlot(candidate, evict);
      return;
    }
    for (const loser of losers) evictSlot(loser, evict);
    move(candidate, ON_PROBATION);
  };

  const useInMain = (slot: number): void => {
    if (place.get(slot) === PROTECTED) guarded.renew(slot);
    else move(slot, PROTECTED);
    for (let oldest = guarded.oldest; oldest !== undefined; oldest = guarded.oldest) {
      if (guarded.usedBytes <= protectedBytes) break;
      move(oldest, ON_PROBATION);
    }
  };

  return {
    name: 'w-tinylfu',
    capacityBytes,
    touch(key) {
      const slot = table.slotOf(key);
      if (slot === undefined) return;
      sketch.add(key);
      if (place.get(slot) === IN_WINDOW) window.renew(slot);
      else useInMain(slot);
    },
    admit(key, weightBytes, evict) {
      remove(key);
      sketch.fit(table.count + 1);
      sketch.add(key);
      if (weightBytes > capacityBytes) return false;
      const slot = table.add(key, weightBytes);
      place.set(slot, IN_WINDOW);
      window.push(slot);
      let kept = true;
      const note = (victim: string): void => {
        if (victim === key) kept = false;
        else evict(victim);
      };
      for (let oldest = window.oldest; oldest !== undefined; oldest = window.oldest) {
        if (window.usedBytes <= windowBytes) break;
        leaveWindow(oldest, note);
      }
      return kept;
    },
    shrink(toBytes, evict) {
      while (table.usedBytes > toBytes) {
        const slot = probation.oldest ?? window.oldest ?? guarded.oldest;
        if (slot === undefined) break;
        evictSlot(slot, evict);
      }
    },
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
