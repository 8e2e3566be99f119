/**
 * Admission for a tier whose writes are expensive: a key is admitted when it is
 * asked for the second time, provided that between the two times no more than
 * `rememberedBytes` were asked for the first time. A response that is asked for
 * once is never written.
 * (B. M. Maggs, R. K. Sitaraman, Algorithmic Nuggets in Content Delivery, CCR 2015,
 * section 3: cache on second hit.)
 */
import { RememberedKeys } from './remembered-keys.js';

export interface Admission {
  /** A key that is not stored is asked for. True: it may be written now. */
  admits(key: string, weightBytes: number): boolean;
  /** What `admits` would say. */
  wouldAdmit(key: string): boolean;
  /** Another size of what is remembered. */
  resize(rememberedBytes: number): void;
}

/** Admits everything. */
export const ALWAYS: Admission = { admits: () => true, wouldAdmit: () => true, resize: () => undefined };

export function createSecondHit(rememberedBytes: number): Admission {
  const seenOnce = new RememberedKeys(rememberedBytes);
  return {
    admits(key, weightBytes) {
      if (seenOnce.take(key)) return true;
      seenOnce.add(key, weightBytes);
      return false;
    },
    wouldAdmit: (key) => seenOnce.has(key),
    resize: (bytes) => seenOnce.resize(bytes),
  };
}
