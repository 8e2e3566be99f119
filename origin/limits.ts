/**
 * How often and how much one caller may ask, by subject and by address. Windows
 * of fixed length; what is refused counts too, so hammering prolongs nothing and
 * gains nothing.
 *
 * Promises: memory is bounded, and time is the Clock's. Leaves quotas, which
 * count what was stored, to quota.ts.
 */
import type { Clock } from '../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../src/config/field.js';
import { Fault } from '../src/errors.js';
import type { HeaderList } from '../src/http/reply.js';
import type { CounterOf, Metrics } from '../src/metrics.js';

const ratesSection = (of: string) =>
  section(`Limits of ${of}.`, {
    requestsMax: integer({ default: 0, min: 0, help: 'Requests in one window; 0: no limit.' }),
    uploadedMaxBytes: size({ default: '0', help: 'Bytes of uploads in one window; 0: no limit.' }),
  });

export const rateLimitsSection = section(
  'Rate limits, on top of the quotas. An edge that has proved itself is never limited.',
  {
    windowMs: duration({ default: '10s', min: 1_000, max: 86_400_000, help: 'Length of a window.' }),
    subject: ratesSection('one subject, as its token names it'),
    address: ratesSection('one address, or one /64 network of IPv6'),
    keysMax: integer({
      default: 100_000,
      min: 100,
      help: 'Subjects and addresses that are counted at once; beyond these the oldest windows are forgotten.',
    }),
  },
);

export type RateLimitsConfig = ValueOf<typeof rateLimitsSection>;

/** Counts one request, as far as it is known whose it is. Each method throws a Fault at the limit. */
export interface Meter {
  /** Counts the request against its address. */
  address(): void;
  /** Counts it against a subject, once it is known. */
  subject(name: string): void;
  /** Counts bytes of an upload against both. */
  bytes(sizeBytes: number): void;
  /** What the client is told of its limits (draft-ietf-httpapi-ratelimit-headers). Empty without a limit. */
  headers(): HeaderList;
}

export interface Limits {
  meter(address: string): Meter;
  /** For whom nothing is counted. */
  readonly unlimited: Meter;
}

type LimitName = 'subject' | 'subject-bytes' | 'address' | 'address-bytes';

interface Limiter {
  readonly name: LimitName;
  readonly max: number;
  readonly windows: Windows;
}

const UNLIMITED: Meter = {
  address: () => undefined,
  subject: () => undefined,
  bytes: () => undefined,
  headers: () => [],
};

/** For listeners that nobody but operators reaches. */
export const NO_LIMITS: Limits = { unlimited: UNLIMITED, meter: () => UNLIMITED };

export function createLimits(config: RateLimitsConfig, clock: Clock, metrics: Metrics): Limits {
  const refused = metrics.counter('rate_limited_total', 'Requests refused by a rate limit.', ['limit']);
  const limiter = (name: LimitName, max: number): Limiter | undefined =>
    max === 0 ? undefined : { name, max, windows: createWindows(config, clock) };
  const { subject, address } = config;
  const requests = {
    subject: limiter('subject', subject.requestsMax),
    address: limiter('address', address.requestsMax),
  };
  const uploads = {
    subject: limiter('subject-bytes', subject.uploadedMaxBytes),
    address: limiter('address-bytes', address.uploadedMaxBytes),
  };
  const limited = [requests.subject, requests.address, uploads.subject, uploads.address].some(
    (each) => each !== undefined,
  );
  return {
    unlimited: UNLIMITED,
    meter(from) {
      if (!limited) return UNLIMITED;
      const network = networkOf(from);
      const told: Told[] = [];
      let who: string | undefined;
      return {
        address: () => count(requests.address, network, 1, told, refused),
        subject(name) {
          who = name;
          count(requests.subject, name, 1, told, refused);
        },
        bytes(sizeBytes) {
          count(uploads.address, network, sizeBytes, told, refused);
          if (who !== undefined) count(uploads.subject, who, sizeBytes, told, refused);
        },
        headers: () => rateHeaders(told, config.windowMs),
      };
    },
  };
}

interface Told {
  readonly limiter: Limiter;
  readonly taken: Taken;
}

function count(
  limiter: Limiter | undefined,
  key: string,
  points: number,
  told: Told[],
  refused: CounterOf<'limit'>,
): void {
  if (limiter === undefined) return;
  const taken = limiter.windows.take(key, points);
  told.push({ limiter, taken });
  if (taken.points <= limiter.max) return;
  refused.add(1, { limit: limiter.name });
  throw new Fault('rate_limited', 'This is more than one caller may ask for in so short a time.', {
    headers: { 'retry-after': String(Math.ceil(taken.leftMs / 1_000)) },
  });
}

/** `RateLimit-Policy` names each limit with its quota and window, `RateLimit` what is left and for how long. */
function rateHeaders(told: readonly Told[], windowMs: number): HeaderList {
  if (told.length === 0) return [];
  const unit = (name: LimitName): string => (name.endsWith('bytes') ? ';qu="content-bytes"' : '');
  const policy = told.map(({ limiter: { name, max } }) => `"${name}";q=${max};w=${windowMs / 1_000}${unit(name)}`);
  const left = told.map(
    ({ limiter: { name, max }, taken }) =>
      `"${name}";r=${Math.max(0, max - taken.points)};t=${Math.ceil(taken.leftMs / 1_000)}`,
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

/** What one window has taken, after the latest request. */
interface Taken {
  readonly points: number;
  readonly leftMs: number;
}

interface Windows {
  /** Counts, and answers also where that is too much. */
  take(key: string, points: number): Taken;
}

/** Fixed windows in memory, the oldest forgotten when there are too many. */
function createWindows({ windowMs, keysMax }: RateLimitsConfig, clock: Clock): Windows {
  // In the order in which they began, for a window that begins is put in anew.
  const held = new Map<string, { points: number; readonly endsAtMs: number }>();
  return {
    take(key, points) {
      const nowMs = clock.monotonicMs();
      const window = held.get(key);
      if (window !== undefined && window.endsAtMs > nowMs) {
        window.points += points;
        return { points: window.points, leftMs: window.endsAtMs - nowMs };
      }
      held.delete(key);
      held.set(key, { points, endsAtMs: nowMs + windowMs });
      const [oldest] = held.keys();
      if (held.size > keysMax && oldest !== undefined) held.delete(oldest);
      return { points, leftMs: windowMs };
    },
  };
}
