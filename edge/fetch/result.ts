/** What a fetch from the origin came to (fill.ts). Types alone. */
import type { HeaderList } from '../../src/http/reply.js';
import type { Fill } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { Answered, UpstreamFailure } from '../upstream/request.js';
import type { FlightEnd } from './flight.js';
import type { RuleResult } from './rules.js';
import type { Uncacheable } from './uncacheable.js';

/** The same for all callers who wait for the fetch. */
export type FetchResult =
  /** A body arrives and is stored. Every caller whom its entry fits may read it, until the flight is finished. */
  | {
      readonly kind: 'arriving';
      readonly fill: Fill;
      /** The status of the origin's response: 206 if only missing ranges are fetched. */
      readonly status: number;
      /** RFC 9111 5.2.2.4, 5.2.2.7: fields of the response that may not be stored. The caller who caused the fetch gets them. */
      readonly unstoredFields: HeaderList;
      isFinished(): boolean;
    }
  /** 304: the stored response is valid, under this newer entry. */
  | { readonly kind: 'revalidated'; readonly entry: Entry }
  /** The response to HEAD, as the entry that a GET would store. */
  | { readonly kind: 'head'; readonly entry: Entry; readonly ruleResult: RuleResult; readonly answered: Answered }
  /** A small complete response that is not stored: all who wait get it. */
  | { readonly kind: 'shared'; readonly response: SmallResponse }
  /** A response for one caller: the first who takes it. */
  | {
      readonly kind: 'unshared';
      readonly why: Uncacheable;
      readonly method: 'GET' | 'HEAD';
      readonly status: number;
      take(): Answered | undefined;
    }
  | FetchEnd;

/** A fetch that brought no response. */
export type FetchEnd =
  | { readonly kind: 'failed'; readonly failure: UpstreamFailure }
  /** `overloaded`: it was not started, because too many fetches are in progress. */
  | { readonly kind: 'ended'; readonly why: FlightEnd | 'overloaded' };

export interface SmallResponse {
  readonly status: number;
  readonly headers: HeaderList;
  readonly bytes: Buffer;
}
