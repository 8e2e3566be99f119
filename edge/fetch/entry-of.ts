/** Whether an answer of the origin may be kept for an errand, and as what entry. Pure but for the configuration it reads. */

import { type ByteSpan, parseContentRange } from '../../src/http/range.js';
import { headerOf } from '../../src/http/reply.js';
import { parseSha256 } from '../../src/ids.js';
import type { Entry } from '../entry.js';
import { keyOf } from '../key.js';
import { type StoredHead, type StoreRefusal, storable } from '../rfc9111/storable.js';
import type { Answered } from '../upstream/request.js';
import type { Engine } from './engine.js';
import { type CacheRequest, selecting } from './origin-request.js';
import { applyRules, type RuleResult } from './rules.js';

export type StoreDecision =
  | { readonly kind: 'store'; readonly entry: Entry; readonly ruleResult: RuleResult }
  /** RFC 9111 3.3: one part; `entry` is that of the whole. */
  | { readonly kind: 'store_part'; readonly entry: Entry; readonly ruleResult: RuleResult; readonly span: ByteSpan }
  | { readonly kind: 'refuse'; readonly reason: StoreRefusal };

export function entryOf(
  engine: Pick<Engine, 'policy' | 'clock' | 'storing'>,
  wanted: CacheRequest,
  method: 'GET' | 'HEAD',
  answered: Answered,
): StoreDecision {
  const ruleResult = applyRules(engine.policy().rules, {
    pathKind: wanted.target.pathKind,
    contentType: headerOf(answered.headers, 'content-type'),
    sizeBytes: wholeSizeOf(answered),
  });
  const verdict = storable({
    request: { method, header: selecting(wanted).header },
    response: answered,
    now: engine.clock.now(),
    rules: engine.storing,
    override: ruleResult,
  });
  switch (verdict.kind) {
    case 'refuse':
      return verdict;
    case 'store_part':
      return { ...verdict, entry: makeEntry(wanted, verdict.head, answered), ruleResult };
    case 'store': {
      const entry = makeEntry(wanted, verdict.head, answered);
      return {
        kind: 'store',
        entry: method === 'HEAD' ? entry : { ...entry, sizeBytes: answered.sizeBytes },
        ruleResult,
      };
    }
  }
}

function makeEntry({ target, fetchAs }: CacheRequest, head: StoredHead, answered: Answered): Entry {
  const selectedBy = fetchAs === 'client' ? head.selectedBy : {};
  return {
    ...head,
    selectedBy,
    key: keyOf(target.primaryKey, selectedBy),
    primaryKey: target.primaryKey,
    mediaId: target.mediaId,
    sha256: head.sha256 ?? (fetchAs === 'client' ? null : etagHash(answered)),
  };
}

/** Rules speak of the size of the whole, also where a part of it came. */
function wholeSizeOf({ status, headers, sizeBytes }: Answered): number | null {
  return status === 206 ? (parseContentRange(headerOf(headers, 'content-range'))?.sizeBytes ?? null) : sizeBytes;
}

/** The entity tags of our own origin are hashes of the whole. */
function etagHash({ status, headers }: Answered): string | null {
  const tagged = status === 200 || status === 206;
  const match = tagged ? /^"sha256:([0-9a-f]{64})"$/.exec(headerOf(headers, 'etag') ?? '') : null;
  return match === null ? null : (parseSha256(match[1] ?? '') ?? null);
}
