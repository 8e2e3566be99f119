/**
 * What passing a request works with: its settings, what the composition root
 * hands it, and what goes with each request. Declarations alone.
 */
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../../src/config/field.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { OriginTls } from '../upstream/tls.js';

export const passSection = section(
  'Requests that are passed through to the origin: uploads and all but GET and HEAD.',
  {
    concurrentMax: integer({
      default: 256,
      min: 1,
      max: 65_536,
      help: 'Requests passed at once; one more is answered 503.',
    }),
    connectTimeoutMs: duration({
      default: '5s',
      min: 50,
      max: 120_000,
      help: 'How long a connection to the origin may take.',
    }),
    idleTimeoutMs: duration({
      default: '30s',
      min: 50,
      max: 3_600_000,
      help: 'How long the origin may neither take nor give a byte, where it is its turn.',
    }),
    clientTimeoutMs: duration({
      default: '30s',
      min: 50,
      max: 3_600_000,
      help: 'How long the client may neither send nor take a byte, where it is its turn.',
    }),
    keepAliveMs: duration({
      default: '4s',
      min: 0,
      max: 600_000,
      help: 'How long an unused connection is kept. Shorter than the origin keeps it.',
    }),
    continueWaitMs: duration({
      default: '1s',
      min: 0,
      max: 60_000,
      help: 'How long a body is held back until the origin says that it wants it (100 Continue).',
    }),
    askFromBytes: size({
      default: '64KiB',
      min: 0,
      help: 'Bodies of at least this size, or of unknown size, are held back until the origin says that it wants them.',
    }),
    drainMaxBytes: size({
      default: '64MiB',
      min: 0,
      help: 'What is read and thrown away of a body that the origin has refused, so that the client can read why.',
    }),
    drainWithinMs: duration({ default: '30s', min: 0, max: 600_000, help: 'How long that may take.' }),
    drainIdleMs: duration({
      default: '1s',
      min: 0,
      max: 60_000,
      help: 'A client that has sent nothing for so long after a refusal has stopped, and the connection is closed.',
    }),
  },
);

export type PassConfig = ValueOf<typeof passSection>;

/** A request of an unsafe method that the origin answered without an error (RFC 9111 4.4). */
export interface UnsafeAnswer {
  readonly method: string;
  readonly target: string;
  readonly status: number;
  readonly location: string | undefined;
  readonly contentLocation: string | undefined;
}

/** A passed request's answer, its body still to come. */
export interface PassedAnswer {
  readonly method: string;
  readonly target: string;
  header(name: string): string | undefined;
  readonly status: number;
  /** Names in lower case. */
  readonly headers: HeaderList;
  /** From the request to the head of its answer. */
  readonly tookMs: number;
}

/** Takes a body on its way past. */
export interface BodySink {
  /** Resolves when the next chunk may come. */
  write(chunk: Buffer): Promise<void>;
  end(): void;
  /** Nothing is kept, whoever broke it off; without effect after the end. */
  abort(reason: Error): void;
}

export interface PassDeps {
  readonly config: PassConfig;
  /** `http://host:port` or `https://…`, without a path. */
  readonly originUrl: string;
  readonly originTls: OriginTls;
  /** What stands in Via, and in Cache-Status. */
  readonly edgeName: string;
  /** Done before the client sees the answer; must not throw. */
  onUnsafe(answer: UnsafeAnswer): Promise<void> | void;
  /** Asked after that; what it gives is handed the body on its way past. */
  keep?(answer: PassedAnswer): BodySink | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface PassContext {
  readonly requestId: string;
  /** After trusted proxies were taken into account. */
  readonly clientAddress: string;
  /** Ends when the process must not wait any longer. */
  readonly signal: AbortSignal;
}
