/**
 * How often and how much one caller may ask, by subject and by address: requests,
 * bytes uploaded, bytes downloaded from here. What edges serve by themselves is
 * theirs; what they pass on counts against the client on whose behalf it comes.
 *
 * Promises: memory is bounded, and time is the Clock's. Leaves quotas, which
 * count what was stored, to quota.ts.
 */
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../../src/config/field.js';
import { Fault } from '../../src/errors.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { CounterOf, Metrics } from '../../src/metrics.js';
import { type Buckets, createBuckets, type Standing } from './token-buckets.js';

const ratesSection = (of: string) =>
  section(`Limits of ${of}.`, {
    requestsMax: integer({ default: 0, min: 0, help: 'Requests in one window; 0: no limit.' }),
    uploadedMaxBytes: size({ default: '0', help: 'Bytes of uploads in one window; 0: no limit.' }),
    downloadedMaxBytes: size({
      default: '0',
      help: 'Bytes of media that the origin itself sends in one window; 0: no limit. What edges serve does not count.',
    }),
  });

export const rateLimitsSection = section(
  'Rate limits, on top of the quotas. Requests that an edge passes on count against the client’s address where the edge is among `trusted_proxies`; what an edge asks for itself is never limited.',
  {
    windowMs: duration({
      default: '10s',
      min: 1_000,
      max: 86_400_000,
      help: 'What may be done in a window may be done at once; it comes back evenly over a window. One upload or download may be larger than what is left: what comes next waits until it is made up for.',
    }),
    subject: ratesSection('one subject, as its token names it'),
    address: ratesSection('one address, or one /64 network of IPv6'),
    keysMax: integer({
      default: 100_000,
      min: 100,
      help: 'Subjects and addresses that are counted at once, for each limit; beyond these the ones longest unheard of are forgotten.',
    }),
  },
);

export type RateLimitsConfig = ValueOf<typeof rateLimitsSection>;

/** Counts one request, as far as it is known whose it is. What admits throws a Fault at a limit. */
export interface Meter {
  /** Admits the request of its address. */
  address(): void;
  /** Admits it of a subject, once that is known. */
  subject(name: string): void;
  /** Admits an upload and counts what it announces; null: it does not say, and is counted as it comes. */
  admitUpload(sizeBytes: number | null): void;
  /** Bytes of an upload have come. */
  uploaded(sizeBytes: number): void;
  /** Admits a download. */
  admitDownload(): void;
  /** Counts bytes that go out. */
  downloaded(sizeBytes: number): void;
  /** What the client is told of its limits (draft-ietf-httpapi-ratelimit-headers). Empty without a limit. */
  headers(): HeaderList;
}

export interface Limits {
  meter(address: string): Meter;
  /** For whom nothing is counted. */
  readonly unlimited: Meter;
}

const SUBJECTS = ['subject', 'address'] as const;
type Of = (typeof SUBJECTS)[number];
type Unit = 'requests' | 'upload-bytes' | 'download-bytes';

interface Limiter {
  /** As it is told to clients and counted. */
  readonly name: string;
  readonly unit: Unit;
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

/** For listeners that nobody but operators reaches. */
export const NO_LIMITS: Limits = { unlimited: UNLIMITED, meter: () => UNLIMITED };

export function createLimits(config: RateLimitsConfig, clock: Clock, metrics: Metrics): Limits {
  const refused = metrics.counter('rate_limited_total', 'Requests refused by a rate limit.', ['limit']);
  const limiters = SUBJECTS.flatMap((of) => limitersOf(of, config));
  if (limiters.length === 0) return NO_LIMITS;
  return {
    unlimited: UNLIMITED,
    meter: (address) => createMeter(limiters, networkOf(address), config.windowMs, clock, refused),
  };
}

type LimiterOf = Limiter & { readonly of: Of };

function limitersOf(of: Of, config: RateLimitsConfig): readonly LimiterOf[] {
  const { requestsMax, uploadedMaxBytes, downloadedMaxBytes } = config[of];
  const { windowMs, keysMax } = config;
  const limiter = (name: string, unit: Unit, max: number): readonly LimiterOf[] =>
    max === 0 ? [] : [{ of, name, unit, max, buckets: createBuckets({ pointsMax: max, windowMs, keysMax }) }];
  return [
    ...limiter(of, 'requests', requestsMax),
    ...limiter(`${of}-bytes`, 'upload-bytes', uploadedMaxBytes),
    ...limiter(`${of}-download-bytes`, 'download-bytes', downloadedMaxBytes),
  ];
}

function createMeter(
  limiters: readonly LimiterOf[],
  network: string,
  windowMs: number,
  clock: Clock,
  refused: CounterOf<'limit'>,
): Meter {
  const told = new Map<Limiter, Standing>();
  let who: string | undefined;
  let announced = true;

  /** Against everybody who is known to stand behind the request, unless it is for one alone. */
  function count(unit: Unit, how: keyof Buckets, points: number, one?: Of): void {
    for (const limiter of limiters) {
      const key = limiter.of === 'address' ? network : who;
      if (limiter.unit !== unit || key === undefined || (one !== undefined && limiter.of !== one)) continue;
      const standing = limiter.buckets[how](key, points, clock.monotonicMs());
      told.set(limiter, standing);
      if (standing.admitted) continue;
      refused.add(1, { limit: limiter.name });
      throw new Fault('rate_limited', 'This is more than one caller may ask for in so short a time.', {
        headers: { 'retry-after': String(Math.max(1, Math.ceil(standing.retryInMs / 1_000))) },
      });
    }
  }
  return {
    address: () => count('requests', 'take', 1, 'address'),
    subject(name) {
      who = name;
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
    headers: () => rateHeaders(told, windowMs),
  };
}

/** `RateLimit-Policy` names each limit with its quota and window, `RateLimit` what is left and when all is there again. */
function rateHeaders(told: ReadonlyMap<Limiter, Standing>, windowMs: number): HeaderList {
  if (told.size === 0) return [];
  const quotaUnit = (unit: Unit): string => (unit === 'requests' ? '' : ';qu="content-bytes"');
  const windowSeconds = Math.ceil(windowMs / 1_000);
  const policy = [...told.keys()].map(
    ({ name, unit, max }) => `"${name}";q=${max};w=${windowSeconds}${quotaUnit(unit)}`,
  );
  const left = [...told].map(
    ([{ name }, standing]) => `"${name}";r=${standing.left};t=${Math.ceil(standing.fullInMs / 1_000)}`,
  );
  return [
    ['ratelimit-policy', policy.join(', ')],
    ['ratelimit', left.join(', ')],
  ];
}

/** One who has an IPv6 network has all of its addresses. */
function networkOf(address: string): string {
  const mapped = /^::ffff:(\d{1,3}(?:\.\d{1,3}){3})$/i.exec(address)?.[1];
  if (mapped !== undefined || !address.includes(':')) return mapped ?? address;
  const [front = '', back] = address.split('::');
  const head = front === '' ? [] : front.split(':');
  const tail = back === undefined || back === '' ? [] : back.split(':');
  const zeros = back === undefined ? [] : Array.from({ length: Math.max(0, 8 - head.length - tail.length) }, () => '0');
  return [...head, ...zeros, ...tail]
    .slice(0, 4)
    .map((group) => group.toLowerCase().replace(/^0+(?=.)/, ''))
    .join(':');
}
