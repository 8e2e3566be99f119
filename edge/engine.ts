/**
 * What the story works with, made once by the composition root, and what it
 * answers. Types alone.
 */
import type { Gate } from '../src/access/grant.js';
import type { Clock } from '../src/clock.js';
import type { Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import type { Log } from '../src/log.js';
import type { ThumbMenu } from '../src/media/thumb-choice.js';
import type { CacheMode } from './cache/storable.js';
import type { Handling } from './cache-status.js';
import type { EdgePolicy } from './config.js';
import type { DecideRules } from './decide.js';
import type { FillParts, Landing } from './fill.js';
import type { Flights } from './flight.js';
import type { LeaseVerdict } from './journal/lease.js';
import type { AimRules } from './key.js';
import type { Outcome } from './ops/stats.js';
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

/** Ends when the exchange with the client is over, well or not. The signal is made when it is first asked for. */
export interface Leaving {
  leaving(): AbortSignal;
}

export type Answer =
  | {
      readonly kind: 'reply';
      readonly reply: Reply;
      readonly outcome: Outcome;
      /** The media that it shows, so that a takedown can cut it off. */
      readonly mediaId: MediaId | null;
    }
  /** To be handed to the origin as it came. */
  | { readonly kind: 'pass'; readonly outcome: 'pass' };
