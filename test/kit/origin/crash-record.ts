/** What crash-writer.ts writes down of its doings. */
import type { MediaId, Sha256 } from '../../../src/ids.js';

export type CrashLine =
  /** Acknowledged. `mortal`: it has an expiry. */
  | {
      readonly did: 'upload';
      readonly id: MediaId;
      readonly sha256: Sha256;
      readonly sizeBytes: number;
      readonly mortal: boolean;
    }
  | { readonly did: 'remove'; readonly id: MediaId; readonly seq: number }
  /** Told to a subscriber. */
  | { readonly did: 'journal'; readonly seq: number }
  /** About to be asked for: it may or may not have come to pass. */
  | { readonly will: 'remove'; readonly id: MediaId };
