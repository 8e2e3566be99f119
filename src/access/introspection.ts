/** RFC 7662: asks the Authentication Service whether a token is still active. */
import type { Clock } from '../clock.js';
import { errorFields, type Log } from '../log.js';
import type { AccessConfig } from './config.js';
import { fetchDocument } from './fetch-document.js';

export type Introspection = (token: string, signal: AbortSignal) => Promise<IntrospectionOutcome>;

export type IntrospectionOutcome =
  | { readonly kind: 'active' }
  | { readonly kind: 'revoked' }
  /** No answer, or too many open requests. */
  | { readonly kind: 'unavailable'; readonly retryAfterMs: number };

const ANSWER_MAX_BYTES = 65_536;

/** Undefined if no endpoint is configured. */
export function createIntrospection(
  config: AccessConfig['introspection'],
  clock: Clock,
  log: Log,
): Introspection | undefined {
  const { url, clientId, clientSecret, timeoutMs, retryMs, questionsMax } = config;
  if (url === null) return undefined;
  const authorization =
    clientId === null || clientSecret === null ? {} : { authorization: basic(clientId, clientSecret) };
  const limits = { timeoutMs, sizeMaxBytes: ANSWER_MAX_BYTES };
  let questions = 0;
  let restsUntilMs = Number.NEGATIVE_INFINITY;

  return async (token, signal) => {
    const restMs = restsUntilMs - clock.monotonicMs();
    if (restMs > 0) return { kind: 'unavailable', retryAfterMs: restMs };
    if (questions >= questionsMax) return { kind: 'unavailable', retryAfterMs: retryMs };
    questions += 1;
    try {
      const form = new URLSearchParams({ token, token_type_hint: 'access_token' });
      const answer = await fetchDocument({ url, form, ...authorization }, limits, clock, signal);
      const active = (answer as { readonly active?: unknown } | null)?.active;
      // RFC 7662 2.2: `active` is required and a boolean.
      if (typeof active !== 'boolean') throw new Error(`${url} does not say whether the token is active`);
      return { kind: active ? 'active' : 'revoked' };
    } catch (thrown) {
      restsUntilMs = clock.monotonicMs() + retryMs;
      if (!signal.aborted) log.warn(errorFields(thrown), 'a token cannot be introspected');
      return { kind: 'unavailable', retryAfterMs: retryMs };
    } finally {
      questions -= 1;
    }
  };
}

/** RFC 6749 2.3.1: both parts are form-encoded before they are joined. */
function basic(clientId: string, clientSecret: string): string {
  const encoded = [clientId, clientSecret].map((part) => new URLSearchParams({ '': part }).toString().slice(1));
  return `Basic ${Buffer.from(encoded.join(':')).toString('base64')}`;
}
