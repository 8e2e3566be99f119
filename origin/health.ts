/**
 * `/healthz` and `/readyz`. Ready means that an upload would succeed now: each
 * check does the real thing. Its result is shared for a moment, so that nobody
 * can make the service work by asking how it is.
 */
import type { Gate } from '../src/access/grant.js';
import type { Clock } from '../src/clock.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import { errorFields, type Log } from '../src/log.js';
import type { GaugeOf, Metrics } from '../src/metrics.js';
import type { BlobStore } from './blobs/blob-store.js';
import type { MetaStore } from './meta/store.js';
import type { ThumbCapabilities } from './thumbs/engine.js';

export interface HealthParts {
  readonly meta: Pick<MetaStore, 'probe'>;
  readonly blobs: Pick<BlobStore, 'probe' | 'freeBytes'>;
  readonly gate: Pick<Gate, 'probe'>;
  readonly thumbs: { capabilities(): Pick<ThumbCapabilities, 'video'> };
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Below so many free bytes no upload is taken. */
  readonly freeMinBytes: number;
}

export interface Health {
  live(): Reply;
  ready(): Promise<Reply>;
}

const SHARED_FOR_MS = 1_000;
const CHECK_WITHIN_MS = 5_000;

type Check = (signal: AbortSignal) => Promise<void>;

export function createHealth(parts: HealthParts): Health {
  const checks: readonly (readonly [name: string, check: Check])[] = [
    ['database', () => parts.meta.probe()],
    ['storage', (signal) => parts.blobs.probe(signal)],
    ['disk', () => requireFree(parts)],
    ['keys', (signal) => parts.gate.probe(signal)],
  ];
  const gauge = parts.metrics.gauge('ready', 'Whether a readiness check passed when it was last asked.', ['check']);
  let latest: { readonly at: number; readonly reply: Promise<Reply> } | undefined;

  async function runAll(): Promise<Reply> {
    const results = await Promise.all(
      checks.map(async ([name, check]) => [name, await passes(parts, name, check, gauge)] as const),
    );
    const failed = results.filter(([, passed]) => !passed).map(([name]) => name);
    const { video } = parts.thumbs.capabilities();
    return jsonReply(failed.length === 0 ? 200 : 503, {
      status: failed.length === 0 ? 'ready' : 'not_ready',
      failed,
      checks: Object.fromEntries(results.map(([name, passed]) => [name, passed ? 'ok' : 'failed'])),
      capabilities: { video_thumbnails: video.available ? 'available' : (video.reason ?? 'unavailable') },
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

async function requireFree({ blobs, freeMinBytes }: HealthParts): Promise<void> {
  const free = await blobs.freeBytes();
  if (free !== null && free < freeMinBytes) throw new Error(`${free} bytes are free, ${freeMinBytes} are asked for`);
}
