/**
 * Token buckets for many keys. A bucket has a number of points, which come back
 * evenly over a window: a caller may spend all points at once, and then no more
 * than the rate allows.
 *
 * Promises: memory is bounded, one number for each key; no timers. A refused
 * attempt takes no points, so repeating it does not prolong the wait.
 */

/** Read at each attempt, so they may change. What a key has used counts on, as the time that it takes to come back. */
export interface BucketsOptions {
  readonly pointsMax: number;
  readonly windowMs: number;
  /** Beyond this number, the key that was used longest ago is forgotten. */
  readonly keysMax: number;
}

/** The bucket of a key after an attempt. */
export interface BucketState {
  readonly admitted: boolean;
  /** Whole points left. */
  readonly left: number;
  /** Time until all points are back. */
  readonly fullInMs: number;
  /** Time until the same attempt would be admitted; 0 if it was. */
  readonly retryInMs: number;
}

export interface Buckets {
  /** Takes points if that many are left. */
  take(key: string, points: number, nowMs: number): BucketState;
  /** Takes points if any are left, even more than are left; then the next attempt waits until they are back. */
  owe(key: string, points: number, nowMs: number): BucketState;
  /** Always takes points, for what has happened already. */
  charge(key: string, points: number, nowMs: number): BucketState;
}

/** How many keys one attempt forgets, after `keysMax` has become smaller. */
const FORGOTTEN_MAX = 8;

/** Instants are computed as fractions. Differences up to this are rounding errors. */
const EPSILON_MS = 1e-6;

export function createBuckets(options: BucketsOptions): Buckets {
  /** When all points of a key will be back. In the order of use, the latest last. */
  const fullAtMs = new Map<string, number>();

  function apply(key: string, points: number, nowMs: number, needs: number | undefined): BucketState {
    const { pointsMax, windowMs, keysMax } = options;
    const costMs = windowMs / pointsMax;
    const before = Math.max(nowMs, fullAtMs.get(key) ?? nowMs);
    const lackMs = needs === undefined ? 0 : before + needs * costMs - nowMs - windowMs;
    const admitted = lackMs <= EPSILON_MS;
    const after = admitted ? before + points * costMs : before;
    fullAtMs.delete(key);
    if (after > nowMs) fullAtMs.set(key, after);
    for (let forgotten = 0; fullAtMs.size > keysMax && forgotten < FORGOTTEN_MAX; forgotten += 1) {
      const [oldest] = fullAtMs.keys();
      if (oldest !== undefined) fullAtMs.delete(oldest);
    }
    return {
      admitted,
      left: Math.max(0, Math.floor((windowMs - (after - nowMs) + EPSILON_MS) / costMs)),
      fullInMs: after - nowMs,
      retryInMs: admitted ? 0 : lackMs,
    };
  }
  return {
    take: (key, points, nowMs) => apply(key, points, nowMs, points),
    owe: (key, points, nowMs) => apply(key, points, nowMs, 1),
    charge: (key, points, nowMs) => apply(key, points, nowMs, undefined),
  };
}
