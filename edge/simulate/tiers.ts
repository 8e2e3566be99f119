/**
 * Memory over disk without bodies: the policies of the tiers, and what moves
 * between them. A hit on disk is copied into memory; what is fetched goes into
 * each tier that may have it and admits it. The bench of policies and the
 * simulation of traces both use it.
 */
import type { TierName } from '../cache/cache.js';
import type { Policy } from '../cache/policy/policy.js';
import type { Admission } from '../cache/policy/second-hit.js';

/** What a response weighs in each tier. Null: that tier may not have it. */
export interface TierWeights {
  readonly memoryBytes: number | null;
  readonly diskBytes: number | null;
}

export class SimulatedTiers {
  readonly #memory: Policy | null;
  readonly #disk: Policy | null;
  #memoryEvictions = 0;
  #diskEvictions = 0;
  readonly #evictMemory = (): void => {
    this.#memoryEvictions += 1;
  };
  readonly #evictDisk = (): void => {
    this.#diskEvictions += 1;
  };

  /** Null: there is no such tier. */
  constructor(memory: Policy | null, disk: Policy | null) {
    this.#memory = memory;
    this.#disk = disk;
  }

  get evictions(): Readonly<Record<TierName, number>> {
    return { memory: this.#memoryEvictions, disk: this.#diskEvictions };
  }

  /** Where a key is stored. Counts a use. */
  find(key: string, { memoryBytes }: TierWeights): TierName | undefined {
    const inMemory = this.#memory?.handleOf(key);
    if (inMemory !== undefined) {
      this.#memory?.touchHandle(inMemory);
      return 'memory';
    }
    const onDisk = this.#disk?.handleOf(key);
    if (onDisk === undefined) return undefined;
    this.#disk?.touchHandle(onDisk);
    if (memoryBytes !== null) this.#memory?.admit(key, memoryBytes, this.#evictMemory);
    return 'disk';
  }

  /** Stores what was fetched, in place of what was stored under its key. True: it is written to disk. */
  store(key: string, { memoryBytes, diskBytes }: TierWeights, admission: Admission): boolean {
    this.remove(key);
    if (memoryBytes !== null) this.#memory?.admit(key, memoryBytes, this.#evictMemory);
    if (this.#disk === null || diskBytes === null || !admission.admits(key, diskBytes)) return false;
    return this.#disk.admit(key, diskBytes, this.#evictDisk);
  }

  has(key: string): boolean {
    return this.#memory?.has(key) === true || this.#disk?.has(key) === true;
  }

  remove(key: string): void {
    this.#memory?.remove(key);
    this.#disk?.remove(key);
  }

  clear(): void {
    this.#memory?.shrink(0, () => undefined);
    this.#disk?.shrink(0, () => undefined);
  }
}
