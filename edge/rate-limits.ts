/**
 * Rate limits of what clients make the edge ask of the origin: responses that it
 * has not stored, and requests that it passes on. Hits do not count. The limits
 * are those that the origin states in `/.well-known`, so that clients read there
 * what holds, and nobody sets them twice. What edges behind this one ask for
 * counts there.
 *
 * Promises: memory is bounded, and a client at its limit costs others nothing.
 */
import type { Clock } from '../src/clock.js';
import { flag, integer, section, type ValueOf } from '../src/config/field.js';
import { Fault } from '../src/errors.js';
import type { Metrics } from '../src/metrics.js';
import { clientNetwork } from '../src/server/hygiene.js';
import { type Buckets, createBuckets } from '../src/server/token-buckets.js';

export const rateLimitsSection = section(
  'Rate limits of what clients make the edge ask of the origin. The numbers are those of origin.rate_limits, which the origin states in /.well-known; each edge counts by itself, and hits do not count.',
  {
    enabled: flag({
      default: true,
      live: true,
      help: 'Whether they hold. Not for an edge whose clients all have one address, behind a proxy that is not one of `trusted_proxies`.',
    }),
    keysMax: integer({
      default: 100_000,
      min: 100,
      help: 'Subjects, and addresses, that are counted at once. Beyond this number, the one that was seen longest ago is forgotten.',
    }),
  },
);

export type RateLimitsConfig = ValueOf<typeof rateLimitsSection>;

/** Requests in one window, as the origin states them. Null: no limit. */
export interface StatedRates {
  readonly windowMs: number;
  readonly subjectMax: number | null;
  readonly addressMax: number | null;
}

export interface RateLimits {
  /** Counts a request that the origin has to answer. Throws the refusal of a client at its limit. */
  admit(client: { readonly address: string; readonly subject: string | undefined }): void;
}

export interface RateLimitsDeps {
  readonly config: RateLimitsConfig;
  /** The same object while the origin states the same. Undefined: it has stated nothing. */
  readonly stated: () => StatedRates | undefined;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

interface Limiters {
  readonly of: StatedRates | undefined;
  readonly subject: Buckets | undefined;
  readonly address: Buckets | undefined;
}

export function createRateLimits({ config, stated, clock, metrics }: RateLimitsDeps): RateLimits {
  const refused = metrics.counter('edge_rate_limited_total', 'Requests refused by a rate limit.', ['limit']);
  let limiters = limitersOf(undefined, config.keysMax);

  function take(limit: 'subject' | 'address', key: string | undefined): void {
    const buckets = limiters[limit];
    if (buckets === undefined || key === undefined) return;
    const { admitted, retryInMs } = buckets.take(key, 1, clock.monotonicMs());
    if (admitted) return;
    refused.add(1, { limit });
    throw new Fault('rate_limited', 'Too many requests in a short time.', {
      headers: { 'retry-after': String(Math.max(1, Math.ceil(retryInMs / 1_000))) },
    });
  }

  return {
    admit({ address, subject }) {
      if (!config.enabled) return;
      const now = stated();
      if (now !== limiters.of) limiters = limitersOf(now, config.keysMax);
      take('address', clientNetwork(address));
      take('subject', subject);
    },
  };
}

function limitersOf(stated: StatedRates | undefined, keysMax: number): Limiters {
  const buckets = (pointsMax: number | null | undefined): Buckets | undefined =>
    stated === undefined || pointsMax === null || pointsMax === undefined
      ? undefined
      : createBuckets({ pointsMax, windowMs: stated.windowMs, keysMax });
  return { of: stated, subject: buckets(stated?.subjectMax), address: buckets(stated?.addressMax) };
}

const WINDOW_MAX_S = 86_400;

/** Reads `capabilities.rate_limits` of `/.well-known`. Undefined for what makes no sense. */
export function readStatedRates(value: unknown): StatedRates | undefined {
  const windowS = memberOf(value, 'window_seconds');
  if (!isCount(windowS) || windowS > WINDOW_MAX_S) return undefined;
  const maxOf = (name: string): number | null => {
    const max = memberOf(memberOf(value, name), 'requests');
    return isCount(max) ? max : null;
  };
  return { windowMs: windowS * 1_000, subjectMax: maxOf('subject'), addressMax: maxOf('address') };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
}
