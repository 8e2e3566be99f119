/** Whether a response of the origin may be stored for a request, and as which entry. */
import { type ByteSpan, parseContentRange } from '../../src/http/range.js';
import { headerOf } from '../../src/http/reply.js';
import { parseSha256 } from '../../src/ids.js';
import type { Entry } from '../entry.js';
import { keyOf } from '../key.js';
import { type StoredHead, type StoreRefusal, storable } from '../rfc9111/storable.js';
import type { Answered } from '../upstream/request.js';
import { type CacheRequest, selecting } from './cache-request.js';
import type { Engine } from './engine.js';
import { applyRules, type RuleResult } from './rules.js';

export type StoreDecision =
  | { readonly kind: 'store'; readonly entry: Entry; readonly ruleResult: RuleResult }
  /** RFC 9111 3.3: the bytes of one range; `entry` is that of the whole. */
  | { readonly kind: 'store_range'; readonly entry: Entry; readonly ruleResult: RuleResult; readonly span: ByteSpan }
  | { readonly kind: 'refuse'; readonly reason: StoreRefusal };

export function entryOf(
  engine: Pick<Engine, 'policy' | 'clock' | 'storing'>,
  wanted: CacheRequest,
  method: 'GET' | 'HEAD',
  answered: Answered,
): StoreDecision {
  const ruleResult = applyRules(engine.policy().rules, {
    pathKind: wanted.target.pathKind,
    headers: answered.headers,
    sizeBytes: wholeSizeOf(answered),
  });
  const decision = storable({
    request: { method, header: selecting(wanted).header },
    response: answered,
    now: engine.clock.now(),
    rules: engine.storing,
    override: ruleResult,
  });
  if (decision.kind === 'refuse') return decision;
  const entry = makeEntry(wanted, decision.head, answered);
  if (decision.kind === 'store_range') return { kind: 'store_range', entry, ruleResult, span: decision.span };
  // The size of a body is that of the body; only a response to HEAD has nothing but its Content-Length.
  return { kind: 'store', entry: method === 'HEAD' ? entry : { ...entry, sizeBytes: answered.sizeBytes }, ruleResult };
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

/** Rules match on the size of the whole, also when only a range of it arrives. */
function wholeSizeOf({ status, headers, sizeBytes }: Answered): number | null {
  return status === 206 ? (parseContentRange(headerOf(headers, 'content-range'))?.sizeBytes ?? null) : sizeBytes;
}

/** The entity tags of our own origin are hashes of the whole. */
function etagHash({ status, headers }: Answered): string | null {
  const tagged = status === 200 || status === 206;
  const match = tagged ? /^"sha256:([0-9a-f]{64})"$/.exec(headerOf(headers, 'etag') ?? '') : null;
  return match === null ? null : (parseSha256(match[1] ?? '') ?? null);
}
