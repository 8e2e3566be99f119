/**
 * `/healthz` and `/readyz` of the edge. Ready means that a request for media
 * would be answered now; each check does the real thing, and its result is
 * shared for a moment, so that nobody can make the edge work by asking how it is.
 */
import type { Clock } from '../src/clock.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import { errorFields, type Log } from '../src/log.js';
import type { GaugeOf, Metrics } from '../src/metrics.js';
import type { EdgeCache } from './cache/cache.js';
import type { LeaseVerdict } from './journal/lease.js';
import type { Upstream } from './upstream.js';

export interface HealthParts {
  readonly cache: Pick<EdgeCache, 'probe' | 'stats'>;
  readonly upstream: Pick<Upstream, 'fetch'>;
  /** Null in generic mode: there is no journal to follow. */
  readonly lease: (() => LeaseVerdict) | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Health {
  live(): Reply;
  ready(): Promise<Reply>;
}

const SHARED_FOR_MS = 1_000;
const CHECK_WITHIN_MS = 5_000;

type Check = (signal: AbortSignal) => Promise<void>;

export function createHealth(parts: HealthParts): Health {
  const { cache, lease } = parts;
  const checks: readonly (readonly [name: string, check: Check])[] = [
    ['origin', (signal) => requireOriginOrCopies(parts, signal)],
    ['cache', () => cache.probe()],
    ...(lease === null ? [] : ([['journal', async () => requireLease(lease())]] as const)),
  ];
  const gauge = parts.metrics.gauge('ready', 'Whether a readiness check passed when it was last asked.', ['check']);
  let latest: { readonly at: number; readonly reply: Promise<Reply> } | undefined;

  async function runAll(): Promise<Reply> {
    const results = await Promise.all(
      checks.map(async ([name, check]) => [name, await passes(parts, name, check, gauge)] as const),
    );
    const failed = results.filter(([, passed]) => !passed).map(([name]) => name);
    return jsonReply(failed.length === 0 ? 200 : 503, {
      status: failed.length === 0 ? 'ready' : 'not_ready',
      failed,
      checks: Object.fromEntries(results.map(([name, passed]) => [name, passed ? 'ok' : 'failed'])),
    });
  }

  return {
    live: () => jsonReply(200, { status: 'live' }),
    ready() {
      const at = parts.clock.monotonicMs();
      if (latest === undefined || at - latest.at >= SHARED_FOR_MS) latest = { at, reply: runAll() };
      return latest.reply;
    },
  };
}

/** An origin that answers, in whatever way; or copies that may be served without one. */
async function requireOriginOrCopies({ upstream, cache, lease }: HealthParts, signal: AbortSignal): Promise<void> {
  const answer = await upstream.fetch({ method: 'HEAD', target: '/healthz', headers: [] }, signal);
  if (answer.kind === 'answered') {
    answer.body.destroy();
    return;
  }
  const { memory, disk } = cache.stats();
  const serving = memory.entries + disk.entries > 0 && (lease === null || lease() === 'yes');
  if (!serving) throw new Error(`the origin gives no answer (${answer.failure}), and there is nothing to serve`);
}

function requireLease(verdict: LeaseVerdict): void {
  if (verdict !== 'yes') throw new Error('the edge is cut off from the takedown journal');
}

/** Never rejects: why it failed goes to the log, that it failed to whoever asks. */
async function passes(parts: HealthParts, name: string, check: Check, gauge: GaugeOf<'check'>): Promise<boolean> {
  const deadline = new AbortController();
  const expired = new Promise<never>((_, reject) => {
    deadline.signal.addEventListener('abort', () => reject(new Error('the check took too long')), { once: true });
  });
  const timer = parts.clock.after(CHECK_WITHIN_MS, () => deadline.abort());
  try {
    await Promise.race([check(deadline.signal), expired]);
    gauge.set(1, { check: name });
    return true;
  } catch (thrown) {
    gauge.set(0, { check: name });
    parts.log.warn({ check: name, ...errorFields(thrown) }, 'a readiness check failed');
    return false;
  } finally {
    timer.cancel();
  }
}
