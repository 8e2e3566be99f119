/**
 * What the policies are built of: keys in numbered slots, their attributes in
 * typed columns beside them, queues as links between slots. A use of a key then
 * allocates nothing, and a million keys cost a hundred bytes each rather than an
 * object each.
 */

const FIRST_CAPACITY = 64;
const NONE = -1;

/** One number per slot. Grows with the table that made it. */
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

/** Keys and weights by slot. A slot keeps its number until it is dropped, then serves another key. */
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

  /** Undefined where the key is not held. */
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

  /** The key must not be held yet. Columns of a new slot hold what the one before left: set them. */
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
    this.#keys.push(undefined);
    return fresh;
  }
}

/** Where each slot stands in its queue. A slot is in one queue of these links at most. */
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

  /** Makes it the newest. */
  renew(slot: number): void {
    if (slot === this.#newest) return;
    this.remove(slot);
    this.push(slot);
  }
}
