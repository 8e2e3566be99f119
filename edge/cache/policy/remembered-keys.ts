/** Keys without bodies, first in first out: as many as their bodies would have filled `capacityBytes`. */
import { Links, SlotQueue, SlotTable } from './slots.js';

/** How many are forgotten at once then. */
const FORGOTTEN_MAX = 64;

export class RememberedKeys {
  #capacityBytes: number;
  readonly #table = new SlotTable();
  /** After a smaller capacity there may be many to forget, which no single key waits for. */
  #tooMany = false;
  readonly #queue = new SlotQueue(this.#table, new Links(this.#table));

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes;
  }

  /** If it is less than before, some of the oldest are forgotten with each key that is added. */
  resize(capacityBytes: number): void {
    this.#capacityBytes = capacityBytes;
    this.#tooMany = this.#table.usedBytes > capacityBytes;
  }

  /** Remembers a key that is not remembered yet, unless it weighs more than the capacity. */
  add(key: string, weightBytes: number): void {
    if (weightBytes > this.#capacityBytes) return;
    let forgotten = 0;
    for (let slot = this.#queue.oldest; slot !== undefined; slot = this.#queue.oldest) {
      if (this.#table.usedBytes + weightBytes <= this.#capacityBytes) break;
      if (this.#tooMany && forgotten >= FORGOTTEN_MAX) break;
      forgotten += 1;
      this.#drop(slot);
    }
    this.#queue.push(this.#table.add(key, weightBytes));
    if (this.#table.usedBytes <= this.#capacityBytes) this.#tooMany = false;
  }

  has(key: string): boolean {
    return this.#table.slotOf(key) !== undefined;
  }

  /** Forgets the key. True if it was remembered. */
  take(key: string): boolean {
    const slot = this.#table.slotOf(key);
    if (slot === undefined) return false;
    this.#drop(slot);
    return true;
  }

  #drop(slot: number): void {
    this.#queue.remove(slot);
    this.#table.drop(slot);
  }
}
