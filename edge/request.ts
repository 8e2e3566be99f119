/**
 * A client's request and the answer to it as plain values, the same for node:http,
 * HTTP/2 and our own parser. The handler sees only these values; request objects
 * of a server stay in `server/`.
 */
import type { Caller } from '../src/access/grant.js';
import type { HeaderList, Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import type { Trace } from '../src/tracing/context.js';
import type { Entry } from './entry.js';
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
  /** Such as `HTTP/1.1`. */
  readonly protocol?: string;
  /** Set when it is answered, if it has one. */
  trace?: Trace | undefined;
  /** Set once a token has proved who asks; for the log. */
  caller?: Caller | undefined;
}

export interface RequestSender {
  /** The client's address, after trusted proxies were taken into account. */
  readonly address: string;
  readonly scheme: 'http' | 'https';
  /** The address of the connection's other end. */
  readonly peer?: string | undefined;
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
      /** For operators: the tier or rule of a hit, why the origin was asked, or why it was refused. */
      readonly reason?: string | undefined;
      /** For operators: the tier of the stored response that it shows. */
      readonly tier?: 'memory' | 'disk' | undefined;
      /** For operators: the response of the cache that it shows, if it shows one. */
      readonly entry?: Entry | undefined;
    }
  /** The request is passed on to the origin as it is. */
  | { readonly kind: 'pass'; readonly outcome: 'pass'; readonly sender: PassSender }
  /** A request for links to many media, of a caller who may have them (edge/links.ts). */
  | { readonly kind: 'links'; readonly outcome: 'own' }
  /** A request of an edge behind this one about the journal (edge/journal/behind.ts). */
  | { readonly kind: 'of_edge'; readonly outcome: 'own' };

/** Why the origin was asked about a request that the cache could not answer alone. */
export const MISS_REASONS = [
  'never_seen',
  /** What is stored is stale, or its media have expired. */
  'expired',
  'evicted',
  'purged',
  'taken_down',
  'invalidated',
  'corrupt',
  /** It was fetched before, and was not stored. */
  'not_stored',
  /** Only responses that Vary keeps for other requests are stored. */
  'variant',
  /** Only some ranges of it are stored. */
  'partial',
  /** The request demands a fresher response than the stored one. */
  'request',
  /** The edge is cut off from the journal, and may not use what is stored. */
  'lease',
  /** Such requests do not use the cache. */
  'bypass',
] as const;
export type MissReason = (typeof MISS_REASONS)[number];

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

/** How an exchange ended. */
export interface Ended {
  readonly outcome: Outcome;
  /** 0: no answer was begun. */
  readonly status: number;
  readonly sentBytes: number;
  /** Whether the whole answer was handed to the connection. */
  readonly complete: boolean;
  readonly tookMs: number;
}

/** An ended request as operators may see it. */
export interface Exchanged extends Ended {
  /** Undefined: there was none before the client left. */
  readonly answer: Answer | undefined;
  /** How long it took until there was an answer to send. */
  readonly decidedMs: number;
}
