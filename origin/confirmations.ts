/**
 * Which edges follow the journal and how far each has applied it. In memory
 * only: an edge that comes back tells where it stands by where it asks to
 * go on from.
 */
import type { EpochMs } from '../src/clock.js';

export interface EdgePosition {
  readonly edge: string;
  readonly instance: string;
  readonly connected: boolean;
  readonly connectedAt: EpochMs;
  /** The newest number sent on its stream. */
  readonly sent: number;
  /** The newest number it has applied, as far as it has told. */
  readonly confirmed: number;
  readonly heardAt: EpochMs;
}
