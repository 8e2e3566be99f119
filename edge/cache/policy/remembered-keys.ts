/** Keys without bodies, first in first out: as many as their bodies would have filled `capacityBytes`. */
import { Links, SlotQueue, SlotTable } from './slots.js';

export class RememberedKeys {
  readonly #capacityBytes: number;
  readonly #table = new SlotTable();
  readonly #queue = new SlotQueue(this.#table, new Links(this.#table));

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes;
  }

  /** Remembers a key that is not remembered yet, unless it weighs more than the capacity. */
  add(key: string, weightBytes: number): void {
    if (weightBytes > this.#capacityBytes) return;
    for (let slot = this.#queue.oldest; slot !== undefined; slot = this.#queue.oldest) {
      if (this.#table.usedBytes + weightBytes <= this.#capacityBytes) break;
      this.#drop(slot);
    }
    this.#queue.push(this.#table.add(key, weightBytes));
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
