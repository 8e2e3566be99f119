/**
 * What the origin says about stored responses: a 304, or a response to HEAD,
 * updates their heads (RFC 9111 4.3.4, 4.3.5) or makes them invalid.
 */
import type { Entry } from '../entry.js';
import type { ReceivedHead } from '../rfc9111/freshness.js';
import { freshen, identify, judgeByHead } from '../rfc9111/validate.js';
import type { Answered } from '../upstream/request.js';
import { type CacheRequest, selecting } from './cache-request.js';
import type { Engine } from './engine.js';
import { applyRulesTo, type RuleResult } from './rules.js';

/** Updates the stored responses that a 304 speaks of. Returns the first of them that may still be stored. */
export function refresh(
  engine: Engine,
  wanted: CacheRequest,
  stored: readonly Entry[],
  answered: Answered,
): Entry | undefined {
  const identified = identify(stored, answered.headers);
  engine.counters.revalidated.add(1, { outcome: identified.kind === 'update' ? 'unchanged' : 'contradicted' });
  const confirmed = identified.kind === 'update' ? identified.entries : onlyCandidate(wanted, stored);
  const fresh = confirmed.map((entry) => freshenStored(engine, wanted, entry, answered));
  return fresh.find((entry) => entry !== undefined);
}

/**
 * RFC 9111 4.3.4 has no use for a 304 that names another representation than
 * the stored ones. But if one stored response alone was asked about, by its own
 * validator, the 304 can mean no other (RFC 9110 15.4.5), and origins that
 * answer so work with other caches. The validator of the 304 is not adopted.
 * Our own origin never answers so.
 */
function onlyCandidate(wanted: CacheRequest, stored: readonly Entry[]): readonly Entry[] {
  return wanted.fetchAs === 'client' && stored.length === 1 ? stored : [];
}

/** RFC 9111 4.3.5: a response to HEAD updates the stored response, or shows that a GET would get another one. */
export function compareHead(engine: Engine, wanted: CacheRequest, entry: Entry, answered: Answered): void {
  switch (judgeByHead(entry, answered)) {
    case 'freshen':
      engine.counters.revalidated.add(1, { outcome: 'unchanged' });
      freshenStored(engine, wanted, entry, answered);
      break;
    case 'stale':
      engine.counters.revalidated.add(1, { outcome: 'changed' });
      engine.cache.drop(entry.key, 'invalidated');
      break;
    case 'nothing':
      break;
  }
}

/** Puts the newer head over the stored body, or drops both if that head forbids storing. */
function freshenStored(engine: Engine, wanted: CacheRequest, entry: Entry, answered: Answered): Entry | undefined {
  const fresh = freshenEntry(engine, wanted, entry, answered);
  if (fresh === undefined) engine.cache.drop(entry.key, 'invalidated');
  else engine.cache.refresh(fresh.entry);
  return fresh?.entry;
}

/** RFC 9111 3.2: an entry with the fields of a newer head in the place of its own. Undefined if that head forbids storing. */
export function freshenEntry(
  engine: Engine,
  wanted: CacheRequest,
  entry: Entry,
  received: ReceivedHead,
): { readonly entry: Entry; readonly ruleResult: RuleResult } | undefined {
  const ruleResult = applyRulesTo(entry, engine.policy().rules);
  const decision = freshen({
    entry,
    received,
    request: { method: 'GET', header: selecting(wanted).header },
    now: engine.clock.now(),
    rules: engine.storing,
    override: ruleResult,
  });
  if (decision.kind !== 'store') return undefined;
  const { key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 } = entry;
  return { entry: { ...decision.head, key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 }, ruleResult };
}
