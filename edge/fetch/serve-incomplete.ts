/** Answers a range from what is held of a response that is not whole (RFC 9111 3.3). */

import type { IncompleteResponse } from '../cache/cache.js';
import type { Answer, ClientSignal } from '../request.js';
import { respond, spansAnswered } from '../respond/respond.js';
import type { Decision } from '../rfc9111/decide.js';
import { missingOf } from '../rfc9111/spans.js';
import type { Engine } from './engine.js';
import type { CacheRequest } from './origin-request.js';

/**
 * Undefined where it cannot: an incomplete response answers nothing but ranges
 * that lie wholly within it, so neither the whole, nor a 304, nor a HEAD.
 */
export function serveFromPart(
  engine: Engine,
  { request, endsAt }: CacheRequest,
  { entry, spans, body }: IncompleteResponse,
  decision: Decision,
  client: ClientSignal,
): Answer | undefined {
  if (decision.kind !== 'hit' && decision.kind !== 'hit_stale') return undefined;
  const rules = engine.responding();
  const wanted = spansAnswered(request, entry, entry.sizeBytes, rules);
  if (wanted === undefined || wanted.some((span) => missingOf(spans, span).length > 0)) return undefined;
  const now = engine.clock.now();
  const detail = decision.kind === 'hit' ? 'partial' : 'max-stale';
  const cacheStatus = engine.cacheStatus({ kind: 'hit', ttlMs: entry.staleAt - now, detail });
  const reply = respond(request, { entry, body, cacheStatus, endsAt, gone: client.gone() }, now, rules);
  return { kind: 'reply', reply, outcome: decision.kind === 'hit' ? 'hit_memory' : 'stale', mediaId: entry.mediaId };
}
