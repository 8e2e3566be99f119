/**
 * A client's request and the answer to it as plain values, whoever received the
 * request: node:http, HTTP/2 or our own parser. The edge decides everything from
 * these values. No server's request object goes further than the file that makes
 * an EdgeRequest of it.
 */
import type { HeaderList, Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';

export interface EdgeRequest {
  /** As received; upper case for all that the edge knows. */
  readonly method: string;
  /** The request target in origin form, as received. */
  readonly target: string;
  /** The target up to `?`. */
  readonly path: string;
  /** The target behind `?`; empty where there is none. */
  readonly query: string;
  /** A field's value by lower-case name, several lines joined by `, ` (RFC 9110 5.3). */
  header(name: string): string | undefined;
  /** The same object for requests with the very same fields, where whoever received them can tell. */
  readonly carrier?: object;
  /** Every field line as received, names in lower case: for what is sent on to the origin. */
  fields(): HeaderList;
  /** Passes an interim answer of the origin on, if whoever received the request can (RFC 9110 15.2). */
  inform?(status: number, headers: HeaderList): void;
  /** Made by the edge, or a well-formed one of the client. */
  readonly requestId: string;
}

/** Tells when the exchange with the client is over, whether it was answered or left. The signal is made when it is first asked for. */
export interface ClientSignal {
  gone(): AbortSignal;
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

/** How a request ended, seen from the cache. */
export const OUTCOMES = [
  'hit_memory',
  'hit_disk',
  'hit_filling',
  'stale',
  'revalidated',
  'miss',
  'pass',
  'refused',
  'failed',
  /** Of the edge itself: its health. */
  'own',
] as const;
export type Outcome = (typeof OUTCOMES)[number];
