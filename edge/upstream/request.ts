/** A request to the origin and what it came to. */
import type { Readable } from 'node:stream';
import type { EpochMs } from '../../src/clock.js';
import type { HeaderList } from '../../src/http/reply.js';

export interface UpstreamRequest {
  readonly method: string;
  /** Origin form. */
  readonly target: string;
  /** End-to-end fields. Host and framing are added when it is sent. */
  readonly headers: HeaderList;
  readonly body?: Buffer;
  /** The network of the client that it is for. Called only if that client is slow. */
  client?(): string;
  /** Called for each interim response (RFC 9110 15.2). */
  onInterim?(status: number, headers: HeaderList): void;
}

/** Why there is no response. */
export type UpstreamFailure =
  | 'connect'
  | 'connect_timeout'
  | 'tls'
  | 'head_timeout'
  | 'reset'
  /** The bytes received are no HTTP response that is understood here, or its head is too large. */
  | 'garbage'
  /** It answered from an earlier state than this edge knows of (fenced.ts). */
  | 'outdated'
  /** It answers nothing, not even `/healthz`, and another origin was there to ask. */
  | 'silent'
  | 'breaker_open'
  | 'overloaded'
  /** The caller's signal aborted. */
  | 'left';

export interface Answered {
  readonly kind: 'answered';
  readonly status: number;
  /** End-to-end fields only, in the order sent, names in lower case, values as latin-1. */
  readonly headers: HeaderList;
  /** Must be read to its end or destroyed. Fails if the origin sends fewer bytes than it announced. */
  readonly body: Readable;
  /** The whole body, read at once, if all of it has arrived; undefined, and nothing is read, if not. Absent: never. */
  takeWhole?(): Buffer | undefined;
  /** The size that the origin announced, or null. */
  readonly sizeBytes: number | null;
  /** Resolves when the origin has sent the last byte, or will send no more. The body may still be read then. */
  readonly received: Promise<void>;
  readonly requestedAt: EpochMs;
  readonly receivedAt: EpochMs;
}

export type UpstreamOutcome =
  | Answered
  | {
      readonly kind: 'failed';
      readonly failure: UpstreamFailure;
      /** The error of the connection, for the log. */
      readonly cause?: Error;
    };

/** Reads a whole body. Undefined if it is longer than `maxBytes` or fails. */
export async function readAtMost(
  body: AsyncIterable<Buffer> & { destroy(): unknown },
  maxBytes: number,
): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of body) {
      sizeBytes += chunk.length;
      if (sizeBytes > maxBytes) return undefined;
      chunks.push(chunk);
    }
    return Buffer.concat(chunks, sizeBytes);
  } catch {
    return undefined;
  }
}
