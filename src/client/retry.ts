/** When a failed attempt is repeated, and how long to wait before. Pure. */
import type { MediaError } from './errors.js';

export interface RetryRules {
  /** Attempts after the first without any progress between them. Default 8. */
  readonly retriesMax: number;
  /** The first wait, which doubles with each further one. Default 500. */
  readonly firstWaitMs: number;
  /** The longest wait. A service that asks for a longer one ends the attempts. Default 60,000. */
  readonly waitMaxMs: number;
}

export const RETRY_RULES: RetryRules = { retriesMax: 8, firstWaitMs: 500, waitMaxMs: 60_000 };

/** Milliseconds to wait, or undefined if the same request would fail again. `random` is from 0 to 1. */
export function waitBeforeRetry(
  error: MediaError,
  failures: number,
  rules: RetryRules,
  random: number,
): number | undefined {
  // Bytes that are damaged on the way each time do not get better.
  const retriesMax = error.code === 'digest_mismatch' ? Math.min(2, rules.retriesMax) : rules.retriesMax;
  if (!isPassing(error) || failures >= retriesMax) return undefined;
  if (error.retryAfterMs !== undefined && error.retryAfterMs > rules.waitMaxMs) return undefined;
  // Between half and all of it, so that clients which failed together do not come back together.
  const longest = Math.min(rules.firstWaitMs * 2 ** failures, rules.waitMaxMs);
  return Math.max(error.retryAfterMs ?? 0, longest * (0.5 + random / 2));
}

/** Whether the same request may succeed later. A full storage and a used quota last too long to wait for. */
function isPassing({ code, status = 0 }: MediaError): boolean {
  if (code === 'quota_exceeded' || [501, 505, 507].includes(status)) return false;
  return PASSING.test(code) || [408, 429].includes(status) || status >= 500;
}

const PASSING = /^(?:network|stalled|(?:checksum|digest)_mismatch)$/;
