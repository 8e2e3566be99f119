/** Policies and admissions by their names in the configuration. */
import { createGdsf } from './gdsf.js';
import { createFifo, createLru } from './lru.js';
import type { Policy } from './policy.js';
import { createS3Fifo, type S3FifoParameters } from './s3-fifo.js';
import { type Admission, ALWAYS, createSecondHit } from './second-hit.js';
import { createSieve } from './sieve.js';
import { createWTinyLfu, type WTinyLfuParameters } from './w-tinylfu.js';

export const POLICY_NAMES = ['lru', 'fifo', 'sieve', 's3-fifo', 'gdsf', 'w-tinylfu'] as const;
export type PolicyName = (typeof POLICY_NAMES)[number];

export const ADMISSION_NAMES = ['always', 'second_hit'] as const;
export type AdmissionName = (typeof ADMISSION_NAMES)[number];

export type PolicyParameters = S3FifoParameters & WTinyLfuParameters;

export function createPolicy(name: PolicyName, capacityBytes: number, parameters: PolicyParameters): Policy {
  switch (name) {
    case 'lru':
      return createLru(capacityBytes);
    case 'fifo':
      return createFifo(capacityBytes);
    case 'sieve':
      return createSieve(capacityBytes);
    case 's3-fifo':
      return createS3Fifo(capacityBytes, parameters);
    case 'gdsf':
      return createGdsf(capacityBytes);
    case 'w-tinylfu':
      return createWTinyLfu(capacityBytes, parameters);
  }
}

export function createAdmission(name: AdmissionName, rememberedBytes: number): Admission {
  switch (name) {
    case 'always':
      return ALWAYS;
    case 'second_hit':
      return createSecondHit(rememberedBytes);
  }
}
