/**
 * A client's request and the answer to it as plain values, the same for node:http,
 * HTTP/2 and our own parser. The handler sees only these values; request objects
 * of a server stay in `server/`.
 */
import type { HeaderList, Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import type { PassSender } from './pass/config.js';

export interface EdgeRequest {
  /** As received. Methods are case-sensitive (RFC 9110 9.1). */
  readonly method: string;
  /** The request target in origin form, as received. */
  readonly target: string;
  /** The target up to `?`. */
  readonly path: string;
  /** The target after `?`; empty without one. */
  readonly query: string;
  /** The value of a field, by its name in lower case. Several lines are joined by `, ` (RFC 9110 5.3). */
  header(name: string): string | undefined;
  /** Given if the server can tell that requests have equal fields: these requests share one object. */
  readonly carrier?: object;
  /** All field lines as received, names in lower case. They are forwarded to the origin. */
  fields(): HeaderList;
  /** For the origin and for limits. Not read for a hit. */
  sender(): RequestSender;
  /** Passes an interim response of the origin on to the client (RFC 9110 15.2), if the server can. */
  inform?(status: number, headers: HeaderList): void;
  /** The client's own if it is well formed, else made by the edge. */
  readonly requestId: string;
}

export interface RequestSender {
  /** The client's address, after trusted proxies were taken into account. */
  readonly address: string;
  readonly scheme: 'http' | 'https';
}

/** Aborts when the client is gone or its answer is complete. The signal is made when it is first needed. */
export interface ClientSignal {
  gone(): AbortSignal;
}

/** What the handler decided to send. */
export type Answer =
  | {
      readonly kind: 'reply';
      readonly reply: Reply;
      readonly outcome: Outcome;
      /** The media that it shows. A takedown breaks the answer off by this id. */
      readonly mediaId: MediaId | null;
    }
  /** The request is passed on to the origin as it is. */
  | { readonly kind: 'pass'; readonly outcome: 'pass'; readonly sender: PassSender }
  /** A request for links to many media, of a caller who may have them (edge/links.ts). */
  | { readonly kind: 'links'; readonly outcome: 'own' }
  /** A request of an edge behind this one about the journal (edge/journal/behind.ts). */
  | { readonly kind: 'of_edge'; readonly outcome: 'own' };

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
  /** An answer about the edge itself, such as its health. */
  'own',
] as const;
export type Outcome = (typeof OUTCOMES)[number];
