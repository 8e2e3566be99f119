/**
 * `/healthz` and `/readyz` of either process. The owner says what it checks; each
 * check does the real thing, within a bound, and its result is shared for a
 * moment, so that nobody can make the service work by asking how it is.
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

/** Rejects with the reason why it does not pass. */
export type Check = (signal: AbortSignal) => Promise<void>;

export interface ReadinessParts {
  readonly checks: readonly (readonly [name: string, check: Check])[];
  /** Members of the answer beside the checks. */
  about?(): Readonly<Record<string, unknown>>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

const SHARED_FOR_MS = 1_000;
const CHECK_WITHIN_MS = 5_000;

export function openHealth(parts: ReadinessParts): Health {
  const gauge = parts.metrics.gauge('ready', 'Whether a readiness check passed when it was last asked.', ['check']);
  let latest: { readonly at: number; readonly reply: Promise<Reply> } | undefined;

  async function runAll(): Promise<Reply> {
    const results = await Promise.all(
      parts.checks.map(async ([name, check]) => [name, await passes(parts, name, check, gauge)] as const),
    );
    const failed = results.filter(([, passed]) => !passed).map(([name]) => name);
    return jsonReply(failed.length === 0 ? 200 : 503, {
      status: failed.length === 0 ? 'ready' : 'not_ready',
      failed,
      checks: Object.fromEntries(results.map(([name, passed]) => [name, passed ? 'ok' : 'failed'])),
      ...parts.about?.(),
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

/** Never rejects: why it failed goes to the log, that it failed to whoever asks. */
async function passes(parts: ReadinessParts, name: string, check: Check, gauge: GaugeOf<'check'>): Promise<boolean> {
  const deadline = { clock: parts.clock, ms: CHECK_WITHIN_MS, late: () => new Error('the check took too long') };
  try {
    await withDeadline(deadline, (signal) => withSignal(check(signal), signal));
    gauge.set(1, { check: name });
    return true;
  } catch (thrown) {
    gauge.set(0, { check: name });
    parts.log.warn({ check: name, ...errorFields(thrown) }, 'a readiness check failed');
    return false;
  }
}
