/**
 * A request as the origin's stories see it: plain values, its body, and who
 * stands behind it. Made in exchange.ts alone.
 */
import type { Readable } from 'node:stream';
import type { EpochMs } from '../../src/clock.js';
import type { RequestHead } from '../../src/http/conditional.js';
import type { LogFields } from '../../src/log.js';
import type { Meter } from './rate-limits.js';

/** Whether an edge has proved itself, and on whose behalf it asks. */
export type Sender = 'client' | 'edge' | 'edge_for_anonymous';

export interface OriginRequest extends RequestHead {
  /** Crosses from edge to origin, and back to the client. */
  readonly id: string;
  /** As received, without the query. */
  readonly path: string;
  /** As received, without `?`; empty where there is none. */
  readonly query: string;
  readonly sender: Sender;
  /** The client's address, behind trusted proxies too. */
  readonly address: string;
  readonly receivedAt: EpochMs;
  /** Aborts when the client has gone or the service closes. */
  readonly signal: AbortSignal;
  readonly body: RequestBody;
  /** Counts the request against the limits of whoever makes it. */
  readonly meter: Meter;
  /** Adds fields to the request's line in the log. */
  note(fields: LogFields): void;
}

export interface RequestBody {
  /** What Content-Length says; null for a body of unknown length, 0 for none. */
  readonly sizeBytes: number | null;
  /** The bytes. Asking for them tells a client that waits for 100 Continue to send. */
  open(): Readable;
}
