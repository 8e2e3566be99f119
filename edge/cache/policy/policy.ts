/**
 * A replacement policy is three verbs over keys and weights, and a fourth for a
 * tier whose room has become less. It names victims and never touches what it
 * names; the tier does. No IO, no clock: time is the
 * order of calls. After every call the weights it holds are within its capacity.
 */

export interface Policy {
  readonly name: string;
  readonly capacityBytes: number;
  /** A use of a key. Unknown keys are ignored. */
  touch(key: string): void;
  /**
   * A key asks for room; one that is held is removed first. Calls `evict` for
   * each victim, which the policy has forgotten by then; `evict` must not call
   * back. False: it does not take the key, and holds nothing of it but what it
   * may remember for next time; it may have named victims all the same.
   */
  admit(key: string, weightBytes: number, evict: (victim: string) => void): boolean;
  /** Less is left than its capacity: names those who go until what it holds weighs no more than `toBytes`. */
  shrink(toBytes: number, evict: (victim: string) => void): void;
  /** The key is gone for other reasons. Unknown keys are ignored. */
  remove(key: string): void;
  has(key: string): boolean;
  readonly usedBytes: number;
  readonly count: number;
}
