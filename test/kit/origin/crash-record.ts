/** The lines that crash-writer.ts writes to its record file. */
import type { MediaId, Sha256 } from '../../../src/ids.js';

export type CrashLine =
  /** An upload was acknowledged. `mortal`: it has an expiry. */
  | {
      readonly did: 'upload';
      readonly id: MediaId;
      readonly sha256: Sha256;
      readonly sizeBytes: number;
      readonly mortal: boolean;
    }
  | { readonly did: 'remove'; readonly id: MediaId; readonly seq: number }
  /** A subscriber was notified of an entry. */
  | { readonly did: 'journal'; readonly seq: number }
  /** A removal is about to start. It may or may not have happened. */
  | { readonly will: 'remove'; readonly id: MediaId };
