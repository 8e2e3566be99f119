/**
 * What the origin says of copies that are stored: a 304 or the head of a HEAD
 * makes their heads new (RFC 9111 4.3.4, 4.3.5), or has them dropped.
 */
import { headerOf } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';
import { freshen, identify, judgeByHead } from '../rfc9111/validate.js';
import type { Answered } from '../upstream/request.js';
import type { Engine } from './engine.js';
import { type Errand, selecting } from './origin-request.js';
import { treatmentOf } from './rules.js';

/** A 304: the newer head over the stored bodies that it speaks of; the first of them is told. */
export function refresh(parts: Engine, errand: Errand, asked: readonly Entry[], answered: Answered): Entry | undefined {
  const identified = identify(asked, answered.headers);
  parts.counters.revalidated.add(1, { outcome: identified.kind === 'update' ? 'unchanged' : 'contradicted' });
  const confirmed = identified.kind === 'update' ? identified.entries : onlyAsked(errand, asked);
  const fresh = confirmed.map((entry) => freshened(parts, errand, entry, answered));
  return fresh.find((entry) => entry !== undefined);
}

/**
 * RFC 9111 4.3.4 knows no use for a 304 that names another representation than
 * any that is stored. Where one copy alone was asked about, by its own validator,
 * it can mean no other (RFC 9110 15.4.5), and origins that say so get along with
 * other caches; its validator is not taken over. Our own origin never does.
 */
function onlyAsked(errand: Errand, asked: readonly Entry[]): readonly Entry[] {
  return errand.behalf === 'client' && asked.length === 1 ? asked : [];
}

/** The head of a HEAD: what is held holds on under it, or goes, since a GET would get another. */
export function compareHead(parts: Engine, errand: Errand, entry: Entry, answered: Answered): void {
  const verdict = judgeByHead(entry, answered);
  switch (verdict) {
    case 'freshen':
      parts.counters.revalidated.add(1, { outcome: 'unchanged' });
      freshened(parts, errand, entry, answered);
      break;
    case 'stale':
      parts.counters.revalidated.add(1, { outcome: 'changed' });
      parts.cache.drop(entry.key, 'invalidated');
      break;
    case 'nothing':
      break;
  }
}

/** The stored copy under its newer head; dropped where that forbids to keep it. */
function freshened(parts: Engine, errand: Errand, stored: Entry, answered: Answered): Entry | undefined {
  const { rules } = parts.policy();
  const treatment = treatmentOf(rules, {
    pathKind: errand.place.pathKind,
    contentType: headerOf(stored.headers, 'content-type'),
    sizeBytes: stored.sizeBytes,
  });
  const verdict = freshen({
    entry: stored,
    received: answered,
    request: { method: 'GET', header: selecting(errand).header },
    now: parts.clock.now(),
    rules: parts.storing,
    override: treatment,
  });
  if (verdict.kind !== 'store') {
    parts.cache.drop(stored.key, 'invalidated');
    return undefined;
  }
  const { key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 } = stored;
  const entry: Entry = { ...verdict.head, key, primaryKey, mediaId, selectedBy, sizeBytes, sha256 };
  parts.cache.refresh(entry);
  return entry;
}
