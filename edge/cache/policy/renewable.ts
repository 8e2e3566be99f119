/**
 * The policy of a tier in use, whose capacity, kind and parameters may change
 * while the tier serves. A larger capacity holds at once. A smaller one is reached
 * in steps, and another policy gets the keys of the former one in steps: the next
 * victims first, with their weights and uses, so that their order stays. The
 * caller makes the steps, one in each turn of the event loop (settle.ts).
 *
 * Promises: no step does more than a bounded amount of work, and nothing is evicted
 * for an exchange of policies alone.
 */
import type { Evict, Policy } from './policy.js';
import { createPolicy, type PolicyName, type PolicyParameters } from './registry.js';

export interface PolicySettings {
  readonly name: PolicyName;
  readonly capacityBytes: number;
  readonly parameters: PolicyParameters;
}

/** What one step evicts. */
const STEP_BYTES = 2_097_152;
/** The keys that one step hands over. */
const STEP_KEYS = 500;

export class RenewablePolicy {
  #settings: PolicySettings;
  #current: Policy;
  /** Those whose keys are being handed over, the longest first. */
  #formers: Policy[] = [];
  /** What the keys may weigh now: more than the capacity while it is being reached. */
  #allowedBytes: number;

  constructor(settings: PolicySettings) {
    this.#settings = settings;
    this.#current = policyOf(settings);
    this.#allowedBytes = settings.capacityBytes;
  }

  /** That of the settings, which may not be reached yet. */
  get capacityBytes(): number {
    return this.#settings.capacityBytes;
  }

  get allowedBytes(): number {
    return this.#allowedBytes;
  }

  get mayRefuse(): boolean {
    return this.#current.mayRefuse;
  }

  get usedBytes(): number {
    return this.#formers.reduce((sum, each) => sum + each.usedBytes, this.#current.usedBytes);
  }

  get count(): number {
    return this.#formers.reduce((sum, each) => sum + each.count, this.#current.count);
  }

  /** False: nothing is left to do. Otherwise `step` has to be called until it says so. */
  renew(settings: PolicySettings): boolean {
    const before = this.#settings;
    this.#settings = settings;
    this.#allowedBytes = Math.max(settings.capacityBytes, Math.min(this.#allowedBytes, this.usedBytes));
    if (kindOf(before) !== kindOf(settings)) {
      if (this.#current.count > 0) this.#formers.push(this.#current);
      this.#current = policyOf(settings);
    }
    this.#current.resize(this.#allowedBytes);
    return !this.#isSettled;
  }

  /** `moved`: a key has another handle. True once nothing is left to do. */
  step(evict: Evict, moved: (key: string, handle: number) => void): boolean {
    if (this.#allowedBytes > this.capacityBytes) this.#narrow(evict);
    else this.#handOver(moved);
    return this.#isSettled;
  }

  /** Forgets all keys. */
  clear(): void {
    this.#formers = [];
    this.#allowedBytes = this.capacityBytes;
    this.#current = policyOf(this.#settings);
  }

  touch(key: string): void {
    this.#holderOf(key)?.touch(key);
  }

  /** Counts a use of a key with its handle, which spares the look-up. */
  use(key: string, handle: number): void {
    if (this.#formers.length === 0) this.#current.touchHandle(handle);
    else this.touch(key);
  }

  /** Of a key that was just admitted. */
  handleOf(key: string): number | undefined {
    return this.#current.handleOf(key);
  }

  /** As Policy.admit. */
  admit(key: string, weightBytes: number, evict: Evict): boolean {
    for (const former of this.#formers) former.remove(key);
    if (weightBytes > this.capacityBytes) {
      this.#current.remove(key);
      return false;
    }
    for (const former of this.#formers) {
      const overBytes = this.usedBytes + weightBytes - this.#allowedBytes;
      if (overBytes > 0) former.shrink(Math.max(0, former.usedBytes - overBytes), evict);
    }
    return this.#current.admit(key, weightBytes, evict);
  }

  shrink(toBytes: number, evict: Evict): void {
    for (const former of this.#formers) {
      const overBytes = this.usedBytes - toBytes;
      if (overBytes > 0) former.shrink(Math.max(0, former.usedBytes - overBytes), evict);
    }
    const formersBytes = this.usedBytes - this.#current.usedBytes;
    this.#current.shrink(Math.max(0, toBytes - formersBytes), evict);
  }

  remove(key: string): void {
    for (const former of this.#formers) former.remove(key);
    this.#current.remove(key);
  }

  has(key: string): boolean {
    return this.#holderOf(key) !== undefined;
  }

  get #isSettled(): boolean {
    return this.#allowedBytes === this.capacityBytes && this.#formers.length === 0;
  }

  #holderOf(key: string): Policy | undefined {
    return this.#current.has(key) ? this.#current : this.#formers.find((each) => each.has(key));
  }

  /** Towards a smaller capacity. */
  #narrow(evict: Evict): void {
    this.#allowedBytes = Math.max(this.capacityBytes, Math.min(this.#allowedBytes, this.usedBytes) - STEP_BYTES);
    this.shrink(this.#allowedBytes, evict);
    this.#current.resize(this.#allowedBytes);
  }

  #handOver(moved: (key: string, handle: number) => void): void {
    for (let keys = 0; keys < STEP_KEYS; keys += 1) {
      const [former] = this.#formers;
      if (former === undefined) return;
      for (const carried of former.handOver()) {
        this.#current.adopt(carried);
        const handle = this.#current.handleOf(carried.key);
        if (handle !== undefined) moved(carried.key, handle);
      }
      if (former.count === 0) this.#formers.shift();
    }
  }
}

function policyOf({ name, capacityBytes, parameters }: PolicySettings): Policy {
  return createPolicy(name, capacityBytes, parameters);
}

/** All that makes it another policy. */
function kindOf({ name, parameters }: PolicySettings): string {
  return JSON.stringify([name, parameters]);
}
