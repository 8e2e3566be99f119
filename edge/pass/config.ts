/** Settings of passing requests on, its dependencies, and what comes with each request. Declarations only. */
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../../src/config/field.js';
import type { Fault } from '../../src/errors.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { Trace } from '../../src/tracing/context.js';
import type { RateLimits } from '../rate-limits.js';
import type { CacheMode } from '../rfc9111/storable.js';
import type { Origin } from '../upstream/origin.js';
import type { OriginTls } from '../upstream/tls.js';

export const passSection = section(
  'Requests that are passed to the origin: uploads, and every method except GET and HEAD.',
  {
    concurrentMax: integer({
      default: 256,
      min: 1,
      max: 65_536,
      help: 'Most requests that are passed on at once. Further requests are answered 503.',
    }),
    reservedMax: integer({
      default: 32,
      min: 0,
      max: 65_536,
      help: 'Of these, how many only admins may use. As many again are for requests without a body, so that uploads cannot take them. Each is at most a quarter of all.',
    }),
    perClientMax: integer({
      default: 64,
      min: 0,
      max: 65_536,
      help: 'Most requests with a body, and most without one, that are passed on at once for one address (or one /64 network of IPv6) and for one subject. 0: any number, for use behind a proxy that is not one of `trusted_proxies`. Admins have no such limit.',
    }),
    connectTimeoutMs: duration({
      default: '5s',
      min: 50,
      max: 120_000,
      help: 'Longest time to open a connection to an origin.',
    }),
    idleTimeoutMs: duration({
      default: '30s',
      min: 50,
      max: 3_600_000,
      help: 'Longest time that the origin may stay idle while the edge waits for it to read or to respond.',
    }),
    clientTimeoutMs: duration({
      default: '30s',
      min: 50,
      max: 3_600_000,
      help: 'Longest time that the client may stay idle while the edge waits for it to send or to read.',
    }),
    keepAliveMs: duration({
      default: '4s',
      min: 0,
      max: 600_000,
      help: 'How long an unused connection to the origin stays open. Should be shorter than the origin’s own limit.',
    }),
    continueWaitMs: duration({
      default: '1s',
      min: 0,
      max: 60_000,
      help: 'Longest wait for the origin’s 100 (Continue). After that, the body is sent.',
    }),
    askFromBytes: size({
      default: '64KiB',
      min: 0,
      help: 'A body of at least this size, or of unknown size, waits for the origin’s 100 (Continue). With several origins every body does, as long as another one can be asked.',
    }),
    drainMaxBytes: size({
      default: '64MiB',
      min: 0,
      help: 'Most bytes of a refused body that are read and dropped, so that the client can read the answer.',
    }),
    drainWithinMs: duration({
      default: '30s',
      min: 0,
      max: 600_000,
      help: 'Longest time for reading and dropping a refused body.',
    }),
    drainIdleMs: duration({
      default: '1s',
      min: 0,
      max: 60_000,
      help: 'The connection closes when the client has sent nothing for this long after a refusal.',
    }),
    drainsMax: integer({
      default: 128,
      min: 0,
      max: 65_536,
      help: 'Most refused bodies that are read and dropped at once. Beyond this number, the connection closes at once. They do not count as requests that are passed on.',
    }),
    drainsPerClientMax: integer({
      default: 16,
      min: 0,
      max: 65_536,
      help: 'The same, for one address or one /64 network of IPv6. 0: any number.',
    }),
  },
);

export type PassConfig = ValueOf<typeof passSection>;

/** A request of an unsafe method that succeeded at the origin (RFC 9111 4.4). */
export interface UnsafeAnswer {
  readonly method: string;
  readonly target: string;
  readonly status: number;
  readonly location: string | undefined;
  readonly contentLocation: string | undefined;
}

/** The head of the response to a passed request. */
export interface PassedAnswer {
  readonly method: string;
  readonly target: string;
  header(name: string): string | undefined;
  readonly status: number;
  /** Names in lower case. */
  readonly headers: HeaderList;
  /** Time from the request to this head. */
  readonly tookMs: number;
}

/** Gets a copy of a body while it is sent to the client. */
export interface BodySink {
  /** Resolves when the next chunk may be written. */
  write(chunk: Buffer): Promise<void>;
  end(): void;
  /** The body failed: nothing is kept. Does nothing after `end`. */
  abort(reason: Error): void;
}

/** An origin, and what is learnt of it while a request is passed. */
export type PassOrigin = Pick<Origin, 'url' | 'watch' | 'heard' | 'doubted' | 'lost'>;

export interface PassDeps {
  readonly config: PassConfig;
  /** The origins in the order in which to ask them for a client, at least one. */
  readonly origins: { inOrder(key: string): readonly PassOrigin[] };
  readonly originTls: OriginTls;
  readonly mode: CacheMode;
  /** The name of this edge in Via and Cache-Status. */
  readonly edgeName: string;
  /** Limits what a client makes this edge ask of the origin. */
  readonly rates: RateLimits;
  /** Called before the client gets the response. If it rejects, the client gets an error instead. */
  onUnsafe(answer: UnsafeAnswer): Promise<void> | void;
  /** Called after `onUnsafe`. Returns where a copy of the body goes, if anywhere. */
  keep?(answer: PassedAnswer): BodySink | undefined;
  /** Called whenever the origin has answered. */
  onAnswered?(): void;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** What the edge knows of the sender of a request that is passed on. The origin judges the credential again. */
export interface PassSender {
  /** Of a valid token. */
  readonly subject: string | undefined;
  readonly admin: boolean;
  /** If the request has a body, this answer is sent in place of the origin's. */
  refuseBody?(): Fault;
}

export interface PassContext {
  readonly requestId: string;
  readonly trace?: Trace | undefined;
  readonly sender: PassSender;
  /** The client's address, after trusted proxies were taken into account. */
  readonly clientAddress: string;
  /** Aborts when the process stops. */
  readonly signal: AbortSignal;
}
