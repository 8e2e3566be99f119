/**
 * `/healthz` and `/readyz` of both processes. The owner gives the checks. Each
 * check does real work within a time limit, and its result is shared for a
 * moment, so that frequent requests do not cause frequent work.
 */
import { withSignal } from '../abort.js';
import { type Clock, withDeadline } from '../clock.js';
import { jsonReply, type Reply } from '../http/reply.js';
import { errorFields, type Log } from '../log.js';
import type { GaugeOf, Metrics } from '../metrics.js';

export interface Health {
  live(): Reply;
  ready(): Promise<Reply>;
}

/** Rejects with the reason if it does not pass. */
export type Check = (signal: AbortSignal) => Promise<void>;

export interface ReadinessDeps {
  readonly checks: readonly (readonly [name: string, check: Check])[];
  /** More members of the answer. */
  about?(): Readonly<Record<string, unknown>>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

const SHARED_FOR_MS = 1_000;
const CHECK_WITHIN_MS = 5_000;

export function openHealth(deps: ReadinessDeps): Health {
  const gauge = deps.metrics.gauge('ready', 'Whether a readiness check passed the last time.', ['check'], 'min');
  let latest: { readonly at: number; readonly reply: Promise<Reply> } | undefined;

  async function runAll(): Promise<Reply> {
    const results = await Promise.all(
      deps.checks.map(async ([name, check]) => [name, await passes(deps, name, check, gauge)] as const),
    );
    const failed = results.filter(([, passed]) => !passed).map(([name]) => name);
    const isReady = failed.length === 0;
    const state = {
      status: isReady ? 'ready' : 'not_ready',
      failed,
      checks: Object.fromEntries(results.map(([name, passed]) => [name, passed ? 'ok' : 'failed'])),
      ...deps.about?.(),
    };
    return isReady ? jsonReply(200, state) : jsonReply(503, state, [['retry-after', '1']]);
  }

  return {
    live: () => jsonReply(200, { status: 'live' }),
    ready() {
      const at = deps.clock.monotonicMs();
      if (latest === undefined || at - latest.at >= SHARED_FOR_MS) latest = { at, reply: runAll() };
      return latest.reply;
    },
  };
}

/** Never rejects. The reason of a failure goes to the log, not into the answer. */
async function passes(deps: ReadinessDeps, name: string, check: Check, gauge: GaugeOf<'check'>): Promise<boolean> {
  const deadline = { clock: deps.clock, ms: CHECK_WITHIN_MS, late: () => new Error('the check took too long') };
  try {
    await withDeadline(deadline, (signal) => withSignal(check(signal), signal));
    gauge.set(1, { check: name });
    return true;
  } catch (thrown) {
    gauge.set(0, { check: name });
    deps.log.warn({ check: name, ...errorFields(thrown) }, 'a readiness check failed');
    return false;
  }
}
