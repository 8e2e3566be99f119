/**
 * Rate limits by subject and by address: requests, uploaded bytes, and bytes
 * downloaded from the origin. What edges serve from their caches does not count.
 * A request that an edge passes on counts against the client.
 *
 * Promises: memory is bounded. Leaves quotas, which count what was stored, to
 * quota.ts.
 */
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../../src/config/field.js';
import { Fault } from '../../src/errors.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { CounterOf, Metrics } from '../../src/metrics.js';
import { clientNetwork } from '../../src/server/hygiene.js';
import { type BucketState, type Buckets, createBuckets } from '../../src/server/token-buckets.js';

const ratesSection = (of: string, requestsMax: number, uploadedMax: string) =>
  section(`Limits of ${of}.`, {
    requestsMax: integer({ default: requestsMax, min: 0, help: 'Requests in one window; 0: no limit.' }),
    uploadedMaxBytes: size({ default: uploadedMax, help: 'Bytes of uploads in one window; 0: no limit.' }),
    downloadedMaxBytes: size({
      default: '0',
      help: 'Bytes of media that the origin itself sends in one window; 0: no limit. What edges serve does not count.',
    }),
  });

export const rateLimitsSection = section(
  'Rate limits, in addition to the quotas. A request that an edge passes on counts against the client’s address if the edge is one of `trusted_proxies`. What an edge requests for its own cache is not limited. Of several origins each grants its part.',
  {
    windowMs: duration({
      default: '10s',
      min: 1_000,
      max: 86_400_000,
      help: 'All that one window allows may be used at once, and comes back evenly over a window. One upload or download may exceed what is left; the next one then waits until that is made up for.',
    }),
    subject: ratesSection('one subject (the `sub` of a token)', 3_000, '10GB'),
    address: ratesSection('one address, or one /64 network of IPv6', 30_000, '50GB'),
    keysMax: integer({
      default: 100_000,
      min: 100,
      help: 'Subjects and addresses that are counted at once, for each limit. Beyond this number, the one that was seen longest ago is forgotten.',
    }),
  },
);

export type RateLimitsConfig = ValueOf<typeof rateLimitsSection>;

/** Counts one request. Methods that admit something throw a Fault at a limit. */
export interface Meter {
  /** Admits the request, counted for its address. */
  address(): void;
  /** Admits the request, counted for its subject, once that is known. */
  subject(name: string): void;
  /** Admits an upload and counts its announced size; null: not announced, counted by `uploaded`. */
  admitUpload(sizeBytes: number | null): void;
  /** Counts received bytes of an upload whose size was not announced. */
  uploaded(sizeBytes: number): void;
  /** Admits a download. */
  admitDownload(): void;
  /** Counts bytes that are sent. */
  downloaded(sizeBytes: number): void;
  /** RateLimit fields for the response (draft-ietf-httpapi-ratelimit-headers). Empty without a limit. */
  headers(): HeaderList;
}

export interface RateLimits {
  meter(address: string): Meter;
  /** Counts nothing. */
  readonly unlimited: Meter;
}

const COUNTED_BY = ['subject', 'address'] as const;
type CountedBy = (typeof COUNTED_BY)[number];
type Unit = 'requests' | 'upload-bytes' | 'download-bytes';

interface Limiter {
  readonly countedBy: CountedBy;
  /** In the RateLimit fields and in the metric. */
  readonly name: string;
  readonly unit: Unit;
  /** 0: no limit. */
  readonly max: number;
  readonly buckets: Buckets;
}

const UNLIMITED: Meter = {
  address: () => undefined,
  subject: () => undefined,
  admitUpload: () => undefined,
  uploaded: () => undefined,
  admitDownload: () => undefined,
  downloaded: () => undefined,
  headers: () => [],
};

/** For the operators' listener. */
export const NO_RATE_LIMITS: RateLimits = { unlimited: UNLIMITED, meter: () => UNLIMITED };

/** `origins`: how many origins share the limits at present. Each grants its part of them. */
export function createRateLimits(
  config: RateLimitsConfig,
  clock: Clock,
  metrics: Metrics,
  origins: () => number = () => 1,
): RateLimits {
  const refused = metrics.counter('rate_limited_total', 'Requests refused by a rate limit.', ['limit']);
  const limiters = COUNTED_BY.flatMap((countedBy) => limitersOf(countedBy, config));
  return {
    unlimited: UNLIMITED,
    meter: (address) =>
      createMeter({ limiters, windowMs: config.windowMs, clock, refused, origins }, clientNetwork(address)),
  };
}

/** They read the limits from the configuration at each use: a reload may change it. */
function limitersOf(countedBy: CountedBy, config: RateLimitsConfig): readonly Limiter[] {
  const limiter = (name: string, unit: Unit, key: keyof RateLimitsConfig['subject']): Limiter => ({
    countedBy,
    name,
    unit,
    get max() {
      return config[countedBy][key];
    },
    buckets: createBuckets({
      get pointsMax() {
        return config[countedBy][key];
      },
      get windowMs() {
        return config.windowMs;
      },
      get keysMax() {
        return config.keysMax;
      },
    }),
  });
  return [
    limiter(countedBy, 'requests', 'requestsMax'),
    limiter(`${countedBy}-bytes`, 'upload-bytes', 'uploadedMaxBytes'),
    limiter(`${countedBy}-download-bytes`, 'download-bytes', 'downloadedMaxBytes'),
  ];
}

interface MeterDeps {
  readonly limiters: readonly Limiter[];
  readonly windowMs: number;
  readonly clock: Clock;
  readonly refused: CounterOf<'limit'>;
  readonly origins: () => number;
}

function createMeter({ limiters, windowMs, clock, refused, origins }: MeterDeps, network: string): Meter {
  const states = new Map<Limiter, BucketState>();
  let subjectName: string | undefined;
  let announced = true;

  /** Counts for the address and the known subject, or for `only` one of them. */
  function count(unit: Unit, how: keyof Buckets, points: number, only?: CountedBy): void {
    const share = origins();
    for (const limiter of limiters) {
      const key = limiter.countedBy === 'address' ? network : subjectName;
      if (
        limiter.max === 0 ||
        limiter.unit !== unit ||
        key === undefined ||
        (only !== undefined && limiter.countedBy !== only)
      )
        continue;
      // What one origin grants counts as often as there are origins, so that all of them grant no more than the limit.
      const taken = Math.min(points * share, Math.max(points, limiter.max));
      const state = limiter.buckets[how](key, taken, clock.monotonicMs());
      states.set(limiter, state);
      if (state.admitted) continue;
      refused.add(1, { limit: limiter.name });
      throw new Fault('rate_limited', 'Too many requests or bytes in a short time.', {
        headers: { 'retry-after': String(Math.max(1, Math.ceil(state.retryInMs / 1_000))) },
      });
    }
  }
  return {
    address: () => count('requests', 'take', 1, 'address'),
    subject(name) {
      subjectName = name;
      count('requests', 'take', 1, 'subject');
    },
    admitUpload(sizeBytes) {
      announced = sizeBytes !== null;
      count('upload-bytes', 'owe', sizeBytes ?? 0);
    },
    uploaded(sizeBytes) {
      if (!announced) count('upload-bytes', 'charge', sizeBytes);
    },
    admitDownload: () => count('download-bytes', 'owe', 0),
    downloaded: (sizeBytes) => count('download-bytes', 'charge', sizeBytes),
    headers: () => rateHeaders(states, windowMs, origins()),
  };
}

/** What is left of a limit is told once this share of it is used. Until then answers to equal requests are equal. */
const TOLD_FROM = 0.1;

/** `RateLimit-Policy` gives each limit its quota and window, `RateLimit` what is left and when all is back. */
function rateHeaders(all: ReadonlyMap<Limiter, BucketState>, windowMs: number, share: number): HeaderList {
  const states = new Map([...all].filter(([{ max }, { left }]) => left <= max * (1 - TOLD_FROM)));
  if (states.size === 0) return [];
  const quotaUnit = (unit: Unit): string => (unit === 'requests' ? '' : ';qu="content-bytes"');
  const windowSeconds = Math.ceil(windowMs / 1_000);
  const policy = [...states.keys()].map(
    ({ name, unit, max }) => `"${name}";q=${Math.floor(max / share)};w=${windowSeconds}${quotaUnit(unit)}`,
  );
  const left = [...states].map(
    ([{ name }, state]) => `"${name}";r=${Math.floor(state.left / share)};t=${Math.ceil(state.fullInMs / 1_000)}`,
  );
  return [
    ['ratelimit-policy', policy.join(', ')],
    ['ratelimit', left.join(', ')],
  ];
}
