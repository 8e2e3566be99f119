/**
 * The parts that policies are built of: keys in numbered slots, their attributes
 * in typed columns, queues as links between slots. A use of a key allocates
 * nothing, and each of a million keys needs about a hundred bytes instead of an
 * object. `slotPolicy` makes a policy of a table and rules for its slots.
 */
import type { Carried, Evict, Policy } from './policy.js';

const FIRST_CAPACITY = 64;
const NONE = -1;

/** One number for each slot. Grows with its table. */
export interface Column {
  get(slot: number): number;
  set(slot: number, value: number): void;
}

type Numbers = Uint8Array | Int32Array | Float64Array;

class TypedColumn implements Column {
  readonly #make: (capacity: number) => Numbers;
  #values: Numbers;

  constructor(capacity: number, make: (capacity: number) => Numbers) {
    this.#make = make;
    this.#values = make(capacity);
  }

  get(slot: number): number {
    return this.#values[slot] ?? 0;
  }

  set(slot: number, value: number): void {
    this.#values[slot] = value;
  }

  grow(capacity: number): void {
    const larger = this.#make(capacity);
    larger.set(this.#values);
    this.#values = larger;
  }
}

/** Keys and weights by slot. A slot keeps its number until it is dropped, and is used for another key later. */
export class SlotTable {
  readonly #slots = new Map<string, number>();
  readonly #keys: (string | undefined)[] = [];
  readonly #columns: TypedColumn[] = [];
  readonly #weights: Column;
  readonly #nextFree: Column;
  #capacity = FIRST_CAPACITY;
  #firstFree = NONE;
  #usedBytes = 0;

  constructor() {
    this.#weights = this.floats();
    this.#nextFree = this.integers();
  }

  get count(): number {
    return this.#slots.size;
  }

  /** The sum of all weights. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Undefined if the key is unknown. */
  slotOf(key: string): number | undefined {
    return this.#slots.get(key);
  }

  has(key: string): boolean {
    return this.#slots.has(key);
  }

  keyAt(slot: number): string {
    return this.#keys[slot] ?? '';
  }

  weightAt(slot: number): number {
    return this.#weights.get(slot);
  }

  /** The key must be unknown. The columns of a new slot still have the values of the key before it: set them. */
  add(key: string, weightBytes: number): number {
    const slot = this.#freeSlot();
    this.#slots.set(key, slot);
    this.#keys[slot] = key;
    this.#weights.set(slot, weightBytes);
    this.#usedBytes += weightBytes;
    return slot;
  }

  drop(slot: number): void {
    this.#slots.delete(this.keyAt(slot));
    this.#keys[slot] = undefined;
    this.#usedBytes -= this.weightAt(slot);
    this.#nextFree.set(slot, this.#firstFree);
    this.#firstFree = slot;
  }

  /** 0 to 255. */
  bytes(): Column {
    return this.#column((capacity) => new Uint8Array(capacity));
  }

  integers(): Column {
    return this.#column((capacity) => new Int32Array(capacity));
  }

  floats(): Column {
    return this.#column((capacity) => new Float64Array(capacity));
  }

  #column(make: (capacity: number) => Numbers): Column {
    const column = new TypedColumn(this.#capacity, make);
    this.#columns.push(column);
    return column;
  }

  #freeSlot(): number {
    const reused = this.#firstFree;
    if (reused !== NONE) {
      this.#firstFree = this.#nextFree.get(reused);
      return reused;
    }
    const fresh = this.#keys.length;
    if (fresh === this.#capacity) {
      this.#capacity *= 2;
      for (const column of this.#columns) column.grow(this.#capacity);
    }
    return fresh;
  }
}

/** The place of each slot in its queue. Queues that share links never share a slot. */
export class Links {
  readonly newer: Column;
  readonly older: Column;

  constructor(table: SlotTable) {
    this.newer = table.integers();
    this.older = table.integers();
  }
}

/** Slots from the newest to the oldest, with the sum of their weights. */
export class SlotQueue {
  readonly #table: SlotTable;
  readonly #links: Links;
  #newest = NONE;
  #oldest = NONE;
  #usedBytes = 0;

  constructor(table: SlotTable, links: Links) {
    this.#table = table;
    this.#links = links;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get oldest(): number | undefined {
    return this.#oldest === NONE ? undefined : this.#oldest;
  }

  newerThan(slot: number): number | undefined {
    const newer = this.#links.newer.get(slot);
    return newer === NONE ? undefined : newer;
  }

  push(slot: number): void {
    this.#links.newer.set(slot, NONE);
    this.#links.older.set(slot, this.#newest);
    if (this.#newest === NONE) this.#oldest = slot;
    else this.#links.newer.set(this.#newest, slot);
    this.#newest = slot;
    this.#usedBytes += this.#table.weightAt(slot);
  }

  remove(slot: number): void {
    const newer = this.#links.newer.get(slot);
    const older = this.#links.older.get(slot);
    if (newer === NONE) this.#newest = older;
    else this.#links.older.set(newer, older);
    if (older === NONE) this.#oldest = newer;
    else this.#links.newer.set(older, newer);
    this.#usedBytes -= this.#table.weightAt(slot);
  }

  /** Makes the slot the newest. */
  renew(slot: number): void {
    if (slot === this.#newest) return;
    this.remove(slot);
    this.push(slot);
  }
}

/** How much the keys of a policy may weigh. */
export interface Limit {
  bytes: number;
}

/** Drops a slot and names its key as a victim. */
export type EvictSlot = (slot: number) => void;

/** What differs from policy to policy. */
export interface SlotRules {
  /** Shared with the policy, which changes it. */
  readonly limit: Limit;
  /** The limit has changed. Absent: it is read whenever it is needed. */
  resized?(): void;
  /** Whether `admit` may refuse a key that weighs no more than that. Absent: it does not. */
  readonly mayRefuse?: boolean;
  touch(slot: number): void;
  /** Adds an unknown key to the table, or refuses it. */
  admit(key: string, weightBytes: number, evict: EvictSlot): boolean;
  shrink(toBytes: number, evict: EvictSlot): void;
  /** Adds an unknown key that was used so often, without a victim. */
  adopt(carried: Carried): void;
  /** How often a victim was used; at least 1. */
  usesOf(slot: number): number;
  /** Removes a slot from the policy's own order, before the table drops it. */
  unlink(slot: number): void;
}

export function slotPolicy(table: SlotTable, rules: SlotRules): Policy {
  const drop = (slot: number): void => {
    rules.unlink(slot);
    table.drop(slot);
  };
  const evictSlot =
    (evict: Evict): EvictSlot =>
    (slot) => {
      const victim = table.keyAt(slot);
      drop(slot);
      evict(victim);
    };
  const remove = (key: string): void => {
    const slot = table.slotOf(key);
    if (slot !== undefined) drop(slot);
  };
  return {
    get capacityBytes() {
      return rules.limit.bytes;
    },
    resize(capacityBytes) {
      rules.limit.bytes = capacityBytes;
      rules.resized?.();
    },
    handOver() {
      const carried: Carried[] = [];
      rules.shrink(table.usedBytes - 1, (slot) => {
        carried.push({ key: table.keyAt(slot), weightBytes: table.weightAt(slot), uses: rules.usesOf(slot) });
        drop(slot);
      });
      return carried;
    },
    adopt: (carried) => rules.adopt(carried),
    mayRefuse: rules.mayRefuse ?? false,
    touch(key) {
      const slot = table.slotOf(key);
      if (slot !== undefined) rules.touch(slot);
    },
    handleOf: (key) => table.slotOf(key),
    touchHandle: (slot) => rules.touch(slot),
    admit(key, weightBytes, evict) {
      remove(key);
      return rules.admit(key, weightBytes, evictSlot(evict));
    },
    shrink: (toBytes, evict) => rules.shrink(toBytes, evictSlot(evict)),
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
