/** What the story answers, and how it hears that nobody waits for it any more. Types alone. */
import type { Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import type { Outcome } from './ops/tally.js';

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
