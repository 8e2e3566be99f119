/**
 * What the origin says of copies that are stored: a 304 or the head of a HEAD
 * makes their heads new (RFC 9111 4.3.4, 4.3.5), or has them dropped.
 */
import { headerOf } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';
import { freshen, identify, judgeByHead } from '../rfc9111/validate.js';
import type { Answered } from '../upstream/request.js';
import type { Engine } from './engine.js';
import { type CacheRequest, selecting } from './origin-request.js';
import { applyRules } from './rules.js';

/** A 304: the newer head over the stored bodies that it speaks of; the first of them is told. */
export function refresh(
  engine: Engine,
  wanted: CacheRequest,
  stored: readonly Entry[],
  answered: Answered,
): Entry | undefined {
  const identified = identify(stored, answered.headers);
  engine.counters.revalidated.add(1, { outcome: identified.kind === 'update' ? 'unchanged' : 'contradicted' });
  const confirmed = identified.kind === 'update' ? identified.entries : onlyAsked(wanted, stored);
  const fresh = confirmed.map((entry) => freshened(engine, wanted, entry, answered));
  return fresh.find((entry) => entry !== undefined);
}

/**
 * RFC 9111 4.3.4 knows no use for a 304 that names another representation than
 * any that is stored. Where one copy alone was asked about, by its own validator,
 * it can mean no other (RFC 9110 15.4.5), and origins that say so get along with
 * other caches; its validator is not taken over. Our own origin never does.
 */
function onlyAsked(wanted: CacheRequest, stored: readonly Entry[]): readonly Entry[] {
  return wanted.fetchAs === 'client' && stored.length === 1 ? stored : [];
}

/** The head of a HEAD: what is held holds on under it, or goes, since a GET would get another. */
export function compareHead(engine: Engine, wanted: CacheRequest, entry: Entry, answered: Answered): void {
  const verdict = judgeByHead(entry, answered);
  switch (verdict) {
    case 'freshen':
      engine.counters.revalidated.add(1, { outcome: 'unchanged' });
      freshened(engine, wanted, entry, answered);
      break;
    case 'stale':
      engine.counters.revalidated.add(1, { outcome: 'changed' });
      engine.cache.drop(entry.key, 'invalidated');
      break;
    case 'nothing':
      break;
  }
}

/** The stored copy under its newer head; dropped where that forbids to keep it. */
function freshened(engine: Engine, wanted: CacheRequest, stored: Entry, answered: Answered): Entry | undefined {
  const { rules } = engine.policy();
  const ruleResult = applyRules(rules, {
    pathKind: wanted.target.pathKind,
    contentType: headerOf(stored.headers, 'content-type'),
    sizeBytes: stored.sizeBytes,
  });
  const verdict = freshen({
    entry: stored,
    received: answered,
    request: { method: 'GET', header: selecting(wanted).header },
    now: engine.clock.now(),
    rules: engine.storing,
    override: ruleResult,
  });
  if (verdict.kind !== 'store') {
    engine.cache.drop(stored.key, 'invalidated');
    return undefined;
  }
  const { key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 } = stored;
  const entry: Entry = { ...verdict.head, key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 };
  engine.cache.refresh(entry);
  return entry;
}
