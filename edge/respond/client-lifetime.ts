/**
 * For how long a client may use its copy of media without asking again: as long
 * as the origin says, from when the client gets it. The origin speaks of copies
 * that come straight from it; told on as it stands beside an Age of more than
 * that, it would let no client keep anything (RFC 9111 4.2). So what is told is
 * the age and the client's own time on top, cut to the end of the media and to
 * that of the link by which they are seen.
 */
import type { EpochMs } from '../../src/clock.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';

export interface ClientLifetime {
  readonly audience: string;
  readonly maxAgeMs: number;
}

/** As the origin of media writes it. */
const WRITTEN = /^(public|private), max-age=(\d{1,10})$/;

/** Undefined for what is not of our origin's writing, which stays as it is. */
export function clientLifetimeOf(headers: HeaderList): ClientLifetime | undefined {
  const [, audience, seconds] = WRITTEN.exec(headerOf(headers, 'cache-control') ?? '') ?? [];
  return audience === undefined ? undefined : { audience, maxAgeMs: Number(seconds) * 1_000 };
}

/** The value of Cache-Control beside an Age of so many seconds. `endsAt`: nobody may use it from then on. */
export function clientCacheControl(
  { audience, maxAgeMs }: ClientLifetime,
  ageSeconds: number,
  endsAt: EpochMs,
  now: EpochMs,
): string {
  const leftMs = Math.max(0, Math.min(maxAgeMs, endsAt - now));
  return `${audience}, max-age=${ageSeconds + Math.floor(leftMs / 1_000)}`;
}
