/**
 * One attempt to send an event. Redirects are not followed, because only the configured address may hear of media, and
 * the answer's content is not read.
 */
import { formatDuration } from '../../src/bytes.js';
import { type Clock, withDeadline } from '../../src/clock.js';
import type { MediaEvent } from '../meta/outbox/outbox.js';
import { instantText } from '../respond/media-json.js';
import { signedFields } from './sign.js';

export interface PostDeps {
  readonly url: string;
  readonly keys: readonly Buffer[];
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** Why it failed: a text without anything secret. */
export type Posted = { readonly kind: 'sent' } | { readonly kind: 'failed'; readonly why: string };

/** Rejects only if the signal aborts. */
export async function post(deps: PostDeps, event: MediaEvent, signal: AbortSignal): Promise<Posted> {
  const { clock, timeoutMs: ms } = deps;
  const late = (): Error => new Error(`no answer within ${formatDuration(ms)}`);
  try {
    const status = await withDeadline({ clock, ms, late, signal }, (ended) => send(deps, event, ended));
    return status >= 200 && status < 300 ? { kind: 'sent' } : { kind: 'failed', why: `answered ${status}` };
  } catch (thrown) {
    signal.throwIfAborted();
    return { kind: 'failed', why: reasonOf(thrown) };
  }
}

export function bodyOf({ type, at, data }: MediaEvent): string {
  return `{"type":${JSON.stringify(type)},"timestamp":${JSON.stringify(instantText(at))},"data":${data}}`;
}

async function send({ url, keys, clock }: PostDeps, event: MediaEvent, signal: AbortSignal): Promise<number> {
  const body = bodyOf(event);
  const sentAtSeconds = Math.floor(clock.now() / 1_000);
  const response = await fetch(url, {
    method: 'POST',
    redirect: 'manual',
    signal,
    headers: { 'content-type': 'application/json', ...signedFields(keys, { name: event.name, sentAtSeconds, body }) },
    body,
  });
  await response.body?.cancel();
  return response.status;
}

/** fetch says only `fetch failed`; the reason is in its cause. */
function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const { cause } = thrown;
  if (!(cause instanceof Error)) return thrown.message;
  return 'code' in cause && typeof cause.code === 'string' ? cause.code : cause.message;
}
