/**
 * A replacement policy: which keys a tier keeps, given their weights and uses.
 * It names victims; the tier removes them. No IO and no clock: time is the order
 * of the calls. After every call its keys weigh no more than its capacity.
 */

/** Receives a key that has to go. The policy has forgotten the key by then; do not call the policy from it. */
export type Evict = (victim: string) => void;

/** A key on its way from one policy to another. */
export interface Carried {
  readonly key: string;
  readonly weightBytes: number;
  /** How often it was used, as far as the policy before knows: at least 1, for its admission. */
  readonly uses: number;
}

export interface Policy {
  readonly capacityBytes: number;
  /** Another capacity from now on. If its keys weigh more than that, `shrink` has to follow before the next call. */
  resize(capacityBytes: number): void;
  /** Removes the next victim, for another policy. It may be several if a key weighs nothing; none if no key is left. */
  handOver(): readonly Carried[];
  /**
   * Takes over an unknown key, as the newest. Evicts and refuses nothing: the keys weigh no more than the capacity
   * with it, or the caller sees to that.
   */
  adopt(carried: Carried): void;
  /** Counts a use. Unknown keys are ignored. */
  touch(key: string): void;
  /** A number for a key that the policy has, until the key is removed or evicted. Undefined: it does not have the key. */
  handleOf(key: string): number | undefined;
  /** Counts a use of the key with this handle, without a look-up. */
  touchHandle(handle: number): void;
  /**
   * A key asks for room. If it is known, it is removed first. False: the policy
   * refuses it and forgets it, except for what it may remember for the next
   * time. It may have named victims in both cases.
   */
  admit(key: string, weightBytes: number, evict: Evict): boolean;
  /** Names victims until the keys weigh no more than `toBytes`. */
  shrink(toBytes: number, evict: Evict): void;
  /** The key is gone for another reason. Unknown keys are ignored. */
  remove(key: string): void;
  has(key: string): boolean;
  /** Whether it may refuse a key that weighs no more than its capacity. */
  readonly mayRefuse: boolean;
  readonly usedBytes: number;
  readonly count: number;
}
