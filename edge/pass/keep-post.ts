/**
 * Keeps the answer to a POST that says that a GET of the same target would find
 * it, and for how long (RFC 9110 9.3.3, RFC 9111 4). In generic mode alone: the
 * media service answers no POST so.
 */
import { contentLength } from '../../src/http/head.js';
import { headerOf } from '../../src/http/reply.js';
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
  const { fill, rules } = engine.policy();
  if (sizeBytes !== null && sizeBytes > fill.objectMaxBytes) return undefined;
  const treatment = applyRules(rules, {
    pathKind: 'other',
    contentType: headerOf(headers, 'content-type'),
    sizeBytes,
  });
  const receivedAt = engine.clock.now();
  const verdict = storable({
    request: { method: 'POST', header: (name) => answer.header(name), uri: BASE + target },
    response: { status, headers, requestedAt: receivedAt - answer.tookMs, receivedAt },
    now: receivedAt,
    rules: storing,
    override: treatment,
  });
  if (verdict.kind !== 'store') return undefined;
  uncacheable.forget(target);
  const filling = cache.fill(entryOf(target, verdict.head, sizeBytes), treatment.tiers);
  let ended = false;
  return {
    write: (chunk) => filling.write(chunk),
    end() {
      ended = true;
      void filling.end();
    },
    abort(reason) {
      if (!ended) filling.abort(reason);
    },
  };
}

function entryOf(target: string, head: StoredHead, sizeBytes: Entry['sizeBytes']): Entry {
  return { ...head, key: keyOf(target, head.selectedBy), primaryKey: target, mediaId: null, sizeBytes };
}
