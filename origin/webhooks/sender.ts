/**
 * Sends the events of the outbox to the chat server: each at least once, those of one id in their order. One origin of
 * several sends (the duty `webhooks`). An event whose attempts fail waits for growing pauses, and becomes a dead letter
 * at a configured age.
 */
import type { Clock, EpochMs, Timer } from '../../src/clock.js';
import { bugFields, errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { OutboxEvent } from '../meta/outbox/outbox.js';
import type { MetaStore } from '../meta/store.js';
import type { WebhooksConfig } from './config.js';
import { type Posted, post } from './post.js';
import { keyOf } from './sign.js';

export interface SenderDeps {
  readonly config: WebhooksConfig;
  readonly meta: Pick<MetaStore, 'outbox' | 'duties'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** From 0 up to 1, for jitter. */
  readonly random?: () => number;
}

export interface Sender {
  /** Ends what is being sent; it is sent again after the next start. May be called twice. */
  close(): Promise<void>;
}

/** Most dead letters that one round forgets. */
const FORGET_MAX = 500;

/** Without an address it sends nothing. */
export function openSender(deps: SenderDeps): Sender {
  const { config, meta, clock, log } = deps;
  const { url } = config;
  const count = countersOf(deps);
  if (url === null) return { close: () => Promise.resolve() };
  const closing = new AbortController();
  let alarm: Timer | undefined;
  let running = round();

  async function round(): Promise<void> {
    try {
      if (await meta.duties.take('webhooks', config.everyMs)) await sendDue(url ?? '');
    } catch (thrown) {
      if (!closing.signal.aborted) log.error(errorFields(thrown), 'events for the chat server could not be sent');
    }
    if (closing.signal.aborted) return;
    alarm = clock.after(config.everyMs, () => {
      running = round();
    });
  }

  /** Ends when nothing is due, or nothing of a batch got through: the next round tries the rest. */
  async function sendDue(to: string): Promise<void> {
    await meta.outbox.forget(clock.now() - config.keepDeadMs, FORGET_MAX);
    for (;;) {
      closing.signal.throwIfAborted();
      const due = await meta.outbox.due(clock.now(), config.atOnce);
      // All have ended before the store may close.
      const ended = await Promise.allSettled(due.map((event) => sendOne(to, event)));
      const failure = ended.find((one) => one.status === 'rejected');
      if (failure !== undefined) throw failure.reason;
      if (!ended.some((one) => one.status === 'fulfilled' && one.value)) return;
    }
  }

  async function sendOne(to: string, event: OutboxEvent): Promise<boolean> {
    const { timeoutMs, secrets } = config;
    const keys = secrets.flatMap((secret) => keyOf(secret) ?? []);
    const posted = await post({ url: to, keys, timeoutMs, clock }, event, closing.signal);
    const next = nextOf(posted, event, clock.now(), config, deps.random ?? Math.random);
    const { name, type, id } = event;
    switch (next.kind) {
      case 'sent':
        await meta.outbox.sent(name);
        break;
      case 'again':
        await meta.outbox.failed(name, next.why, next.readyAt);
        log.warn({ event: name, type, id, why: next.why }, 'an event was not taken by the chat server');
        break;
      case 'dead':
        await meta.outbox.bury(name, next.why, clock.now());
        log.error(
          { event: name, type, id, why: next.why },
          'an event was given up; see `media-service webhooks status`',
        );
        break;
    }
    count(next.kind);
    return next.kind === 'sent';
  }

  return {
    async close() {
      closing.abort(new Error('the origin closes'));
      alarm?.cancel();
      await running;
    },
  };
}

export type Next =
  | { readonly kind: 'sent' }
  | { readonly kind: 'again'; readonly why: string; readonly readyAt: EpochMs }
  | { readonly kind: 'dead'; readonly why: string };

/** What becomes of an event after an attempt. The last attempt is at the age at which it is given up. */
export function nextOf(
  posted: Posted,
  { attempts, since }: Pick<OutboxEvent, 'attempts' | 'since'>,
  now: EpochMs,
  { retryMs, retryMaxMs, giveUpMs }: Pick<WebhooksConfig, 'retryMs' | 'retryMaxMs' | 'giveUpMs'>,
  random: () => number,
): Next {
  if (posted.kind === 'sent') return posted;
  const { why } = posted;
  if (now >= since + giveUpMs) return { kind: 'dead', why };
  const pauseMs = Math.min(retryMaxMs, retryMs * 2 ** Math.min(attempts, 30));
  return { kind: 'again', why, readyAt: Math.min(now + Math.round(pauseMs * (0.5 + random() / 2)), since + giveUpMs) };
}

function countersOf({ meta, clock, metrics, log }: SenderDeps): (kind: Next['kind']) => void {
  const attempts = metrics.counter('webhook_attempts_total', 'Attempts to send an event, by what came of them.', [
    'outcome',
  ]);
  const events = metrics.gauge('webhook_events', 'Events in the outbox, by state; dead: given up.', ['state']);
  const oldest = metrics.gauge('webhook_oldest_seconds', 'How long the oldest event has waited to be sent.');
  metrics.onCollect(async () => {
    try {
      const { waiting, dead, oldestSince } = await meta.outbox.counts();
      events.set(waiting, { state: 'waiting' });
      events.set(dead, { state: 'dead' });
      oldest.set(oldestSince === null ? 0 : Math.max(0, clock.now() - oldestSince) / 1_000);
    } catch (thrown) {
      log.warn(bugFields(thrown), 'the outbox could not be counted');
    }
  });
  return (kind) => attempts.add(1, { outcome: OUTCOMES[kind] });
}

const OUTCOMES = { sent: 'sent', again: 'failed', dead: 'dead' } as const satisfies Record<Next['kind'], string>;
