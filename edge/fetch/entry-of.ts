/** Whether an answer of the origin may be kept for an errand, and as what entry. Pure but for the configuration it reads. */

import { type ByteSpan, parseContentRange } from '../../src/http/range.js';
import { headerOf } from '../../src/http/reply.js';
import { parseSha256 } from '../../src/ids.js';
import type { Entry } from '../entry.js';
import { keyOf } from '../key.js';
import { type StoredHead, type StoreRefusal, storable } from '../rfc9111/storable.js';
import type { Answered } from '../upstream/request.js';
import type { Engine } from './engine.js';
import { type Errand, selecting } from './origin-request.js';
import { type Treatment, treatmentOf } from './rules.js';

export type Judged =
  | { readonly kind: 'store'; readonly entry: Entry; readonly treatment: Treatment }
  /** RFC 9111 3.3: one part; `entry` is that of the whole. */
  | { readonly kind: 'store_part'; readonly entry: Entry; readonly treatment: Treatment; readonly span: ByteSpan }
  | { readonly kind: 'refuse'; readonly reason: StoreRefusal };

export function judge(
  parts: Pick<Engine, 'policy' | 'clock' | 'storing'>,
  errand: Errand,
  method: 'GET' | 'HEAD',
  answered: Answered,
): Judged {
  const treatment = treatmentOf(parts.policy().rules, {
    pathKind: errand.place.pathKind,
    contentType: headerOf(answered.headers, 'content-type'),
    sizeBytes: wholeSizeOf(answered),
  });
  const verdict = storable({
    request: { method, header: selecting(errand).header },
    response: answered,
    now: parts.clock.now(),
    rules: parts.storing,
    override: treatment,
  });
  switch (verdict.kind) {
    case 'refuse':
      return verdict;
    case 'store_part':
      return { ...verdict, entry: entryOf(errand, verdict.head, answered), treatment };
    case 'store': {
      const entry = entryOf(errand, verdict.head, answered);
      return {
        kind: 'store',
        entry: method === 'HEAD' ? entry : { ...entry, sizeBytes: answered.sizeBytes },
        treatment,
      };
    }
  }
}

function entryOf({ place, behalf }: Errand, head: StoredHead, answered: Answered): Entry {
  const selectedBy = behalf === 'client' ? head.selectedBy : {};
  return {
    ...head,
    selectedBy,
    key: keyOf(place.primaryKey, selectedBy),
    primaryKey: place.primaryKey,
    mediaId: place.mediaId,
    sha256: head.sha256 ?? (behalf === 'client' ? null : etagHash(answered)),
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
