/**
 * GDSF: the victim is the key with the lowest priority. A key's priority is
 * L + uses/weight at its last use, where L is the priority of the last victim;
 * L grows, so keys that are not used any more fall behind. Small keys that are
 * used often stay: good for a tier whose hits are counted by request.
 * (L. Cherkasova, Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency
 * Caching Policy, HP Labs HPL-98-69R1, 1998.)
 */
import type { Policy } from './policy.js';
import { type Column, type EvictSlot, SlotTable, slotPolicy } from './slots.js';

export function createGdsf(capacityBytes: number): Policy {
  const limit = { bytes: capacityBytes };
  const table = new SlotTable();
  const uses = table.floats();
  const heap = new SlotHeap(table);
  let inflation = 0;

  const priorityOf = (slot: number): number => inflation + uses.get(slot) / Math.max(1, table.weightAt(slot));

  const add = (key: string, weightBytes: number, used: number): void => {
    const slot = table.add(key, weightBytes);
    uses.set(slot, used);
    heap.add(slot, priorityOf(slot));
  };

  const shrink = (toBytes: number, evict: EvictSlot): void => {
    while (table.usedBytes > toBytes) {
      const slot = heap.least();
      if (slot === undefined) return;
      inflation = heap.priorityOf(slot);
      evict(slot);
    }
  };

  return slotPolicy(table, {
    limit,
    touch(slot) {
      uses.set(slot, uses.get(slot) + 1);
      heap.raise(slot, priorityOf(slot));
    },
    admit(key, weightBytes, evict) {
      if (weightBytes > limit.bytes) return false;
      shrink(limit.bytes - weightBytes, evict);
      add(key, weightBytes, 1);
      return true;
    },
    shrink,
    adopt: (carried) => add(carried.key, carried.weightBytes, carried.uses),
    usesOf: (slot) => uses.get(slot),
    unlink: (slot) => heap.remove(slot),
  });
}

/**
 * A binary heap of slots, the lowest priority first; among equals, the one that was added or used first. A use only notes
 * the new rank: a slot keeps its place in the heap until it comes to the top, where it sinks to where it belongs. Ranks
 * only rise, so whatever is at the top with its present rank is the least of all.
 */
class SlotHeap {
  readonly #slots: number[] = [];
  readonly #positions: Column;
  readonly #priorities: Column;
  readonly #orders: Column;
  /** The rank by which a slot has its place. Not higher than the present one. */
  readonly #placedPriorities: Column;
  readonly #placedOrders: Column;
  #order = 0;

  constructor(table: SlotTable) {
    this.#positions = table.integers();
    this.#priorities = table.floats();
    this.#orders = table.floats();
    this.#placedPriorities = table.floats();
    this.#placedOrders = table.floats();
  }

  least(): number | undefined {
    for (let slot = this.#slots[0]; slot !== undefined; slot = this.#slots[0]) {
      if (this.#placedOrders.get(slot) === this.#orders.get(slot)) return slot;
      this.#place(slot);
      this.#sinkFrom(0, slot);
    }
    return undefined;
  }

  priorityOf(slot: number): number {
    return this.#priorities.get(slot);
  }

  add(slot: number, priority: number): void {
    this.raise(slot, priority);
    this.#place(slot);
    this.#slots.push(slot);
    this.#riseFrom(this.#slots.length - 1, slot);
  }

  /** The new priority must not be lower than the old one. */
  raise(slot: number, priority: number): void {
    this.#priorities.set(slot, priority);
    this.#orders.set(slot, ++this.#order);
  }

  remove(slot: number): void {
    const position = this.#positions.get(slot);
    const last = this.#slots.pop();
    if (last === undefined || last === slot) return;
    this.#riseFrom(position, last);
    this.#sinkFrom(this.#positions.get(last), last);
  }

  #place(slot: number): void {
    this.#placedPriorities.set(slot, this.#priorities.get(slot));
    this.#placedOrders.set(slot, this.#orders.get(slot));
  }

  #precedes(a: number, b: number): boolean {
    const difference = this.#placedPriorities.get(a) - this.#placedPriorities.get(b);
    return difference < 0 || (difference === 0 && this.#placedOrders.get(a) < this.#placedOrders.get(b));
  }

  #riseFrom(start: number, slot: number): void {
    let position = start;
    for (;;) {
      const parent = (position - 1) >> 1;
      // There is none above the first.
      const above = this.#slots[parent];
      if (above === undefined || this.#precedes(above, slot)) break;
      this.#put(position, above);
      position = parent;
    }
    this.#put(position, slot);
  }

  #sinkFrom(start: number, slot: number): void {
    let position = start;
    for (;;) {
      const child = this.#lesserChild(position);
      const below = this.#slots[child];
      if (below === undefined || this.#precedes(slot, below)) break;
      this.#put(position, below);
      position = child;
    }
    this.#put(position, slot);
  }

  #lesserChild(position: number): number {
    const left = 2 * position + 1;
    const one = this.#slots[left];
    const other = this.#slots[left + 1];
    return one !== undefined && other !== undefined && this.#precedes(other, one) ? left + 1 : left;
  }

  #put(position: number, slot: number): void {
    this.#slots[position] = slot;
    this.#positions.set(slot, position);
  }
}
