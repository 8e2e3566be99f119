/**
 * Parts of a representation (RFC 9111 3.3, 3.4): which of them may be put
 * together, what of a whole they cover and what is still missing. Spans in and
 * out are ascending and apart from each other.
 */
import { etagsMatchStrongly } from '../../src/http/etag.js';
import type { ByteSpan } from '../../src/http/range.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';

/** 3.4: only what shares a strong validator, and is of one size, is known to be of one piece. */
export function combinable(
  stored: { readonly headers: HeaderList; readonly sizeBytes: number | null },
  received: { readonly headers: HeaderList; readonly sizeBytes: number | null },
): boolean {
  const held = headerOf(stored.headers, 'etag');
  const given = headerOf(received.headers, 'etag');
  if (held === undefined || given === undefined || !etagsMatchStrongly(held, given)) return false;
  return stored.sizeBytes !== null && stored.sizeBytes === received.sizeBytes;
}

/** The spans with one more, joined where they touch or overlap. */
export function addSpan(spans: readonly ByteSpan[], added: ByteSpan): readonly ByteSpan[] {
  const before = spans.filter((span) => span.last + 1 < added.first);
  const behind = spans.filter((span) => span.first > added.last + 1);
  const touching = spans.filter((span) => span.last + 1 >= added.first && span.first <= added.last + 1);
  const first = Math.min(added.first, ...touching.map((span) => span.first));
  const last = Math.max(added.last, ...touching.map((span) => span.last));
  return [...before, { first, last }, ...behind];
}

/** What of `wanted` the spans do not cover. Empty: they hold all of it. */
export function missingOf(spans: readonly ByteSpan[], wanted: ByteSpan): readonly ByteSpan[] {
  const missing: ByteSpan[] = [];
  let next = wanted.first;
  for (const span of spans) {
    if (span.last < next) continue;
    if (span.first > wanted.last) break;
    if (span.first > next) missing.push({ first: next, last: span.first - 1 });
    next = span.last + 1;
  }
  if (next <= wanted.last) missing.push({ first: next, last: wanted.last });
  return missing;
}

/** RFC 9110 14.2: the Range that asks for one span. */
export function rangeField(span: ByteSpan): string {
  return `bytes=${span.first}-${span.last}`;
}
