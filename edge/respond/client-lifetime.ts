/**
 * How long a client may reuse media without asking again: as long as the origin
 * says, counted from when the client gets it. The origin's max-age is meant for
 * responses that come straight from it. Beside the Age of a stored response it
 * would be used up (RFC 9111 4.2), and no client could reuse anything. So the
 * edge sends max-age as the age plus the client's own time. That time ends with
 * the media, and with the signed link by which they were requested.
 */
import type { EpochMs } from '../../src/clock.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';

export interface ClientLifetime {
  readonly audience: string;
  readonly maxAgeMs: number;
}

/** Cache-Control as our origin writes it. */
const WRITTEN = /^(public|private), max-age=(\d{1,10})$/;

/** Undefined for a Cache-Control that our origin does not write; it is sent on unchanged. */
export function clientLifetimeOf(headers: HeaderList): ClientLifetime | undefined {
  const [, audience, seconds] = WRITTEN.exec(headerOf(headers, 'cache-control') ?? '') ?? [];
  return audience === undefined ? undefined : { audience, maxAgeMs: Number(seconds) * 1_000 };
}

/** The max-age that goes with this Age. Nobody may use the response from `endsAt` on. */
export function clientMaxAge({ maxAgeMs }: ClientLifetime, ageSeconds: number, endsAt: EpochMs, now: EpochMs): number {
  return ageSeconds + Math.floor(Math.max(0, Math.min(maxAgeMs, endsAt - now)) / 1_000);
}

/** The value of Cache-Control with this max-age. */
export function clientCacheControl({ audience }: ClientLifetime, maxAge: number): string {
  return `${audience}, max-age=${maxAge}`;
}
