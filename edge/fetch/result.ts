/** What comes of a trip to the origin (fill.ts). Types alone. */
import type { HeaderList } from '../../src/http/reply.js';
import type { Fill } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { StoreRefusal } from '../rfc9111/storable.js';
import type { Answered, UpstreamFailure } from '../upstream/request.js';
import type { FlightEnd } from './flight.js';
import type { RuleResult } from './rules.js';
import type { Uncacheable } from './uncacheable.js';

/** What a trip came to, for all who wait for it. */
export type FetchResult =
  /** A body is on its way in; anyone whom the entry fits may read it, until it is over. */
  | {
      readonly kind: 'arriving';
      readonly fill: Fill;
      /** What the origin answered: 206 where it brings only what was missing. */
      readonly status: number;
      /** RFC 9111 5.2.2.4, 5.2.2.7: what may not be kept of its head, for the caller who asked alone. */
      readonly unstoredFields: HeaderList;
      isFinished(): boolean;
    }
  /** 304: the stored copy holds, under a newer head. */
  | { readonly kind: 'refreshed'; readonly entry: Entry }
  /** The head that HEAD was asked for, and that a GET would have to keep. */
  | { readonly kind: 'head'; readonly entry: Entry; readonly ruleResult: RuleResult; readonly answered: Answered }
  /** Small, complete and not kept: the same for all who wait. */
  | { readonly kind: 'shared'; readonly answer: SmallAnswer; readonly refusal: StoreRefusal }
  /** For one caller: whoever takes it first. Nobody else can have it. */
  | {
      readonly kind: 'lone';
      readonly why: Uncacheable;
      readonly method: 'GET' | 'HEAD';
      readonly status: number;
      take(): Answered | undefined;
    }
  | { readonly kind: 'failed'; readonly failure: UpstreamFailure }
  | { readonly kind: 'ended'; readonly why: FlightEnd };

export interface SmallAnswer {
  readonly status: number;
  readonly headers: HeaderList;
  readonly bytes: Buffer;
}
