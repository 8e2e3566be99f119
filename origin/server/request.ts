/**
 * A request as the origin's handlers see it: plain values, its body, and who
 * sent it. Made only by exchange.ts.
 */
import type { Readable } from 'node:stream';
import type { Caller } from '../../src/access/grant.js';
import type { EpochMs } from '../../src/clock.js';
import type { RequestHead } from '../../src/http/conditional.js';
import type { LogFields } from '../../src/log.js';
import type { Trace } from '../../src/tracing/context.js';
import type { Meter } from './rate-limits.js';

/** Who sent it: a client, or an edge that has proved itself and asks for a caller with or without a credential. */
export type Sender = 'client' | 'edge' | 'edge_for_anonymous';

export interface OriginRequest extends RequestHead {
  /** The same in the logs of edge and origin, and in the response. */
  readonly id: string;
  readonly trace?: Trace | undefined;
  /** As received, without the query. */
  readonly path: string;
  /** As received, without `?`; empty if there is none. */
  readonly query: string;
  readonly sender: Sender;
  /** The client's address, behind trusted proxies too. */
  readonly address: string;
  readonly receivedAt: EpochMs;
  /** Aborts when the client has left or the service closes. */
  readonly signal: AbortSignal;
  readonly body: RequestBody;
  /** Counts the request against the rate limits of its sender. */
  readonly meter: Meter;
  /** Says for the log who proved to send it. */
  identify(caller: Caller): void;
  /** Adds fields to the request's line in the log. `outcome` replaces the one that the status gives. */
  note(fields: LogFields): void;
}

export interface RequestBody {
  /** What Content-Length says; null for a body of unknown length, 0 for none. */
  readonly sizeBytes: number | null;
  /** The bytes. Sends 100 Continue to a client that waits for it. */
  open(): Readable;
}
