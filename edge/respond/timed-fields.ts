/**
 * The fields of an answer from the cache that change with time alone: Age,
 * Cache-Status, Cache-Control. Answers from one entry within the same second share
 * one list of them, and of the entry's own fields with them, so that a server can
 * write it once. Pure, but for what it remembers.
 */
import type { EpochMs } from '../../src/clock.js';
import type { HeaderList } from '../../src/http/reply.js';
import { type ClientLifetime, clientCacheControl, clientMaxAge } from './client-lifetime.js';

export interface Timed {
  readonly fields: HeaderList;
  /** `base` with these fields; `base` itself where `fields` are to be sent beside it. */
  leading(base: HeaderList): HeaderList;
}

export interface TimedFacts {
  readonly ageSeconds: number;
  readonly cacheStatus: string;
  /** From when on nobody may use the answer. */
  readonly endsAt: EpochMs;
  readonly now: EpochMs;
}

/** To be made once for each entry and kind of recipient. Without `client`, there is no Cache-Control among the fields. */
export function createTimedFields(client: ClientLifetime | undefined): (facts: TimedFacts) => Timed {
  let latest: Shared | undefined;
  return ({ ageSeconds, cacheStatus, endsAt, now }) => {
    const maxAge = client === undefined ? 0 : clientMaxAge(client, ageSeconds, endsAt, now);
    if (latest?.fits(ageSeconds, cacheStatus, maxAge) === true) return latest;
    const fields: [string, string][] = [
      ['age', String(ageSeconds)],
      ['cache-status', cacheStatus],
    ];
    if (client !== undefined) fields.push(['cache-control', clientCacheControl(client, maxAge)]);
    latest = new Shared(ageSeconds, cacheStatus, maxAge, fields);
    return latest;
  };
}

class Shared implements Timed {
  readonly fields: HeaderList;
  readonly #ageSeconds: number;
  readonly #cacheStatus: string;
  readonly #maxAge: number;
  /** Whether a second answer has come. For a single one, joined lists would cost more than they save. */
  #again = false;
  #joined: Map<HeaderList, HeaderList> | undefined;

  constructor(ageSeconds: number, cacheStatus: string, maxAge: number, fields: HeaderList) {
    this.#ageSeconds = ageSeconds;
    this.#cacheStatus = cacheStatus;
    this.#maxAge = maxAge;
    this.fields = fields;
  }

  fits(ageSeconds: number, cacheStatus: string, maxAge: number): boolean {
    const same = ageSeconds === this.#ageSeconds && maxAge === this.#maxAge && cacheStatus === this.#cacheStatus;
    if (same) this.#again = true;
    return same;
  }

  leading(base: HeaderList): HeaderList {
    if (!this.#again) return base;
    const found = this.#joined?.get(base);
    if (found !== undefined) return found;
    const joined = [...base, ...this.fields];
    this.#joined ??= new Map();
    this.#joined.set(base, joined);
    return joined;
  }
}
