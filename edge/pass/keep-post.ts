/**
 * Stores the response to a POST if it says that it answers a later GET of the
 * same target, and how long it stays fresh (RFC 9110 9.3.3, RFC 9111 4). Only
 * in generic mode: the media service sends no such response.
 */
import { contentLength } from '../../src/http/head.js';
import type { Entry } from '../entry.js';
import type { Engine } from '../fetch/engine.js';
import { applyRules } from '../fetch/rules.js';
import { keyOf } from '../key.js';
import { type StoredHead, storable } from '../rfc9111/storable.js';
import type { BodySink, PassedAnswer } from './config.js';
import { BASE } from './invalidate-after.js';

export function keepPosted(engine: Engine, answer: PassedAnswer): BodySink | undefined {
  if (engine.mode === 'media' || answer.method !== 'POST') return undefined;
  const { cache, storing, uncacheable } = engine;
  const { target, status, headers } = answer;
  const sizeBytes = contentLength(headers);
  const { fill: limits, rules } = engine.policy();
  if (sizeBytes !== null && sizeBytes > limits.objectMaxBytes) return undefined;
  const ruleResult = applyRules(rules, { pathKind: 'other', headers, sizeBytes });
  const receivedAt = engine.clock.now();
  const verdict = storable({
    request: { method: 'POST', header: (name) => answer.header(name), uri: BASE + target },
    response: { status, headers, requestedAt: receivedAt - answer.tookMs, receivedAt },
    now: receivedAt,
    rules: storing,
    override: ruleResult,
  });
  if (verdict.kind !== 'store') return undefined;
  uncacheable.forget(target);
  const fill = cache.fill(entryOf(target, verdict.head, sizeBytes), ruleResult.tiers);
  let ended = false;
  return {
    write: (chunk) => fill.write(chunk),
    end() {
      ended = true;
      void fill.end();
    },
    abort(reason) {
      if (!ended) fill.abort(reason);
    },
  };
}

function entryOf(target: string, head: StoredHead, sizeBytes: Entry['sizeBytes']): Entry {
  return { ...head, key: keyOf(target, head.selectedBy), primaryKey: target, mediaId: null, sizeBytes };
}
