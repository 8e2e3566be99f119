/**
 * What the story works with, made once by the composition root. Types alone.
 */
import type { Gate } from '../src/access/grant.js';
import type { Clock } from '../src/clock.js';
import type { Log } from '../src/log.js';
import type { ThumbMenu } from '../src/media/thumb-choice.js';
import type { CacheMode } from './cache/storable.js';
import type { Handling } from './cache-status.js';
import type { EdgePolicy } from './config.js';
import type { DecideRules } from './decide.js';
import type { FillParts } from './fill-parts.js';
import type { Flights } from './flight.js';
import type { LeaseVerdict } from './journal/lease.js';
import type { AimRules } from './key.js';
import type { Landing } from './landing.js';
import type { RespondRules } from './respond.js';

export interface Engine {
  readonly mode: CacheMode;
  /** Null in generic mode: nobody is asked. */
  readonly gate: Gate | null;
  readonly aims: AimRules;
  /** Undefined until the origin has told its thumbnails. */
  menu(): ThumbMenu | undefined;
  /** What may be done with copies of media now. */
  lease(): LeaseVerdict;
  readonly fills: FillParts;
  readonly flights: Flights<Landing>;
  readonly deciding: DecideRules;
  /** May be replaced while the edge runs. */
  policy(): EdgePolicy;
  responding(): RespondRules;
  cacheStatus(handling: Handling): string;
  readonly clock: Clock;
  readonly log: Log;
}
