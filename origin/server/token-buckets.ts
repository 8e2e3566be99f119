/**
 * Token buckets for many keys: each holds so many points and drains evenly over
 * a window, so that a caller may spend a window's worth at once and no more than
 * the rate from then on, wherever windows would begin.
 *
 * Promises: memory is bounded, one number for each key; no timers. What is
 * refused costs nothing, so hammering prolongs nothing and gains nothing.
 */

export interface BucketsOptions {
  readonly pointsMax: number;
  readonly windowMs: number;
  /** Beyond so many keys, that of which nothing was heard for longest is forgotten. */
  readonly keysMax: number;
}

/** How a key stands, after the latest look. */
export interface Standing {
  readonly admitted: boolean;
  /** Whole points that are left. */
  readonly left: number;
  /** Until all points are there again. */
  readonly fullInMs: number;
  /** Until the same would be admitted; 0 where it was. */
  readonly retryInMs: number;
}

export interface Buckets {
  /** Takes points where as many are left. */
  take(key: string, points: number, nowMs: number): Standing;
  /** Takes points where any are left, be it on credit: what comes next waits until that is paid. */
  owe(key: string, points: number, nowMs: number): Standing;
  /** Takes them in any case, for what has happened already. */
  charge(key: string, points: number, nowMs: number): Standing;
}

/** Instants are computed with fractions; a share of this size is none. */
const EPSILON_MS = 1e-6;

export function createBuckets({ pointsMax, windowMs, keysMax }: BucketsOptions): Buckets {
  /** When each bucket will be empty. Those heard of last stand last. */
  const emptyAtMs = new Map<string, number>();
  const costMs = windowMs / pointsMax;

  function settle(key: string, points: number, nowMs: number, needed: number | undefined): Standing {
    const before = Math.max(nowMs, emptyAtMs.get(key) ?? nowMs);
    const lackMs = needed === undefined ? 0 : before + needed * costMs - nowMs - windowMs;
    const admitted = lackMs <= EPSILON_MS;
    const after = admitted ? before + points * costMs : before;
    emptyAtMs.delete(key);
    if (after > nowMs) emptyAtMs.set(key, after);
    const [oldest] = emptyAtMs.keys();
    if (emptyAtMs.size > keysMax && oldest !== undefined) emptyAtMs.delete(oldest);
    return {
      admitted,
      left: Math.max(0, Math.floor((windowMs - (after - nowMs) + EPSILON_MS) / costMs)),
      fullInMs: after - nowMs,
      retryInMs: admitted ? 0 : lackMs,
    };
  }
  return {
    take: (key, points, nowMs) => settle(key, points, nowMs, points),
    owe: (key, points, nowMs) => settle(key, points, nowMs, 1),
    charge: (key, points, nowMs) => settle(key, points, nowMs, undefined),
  };
}
